//! One tenant's history: each step is told to the service and to the model, and both must say the same.

use std::fmt;
use std::sync::Arc;

use proto::error::{Classify as _, Reason};
use proto::limits::BLOCKS_PER_ALLOCATION;

use super::super::*;
use super::Figures;
use super::model::{Allocated, Call, Fate, Known, Model, Said, Started};
use super::steps::{Dice, Flaw, NAMES, Receipts, Request, Step, Which};
use crate::coordinator::blobs::{self, Page};
use crate::coordinator::collect::chunks::{self, Unreferenced};
use crate::coordinator::collect::hasten::{self, Walk};
use crate::coordinator::collect::{self, Blocks};
use crate::coordinator::layout::{self, ReadRange};
use crate::coordinator::undelete::{self, UndeleteBlob};
use crate::coordinator::{request, upload};
use crate::error::MetadataError;
use crate::figures;
use crate::nodes::Condemned;
use crate::store::records::{BlobRecord, UploadRecord, UploadState};

/// What every history may hold to begin with.
const QUOTA: Quota = Quota { max_bytes: Some(900), max_blobs: Some(7), ..Quota::UNLIMITED };

/// See the module.
pub(super) struct World {
    pub(super) seed: u64,
    pub(super) bench: Bench,
    pub(super) model: Model,
    pub(super) dice: Dice,
    pub(super) figures: Figures,
    /// Garbage rows that were there once.
    collected: Vec<Blocks>,
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            figures::print(format_args!("history {0} fails; MINI_TECTONIC_SEED={0} tells its steps", self.seed));
        }
    }
}

impl World {
    pub(super) fn new(engine: Arc<dyn Engine>, seed: u64) -> Self {
        let bench = Bench::over(engine, seed);
        let tenant = bench.register(&format!("tenant-{seed}"), QUOTA).unwrap();
        let model = Model::new(tenant.tenant, bench.tuning().clone(), tenant.record);
        let figures = Figures { histories: 1, ..Figures::default() };
        Self { seed, bench, model, dice: Dice::new(seed), figures, collected: Vec::new() }
    }

    pub(super) fn step(&mut self, step: &Step) {
        self.figures.steps += 1;
        match *step {
            Step::Start { declared, name, request } => self.start(declared, NAMES[name], request),
            Step::Commit { which, last, blocks, flaw } => self.commit(which, last, blocks, flaw),
            Step::Allocate { which, back, ahead, count, receipts } => {
                self.allocate(which, back, ahead, count, receipts);
            }
            Step::Abort { which } => self.abort(which),
            Step::Expire { which } => self.expire(which),
            Step::Delete { which, request } => self.delete(which, request),
            Step::Undelete { which, request } => self.undelete(which, request),
            Step::Collect { row, due } => self.collect(row, due),
            Step::Chunks { count } => self.chunks(count),
            Step::Hasten => self.hasten(),
            Step::Forget => self.forget(),
            Step::Wait { minutes } => self.bench.advance(Duration::from_secs(60 * minutes)),
            Step::WaitFor { moment, just_before } => self.wait_for(moment, just_before),
            Step::Quota { max_bytes, max_blobs, max_blob_bytes, max_open_uploads } => {
                let max_open_uploads = max_open_uploads.unwrap_or(Quota::UNLIMITED.max_open_uploads);
                self.quota(Quota { max_bytes, max_blobs, max_blob_bytes, max_open_uploads });
            }
            Step::Register => self.register(),
            Step::DropTenant => self.drop_tenant(),
            Step::Rotate => self.rotate(),
            Step::List { size, name } => self.list(size, NAMES[name]),
            Step::ListDeleted { size } => self.list_deleted(size),
            Step::Layout { which, offset, limit } => self.layout(which, offset, limit),
            Step::Look { which } => self.look(which),
        }
        let usage = self.bench.row::<UsageRecord>(&keys::usage(&self.model.tenant));
        assert_eq!(usage, self.model.usage_row(), "I11, after {step:?}");
    }

    /// Both say yes, or both refuse for one reason.
    fn agree<A: fmt::Debug, B: fmt::Debug>(
        &mut self,
        call: &'static str,
        said: Said<A>,
        answer: Result<B, MetadataError>,
    ) -> Option<(A, B)> {
        self.figures.count(call, answer.is_ok());
        match (said, answer) {
            (Ok(said), Ok(answer)) => Some((said, answer)),
            (Err(reason), Err(error)) => {
                assert_eq!(reason, error.reason(), "{call}: {error}");
                None
            }
            (said, answer) => panic!("{call}: the model says {said:?}, the service {answer:?}"),
        }
    }

    fn at(&self, which: Which, fits: impl Fn(&Known) -> bool) -> Option<usize> {
        let fitting = |at: &usize| which.fitting && fits(&self.model.known[*at]);
        let mut found: Vec<_> = (0..self.model.known.len()).rev().filter(fitting).collect();
        if found.is_empty() {
            found = (0..self.model.known.len()).rev().collect();
        }
        which.back.checked_rem(found.len()).map(|back| found[back])
    }

    fn opened(&self, declared: Option<u64>, name: &'static str) -> Known {
        let now_ms = self.bench.now_ms();
        let lease = u64::try_from(self.bench.tuning().upload_lease.as_millis()).unwrap();
        let upload = UploadRecord {
            state: UploadState::Pending,
            description: Description { display_name: name.to_owned(), ..Description::default() },
            declared_bytes: declared,
            block_size_bytes: BLOCK,
            planned_blocks: 0,
            reserved_bytes: declared.unwrap_or(0),
            sealed_blocks: 0,
            sealed_bytes: 0,
            sealed_prefix: 0,
            short_block: None,
            create_ms: now_ms,
            lease_expire_ms: now_ms + lease,
            start_epoch: EPOCH,
            end_epoch: None,
        };
        let blob = BlobId::generate(0, &SeededEntropy::new(0));
        Known { blob, upload, blocks: Vec::new(), fate: Fate::Upload }
    }

    fn wait_for(&mut self, moment: usize, just_before: bool) {
        let moments = self.model.moments(self.bench.now_ms());
        let Some(at_ms) = moment.checked_rem(moments.len()).map(|at| moments[at]) else { return };
        let wait_ms = at_ms - self.bench.now_ms() - u64::from(just_before);
        self.bench.advance(Duration::from_millis(wait_ms));
    }

    fn start(&mut self, declared: Option<u64>, name: &'static str, request: Request) {
        let (id, call, mut known) = (id_of(request), Call::Start { declared, name }, self.opened(declared, name));
        let now_ms = self.bench.now_ms();
        let said = self.model.start(&id, &call, &known, now_ms);
        let tenant = self.model.tenant.clone();
        let description = known.upload.description.clone();
        let request = own(&tenant, &id);
        let answer = self.bench.start_as(StartUpload { tenant, request, description, declared_bytes: declared });
        let Some((said, answer)) = self.agree("start", said, answer) else { return };
        assert_eq!(answer.upload.display_name, name);
        match said {
            Started::New { max_bytes } => {
                known.blob = answer.upload.blob;
                append(&mut known, &max_bytes, &answer.blocks);
                self.model.known.push(known);
                self.model.remember(&id, call, self.model.known.len() - 1, now_ms);
            }
            Started::Again(at) => {
                let known = &self.model.known[at];
                assert_eq!(answer.upload.blob, known.blob, "I4");
                let open = known.fate == Fate::Upload;
                let planned = if open { known.planned(0, u64::from(BLOCKS_PER_ALLOCATION)) } else { Vec::new() };
                assert_eq!(answer.blocks, planned);
            }
        }
    }

    fn allocate(&mut self, which: Which, back: u64, ahead: u64, count: u32, receipts: Receipts) {
        let Some(at) = self.at(which, Known::is_pending) else { return };
        let receipts = self.receipts(at, receipts);
        let known = &self.model.known[at];
        let (blob, first) = (known.blob, (known.blocks.len() as u64).saturating_sub(back) + ahead);
        let said = self.model.allocate(at, first, count, &receipts, self.bench.now_ms());
        let answer = self.bench.allocate(&self.model.tenant, blob, first, count, receipts);
        let Some((Allocated { mut after, before, new }, answer)) = self.agree("allocate", said, answer) else { return };
        let (again, planned) = answer.blocks.split_at(before.len().min(answer.blocks.len()));
        assert_eq!(again, before, "what was planned before is planned still");
        append(&mut after, &new, planned);
        assert_eq!(answer.upload.lease_expire_ms, Some(after.upload.lease_expire_ms));
        self.model.known[at] = after;
    }

    fn receipts(&self, at: usize, receipts: Receipts) -> Vec<Receipt> {
        let blocks = &self.model.known[at].blocks;
        let full = |block: &PlannedBlock| receipt(block, block.max_bytes);
        match receipts {
            Receipts::First(count) => blocks.iter().flatten().take(count).map(full).collect(),
            Receipts::Last => blocks.last().into_iter().flatten().map(full).collect(),
            Receipts::WrongSize => {
                blocks.iter().flatten().take(1).map(|block| receipt(block, block.max_bytes + 1)).collect()
            }
            Receipts::Foreign(which) => {
                let other = self.at(which, |_any| true).filter(|other| *other != at);
                let blocks = other.into_iter().flat_map(|other| self.model.known[other].blocks.iter().flatten());
                blocks.take(1).map(full).collect()
            }
        }
    }

    /// Commits what the first blocks hold, the last one perhaps not in full.
    fn commit(&mut self, which: Which, last: u64, blocks: usize, flaw: Flaw) {
        let Some(at) = self.at(which, Known::is_pending) else { return };
        let command = self.command(at, last, blocks, flaw);
        let now_ms = self.bench.now_ms();
        let said = self.model.commit(&command, at, now_ms);
        let CommitUpload { tenant, blob, size_bytes, sha256, receipts } = command;
        let answer = self.bench.commit(&tenant, blob, size_bytes, sha256, receipts);
        let Some((after, answer)) = self.agree("commit", said, answer) else { return };
        assert_eq!(Some(&answer), self.model.live(&after).as_ref());
        self.model.committed(at, after, now_ms);
    }

    fn command(&self, at: usize, last: u64, blocks: usize, flaw: Flaw) -> CommitUpload {
        let Known { blob, upload, blocks: planned, fate } = &self.model.known[at];
        let (tenant, blob) = (self.model.tenant.clone(), *blob);
        if let (Fate::Live(BlobRecord { size_bytes, sha256, .. }), Flaw::None) = (fate, flaw) {
            return CommitUpload { tenant, blob, size_bytes: *size_bytes, sha256: *sha256, receipts: Vec::new() };
        }
        let sealed = |block: &PlannedBlock| block.record.sealed.map(|sums| sums.size_bytes);
        let stated = |block: &PlannedBlock| receipt(block, sealed(block).unwrap_or(block.max_bytes));
        let mut receipts: Vec<_> = planned.iter().flatten().take(blocks.max(1)).map(stated).collect();
        if upload.declared_bytes.is_none()
            && let Some(end) = receipts.last_mut()
            && planned.iter().flatten().any(|block| block.block == end.block && sealed(block).is_none())
        {
            end.size_bytes = end.size_bytes.min(last);
        }
        let whole: u64 = receipts.iter().map(|receipt| receipt.size_bytes).sum();
        let size_bytes = if flaw == Flaw::Size { whole + 1 } else { whole };
        let sum = if whole == 0 { Sha256::of(b"") } else { content(0) };
        let sha256 = if flaw == Flaw::Sum { content(99) } else { sum };
        if let Flaw::Missing(index) = flaw
            && index < receipts.len()
        {
            receipts.remove(index);
        }
        CommitUpload { tenant, blob, size_bytes, sha256, receipts }
    }

    fn abort(&mut self, which: Which) {
        let Some(at) = self.at(which, Known::is_pending) else { return };
        let said = self.model.abort(at, self.bench.now_ms());
        let answer = self.bench.abort(&self.model.tenant, self.model.known[at].blob);
        self.agree("abort", said, answer);
    }

    fn expire(&mut self, which: Which) {
        let Some(at) = self.at(which, Known::is_pending) else { return };
        let said = self.model.expire(at, self.bench.now_ms());
        let expired = self.bench.expire(&self.model.tenant, self.model.known[at].blob).unwrap();
        self.figures.count("expire", expired);
        assert_eq!(expired, said);
    }

    fn delete(&mut self, which: Which, request: Request) {
        let Some(at) = self.at(which, Known::is_live) else { return };
        let said = self.model.delete(&id_of(request), at, self.bench.now_ms());
        let answer = self.bench.delete(&self.model.tenant, &id_of(request), self.model.known[at].blob);
        self.agree("delete", said, answer);
    }

    fn undelete(&mut self, which: Which, request: Request) {
        let Some(at) = self.at(which, Known::is_deleted) else { return };
        let (tenant, blob) = (self.model.tenant.clone(), self.model.known[at].blob);
        let said = self.model.undelete(&id_of(request), at, self.bench.now_ms());
        let command = UndeleteBlob { request: own(&tenant, &id_of(request)), tenant, blob };
        let answer = self.bench.decide(move |view, context| undelete::decide(view, context, &command));
        let Some((said, answer)) = self.agree("undelete", said, answer) else { return };
        assert_eq!((answer.blob, answer.record), (blob, said));
    }

    /// Also rows that are gone are tried, as a second collector would.
    fn collect(&mut self, row: usize, due: bool) {
        let is_due = |blocks: &Blocks| blocks.not_before_ms <= self.bench.now_ms();
        let rows = self.model.garbage.values().map(|(blocks, _)| *blocks);
        let mut rows: Vec<_> = rows.filter(|blocks| !due || is_due(blocks)).collect();
        rows.extend(self.collected.pop());
        let Some(blocks) = row.checked_rem(rows.len()).map(|at| rows[at]) else { return };
        let said = self.model.collect(&blocks, self.bench.now_ms());
        let step = self.bench.decide(move |view, context| collect::step(view, context, &blocks)).unwrap();
        self.figures.count("collect", step != collect::Step::NotDue);
        assert_eq!(step, said, "{blocks:?}");
        self.collected.push(blocks);
    }

    fn chunks(&mut self, count: usize) {
        let now_ms = self.bench.now_ms();
        let rows: Vec<_> = self.model.chunks.keys().take(count).copied().collect();
        let due: Vec<_> = rows.iter().filter(|(not_before_ms, _)| *not_before_ms <= now_ms).collect();
        let condemned = due.iter().map(|row| {
            let record = &self.model.chunks[row];
            let condemned =
                Condemned { node: record.node, tenant: record.tenant.clone(), binding: record.binding(row.1) };
            (**row, condemned)
        });
        let said = Unreferenced { chunks: condemned.collect(), ..Unreferenced::default() };
        let found = self.bench.decide(move |view, context| chunks::unreferenced(view, context, &rows)).unwrap();
        self.figures.count("look at chunks", !found.chunks.is_empty());
        assert_eq!(found, said);
        let gone: Vec<_> = found.chunks.iter().map(|(row, _)| *row).collect();
        gone.iter().for_each(|row| drop(self.model.chunks.remove(row)));
        self.bench.decide(move |_view, _context| Ok((chunks::gone(&gone), ()))).unwrap();
    }

    fn hasten(&mut self) {
        let tenant = self.model.tenant.clone();
        let said = self.model.hasten(self.bench.now_ms());
        let hastened = self.bench.decide(move |view, context| hasten::walk(view, context, &tenant, &Walk::default()));
        let Walk { hastened, more, .. } = hastened.unwrap();
        self.figures.count("hasten", hastened > 0);
        assert_eq!((hastened, more), (said, false));
    }

    fn forget(&mut self) {
        let scope = RequestScope::Tenant(self.model.tenant.clone());
        let requests: Vec<_> = self.model.requests.keys().map(|id| keys::request(&scope, id)).collect();
        let said = self.model.forget(self.bench.now_ms());
        let forgotten = self.bench.decide(move |view, context| request::forget(view, context, &requests)).unwrap();
        self.figures.count("forget", forgotten > 0);
        assert_eq!(forgotten, said);
    }

    fn quota(&mut self, quota: Quota) {
        let said = self.model.set_quota(quota);
        let command = UpdateTenant {
            tenant: self.model.tenant.clone(),
            request: admin(""),
            quota: Some(quota),
            traffic_class: None,
            rates: None,
        };
        let answer = self.bench.decide(move |view, context| tenants::update(view, context, &command));
        let Some(((), answer)) = self.agree("update tenant", said, answer) else { return };
        assert_eq!((Some(answer.record), answer.usage), (self.model.record.clone(), self.model.usage()));
    }

    fn register(&mut self) {
        let said = self.model.register();
        let answer = self.bench.register(self.model.tenant.as_str(), QUOTA);
        let Some(((), answer)) = self.agree("register", said, answer) else { return };
        assert_eq!((answer.record.quota, answer.record.create_ms), (QUOTA, self.bench.now_ms()));
        self.model.record = Some(answer.record);
    }

    fn drop_tenant(&mut self) {
        let said = self.model.drop_tenant();
        let (tenant, request) = (self.model.tenant.clone(), admin(""));
        let answer = self.bench.decide(move |view, context| tenants::delete(view, context, &request, &tenant));
        self.agree("delete tenant", said, answer);
    }

    fn rotate(&mut self) {
        let (tenant, request) = (self.model.tenant.clone(), admin(""));
        let answer =
            self.bench.decide(move |view, context| tenants::rotate_token(view, context, &request, &tenant, None));
        let said = self.model.record.clone().ok_or(Reason::TenantNotFound);
        let Some((mut record, token)) = self.agree("rotate token", said, answer) else { return };
        record.previous_token = Some(std::mem::replace(&mut record.token, token.key_id));
        self.model.record = Some(record);
    }

    /// All pages of a listing, each but the last as long as asked for.
    fn pages<T>(&self, size: usize, page: impl AsyncFn(&dyn Engine, Option<&[u8]>) -> Page<T>) -> Vec<Vec<T>> {
        let (mut pages, mut after) = (Vec::new(), None::<Vec<u8>>);
        loop {
            let Page { entries, next } = self.bench.read(async |engine| page(engine, after.as_deref()).await);
            assert!(entries.len() <= size, "a page is bounded");
            pages.push(entries);
            after = next;
            if after.is_none() {
                return pages;
            }
        }
    }

    fn list(&mut self, size: usize, prefix: &str) {
        let tenant = &self.model.tenant;
        let page = async |engine: &dyn Engine, after: Option<&[u8]>| {
            blobs::list(engine, tenant, prefix, after, size).await.unwrap()
        };
        let (pages, listed) = (self.pages(size, page), self.model.listed(prefix));
        let expected: Vec<Vec<Blob>> = listed.chunks(size).map(<[Blob]>::to_vec).collect();
        let expected = if expected.is_empty() { vec![Vec::new()] } else { expected };
        self.figures.count("list", !listed.is_empty());
        assert_eq!(pages, expected, "prefix {prefix:?}");
    }

    fn list_deleted(&mut self, size: usize) {
        let (tenant, tuning) = (&self.model.tenant, self.bench.tuning());
        let page = async |engine: &dyn Engine, after: Option<&[u8]>| {
            blobs::list_deleted(engine, tuning, tenant, after, size).await.unwrap()
        };
        let listed: Vec<_> = self.pages(size, page).into_iter().flatten().collect();
        let listed: Vec<_> =
            listed.into_iter().map(|deleted| (deleted.blob.blob, deleted.delete_ms, deleted.due_ms)).collect();
        let mut expected: Vec<_> = self
            .model
            .known
            .iter()
            .filter_map(|known| match &known.fate {
                Fate::Deleted(tombstone) if !tombstone.collecting => {
                    Some((known.blob, tombstone.delete_ms, tombstone.due_ms?))
                }
                Fate::Upload | Fate::Live(_) | Fate::Deleted(_) | Fate::Gone => None,
            })
            .collect();
        expected.sort();
        self.figures.count("list deleted", !expected.is_empty());
        assert_eq!(listed, expected);
    }

    fn layout(&mut self, which: Which, offset: u64, limit: u64) {
        let Some(at) = self.at(which, Known::is_live) else { return };
        let known = &self.model.known[at];
        let (tenant, blob) = (&self.model.tenant, known.blob);
        let range = ReadRange { offset, limit };
        let answer = self.bench.read(async |engine| layout::get(engine, tenant, blob, range).await);
        let said = match self.model.live(known) {
            Some(live) if offset > live.record.size_bytes => Err(Reason::ReadOffsetOutOfRange),
            Some(live) => {
                let size = live.record.size_bytes;
                let end = if limit == 0 { size } else { size.min(offset + limit) };
                let blocks = known.blocks.iter().flatten();
                let held = |block: &&PlannedBlock| block.offset_bytes < end && block.offset_bytes + BLOCK > offset;
                let wanted: Vec<_> = blocks.filter(held).filter(|_block| end > offset).cloned().collect();
                Ok((live, wanted))
            }
            None => Err(Reason::BlobNotFound),
        };
        let Some(((live, wanted), answer)) = self.agree("layout", said, answer) else { return };
        let found: Vec<_> =
            answer.blocks.iter().map(|block| (block.block, block.offset_bytes, block.record.clone())).collect();
        let wanted: Vec<_> = wanted.into_iter().map(|block| (block.block, block.offset_bytes, block.record)).collect();
        assert_eq!((answer.blob, found, answer.next_read_offset), (live, wanted, None));
    }

    fn look(&mut self, which: Which) {
        let Some(at) = self.at(which, |_any| true) else { return };
        let (tenant, blob, now_ms) = (self.model.tenant.clone(), self.model.known[at].blob, self.bench.now_ms());
        let shown = self.bench.read(async |engine| blobs::get(engine, &tenant, blob).await);
        let live = self.model.live(&self.model.known[at]).ok_or(Reason::BlobNotFound);
        if let Some((live, shown)) = self.agree("get blob", live, shown) {
            assert_eq!(shown, live);
        }
        let shown = self.bench.read(async |engine| upload::get(engine, &tenant, blob, now_ms).await);
        let standing = self.model.known[at].standing(now_ms).ok_or(Reason::UploadNotFound);
        if let Some((standing, shown)) = self.agree("get upload", standing, shown) {
            assert_eq!(shown.standing, standing);
        }
    }
}

fn id_of(request: Request) -> String {
    request.map(|n| n.to_string()).unwrap_or_default()
}

/// Takes over the ids of newly planned blocks, whose sizes are known.
fn append(known: &mut Known, max_bytes: &[u64], planned: &[PlannedBlock]) {
    let sizes: Vec<_> = planned.iter().map(|block| block.max_bytes).collect();
    assert_eq!(sizes, max_bytes);
    for block in planned {
        let index = known.blocks.len() as u64;
        assert_eq!((block.record.index, block.offset_bytes), (index, index * BLOCK));
        assert_eq!((block.record.blob, block.record.generation, block.record.sealed), (known.blob, 1, None));
        known.blocks.push(Some(block.clone()));
    }
    known.upload.planned_blocks = known.blocks.len() as u64;
    if known.upload.declared_bytes.is_none() {
        known.upload.reserved_bytes += sizes.iter().sum::<u64>();
    }
}

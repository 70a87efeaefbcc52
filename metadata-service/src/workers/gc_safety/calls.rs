//! What clients do, and what the model learns from the answers.

use std::collections::BTreeMap;

use bytes::Bytes;
use proto::checksum::Sha256;
use proto::ids::BlobId;
use proto::limits::BLOCKS_PER_ALLOCATION;
use proto::receipt::{self, Receipt};
use proto::runtime::clock::millis;
use tokio::time::Instant;

use super::model::{Block, Fate, Known};
use super::steps::{Call, Which};
use super::world::{Answered, BLOCK, World};
use crate::coordinator::allocate::AllocateBlocks;
use crate::coordinator::commit::CommitUpload;
use crate::coordinator::delete::DeleteBlob;
use crate::coordinator::layout::ReadRange;
use crate::coordinator::request::RequestId;
use crate::coordinator::start::StartUpload;
use crate::coordinator::tenants::UpdateTenant;
use crate::coordinator::undelete::UndeleteBlob;
use crate::service::WritePlan;
use crate::store::keys::RequestScope;
use crate::store::records::{Description, Quota};

/// What every block holds, as far as receipts say.
fn content() -> Sha256 {
    Sha256::of(b"a block")
}

impl World {
    pub(super) async fn call(&mut self, call: Call) {
        match call {
            Call::Start(declared) => self.start(declared).await,
            Call::Allocate(which) => self.allocate(which).await,
            Call::Write(which) => self.write(which),
            Call::Commit(which) => self.commit(which).await,
            Call::Abort(which) => self.abort(which).await,
            Call::Delete(which) => self.delete(which).await,
            Call::Undelete(which) => self.undelete(which).await,
            Call::Repeat(which) => self.repeat(which).await,
            Call::Read(which) => self.read(which).await,
            Call::Quota(max_bytes) => self.quota(max_bytes).await,
        }
    }

    /// Mostly one of this fate, at times any.
    fn pick(&self, which: Which, fate: Fate) -> Option<usize> {
        let fitting = self.with_fate(fate);
        let which = usize::try_from(which).unwrap();
        match which.checked_rem(fitting.len()) {
            Some(at) if !self.dice.one_in(6) => Some(fitting[at]),
            Some(_) | None => which.checked_rem(self.model().known.len()),
        }
    }

    /// The same, if its client goes on with it.
    fn pick_active(&self, which: Which, fate: Fate) -> Option<usize> {
        let goes_on = |at: &usize| !matches!(self.model().known[*at].fate, Fate::Lost | Fate::Forgotten);
        self.pick(which, fate).filter(goes_on)
    }

    fn request(&self) -> RequestId {
        let id = format!("{:x}", self.dice.below(u64::MAX));
        RequestId { scope: RequestScope::Tenant(self.tenant.clone()), id }
    }

    async fn start(&mut self, declared: Option<u64>) {
        let (tenant, request) = (self.tenant.clone(), self.request());
        let command = StartUpload { tenant, request, description: Description::default(), declared_bytes: declared };
        let Ok(plan) = self.service.start_upload(command, None).await else { return };
        let known = Known {
            blob: plan.upload.blob,
            declared,
            blocks: BTreeMap::new(),
            fate: Fate::Open,
            lease_ms: 0,
            size_bytes: 0,
        };
        let at = {
            let mut model = self.model();
            model.known.push(known);
            model.known.len() - 1
        };
        self.note(at, &plan);
    }

    /// Takes a plan in, with the permissions to write.
    fn note(&self, at: usize, plan: &WritePlan) {
        let until = Instant::now() + self.service.tuning().capability_life;
        let mut model = self.model();
        let known = &mut model.known[at];
        known.lease_ms = plan.upload.lease_expire_ms.unwrap_or(0);
        for (planned, granted) in &plan.blocks {
            let [chunk] = &granted[..] else { panic!("a block has one chunk") };
            let write_until = (chunk.expire_ms, until);
            let place = (chunk.chunk.node, chunk.chunk.chunk);
            let block = Block { planned: planned.clone(), at: place, write_until, written: false, gone: false };
            known.blocks.entry(planned.record.index).or_insert(block).write_until = write_until;
        }
    }

    /// Plans more blocks, and gets fresh permission for those before; returns how many came.
    async fn allocate_from(&mut self, at: usize, first_block: u64, block_count: u32) -> u64 {
        let blob = self.model().known[at].blob;
        let tenant = self.tenant.clone();
        let command = AllocateBlocks { tenant, blob, first_block, block_count, receipts: Vec::new() };
        let Ok(plan) = self.service.allocate_blocks(command, &[], None).await else { return 0 };
        assert_eq!(self.model().known[at].fate, Fate::Open, "what is over takes no blocks");
        self.note(at, &plan);
        plan.blocks.len() as u64
    }

    async fn allocate(&mut self, which: Which) {
        let Some(at) = self.pick_active(which, Fate::Open) else { return };
        let planned = self.model().known[at].blocks.len() as u64;
        let from = self.dice.below(planned + 1);
        self.allocate_from(at, from, 4).await;
    }

    /// A writer uses its permissions while they last, whatever became of its upload.
    fn write(&self, which: Which) {
        let Some(at) = self.pick(which, Fate::Open) else { return };
        let first = self.dice.below(8);
        self.write_blocks(at, first, first + self.dice.below(8));
    }

    fn write_blocks(&self, at: usize, first: u64, end: u64) {
        let (now_ms, now) = (self.now_ms(), Instant::now());
        let not_before_ms = millis(self.service.tuning().capability_life + proto::limits::CLOCK_TOLERANCE);
        let mut model = self.model();
        let mut written = Vec::new();
        for block in model.known[at].blocks.range_mut(first..end).map(|(_, block)| block) {
            let (until_ms, until) = block.write_until;
            let permitted = now < until && now_ms <= until_ms && now_ms + not_before_ms >= until_ms;
            if permitted && !block.written && !self.nodes.is_away(block.at.0) {
                block.written = true;
                written.push(block.at);
            }
        }
        model.files.extend(written);
    }

    async fn commit(&mut self, which: Which) {
        let Some(at) = self.pick_active(which, Fate::Open) else { return };
        let mut first = 0;
        while self.allocate_from(at, first, BLOCKS_PER_ALLOCATION).await == u64::from(BLOCKS_PER_ALLOCATION)
            && self.model().known[at].declared.is_some()
        {
            first += u64::from(BLOCKS_PER_ALLOCATION);
        }
        self.write_blocks(at, 0, u64::MAX);
        let known = self.model().known[at].clone();
        let receipts = self.receipts(&known);
        let size_bytes = receipts.iter().map(|receipt| receipt.size_bytes).sum();
        let signed: Vec<Bytes> = receipts.iter().map(|receipt| self.sign(receipt)).collect();
        let sha256 = if receipts.is_empty() { Sha256::of(b"") } else { content() };
        let tenant = self.tenant.clone();
        let command = CommitUpload { tenant, blob: known.blob, size_bytes, sha256, receipts: Vec::new() };
        if self.service.commit_upload(command, &signed).await.is_err() {
            return;
        }
        let mut model = self.model();
        let known = &mut model.known[at];
        match known.fate {
            Fate::Open => (known.fate, known.size_bytes) = (Fate::Committed, size_bytes),
            Fate::Committed => return,
            fate @ (Fate::Deleted | Fate::Over | Fate::Lost | Fate::Forgotten) => {
                panic!("{} was committed although it is {fate:?}", known.blob)
            }
        }
        drop(model);
        self.done.commits += 1;
    }

    /// Receipts of the blocks that are written from the first on: of all that there are, or of an unknown size, of some.
    fn receipts(&self, known: &Known) -> Vec<Receipt> {
        let written = known.blocks.values().take_while(|block| block.written).count();
        let short = known.declared.is_none() && written > 0;
        let count = if short { 1 + usize::try_from(self.dice.below(written as u64)).unwrap() } else { written };
        let mut receipts: Vec<_> =
            known.blocks.values().take(count).map(|block| self.receipt(known.blob, block)).collect();
        if let Some(last) = receipts.last_mut().filter(|_last| short) {
            last.size_bytes = 1 + self.dice.below(BLOCK);
        }
        receipts
    }

    fn receipt(&self, blob: BlobId, block: &Block) -> Receipt {
        Receipt {
            cluster: self.service.cluster().id,
            node: block.at.0,
            blob,
            chunk: block.at.1,
            block: block.planned.block,
            generation: block.planned.record.generation,
            size_bytes: block.planned.max_bytes,
            sha256: content(),
            pieces_sha256: Sha256::of(b"pieces"),
        }
    }

    fn sign(&self, receipt: &Receipt) -> Bytes {
        receipt::sign(receipt, &self.service.registry().access(receipt.node).expect("every node is registered").0)
    }

    async fn abort(&mut self, which: Which) {
        let Some(at) = self.pick(which, Fate::Open) else { return };
        let (blob, fate) = self.model().fate_of(at);
        let aborted = self.service.abort_upload(self.tenant.clone(), blob).await;
        if aborted.is_ok() && fate == Fate::Open {
            self.model().known[at].fate = Fate::Over;
            self.done.aborts += 1;
        }
        assert!(aborted.is_err() || !matches!(fate, Fate::Committed | Fate::Deleted), "a blob was aborted");
    }

    async fn delete(&mut self, which: Which) {
        let Some(at) = self.pick(which, Fate::Committed) else { return };
        let (blob, fate) = self.model().fate_of(at);
        let request = self.request();
        let command = DeleteBlob { tenant: self.tenant.clone(), request: request.clone(), blob };
        let deleted = self.service.delete_blob(command).await;
        assert_eq!(deleted.is_ok(), fate == Fate::Committed, "{deleted:?}");
        if deleted.is_ok() {
            self.model().known[at].fate = Fate::Deleted;
            self.answered.push(Answered { request, blob, restores: false, at_ms: self.now_ms() });
            self.done.deletes += 1;
        }
    }

    async fn undelete(&mut self, which: Which) {
        let Some(at) = self.pick(which, Fate::Deleted) else { return };
        let (blob, fate) = self.model().fate_of(at);
        let request = self.request();
        let command = UndeleteBlob { tenant: self.tenant.clone(), request: request.clone(), blob };
        if self.service.undelete_blob(command).await.is_err() {
            assert_ne!(fate, Fate::Committed);
            return;
        }
        assert!(matches!(fate, Fate::Committed | Fate::Deleted), "what was no blob came back");
        self.model().known[at].fate = Fate::Committed;
        self.answered.push(Answered { request, blob, restores: true, at_ms: self.now_ms() });
        self.done.undeletes += u64::from(fate == Fate::Deleted);
    }

    /// While a request is remembered, its repeat changes nothing: the check after the step sees that.
    async fn repeat(&mut self, which: Which) {
        let Some(at) = usize::try_from(which).unwrap().checked_rem(self.answered.len()) else { return };
        let Answered { request, blob, restores, at_ms } = self.answered[at].clone();
        if self.latest_ms.max(self.now_ms()) >= at_ms + millis(self.service.tuning().request_id_remembered) {
            return;
        }
        let tenant = self.tenant.clone();
        if restores {
            drop(self.service.undelete_blob(UndeleteBlob { tenant, request, blob }).await);
        } else {
            self.service.delete_blob(DeleteBlob { tenant, request, blob }).await.unwrap();
        }
    }

    async fn read(&mut self, which: Which) {
        let Some(at) = self.pick(which, Fate::Committed) else { return };
        let blob = self.model().known[at].blob;
        let range = ReadRange { offset: 0, limit: 0 };
        let Ok(plan) = self.service.get_layout(&self.tenant, blob, range, None).await else { return };
        let life = self.service.tuning().capability_life;
        for granted in plan.blocks.iter().flat_map(|(_, granted)| granted) {
            self.model().permit((granted.chunk.node, granted.chunk.chunk), life);
        }
        self.done.reads += 1;
    }

    async fn quota(&self, max_bytes: u64) {
        let quota = Some(Quota { max_bytes: Some(max_bytes), ..Quota::UNLIMITED });
        let request = RequestId { scope: RequestScope::Admin, id: String::new() };
        let command = UpdateTenant { tenant: self.tenant.clone(), request, quota, traffic_class: None, rates: None };
        self.service.update_tenant(command).await.unwrap();
    }
}

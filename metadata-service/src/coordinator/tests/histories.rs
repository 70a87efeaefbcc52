//! Random histories against a model that only adds and subtracts (I4, I11).

use std::collections::BTreeMap;

use proptest::prelude::*;
use proto::error::{Classify as _, Reason};

use super::*;
use crate::store::records::{BlobRecord, DeletedRecord, UploadRecord, UploadState};

const LIMIT: u64 = 200;

#[derive(Debug, Clone)]
enum Step {
    Start { declared: Option<u64>, request: Option<u8> },
    Allocate { which: usize, count: u32, receipts: usize },
    Commit { which: usize, last: u64 },
    Repeat { which: usize },
    Abort { which: usize },
    Expire { which: usize },
    Delete { which: usize },
    Wait { minutes: u64 },
    Quota { max_bytes: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let which = 0usize..12;
    prop_oneof![
        4 => (proptest::option::of(0u64..70), proptest::option::of(0u8..4))
            .prop_map(|(declared, request)| Step::Start { declared, request }),
        4 => (which.clone(), 0u32..6, 0usize..5)
            .prop_map(|(which, count, receipts)| Step::Allocate { which, count, receipts }),
        5 => (which.clone(), 1u64..=BLOCK).prop_map(|(which, last)| Step::Commit { which, last }),
        2 => which.clone().prop_map(|which| Step::Repeat { which }),
        1 => which.clone().prop_map(|which| Step::Abort { which }),
        2 => which.clone().prop_map(|which| Step::Expire { which }),
        2 => which.prop_map(|which| Step::Delete { which }),
        1 => (1u64..45).prop_map(|minutes| Step::Wait { minutes }),
        1 => (0u64..2 * LIMIT).prop_map(|max_bytes| Step::Quota { max_bytes }),
    ]
}

#[derive(Debug, Clone, PartialEq)]
enum Fate {
    Open,
    Committed(Blob),
    Over,
    Deleted,
}

#[derive(Debug, Clone)]
struct Known {
    blob: BlobId,
    declared: Option<u64>,
    blocks: BTreeMap<u64, PlannedBlock>,
    fate: Fate,
}

impl Known {
    fn reserved(&self) -> u64 {
        self.declared.unwrap_or_else(|| self.blocks.values().map(|block| block.max_bytes).sum())
    }

    fn note(&mut self, blocks: &[PlannedBlock]) {
        for block in blocks {
            // The row may have been sealed since; everything that was promised must be the same.
            let first = self.blocks.entry(block.record.index).or_insert_with(|| block.clone());
            assert_eq!(
                (first.block, first.offset_bytes, first.max_bytes),
                (block.block, block.offset_bytes, block.max_bytes)
            );
        }
    }
}

struct World {
    bench: Bench,
    tenant: TenantId,
    quota: u64,
    known: Vec<Known>,
    requests: BTreeMap<u8, (Option<u64>, BlobId)>,
}

impl World {
    fn new() -> Self {
        let (bench, tenant) = Bench::with_tenant(Quota { max_bytes: Some(LIMIT), max_blobs: Some(8) });
        Self { bench, tenant, quota: LIMIT, known: Vec::new(), requests: BTreeMap::new() }
    }

    fn run(&mut self, step: &Step) {
        match *step {
            Step::Start { declared, request } => self.start(declared, request),
            Step::Allocate { which, count, receipts } => self.allocate(which, count, receipts),
            Step::Commit { which, last } => self.commit(which, last),
            Step::Repeat { which } => self.repeat(which),
            Step::Abort { which } => self.abort(which),
            Step::Expire { which } => self.expire(which),
            Step::Delete { which } => self.delete(which),
            Step::Wait { minutes } => self.bench.advance(Duration::from_secs(60 * minutes)),
            Step::Quota { max_bytes } => {
                self.bench.set_quota(&self.tenant, Quota { max_bytes: Some(max_bytes), max_blobs: Some(8) });
                self.quota = max_bytes;
            }
        }
        self.check();
    }

    fn index(&self, which: usize) -> Option<usize> {
        which.checked_rem(self.known.len())
    }

    fn start(&mut self, declared: Option<u64>, request: Option<u8>) {
        let request_id = request.map(|n| n.to_string()).unwrap_or_default();
        let before = self.promised();
        let started = self.bench.start(&self.tenant, &request_id, declared);
        if let Some((first, blob)) = request.and_then(|n| self.requests.get(&n)).copied() {
            match started {
                Ok(again) => assert_eq!((first, again.upload.blob), (declared, blob)),
                Err(error) if first != declared => assert_eq!(error.reason(), Reason::RequestIdReused),
                Err(error) => {
                    assert!(matches!(error.reason(), Reason::UploadExpired | Reason::UploadNotFound), "{error}");
                }
            }
            return;
        }
        let Ok(started) = started else { return };
        let mut known = Known { blob: started.upload.blob, declared, blocks: BTreeMap::new(), fate: Fate::Open };
        known.note(&started.blocks);
        assert!(before + known.reserved() <= self.quota, "granted beyond the quota");
        self.known.push(known);
        if let Some(n) = request {
            self.requests.insert(n, (declared, started.upload.blob));
        }
    }

    fn allocate(&mut self, which: usize, count: u32, receipts: usize) {
        let Some(at) = self.index(which) else { return };
        let known = self.known[at].clone();
        let before = self.promised();
        let receipts: Vec<_> =
            known.blocks.values().take(receipts).map(|block| receipt(block, block.max_bytes)).collect();
        let first = known.blocks.len() as u64;
        let Ok(more) = self.bench.allocate(&self.tenant, known.blob, first, count, receipts) else { return };
        assert_eq!(known.fate, Fate::Open);
        self.known[at].note(&more.blocks);
        let grown = self.known[at].reserved() - known.reserved();
        assert!(grown == 0 || before + grown <= self.quota, "granted beyond the quota");
    }

    fn commit(&mut self, which: usize, last: u64) {
        let Some(at) = self.index(which) else { return };
        let known = self.known[at].clone();
        let mut receipts: Vec<_> = known.blocks.values().map(|block| receipt(block, block.max_bytes)).collect();
        if let (None, Some(end)) = (known.declared, receipts.last_mut()) {
            end.size_bytes = end.size_bytes.min(last);
        }
        let size = receipts.iter().map(|receipt| receipt.size_bytes).sum();
        let sha256 = if size == 0 { Sha256::of(b"") } else { content(0) };
        match self.bench.commit(&self.tenant, known.blob, size, sha256, receipts) {
            Ok(blob) => match &known.fate {
                Fate::Open => self.known[at].fate = Fate::Committed(blob),
                Fate::Committed(first) => assert_eq!(&blob, first),
                fate @ (Fate::Over | Fate::Deleted) => panic!("{fate:?} was committed"),
            },
            Err(error) => assert!(!matches!(error, MetadataError::Bug(_) | MetadataError::Corrupt(_)), "{error:?}"),
        }
    }

    fn repeat(&mut self, which: usize) {
        let Some(at) = self.index(which) else { return };
        let Fate::Committed(first) = &self.known[at].fate else { return };
        let (size, sha256) = (first.record.size_bytes, first.record.sha256);
        let again = self.bench.commit(&self.tenant, first.blob, size, sha256, Vec::new()).unwrap();
        assert_eq!(&again, first);
    }

    fn abort(&mut self, which: usize) {
        let Some(at) = self.index(which) else { return };
        let aborted = self.bench.abort(&self.tenant, self.known[at].blob);
        match &mut self.known[at].fate {
            fate @ (Fate::Open | Fate::Over) => {
                aborted.unwrap();
                *fate = Fate::Over;
            }
            Fate::Committed(_) | Fate::Deleted => assert!(aborted.is_err()),
        }
    }

    fn expire(&mut self, which: usize) {
        let Some(at) = self.index(which) else { return };
        if self.bench.expire(&self.tenant, self.known[at].blob).unwrap() {
            assert_eq!(self.known[at].fate, Fate::Open);
            self.known[at].fate = Fate::Over;
        }
    }

    fn delete(&mut self, which: usize) {
        let Some(at) = self.index(which) else { return };
        let deleted = self.bench.delete(&self.tenant, "", self.known[at].blob);
        assert_eq!(deleted.is_ok(), matches!(self.known[at].fate, Fate::Committed(_)));
        if deleted.is_ok() {
            self.known[at].fate = Fate::Deleted;
        }
    }

    /// Used and reserved bytes as the model has them.
    fn promised(&self) -> u64 {
        let usage = self.expected();
        usage.used_bytes + usage.reserved_bytes
    }

    fn expected(&self) -> UsageRecord {
        let mut usage = UsageRecord::default();
        for known in &self.known {
            match &known.fate {
                Fate::Open => {
                    usage.reserved_blobs += 1;
                    usage.reserved_bytes += known.reserved();
                }
                Fate::Committed(blob) => {
                    usage.used_blobs += 1;
                    usage.used_bytes += blob.record.size_bytes;
                }
                Fate::Deleted => usage.retained_blobs += 1,
                Fate::Over => {}
            }
        }
        usage
    }

    /// The usage row is what the model says and what the rows add up to.
    fn check(&self) {
        let usage = self.bench.usage(&self.tenant);
        let blobs = self.bench.rows::<BlobRecord>(&keys::blobs(&self.tenant));
        let deleted = self.bench.rows::<DeletedRecord>(b"deleted/");
        let mut open = self.bench.rows::<UploadRecord>(keys::UPLOADS);
        open.retain(|(_, upload)| upload.state == UploadState::Pending);
        let counted = UsageRecord {
            used_bytes: blobs.iter().map(|(_, blob)| blob.size_bytes).sum(),
            used_blobs: blobs.len() as u64,
            reserved_bytes: open.iter().map(|(_, upload)| upload.reserved_bytes).sum(),
            reserved_blobs: open.len() as u64,
            retained_bytes: deleted.iter().map(|(_, deleted)| deleted.blob.size_bytes).sum(),
            retained_blobs: deleted.len() as u64,
        };
        assert_eq!(usage, counted, "I11: usage is what it counts");
        assert_eq!(usage, UsageRecord { retained_bytes: usage.retained_bytes, ..self.expected() });
        assert_eq!(self.bench.count(&keys::names(&self.tenant)), blobs.len(), "each blob is in the name index");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn i11_usage_is_what_it_counts_after_every_step(steps in proptest::collection::vec(step(), 1..60)) {
        let mut world = World::new();
        for step in &steps {
            world.run(step);
        }
    }
}

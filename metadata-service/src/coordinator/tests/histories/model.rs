//! What the service must answer, and which rows it must have, told a second time and as plainly as possible.
//!
//! Sums are added up anew instead of being kept, and nothing is shared with the service but the types of its records. Ids
//! are taken over from the service's answers; everything else is foretold, refusals with their reason.

mod collecting;

use std::collections::BTreeMap;

use proto::capability::ReadClaims;
use proto::error::Reason;
use proto::limits::BLOCKS_PER_ALLOCATION;
use proto::receipt::Receipt;
use proto::runtime::clock::millis;

use super::super::*;
use crate::coordinator::collect::Blocks;
use crate::coordinator::collect::chunks::ChunkRow;
use crate::coordinator::upload::Standing;
use crate::store::keys::GarbageKind;
use crate::store::records::{
    BlobRecord, BlockSums, DeletedRecord, GarbageChunkRecord, TenantRecord, UploadRecord, UploadState,
};

/// What the model says to a call.
pub(super) type Said<T> = Result<T, Reason>;

/// Blocks of an upload of unknown size that are planned at its start.
const FIRST_BLOCKS: u64 = 4;

/// What became of an upload.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Fate {
    /// It has a row as an upload.
    Upload,
    Live(BlobRecord),
    Deleted(DeletedRecord),
    /// The collector took it.
    Gone,
}

/// An upload or blob.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) blob: BlobId,
    pub(super) upload: UploadRecord,
    /// By index; `None` once the collector took it apart.
    pub(super) blocks: Vec<Option<PlannedBlock>>,
    pub(super) fate: Fate,
}

/// A call under a request id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Call {
    Start { declared: Option<u64>, name: &'static str },
    Delete(usize),
    Undelete(usize),
}

/// A request that is remembered.
#[derive(Debug, Clone)]
pub(super) struct Remembered {
    pub(super) call: Call,
    /// Which upload or blob it was about.
    pub(super) about: usize,
    pub(super) expire_ms: u64,
}

/// How a start goes well.
#[derive(Debug)]
pub(super) enum Started {
    New { max_bytes: Vec<u64> },
    Again(usize),
}

/// How an allocation goes well.
#[derive(Debug)]
pub(super) struct Allocated {
    pub(super) after: Known,
    pub(super) before: Vec<PlannedBlock>,
    pub(super) new: Vec<u64>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) tenant: TenantId,
    pub(super) tuning: Tuning,
    /// `None` once it was deleted.
    pub(super) record: Option<TenantRecord>,
    pub(super) known: Vec<Known>,
    pub(super) requests: BTreeMap<String, Remembered>,
    /// Garbage rows about blocks by their keys, with the first block that goes.
    pub(super) garbage: BTreeMap<Vec<u8>, (Blocks, u64)>,
    pub(super) chunks: BTreeMap<ChunkRow, GarbageChunkRecord>,
}

impl Known {
    fn open(&self, now_ms: u64) -> Said<()> {
        match self.fate {
            Fate::Upload if self.upload.state == UploadState::Pending && now_ms < self.upload.lease_expire_ms => Ok(()),
            Fate::Upload => Err(Reason::UploadExpired),
            Fate::Live(_) => Err(Reason::UploadCommitted),
            Fate::Deleted(_) | Fate::Gone => Err(Reason::UploadNotFound),
        }
    }

    pub(super) fn is_pending(&self) -> bool {
        self.fate == Fate::Upload && self.upload.state == UploadState::Pending
    }

    pub(super) fn is_live(&self) -> bool {
        matches!(self.fate, Fate::Live(_))
    }

    pub(super) fn is_deleted(&self) -> bool {
        matches!(self.fate, Fate::Deleted(_))
    }

    pub(super) fn standing(&self, now_ms: u64) -> Option<Standing> {
        match (&self.fate, self.upload.state) {
            (Fate::Upload, UploadState::Pending) if now_ms < self.upload.lease_expire_ms => Some(Standing::Pending),
            (Fate::Upload, UploadState::Pending | UploadState::Expired) => Some(Standing::Expired),
            (Fate::Upload, UploadState::Aborted) => Some(Standing::Aborted),
            (Fate::Live(_), _) => Some(Standing::Committed),
            (Fate::Deleted(_) | Fate::Gone, _) => None,
        }
    }

    /// Sizes of the blocks that would be planned up to `end`, with so many bytes of the quota left.
    fn next(&self, end: u64, left: u64) -> Vec<u64> {
        let planned = self.blocks.len() as u64;
        match self.upload.declared_bytes {
            Some(declared) => {
                let sizes = (planned..end).map(|index| declared.saturating_sub(index * BLOCK).min(BLOCK));
                sizes.take_while(|size| *size > 0).collect()
            }
            None if !self.upload.reserved_bytes.is_multiple_of(BLOCK) => Vec::new(),
            None => {
                let sizes = (planned..end).scan(left, |left, _index| {
                    let size = BLOCK.min(*left);
                    *left -= size;
                    Some(size)
                });
                sizes.take_while(|size| *size > 0).collect()
            }
        }
    }

    pub(super) fn planned(&self, first: u64, count: u64) -> Vec<PlannedBlock> {
        let within = |block: &&PlannedBlock| (first..first + count).contains(&block.record.index);
        self.blocks.iter().flatten().filter(within).cloned().collect()
    }

    fn seal(&mut self, receipts: &[Receipt]) -> Said<()> {
        receipts.iter().try_for_each(|receipt| self.seal_one(receipt))?;
        let unsealed = |block: &Option<PlannedBlock>| block.as_ref().is_none_or(|block| block.record.sealed.is_none());
        self.upload.sealed_prefix = self.blocks.iter().position(unsealed).unwrap_or(self.blocks.len()) as u64;
        Ok(())
    }

    fn seal_one(&mut self, receipt: &Receipt) -> Said<()> {
        let Known { upload, blocks, .. } = self;
        let block = blocks.iter_mut().flatten().find(|block| block.block == receipt.block);
        let block = block.ok_or(Reason::ReceiptInvalid)?;
        let Receipt { size_bytes, sha256, pieces_sha256, .. } = *receipt;
        if let Some(sums) = block.record.sealed {
            return if sums.size_bytes == size_bytes { Ok(()) } else { Err(Reason::ReceiptInvalid) };
        }
        let exact = upload.declared_bytes.is_some();
        if size_bytes == 0 || size_bytes > block.max_bytes || (exact && size_bytes != block.max_bytes) {
            return Err(Reason::ReceiptInvalid);
        }
        block.record.chunks[0].sums = Some(ReadClaims { size_bytes, sha256, pieces_sha256 });
        block.record.sealed = Some(BlockSums { size_bytes, sha256 });
        upload.sealed_blocks += 1;
        upload.sealed_bytes += size_bytes;
        if !exact && size_bytes < BLOCK && upload.short_block.replace(block.record.index).is_some() {
            return Err(Reason::ReceiptInvalid);
        }
        Ok(())
    }

    /// Whether exactly the blocks of a blob of this size are sealed, all but the last in full.
    fn is_complete(&self, size_bytes: u64) -> bool {
        let sealed: Vec<_> = self.blocks.iter().flatten().filter_map(|block| block.record.sealed).collect();
        let sizes: Vec<_> = sealed.iter().map(|sums| sums.size_bytes).collect();
        let in_a_row = self.upload.sealed_prefix == sizes.len() as u64;
        let full = sizes.split_last().is_none_or(|(_, before)| before.iter().all(|size| *size == BLOCK));
        in_a_row && full && sizes.iter().sum::<u64>() == size_bytes
    }
}

impl Model {
    pub(super) fn new(tenant: TenantId, tuning: Tuning, record: TenantRecord) -> Self {
        let (known, requests) = (Vec::new(), BTreeMap::new());
        let (garbage, chunks) = (BTreeMap::new(), BTreeMap::new());
        Self { tenant, tuning, record: Some(record), known, requests, garbage, chunks }
    }

    /// What the tenant holds, added up.
    pub(super) fn usage(&self) -> UsageRecord {
        let mut usage = UsageRecord::default();
        for known in &self.known {
            match &known.fate {
                Fate::Upload if known.is_pending() => {
                    usage.reserved_blobs += 1;
                    usage.reserved_bytes += known.upload.reserved_bytes;
                }
                Fate::Live(blob) => {
                    usage.used_blobs += 1;
                    usage.used_bytes += blob.size_bytes;
                }
                Fate::Deleted(tombstone) => {
                    usage.retained_blobs += 1;
                    usage.retained_bytes += tombstone.blob.size_bytes;
                }
                Fate::Upload | Fate::Gone => {}
            }
        }
        usage
    }

    /// The usage row; a deleted tenant keeps it as long as it holds something.
    pub(super) fn usage_row(&self) -> Option<UsageRecord> {
        let usage = self.usage();
        (self.record.is_some() || usage != UsageRecord::default()).then_some(usage)
    }

    /// When something will be over or due, beginning with the next such moment.
    pub(super) fn moments(&self, now_ms: u64) -> Vec<u64> {
        let leases = self.known.iter().filter(|known| known.is_pending()).map(|known| known.upload.lease_expire_ms);
        let dues = self.garbage.values().map(|(blocks, _)| blocks.not_before_ms);
        let requests = self.requests.values().map(|row| row.expire_ms);
        let early = (0..self.known.len()).filter_map(|at| self.tombstone(at));
        let early = early.map(|(_, tombstone, _)| tombstone.delete_ms + millis(self.tuning.garbage_grace));
        let mut moments: Vec<_> = leases.chain(dues).chain(requests).chain(early).filter(|at| *at > now_ms).collect();
        moments.sort_unstable();
        moments
    }

    fn quota(&self) -> Said<Quota> {
        self.record.as_ref().map(|record| record.quota).ok_or(Reason::TenantNotFound)
    }

    /// What a blob may get that has so many bytes reserved.
    fn bytes_left(&self, of_blob: u64) -> Said<u64> {
        let (quota, UsageRecord { used_bytes, reserved_bytes, .. }) = (self.quota()?, self.usage());
        let left = |limit: Option<u64>, taken| limit.map_or(u64::MAX, |limit| limit.saturating_sub(taken));
        Ok(left(quota.max_bytes, used_bytes + reserved_bytes).min(left(quota.max_blob_bytes, of_blob)))
    }

    /// Whether one more upload may open for a blob of this size.
    fn opens(&self, bytes: u64) -> Said<()> {
        let quota = self.quota()?;
        let open = self.usage().reserved_blobs < quota.max_open_uploads;
        let size = quota.max_blob_bytes.is_none_or(|limit| bytes <= limit);
        if open && size { self.fits(bytes) } else { Err(Reason::QuotaExceeded) }
    }

    /// Whether one more blob of this size fits.
    fn fits(&self, bytes: u64) -> Said<()> {
        let (quota, usage) = (self.quota()?, self.usage());
        let blobs = quota.max_blobs.is_none_or(|limit| usage.used_blobs + usage.reserved_blobs < limit);
        let bytes = quota.max_bytes.is_none_or(|limit| usage.used_bytes + usage.reserved_bytes + bytes <= limit);
        if blobs && bytes { Ok(()) } else { Err(Reason::QuotaExceeded) }
    }

    /// What the request was about, if it is a repeat.
    fn recall(&self, request: &str, call: &Call, now_ms: u64) -> Said<Option<usize>> {
        match self.requests.get(request) {
            Some(row) if row.expire_ms <= now_ms => Ok(None),
            Some(row) if row.call == *call => Ok(Some(row.about)),
            Some(_other) => Err(Reason::RequestIdReused),
            None => Ok(None),
        }
    }

    pub(super) fn remember(&mut self, request: &str, call: Call, about: usize, now_ms: u64) {
        if !request.is_empty() {
            let expire_ms = now_ms + millis(self.tuning.request_id_remembered);
            self.requests.insert(request.to_owned(), Remembered { call, about, expire_ms });
        }
    }

    pub(super) fn start(&self, request: &str, call: &Call, upload: &Known, now_ms: u64) -> Said<Started> {
        if let Some(at) = self.recall(request, call, now_ms)? {
            return match self.known[at].open(now_ms) {
                Ok(()) | Err(Reason::UploadCommitted) => Ok(Started::Again(at)),
                Err(reason) => Err(reason),
            };
        }
        let declared = upload.upload.declared_bytes;
        self.opens(declared.unwrap_or(0))?;
        let end = if declared.is_some() { u64::from(BLOCKS_PER_ALLOCATION) } else { FIRST_BLOCKS };
        let max_bytes = upload.next(end, self.bytes_left(0)?);
        if declared.is_none() && max_bytes.is_empty() {
            return Err(Reason::QuotaExceeded);
        }
        Ok(Started::New { max_bytes })
    }

    pub(super) fn allocate(
        &self,
        at: usize,
        first: u64,
        count: u32,
        receipts: &[Receipt],
        now_ms: u64,
    ) -> Said<Allocated> {
        let known = &self.known[at];
        known.open(now_ms)?;
        let mut after = known.clone();
        after.seal(receipts)?;
        if first > known.blocks.len() as u64 {
            return Err(Reason::FieldInvalid);
        }
        let before = known.planned(first, u64::from(count));
        let end = first + u64::from(count);
        let new = after.next(end, self.bytes_left(after.upload.reserved_bytes)?);
        let asked = end > known.blocks.len() as u64;
        if asked && after.upload.declared_bytes.is_none() && before.is_empty() && new.is_empty() {
            return Err(Reason::QuotaExceeded);
        }
        let (lease, life) = (millis(self.tuning.upload_lease), millis(self.tuning.upload_life_max));
        let renewed = (now_ms + lease).min(after.upload.create_ms + life);
        after.upload.lease_expire_ms = renewed.max(after.upload.lease_expire_ms);
        Ok(Allocated { after, before, new })
    }

    /// The upload as it is after the commit.
    pub(super) fn commit(&self, command: &CommitUpload, at: usize, now_ms: u64) -> Said<Known> {
        let mut after = self.known[at].clone();
        if let Fate::Live(record) = &after.fate {
            let same = (record.size_bytes, record.sha256) == (command.size_bytes, command.sha256);
            return if same { Ok(after) } else { Err(Reason::UploadCommitted) };
        }
        after.open(now_ms)?;
        after.seal(&command.receipts)?;
        let size_bytes = command.size_bytes;
        if after.upload.declared_bytes.is_some_and(|declared| declared != size_bytes) {
            return Err(Reason::FieldInvalid);
        }
        if !after.is_complete(size_bytes) {
            return Err(Reason::UploadIncomplete);
        }
        let known_sum = match after.upload.sealed_blocks {
            0 => Some(Sha256::of(b"")),
            1 => Some(content(0)),
            _more => None,
        };
        if known_sum.is_some_and(|known| known != command.sha256) {
            return Err(Reason::ChecksumMismatch);
        }
        after.fate = Fate::Live(BlobRecord {
            description: after.upload.description.clone(),
            size_bytes,
            sha256: command.sha256,
            start_ms: after.upload.create_ms,
            create_ms: now_ms,
            block_size_bytes: BLOCK,
        });
        Ok(after)
    }

    /// Takes a commit over.
    pub(super) fn committed(&mut self, at: usize, after: Known, now_ms: u64) {
        let UploadRecord { sealed_blocks, planned_blocks, .. } = after.upload;
        let is_new = matches!(self.known[at].fate, Fate::Upload);
        if is_new && sealed_blocks < planned_blocks {
            self.queue(now_ms + millis(self.tuning.garbage_grace), GarbageKind::Surplus, after.blob, sealed_blocks);
        }
        self.known[at] = after;
    }

    fn queue(&mut self, not_before_ms: u64, kind: GarbageKind, blob: BlobId, first_block: u64) {
        let key = keys::garbage(not_before_ms, kind, blob);
        self.garbage.insert(key, (Blocks { not_before_ms, kind, blob }, first_block));
    }

    fn end(&mut self, at: usize, state: UploadState, now_ms: u64) {
        let upload = &mut self.known[at].upload;
        (upload.state, upload.end_epoch) = (state, Some(EPOCH));
        let due_ms = now_ms + millis(self.tuning.garbage_grace);
        self.queue(due_ms, GarbageKind::Upload, self.known[at].blob, 0);
    }

    pub(super) fn abort(&mut self, at: usize, now_ms: u64) -> Said<()> {
        match self.known[at].fate {
            Fate::Upload if self.known[at].is_pending() => {
                self.end(at, UploadState::Aborted, now_ms);
                Ok(())
            }
            Fate::Upload => Ok(()),
            Fate::Live(_) => Err(Reason::UploadCommitted),
            Fate::Deleted(_) | Fate::Gone => Err(Reason::UploadNotFound),
        }
    }

    pub(super) fn expire(&mut self, at: usize, now_ms: u64) -> bool {
        let due = self.known[at].is_pending() && now_ms >= self.known[at].upload.lease_expire_ms;
        if due {
            self.end(at, UploadState::Expired, now_ms);
        }
        due
    }

    pub(super) fn delete(&mut self, request: &str, at: usize, now_ms: u64) -> Said<()> {
        if self.recall(request, &Call::Delete(at), now_ms)?.is_some() {
            return Ok(());
        }
        let Known { blob, fate: Fate::Live(record), .. } = self.known[at].clone() else {
            return Err(Reason::BlobNotFound);
        };
        let due_ms = now_ms + millis(self.tuning.retention.max(self.tuning.garbage_grace));
        let tombstone = DeletedRecord { blob: record, delete_ms: now_ms, due_ms: Some(due_ms), collecting: false };
        self.known[at].fate = Fate::Deleted(tombstone);
        self.queue(due_ms, GarbageKind::Blob, blob, 0);
        self.remember(request, Call::Delete(at), at, now_ms);
        Ok(())
    }

    pub(super) fn undelete(&mut self, request: &str, at: usize, now_ms: u64) -> Said<BlobRecord> {
        let repeated = self.recall(request, &Call::Undelete(at), now_ms)?.is_some();
        let Known { blob, fate, .. } = self.known[at].clone();
        let record = match fate {
            Fate::Live(record) => record,
            Fate::Deleted(_) if repeated => return Err(Reason::BlobNotFound),
            Fate::Deleted(tombstone) if tombstone.collecting => return Err(Reason::BlobCollected),
            Fate::Deleted(tombstone) => {
                self.fits(tombstone.blob.size_bytes)?;
                let due_ms = tombstone.due_ms.expect("every tombstone here has one");
                self.garbage.remove(&keys::garbage(due_ms, GarbageKind::Blob, blob));
                tombstone.blob
            }
            Fate::Upload | Fate::Gone => return Err(Reason::BlobNotFound),
        };
        self.known[at].fate = Fate::Live(record.clone());
        if !repeated {
            self.remember(request, Call::Undelete(at), at, now_ms);
        }
        Ok(record)
    }

    /// Forgets the requests whose time is over; returns how many.
    pub(super) fn forget(&mut self, now_ms: u64) -> u64 {
        let before = self.requests.len();
        self.requests.retain(|_, row| row.expire_ms > now_ms);
        (before - self.requests.len()) as u64
    }

    pub(super) fn register(&self) -> Said<()> {
        let waits = |known: &Known| matches!(known.fate, Fate::Upload | Fate::Deleted(_));
        let taken = self.record.is_some() || self.known.iter().any(waits) || !self.requests.is_empty();
        if taken { Err(Reason::TenantAlreadyExists) } else { Ok(()) }
    }

    pub(super) fn drop_tenant(&mut self) -> Said<()> {
        self.quota()?;
        let usage = self.usage();
        if usage.used_blobs > 0 || usage.reserved_blobs > 0 {
            return Err(Reason::TenantNotEmpty);
        }
        self.record = None;
        Ok(())
    }

    pub(super) fn set_quota(&mut self, quota: Quota) -> Said<()> {
        self.record.as_mut().ok_or(Reason::TenantNotFound)?.quota = quota;
        Ok(())
    }

    /// The committed blobs whose names begin so, in the order of the listing.
    pub(super) fn listed(&self, prefix: &str) -> Vec<Blob> {
        let mut found: Vec<_> = self.known.iter().filter_map(|known| self.live(known)).collect();
        found.retain(|blob| blob.record.description.display_name.starts_with(prefix));
        found.sort_by_key(|blob| {
            let name = if prefix.is_empty() { String::new() } else { blob.record.description.display_name.clone() };
            (name, blob.blob)
        });
        found
    }

    pub(super) fn live(&self, known: &Known) -> Option<Blob> {
        match &known.fate {
            Fate::Live(record) => Some(Blob { blob: known.blob, tenant: self.tenant.clone(), record: record.clone() }),
            Fate::Upload | Fate::Deleted(_) | Fate::Gone => None,
        }
    }
}

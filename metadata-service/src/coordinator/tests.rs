//! The use cases over an engine, with a clock, nodes and receipts of the tests' own.

mod collecting;
mod commits;
mod histories;
mod tenancy;
mod undeleting;
mod uploads;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use proto::checksum::Sha256;
use proto::entropy::SeededEntropy;
use proto::ids::{BlobId, ClusterId, NodeId, TenantId};
use proto::rates::Rates;
use proto::receipt::Receipt;
use proto::runtime::{Clock as _, ManualClock};
use proto::secret::SecretKey;

use super::allocate::AllocateBlocks;
use super::blobs::Blob;
use super::collect::chunks::{self, ChunkRow, Unreferenced};
use super::collect::{self, Blocks, Step};
use super::commit::CommitUpload;
use super::delete::DeleteBlob;
use super::request::RequestId;
use super::start::{Planned, StartUpload};
use super::tenants::{RegisterTenant, Tenant, UpdateTenant};
use super::undelete::UndeleteBlob;
use super::*;
use crate::nodes::Condemned;
use crate::store::engine::{Engine, EngineExt as _, KeyRange, View};
use crate::store::keys::{self, Garbage, RequestScope};
use crate::store::memory::MemoryEngine;
use crate::store::records::{Description, Quota, Record, TrafficClass, UsageRecord};
use crate::store::rows::{BatchExt as _, load};

/// Small blocks, so that a few bytes make many.
pub(super) const BLOCK: u64 = 10;
/// Incarnation of the metadata.
pub(super) const EPOCH: u64 = 1;

/// What the closures of commits share.
struct Shared {
    clock: ManualClock,
    entropy: SeededEntropy,
    tuning: Tuning,
    secret: SecretKey,
    nodes: Mutex<Vec<Candidate>>,
}

/// A metadata service without its shell.
pub(super) struct Bench {
    runtime: tokio::runtime::Runtime,
    engine: Arc<dyn Engine>,
    shared: Arc<Shared>,
}

impl Bench {
    /// Over an empty engine in memory.
    pub(super) fn new() -> Self {
        Self::over(Arc::new(MemoryEngine::new()), 7)
    }

    /// Over an engine that others may use too; whoever has another seed draws other ids.
    pub(super) fn over(engine: Arc<dyn Engine>, seed: u64) -> Self {
        let entropy = SeededEntropy::new(seed);
        let node = NodeId::generate(1, &entropy);
        let candidate = Candidate { node, failure_domain: String::new(), writable: true, free_bytes: u64::MAX };
        let tuning = Tuning { block_bytes: BLOCK, block_bytes_unknown_size: BLOCK, ..Tuning::default() };
        let shared = Shared {
            clock: ManualClock::at(1_700_000_000_000),
            secret: SecretKey::generate(&entropy),
            entropy,
            tuning,
            nodes: Mutex::new(vec![candidate]),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        Self { runtime, engine, shared: Arc::new(shared) }
    }

    /// Goes on over another engine: the same rows, opened again.
    pub(super) fn go_on_over(&mut self, engine: Arc<dyn Engine>) {
        self.engine = engine;
    }

    /// With a tenant that has this quota.
    pub(super) fn with_tenant(quota: Quota) -> (Self, TenantId) {
        let bench = Self::new();
        let tenant = bench.register("posts", quota).unwrap().tenant;
        (bench, tenant)
    }

    pub(super) fn decide<T: Send + 'static>(
        &self,
        decide: impl FnOnce(&dyn View, &Context<'_>) -> Outcome<T> + Send + 'static,
    ) -> Result<T, MetadataError> {
        let shared = Arc::clone(&self.shared);
        let decided = self.engine.decide(move |view| {
            let nodes = shared.nodes.lock().unwrap().clone();
            let context = Context {
                now_ms: shared.clock.now_ms(),
                entropy: &shared.entropy,
                tuning: &shared.tuning,
                nodes: &nodes,
                epoch: EPOCH,
                secret: &shared.secret,
            };
            decide(view, &context)
        });
        self.runtime.block_on(decided)
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.shared.clock.now_ms()
    }

    pub(super) fn advance(&self, by: Duration) {
        self.shared.clock.advance(by);
    }

    pub(super) fn secret(&self) -> &SecretKey {
        &self.shared.secret
    }

    pub(super) fn tuning(&self) -> &Tuning {
        &self.shared.tuning
    }

    pub(super) fn set_nodes(&self, change: impl FnOnce(&mut Vec<Candidate>)) {
        change(&mut self.shared.nodes.lock().unwrap());
    }

    /// A durable row.
    pub(super) fn row<R: Record>(&self, key: &[u8]) -> Option<R> {
        self.runtime.block_on(load(self.engine.as_ref(), key)).unwrap()
    }

    /// Number of rows that begin with these bytes.
    pub(super) fn count(&self, prefix: &[u8]) -> usize {
        self.runtime.block_on(self.engine.scan(&KeyRange::prefix(prefix), usize::MAX)).unwrap().len()
    }

    /// Sets a row.
    pub(super) fn put_row<R: Record>(&self, key: Vec<u8>, record: &R) {
        let mut decision = Decision::default();
        decision.batch.set(key, record);
        self.decide(move |_view, _context| Ok((decision, ()))).unwrap();
    }

    /// Removes the rows that begin with these bytes, as a collector would.
    pub(super) fn remove_rows(&self, prefix: &[u8]) {
        let range = KeyRange::prefix(prefix);
        self.decide(move |view, _context| {
            let mut decision = Decision::default();
            view.scan(&range, usize::MAX)?.iter().for_each(|row| decision.batch.delete(row.0.to_vec()));
            Ok((decision, ()))
        })
        .unwrap();
    }

    /// The rows that begin with these bytes.
    pub(super) fn rows<R: Record>(&self, prefix: &[u8]) -> Vec<(Vec<u8>, R)> {
        let rows = self.runtime.block_on(self.engine.scan(&KeyRange::prefix(prefix), usize::MAX)).unwrap();
        rows.iter().map(|row| (row.0.to_vec(), crate::store::rows::record_of(row).unwrap())).collect()
    }

    pub(super) fn sequence(&self) -> u64 {
        self.engine.sequence()
    }

    pub(super) fn read<T>(&self, read: impl AsyncFnOnce(&dyn Engine) -> T) -> T {
        self.runtime.block_on(read(self.engine.as_ref()))
    }

    // The calls.

    pub(super) fn register(&self, tenant: &str, quota: Quota) -> Result<Tenant, MetadataError> {
        let (tenant, traffic_class) = (tenant.parse().unwrap(), TrafficClass::Silver);
        let command = RegisterTenant { tenant, request: admin(""), quota, traffic_class, rates: Rates::default() };
        self.decide(move |view, context| tenants::register(view, context, &command)).map(|(tenant, _)| tenant)
    }

    pub(super) fn set_quota(&self, tenant: &TenantId, quota: Quota) {
        let (tenant, request) = (tenant.clone(), admin(""));
        let command = UpdateTenant { tenant, request, quota: Some(quota), traffic_class: None, rates: None };
        self.decide(move |view, context| tenants::update(view, context, &command)).unwrap();
    }

    pub(super) fn start(
        &self,
        tenant: &TenantId,
        request_id: &str,
        declared_bytes: Option<u64>,
    ) -> Result<Planned, MetadataError> {
        let description = Description { display_name: "name".to_owned(), ..Description::default() };
        let request = own(tenant, request_id);
        self.start_as(StartUpload { tenant: tenant.clone(), request, description, declared_bytes })
    }

    pub(super) fn start_as(&self, command: StartUpload) -> Result<Planned, MetadataError> {
        self.decide(move |view, context| start::decide(view, context, &command))
    }

    pub(super) fn allocate(
        &self,
        tenant: &TenantId,
        blob: BlobId,
        first_block: u64,
        block_count: u32,
        receipts: Vec<Receipt>,
    ) -> Result<Planned, MetadataError> {
        let command = AllocateBlocks { tenant: tenant.clone(), blob, first_block, block_count, receipts };
        self.decide(move |view, context| allocate::decide(view, context, &command))
    }

    pub(super) fn commit(
        &self,
        tenant: &TenantId,
        blob: BlobId,
        size_bytes: u64,
        sha256: Sha256,
        receipts: Vec<Receipt>,
    ) -> Result<Blob, MetadataError> {
        let command = CommitUpload { tenant: tenant.clone(), blob, size_bytes, sha256, receipts };
        self.decide(move |view, context| commit::decide(view, context, &command))
    }

    pub(super) fn abort(&self, tenant: &TenantId, blob: BlobId) -> Result<(), MetadataError> {
        let tenant = tenant.clone();
        self.decide(move |view, context| end::abort(view, context, &tenant, blob))
    }

    pub(super) fn expire(&self, tenant: &TenantId, blob: BlobId) -> Result<bool, MetadataError> {
        let tenant = tenant.clone();
        self.decide(move |view, context| end::expire(view, context, &tenant, blob))
    }

    pub(super) fn delete(&self, tenant: &TenantId, request_id: &str, blob: BlobId) -> Result<(), MetadataError> {
        let command = DeleteBlob { tenant: tenant.clone(), request: own(tenant, request_id), blob };
        self.decide(move |view, context| delete::decide(view, context, &command))
    }

    pub(super) fn undelete(&self, tenant: &TenantId, request_id: &str, blob: BlobId) -> Result<Blob, MetadataError> {
        let command = UndeleteBlob { tenant: tenant.clone(), request: own(tenant, request_id), blob };
        self.decide(move |view, context| undelete::decide(view, context, &command))
    }

    // The collector's steps.

    /// What is due now, in the order of the keys.
    pub(super) fn due(&self) -> Vec<(u64, Garbage)> {
        let due = keys::garbage_due(self.now_ms());
        let rows = self.runtime.block_on(self.engine.scan(&due, usize::MAX)).unwrap();
        rows.iter().map(|row| keys::garbage_of(&row.0).unwrap()).collect()
    }

    pub(super) fn step(&self, blocks: Blocks) -> Result<Step, MetadataError> {
        self.decide(move |view, context| collect::step(view, context, &blocks))
    }

    /// Takes apart all that is due; returns how many steps that took.
    pub(super) fn take_apart(&self) -> usize {
        let mut steps = 0;
        for (not_before_ms, garbage) in self.due() {
            let Garbage::Blocks(kind, blob) = garbage else { continue };
            while self.step(Blocks { not_before_ms, kind, blob }).unwrap() == Step::More {
                steps += 1;
            }
            steps += 1;
        }
        steps
    }

    pub(super) fn unreferenced(&self, rows: Vec<ChunkRow>) -> Unreferenced {
        self.decide(move |view, context| chunks::unreferenced(view, context, &rows)).unwrap()
    }

    /// Collects all that is due, with nodes that delete whatever they are told; returns what that was.
    pub(super) fn collect(&self) -> Vec<Condemned> {
        self.take_apart();
        let rows = self.due().into_iter().filter_map(|(due, garbage)| match garbage {
            Garbage::Chunk(chunk) => Some((due, chunk)),
            Garbage::Blocks(..) => None,
        });
        let rows: Vec<_> = rows.collect();
        let mut condemned = Vec::new();
        for rows in rows.chunks(chunks::CHUNKS_PER_LOOK) {
            let (rows, chunks): (Vec<_>, Vec<_>) = self.unreferenced(rows.to_vec()).chunks.into_iter().unzip();
            condemned.extend(chunks);
            self.decide(move |_view, _context| Ok((chunks::gone(&rows), ()))).unwrap();
        }
        condemned
    }

    /// All rows but the remembered requests.
    pub(super) fn everything(&self) -> Vec<crate::store::engine::Row> {
        let all = KeyRange { start: Vec::new(), end: None };
        let mut rows = self.runtime.block_on(self.engine.scan(&all, usize::MAX)).unwrap();
        rows.retain(|row| !row.0.starts_with(keys::REQUESTS));
        rows
    }

    pub(super) fn usage(&self, tenant: &TenantId) -> UsageRecord {
        self.row(&keys::usage(tenant)).unwrap()
    }

    /// Writes a blob of this size in one go; its SHA-256 is [`content`] of block 0.
    pub(super) fn put(&self, tenant: &TenantId, size_bytes: u64) -> Blob {
        let started = self.start(tenant, "", Some(size_bytes)).unwrap();
        let receipts = receipts(&started.blocks);
        let sha256 = if size_bytes == 0 { Sha256::of(b"") } else { content(0) };
        self.commit(tenant, started.upload.blob, size_bytes, sha256, receipts).unwrap()
    }
}

pub(super) fn admin(id: &str) -> RequestId {
    RequestId { scope: RequestScope::Admin, id: id.to_owned() }
}

pub(super) fn own(tenant: &TenantId, id: &str) -> RequestId {
    RequestId { scope: RequestScope::Tenant(tenant.clone()), id: id.to_owned() }
}

/// The SHA-256 that the tests' node states for a block.
pub(super) fn content(index: u64) -> Sha256 {
    Sha256::of(&index.to_be_bytes())
}

/// What a node says of a block that holds so many bytes.
pub(super) fn receipt(planned: &PlannedBlock, size_bytes: u64) -> Receipt {
    let [chunk, ..] = planned.record.chunks.as_slice() else { panic!("a block has a chunk") };
    Receipt {
        cluster: ClusterId::generate(1, &SeededEntropy::new(1)),
        node: chunk.node,
        blob: planned.record.blob,
        chunk: chunk.chunk,
        block: planned.block,
        generation: planned.record.generation,
        size_bytes,
        sha256: content(planned.record.index),
        pieces_sha256: Sha256::of(b"pieces"),
    }
}

/// Receipts of blocks that are full.
pub(super) fn receipts(blocks: &[PlannedBlock]) -> Vec<Receipt> {
    blocks.iter().map(|block| receipt(block, block.max_bytes)).collect()
}

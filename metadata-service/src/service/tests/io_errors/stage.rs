//! A service that holds something for every operation to work on, the same each time.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proto::checksum::Sha256;
use proto::entropy::SeededEntropy;
use proto::error::{Classify as _, Reason};
use proto::ids::{BlobId, ChunkId, ClusterId, NodeId, TenantId};
use proto::rates::Rates;
use proto::receipt::{self, Receipt};
use proto::runtime::ManualClock;
use proto::token::TokenKeyId;

use crate::coordinator::collect::Blocks;
use crate::coordinator::collect::chunks::ChunkRow;
use crate::coordinator::commit::CommitUpload;
use crate::coordinator::delete::DeleteBlob;
use crate::coordinator::request::RequestId;
use crate::coordinator::start::StartUpload;
use crate::coordinator::tenants::{RegisterTenant, UpdateTenant};
use crate::nodes::usecases::RegisterNode;
use crate::nodes::{Report, State};
use crate::service::{Service, WritePlan, testing};
use crate::store::engine::{Batch, Decision, Engine, EngineExt as _, KeyRange};
use crate::store::keys::{self, Garbage, RequestScope};
use crate::store::records::{
    ClusterRecord, Description, Holder, Quota, RestoreEnd, RestoreRecord, SCHEMA, TokenRecord, TrafficClass,
};
use crate::store::rows::{BatchExt as _, RowError};

const HOUR: Duration = Duration::from_secs(3600);

/// See the module.
pub(super) struct Stage {
    pub(super) service: Service,
    pub(super) tenant: TenantId,
    pub(super) without_blobs: TenantId,
    pub(super) node: NodeId,
    /// A committed blob.
    pub(super) live: BlobId,
    /// One that no operation touches.
    pub(super) bystander: BlobId,
    /// A deleted one.
    pub(super) deleted: BlobId,
    /// A chunk that a blob has.
    pub(super) chunk: ChunkId,
    /// An open upload, and what its node said.
    pub(super) open: BlobId,
    pub(super) receipts: Vec<Bytes>,
    /// One whose lease ran out.
    pub(super) stale: BlobId,
    /// Blocks to take apart, and chunks that were.
    pub(super) blocks: Blocks,
    pub(super) chunks: Vec<ChunkRow>,
    /// With which a node can join.
    pub(super) join: TokenKeyId,
}

pub(super) fn sum() -> Sha256 {
    Sha256::of(b"bytes")
}

pub(super) fn posts() -> TenantId {
    "posts".parse().unwrap()
}

pub(super) fn request(id: &str) -> RequestId {
    RequestId { scope: RequestScope::Tenant(posts()), id: id.to_owned() }
}

pub(super) fn registration(tenant: &TenantId) -> RegisterTenant {
    let request = RequestId { scope: RequestScope::Admin, id: String::new() };
    RegisterTenant {
        tenant: tenant.clone(),
        request,
        quota: Quota::default(),
        traffic_class: TrafficClass::Silver,
        rates: Rates::default(),
    }
}

pub(super) fn upload(declared_bytes: u64, id: &str) -> StartUpload {
    let description = Description { display_name: "name".to_owned(), ..Description::default() };
    StartUpload { tenant: posts(), request: request(id), description, declared_bytes: Some(declared_bytes) }
}

pub(super) fn commit(blob: BlobId, size_bytes: u64) -> CommitUpload {
    CommitUpload { tenant: posts(), blob, size_bytes, sha256: sum(), receipts: Vec::new() }
}

impl Stage {
    pub(super) async fn new(engine: Arc<dyn Engine>) -> Self {
        let clock = Arc::new(ManualClock::at(1_700_000_000_000));
        let service = testing::service(engine, Arc::clone(&clock));
        let entropy = SeededEntropy::new(2);
        let (node, join) = (NodeId::generate(1, &entropy), TokenKeyId::generate(&entropy));
        let joined = TokenKeyId::generate(&entropy);
        rows_of_a_start(&service, &[join, joined]).await;
        let endpoint = "http://[::1]:1".to_owned();
        let command = RegisterNode { node, endpoint, failure_domain: String::new() };
        service.register_node(joined, command).await.unwrap();
        let report = Report { free_bytes: u64::MAX, ..Report::default() };
        assert!(service.registry().heard(node, 1, report));
        assert_eq!(service.registry().list(None, 1).first().unwrap().state, State::Alive);
        let without_blobs: TenantId = "nothing".parse().unwrap();
        for tenant in [&posts(), &without_blobs] {
            service.register_tenant(registration(tenant)).await.unwrap();
        }
        let (given_up, other) = (start(&service, 30).await, start(&service, 30).await);
        for upload in [&given_up, &other] {
            service.abort_upload(posts(), upload.upload.blob).await.unwrap();
        }
        let stale = start(&service, 5).await.upload.blob;
        service.start_upload(upload(0, "old"), None).await.unwrap();
        clock.advance(25 * HOUR);
        let (live, chunk) = put(&service, 5).await;
        let (bystander, _chunk) = put(&service, 1).await;
        let ((deleted, _), (too_much, _)) = (put(&service, 200).await, put(&service, 60).await);
        for blob in [deleted, too_much] {
            service.delete_blob(DeleteBlob { tenant: posts(), request: request(""), blob }).await.unwrap();
        }
        clock.advance(HOUR + HOUR / 2);
        let open = service.start_upload(upload(7, "open"), None).await.unwrap();
        let quota = Some(Quota { max_bytes: Some(230), ..Quota::UNLIMITED });
        let command = UpdateTenant { tenant: posts(), request: request(""), quota, traffic_class: None, rates: None };
        service.update_tenant(command).await.unwrap();
        let (blocks, chunks) = take_one_apart(&service).await;
        let (receipts, open) = (receipts(&service, &open), open.upload.blob);
        let tenant = posts();
        Self {
            service,
            tenant,
            without_blobs,
            node,
            live,
            bystander,
            deleted,
            chunk,
            open,
            receipts,
            stale,
            blocks,
            chunks,
            join,
        }
    }

    /// Everything that is stored and may be shown.
    pub(super) async fn rows(&self) -> Vec<(Bytes, Bytes)> {
        rows(self.service.engine()).await
    }

    /// After writes have ended: nobody is taken on, whoever watches is told why, and what was durable is shown.
    pub(super) async fn has_stopped(&self) {
        assert!(self.service.read_only_reason().is_some_and(|reason| !reason.is_empty()), "it says why");
        assert!(!self.service.stopped().await.is_empty());
        let refused = self.service.register_tenant(registration(&"late".parse().unwrap())).await.unwrap_err();
        assert_eq!(refused.reason(), Reason::ReadOnly);
        assert_eq!(
            self.service.get_blob(&self.tenant, self.bystander).await.unwrap().blob,
            self.bystander,
            "reads go on"
        );
    }

    /// Writes are still taken.
    pub(super) async fn goes_on(&self) {
        assert_eq!(self.service.read_only_reason(), None);
        self.service.register_tenant(registration(&"late".parse().unwrap())).await.unwrap();
    }
}

pub(super) async fn rows(engine: &dyn Engine) -> Vec<(Bytes, Bytes)> {
    engine.scan(&KeyRange { start: Vec::new(), end: None }, usize::MAX).await.unwrap()
}

/// What is there before anybody calls: the cluster's row, after an import, and tokens to join with.
async fn rows_of_a_start(service: &Service, join: &[TokenKeyId]) {
    let restores = vec![RestoreRecord { import_ms: 1, epoch: 1, sequence: 0, end: RestoreEnd::Undecided }];
    let cluster = ClusterId::generate(1, &SeededEntropy::new(1));
    let row = ClusterRecord { cluster, epoch: 2, key_check: sum(), create_ms: 1, schema: SCHEMA, restores };
    let mut batch = Batch::default();
    batch.set(keys::cluster(), &row);
    for token in join {
        batch.set(keys::token(*token), &TokenRecord::new(Holder::Join(None), sum()));
    }
    let put = service.engine().decide(|_view| Ok::<_, RowError>((Decision::frees(batch), ())));
    put.await.unwrap();
}

async fn start(service: &Service, declared_bytes: u64) -> WritePlan {
    service.start_upload(upload(declared_bytes, ""), None).await.unwrap()
}

/// What the nodes would say about an upload's blocks.
fn receipts(service: &Service, plan: &WritePlan) -> Vec<Bytes> {
    let sign = |(block, _): &(crate::coordinator::PlannedBlock, Vec<crate::mint::Granted>)| {
        let chunk = block.record.chunks.first().unwrap();
        let receipt = Receipt {
            cluster: service.cluster().id,
            node: chunk.node,
            blob: block.record.blob,
            chunk: chunk.chunk,
            block: block.block,
            generation: block.record.generation,
            size_bytes: block.max_bytes,
            sha256: sum(),
            pieces_sha256: sum(),
        };
        receipt::sign(&receipt, &service.registry().access(chunk.node).unwrap().0)
    };
    plan.blocks.iter().map(sign).collect()
}

async fn put(service: &Service, size_bytes: u64) -> (BlobId, ChunkId) {
    let plan = start(service, size_bytes).await;
    let chunk = plan.blocks.first().unwrap().0.record.chunks.first().unwrap().chunk;
    let blob = service.commit_upload(commit(plan.upload.blob, size_bytes), &receipts(service, &plan)).await.unwrap();
    (blob.blob, chunk)
}

/// Takes the first garbage apart; returns the next, and the chunks that this made.
async fn take_one_apart(service: &Service) -> (Blocks, Vec<ChunkRow>) {
    let [first, next] = garbage(service).await.0.first_chunk().copied().unwrap();
    service.collect_blocks(first).await.unwrap();
    (next, garbage(service).await.1)
}

async fn garbage(service: &Service) -> (Vec<Blocks>, Vec<ChunkRow>) {
    let (mut blocks, mut chunks) = (Vec::new(), Vec::new());
    for (key, _) in service.engine().scan(&KeyRange::prefix(keys::GARBAGE), usize::MAX).await.unwrap() {
        match keys::garbage_of(&key).unwrap() {
            (not_before_ms, Garbage::Blocks(kind, blob)) => blocks.push(Blocks { not_before_ms, kind, blob }),
            (not_before_ms, Garbage::Chunk(chunk)) => chunks.push((not_before_ms, chunk)),
        }
    }
    (blocks, chunks)
}

//! An upload as the metadata service knows it: plans, lease, commit, abort.
//!
//! Every call here may be repeated: StartUpload carries a `request_id`, the others name the upload. An upload that is
//! neither committed nor left undecided is given up when its [`Session`] goes, so that its reservation is free at once;
//! where that fails, its lease ends it.

use std::time::Duration;

use bytes::Bytes;
use proto::ids::BlobId;
use proto::limits;
use proto::pb;
use tokio::runtime::Handle;

use super::UploadOptions;
use super::producer::{Cut, Whole};
use crate::blob::Blob;
use crate::call::{attempt, new_request_id, request};
use crate::client::Client;
use crate::error::Error;
use crate::gather::{Commits, Starts};

/// Giving an upload up is a courtesy: it may not hold its caller up for longer.
const ABORT_TIMEOUT: Duration = Duration::from_secs(2);
/// However short the lease is, it is not renewed more often.
const RENEWAL_MIN: Duration = Duration::from_millis(500);
/// Largest frame that this client sends.
const FRAME_BYTES_ACCEPTED: u64 = 4 * limits::MIB;

/// An upload that is open.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) handle: UploadHandle,
    pub(super) cut: Cut,
    /// How often to renew the lease.
    pub(super) renew_every: Duration,
    settled: bool,
}

/// Calls about one upload. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct UploadHandle {
    pub(super) client: Client,
    pub(super) blob_id: BlobId,
    pub(super) frame_bytes_max: u64,
}

impl Session {
    /// Opens an upload, and returns the first plans with it.
    pub(super) async fn start(
        client: &Client,
        size_bytes: Option<u64>,
        options: UploadOptions,
    ) -> Result<(Self, Vec<pb::BlockPlan>), Error> {
        let message = start_request(client, size_bytes, options);
        let operation = start_operation(&message);
        let answer = if is_small(size_bytes) {
            client.gathered(&operation, message, &client.gatherers().starts, Starts).await?
        } else {
            client
                .metadata(
                    &operation,
                    message,
                    |mut service, message| async move { service.start_upload(message).await },
                )
                .await?
        };
        Self::opened(client, &operation, answer)
    }

    /// An upload that this answer opened.
    pub(super) fn opened(
        client: &Client,
        operation: &str,
        answer: pb::StartUploadResponse,
    ) -> Result<(Self, Vec<pb::BlockPlan>), Error> {
        let malformed = |problem: &str| client.malformed(operation, problem);
        let upload = answer.upload.ok_or_else(|| malformed("no upload"))?;
        let blob_id = upload.blob_id.parse().map_err(|_malformed| malformed("an upload without an id"))?;
        let frame_bytes_max = answer.max_frame_size_bytes.min(FRAME_BYTES_ACCEPTED);
        let cut =
            Cut { block_bytes: answer.block_size_bytes, frame_bytes: answer.frame_size_bytes.min(frame_bytes_max) };
        let handle = UploadHandle { client: client.clone(), blob_id, frame_bytes_max };
        let session = Self { handle, cut, renew_every: renewal(&upload), settled: false };
        if cut.block_bytes == 0 || cut.frame_bytes == 0 {
            return Err(malformed("no block or frame size"));
        }
        Ok((session, answer.blocks))
    }

    /// Makes the blob visible. After a failure that leaves open whether it is, the upload is left alone.
    pub(super) async fn commit(self, whole: Whole, receipts: Vec<Bytes>) -> Result<Blob, Error> {
        let answer = self.ask_to_commit(whole, receipts).await;
        self.committed(answer).await
    }

    /// As [`Session::commit`], when an earlier try may have been heard: only a refusal that will not change says now that it
    /// is not stored.
    pub(super) async fn commit_again(mut self, whole: Whole, receipts: Vec<Bytes>) -> Result<Blob, Error> {
        match self.ask_to_commit(whole, receipts).await {
            Err(source) if source.retryable() || !matches!(source, Error::Refused { .. }) => {
                self.settled = true;
                Err(Error::Unsettled { blob_id: self.handle.blob_id, source: Box::new(source) })
            }
            answer => self.committed(answer).await,
        }
    }

    async fn ask_to_commit(&self, whole: Whole, receipts: Vec<Bytes>) -> Result<pb::CommitUploadResponse, Error> {
        let (client, operation) = (&self.handle.client, self.commit_operation());
        let message = self.commit_request(whole, receipts);
        if is_small(Some(whole.size_bytes)) {
            return client.gathered(operation, message, &client.gatherers().commits, Commits).await;
        }
        client
            .metadata(operation, message, |mut service, message| async move { service.commit_upload(message).await })
            .await
    }

    pub(super) fn commit_request(&self, whole: Whole, receipts: Vec<Bytes>) -> pb::CommitUploadRequest {
        pb::CommitUploadRequest {
            tenant_id: self.handle.client.tenant_id(),
            blob_id: self.handle.blob_id.to_string(),
            size_bytes: whole.size_bytes,
            sha256: whole.sha256.to_string(),
            receipts,
        }
    }

    pub(super) fn commit_operation(&self) -> String {
        format!("commit the upload of blob {}", self.handle.blob_id)
    }

    /// What an answer to the commit means.
    pub(super) async fn committed(mut self, answer: Result<pb::CommitUploadResponse, Error>) -> Result<Blob, Error> {
        match answer {
            Ok(answer) => {
                self.settled = true;
                self.handle.client.blob_of(answer.blob, &self.commit_operation())
            }
            Err(source) if source.outcome_unknown() => {
                self.settled = true;
                Err(Error::Unsettled { blob_id: self.handle.blob_id, source: Box::new(source) })
            }
            Err(error) => {
                self.give_up().await;
                Err(error)
            }
        }
    }

    /// Tells the service that this upload will not be completed, and waits for the answer, but not for long.
    pub(super) async fn give_up(mut self) {
        self.settled = true;
        self.handle.clone().abort().await;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        if let Ok(runtime) = Handle::try_current() {
            let farewell = self.handle.clone().abort();
            self.handle.client.farewells().spawn_on(farewell, &runtime);
        }
    }
}

/// Whether calls about a blob may travel with those about others.
fn is_small(size_bytes: Option<u64>) -> bool {
    size_bytes.is_some_and(|size_bytes| size_bytes <= limits::SMALL_BLOB_BYTES)
}

/// The request that opens an upload, under an id of its own.
pub(super) fn start_request(
    client: &Client,
    size_bytes: Option<u64>,
    options: UploadOptions,
) -> pb::StartUploadRequest {
    pb::StartUploadRequest {
        tenant_id: client.tenant_id(),
        request_id: new_request_id(),
        display_name: options.display_name,
        content_type: options.content_type,
        labels: options.labels.into_iter().collect(),
        size_bytes,
        traffic_class: client.traffic_class(),
    }
}

/// What it is to do, in words.
pub(super) fn start_operation(request: &pb::StartUploadRequest) -> String {
    match request.display_name.as_str() {
        "" => "start an upload".to_owned(),
        name => format!("start the upload of '{}'", name.escape_debug()),
    }
}

/// A third of the lease: two renewals may fail before it ends. Both times are the service's, so its clock does not
/// matter.
fn renewal(upload: &pb::Upload) -> Duration {
    let lease = match (upload.create_time, upload.lease_expire_time) {
        (Some(start), Some(end)) => u64::try_from(end.seconds.saturating_sub(start.seconds)).unwrap_or(0),
        _ => limits::UPLOAD_LEASE.as_secs(),
    };
    (Duration::from_secs(lease).min(limits::UPLOAD_LIFE_MAX) / 3).max(RENEWAL_MIN)
}

impl UploadHandle {
    /// Seals the blocks of these receipts, plans more blocks, renews the lease, returns fresh capabilities.
    pub(super) async fn allocate(
        self,
        first: u64,
        count: u32,
        receipts: Vec<Bytes>,
    ) -> Result<Vec<pb::BlockPlan>, Error> {
        let message = pb::AllocateBlocksRequest {
            tenant_id: self.client.tenant_id(),
            blob_id: self.blob_id.to_string(),
            first_block_index: first,
            block_count: count,
            receipts,
            traffic_class: self.client.traffic_class(),
        };
        let operation = format!("continue the upload of blob {}", self.blob_id);
        let answer = self
            .client
            .metadata(operation, message, |mut service, message| async move { service.allocate_blocks(message).await })
            .await?;
        Ok(answer.blocks)
    }

    async fn abort(self) {
        let peer = self.client.peers().metadata();
        let call = peer.call(format!("give the upload of blob {} up", self.blob_id));
        let message = pb::AbortUploadRequest { tenant_id: self.client.tenant_id(), blob_id: self.blob_id.to_string() };
        let mut service = peer.metadata_client();
        let answer = service.abort_upload(request(message, self.client.authorization()));
        if let Err(error) = attempt(peer, &call, ABORT_TIMEOUT, answer).await {
            tracing::debug!(%error, "the upload's lease will end it");
        }
    }

    /// The error for a plan that cannot be followed.
    pub(super) fn malformed(&self, problem: impl Into<String>) -> Error {
        self.client.malformed(format!("upload blob {}", self.blob_id), problem)
    }
}

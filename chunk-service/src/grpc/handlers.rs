//! `minitectonic.v1.ChunkService`: each handler checks the capability, converts, calls, converts back.

use std::sync::Arc;

use proto::failpoint;
use proto::limits::CHUNK_MESSAGE_BYTES_MAX;
use proto::pb;
use proto::pb::chunk_service_server::{ChunkService, ChunkServiceServer};
use proto::runtime::transport::{Lane, UntilSent};
use proto::status::to_status;
use proto::traffic::TrafficClass;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tonic::{Extensions, Request, Response, Status, Streaming};

use super::convert;
use super::credential::bearer;
use super::list_stream::{self, ListStream};
use super::read_stream::{self, Held, ReadStream};
use crate::error::ChunkError;
use crate::node::{Node, ReadGrant, WriteGrant};
use crate::places::{Bounds, Places, SharedPlace};
use crate::write::{self, FrameSource};

/// Questions about single chunks at once, and of one tenant: each costs the disk more than the caller, who may ask again
/// and again.
const QUESTIONS: Bounds =
    Bounds { of_what: "questions about chunks", count: 256, count_per_tenant: 64, bytes: u64::MAX };
/// Verifications at once: one of them reads as fast as the disk can.
const VERIFICATIONS_MAX: usize = 8;
/// Listings at once; each goes over the whole folder.
const LISTINGS_MAX: usize = 4;

/// The service.
#[derive(Debug)]
pub(crate) struct Handlers {
    pub(super) node: Arc<Node>,
    pub(super) read_streams: Arc<Places>,
    questions: Arc<Places>,
    verifications: Arc<Semaphore>,
    listings: Arc<Semaphore>,
}

/// A place among so many, for as long as it is held.
fn place(places: &Arc<Semaphore>, of_what: &'static str) -> Result<OwnedSemaphorePermit, ChunkError> {
    Arc::clone(places).try_acquire_owned().map_err(|_none_free| ChunkError::Overloaded(of_what))
}

/// Lets a call's connection know how urgent what it carries is.
pub(super) fn carry(extensions: &Extensions, class: TrafficClass) {
    if let Some(lane) = extensions.get::<Lane>() {
        lane.carry(class);
    }
}

impl Handlers {
    /// The service, with its limits on it, ready to be added to a server.
    pub(crate) fn into_server(node: Arc<Node>) -> ChunkServiceServer<Self> {
        let places = |count: usize| Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS)));
        let handlers = Self {
            read_streams: Places::new(Bounds {
                of_what: "reads",
                count: node.tuning.read_streams_max as u64,
                count_per_tenant: node.tuning.read_streams_per_tenant as u64,
                bytes: node.tuning.read_buffers,
            }),
            questions: Places::new(QUESTIONS),
            verifications: places(VERIFICATIONS_MAX),
            listings: places(LISTINGS_MAX),
            node,
        };
        ChunkServiceServer::new(handlers).max_decoding_message_size(CHUNK_MESSAGE_BYTES_MAX)
    }

    async fn write(
        &self,
        request: Request<Streaming<pb::WriteChunkRequest>>,
    ) -> Result<pb::WriteChunkResponse, ChunkError> {
        let grant = self.node.admit_write(bearer(request.metadata())?)?;
        carry(request.extensions(), grant.class);
        self.write_from(grant, convert::Frames::new(request.into_inner())).await
    }

    /// Writes what the source gives, in a task of its own.
    pub(super) async fn write_from(
        &self,
        grant: WriteGrant,
        source: impl FrameSource + 'static,
    ) -> Result<pb::WriteChunkResponse, ChunkError> {
        let (place, pacer) = (grant.place, self.node.paces.write(&grant.tenant, grant.pace)?);
        // Fires when this future is dropped, that is when the client has gone away.
        let gone = CancellationToken::new();
        let _goes = gone.clone().drop_guard();
        let writing = self.node.tasks.spawn("write", write::run(Arc::clone(&self.node), grant, pacer, source, gone));
        let sums = writing.await.ok().flatten().ok_or(ChunkError::Panicked)??;
        let receipt = self.node.receipt(&place, &sums)?;
        failpoint!("put.receipt_built");
        Ok(convert::written(place.chunk, &sums, receipt))
    }

    async fn write_status(
        &self,
        request: Request<pb::QueryWriteStatusRequest>,
    ) -> Result<pb::QueryWriteStatusResponse, ChunkError> {
        let grant = self.node.admit_write(bearer(request.metadata())?)?;
        convert::permitted_chunk(&request.get_ref().chunk_id, grant.place.chunk)?;
        let (account, asked) = (grant.account(), grant.place);
        let place = self.questions.take(&account, 0)?;
        let store = self.node.store.on_account(account);
        let asking = self.node.tasks.spawn("write status", async move {
            let status = store.write_status(asked).await;
            drop(place);
            status
        });
        let status = asking.await.ok().flatten().ok_or(ChunkError::Panicked)??;
        convert::write_status(status, |sums| self.node.receipt(&grant.place, sums))
    }

    async fn read(&self, request: Request<pb::ReadChunkRequest>) -> Result<Response<ReadStream>, ChunkError> {
        let grant = self.node.admit_read(bearer(request.metadata())?)?;
        convert::permitted_chunk(&request.get_ref().chunk_id, grant.place.chunk)?;
        carry(request.extensions(), grant.account.class);
        let pacer = self.node.paces.read(grant.account.tenant.as_ref(), grant.pace)?;
        let range = convert::range(request.get_ref());
        let frame_bytes = read_stream::frame_bytes(self.node.tuning.read_frame_size, self.read_streams.count() + 1);
        let left = grant.claims.size_bytes.saturating_sub(range.offset);
        // One frame is sent while the next is read.
        let held = range.limit.map_or(left, |limit| limit.min(left)).min(2 * frame_bytes);
        let place = SharedPlace::new(self.read_streams.take(&grant.account, held)?);
        let store = self.node.store.on_account(grant.account);
        let (reader, first) = store.open_range(grant.place, grant.claims, range, frame_bytes).await?;
        let empty = pb::ReadChunkResponse { read_offset: range.offset, ..Default::default() };
        let first = first.map_or(empty, convert::read_frame);
        let first = pb::ReadChunkResponse { chunk: Some(convert::chunk_info(&grant.place, &grant.claims)), ..first };
        let until_sent = UntilSent::new(place.clone());
        let stream = ReadStream::start(&self.node, store, first, reader, Held { place, pacer });
        let mut response = Response::new(stream);
        response.extensions_mut().insert(until_sent);
        Ok(response)
    }

    async fn get(&self, request: Request<pb::GetChunkRequest>) -> Result<pb::GetChunkResponse, ChunkError> {
        let grant = self.node.admit_read(bearer(request.metadata())?)?;
        convert::permitted_chunk(&request.get_ref().chunk_id, grant.place.chunk)?;
        let _place = self.questions.take(&grant.account, 0)?;
        self.node.store.on_account(grant.account).check(grant.place, grant.claims).await?;
        Ok(pb::GetChunkResponse { chunk: Some(convert::chunk_info(&grant.place, &grant.claims)) })
    }

    async fn delete(&self, request: Request<pb::DeleteChunkRequest>) -> Result<pb::DeleteChunkResponse, ChunkError> {
        self.node.admit_service(request.extensions().get())?;
        let chunk = self.node.admit_delete(bearer(request.metadata())?)?;
        convert::permitted_chunk(&request.get_ref().chunk_id, chunk)?;
        let store = Arc::clone(&self.node.store);
        let deleting = self.node.tasks.spawn("delete", async move { store.delete(chunk).await });
        deleting.await.ok().flatten().ok_or(ChunkError::Panicked)??;
        Ok(pb::DeleteChunkResponse {})
    }

    async fn verify(&self, request: Request<pb::VerifyChunkRequest>) -> Result<pb::VerifyChunkResponse, ChunkError> {
        self.node.admit_service(request.extensions().get())?;
        let ReadGrant { place: binding, claims, account, .. } = self.node.admit_verify(bearer(request.metadata())?)?;
        let pb::VerifyChunkRequest { chunk_id, repair } = request.into_inner();
        convert::permitted_chunk(&chunk_id, binding.chunk)?;
        let place = place(&self.verifications, "verifications")?;
        let (store, draining) = (self.node.store.on_account(account), self.node.draining.clone());
        let verifying = self.node.tasks.spawn("verify", async move {
            let finding = store.verify_until(&draining, binding, claims, repair).await;
            drop(place);
            finding
        });
        let finding = verifying.await.ok().flatten().ok_or(ChunkError::Panicked)??;
        Ok(convert::verified(finding))
    }

    async fn list(&self, request: Request<pb::ListChunksRequest>) -> Result<ListStream, ChunkError> {
        self.node.admit_service(request.extensions().get())?;
        self.node.admit_list(bearer(request.metadata())?)?;
        let place = place(&self.listings, "listings")?;
        let listing = self.node.store.list(request.get_ref().with_checksum_files).await?;
        Ok(list_stream::start(&self.node, listing, place))
    }
}

fn answer<T>(outcome: Result<T, ChunkError>) -> Result<Response<T>, Status> {
    outcome.map(Response::new).map_err(|error| to_status(&error))
}

#[tonic::async_trait]
impl ChunkService for Handlers {
    type ReadChunkStream = ReadStream;
    type ListChunksStream = ListStream;

    async fn write_chunk(
        &self,
        request: Request<Streaming<pb::WriteChunkRequest>>,
    ) -> Result<Response<pb::WriteChunkResponse>, Status> {
        answer(self.write(request).await)
    }

    async fn write_chunks(
        &self,
        request: Request<pb::WriteChunksRequest>,
    ) -> Result<Response<pb::WriteChunksResponse>, Status> {
        answer(self.write_batch(request).await)
    }

    async fn read_chunks(
        &self,
        request: Request<pb::ReadChunksRequest>,
    ) -> Result<Response<pb::ReadChunksResponse>, Status> {
        self.read_batch(request).await.map_err(|error| to_status(&error))
    }

    async fn query_write_status(
        &self,
        request: Request<pb::QueryWriteStatusRequest>,
    ) -> Result<Response<pb::QueryWriteStatusResponse>, Status> {
        answer(self.write_status(request).await)
    }

    async fn read_chunk(&self, request: Request<pb::ReadChunkRequest>) -> Result<Response<ReadStream>, Status> {
        self.read(request).await.map_err(|error| to_status(&error))
    }

    async fn get_chunk(&self, request: Request<pb::GetChunkRequest>) -> Result<Response<pb::GetChunkResponse>, Status> {
        answer(self.get(request).await)
    }

    async fn delete_chunk(
        &self,
        request: Request<pb::DeleteChunkRequest>,
    ) -> Result<Response<pb::DeleteChunkResponse>, Status> {
        answer(self.delete(request).await)
    }

    async fn verify_chunk(
        &self,
        request: Request<pb::VerifyChunkRequest>,
    ) -> Result<Response<pb::VerifyChunkResponse>, Status> {
        answer(self.verify(request).await)
    }

    async fn list_chunks(&self, request: Request<pb::ListChunksRequest>) -> Result<Response<ListStream>, Status> {
        answer(self.list(request).await)
    }
}

//! WriteChunks and ReadChunks: many small chunks in one call, each with a permission and an outcome of its own.
//!
//! Each item is what a call about it alone would be, with the same checks, on the account that its own capability names. Some
//! are under way at once, so that the journal makes what they write durable together. What a batch may hold is bounded by
//! the message that writes, and by what the capabilities say before anything is read (I17).

use futures_util::stream::{self, StreamExt as _};
use proto::limits::{BATCH_BYTES_MAX, BATCH_ITEMS_MAX, FRAME_BYTES_MAX};
use proto::pb;
use proto::runtime::transport::UntilSent;
use proto::status::to_item_error;
use tonic::{Request, Response};

use super::convert;
use super::credential::bearer;
use super::handlers::{Handlers, carry};
use crate::error::ChunkError;
use crate::node::{ReadGrant, WriteGrant};
use crate::store::reading::Range;
use crate::write::{Frame, FrameSource, Opening, SourceError};

/// Items of one call that are under way at once: enough to share a sync, few enough that a call is not many callers.
const UNDER_WAY: usize = 16;

/// The one message of a chunk that came as a whole.
struct Whole(Option<Opening>);

impl FrameSource for Whole {
    async fn opening(&mut self) -> Result<Opening, SourceError> {
        self.0.take().ok_or(SourceError::Broken)
    }

    async fn next(&mut self) -> Result<Option<Frame>, SourceError> {
        Ok(None)
    }
}

/// What the items' capabilities grant. Whoever has none for the first is refused as a whole, so that a stranger gets no more
/// work out of one call than out of any other.
fn grants<G>(
    own: &[&str],
    of_the_call: Option<&str>,
    admit: impl Fn(Option<&str>) -> Result<G, ChunkError>,
) -> Result<Vec<Result<G, ChunkError>>, ChunkError> {
    let (first, others) = own.split_first().unwrap_or((&"", &[]));
    let first = admit(credential(first, of_the_call))?;
    if !(1..=BATCH_ITEMS_MAX).contains(&own.len()) {
        return Err(ChunkError::field("chunks", format!("must be 1 to {BATCH_ITEMS_MAX} items, not {}", own.len())));
    }
    Ok(std::iter::once(Ok(first)).chain(others.iter().map(|own| admit(credential(own, of_the_call)))).collect())
}

/// The call's capability, for items that have none. Only they care whether it is one.
fn of_the_call<T>(request: &Request<T>) -> Result<Option<String>, ChunkError> {
    Ok(bearer(request.metadata())?.map(str::to_owned))
}

/// An item's capability.
fn credential<'a>(own: &'a str, of_the_call: Option<&'a str>) -> Option<&'a str> {
    if own.is_empty() { of_the_call } else { Some(own) }
}

impl Handlers {
    /// Writes every chunk of the request.
    pub(super) async fn write_batch(
        &self,
        request: Request<pb::WriteChunksRequest>,
    ) -> Result<pb::WriteChunksResponse, ChunkError> {
        let of_the_call = of_the_call(&request)?;
        let (_metadata, extensions, request) = request.into_parts();
        let items = request.chunks;
        let own: Vec<_> = items.iter().map(|item| item.capability.as_str()).collect();
        let admit = |credential: Option<&str>| {
            self.node.admit_write(credential).inspect(|grant| carry(&extensions, grant.class))
        };
        let grants = grants(&own, of_the_call.as_deref(), admit)?;
        let written = grants.into_iter().zip(items).map(|(grant, item)| self.write_item(grant, item));
        let outcomes: Vec<_> = stream::iter(written).buffered(UNDER_WAY).collect().await;
        let result = |outcome: Result<pb::WriteChunkResponse, ChunkError>| {
            use pb::write_chunks_result::Outcome;
            let outcome = outcome.map_or_else(|error| Outcome::Error(to_item_error(&error)), Outcome::Answer);
            pb::WriteChunksResult { outcome: Some(outcome) }
        };
        Ok(pb::WriteChunksResponse { results: outcomes.into_iter().map(result).collect() })
    }

    async fn write_item(
        &self,
        grant: Result<WriteGrant, ChunkError>,
        item: pb::WriteChunksItem,
    ) -> Result<pb::WriteChunkResponse, ChunkError> {
        let grant = grant?;
        let opening = convert::whole_chunk(item)?;
        self.write_from(grant, Whole(Some(opening))).await
    }

    /// Reads every chunk of the request. The answer keeps its place until the client has taken it: who never does could
    /// have as many as it likes otherwise.
    pub(super) async fn read_batch(
        &self,
        request: Request<pb::ReadChunksRequest>,
    ) -> Result<Response<pb::ReadChunksResponse>, ChunkError> {
        let of_the_call = of_the_call(&request)?;
        let grants = self.admit_all(&request.get_ref().chunks, of_the_call.as_deref())?;
        for grant in grants.iter().flatten() {
            carry(request.extensions(), grant.account.class);
        }
        let held = grants.iter().flatten().map(|grant| grant.claims.size_bytes).sum();
        // One place for all: they are one answer, of the tenant that the first is of.
        let first = grants.iter().flatten().next();
        let place = first.map(|grant| self.read_streams.take(&grant.account, held)).transpose()?;
        let read = grants.into_iter().map(|grant| async { self.read_item(grant?).await });
        let read: Vec<_> = stream::iter(read).buffered(UNDER_WAY).collect().await;
        let result = |outcome: Result<pb::ReadChunkResponse, ChunkError>| {
            use pb::read_chunks_result::Outcome;
            let outcome = outcome.map_or_else(|error| Outcome::Error(to_item_error(&error)), Outcome::Answer);
            pb::ReadChunksResult { outcome: Some(outcome) }
        };
        let read = pb::ReadChunksResponse { results: read.into_iter().map(result).collect() };
        let mut response = Response::new(read);
        response.extensions_mut().insert(UntilSent::new(place));
        Ok(response)
    }

    /// Checks every permission, before any byte is read.
    fn admit_all(
        &self,
        items: &[pb::ReadChunksItem],
        of_the_call: Option<&str>,
    ) -> Result<Vec<Result<ReadGrant, ChunkError>>, ChunkError> {
        let own: Vec<_> = items.iter().map(|item| item.capability.as_str()).collect();
        let grants = grants(&own, of_the_call, |credential| self.node.admit_read(credential))?;
        let mut left = BATCH_BYTES_MAX;
        let fits = |(grant, item): (Result<ReadGrant, _>, &pb::ReadChunksItem)| {
            let grant = grant?;
            convert::permitted_chunk(&item.chunk_id, grant.place.chunk)?;
            left = left.checked_sub(grant.claims.size_bytes).ok_or_else(|| {
                let problem = format!("are more than {BATCH_BYTES_MAX} bytes; read this one by ReadChunk");
                ChunkError::field("chunks", problem)
            })?;
            Ok(grant)
        };
        Ok(grants.into_iter().zip(items).map(fits).collect())
    }

    async fn read_item(&self, grant: ReadGrant) -> Result<pb::ReadChunkResponse, ChunkError> {
        let pacer = self.node.paces.read(grant.account.tenant.as_ref(), grant.pace)?;
        let store = self.node.store.on_account(grant.account);
        let whole = Range { offset: 0, limit: None };
        let (_reader, frame) = store.open_range(grant.place, grant.claims, whole, FRAME_BYTES_MAX).await?;
        let frame = frame.map(convert::read_frame).unwrap_or_default();
        let goes_on_at = pacer.moved(frame.data.as_ref().map_or(0, |data| data.content.len() as u64));
        if let Some(goes_on_at) = goes_on_at {
            tokio::time::sleep_until(goes_on_at).await;
        }
        Ok(pb::ReadChunkResponse { chunk: Some(convert::chunk_info(&grant.place, &grant.claims)), ..frame })
    }
}

//! The calls that are made for one or for many: what an upload and a read of a small blob consist of.

use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use proto::limits::{BATCH_BYTES_MAX, KIB, METADATA_REQUEST_BYTES_MAX};
use proto::pb;
use proto::status::item_status;
use tonic::{Request, Status};

use super::{Carrier, Outcomes};
use crate::call::request;
use crate::channel::Peer;
use crate::client::Client;

/// Of the metadata service's requests half is for what surrounds the items.
const REQUESTS_BYTES_MAX: u64 = (METADATA_REQUEST_BYTES_MAX / 2) as u64;
/// Bytes of the blobs of one WriteChunks; the rest of its message is for what surrounds them.
pub(crate) const WRITES_BYTES_MAX: u64 = BATCH_BYTES_MAX - 64 * KIB;

/// What an answer says of each item; too few where it says nothing.
macro_rules! outcomes {
    ($answer:expr, $outcome:ident) => {{
        use pb::$outcome::Outcome;
        let outcomes = $answer.into_inner().results.into_iter().map_while(|result| result.outcome);
        let read = |outcome| match outcome {
            Outcome::Answer(answer) => Ok(answer),
            Outcome::Error(error) => Err(item_status(&error)),
        };
        outcomes.map(read).collect()
    }};
}

/// A carrier of calls to the metadata service.
macro_rules! of_metadata {
    ($(#[$doc:meta])* $name:ident: $one:ident($item:ident) -> $answer:ident,
        $many:ident($items:ident { $field:ident }) -> $outcome:ident) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub(crate) struct $name(pub(crate) Client);

        impl Carrier for $name {
            type Item = pb::$item;
            type Answer = pb::$answer;
            const BYTES_MAX: u64 = REQUESTS_BYTES_MAX;

            fn bytes(item: &Self::Item) -> u64 {
                item.encoded_len() as u64
            }

            fn within(&self) -> Duration {
                self.0.config().call_timeout
            }

            async fn one(&self, item: Self::Item) -> Result<Self::Answer, Status> {
                let mut service = self.0.peers().metadata().metadata_client();
                Ok(service.$one(request(item, self.0.authorization())).await?.into_inner())
            }

            async fn many(&self, $field: Vec<Self::Item>) -> Result<Outcomes<Self::Answer>, Status> {
                let mut service = self.0.peers().metadata().metadata_client();
                let message = pb::$items { $field };
                let answer = service.$many(request(message, self.0.authorization())).await?;
                Ok(outcomes!(answer, $outcome))
            }
        }
    };
}

of_metadata!(
    /// Opens uploads.
    Starts: start_upload(StartUploadRequest) -> StartUploadResponse,
        start_uploads(StartUploadsRequest { uploads }) -> start_uploads_result
);
of_metadata!(
    /// Commits uploads.
    Commits: commit_upload(CommitUploadRequest) -> CommitUploadResponse,
        commit_uploads(CommitUploadsRequest { uploads }) -> commit_uploads_result
);
of_metadata!(
    /// Asks where blobs are.
    Layouts: get_blob_layout(GetBlobLayoutRequest) -> GetBlobLayoutResponse,
        get_blob_layouts(GetBlobLayoutsRequest { blobs }) -> get_blob_layouts_result
);

/// A carrier of calls to a chunk service, which are for many even when they are for one.
#[derive(Debug)]
pub(crate) struct Writes {
    pub(crate) peer: Arc<Peer>,
    pub(crate) within: Duration,
}

impl Carrier for Writes {
    type Item = pb::WriteChunksItem;
    type Answer = pb::WriteChunkResponse;
    const BYTES_MAX: u64 = WRITES_BYTES_MAX;

    fn bytes(item: &Self::Item) -> u64 {
        item.data.as_ref().map_or(0, |data| data.content.len() as u64)
    }

    fn within(&self) -> Duration {
        self.within
    }

    async fn one(&self, item: Self::Item) -> Result<Self::Answer, Status> {
        only(self.many(vec![item]).await?)
    }

    async fn many(&self, chunks: Vec<Self::Item>) -> Result<Outcomes<Self::Answer>, Status> {
        let message = pb::WriteChunksRequest { chunks };
        let answer = self.peer.chunk_client(0).write_chunks(Request::new(message)).await?;
        Ok(outcomes!(answer, write_chunks_result))
    }
}

/// As [`Writes`], for reads.
#[derive(Debug)]
pub(crate) struct Reads {
    pub(crate) peer: Arc<Peer>,
    pub(crate) within: Duration,
}

/// A small chunk that is to be read.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) item: pb::ReadChunksItem,
    pub(crate) size_bytes: u64,
}

impl Carrier for Reads {
    type Item = Wanted;
    type Answer = pb::ReadChunkResponse;
    const BYTES_MAX: u64 = BATCH_BYTES_MAX;

    fn bytes(wanted: &Self::Item) -> u64 {
        wanted.size_bytes
    }

    fn within(&self) -> Duration {
        self.within
    }

    async fn one(&self, wanted: Self::Item) -> Result<Self::Answer, Status> {
        only(self.many(vec![wanted]).await?)
    }

    async fn many(&self, wanted: Vec<Self::Item>) -> Result<Outcomes<Self::Answer>, Status> {
        let message = pb::ReadChunksRequest { chunks: wanted.into_iter().map(|wanted| wanted.item).collect() };
        let answer = self.peer.chunk_client(0).read_chunks(Request::new(message)).await?;
        Ok(outcomes!(answer, read_chunks_result))
    }
}

fn only<A>(mut outcomes: Outcomes<A>) -> Result<A, Status> {
    outcomes.pop().unwrap_or_else(|| Err(Status::failed_precondition("there is no outcome in the answer")))
}

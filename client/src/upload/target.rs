//! Where a block is written: one chunk at one node.

use std::sync::Arc;

use proto::pb;
use tonic::metadata::{Ascii, MetadataValue};

use super::session::UploadHandle;
use crate::call::bearer;
use crate::channel::Peer;
use crate::error::{Call, Error};

/// Where the chunk of a block goes.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) peer: Arc<Peer>,
    pub(super) chunk_id: String,
    pub(super) authorization: MetadataValue<Ascii>,
}

impl Target {
    /// The target of a plan. This version writes whole blocks to one chunk service.
    pub(super) fn of(handle: &UploadHandle, plan: &pb::BlockPlan) -> Result<Self, Error> {
        let [chunk] = plan.chunks.as_slice() else {
            let problem = format!("a block of {} chunks, of which this client can write 1", plan.chunks.len());
            return Err(handle.malformed(problem));
        };
        let peer = handle.client.peers().node(&chunk.endpoint)?;
        let authorization = bearer(&chunk.capability).ok_or_else(|| handle.malformed("a malformed capability"))?;
        Ok(Self { peer, chunk_id: chunk.chunk_id.clone(), authorization })
    }

    pub(super) fn call(&self, operation: &str) -> Call {
        self.peer.call(format!("{operation} {}", self.chunk_id))
    }
}

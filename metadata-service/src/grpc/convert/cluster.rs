//! Calls of nodes and operators.

use proto::ids::{ChunkId, NodeId};
use proto::limits;
use proto::pb;
use proto::token::TokenKeyId;

use super::Call;
use super::fields::{endpoint, id, node, text};
use crate::auth::Principal;
use crate::error::MetadataError;
use crate::nodes::Report;
use crate::nodes::usecases::RegisterNode;
use crate::page_token::page_size;
use crate::service::LostTime;

/// Characters of a reason that are kept.
const REASON_CHARS_MAX: usize = 256;

/// A heartbeat and whose it is.
#[derive(Debug)]
pub(in crate::grpc) struct HeartbeatOf {
    pub(in crate::grpc) node: NodeId,
    pub(in crate::grpc) endpoint: String,
    pub(in crate::grpc) report: Report,
}

/// A page of nodes.
#[derive(Debug)]
pub(in crate::grpc) struct ListNodes {
    pub(in crate::grpc) size: usize,
    pub(in crate::grpc) token: String,
}

/// Whether an export is to hold secrets.
#[derive(Debug, Clone, Copy)]
pub(in crate::grpc) struct IncludeSecrets(pub(in crate::grpc) bool);

impl TryFrom<Call<pb::ExportMetadataRequest>> for IncludeSecrets {
    type Error = MetadataError;
    fn try_from(Call { message, .. }: Call<pb::ExportMetadataRequest>) -> Result<Self, MetadataError> {
        Ok(Self(message.include_secrets))
    }
}

impl TryFrom<Call<pb::RegisterNodeRequest>> for (TokenKeyId, RegisterNode) {
    type Error = MetadataError;
    fn try_from(Call { caller, message }: Call<pb::RegisterNodeRequest>) -> Result<Self, MetadataError> {
        let Principal::Join(join) = caller else {
            return Err(MetadataError::Bug("a call came past its access check"));
        };
        let command = RegisterNode {
            node: id("node_id", &message.node_id)?,
            endpoint: endpoint(&message.endpoint)?,
            failure_domain: text("failure_domain", message.failure_domain, limits::ENDPOINT_BYTES_MAX)?,
        };
        Ok((join, command))
    }
}

impl TryFrom<Call<pb::HeartbeatRequest>> for HeartbeatOf {
    type Error = MetadataError;
    fn try_from(Call { caller, message }: Call<pb::HeartbeatRequest>) -> Result<Self, MetadataError> {
        let own = node(&caller)?;
        if id::<NodeId>("node_id", &message.node_id)? != own {
            return Err(MetadataError::ScopeMissing("it is another node's"));
        }
        let report = Report {
            capacity_bytes: message.capacity_bytes,
            free_bytes: message.free_bytes,
            read_only_reason: message.read_only_reason.chars().take(REASON_CHARS_MAX).collect(),
            version: message.version.chars().take(REASON_CHARS_MAX).collect(),
        };
        Ok(Self { node: own, endpoint: endpoint(&message.endpoint)?, report })
    }
}

impl TryFrom<Call<pb::DescribeChunkRequest>> for (NodeId, ChunkId) {
    type Error = MetadataError;
    fn try_from(Call { caller, message }: Call<pb::DescribeChunkRequest>) -> Result<Self, MetadataError> {
        Ok((node(&caller)?, id("chunk_id", &message.chunk_id)?))
    }
}

impl TryFrom<Call<pb::ListNodesRequest>> for ListNodes {
    type Error = MetadataError;
    fn try_from(Call { message, .. }: Call<pb::ListNodesRequest>) -> Result<Self, MetadataError> {
        Ok(Self { size: page_size(message.page_size)?, token: message.page_token })
    }
}

impl TryFrom<Call<pb::GetClusterStatusRequest>> for () {
    type Error = MetadataError;
    fn try_from(_nothing: Call<pb::GetClusterStatusRequest>) -> Result<Self, MetadataError> {
        Ok(())
    }
}

impl TryFrom<Call<pb::EndRestoreRequest>> for LostTime {
    type Error = MetadataError;
    fn try_from(Call { message, .. }: Call<pb::EndRestoreRequest>) -> Result<Self, MetadataError> {
        match message.lost_time() {
            pb::LostTime::Keep => Ok(Self::Keep),
            pb::LostTime::Discard => Ok(Self::Discard),
            pb::LostTime::Unspecified => Err(MetadataError::field("lost_time", "must be KEEP or DISCARD")),
        }
    }
}

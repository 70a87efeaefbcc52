//! Calls about uploads and blobs.

use bytes::Bytes;
use proto::ids::{BlobId, TenantId};
use proto::limits;
use proto::pb;
use proto::traffic::TrafficClass;

use super::Call;
use super::fields::{description, id, own_request, own_tenant, text, traffic_class};
use crate::coordinator::allocate::AllocateBlocks;
use crate::coordinator::commit::CommitUpload;
use crate::coordinator::delete::DeleteBlob;
use crate::coordinator::layout::ReadRange;
use crate::coordinator::start::StartUpload;
use crate::coordinator::undelete::UndeleteBlob;
use crate::error::MetadataError;
use crate::page_token::page_size;

/// A page of blobs.
#[derive(Debug)]
pub(in crate::grpc) struct ListBlobs {
    pub(in crate::grpc) tenant: TenantId,
    pub(in crate::grpc) prefix: String,
    pub(in crate::grpc) deleted: bool,
    pub(in crate::grpc) size: usize,
    pub(in crate::grpc) token: String,
}

fn blob_size(size_bytes: u64) -> Result<u64, MetadataError> {
    if size_bytes <= limits::BLOB_BYTES_MAX {
        return Ok(size_bytes);
    }
    Err(MetadataError::field("size_bytes", format!("must be at most {}", limits::BLOB_BYTES_MAX)))
}

fn bounded(receipts: Vec<Bytes>) -> Result<Vec<Bytes>, MetadataError> {
    if receipts.len() <= limits::RECEIPTS_PER_CALL {
        return Ok(receipts);
    }
    let problem = format!("must be at most {}; give the earlier ones to AllocateBlocks", limits::RECEIPTS_PER_CALL);
    Err(MetadataError::field("receipts", problem))
}

/// The command, and the class that it asks for.
impl TryFrom<Call<pb::StartUploadRequest>> for (StartUpload, Option<TrafficClass>) {
    type Error = MetadataError;
    fn try_from(Call { caller, message }: Call<pb::StartUploadRequest>) -> Result<Self, MetadataError> {
        let tenant = own_tenant(&caller, &message.tenant_id)?;
        let class = traffic_class(message.traffic_class)?;
        let command = StartUpload {
            request: own_request(&tenant, message.request_id)?,
            tenant,
            description: description(message.display_name, message.content_type, message.labels)?,
            declared_bytes: message.size_bytes.map(blob_size).transpose()?,
        };
        Ok((command, class))
    }
}

/// The command without its receipts, the receipts as they came, and the class that it asks for.
impl TryFrom<Call<pb::AllocateBlocksRequest>> for (AllocateBlocks, Vec<Bytes>, Option<TrafficClass>) {
    type Error = MetadataError;
    fn try_from(Call { caller, message }: Call<pb::AllocateBlocksRequest>) -> Result<Self, MetadataError> {
        if message.block_count > limits::BLOCKS_PER_ALLOCATION {
            let problem = format!("must be at most {}", limits::BLOCKS_PER_ALLOCATION);
            return Err(MetadataError::field("block_count", problem));
        }
        let command = AllocateBlocks {
            tenant: own_tenant(&caller, &message.tenant_id)?,
            blob: id("blob_id", &message.blob_id)?,
            first_block: message.first_block_index,
            block_count: message.block_count,
            receipts: Vec::new(),
        };
        let class = traffic_class(message.traffic_class)?;
        Ok((command, bounded(message.receipts)?, class))
    }
}

/// The command without its receipts, and the receipts as they came.
impl TryFrom<Call<pb::CommitUploadRequest>> for (CommitUpload, Vec<Bytes>) {
    type Error = MetadataError;
    fn try_from(Call { caller, message }: Call<pb::CommitUploadRequest>) -> Result<Self, MetadataError> {
        let sha256 = message.sha256.parse();
        let command = CommitUpload {
            tenant: own_tenant(&caller, &message.tenant_id)?,
            blob: id("blob_id", &message.blob_id)?,
            size_bytes: blob_size(message.size_bytes)?,
            sha256: sha256.map_err(|error| MetadataError::field("sha256", format!("{error}")))?,
            receipts: Vec::new(),
        };
        Ok((command, bounded(message.receipts)?))
    }
}

impl TryFrom<Call<pb::AbortUploadRequest>> for (TenantId, BlobId) {
    type Error = MetadataError;
    fn try_from(Call { caller, message }: Call<pb::AbortUploadRequest>) -> Result<Self, MetadataError> {
        Ok((own_tenant(&caller, &message.tenant_id)?, id("blob_id", &message.blob_id)?))
    }
}

impl TryFrom<Call<pb::GetUploadRequest>> for (TenantId, BlobId) {
    type Error = MetadataError;
    fn try_from(Call { caller, message }: Call<pb::GetUploadRequest>) -> Result<Self, MetadataError> {
        Ok((own_tenant(&caller, &message.tenant_id)?, id("blob_id", &message.blob_id)?))
    }
}

impl TryFrom<Call<pb::GetBlobRequest>> for (TenantId, BlobId) {
    type Error = MetadataError;
    fn try_from(Call { caller, message }: Call<pb::GetBlobRequest>) -> Result<Self, MetadataError> {
        Ok((own_tenant(&caller, &message.tenant_id)?, id("blob_id", &message.blob_id)?))
    }
}

/// Whose blob, which, what of it, and the class that is asked for.
impl TryFrom<Call<pb::GetBlobLayoutRequest>> for (TenantId, BlobId, ReadRange, Option<TrafficClass>) {
    type Error = MetadataError;
    fn try_from(Call { caller, message }: Call<pb::GetBlobLayoutRequest>) -> Result<Self, MetadataError> {
        let range = ReadRange { offset: message.read_offset, limit: message.read_limit };
        let class = traffic_class(message.traffic_class)?;
        Ok((own_tenant(&caller, &message.tenant_id)?, id("blob_id", &message.blob_id)?, range, class))
    }
}

impl TryFrom<Call<pb::ListBlobsRequest>> for ListBlobs {
    type Error = MetadataError;
    fn try_from(Call { caller, message }: Call<pb::ListBlobsRequest>) -> Result<Self, MetadataError> {
        let prefix_max = limits::DISPLAY_NAME_BYTES_MAX;
        if message.deleted && !message.display_name_prefix.is_empty() {
            return Err(MetadataError::field("display_name_prefix", "must be empty in a list of deleted blobs"));
        }
        Ok(Self {
            tenant: own_tenant(&caller, &message.tenant_id)?,
            prefix: text("display_name_prefix", message.display_name_prefix, prefix_max)?,
            deleted: message.deleted,
            size: page_size(message.page_size)?,
            token: message.page_token,
        })
    }
}

impl TryFrom<Call<pb::DeleteBlobRequest>> for DeleteBlob {
    type Error = MetadataError;
    fn try_from(Call { caller, message }: Call<pb::DeleteBlobRequest>) -> Result<Self, MetadataError> {
        let tenant = own_tenant(&caller, &message.tenant_id)?;
        Ok(Self { request: own_request(&tenant, message.request_id)?, tenant, blob: id("blob_id", &message.blob_id)? })
    }
}

impl TryFrom<Call<pb::UndeleteBlobRequest>> for UndeleteBlob {
    type Error = MetadataError;
    fn try_from(Call { caller, message }: Call<pb::UndeleteBlobRequest>) -> Result<Self, MetadataError> {
        let tenant = own_tenant(&caller, &message.tenant_id)?;
        Ok(Self { request: own_request(&tenant, message.request_id)?, tenant, blob: id("blob_id", &message.blob_id)? })
    }
}

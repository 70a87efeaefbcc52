//! Category and advice of each reason, one exhaustive match each.

use proto::error::{Reason, Retry};
use tonic::Code;

use super::Category;

const START_IT: &str = "wait until the service is ready, then try again";
const REPORT_DAMAGE: &str = "tell the operator: stored bytes are gone or damaged, and no good copy was found";
const FREE_QUOTA: &str = "delete blobs, or ask the operator for a larger quota";
const GET_TOKEN: &str = "use the token that `mini-tectonic-rs register-tenant` showed for this tenant";

pub(super) fn category_of(reason: Reason) -> Category {
    match reason {
        Reason::FieldInvalid | Reason::FrameTooLarge | Reason::ReceiptInvalid | Reason::RequestIdReused => {
            Category::Usage
        }
        Reason::TenantNotFound | Reason::BlobNotFound | Reason::UploadNotFound => Category::NotFound,
        Reason::ChecksumMismatch | Reason::ChunkMissing | Reason::ChunkCorrupt | Reason::RecordCorrupt => {
            Category::DataLoss
        }
        Reason::QuotaExceeded | Reason::RateLimited | Reason::Overloaded => Category::QuotaOrRate,
        Reason::NodeOutOfSpace
        | Reason::Draining
        | Reason::Starting
        | Reason::ReadOnly
        | Reason::NoChunkNode
        | Reason::MetadataUnreachable
        | Reason::StreamStalled => Category::Unavailable,
        Reason::TokenMissing
        | Reason::TokenInvalid
        | Reason::TokenExpired
        | Reason::ScopeMissing
        | Reason::CapabilityInvalid
        | Reason::CapabilityExpired => Category::NotAuthorised,
        Reason::TenantAlreadyExists
        | Reason::ChunkAlreadyExists
        | Reason::WriteOffsetMismatch
        | Reason::ReadOffsetOutOfRange
        | Reason::ConcurrentWrite
        | Reason::StaleGeneration
        | Reason::UploadExpired
        | Reason::UploadIncomplete
        | Reason::UploadCommitted
        | Reason::TenantNotEmpty
        | Reason::BlobCollected
        | Reason::NotRestored
        | Reason::FormatTooNew
        | Reason::Internal => Category::Other,
    }
}

/// For answers without a reason: from a proxy, from another kind of service, or made up by the transport.
pub(super) fn category_of_code(code: Code) -> Category {
    match code {
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown => Category::Unavailable,
        Code::Unauthenticated | Code::PermissionDenied => Category::NotAuthorised,
        Code::Ok
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Internal
        | Code::DataLoss => Category::Other,
    }
}

/// As [`category_of_code`]; only what may pass by itself is worth a repeat.
pub(super) fn retry_of_code(code: Code) -> Retry {
    if category_of_code(code) == Category::Unavailable { Retry::SameCall } else { Retry::Never }
}

pub(super) fn advice_for(reason: Reason) -> Option<&'static str> {
    match reason {
        Reason::TokenMissing | Reason::TokenInvalid | Reason::TokenExpired => Some(GET_TOKEN),
        Reason::ScopeMissing => Some("tenants are managed with the admin token, blobs with their tenant's token"),
        Reason::TenantNotFound => Some("register it with `mini-tectonic-rs register-tenant`, or check its spelling"),
        Reason::BlobNotFound => Some("check the id with `mini-tectonic-rs list-blobs`"),
        Reason::QuotaExceeded => Some(FREE_QUOTA),
        Reason::RateLimited | Reason::Overloaded => Some("try again later"),
        Reason::NodeOutOfSpace => Some("free space on the chunk service's disk"),
        Reason::Draining | Reason::Starting => Some(START_IT),
        Reason::ReadOnly => Some("a disk fault ended all writes: the service's log has the cause"),
        Reason::NoChunkNode => Some("start a chunk service, or wait until it has joined"),
        Reason::MetadataUnreachable => Some("the chunk service cannot reach the metadata service: is that running?"),
        Reason::ChunkMissing | Reason::ChunkCorrupt | Reason::RecordCorrupt => Some(REPORT_DAMAGE),
        Reason::ChecksumMismatch => {
            Some("bytes changed on the way: try again; if it stays, check this machine's memory")
        }
        Reason::UploadExpired | Reason::StreamStalled => Some("try again"),
        Reason::TenantNotEmpty => Some("delete its blobs first"),
        Reason::BlobCollected => Some("its bytes are being removed: put it again from another copy"),
        Reason::NotRestored => Some("`mini-tectonic-rs status` says whether a decision is due"),
        Reason::FormatTooNew => Some("run the newer version of the program that wrote it"),
        Reason::Internal => Some("the service's log has the cause under the request id"),
        Reason::FieldInvalid
        | Reason::FrameTooLarge
        | Reason::ReceiptInvalid
        | Reason::RequestIdReused
        | Reason::UploadNotFound
        | Reason::TenantAlreadyExists
        | Reason::ChunkAlreadyExists
        | Reason::CapabilityInvalid
        | Reason::CapabilityExpired
        | Reason::WriteOffsetMismatch
        | Reason::ReadOffsetOutOfRange
        | Reason::ConcurrentWrite
        | Reason::StaleGeneration
        | Reason::UploadIncomplete
        | Reason::UploadCommitted => None,
    }
}

//! What can go wrong, in the words that travel: a [`Reason`] on every error, a [`Kind`] for what the caller does next.
//!
//! Reason, kind, code and retry rule are one exhaustive match each. The services' own error enums implement
//! [`Classify`]; [`status`](crate::status) turns that into a `tonic::Status` and back.

use std::time::Duration;

use tonic::Code;

/// The domain of every `ErrorInfo` of ours.
pub const ERROR_DOMAIN: &str = "minitectonic.v1";

/// What the caller can do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Correct the request.
    InvalidArgument,
    /// It is not there.
    NotFound,
    /// It is there already.
    AlreadyExists,
    /// Change the state first.
    FailedPrecondition,
    /// Take the layout anew, then repeat.
    StaleGeneration,
    /// Repeat the same call after a pause.
    Conflict,
    /// Bring a valid credential.
    Unauthenticated,
    /// Bring another credential.
    PermissionDenied,
    /// Go on at the offset that the details name.
    OutOfRange,
    /// Free space, wait, or go elsewhere.
    ResourceExhausted,
    /// Repeat later or elsewhere.
    Unavailable,
    /// Use another copy, and report.
    DataLoss,
    /// Report; whether the call had an effect is not known.
    Internal,
}

/// Whether and how a call may be repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Not with the same arguments.
    Never,
    /// The same call, after a pause.
    SameCall,
    /// After asking the metadata service anew: fresh capability, layout or offset.
    Refresh,
}

/// The machine-readable cause: `ErrorInfo.reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// An argument is missing, malformed or out of its bounds.
    FieldInvalid,
    /// A frame is larger than announced.
    FrameTooLarge,
    /// Bytes do not match the sum sent with them.
    ChecksumMismatch,
    /// A receipt is malformed, forged, or not of what was planned.
    ReceiptInvalid,
    /// The `request_id` was used with other arguments.
    RequestIdReused,
    /// No such tenant for this caller.
    TenantNotFound,
    /// No such blob for this caller.
    BlobNotFound,
    /// No such upload for this caller.
    UploadNotFound,
    /// The chunk's file is gone.
    ChunkMissing,
    /// The chunk's bytes do not verify.
    ChunkCorrupt,
    /// A metadata record does not verify.
    RecordCorrupt,
    /// The tenant is registered.
    TenantAlreadyExists,
    /// The chunk is there with other bytes.
    ChunkAlreadyExists,
    /// The tenant's quota does not allow it.
    QuotaExceeded,
    /// Too many calls of this tenant.
    RateLimited,
    /// Too much work in flight.
    Overloaded,
    /// The disk is full.
    NodeOutOfSpace,
    /// No credential.
    TokenMissing,
    /// No known credential.
    TokenInvalid,
    /// A credential that was good once.
    TokenExpired,
    /// The credential does not cover this call.
    ScopeMissing,
    /// The capability is wrong in any way.
    CapabilityInvalid,
    /// The capability's time is over.
    CapabilityExpired,
    /// The bytes do not begin where the last ones ended.
    WriteOffsetMismatch,
    /// The range begins behind the end.
    ReadOffsetOutOfRange,
    /// Another stream took the write over.
    ConcurrentWrite,
    /// The block's chunks have changed.
    StaleGeneration,
    /// The upload's lease ran out, or it was given up.
    UploadExpired,
    /// Receipts are missing, or do not add up to the blob.
    UploadIncomplete,
    /// The upload is committed, with other arguments.
    UploadCommitted,
    /// The tenant still holds blobs or uploads.
    TenantNotEmpty,
    /// The deleted blob is being collected and cannot be restored.
    BlobCollected,
    /// A later version of the program wrote what is asked for.
    FormatTooNew,
    /// Nothing waits for this decision: the metadata were not imported, or the decision was made.
    NotRestored,
    /// The service is about to stop.
    Draining,
    /// The service is not ready yet.
    Starting,
    /// A fault ended all writes until an operator acts.
    ReadOnly,
    /// No chunk service takes writes at the moment.
    NoChunkNode,
    /// The metadata service does not answer the chunk service.
    MetadataUnreachable,
    /// A stream made no progress for too long, or lived too long.
    StreamStalled,
    /// A bug or a fault of the machine.
    Internal,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 41] = [
        Self::FieldInvalid,
        Self::FrameTooLarge,
        Self::ChecksumMismatch,
        Self::ReceiptInvalid,
        Self::RequestIdReused,
        Self::TenantNotFound,
        Self::BlobNotFound,
        Self::UploadNotFound,
        Self::ChunkMissing,
        Self::ChunkCorrupt,
        Self::RecordCorrupt,
        Self::TenantAlreadyExists,
        Self::ChunkAlreadyExists,
        Self::QuotaExceeded,
        Self::RateLimited,
        Self::Overloaded,
        Self::NodeOutOfSpace,
        Self::TokenMissing,
        Self::TokenInvalid,
        Self::TokenExpired,
        Self::ScopeMissing,
        Self::CapabilityInvalid,
        Self::CapabilityExpired,
        Self::WriteOffsetMismatch,
        Self::ReadOffsetOutOfRange,
        Self::ConcurrentWrite,
        Self::StaleGeneration,
        Self::UploadExpired,
        Self::UploadIncomplete,
        Self::UploadCommitted,
        Self::TenantNotEmpty,
        Self::BlobCollected,
        Self::NotRestored,
        Self::FormatTooNew,
        Self::Draining,
        Self::Starting,
        Self::ReadOnly,
        Self::NoChunkNode,
        Self::MetadataUnreachable,
        Self::StreamStalled,
        Self::Internal,
    ];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FieldInvalid => "FIELD_INVALID",
            Self::FrameTooLarge => "FRAME_TOO_LARGE",
            Self::ChecksumMismatch => "CHECKSUM_MISMATCH",
            Self::ReceiptInvalid => "RECEIPT_INVALID",
            Self::RequestIdReused => "REQUEST_ID_REUSED",
            Self::TenantNotFound => "TENANT_NOT_FOUND",
            Self::BlobNotFound => "BLOB_NOT_FOUND",
            Self::UploadNotFound => "UPLOAD_NOT_FOUND",
            Self::ChunkMissing => "CHUNK_MISSING",
            Self::ChunkCorrupt => "CHUNK_CORRUPT",
            Self::RecordCorrupt => "RECORD_CORRUPT",
            Self::TenantAlreadyExists => "TENANT_ALREADY_EXISTS",
            Self::ChunkAlreadyExists => "CHUNK_ALREADY_EXISTS",
            Self::QuotaExceeded => "QUOTA_EXCEEDED",
            Self::RateLimited => "RATE_LIMITED",
            Self::Overloaded => "OVERLOADED",
            Self::NodeOutOfSpace => "NODE_OUT_OF_SPACE",
            Self::TokenMissing => "TOKEN_MISSING",
            Self::TokenInvalid => "TOKEN_INVALID",
            Self::TokenExpired => "TOKEN_EXPIRED",
            Self::ScopeMissing => "SCOPE_MISSING",
            Self::CapabilityInvalid => "CAPABILITY_INVALID",
            Self::CapabilityExpired => "CAPABILITY_EXPIRED",
            Self::WriteOffsetMismatch => "WRITE_OFFSET_MISMATCH",
            Self::ReadOffsetOutOfRange => "READ_OFFSET_OUT_OF_RANGE",
            Self::ConcurrentWrite => "CONCURRENT_WRITE",
            Self::StaleGeneration => "STALE_GENERATION",
            Self::UploadExpired => "UPLOAD_EXPIRED",
            Self::UploadIncomplete => "UPLOAD_INCOMPLETE",
            Self::UploadCommitted => "UPLOAD_COMMITTED",
            Self::TenantNotEmpty => "TENANT_NOT_EMPTY",
            Self::BlobCollected => "BLOB_COLLECTED",
            Self::NotRestored => "NOT_RESTORED",
            Self::FormatTooNew => "FORMAT_TOO_NEW",
            Self::Draining => "DRAINING",
            Self::Starting => "STARTING",
            Self::ReadOnly => "READ_ONLY",
            Self::NoChunkNode => "NO_CHUNK_NODE",
            Self::MetadataUnreachable => "METADATA_UNREACHABLE",
            Self::StreamStalled => "STREAM_STALLED",
            Self::Internal => "INTERNAL",
        }
    }

    /// The reason with this word; `None` for one that a newer service made up.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == word)
    }

    /// What the caller can do next.
    pub fn kind(self) -> Kind {
        match self {
            Self::FieldInvalid
            | Self::FrameTooLarge
            | Self::ChecksumMismatch
            | Self::ReceiptInvalid
            | Self::RequestIdReused => Kind::InvalidArgument,
            Self::TenantNotFound | Self::BlobNotFound | Self::UploadNotFound => Kind::NotFound,
            Self::ChunkMissing | Self::ChunkCorrupt | Self::RecordCorrupt => Kind::DataLoss,
            Self::TenantAlreadyExists | Self::ChunkAlreadyExists => Kind::AlreadyExists,
            Self::QuotaExceeded | Self::RateLimited | Self::Overloaded | Self::NodeOutOfSpace => {
                Kind::ResourceExhausted
            }
            Self::TokenMissing | Self::TokenInvalid | Self::TokenExpired => Kind::Unauthenticated,
            Self::ScopeMissing | Self::CapabilityInvalid | Self::CapabilityExpired => Kind::PermissionDenied,
            Self::WriteOffsetMismatch | Self::ReadOffsetOutOfRange => Kind::OutOfRange,
            Self::ConcurrentWrite => Kind::Conflict,
            Self::StaleGeneration => Kind::StaleGeneration,
            Self::UploadExpired
            | Self::UploadIncomplete
            | Self::UploadCommitted
            | Self::TenantNotEmpty
            | Self::BlobCollected
            | Self::NotRestored
            | Self::FormatTooNew => Kind::FailedPrecondition,
            Self::Draining
            | Self::Starting
            | Self::ReadOnly
            | Self::NoChunkNode
            | Self::MetadataUnreachable
            | Self::StreamStalled => Kind::Unavailable,
            Self::Internal => Kind::Internal,
        }
    }

    /// Whether and how the call may be repeated.
    pub fn retry(self) -> Retry {
        match self {
            Self::RateLimited
            | Self::Overloaded
            | Self::Draining
            | Self::Starting
            | Self::NoChunkNode
            | Self::MetadataUnreachable
            | Self::StreamStalled
            | Self::ChecksumMismatch => Retry::SameCall,
            Self::CapabilityExpired | Self::WriteOffsetMismatch | Self::ConcurrentWrite | Self::StaleGeneration => {
                Retry::Refresh
            }
            Self::FieldInvalid
            | Self::FrameTooLarge
            | Self::ReceiptInvalid
            | Self::RequestIdReused
            | Self::TenantNotFound
            | Self::BlobNotFound
            | Self::UploadNotFound
            | Self::ChunkMissing
            | Self::ChunkCorrupt
            | Self::RecordCorrupt
            | Self::TenantAlreadyExists
            | Self::ChunkAlreadyExists
            | Self::QuotaExceeded
            | Self::NodeOutOfSpace
            | Self::TokenMissing
            | Self::TokenInvalid
            | Self::TokenExpired
            | Self::ScopeMissing
            | Self::CapabilityInvalid
            | Self::ReadOffsetOutOfRange
            | Self::UploadExpired
            | Self::UploadIncomplete
            | Self::UploadCommitted
            | Self::TenantNotEmpty
            | Self::BlobCollected
            | Self::NotRestored
            | Self::FormatTooNew
            | Self::ReadOnly
            | Self::Internal => Retry::Never,
        }
    }
}

impl Kind {
    /// The gRPC code.
    pub fn code(self) -> Code {
        match self {
            Self::InvalidArgument => Code::InvalidArgument,
            Self::NotFound => Code::NotFound,
            Self::AlreadyExists => Code::AlreadyExists,
            Self::FailedPrecondition => Code::FailedPrecondition,
            Self::StaleGeneration | Self::Conflict => Code::Aborted,
            Self::Unauthenticated => Code::Unauthenticated,
            Self::PermissionDenied => Code::PermissionDenied,
            Self::OutOfRange => Code::OutOfRange,
            Self::ResourceExhausted => Code::ResourceExhausted,
            Self::Unavailable => Code::Unavailable,
            Self::DataLoss => Code::DataLoss,
            Self::Internal => Code::Internal,
        }
    }
}

/// The structured part of an error, beyond its reason.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Details {
    /// The offending field, as the proto names it: becomes `BadRequest`.
    pub field: Option<&'static str>,
    /// Kind and id of the object: becomes `ResourceInfo`.
    pub resource: Option<(&'static str, String)>,
    /// Whose quota: becomes `QuotaFailure`.
    pub quota_subject: Option<String>,
    /// When to come back: becomes `RetryInfo`.
    pub retry_after: Option<Duration>,
    /// Further facts: `ErrorInfo.metadata`, for example `("persisted_size_bytes", "262144")`.
    pub facts: Vec<(&'static str, String)>,
}

/// An error that can be told to a caller. Its `Display` is the public message: it must hold no secret, no path, and
/// nothing of another tenant.
pub trait Classify: std::error::Error {
    /// The machine-readable cause.
    fn reason(&self) -> Reason;

    /// The structured part; empty unless the error has one.
    fn details(&self) -> Details {
        Details::default()
    }
}

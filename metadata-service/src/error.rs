//! Everything that the metadata service can answer instead of a result.

use std::num::NonZeroU64;
use std::time::Duration;

use proto::error::{Classify, Details, Reason};
use proto::limits::TENANT_TOKENS_MAX;
use proto::runtime::folder::FolderError;
use proto::tls::{TlsError, exposure};

use crate::audit::AuditError;
use crate::store::engine::EngineError;
use crate::store::records::{RecordError, RecordProblem, Scopes};
use crate::store::rows::RowError;

/// Whose quota, and which bound of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuotaBound {
    /// Bytes.
    Bytes,
    /// Blobs.
    Blobs,
    /// Open uploads.
    OpenUploads,
}

impl std::fmt::Display for QuotaBound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Bytes => "bytes",
            Self::Blobs => "blobs",
            Self::OpenUploads => "open uploads",
        })
    }
}

/// Why a call is refused or failed. Ids in it are those that the caller sent, never what was found under them (I9).
#[derive(Debug, thiserror::Error)]
pub enum MetadataError {
    /// An argument is missing, malformed or out of its bounds.
    #[error("{field} {problem}")]
    Field {
        /// As the proto names it.
        field: &'static str,
        /// What is wrong, as the rest of a sentence.
        problem: String,
    },
    /// The `request_id` stands for another call.
    #[error("request_id was used with another method or other arguments")]
    RequestIdReused,
    /// A receipt is malformed, forged, or not of what was planned.
    #[error("a receipt is refused: {0}")]
    ReceiptInvalid(&'static str),
    /// The stated SHA-256 is not that of the bytes.
    #[error("sha256 is not the SHA-256 of the bytes that were written")]
    ChecksumMismatch,
    /// No such tenant for this caller.
    #[error("there is no such tenant")]
    TenantNotFound(String),
    /// No such blob for this caller.
    #[error("there is no such blob")]
    BlobNotFound(String),
    /// The deleted blob is being collected.
    #[error("the blob was deleted and its data is being collected; it can no longer be restored")]
    BlobCollected(String),
    /// No such upload for this caller.
    #[error("there is no such upload")]
    UploadNotFound(String),
    /// The tenant is registered.
    #[error("the tenant is registered already")]
    TenantAlreadyExists(String),
    /// The id was a deleted tenant's whose data has not been collected.
    #[error("the tenant id belonged to a deleted tenant whose data has not been collected yet; choose another id")]
    TenantNotCollected(String),
    /// The tenant still holds blobs or open uploads.
    #[error(
        "the tenant still holds {blobs} blobs and {uploads} open uploads; delete the blobs, and abort the uploads or let \
         their leases run out"
    )]
    TenantNotEmpty {
        /// Committed blobs.
        blobs: u64,
        /// Open uploads.
        uploads: u64,
    },
    /// The quota does not allow it.
    #[error("the quota of tenant {tenant} is exhausted: of {limit} {bound}, {left} are left")]
    QuotaExceeded {
        /// The tenant.
        tenant: String,
        /// What there is too little of.
        bound: QuotaBound,
        /// The quota.
        limit: u64,
        /// What is left of it.
        left: u64,
    },
    /// The quota does not allow a blob of this size.
    #[error("a blob of tenant {tenant} may have at most {limit} bytes, but {wanted} are wanted")]
    BlobTooLarge {
        /// The tenant.
        tenant: String,
        /// The quota.
        limit: u64,
        /// What is asked for; of an upload of unknown size the least that would be more.
        wanted: u64,
    },
    /// The tenant calls too often.
    #[error("the tenant makes more requests than its {per_second} a second; try again in {} ms", retry_after.as_millis())]
    RateLimited {
        /// Its rate.
        per_second: NonZeroU64,
        /// When the next one fits.
        retry_after: Duration,
    },
    /// Too many calls from the caller's address have no valid token.
    #[error("the token is missing or not valid, like that of too many calls from this address; try again later")]
    TooManyRefusals {
        /// When the next one is looked at as closely as the first ones.
        retry_after: Duration,
    },
    /// The upload was given up, or its lease ran out.
    #[error("the upload is over: it was aborted, or its lease ran out; start a new one")]
    UploadExpired,
    /// Receipts are missing, or do not add up to the blob.
    #[error("the upload is incomplete: {problem}")]
    UploadIncomplete {
        /// What is missing.
        problem: String,
        /// The first block without all of its receipts.
        block_index: Option<u64>,
    },
    /// The upload has become a blob.
    #[error("the upload is committed")]
    UploadCommitted,
    /// The range begins behind the end.
    #[error("read_offset is behind the blob's end at {size_bytes}")]
    ReadOffsetOutOfRange {
        /// The blob's size.
        size_bytes: u64,
    },
    /// No credential.
    #[error("the call carries no token; send the metadata 'authorization: Bearer <token>'")]
    TokenMissing,
    /// No known credential.
    #[error("the token is not valid here")]
    TokenInvalid,
    /// A credential whose time is over.
    #[error("the token has expired")]
    TokenExpired,
    /// The tenant's token is good for other calls.
    #[error("the token does not permit this call: it lacks the scope {0}")]
    TokenScopes(Scopes),
    /// The tenant has as many tokens as it may have.
    #[error("the tenant has {TENANT_TOKENS_MAX} tokens, and none of them has expired; revoke one first")]
    TooManyTokens(String),
    /// A node's keys were replaced too often within the time for which each stays good.
    #[error("the keys of node {0} were replaced too often; those before must end first")]
    TooManyKeys(String),
    /// The call is for services, which show a certificate.
    #[error(
        "this call is for chunk services with a certificate of --tls-client-ca, and this connection came without one; \
         give the chunk service --tls-cert and --tls-key"
    )]
    CertificateMissing,
    /// The credential does not cover the call.
    #[error("the token does not permit this call: {0}")]
    ScopeMissing(&'static str),
    /// The call cannot be put on record.
    #[error("calls of the operator and about tokens wait until they can be put on record: {0}")]
    Audit(#[source] AuditError),
    /// No chunk service takes writes at the moment.
    #[error("no chunk service takes writes at the moment")]
    NoChunkNode,
    /// Those that take writes have too little space.
    #[error("the chunk services are full")]
    NodesFull,
    /// A record is damaged, unknown, or not there although others refer to it.
    #[error("metadata is damaged")]
    Corrupt(#[source] RecordError),
    /// The engine refused or failed.
    #[error("{}", engine_message(.0))]
    Engine(#[source] EngineError),
    /// Damage was met before: no writes are taken.
    #[error("the metadata service takes no writes since it met damage")]
    ReadOnly,
    /// There was no import whose lost time could be decided this way.
    #[error(
        "nothing waits for this decision: the metadata were not imported, or what was written after the export was given up"
    )]
    NotRestored,
    /// The service is about to stop.
    #[error("the service is about to stop")]
    Draining,
    /// A pass of background work that was asked for failed.
    #[error("the pass failed: {0}")]
    PassFailed(String),
    /// A bug.
    #[error("a bug: {0}")]
    Bug(&'static str),
}

fn engine_message(error: &EngineError) -> &'static str {
    match error {
        EngineError::Latched(_) => "the metadata service takes no writes since a fault of its storage",
        EngineError::NearlyFull { .. } => "the metadata service's disk is nearly full",
        EngineError::Overloaded => "too many commits are waiting",
        EngineError::FellBehind => "the export fell behind the commits: its reader is slower than they come",
        EngineError::Closed => "the service is about to stop",
        EngineError::Failed { .. } | EngineError::BatchTooLarge(_) => "the metadata engine failed",
    }
}

impl MetadataError {
    /// A bad argument.
    pub fn field(field: &'static str, problem: impl Into<String>) -> Self {
        Self::Field { field, problem: problem.into() }
    }

    /// A row that others refer to is not there.
    pub fn missing(record: &'static str) -> Self {
        Self::Corrupt(RecordError { record, problem: RecordProblem::Missing })
    }
}

impl From<EngineError> for MetadataError {
    fn from(error: EngineError) -> Self {
        Self::Engine(error)
    }
}

impl From<RecordError> for MetadataError {
    fn from(error: RecordError) -> Self {
        Self::Corrupt(error)
    }
}

impl From<RowError> for MetadataError {
    fn from(error: RowError) -> Self {
        match error {
            RowError::Engine(error) => Self::Engine(error),
            RowError::Record(error) => Self::Corrupt(error),
        }
    }
}

impl Classify for MetadataError {
    fn reason(&self) -> Reason {
        match self {
            Self::Field { .. } => Reason::FieldInvalid,
            Self::RequestIdReused => Reason::RequestIdReused,
            Self::ReceiptInvalid(_) => Reason::ReceiptInvalid,
            Self::ChecksumMismatch => Reason::ChecksumMismatch,
            Self::TenantNotFound(_) => Reason::TenantNotFound,
            Self::BlobNotFound(_) => Reason::BlobNotFound,
            Self::BlobCollected(_) => Reason::BlobCollected,
            Self::UploadNotFound(_) => Reason::UploadNotFound,
            Self::TenantAlreadyExists(_) | Self::TenantNotCollected(_) => Reason::TenantAlreadyExists,
            Self::TenantNotEmpty { .. } => Reason::TenantNotEmpty,
            Self::QuotaExceeded { .. } | Self::BlobTooLarge { .. } => Reason::QuotaExceeded,
            Self::RateLimited { .. } | Self::TooManyRefusals { .. } => Reason::RateLimited,
            Self::UploadExpired => Reason::UploadExpired,
            Self::UploadIncomplete { .. } => Reason::UploadIncomplete,
            Self::UploadCommitted => Reason::UploadCommitted,
            Self::ReadOffsetOutOfRange { .. } => Reason::ReadOffsetOutOfRange,
            Self::TokenMissing => Reason::TokenMissing,
            Self::TokenInvalid => Reason::TokenInvalid,
            Self::TokenExpired => Reason::TokenExpired,
            Self::TokenScopes(_) | Self::ScopeMissing(_) | Self::CertificateMissing => Reason::ScopeMissing,
            Self::TooManyTokens(_) | Self::TooManyKeys(_) => Reason::QuotaExceeded,
            Self::Audit(AuditError::Full) => Reason::NodeOutOfSpace,
            Self::Audit(AuditError::Failed(_) | AuditError::Latched) => Reason::ReadOnly,
            Self::NoChunkNode => Reason::NoChunkNode,
            Self::NodesFull => Reason::NodeOutOfSpace,
            Self::Corrupt(_) => Reason::RecordCorrupt,
            Self::Engine(error) => engine_reason(error),
            Self::ReadOnly => Reason::ReadOnly,
            Self::NotRestored => Reason::NotRestored,
            Self::Draining => Reason::Draining,
            Self::PassFailed(_) | Self::Bug(_) => Reason::Internal,
        }
    }

    fn details(&self) -> Details {
        let details = Details::default();
        match self {
            Self::Field { field, .. } => Details { field: Some(field), ..details },
            Self::RequestIdReused => Details { field: Some("request_id"), ..details },
            Self::ReceiptInvalid(_) => Details { field: Some("receipts"), ..details },
            Self::ChecksumMismatch => Details { field: Some("sha256"), ..details },
            Self::TenantNotFound(id) | Self::TenantAlreadyExists(id) | Self::TenantNotCollected(id) => {
                resource("tenant", id)
            }
            Self::BlobNotFound(id) | Self::BlobCollected(id) => resource("blob", id),
            Self::UploadNotFound(id) => resource("upload", id),
            Self::QuotaExceeded { tenant, .. } | Self::BlobTooLarge { tenant, .. } => {
                Details { quota_subject: Some(format!("tenant:{tenant}")), ..details }
            }
            Self::RateLimited { retry_after, .. } | Self::TooManyRefusals { retry_after } => {
                Details { retry_after: Some(*retry_after), ..details }
            }
            Self::UploadIncomplete { block_index: Some(index), .. } => {
                Details { facts: vec![("block_index", index.to_string())], ..details }
            }
            Self::ReadOffsetOutOfRange { size_bytes } => {
                Details { field: Some("read_offset"), facts: vec![("size_bytes", size_bytes.to_string())], ..details }
            }
            Self::TooManyTokens(tenant) => Details { quota_subject: Some(format!("tenant:{tenant}")), ..details },
            Self::TooManyKeys(node) => Details { quota_subject: Some(format!("node:{node}")), ..details },
            Self::TokenScopes(missing) => Details { facts: vec![("missing_scopes", missing.to_string())], ..details },
            Self::NoChunkNode => Details { retry_after: Some(Duration::from_secs(1)), ..details },
            Self::TenantNotEmpty { .. }
            | Self::UploadExpired
            | Self::UploadIncomplete { block_index: None, .. }
            | Self::UploadCommitted
            | Self::TokenMissing
            | Self::TokenInvalid
            | Self::TokenExpired
            | Self::ScopeMissing(_)
            | Self::CertificateMissing
            | Self::Audit(_)
            | Self::NodesFull
            | Self::Corrupt(_)
            | Self::Engine(_)
            | Self::ReadOnly
            | Self::NotRestored
            | Self::Draining
            | Self::PassFailed(_)
            | Self::Bug(_) => details,
        }
    }
}

fn resource(kind: &'static str, id: &str) -> Details {
    Details { resource: Some((kind, id.to_owned())), ..Details::default() }
}

fn engine_reason(error: &EngineError) -> Reason {
    match error {
        EngineError::Latched(_) => Reason::ReadOnly,
        EngineError::NearlyFull { .. } => Reason::NodeOutOfSpace,
        EngineError::Overloaded | EngineError::FellBehind => Reason::Overloaded,
        EngineError::Closed => Reason::Draining,
        EngineError::Failed { .. } | EngineError::BatchTooLarge(_) => Reason::Internal,
    }
}

/// Why the service cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A data folder cannot be used.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The engine cannot be opened or read.
    #[error("the metadata in {} cannot be opened", folder.display())]
    Engine {
        /// Where it is.
        folder: std::path::PathBuf,
        /// Why.
        #[source]
        source: RowError,
    },
    /// Made by a later version of this program.
    #[error("{} has {what} {found}, but this program knows versions up to {known}; use a newer program", path.display())]
    TooNew {
        /// The file or folder.
        path: std::path::PathBuf,
        /// What has a version, as `rows of schema version`.
        what: &'static str,
        /// Its version.
        found: u32,
        /// The latest one known here.
        known: u32,
    },
    /// Files that belong together do not fit together.
    #[error("{} {problem}", path.display())]
    Inconsistent {
        /// The file or folder.
        path: std::path::PathBuf,
        /// What is wrong and what to do.
        problem: &'static str,
    },
    /// The address must not be listened on like this.
    #[error(transparent)]
    Exposed(#[from] exposure::Refused),
    /// The certificate or a key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A setting makes no sense.
    #[error("{0}")]
    Setting(&'static str),
    /// The listener is not usable.
    #[error("the listener cannot be used")]
    Listener(#[source] std::io::Error),
    /// Reflection cannot be built.
    #[error("reflection cannot be built")]
    Reflection(#[source] tonic_reflection::server::Error),
    /// The start was given up.
    #[error("the start was stopped")]
    Stopped,
}

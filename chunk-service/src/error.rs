//! What can go wrong in a chunk service: one enum, whose `Display` is what a caller may read.
//!
//! No text holds a path, a key or anything of another tenant; causes are linked as sources and stay in the log.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use proto::error::{Classify, Details, Reason};
use proto::ids::ChunkId;
use proto::runtime::folder::FolderError;
use proto::tls::TlsError;
use rustix::io::Errno;

/// Why a call, or a start, failed.
#[derive(Debug, thiserror::Error)]
pub enum ChunkError {
    /// An argument is missing, malformed or out of its bounds.
    #[error("{field}: {problem}")]
    FieldInvalid {
        /// The field, as the proto names it.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// A frame is longer than allowed.
    #[error("a frame is too large; at most {max} bytes are taken")]
    FrameTooLarge {
        /// The longest allowed.
        max: u64,
    },
    /// Bytes are not those that the writer summed up.
    #[error("{what} does not match its {sum}; nothing of it was kept")]
    ChecksumMismatch {
        /// The frame or the chunk.
        what: &'static str,
        /// The kind of sum.
        sum: &'static str,
    },
    /// A stream does not begin, or go on, where the bytes so far end.
    #[error("the write must go on at offset {persisted}")]
    WriteOffsetMismatch {
        /// Bytes that are there.
        persisted: u64,
    },
    /// A range begins behind the end.
    #[error("the range begins behind the chunk's end; it has {size} bytes")]
    ReadOffsetOutOfRange {
        /// The chunk's size.
        size: u64,
    },
    /// The call carried no credential.
    #[error("a capability is needed: send it as 'authorization: Bearer <capability>'")]
    CredentialMissing,
    /// The capability is wrong in some way that a stranger must not learn more about.
    #[error("the capability does not permit this call here")]
    CapabilityInvalid,
    /// The call is the metadata service's, which shows a certificate.
    #[error(
        "this call is for the metadata service with a certificate of --tls-client-ca, and this connection came without one"
    )]
    CertificateMissing,
    /// The capability was good once.
    #[error("the capability has expired; ask the metadata service for a fresh one")]
    CapabilityExpired,
    /// The chunk is complete and holds other bytes.
    #[error("chunk {0} is complete and holds other bytes; it was not changed")]
    AlreadyExists(ChunkId),
    /// The chunk's file is not there.
    #[error("chunk {0} is missing at this node")]
    Missing(ChunkId),
    /// The chunk's bytes are not those that were committed.
    #[error("chunk {0} is damaged at this node; nothing of the damaged part was sent")]
    Corrupt(ChunkId),
    /// A later version of this program wrote the chunk's checksum file.
    #[error(
        "chunk {chunk} has a checksum file of a later version {found}; this program knows up to {known}: \
         use a newer program; nothing was changed"
    )]
    ChecksumFileTooNew {
        /// The chunk.
        chunk: ChunkId,
        /// The file's version.
        found: u32,
        /// The latest one known here.
        known: u32,
    },
    /// Another stream, or a delete, ended this one.
    #[error("another call took over this chunk")]
    TakenOver,
    /// The upload that the chunk belonged to is over.
    #[error("nothing refers to this chunk any more; its upload was given up or has expired")]
    UploadOver,
    /// A bound of this service is reached.
    #[error("too many {0} at this node; try again")]
    Overloaded(&'static str),
    /// The tenant asks for more than its rates allow.
    #[error("the tenant's rate of {of_what} does not allow it yet; try again in {} ms", retry_after.as_millis())]
    RateLimited {
        /// Requests, reads or writes.
        of_what: &'static str,
        /// When to come back.
        retry_after: Duration,
    },
    /// The disk has no room.
    #[error("the node's disk has no room for this chunk")]
    OutOfSpace(#[source] Option<io::Error>),
    /// A fault of the disk ended all writes.
    #[error("the node takes no writes since a fault: {0}")]
    ReadOnly(String),
    /// The service does not know the time, or itself, yet.
    #[error("the node is starting and {0}")]
    Starting(&'static str),
    /// The service is about to stop.
    #[error("the node is about to stop")]
    Draining,
    /// The metadata service had to be asked and did not answer.
    #[error("the metadata service, which has to be asked first, does not answer")]
    MetadataUnreachable(#[source] Option<Box<dyn std::error::Error + Send + Sync>>),
    /// A stream was cut by a timer.
    #[error("the stream was cut: {0}")]
    Stalled(&'static str),
    /// Reading or writing failed in a way that has no meaning for the caller.
    #[error("cannot {action}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A task or a storage thread panicked; its own message is in the log.
    #[error("a part of the service panicked")]
    Panicked,
    /// The journal of small chunks cannot be used.
    #[error("the journal of small chunks, journal.0 and journal.1 in the chunks' folder, cannot be used: {problem}")]
    Journal {
        /// What is wrong.
        problem: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A crash kept chunks from their files; a start of the service brings them there, or a repair of the folder.
    #[error(
        "the journal holds {chunks} chunks that a crash kept from their files; repair the folder, or start the chunk service \
         once and stop it"
    )]
    NotSettled {
        /// How many.
        chunks: u64,
    },
    /// The certificate or a key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The data folder cannot be used.
    #[error("the data folder cannot be used")]
    Folder(#[from] FolderError),
    /// The file with the node's keys cannot be used.
    #[error("{} cannot be used: {problem}", path.display())]
    NodeKey {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        problem: &'static str,
    },
    /// Made by a later version of this program.
    #[error("{} has format version {found}, but this program knows versions up to {known}; use a newer program", path.display())]
    TooNew {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The latest one known here.
        known: u32,
    },
    /// The metadata service does not take this node.
    #[error("the metadata service refuses this node ({reason}); {advice}")]
    Refused {
        /// Its own words.
        reason: String,
        /// What to do.
        advice: &'static str,
    },
    /// A setting cannot be used.
    #[error("{what} cannot be used: {problem}")]
    Setting {
        /// The setting.
        what: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// An address cannot be listened on.
    #[error("cannot listen on {address}; is the port in use?")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The start was called off.
    #[error("stopped before it was ready")]
    Stopped,
}

impl ChunkError {
    pub(crate) fn field(field: &'static str, problem: impl Into<String>) -> Self {
        Self::FieldInvalid { field, problem: problem.into() }
    }

    pub(crate) fn io(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, source }
    }

    /// Like [`ChunkError::io`], for what may fail for want of something that comes back.
    pub(crate) fn file(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::passing(&source).unwrap_or(Self::Io { action, source })
    }

    /// An error that passes by itself and says nothing of the file: out of descriptors, of memory, of something else.
    pub(crate) fn passing(error: &io::Error) -> Option<Self> {
        match Errno::from_io_error(error)? {
            Errno::MFILE | Errno::NFILE => Some(Self::Overloaded("open files")),
            Errno::NOMEM => Some(Self::Overloaded("demands on memory")),
            Errno::AGAIN => Some(Self::Overloaded("file operations")),
            _what_stays => None,
        }
    }
}

impl Classify for ChunkError {
    fn reason(&self) -> Reason {
        match self {
            Self::FieldInvalid { .. } => Reason::FieldInvalid,
            Self::FrameTooLarge { .. } => Reason::FrameTooLarge,
            Self::ChecksumMismatch { .. } => Reason::ChecksumMismatch,
            Self::WriteOffsetMismatch { .. } => Reason::WriteOffsetMismatch,
            Self::ReadOffsetOutOfRange { .. } => Reason::ReadOffsetOutOfRange,
            Self::CredentialMissing => Reason::TokenMissing,
            Self::CapabilityInvalid | Self::CertificateMissing => Reason::CapabilityInvalid,
            Self::CapabilityExpired => Reason::CapabilityExpired,
            Self::AlreadyExists(_) => Reason::ChunkAlreadyExists,
            Self::Missing(_) => Reason::ChunkMissing,
            Self::Corrupt(_) => Reason::ChunkCorrupt,
            Self::ChecksumFileTooNew { .. } => Reason::FormatTooNew,
            Self::TakenOver => Reason::ConcurrentWrite,
            Self::UploadOver => Reason::UploadExpired,
            Self::Overloaded(_) => Reason::Overloaded,
            Self::RateLimited { .. } => Reason::RateLimited,
            Self::OutOfSpace(_) => Reason::NodeOutOfSpace,
            Self::ReadOnly(_) => Reason::ReadOnly,
            Self::Starting(_) => Reason::Starting,
            Self::Draining | Self::Stopped => Reason::Draining,
            Self::MetadataUnreachable(_) => Reason::MetadataUnreachable,
            Self::Stalled(_) => Reason::StreamStalled,
            Self::Io { .. }
            | Self::Panicked
            | Self::Folder(_)
            | Self::Tls(_)
            | Self::NodeKey { .. }
            | Self::Journal { .. }
            | Self::NotSettled { .. }
            | Self::TooNew { .. }
            | Self::Refused { .. }
            | Self::Setting { .. }
            | Self::Listen { .. } => Reason::Internal,
        }
    }

    fn details(&self) -> Details {
        let mut details = Details::default();
        if let Self::FieldInvalid { field, .. } = self {
            details.field = Some(field);
        }
        if let Self::WriteOffsetMismatch { persisted } = self {
            details.facts.push(("persisted_size_bytes", persisted.to_string()));
        }
        if let Self::ReadOffsetOutOfRange { size } = self {
            details.facts.push(("size_bytes", size.to_string()));
        }
        if let Self::RateLimited { retry_after, .. } = self {
            details.retry_after = Some(*retry_after);
        }
        if let Self::FrameTooLarge { max } = self {
            details.facts.push(("max_frame_size_bytes", max.to_string()));
        }
        if let Self::Missing(chunk)
        | Self::Corrupt(chunk)
        | Self::AlreadyExists(chunk)
        | Self::ChecksumFileTooNew { chunk, .. } = self
        {
            details.resource = Some(("chunk", chunk.to_string()));
        }
        details
    }
}

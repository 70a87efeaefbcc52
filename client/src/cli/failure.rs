//! Why a command ended: the exit code, what failed and why, what to do about it, and the request id.

use std::error::Error as _;
use std::fmt;
use std::io::{self, Write as _};
use std::process::ExitCode;

use mini_tectonic_client::{Category, Error};
use proto::error::Reason;
use proto::ids::TenantId;

use super::output::escape;

/// How a command ends when it does not succeed. The numbers are documented in `--help` and scripts rely on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Whoever read standard output has seen enough: no error, and nothing is said.
    PipeClosed,
    /// Anything else, local files too.
    Other,
    /// A bad argument.
    Usage,
    /// No such tenant or blob.
    NotFound,
    /// No credential, or one that does not do.
    NotAuthorised,
    /// The quota or the rate does not allow it.
    QuotaOrRate,
    /// Not reachable, timed out, or full.
    Unavailable,
    /// Stored bytes do not verify.
    DataLoss,
    /// Ctrl-C, as shells report it.
    Interrupted,
}

impl Exit {
    /// The process's exit code.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::PipeClosed => 0,
            Self::Other => 1,
            Self::Usage => 2,
            Self::NotFound => 3,
            Self::NotAuthorised => 4,
            Self::QuotaOrRate => 5,
            Self::Unavailable => 6,
            Self::DataLoss => 7,
            Self::Interrupted => 130,
        }
    }
}

impl From<Category> for Exit {
    fn from(category: Category) -> Self {
        match category {
            Category::Other => Self::Other,
            Category::Usage => Self::Usage,
            Category::NotFound => Self::NotFound,
            Category::NotAuthorised => Self::NotAuthorised,
            Category::QuotaOrRate => Self::QuotaOrRate,
            Category::Unavailable => Self::Unavailable,
            Category::DataLoss => Self::DataLoss,
        }
    }
}

/// A failed command.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    message: String,
    hint: Option<String>,
    request_id: Option<String>,
}

impl Failure {
    /// A failure with its own words.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hint: None, request_id: None }
    }

    /// Something on this machine failed: `cannot open X: permission denied`.
    pub(crate) fn local(what: impl fmt::Display, error: &(dyn std::error::Error + 'static)) -> Self {
        Self::new(Exit::Other, format!("{what}: {}", proto::status::chain(error)))
    }

    /// Adds what to do about it.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// How the process ends.
    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    /// What failed and why, for a warning that is about something larger.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// Says it on standard error; nothing when the reader of standard output has gone.
    pub(crate) fn report(&self) -> ExitCode {
        if self.exit != Exit::PipeClosed {
            // Nobody is left to tell when standard error is closed too; the exit code still says it.
            io::stderr().lock().write_all(self.to_string().as_bytes()).ok();
        }
        ExitCode::from(self.exit.code())
    }
}

/// `error: ...`, and below it what to do and the request id, each on its own line.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error: {}", escape(&self.message))?;
        if let Some(hint) = &self.hint {
            writeln!(f, "  {hint}")?;
        }
        if let Some(request_id) = &self.request_id {
            writeln!(f, "  request id: {}", escape(request_id))?;
        }
        Ok(())
    }
}

/// Writing to standard output failed.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::new(Exit::PipeClosed, "the reader of standard output has gone");
        }
        Self::local("cannot write to standard output", &error)
    }
}

/// An error and why: the library's own causes and the first cause of all. The transport's, in between, say the same thing
/// again in its own terms.
fn in_words(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(current) = cause {
        cause = current.source();
        let ours = current.is::<Error>() || current.is::<Box<Error>>();
        if let Some(status) = current.downcast_ref::<Box<tonic::Status>>() {
            if cause.is_none() {
                text.push_str(&format!(": {}", status.message()));
            }
        } else if ours || cause.is_none() {
            text.push_str(&format!(": {current}"));
        }
    }
    text
}

/// What a call was about, for words that help.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scene<'a> {
    /// What was tried, for example `put`.
    pub(crate) action: &'a str,
    /// For whom, unless it was the admin's call.
    pub(crate) tenant: Option<&'a TenantId>,
}

impl Scene<'_> {
    /// Puts an error of the client library into words.
    pub(crate) fn failed(&self, error: &Error) -> Failure {
        if error.io_kind() == Some(io::ErrorKind::BrokenPipe) {
            return io::Error::from(io::ErrorKind::BrokenPipe).into();
        }
        let message = format!("{} failed: {}", self.action, in_words(error));
        Failure {
            exit: error.category().into(),
            message,
            hint: error.reason().and_then(|reason| self.hint(reason)).or_else(|| error.advice().map(str::to_owned)),
            request_id: error.request_id().map(str::to_owned),
        }
    }

    /// What to do where the command line can say it better than the library: with the command to type.
    fn hint(&self, reason: Reason) -> Option<String> {
        let tenant = self.tenant.map_or("TENANT", TenantId::as_str);
        match reason {
            Reason::TenantNotFound => Some("'mini-tectonic-rs list-tenants' lists the tenants".to_owned()),
            Reason::BlobNotFound => Some(format!("'mini-tectonic-rs list-blobs -t {tenant}' lists this tenant's blobs")),
            Reason::TenantAlreadyExists => Some(format!(
                "choose another id; 'mini-tectonic-rs rotate-token -t {tenant}' makes a new token for this one"
            )),
            Reason::TenantNotEmpty => {
                Some(format!(
                    "delete its blobs first: 'mini-tectonic-rs list-blobs -t {tenant}' lists them; an upload that nobody \
                     goes on with ends by itself, by default within an hour"
                ))
            }
            Reason::QuotaExceeded => Some(format!(
                "delete blobs, or let the admin raise the bound that is named: \
                 'mini-tectonic-rs update-tenant -t {tenant} --max-bytes SIZE', --max-blobs, --max-blob-bytes or \
                 --max-open-uploads"
            )),
            Reason::ScopeMissing => Some(
                "blobs need the tenant's own token; tenants and the cluster need the admin's, which is in admin.token in \
                 the service's storage folder"
                    .to_owned(),
            ),
            Reason::ReadOnly | Reason::NoChunkNode | Reason::NodeOutOfSpace => {
                Some("'mini-tectonic-rs status' shows why writes are refused; reads and deletes go on".to_owned())
            }
            Reason::RateLimited
            | Reason::Overloaded
            | Reason::Draining
            | Reason::Starting
            | Reason::UploadExpired
            | Reason::UploadIncomplete
            | Reason::UploadNotFound
            | Reason::ChunkMissing
            | Reason::ChunkCorrupt
            | Reason::RecordCorrupt
            | Reason::FieldInvalid
            | Reason::FrameTooLarge
            | Reason::ChecksumMismatch
            | Reason::ReceiptInvalid
            | Reason::RequestIdReused
            | Reason::ChunkAlreadyExists
            | Reason::TokenMissing
            | Reason::TokenInvalid
            | Reason::TokenExpired
            | Reason::CapabilityInvalid
            | Reason::CapabilityExpired
            | Reason::WriteOffsetMismatch
            | Reason::ReadOffsetOutOfRange
            | Reason::ConcurrentWrite
            | Reason::StaleGeneration
            | Reason::UploadCommitted
            | Reason::BlobCollected
            | Reason::NotRestored
            | Reason::FormatTooNew
            | Reason::MetadataUnreachable
            | Reason::StreamStalled
            | Reason::Internal => None,
        }
    }
}

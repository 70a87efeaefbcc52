//! What can go wrong, in terms of what the caller does next.
//!
//! The text of an [`Error`] says what failed and why; [`Error::advice`] what to do; the cause, where there is one, is its
//! source and is not repeated in the text. Decisions go by the service's [`Reason`] first: the transport's own errors
//! share the codes, and an answer that is too long to decode must not look like a range that is out of bounds.

mod reasons;

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use proto::error::{Kind, Reason, Retry};
use proto::ids::BlobId;
use proto::status::{WireError, from_status};
use proto::tls::{DialError, WANTS_TLS};
use tonic::{Code, Status};

use self::reasons::{advice_for, category_of, category_of_code, retry_of_code};

/// What kind of trouble it is: the CLI's exit codes, one to one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Category {
    /// Anything else, local files included.
    Other,
    /// An argument is wrong.
    Usage,
    /// It is not there, or not for this caller.
    NotFound,
    /// The credential is missing, wrong, or does not cover the call.
    NotAuthorised,
    /// The tenant's quota, or its rate.
    QuotaOrRate,
    /// A service cannot be reached, does not answer, or cannot take more.
    Unavailable,
    /// Stored bytes are gone or do not verify.
    DataLoss,
}

/// Which service a call was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Service {
    /// The metadata service.
    Metadata,
    /// A chunk service.
    Chunk,
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Metadata => "metadata service",
            Self::Chunk => "chunk service",
        })
    }
}

/// What was asked of whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// What was to be done to which object, for example `commit the upload of blob 0190b5c4-...`.
    pub operation: String,
    /// Which service was asked.
    pub service: Service,
    /// Where it was asked, for example `http://127.0.0.1:50051`.
    pub endpoint: String,
}

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument cannot be used; nothing was sent.
    #[error("invalid {what}: {problem}")]
    Invalid {
        /// Which argument.
        what: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// No connection came about: the call certainly had no effect.
    #[error("cannot {}: the {} at {} cannot be reached", call.operation, call.service, call.endpoint)]
    Unreachable {
        /// What was asked of whom.
        call: Box<Call>,
        /// Why.
        #[source]
        source: Box<Status>,
    },
    /// The connection broke while the answer was awaited: whether the call had an effect is not known.
    #[error("cannot {}: the connection to the {} at {} broke", call.operation, call.service, call.endpoint)]
    Broken {
        /// What was asked of whom.
        call: Box<Call>,
        /// Why; absent when the answer merely ended too early.
        #[source]
        source: Option<Box<Status>>,
    },
    /// No answer came in time: whether the call had an effect is not known.
    #[error("cannot {}: no answer from the {} at {} within {after:?}", call.operation, call.service, call.endpoint)]
    TimedOut {
        /// What was asked of whom.
        call: Box<Call>,
        /// How long was waited.
        after: Duration,
    },
    /// The service refused.
    #[error("cannot {}: {}", call.operation, Refusal(answer))]
    Refused {
        /// What was asked of whom.
        call: Box<Call>,
        /// What the service said.
        answer: Box<WireError>,
    },
    /// The answer is not one that such a service gives.
    #[error("cannot {}: the {} at {} answered with {problem}", call.operation, call.service, call.endpoint)]
    Protocol {
        /// What was asked of whom.
        call: Box<Call>,
        /// What is wrong with it.
        problem: String,
    },
    /// Bytes that were read do not verify against what the metadata holds.
    #[error("blob {blob_id} is damaged: {problem}")]
    Damaged {
        /// The blob.
        blob_id: BlobId,
        /// What does not match.
        problem: String,
    },
    /// The input changed while it was read; nothing was stored.
    #[error("{} changed while it was read: {problem}", path.display())]
    SourceChanged {
        /// The input.
        path: PathBuf,
        /// How.
        problem: String,
    },
    /// The input is longer than what the tenant's quota leaves or allows for one blob; nothing was stored.
    #[error("the tenant's quota does not allow it: the input has more than the {available_bytes} bytes that it leaves")]
    QuotaReached {
        /// How many bytes the upload could have had.
        available_bytes: u64,
    },
    /// A local file, or another local input or output, failed.
    #[error("cannot {action} {}", path.display())]
    Local {
        /// What was tried.
        action: &'static str,
        /// On what; `standard input` and the like for what has no path.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The last answer of an upload was lost, so the blob may be stored or not: [`Client::get_blob`] tells.
    ///
    /// [`Client::get_blob`]: crate::Client::get_blob
    #[error("whether blob {blob_id} was stored is not known")]
    Unsettled {
        /// The blob's id, if it was stored.
        blob_id: BlobId,
        /// How the last attempt to commit it failed.
        #[source]
        source: Box<Error>,
    },
}

struct Refusal<'a>(&'a WireError);

impl fmt::Display for Refusal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.reason {
            Some(reason) => write!(f, "{} ({})", self.0.message, reason.as_str()),
            None => write!(f, "{} ({:?})", self.0.message, self.0.code),
        }
    }
}

impl Error {
    /// What kind of trouble it is.
    pub fn category(&self) -> Category {
        match self {
            Self::Invalid { .. } => Category::Usage,
            Self::Unreachable { .. } | Self::Broken { .. } | Self::TimedOut { .. } => Category::Unavailable,
            Self::Refused { answer, .. } => answer.reason.map_or_else(|| category_of_code(answer.code), category_of),
            Self::Protocol { .. } | Self::SourceChanged { .. } | Self::Local { .. } => Category::Other,
            Self::Damaged { .. } => Category::DataLoss,
            Self::QuotaReached { .. } => Category::QuotaOrRate,
            Self::Unsettled { source, .. } => source.category(),
        }
    }

    /// The service's reason; `None` when no service of ours gave one.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::Refused { answer, .. } => answer.reason,
            Self::Unsettled { source, .. } => source.reason(),
            Self::Invalid { .. }
            | Self::Unreachable { .. }
            | Self::Broken { .. }
            | Self::TimedOut { .. }
            | Self::Protocol { .. }
            | Self::Damaged { .. }
            | Self::SourceChanged { .. }
            | Self::QuotaReached { .. }
            | Self::Local { .. } => None,
        }
    }

    /// The id under which the service logged it.
    pub fn request_id(&self) -> Option<&str> {
        match self {
            Self::Refused { answer, .. } => answer.request_id.as_deref(),
            Self::Unsettled { source, .. } => source.request_id(),
            Self::Invalid { .. }
            | Self::Unreachable { .. }
            | Self::Broken { .. }
            | Self::TimedOut { .. }
            | Self::Protocol { .. }
            | Self::Damaged { .. }
            | Self::SourceChanged { .. }
            | Self::QuotaReached { .. }
            | Self::Local { .. } => None,
        }
    }

    /// The operating system's kind of error, for a local failure: a broken pipe on standard output is one.
    pub fn io_kind(&self) -> Option<io::ErrorKind> {
        if let Self::Local { source, .. } = self { Some(source.kind()) } else { None }
    }

    /// Whether and how the call may be repeated. What was lost on the way may, for every mutating call carries its
    /// intent's id.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Unreachable { source, .. } if dialed(source).is_some_and(|error| !error.may_pass()) => Retry::Never,
            Self::Unreachable { source, .. } if wanted_tls(source) => Retry::Never,
            Self::Unreachable { .. } | Self::Broken { .. } | Self::TimedOut { .. } => Retry::SameCall,
            Self::Refused { answer, .. } => answer.reason.map_or_else(|| retry_of_code(answer.code), Reason::retry),
            Self::Unsettled { source, .. } => source.retry(),
            Self::Invalid { .. }
            | Self::Protocol { .. }
            | Self::Damaged { .. }
            | Self::SourceChanged { .. }
            | Self::QuotaReached { .. }
            | Self::Local { .. } => Retry::Never,
        }
    }

    /// Whether the operation may succeed if it is repeated.
    pub fn retryable(&self) -> bool {
        self.retry() != Retry::Never
    }

    /// What to do about it, where that can be said.
    pub fn advice(&self) -> Option<&'static str> {
        match self {
            Self::Unreachable { source, .. } if wanted_tls(source) => Some(USE_HTTPS),
            Self::Unreachable { source, .. } => match dialed(source) {
                Some(error) if !error.may_pass() => error.advice(),
                Some(_) | None => Some(START_IT),
            },
            Self::TimedOut { .. } => Some(START_IT),
            Self::Broken { .. } => Some("try again"),
            Self::Refused { answer, .. } => answer.reason.and_then(advice_for),
            Self::Unsettled { .. } => Some("ask for the blob by its id: if it is there, it was stored"),
            Self::Protocol { .. } => Some("is this the endpoint of a MiniTectonic service, and of this version?"),
            Self::Damaged { .. } => Some(REPORT_DAMAGE),
            Self::SourceChanged { .. } => Some("try again when nothing writes to it"),
            Self::QuotaReached { .. } => Some(FREE_QUOTA),
            Self::Invalid { .. } | Self::Local { .. } => None,
        }
    }

    /// Reads what came in place of an answer.
    pub(crate) fn from_call(call: &Call, status: Status) -> Self {
        let call = Box::new(call.clone());
        if is_answer(&status) {
            return Self::Refused { call, answer: Box::new(from_status(&status)) };
        }
        let source = Box::new(status);
        if cause::<tonic::ConnectError>(source.as_ref()).is_some() || wanted_tls(&source) {
            Self::Unreachable { call, source }
        } else {
            Self::Broken { call, source: Some(source) }
        }
    }

    /// When the service wants to be asked again.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        if let Self::Refused { answer, .. } = self { answer.retry_after } else { None }
    }

    /// Whether the call may have had an effect although it failed.
    pub(crate) fn outcome_unknown(&self) -> bool {
        match self {
            Self::Broken { .. } | Self::TimedOut { .. } => true,
            // A log sync that failed may have reached the disk all the same.
            Self::Refused { answer, .. } => answer.reason.is_some_and(|reason| reason.kind() == Kind::Internal),
            Self::Invalid { .. }
            | Self::Unreachable { .. }
            | Self::Protocol { .. }
            | Self::Damaged { .. }
            | Self::SourceChanged { .. }
            | Self::QuotaReached { .. }
            | Self::Local { .. }
            | Self::Unsettled { .. } => false,
        }
    }
}

const USE_HTTPS: &str =
    "name the authority too, with --tls-ca, unless this machine trusts it (certs/ca.pem, if 'certs' made it)";
const START_IT: &str = "is the service running? start it with `mini-tectonic-rs serve`";
const REPORT_DAMAGE: &str = "tell the operator: stored bytes are gone or damaged, and no good copy was found";
const FREE_QUOTA: &str = "delete blobs, or ask the operator for a larger quota";

/// Whether the service said this, and not the way to it.
pub(crate) fn is_answer(status: &Status) -> bool {
    from_status(status).reason.is_some() || (status.source().is_none() && !is_transport_code(status.code()))
}

/// Codes that tonic and proxies make up when a connection or a stream ends without an answer.
fn is_transport_code(code: Code) -> bool {
    matches!(code, Code::Unavailable | Code::Cancelled | Code::Unknown | Code::DeadlineExceeded)
}

/// The error and its causes, the last of which is the first cause of all.
fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn StdError + 'static)| {
        let error: &'a (dyn StdError + 'static) = *error;
        error.source()
    })
}

fn cause<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    causes(error).find_map(|error| error.downcast_ref())
}

/// Why no connection came about, if that is why.
fn dialed(status: &Status) -> Option<&DialError> {
    cause(status)
}

/// Whether the other side answered in TLS to who did not.
fn wanted_tls(status: &Status) -> bool {
    causes(status).any(|error| error.to_string() == WANTS_TLS)
}

#[cfg(test)]
mod tests;

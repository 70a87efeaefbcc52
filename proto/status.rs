//! The one place where an error becomes a `tonic::Status`, and where one is read back.

use std::collections::HashMap;
use std::time::Duration;

use prost::Message as _;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::entropy::{Entropy as _, OsEntropy};
use crate::error::{Classify, Details, ERROR_DOMAIN, Kind, Reason};
use crate::pb;

/// What a caller is told of an [`Kind::Internal`] error: the cause stays in the service's log, under the request id.
const INTERNAL_MESSAGE: &str = "internal error; the service's log has the cause under this request id";
/// When to come back after an error that passes by itself and does not say when.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// Turns an error into what travels: code, public message, and the `google.rpc` details. Internal errors and lost data
/// are logged here, once, with the whole chain of causes.
pub fn to_status<E: Classify>(error: &E) -> Status {
    let reason = error.reason();
    let kind = reason.kind();
    let request_id = new_request_id();
    let message = match kind {
        Kind::Internal => INTERNAL_MESSAGE.to_owned(),
        Kind::InvalidArgument
        | Kind::NotFound
        | Kind::AlreadyExists
        | Kind::FailedPrecondition
        | Kind::StaleGeneration
        | Kind::Conflict
        | Kind::Unauthenticated
        | Kind::PermissionDenied
        | Kind::OutOfRange
        | Kind::ResourceExhausted
        | Kind::Unavailable
        | Kind::DataLoss => error.to_string(),
    };
    if matches!(kind, Kind::Internal | Kind::DataLoss) {
        tracing::error!(%request_id, reason = reason.as_str(), cause = %chain(error), "a call failed");
    }
    let details = google_details(reason, kind, error.details(), &message, request_id);
    Status::with_error_details(kind.code(), message, details)
}

/// An error and its causes, outermost first.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// A status for a log: its code, its message, and the first cause of all, which says most when there was no answer.
pub fn in_words(status: &Status) -> String {
    let mut text = format!("{:?}: {}", status.code(), status.message());
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        cause = error.source();
        if cause.is_none() {
            text.push_str(&format!(": {error}"));
        }
    }
    text
}

fn new_request_id() -> String {
    let mut bytes = [0; 8];
    OsEntropy.fill(&mut bytes);
    format!("{:016x}", u64::from_be_bytes(bytes))
}

fn google_details(reason: Reason, kind: Kind, details: Details, message: &str, request_id: String) -> ErrorDetails {
    let facts: HashMap<String, String> =
        details.facts.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    let mut google = ErrorDetails::new();
    google.set_error_info(reason.as_str(), ERROR_DOMAIN, facts).set_request_info(request_id, "");
    if let Some(field) = details.field {
        google.add_bad_request_violation(field, message);
    }
    if let Some((kind, name)) = details.resource {
        google.set_resource_info(kind, name, "", "");
    }
    if let Some(subject) = details.quota_subject {
        google.add_quota_failure_violation(subject, message);
    }
    let passing = kind == Kind::Unavailable || matches!(reason, Reason::RateLimited | Reason::Overloaded);
    if let Some(after) = details.retry_after.or(passing.then_some(RETRY_AFTER)) {
        google.set_retry_info(Some(after));
    }
    google
}

/// What a `Status` says, read by a client.
#[derive(Debug, Clone)]
pub struct WireError {
    /// The code.
    pub code: Code,
    /// The reason; absent for errors that did not come from our services, and for reasons newer than this client.
    pub reason: Option<Reason>,
    /// The message.
    pub message: String,
    /// `ErrorInfo.metadata`.
    pub facts: HashMap<String, String>,
    /// When to come back.
    pub retry_after: Option<Duration>,
    /// The id under which the service logged it.
    pub request_id: Option<String>,
}

/// An error as the outcome of one item of a batch: what a call about it alone would have ended with.
pub fn to_item_error<E: Classify>(error: &E) -> pb::ItemError {
    let status = to_status(error);
    // Both messages have the same fields, so whatever a status carries can be read as an item's.
    let details = pb::ItemError::decode(status.details()).map(|decoded| decoded.details).unwrap_or_default();
    pb::ItemError { code: status.code().into(), message: status.message().to_owned(), details }
}

/// The status that a call about this item alone would have ended with.
pub fn item_status(error: &pb::ItemError) -> Status {
    Status::with_details(Code::from(error.code), &error.message, error.encode_to_vec().into())
}

/// Reads a `Status`. Details that are malformed or of another domain count as absent.
pub fn from_status(status: &Status) -> WireError {
    let details = status.get_error_details();
    let info = details.error_info().filter(|info| info.domain == ERROR_DOMAIN);
    WireError {
        code: status.code(),
        reason: info.and_then(|info| Reason::parse(&info.reason)),
        message: status.message().to_owned(),
        facts: info.map(|info| info.metadata.clone()).unwrap_or_default(),
        retry_after: details.retry_info().and_then(|info| info.retry_delay),
        request_id: details.request_info().map(|info| info.request_id.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("what happened")]
    struct Example {
        reason: Reason,
        #[source]
        cause: std::io::Error,
    }

    impl Classify for Example {
        fn reason(&self) -> Reason {
            self.reason
        }
        fn details(&self) -> Details {
            Details {
                field: Some("tenant_id"),
                resource: Some(("tenant", "posts".to_owned())),
                quota_subject: Some("tenant:posts".to_owned()),
                retry_after: None,
                facts: vec![("persisted_size_bytes", "7".to_owned())],
            }
        }
    }

    #[test]
    fn every_reason_survives_the_wire() {
        for reason in Reason::ALL {
            let error = Example { reason, cause: std::io::Error::other("secret path") };
            let status = to_status(&error);
            let read = from_status(&status);
            assert_eq!((read.code, read.reason), (reason.kind().code(), Some(reason)));
            assert_eq!(read.facts.get("persisted_size_bytes").map(String::as_str), Some("7"));
            assert_eq!(read.request_id.as_deref().map(str::len), Some(16));
            assert!(!status.message().contains("secret path"), "a cause must not travel");
            assert_eq!(read.message == INTERNAL_MESSAGE, reason == Reason::Internal);
            assert_eq!(Reason::parse(reason.as_str()), Some(reason));
        }
    }

    #[test]
    fn an_item_s_error_reads_as_the_status_that_it_stands_for() {
        for reason in Reason::ALL {
            let error = Example { reason, cause: std::io::Error::other("secret path") };
            let (item, alone) = (item_status(&to_item_error(&error)), to_status(&error));
            let (found, expected) = (from_status(&item), from_status(&alone));
            assert_eq!((item.code(), item.message()), (alone.code(), alone.message()));
            assert_eq!(
                (found.reason, found.facts, found.retry_after),
                (expected.reason, expected.facts, expected.retry_after)
            );
            assert_eq!(item.details().len(), alone.details().len(), "but for the request's id");
        }
    }

    #[test]
    fn unavailable_says_when_to_come_back() {
        let error = Example { reason: Reason::Draining, cause: std::io::Error::other("x") };
        assert_eq!(from_status(&to_status(&error)).retry_after, Some(RETRY_AFTER));
    }

    #[test]
    fn a_status_of_another_origin_has_no_reason() {
        let read = from_status(&Status::from_error(Box::new(std::io::Error::other("x"))));
        assert_eq!(read.reason, None);
    }
}

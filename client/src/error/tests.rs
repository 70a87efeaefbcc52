use proto::error::Classify;
use proto::status::to_status;

use super::*;

#[derive(Debug, thiserror::Error)]
#[error("what happened")]
struct Example(Reason);

impl Classify for Example {
    fn reason(&self) -> Reason {
        self.0
    }
}

fn call() -> Call {
    Call { operation: "get blob 7".to_owned(), service: Service::Metadata, endpoint: "http://a:1".to_owned() }
}

#[test]
fn every_reason_is_decided_by_the_reason_and_shown() {
    for reason in Reason::ALL {
        let error = Error::from_call(&call(), to_status(&Example(reason)));
        assert_eq!((error.reason(), error.retry()), (Some(reason), reason.retry()));
        assert!(error.to_string().starts_with("cannot get blob 7: "), "{error}");
        assert!(error.to_string().ends_with(&format!("({})", reason.as_str())), "{error}");
        assert!(error.request_id().is_some_and(|id| !error.to_string().contains(id)));
        let expected = match reason.kind() {
            Kind::NotFound => Category::NotFound,
            Kind::DataLoss => Category::DataLoss,
            Kind::Unauthenticated | Kind::PermissionDenied => Category::NotAuthorised,
            Kind::Unavailable => Category::Unavailable,
            Kind::InvalidArgument if reason == Reason::ChecksumMismatch => Category::DataLoss,
            Kind::InvalidArgument => Category::Usage,
            Kind::ResourceExhausted if reason == Reason::NodeOutOfSpace => Category::Unavailable,
            Kind::ResourceExhausted => Category::QuotaOrRate,
            Kind::AlreadyExists
            | Kind::FailedPrecondition
            | Kind::StaleGeneration
            | Kind::Conflict
            | Kind::OutOfRange
            | Kind::Internal => Category::Other,
        };
        assert_eq!(error.category(), expected, "{reason:?}");
    }
}

/// A commit whose log sync failed was once reported as a plain failure, though the blob may be there after a restart.
#[test]
fn an_internal_error_leaves_the_outcome_open_and_any_other_answer_does_not() {
    for reason in Reason::ALL {
        let error = Error::from_call(&call(), to_status(&Example(reason)));
        assert_eq!(error.outcome_unknown(), reason == Reason::Internal, "{reason:?}");
    }
}

#[test]
fn an_answer_too_long_to_decode_is_not_a_range_out_of_bounds() {
    let error = Error::from_call(&call(), tonic_status(Code::OutOfRange));
    assert_eq!(error.reason(), None);
    assert_eq!((error.category(), error.retryable()), (Category::Other, false));
    assert!(error.to_string().contains("OutOfRange"), "{error}");
}

#[test]
fn a_connection_that_breaks_leaves_the_outcome_open_and_may_be_repeated() {
    for code in [Code::Unavailable, Code::Cancelled, Code::Unknown] {
        let error = Error::from_call(&call(), tonic_status(code));
        assert!(error.outcome_unknown() && error.retryable(), "{code:?}");
        assert_eq!(error.category(), Category::Unavailable);
        assert!(error.to_string().contains("http://a:1"), "{error}");
    }
    let refused = tonic::ConnectError(Box::new(io::Error::from(io::ErrorKind::ConnectionRefused)));
    let error = Error::from_call(&call(), Status::from_error(Box::new(refused)));
    assert!(matches!(error, Error::Unreachable { .. }) && !error.outcome_unknown());
    assert!(error.advice().is_some_and(|advice| advice.contains("serve")));
}

/// A status as the transport makes it up.
fn tonic_status(code: Code) -> Status {
    #[expect(clippy::disallowed_methods, reason = "stands for one that is not of our services")]
    Status::new(code, "made up")
}

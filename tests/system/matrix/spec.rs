//! The rules: what a refusal is made of, word for word.
//!
//! Written from the contract (the protos' comments and the reasons in `proto::error`), not with the services' own code: a
//! change of either shows.

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::wire::{Outcome, Refused};

/// Whose, or what, the object is that a request names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// The caller's own.
    Own,
    /// Another's.
    Foreign(String),
    /// An id that nothing ever had.
    Never(String),
    /// The caller's own, which is no more, or is no such object.
    Gone(&'static str),
    /// No id at all.
    Malformed(String),
}

/// What a call must come to.
#[derive(Debug, Clone)]
pub(super) enum Expected {
    Answered,
    Refused(Refusal),
}

/// A refusal, in full.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    code: Code,
    reason: &'static str,
    message: String,
    field: Option<&'static str>,
    resource: Option<(&'static str, String)>,
    fact: Option<(&'static str, String)>,
}

/// A refusal without details of its own.
pub(super) fn refusal(code: Code, reason: &'static str, message: &str) -> Refusal {
    Refusal { code, reason, message: message.to_owned(), field: None, resource: None, fact: None }
}

/// No credential that is known, or none that is any more.
pub(super) fn unauthenticated(reason: &'static str, message: &str) -> Expected {
    Expected::Refused(refusal(Code::Unauthenticated, reason, message))
}

/// A good credential that is not for this.
pub(super) fn denied(need: &str) -> Expected {
    let message = format!("the token does not permit this call: {need}");
    Expected::Refused(refusal(Code::PermissionDenied, "SCOPE_MISSING", &message))
}

/// A tenant's token without these scopes.
pub(super) fn scopes_missing(scopes: &str) -> Expected {
    let message = format!("the token does not permit this call: it lacks the scope {scopes}");
    let refusal = refusal(Code::PermissionDenied, "SCOPE_MISSING", &message);
    Expected::Refused(Refusal { fact: Some(("missing_scopes", scopes.to_owned())), ..refusal })
}

/// A field that cannot be used.
pub(super) fn bad_field(field: &'static str, message: String) -> Expected {
    let refusal = refusal(Code::InvalidArgument, "FIELD_INVALID", &message);
    Expected::Refused(Refusal { field: Some(field), ..refusal })
}

/// An object that is not there for this caller.
pub(super) fn absent(kind: &'static str, id: &str) -> Expected {
    let reason = match kind {
        "tenant" => "TENANT_NOT_FOUND",
        "blob" => "BLOB_NOT_FOUND",
        _upload => "UPLOAD_NOT_FOUND",
    };
    about(refusal(Code::NotFound, reason, &format!("there is no such {kind}")), kind, id)
}

/// A refusal that names the object.
pub(super) fn about(refusal: Refusal, kind: &'static str, id: &str) -> Expected {
    Expected::Refused(Refusal { resource: Some((kind, id.to_owned())), ..refusal })
}

impl Refusal {
    fn status(&self, request_id: &str) -> Status {
        let mut details = ErrorDetails::new();
        let facts: std::collections::HashMap<_, _> =
            self.fact.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
        details.set_error_info(self.reason, "minitectonic.v1", facts).set_request_info(request_id, "");
        if let Some(field) = self.field {
            details.add_bad_request_violation(field, &self.message);
        }
        if let Some((kind, id)) = &self.resource {
            details.set_resource_info(*kind, id, "", "");
        }
        Status::with_error_details(self.code, &self.message, details)
    }
}

impl Expected {
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused(_))
    }

    /// Compares every byte but those of the request id, which is 16 hex digits.
    pub(super) fn check(&self, outcome: &Outcome) -> Result<(), String> {
        let (spec, found) = match (self, &outcome.answer) {
            (Self::Answered, Ok(_messages)) => return Ok(()),
            (Self::Refused(spec), Err(found)) => (spec, found),
            (expected, found) => return Err(format!("{expected:?} is due, and comes {found:?}")),
        };
        let Refused { code, message, details, request_id, .. } = found;
        if request_id.len() != 16 || !request_id.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(format!("{request_id:?} is no request id: {code:?}, {message:?}"));
        }
        let due = spec.status(request_id);
        if (*code, message.as_str(), details.as_slice()) == (due.code(), due.message(), due.details()) {
            return Ok(());
        }
        Err(format!("{due:?} is due, and comes {found:?}"))
    }
}

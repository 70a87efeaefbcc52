//! Single fields.

use std::collections::{BTreeMap, HashMap};
use std::str::FromStr;
use std::time::Duration;

use proto::ids::{IdError, NodeId, TenantId};
use proto::limits;
use proto::traffic::TrafficClass;
use tonic::codegen::http::Uri;

use crate::auth::{Caller, Principal};
use crate::coordinator::request::RequestId;
use crate::error::MetadataError;
use crate::store::keys::RequestScope;
use crate::store::records::Description;

const NOT_FOR: MetadataError = MetadataError::Bug("a call came past its access check");

/// An id that must be there.
pub(super) fn id<T: FromStr<Err = IdError>>(field: &'static str, text: &str) -> Result<T, MetadataError> {
    text.parse().map_err(|error: IdError| MetadataError::field(field, error.to_string()))
}

/// A text that must not be longer.
pub(super) fn text(field: &'static str, text: String, bytes_max: usize) -> Result<String, MetadataError> {
    if text.len() <= bytes_max {
        return Ok(text);
    }
    Err(MetadataError::field(field, format!("must have at most {bytes_max} bytes")))
}

/// The caller's own tenant; a request may name it, but no other (I9).
pub(super) fn own_tenant(caller: &Caller, named: &str) -> Result<TenantId, MetadataError> {
    let own = match &caller.principal {
        Principal::Tenant(own) => own,
        Principal::Anyone => return id("tenant_id", named),
        Principal::Admin | Principal::Join(_) | Principal::Node(_) => return Err(NOT_FOR),
    };
    if named.is_empty() {
        return Ok(own.clone());
    }
    let named: TenantId = id("tenant_id", named)?;
    if named == *own { Ok(named) } else { Err(MetadataError::TenantNotFound(named.to_string())) }
}

/// The tenant that a request is about: any for the admin, for a tenant its own.
pub(super) fn tenant(caller: &Caller, named: &str) -> Result<TenantId, MetadataError> {
    match &caller.principal {
        Principal::Admin => id("tenant_id", named),
        Principal::Tenant(_) => own_tenant(caller, named),
        Principal::Join(_) | Principal::Node(_) | Principal::Anyone => Err(NOT_FOR),
    }
}

/// The request id of a tenant's own call.
pub(super) fn own_request(tenant: &TenantId, request_id: String) -> Result<RequestId, MetadataError> {
    let id = text("request_id", request_id, limits::REQUEST_ID_BYTES_MAX)?;
    Ok(RequestId { scope: RequestScope::Tenant(tenant.clone()), id })
}

/// The request id, in the scope of who sent it.
pub(super) fn request(caller: &Caller, request_id: String) -> Result<RequestId, MetadataError> {
    let scope = match &caller.principal {
        Principal::Admin => RequestScope::Admin,
        Principal::Tenant(tenant) => RequestScope::Tenant(tenant.clone()),
        Principal::Join(_) | Principal::Node(_) | Principal::Anyone => return Err(NOT_FOR),
    };
    Ok(RequestId { scope, id: text("request_id", request_id, limits::REQUEST_ID_BYTES_MAX)? })
}

/// The calling node.
pub(super) fn node(caller: &Caller) -> Result<NodeId, MetadataError> {
    match &caller.principal {
        Principal::Node(node) => Ok(*node),
        Principal::Admin | Principal::Tenant(_) | Principal::Join(_) | Principal::Anyone => Err(NOT_FOR),
    }
}

/// A time span that may be absent, between two bounds.
pub(super) fn span(
    field: &'static str,
    span: Option<prost_types::Duration>,
    bounds: std::ops::RangeInclusive<Duration>,
) -> Result<Option<Duration>, MetadataError> {
    let Some(span) = span else { return Ok(None) };
    let read = Duration::try_from(span).ok().filter(|span| bounds.contains(span));
    read.map(Some).ok_or_else(|| {
        let (least, most) = (humantime::format_duration(*bounds.start()), humantime::format_duration(*bounds.end()));
        MetadataError::field(field, format!("must be between {least} and {most}"))
    })
}

/// What a writer says about a blob.
pub(super) fn description(
    display_name: String,
    content_type: String,
    labels: HashMap<String, String>,
) -> Result<Description, MetadataError> {
    Ok(Description {
        display_name: text("display_name", display_name, limits::DISPLAY_NAME_BYTES_MAX)?,
        content_type: text("content_type", content_type, limits::CONTENT_TYPE_BYTES_MAX)?,
        labels: checked_labels(labels)?,
    })
}

fn checked_labels(labels: HashMap<String, String>) -> Result<BTreeMap<String, String>, MetadataError> {
    use limits::{LABEL_KEY_BYTES_MAX, LABEL_VALUE_BYTES_MAX, LABELS_BYTES_MAX, LABELS_MAX};
    let refuse = |problem: String| Err(MetadataError::field("labels", problem));
    if labels.len() > LABELS_MAX {
        return refuse(format!("must be at most {LABELS_MAX}"));
    }
    if labels.keys().any(|key| key.is_empty() || key.len() > LABEL_KEY_BYTES_MAX) {
        return refuse(format!("must have keys of 1 to {LABEL_KEY_BYTES_MAX} bytes"));
    }
    if labels.values().any(|value| value.len() > LABEL_VALUE_BYTES_MAX) {
        return refuse(format!("must have values of at most {LABEL_VALUE_BYTES_MAX} bytes"));
    }
    if labels.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() > LABELS_BYTES_MAX {
        return refuse(format!("must have at most {LABELS_BYTES_MAX} bytes all together"));
    }
    Ok(labels.into_iter().collect())
}

/// Where clients reach a node: scheme and authority, nothing behind.
pub(super) fn endpoint(text: &str) -> Result<String, MetadataError> {
    let refused = || MetadataError::field("endpoint", "must be a URL such as http://127.0.0.1:50052");
    if text.len() > limits::ENDPOINT_BYTES_MAX {
        return Err(refused());
    }
    let uri: Uri = text.parse().map_err(|_malformed| refused())?;
    let scheme = uri.scheme_str().filter(|scheme| matches!(*scheme, "http" | "https")).ok_or_else(refused)?;
    let authority = uri.authority().filter(|authority| !authority.as_str().contains('@')).ok_or_else(refused)?;
    let nothing_behind = matches!(uri.path(), "" | "/") && uri.query().is_none();
    if nothing_behind { Ok(format!("{scheme}://{authority}")) } else { Err(refused()) }
}

/// A class of traffic; `None` when the message says none.
pub(super) fn traffic_class(number: i32) -> Result<Option<TrafficClass>, MetadataError> {
    TrafficClass::from_wire(number).map_err(|unknown| MetadataError::field("traffic_class", unknown.to_string()))
}

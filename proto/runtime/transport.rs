//! What every listener of ours has in common: who is let in and for how long, HTTP/2 limits, reflection, a reason on
//! every refusal, and an end with a deadline.

mod accept;
mod admission;
mod chatter;
mod connection;
mod deadline;
mod lane;
mod limits;
mod parted;
mod request;
mod rest;
mod serving;
mod untaken;
mod watches;
mod wire;

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::{Code, Status};

pub use self::admission::{ConnectionCounts, Gate};
pub use self::lane::Lane;
pub use self::limits::TransportLimits;
pub use self::serving::{Door, serve};
pub use self::untaken::UntilSent;
pub use self::wire::ClientCertificate;
use crate::error::{Classify, Details, Reason};
use crate::limits::SMALL_REQUEST_BYTES_MAX;
use crate::status::to_status;

type Request = http::Request<Body>;
type Response = http::Response<Body>;
/// Services, to be served with our limits on them.
pub type Router = tonic::service::Routes;

/// No service yet.
pub fn server() -> Router {
    Router::default()
}

/// A request that tonic refused before any code of ours saw it.
#[derive(Debug, thiserror::Error)]
#[error("the request cannot be read: {0}")]
struct Unreadable(String);

impl Classify for Unreadable {
    fn reason(&self) -> Reason {
        Reason::FieldInvalid
    }

    fn details(&self) -> Details {
        Details { field: Some("request"), ..Details::default() }
    }
}

/// tonic answers a request that is too large with OUT_OF_RANGE and one that it cannot decode with INTERNAL, both without
/// a reason. Every error of ours has details, so these two are told by having none.
fn with_reason(response: Response) -> Response {
    let Some(status) = Status::from_header_map(response.headers()) else { return response };
    let unreadable = matches!(status.code(), Code::OutOfRange | Code::Internal) && status.details().is_empty();
    if unreadable { to_status(&Unreadable(status.message().to_owned())).into_http() } else { response }
}

/// Binds a listener; port 0 picks a free one.
///
/// # Errors
/// As the system says, for example that the address is in use.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Both versions of the reflection service, which list themselves and each other.
const REFLECTION_NAMES: [&str; 2] = ["grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"];

/// Adds reflection (v1 and v1alpha) that lists exactly these services and itself, and can describe the types of error
/// details.
///
/// # Errors
/// When a descriptor set cannot be read, which a test rules out.
pub fn with_reflection(router: Router, service_names: &[&str]) -> Result<Router, tonic_reflection::server::Error> {
    let builder = || {
        let mut builder = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(crate::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET)
            .include_reflection_service(false);
        for name in service_names.iter().chain(&REFLECTION_NAMES) {
            builder = builder.with_service_name(*name);
        }
        builder
    };
    let v1 = builder().build_v1()?.max_decoding_message_size(SMALL_REQUEST_BYTES_MAX);
    let v1alpha = builder().build_v1alpha()?.max_decoding_message_size(SMALL_REQUEST_BYTES_MAX);
    Ok(router.add_service(v1).add_service(v1alpha))
}

#[cfg(test)]
mod tests;

//! What every listener of ours has in common: who is let in and for how long, HTTP/2 limits, reflection, a reason on
//! every refusal, and an end with a deadline.

mod accept;
mod admission;
mod chatter;
mod connection;
mod limits;
mod request;
mod rest;
mod untaken;
mod watches;
mod wire;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::transport::Server;
use tonic::{Code, Status};
use tower::layer::util::{Identity, Stack};
use tower::util::{MapRequestLayer, MapResponseLayer};

pub use self::admission::{ConnectionCounts, Gate};
pub use self::limits::TransportLimits;
use self::untaken::AnswerLayer;
pub use self::untaken::UntilSent;
use self::watches::WatchLayer;
pub use self::wire::ClientCertificate;
use crate::error::{Classify, Details, Reason};
use crate::limits::{
    HTTP2_CONNECTION_WINDOW_BYTES, HTTP2_FRAME_BYTES, HTTP2_HEADER_LIST_BYTES, HTTP2_KEEPALIVE_INTERVAL,
    HTTP2_KEEPALIVE_TIMEOUT, HTTP2_LOCAL_RESETS_MAX, HTTP2_PENDING_RESETS_MAX, HTTP2_STREAM_WINDOW_BYTES,
    HTTP2_STREAMS_PER_CONNECTION, SMALL_REQUEST_BYTES_MAX,
};
use crate::runtime::tls::Tls;
use crate::status::to_status;

type Request = http::Request<Body>;
type Response = http::Response<Body>;
type Explain = Stack<MapResponseLayer<fn(Response) -> Response>, Identity>;
type Receive = Stack<MapRequestLayer<fn(Request) -> Request>, Explain>;
type Bounded = Stack<WatchLayer, Receive>;
type Layers = Stack<AnswerLayer, Bounded>;
/// A server with services on it.
pub type Router = tonic::transport::server::Router<Layers>;

/// A server with our limits on it. tonic's own defaults leave streams and resets without a bound.
pub fn server() -> Server<Layers> {
    let explain: fn(Response) -> Response = with_reason;
    let receive: fn(Request) -> Request = request::receive;
    Server::builder()
        .layer(MapResponseLayer::new(explain))
        .layer(MapRequestLayer::new(receive))
        .layer(WatchLayer)
        .layer(AnswerLayer)
        .initial_stream_window_size(HTTP2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(HTTP2_CONNECTION_WINDOW_BYTES)
        .max_frame_size(HTTP2_FRAME_BYTES)
        .max_concurrent_streams(HTTP2_STREAMS_PER_CONNECTION)
        .http2_max_header_list_size(HTTP2_HEADER_LIST_BYTES)
        .http2_max_pending_accept_reset_streams(Some(HTTP2_PENDING_RESETS_MAX))
        .http2_max_local_error_reset_streams(Some(HTTP2_LOCAL_RESETS_MAX))
        .http2_keepalive_interval(Some(HTTP2_KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(HTTP2_KEEPALIVE_TIMEOUT))
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

/// Where a server meets its clients.
#[derive(Debug)]
pub struct Door {
    /// Where they come in.
    pub listener: TcpListener,
    /// Who may.
    pub gate: Arc<Gate>,
    /// How they are greeted.
    pub tls: Arc<Tls>,
    /// How long calls may go on after the stop signal.
    pub drain: Duration,
}

/// Serves whom the gate lets in until `stop` fires, then lets calls finish for at most the drain. Returns whether all of
/// them did. A connection without a request does not hold up the stop.
///
/// # Errors
/// When the transport fails.
pub async fn serve(router: Router, door: Door, stop: CancellationToken) -> Result<bool, tonic::transport::Error> {
    let Door { listener, gate, tls, drain } = door;
    let incoming = accept::incoming(listener, gate, tls, stop.clone());
    let stopped = stop.clone();
    let serving = router.serve_with_incoming_shutdown(incoming, async move { stopped.cancelled().await });
    // The server's own graceful shutdown waits for ever for a client that keeps a stream open.
    let cut = async {
        stop.cancelled().await;
        tokio::time::sleep(drain).await;
    };
    tokio::select! {
        result = serving => result.map(|()| true),
        () = cut => Ok(false),
    }
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

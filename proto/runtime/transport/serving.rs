//! From accepted connections to services: HTTP/2 with our limits, the layers around every service, and an end with a
//! deadline.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::rt::Executor as _;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tower::util::{MapRequest, MapResponse};
use tower::{Layer as _, Service, ServiceExt as _};

use super::accept::Acceptor;
use super::admission::Gate;
use super::connection::Connection;
use super::deadline::Punctual;
use super::lane::{Lane, Tasks};
use super::untaken::AnswerLayer;
use super::watches::WatchLayer;
use super::{Request, Response, Router, request, with_reason};
use crate::limits::{
    HTTP2_CONNECTION_WINDOW_BYTES, HTTP2_FRAME_BYTES, HTTP2_HEADER_LIST_BYTES, HTTP2_KEEPALIVE_INTERVAL,
    HTTP2_KEEPALIVE_TIMEOUT, HTTP2_LOCAL_RESETS_MAX, HTTP2_PENDING_RESETS_MAX, HTTP2_STREAM_WINDOW_BYTES,
    HTTP2_STREAMS_PER_CONNECTION,
};
use crate::runtime::tls::Tls;

/// Where a server meets its clients.
#[derive(Debug)]
pub struct Door {
    /// Where they come in.
    pub listener: TcpListener,
    /// Who may.
    pub gate: Arc<Gate>,
    /// How they are greeted.
    pub tls: Arc<Tls>,
    /// Where connections are served that carry nothing but bronze, if not where all others are: requests find their
    /// [`Lane`] in their extensions.
    pub background: Option<Handle>,
    /// How long calls may go on after the stop signal.
    pub drain: Duration,
}

/// Serves whom the gate lets in until `stop` fires, then lets calls finish for at most the drain, and cuts the others.
/// Returns whether all of them finished. A connection without a request does not hold up the stop.
pub async fn serve(router: Router, door: Door, stop: CancellationToken) -> bool {
    let Door { listener, gate, tls, background, drain } = door;
    let (service, connections, cut) = (layered(router.prepare()), TaskTracker::new(), CancellationToken::new());
    let _cuts = cut.clone().drop_guard();
    let mut acceptor = Acceptor::new(listener, gate, tls, stop.clone());
    loop {
        let connection = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            connection = acceptor.next() => connection,
        };
        let tasks = Tasks(background.clone().map(Lane::new));
        let serving = serve_connection(connection, service.clone(), tasks.clone(), stop.clone(), cut.clone());
        tasks.execute(connections.track_future(serving));
    }
    drop(acceptor);
    connections.close();
    tokio::time::timeout(drain, connections.wait()).await.is_ok()
}

/// The services within everything that every request and answer passes.
fn layered(
    services: Router,
) -> impl Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone + Send {
    let watched = WatchLayer.layer(AnswerLayer.layer(services));
    Punctual(MapResponse::new(MapRequest::new(watched, request::receive), with_reason))
}

/// HTTP/2 with our limits on it. hyper's own defaults leave streams and resets without a bound.
fn http2(tasks: Tasks) -> http2::Builder<Tasks> {
    let mut builder = http2::Builder::new(tasks);
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(HTTP2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(HTTP2_CONNECTION_WINDOW_BYTES)
        .max_frame_size(HTTP2_FRAME_BYTES)
        .max_concurrent_streams(HTTP2_STREAMS_PER_CONNECTION)
        .max_header_list_size(HTTP2_HEADER_LIST_BYTES)
        .max_pending_accept_reset_streams(HTTP2_PENDING_RESETS_MAX)
        .max_local_error_reset_streams(HTTP2_LOCAL_RESETS_MAX)
        .keep_alive_interval(HTTP2_KEEPALIVE_INTERVAL)
        .keep_alive_timeout(HTTP2_KEEPALIVE_TIMEOUT);
    builder
}

/// Serves one connection to its end. `stop` lets its calls finish, `cut` does not.
async fn serve_connection<S>(
    connection: Connection,
    service: S,
    tasks: Tasks,
    stop: CancellationToken,
    cut: CancellationToken,
) where
    S: Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone + Send + 'static,
{
    let (info, lane) = (connection.info(), tasks.0.clone());
    let service = service.map_request(move |request: hyper::Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(info.clone());
        lane.clone().and_then(|lane| request.extensions_mut().insert(lane));
        request
    });
    let served = http2(tasks).serve_connection(TokioIo::new(connection), TowerToHyperService::new(service));
    let mut served = pin!(served);
    let outcome = tokio::select! {
        outcome = served.as_mut() => outcome,
        () = cut.cancelled() => return,
        () = stop.cancelled() => {
            served.as_mut().graceful_shutdown();
            tokio::select! {
                outcome = served => outcome,
                () = cut.cancelled() => return,
            }
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(error = %crate::status::chain(&error), "a connection failed");
    }
}

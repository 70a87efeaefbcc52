//! Streams that anybody may open without a credential: health's Watch, and reflection. Nothing ends them by itself, so an
//! address may have a bounded number of them open, and each lasts for a bounded time; whoever still needs it opens it
//! again.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Either, ready};
use http_body::{Frame, SizeHint};
use tokio::time::{Sleep, sleep};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::HeaderMap;
use tower::{Layer, Service};

use super::admission::Watching;
use super::connection::ConnectionInfo;
use super::{Request, Response};
use crate::error::{Classify, Details, Reason};
use crate::limits::STREAM_LIFE_MAX;
use crate::status::to_status;

/// Methods without authentication whose answer is a stream.
const WATCHES: [&str; 3] = [
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// Puts [`Watches`] around a service.
#[derive(Debug, Clone, Copy)]
pub(super) struct WatchLayer;

impl<S> Layer<S> for WatchLayer {
    type Service = Watches<S>;

    fn layer(&self, inner: S) -> Watches<S> {
        Watches(inner)
    }
}

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Watches<S>(S);

impl<S> Service<Request> for Watches<S>
where
    S: Service<Request, Response = Response>,
    S::Error: Send + 'static,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = S::Error;
    type Future = Either<S::Future, BoxFuture<'static, Result<Response, S::Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let info = request.extensions().get::<ConnectionInfo>();
        let Some(info) = info.filter(|_info| WATCHES.contains(&request.uri().path())) else {
            return Either::Left(self.0.call(request));
        };
        let Some(place) = info.tcp.remote_addr().and_then(|peer| Arc::clone(&info.gate).admit_watch(peer.ip())) else {
            return Either::Right(ready(Ok(to_status(&WatchError::TooMany).into_http())).boxed());
        };
        let answering = self.0.call(request);
        let bounded =
            async move { Ok(answering.await?.map(|body| Body::new(Lasting::new(body, place, STREAM_LIFE_MAX)))) };
        Either::Right(bounded.boxed())
    }
}

/// A stream that is not, or not any more.
#[derive(Debug, thiserror::Error)]
enum WatchError {
    #[error("this address has too many streams of health and reflection open")]
    TooMany,
    #[error("the stream was open for as long as one may be; open it again")]
    Over,
}

impl Classify for WatchError {
    fn reason(&self) -> Reason {
        match self {
            Self::TooMany => Reason::Overloaded,
            Self::Over => Reason::StreamStalled,
        }
    }

    fn details(&self) -> Details {
        Details::default()
    }
}

/// A body that ends, in order, when its time is over.
struct Lasting {
    body: Body,
    ends: Pin<Box<Sleep>>,
    over: bool,
    _place: Watching,
}

impl Lasting {
    fn new(body: Body, place: Watching, life: Duration) -> Self {
        Self { body, ends: Box::pin(sleep(life)), over: false, _place: place }
    }
}

impl http_body::Body for Lasting {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.over {
            return Poll::Ready(None);
        }
        if self.ends.as_mut().poll(cx).is_pending() {
            return Pin::new(&mut self.body).poll_frame(cx);
        }
        self.over = true;
        let (status, mut trailers) = (to_status(&WatchError::Over), HeaderMap::new());
        Poll::Ready(Some(status.add_header(&mut trailers).map(|()| Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body::Body as _;
    use tokio::time::Instant;

    use super::*;
    use crate::runtime::transport::{Gate, TransportLimits};
    use crate::status::from_status;

    /// A body that never says anything.
    struct Silent;

    impl http_body::Body for Silent {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            Poll::Pending
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_without_a_credential_ends_after_an_hour_with_a_reason() {
        let gate = Gate::new(TransportLimits::default());
        let place = gate.admit_watch([127, 0, 0, 1].into()).unwrap();
        let mut body = Lasting::new(Body::new(Silent), place, STREAM_LIFE_MAX);
        let began = Instant::now();
        let mut next = async || std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
        let trailers = next().await.unwrap().unwrap().into_trailers().unwrap();
        assert_eq!(began.elapsed().as_secs(), 60 * 60);
        let status = Status::from_header_map(&trailers).unwrap();
        assert_eq!(from_status(&status).reason, Some(Reason::StreamStalled));
        assert!(next().await.is_none());
    }

    #[test]
    fn every_stream_that_needs_no_credential_is_bounded() {
        let ours = |path: &&str| path.starts_with("/minitectonic.");
        assert_eq!(WATCHES.iter().filter(|path| ours(path)).count(), 0, "ours have limits of their own");
        for service in crate::runtime::transport::REFLECTION_NAMES {
            assert!(WATCHES.contains(&format!("/{service}/ServerReflectionInfo").as_str()), "{service}");
        }
    }
}

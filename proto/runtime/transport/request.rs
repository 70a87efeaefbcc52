//! What happens to every request before any service sees it: its connection has shown what it is for, and a request of
//! one message has to arrive within its time.
//!
//! tonic's own time-outs begin when the request is complete. A method that takes a stream of messages is left alone: it
//! has timers of its own, which know what progress is.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::Request;

use super::connection::ConnectionInfo;
use super::limits::TransportLimits;
use super::parted::Parted;
use super::rest::Read;
use crate::error::{Classify, Details, Reason};
use crate::status::to_status;

/// Takes a request from its connection.
pub(super) fn receive(mut request: Request<Body>) -> Request<Body> {
    let Some(info) = request.extensions().get::<ConnectionInfo>().cloned() else { return request };
    info.mark_requested();
    // Where tonic looks for the peer's address.
    request.extensions_mut().insert(info.tcp);
    if let Some(certificate) = info.certificate.get() {
        request.extensions_mut().insert(*certificate);
    }
    if request.body().is_end_stream() {
        return request;
    }
    let (limits, is_stream) = (info.gate.limits(), crate::STREAMING_METHOD_PATHS.contains(&request.uri().path()));
    request.map(|body| {
        let body = Body::new(Read::to_its_end(body, limits.request_stall));
        if is_stream { Body::new(Parted::new(body)) } else { Body::new(Timely::new(body, limits)) }
    })
}

/// A request that did not arrive.
#[derive(Debug, thiserror::Error)]
#[error("the request did not arrive in time")]
struct Stalled;

impl Classify for Stalled {
    fn reason(&self) -> Reason {
        Reason::StreamStalled
    }

    fn details(&self) -> Details {
        Details::default()
    }
}

/// A body that ends with an error when it makes no progress, or does not end at all.
struct Timely {
    body: Body,
    stall: std::time::Duration,
    ends: Instant,
    /// Runs while nothing comes. It is not set while nobody asks: a slow service is not the client's silence.
    waits: Option<Pin<Box<Sleep>>>,
}

impl Timely {
    fn new(body: Body, limits: &TransportLimits) -> Self {
        Self { body, stall: limits.request_stall, ends: Instant::now() + limits.request_within, waits: None }
    }

    fn poll_waited_enough(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let until = (Instant::now() + self.stall).min(self.ends);
        self.waits.get_or_insert_with(|| Box::pin(sleep_until(until))).as_mut().poll(cx)
    }
}

/// A frame without a byte is none.
fn is_progress(frame: Option<&Result<Frame<Bytes>, Status>>) -> bool {
    let Some(Ok(frame)) = frame else { return true };
    frame.data_ref().is_none_or(|data| !data.is_empty())
}

impl http_body::Body for Timely {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(frame) = &polled
            && is_progress(frame.as_ref())
        {
            self.waits = None;
            return polled;
        }
        match self.poll_waited_enough(cx) {
            Poll::Pending => polled,
            Poll::Ready(()) => Poll::Ready(Some(Err(to_status(&Stalled)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use tokio::sync::mpsc;
    use tokio::time::sleep;

    use super::*;
    use crate::status::from_status;

    /// A body of what is sent to it.
    pub(in super::super) struct Sent(pub(in super::super) mpsc::Receiver<Bytes>);

    impl http_body::Body for Sent {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            self.0.poll_recv(cx).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
        }
    }

    fn body() -> (mpsc::Sender<Bytes>, Timely) {
        let (sender, receiver) = mpsc::channel(8);
        (sender, Timely::new(Body::new(Sent(receiver)), &TransportLimits::default()))
    }

    async fn next(body: &mut Timely) -> Option<Result<Frame<Bytes>, Status>> {
        std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_after_its_time_with_a_reason_and_drops_at_the_end_of_the_whole() {
        for (bytes, gap, ends_after) in [("a", 20, 15), ("", 5, 15), ("a", 14, 60)] {
            let ((sender, mut body), started) = (body(), Instant::now());
            let sending = async {
                loop {
                    sleep(Duration::from_secs(gap)).await;
                    sender.send(Bytes::from_static(bytes.as_bytes())).await.unwrap();
                }
            };
            let receiving = async {
                loop {
                    match next(&mut body).await.unwrap() {
                        Ok(_byte) => {}
                        Err(status) => return from_status(&status).reason,
                    }
                }
            };
            let reason = tokio::select! {
                reason = receiving => reason,
                () = sending => None,
            };
            assert_eq!((reason, started.elapsed().as_secs()), (Some(Reason::StreamStalled), ends_after));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_that_takes_its_time_is_not_the_client_s_silence() {
        let (sender, mut body) = body();
        for _ in 0..3 {
            sender.send(Bytes::from_static(b"a")).await.unwrap();
            sleep(Duration::from_secs(100)).await;
            assert!(next(&mut body).await.unwrap().is_ok());
        }
        drop(sender);
        assert!(next(&mut body).await.is_none());
    }

    #[test]
    fn only_what_is_a_stream_by_contract_has_its_own_timers() {
        assert_eq!(crate::STREAMING_METHOD_PATHS, ["/minitectonic.v1.ChunkService/WriteChunk"]);
    }
}

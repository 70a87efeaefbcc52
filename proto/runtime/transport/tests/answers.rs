//! Answers that go on for longer than the client takes them.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Frame as BodyFrame;
use tokio::time::timeout;

use super::raw::{DATA, END_STREAM, Frame, PING, Raw, WINDOW_UPDATE, call};
use super::*;

/// What a client grants that says nothing about it.
const WINDOW_BYTES: usize = 65_535;

/// A service whose answers do not end, and a body of it.
#[derive(Debug, Clone)]
struct Endless {
    frame_bytes: usize,
    /// Frames that the transport took from all bodies.
    taken: Arc<AtomicUsize>,
}

impl Endless {
    fn new(frame_bytes: usize) -> Self {
        Self { frame_bytes, taken: Arc::default() }
    }

    fn taken(&self) -> usize {
        self.taken.load(Ordering::SeqCst)
    }

    /// A client of it that has said nothing of its windows, and what keeps the server.
    async fn asked(&self) -> (Served, Raw) {
        let served = serve_router(server().add_service(self.clone()), patient(), Tls::off(Arc::new(SystemClock))).await;
        let mut raw = Raw::greeted(served.address).await;
        raw.send(&[call(1, "/x.Endless/Read"), Frame::new(DATA, END_STREAM, 1, [0; 5]).bytes()].concat()).await;
        (served, raw)
    }
}

impl tonic::server::NamedService for Endless {
    const NAME: &'static str = "x.Endless";
}

impl tower::Service<Request> for Endless {
    type Response = Response;
    type Error = Infallible;
    type Future = Ready<Result<Response, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _request: Request) -> Self::Future {
        ready(Ok(Response::new(Body::new(self.clone()))))
    }
}

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<Result<BodyFrame<Bytes>, Status>>> {
        self.taken.fetch_add(1, Ordering::SeqCst);
        Poll::Ready(Some(Ok(BodyFrame::data(vec![7; self.frame_bytes].into()))))
    }
}

/// Takes so many bytes of the answer.
async fn take(raw: &mut Raw, bytes: usize) {
    let mut left = bytes;
    while left > 0 {
        left -= timeout(DEADLINE, raw.next_of(DATA)).await.unwrap().expect("the connection lives").payload.len();
    }
}

/// Grants so many more.
async fn grant(raw: &mut Raw, bytes: usize) {
    let bytes = u32::try_from(bytes).unwrap().to_be_bytes();
    raw.send(&[0, 1].map(|stream| Frame::new(WINDOW_UPDATE, 0, stream, bytes).bytes()).concat()).await;
}

/// Waits until the server has seen everything so far, and has had its chance to do more.
async fn pinged(raw: &mut Raw) {
    for _ in 0..8 {
        raw.send(&Frame::new(PING, 0, 0, [7; 8]).bytes()).await;
        while timeout(DEADLINE, raw.frame()).await.unwrap().expect("the connection lives").kind != PING {}
    }
}

/// One frame was being sent, a second waited for the window and a third behind it, for each of as many streams as a tenant
/// may have.
#[tokio::test]
async fn no_frame_is_taken_from_an_answer_before_the_one_ahead_of_it_is_sent() {
    let endless = Endless::new(4 * WINDOW_BYTES);
    let (_served, mut raw) = endless.asked().await;
    for taken in 1..4 {
        take(&mut raw, WINDOW_BYTES).await;
        pinged(&mut raw).await;
        assert_eq!(endless.taken(), taken);
        grant(&mut raw, 3 * WINDOW_BYTES).await;
        take(&mut raw, 3 * WINDOW_BYTES).await;
        wait_until("the next one is taken", async || endless.taken() > taken).await;
        grant(&mut raw, WINDOW_BYTES).await;
    }
}

/// A frame at a time would cost each of them a turn of its own.
#[tokio::test]
async fn small_frames_do_not_wait_for_each_other() {
    let endless = Endless::new(1024);
    let (_served, mut raw) = endless.asked().await;
    wait_until("the window is full", async || endless.taken() * 1024 > WINDOW_BYTES).await;
    assert_eq!(timeout(DEADLINE, raw.next_of(DATA)).await.unwrap().unwrap().stream, 1);
}

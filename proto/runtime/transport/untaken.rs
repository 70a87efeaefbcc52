//! Answers that the client does not take.
//!
//! HTTP/2 lets a client hold back an answer for as long as it likes: it grants no window, or a byte of one, and is
//! otherwise alive. What waits for it (a frame of a chunk, a page of a listing) stays in memory, once for each call of each
//! connection; and nobody asks the answer's body for more, or it has ended already, so no timer of its own can run. So
//! bytes on their way to a client carry a mark that goes when they do, and a connection looks at its marks from time to
//! time: when one has been there for too long, the connection is closed.
//!
//! The same marks bound how much waits. HTTP/2 takes an answer's next frame from its body long before it can send it: one
//! of a quarter MiB was being sent, another waited behind it within its buffer, and a third for a place there. 256 readers
//! that never read made that a quarter GiB. So a body is asked for more only when nearly all that it gave is sent.
//!
//! Its limit: with one answer that is not taken, the others of the same connection end too. Streams of chunks end by
//! themselves long before, with the reason, for a client that is only slow.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Either};
use futures_util::task::AtomicWaker;
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use super::connection::ConnectionInfo;
use super::{Request, Response};
use crate::limits::ANSWER_BYTES_AHEAD;

/// A connection looks so many times within the time that an answer may wait.
const LOOKS: u32 = 4;

/// When bytes were handed over to be sent.
type Mark = Instant;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is on its way to the client of one connection.
#[derive(Debug, Default)]
pub(super) struct Answers(Mutex<Vec<Weak<Mark>>>);

impl Answers {
    /// The same bytes of an answer, known until they are sent.
    fn mark(&self, bytes: Bytes, ahead: &Arc<Ahead>) -> Bytes {
        let mark = Arc::new(Instant::now());
        let mut marks = lock(&self.0);
        marks.retain(|mark| mark.strong_count() > 0);
        marks.push(Arc::downgrade(&mark));
        ahead.bytes.fetch_add(bytes.len(), Ordering::AcqRel);
        Bytes::from_owner(Marked { bytes, _mark: mark, ahead: Arc::clone(ahead) })
    }

    /// Whether something has been on its way for so long.
    fn has_waited(&self, limit: Duration) -> bool {
        lock(&self.0).iter().filter_map(Weak::upgrade).any(|since| since.elapsed() >= limit)
    }
}

/// Something that an answer holds until the client has taken all of it, or the connection has ended: for the extensions
/// of a response whose call is over long before.
#[derive(Clone)]
pub struct UntilSent {
    _held: Arc<dyn Any + Send + Sync>,
}

impl UntilSent {
    /// This is dropped then.
    pub fn new(held: impl Send + Sync + 'static) -> Self {
        Self { _held: Arc::new(held) }
    }
}

impl fmt::Debug for UntilSent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UntilSent").finish_non_exhaustive()
    }
}

/// What of one answer is on its way.
#[derive(Debug, Default)]
struct Ahead {
    bytes: AtomicUsize,
    waits: AtomicWaker,
    _held: Option<UntilSent>,
}

impl Ahead {
    /// Ready when more of the answer may follow.
    fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        if self.has_room() {
            return Poll::Ready(());
        }
        self.waits.register(cx.waker());
        // What was sent in between has woken nobody.
        if self.has_room() { Poll::Ready(()) } else { Poll::Pending }
    }

    fn has_room(&self) -> bool {
        self.bytes.load(Ordering::Acquire) < ANSWER_BYTES_AHEAD
    }
}

struct Marked {
    bytes: Bytes,
    _mark: Arc<Mark>,
    ahead: Arc<Ahead>,
}

impl Drop for Marked {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        let sent = bytes.len();
        // First of all, so that whoever wakes up finds the memory free.
        drop(bytes);
        self.ahead.bytes.fetch_sub(sent, Ordering::AcqRel);
        self.ahead.waits.wake();
    }
}

impl AsRef<[u8]> for Marked {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Looks at a connection's answers.
#[derive(Debug)]
pub(super) struct Patrol {
    answers: Arc<Answers>,
    limit: Duration,
    next: Pin<Box<Sleep>>,
}

impl Patrol {
    pub(super) fn new(answers: Arc<Answers>, limit: Duration) -> Self {
        Self { answers, limit, next: Box::pin(sleep(limit / LOOKS)) }
    }

    /// Ready when an answer has waited for too long.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.next.as_mut().poll(cx).is_ready() {
            if self.answers.has_waited(self.limit) {
                return Poll::Ready(());
            }
            self.next.as_mut().reset(Instant::now() + self.limit / LOOKS);
        }
        Poll::Pending
    }
}

/// Puts [`Watched`] around a service.
#[derive(Debug, Clone, Copy)]
pub(super) struct AnswerLayer;

impl<S> Layer<S> for AnswerLayer {
    type Service = Watched<S>;

    fn layer(&self, inner: S) -> Watched<S> {
        Watched(inner)
    }
}

/// Lets each connection know the answers of the service within.
#[derive(Debug, Clone)]
pub(super) struct Watched<S>(S);

impl<S> Service<Request> for Watched<S>
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
        let Some(answers) = request.extensions().get::<ConnectionInfo>().map(|info| Arc::clone(&info.answers)) else {
            return Either::Left(self.0.call(request));
        };
        let answering = self.0.call(request);
        let answered = async move {
            let mut response = answering.await?;
            let held = response.extensions_mut().remove();
            Ok(response.map(|body| answer(body, answers, held)))
        };
        Either::Right(answered.boxed())
    }
}

fn answer(body: Body, answers: Arc<Answers>, held: Option<UntilSent>) -> Body {
    if body.is_end_stream() {
        return body;
    }
    let ahead = Arc::new(Ahead { _held: held, ..Ahead::default() });
    Body::new(Answer { body, answers, ahead })
}

/// A body whose bytes are marked, and come when those before them have gone.
struct Answer {
    body: Body,
    answers: Arc<Answers>,
    ahead: Arc<Ahead>,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        ready!(self.ahead.poll(cx));
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        polled.map_ok(|frame| frame.map_data(|bytes| self.answers.mark(bytes, &self.ahead)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    async fn patrolled(patrol: &mut Patrol) {
        std::future::poll_fn(|cx| patrol.poll(cx)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_that_are_not_taken_are_found_and_those_that_were_are_forgotten() {
        let answers = Arc::<Answers>::default();
        let mut patrol = Patrol::new(Arc::clone(&answers), LIMIT);
        let ahead = Arc::default();
        drop(answers.mark(Bytes::from_static(b"taken"), &ahead));
        assert!(tokio::time::timeout(60 * LIMIT, patrolled(&mut patrol)).await.is_err());
        let (untaken, since) = (answers.mark(Bytes::from_static(b"untaken"), &ahead), Instant::now());
        assert_eq!(lock(&answers.0).len(), 1);
        patrolled(&mut patrol).await;
        assert!(since.elapsed() >= LIMIT && since.elapsed() <= LIMIT + LIMIT / LOOKS, "{:?}", since.elapsed());
        assert_eq!(untaken, "untaken");
        let part = untaken.slice(2..);
        drop(untaken);
        assert!(answers.has_waited(LIMIT), "a part of it is left");
        drop(part);
        assert!(!answers.has_waited(LIMIT));
    }
}

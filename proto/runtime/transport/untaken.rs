//! Answers that the client does not take.
//!
//! HTTP/2 lets a client hold back an answer for as long as it likes: it grants no window and is otherwise alive. What
//! waits for it (a frame of a chunk, a page of a listing) stays in memory, once for each call of each connection, and as
//! nobody asks the answer's body for more, no timer of its own can run. So a connection knows its answers, and looks at
//! them from time to time: when one has waited for its client for too long, the connection is closed.
//!
//! Its limit: with one answer that is not taken, the others of the same connection end too. Streams of chunks end by
//! themselves long before, with the reason, for a client that is only slow.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Either};
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use super::connection::ConnectionInfo;
use super::{Request, Response};

/// A connection looks so many times within the time that an answer may wait.
const LOOKS: u32 = 4;

/// Since when an answer waits for its client; `None` while the client waits for it.
type Waits = Mutex<Option<Instant>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The answers of one connection.
#[derive(Debug, Default)]
pub(super) struct Answers(Mutex<Vec<Weak<Waits>>>);

impl Answers {
    /// One more, for which the client has granted nothing yet.
    fn begin(&self) -> Arc<Waits> {
        let waits = Arc::new(Mutex::new(Some(Instant::now())));
        let mut answers = lock(&self.0);
        answers.retain(|answer| answer.strong_count() > 0);
        answers.push(Arc::downgrade(&waits));
        waits
    }

    /// Whether one has waited for so long.
    fn has_waited(&self, limit: Duration) -> bool {
        let waited = |waits: Arc<Waits>| lock(&waits).is_some_and(|since| since.elapsed() >= limit);
        lock(&self.0).iter().filter_map(Weak::upgrade).any(waited)
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
pub struct AnswerLayer;

impl<S> Layer<S> for AnswerLayer {
    type Service = Watched<S>;

    fn layer(&self, inner: S) -> Watched<S> {
        Watched(inner)
    }
}

/// Lets each connection know the answers of the service within.
#[derive(Debug, Clone)]
pub struct Watched<S>(S);

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
        Either::Right(async move { Ok(answering.await?.map(|body| answer(body, &answers))) }.boxed())
    }
}

fn answer(body: Body, answers: &Answers) -> Body {
    if body.is_end_stream() { body } else { Body::new(Answer { body, waits: answers.begin() }) }
}

/// A body that notes for whom it waits.
struct Answer {
    body: Body,
    waits: Arc<Waits>,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        // Who has a frame comes back for the next one when the client has granted it.
        *lock(&self.waits) = polled.is_ready().then(Instant::now);
        polled
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
    async fn an_answer_that_waits_for_its_client_is_found_and_one_that_is_waited_for_is_not() {
        let answers = Arc::<Answers>::default();
        let mut patrol = Patrol::new(Arc::clone(&answers), LIMIT);
        let (slow_service, taken, started) = (answers.begin(), answers.begin(), Instant::now());
        *lock(&slow_service) = None;
        drop(taken);
        assert!(tokio::time::timeout(60 * LIMIT, patrolled(&mut patrol)).await.is_err());
        let untaken = answers.begin();
        patrolled(&mut patrol).await;
        let found_after = started.elapsed() - 60 * LIMIT;
        assert!(found_after >= LIMIT && found_after <= LIMIT + LIMIT / LOOKS, "{found_after:?}");
        *lock(&untaken) = Some(Instant::now());
        assert!(!answers.has_waited(LIMIT));
        assert_eq!(lock(&answers.0).len(), 2, "those that are over are forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_waits_for_its_client_from_each_frame_to_the_question_for_the_next() {
        let answers = Answers::default();
        let mut body = answer(Body::new(http_body_of("abc")), &answers);
        let next = |body: &mut Body| {
            let mut cx = Context::from_waker(std::task::Waker::noop());
            Pin::new(body).poll_frame(&mut cx).is_ready()
        };
        tokio::time::advance(LIMIT).await;
        assert!(answers.has_waited(LIMIT), "it was never asked for");
        assert!(next(&mut body) && !answers.has_waited(LIMIT));
        tokio::time::advance(LIMIT).await;
        assert!(answers.has_waited(LIMIT), "its frame was not taken");
        assert!(!next(&mut body), "the service has nothing yet");
        tokio::time::advance(10 * LIMIT).await;
        assert!(!answers.has_waited(LIMIT));
    }

    /// A body of one frame, and then nothing and no end.
    fn http_body_of(text: &'static str) -> impl http_body::Body<Data = Bytes, Error = Status> + Send + 'static {
        struct Once(Option<&'static str>);
        impl http_body::Body for Once {
            type Data = Bytes;
            type Error = Status;
            fn poll_frame(
                mut self: Pin<&mut Self>,
                _cx: &mut Context<'_>,
            ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
                self.0.take().map_or(Poll::Pending, |text| {
                    Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(text.as_bytes())))))
                })
            }
        }
        Once(Some(text))
    }
}

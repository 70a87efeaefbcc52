//! Lists as streams, read page by page.
//!
//! The first page and the second are fetched when they are asked for: many readers want no more than those. Who comes for
//! a second reads on, so each page from then on is fetched while the one before it is being read. What is ready of it when
//! the stream is dropped was fetched for nothing.

use std::future::Future;

use futures_util::Stream;
use futures_util::stream;
use tokio::task::JoinSet;

use crate::apart;
use crate::error::Error;

/// A page as it was answered: its entries, and the token of the next one, empty on the last.
pub(crate) type Page<T> = (Vec<T>, String);

/// What of a list has not been read.
enum Next<T> {
    /// The page behind this token; empty for the first.
    Behind(String),
    /// A page that is on its way: one task.
    Coming(JoinSet<Result<Page<T>, Error>>),
    Nothing,
}

struct Reading<T, F> {
    fetch: F,
    pages: u64,
    entries: std::vec::IntoIter<T>,
    next: Next<T>,
}

impl<T, F, P> Reading<T, F>
where
    T: Send + 'static,
    F: Fn(String) -> P,
    P: Future<Output = Result<Page<T>, Error>> + Send + 'static,
{
    /// Fetches the next page. Returns whether there is one.
    async fn turn(&mut self) -> Result<bool, Error> {
        let (entries, token) = match std::mem::replace(&mut self.next, Next::Nothing) {
            Next::Behind(token) => (self.fetch)(token).await?,
            Next::Coming(mut fetching) => {
                let fetched = fetching.join_next().await.ok_or_else(apart::ended_early)?;
                fetched.map_err(|_panicked| apart::ended_early())??
            }
            Next::Nothing => return Ok(false),
        };
        self.entries = entries.into_iter();
        self.pages += 1;
        if !token.is_empty() {
            self.next = match self.pages {
                1 => Next::Behind(token),
                _ => Next::Coming(JoinSet::from_iter([(self.fetch)(token)])),
            };
        }
        Ok(true)
    }
}

/// The entries of all pages, in order, each made of what was answered by `entry`. Ends after the first error.
pub(crate) fn entries<T, U, F, P>(
    fetch: F,
    entry: impl Fn(T) -> Result<U, Error> + Send + 'static,
) -> impl Stream<Item = Result<U, Error>> + Send + 'static
where
    T: Send + 'static,
    U: Send + 'static,
    F: Fn(String) -> P + Send + Sync + 'static,
    P: Future<Output = Result<Page<T>, Error>> + Send + 'static,
{
    let reading = Reading { fetch, pages: 0, entries: Vec::new().into_iter(), next: Next::Behind(String::new()) };
    stream::try_unfold((reading, entry), async |(mut reading, entry)| {
        loop {
            if let Some(answered) = reading.entries.next() {
                return Ok(Some((entry(answered)?, (reading, entry))));
            }
            if !reading.turn().await? {
                return Ok(None);
            }
        }
    })
}

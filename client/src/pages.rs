//! Lists as streams, read page by page.
//!
//! The first page and the second are fetched when they are asked for: many readers want no more than those. Who comes for
//! a second reads on, so each page from then on is fetched while the one before it is being read. What is ready of it when
//! the stream is dropped was fetched for nothing; one that could not be fetched is asked for again when its turn comes.

use std::future::Future;

use futures_util::Stream;
use futures_util::stream;
use tokio::task::JoinSet;

use crate::error::Error;

/// A page as it was answered: its entries, and the token of the next one, empty on the last.
pub(crate) type Page<T> = (Vec<T>, String);

/// What of a list has not been read.
enum Next<T> {
    /// The page behind this token; empty for the first.
    Behind(String),
    /// The page behind this token, which is on its way: one task.
    Coming(String, JoinSet<Result<Page<T>, Error>>),
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
            Next::Coming(token, mut fetching) => match fetching.join_next().await {
                Some(Ok(Ok(page))) => page,
                // That may have been long ago, and the service be there again.
                Some(Ok(Err(_)) | Err(_)) | None => (self.fetch)(token).await?,
            },
            Next::Nothing => return Ok(false),
        };
        self.entries = entries.into_iter();
        self.pages += 1;
        if !token.is_empty() {
            self.next = match self.pages {
                1 => Next::Behind(token),
                _ => {
                    let fetching = JoinSet::from_iter([(self.fetch)(token.clone())]);
                    Next::Coming(token, fetching)
                }
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use futures_util::{StreamExt as _, TryStreamExt as _};

    use super::*;
    use crate::apart;

    /// Five pages of two numbers each; the answers whose number is among `failing` fail.
    fn numbers(failing: &'static [u64]) -> (impl Stream<Item = Result<u64, Error>>, Arc<AtomicU64>) {
        let answers = Arc::<AtomicU64>::default();
        let counted = Arc::clone(&answers);
        let fetch = move |token: String| {
            let answer = counted.fetch_add(1, Ordering::Relaxed);
            async move {
                if failing.contains(&answer) {
                    return Err(apart::ended_early());
                }
                let page: u64 = token.parse().unwrap_or(0);
                let next = if page < 4 { (page + 1).to_string() } else { String::new() };
                Ok((vec![2 * page, 2 * page + 1], next))
            }
        };
        (entries(fetch, Ok), answers)
    }

    #[tokio::test]
    async fn a_page_that_could_not_be_fetched_ahead_is_fetched_when_it_is_needed() {
        let (numbers, answers) = numbers(&[2, 4]);
        assert_eq!(numbers.try_collect::<Vec<_>>().await.unwrap(), (0..10).collect::<Vec<_>>());
        assert_eq!(answers.load(Ordering::Relaxed), 7);
    }

    #[tokio::test]
    async fn a_page_that_cannot_be_fetched_ends_the_list_with_an_error() {
        for failing in [&[0][..], &[1], &[2, 3]] {
            let (numbers, _answers) = numbers(failing);
            let read: Vec<_> = numbers.collect().await;
            let (last, before) = read.split_last().unwrap();
            assert!(last.is_err() && before.iter().all(Result::is_ok), "{failing:?}");
        }
    }

    #[tokio::test]
    async fn nothing_is_fetched_before_the_third_page_that_was_not_asked_for() {
        let (numbers, answers) = numbers(&[]);
        let mut numbers = Box::pin(numbers);
        for (entry, fetched) in [1, 1, 2].into_iter().enumerate() {
            assert!(numbers.next().await.is_some_and(|number| number.is_ok()));
            // The second page is there: the third was asked for, whether or not its task has begun.
            assert_eq!(answers.load(Ordering::Relaxed), fetched + u64::from(entry == 2), "entry {entry}");
        }
    }
}

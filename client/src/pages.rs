//! Lists as streams: a page is fetched when the one before it has been read.

use std::future::Future;

use futures_util::Stream;
use futures_util::stream;

use crate::error::Error;

/// A page: its entries, and the token of the next one, empty on the last.
pub(crate) type Page<T> = (Vec<T>, String);

struct Reading<T, F> {
    fetch: F,
    entries: std::vec::IntoIter<T>,
    /// Token of the next page; `None` after the last.
    next: Option<String>,
}

/// The entries of all pages, in order. Ends after the first error.
pub(crate) fn entries<T, F, P>(fetch: F) -> impl Stream<Item = Result<T, Error>> + Send + 'static
where
    T: Send + 'static,
    F: Fn(String) -> P + Send + Sync + 'static,
    P: Future<Output = Result<Page<T>, Error>> + Send,
{
    let reading = Reading { fetch, entries: Vec::new().into_iter(), next: Some(String::new()) };
    stream::try_unfold(reading, async |mut reading| {
        loop {
            if let Some(entry) = reading.entries.next() {
                return Ok(Some((entry, reading)));
            }
            let Some(token) = reading.next.take() else { return Ok(None) };
            let (entries, next) = (reading.fetch)(token).await?;
            reading.entries = entries.into_iter();
            reading.next = Some(next).filter(|token| !token.is_empty());
        }
    })
}

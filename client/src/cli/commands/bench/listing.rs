//! Listing: each worker goes through all pages, and each page is one operation.

use std::pin::Pin;
use std::sync::{Arc, Mutex as SyncMutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::{Stream, TryStreamExt as _};
use mini_tectonic_client::{Blob, Client, Error, ListOptions};
use tokio::sync::Mutex;

use super::operations::{Bench, Turns};
use super::phase::{Done, Kind, Operation};

type Blobs = Pin<Box<dyn Stream<Item = Result<Blob, Error>> + Send>>;

/// The first page that the client fetches ahead, as all behind it: before, somebody waits for a whole answer.
const AHEAD_FROM: u64 = 2;

/// How long pages took, by their place in the list.
#[derive(Debug, Clone, Default)]
pub(super) struct Pages(Arc<SyncMutex<Vec<(u64, Duration)>>>);

impl Pages {
    fn add(&self, page: u64, took: Duration) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((page, took));
    }

    /// The medians of a tenth of the list at its start, from the first page on that is fetched ahead, and of the last tenth:
    /// what a page costs at the start and at the end. `None` for lists of fewer than ten pages.
    pub(super) fn ends(&self) -> Option<(Duration, Duration)> {
        let pages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = pages.iter().map(|(page, _took)| page + 1).max()?;
        let tenth = count / 10;
        let median = |wanted: &dyn Fn(u64) -> bool| {
            let mut times: Vec<_> = pages.iter().filter(|(page, _)| wanted(*page)).map(|(_, took)| *took).collect();
            times.sort_unstable();
            times.get(times.len() / 2).copied()
        };
        Some((
            median(&|page| (AHEAD_FROM..AHEAD_FROM + tenth).contains(&page))?,
            median(&|page| page >= count - tenth)?,
        ))
    }
}

/// Where a worker is in the list.
#[derive(Default)]
struct Position {
    blobs: Option<Blobs>,
    page: u64,
    seen: u64,
    finished: bool,
}

/// Lists everything, of which there must be at least `expected`, and notes what each page took.
pub(super) fn lists(bench: &Arc<Bench>, turns: Turns, expected: u64, pages: &Pages) -> Operation {
    let workers = bench.scratches.len();
    let positions: Arc<[Mutex<Position>]> = std::iter::repeat_with(Mutex::default).take(workers).collect();
    let (bench, pages) = (Arc::clone(bench), pages.clone());
    Arc::new(move |worker, _number| {
        let (positions, bench, pages) = (Arc::clone(&positions), Arc::clone(&bench), pages.clone());
        Box::pin(async move {
            let mut position = positions.get(worker).expect("every worker has a position").lock().await;
            position.next_page(bench.client(worker), turns, expected, &pages).await
        })
    })
}

impl Position {
    async fn next_page(
        &mut self,
        client: &Client,
        turns: Turns,
        expected: u64,
        pages: &Pages,
    ) -> Result<Option<Done>, Error> {
        if self.finished && turns == Turns::Once {
            return Ok(None);
        }
        self.finished = false;
        let options = ListOptions { page_size: super::PAGE_SIZE, ..ListOptions::default() };
        let began = Instant::now();
        let mut blobs = self.blobs.take().unwrap_or_else(|| Box::pin(client.list_blobs(options)));
        let mut entries = 0;
        while entries < u64::from(super::PAGE_SIZE) {
            if blobs.try_next().await?.is_none() {
                self.finished = true;
                break;
            }
            entries += 1;
        }
        let took = began.elapsed();
        // A list whose last page is full ends with one of nothing.
        if entries > 0 {
            pages.add(self.page, took);
        }
        self.seen += entries;
        if self.finished {
            self.end_of_list(expected)?;
        } else {
            self.page += 1;
            self.blobs = Some(blobs);
        }
        Ok(Some(Done { kind: Kind::List, bytes: 0, entries, took }))
    }

    fn end_of_list(&mut self, expected: u64) -> Result<(), Error> {
        let seen = std::mem::take(&mut self.seen);
        self.page = 0;
        if seen < expected {
            let problem = format!("the list ended after {seen} blobs, but there are at least {expected}");
            return Err(Error::Invalid { what: "list of blobs", problem });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_of_a_list_are_a_tenth_of_it_each() {
        let pages = Pages::default();
        assert_eq!(pages.ends(), None);
        // Two workers' pages, which come in any order.
        for page in (0..20).chain((0..20).rev()) {
            pages.add(page, Duration::from_millis(if page < 4 { 3 - page } else { page }));
        }
        assert_eq!(pages.ends(), Some((Duration::from_millis(1), Duration::from_millis(19))));
    }

    #[test]
    fn a_list_of_few_pages_has_no_ends() {
        let pages = Pages::default();
        (0..9).for_each(|page| pages.add(page, Duration::from_millis(1)));
        assert_eq!(pages.ends(), None);
    }
}

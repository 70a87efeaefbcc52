//! Calls about small blobs that wait for each other travel together.
//!
//! Most of what a call about 4 KiB costs is the call. While so many of a kind are under way ([`UNDER_WAY`]), those that come
//! meanwhile wait, and go as one when one of these has its answer: as commits share a sync. Nothing waits for company that
//! has not come, so a call that is alone goes alone and at once; the more callers there are, the fewer calls each costs.
//!
//! Each has an outcome of its own, as if it had been asked for alone, and keeps its own deadline and its own repeats. What a
//! group as a whole is refused is asked for one by one, so no call fails for its company; a connection that breaks has
//! broken for each. Whoever waits and is dropped is left out; what is under way then goes on.

mod carriers;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use proto::limits::BATCH_ITEMS_MAX;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tonic::Status;

pub(crate) use self::carriers::{Commits, Layouts, Reads, Starts, WRITES_BYTES_MAX, Wanted, Writes};
use crate::error::is_answer;

/// Calls of one kind that are under way at once, each for one or many.
const UNDER_WAY: usize = 2;

/// A kind of call, alone and for many at once.
pub(crate) trait Carrier: Send + Sync + 'static {
    /// What is asked. Asking twice does what asking once does.
    type Item: Clone + Send + Sync + 'static;
    /// What is answered.
    type Answer: Send + 'static;
    /// Bytes of the items of one call, as [`Carrier::bytes`] counts them.
    const BYTES_MAX: u64;

    /// How much of a call's room an item takes.
    fn bytes(item: &Self::Item) -> u64;

    /// How long one call may take.
    fn within(&self) -> Duration;

    /// Asks one.
    fn one(&self, item: Self::Item) -> impl Future<Output = Result<Self::Answer, Status>> + Send;

    /// Asks many; as many outcomes as items, in their order.
    fn many(&self, items: Vec<Self::Item>) -> impl Future<Output = Result<Outcomes<Self::Answer>, Status>> + Send;
}

/// What became of each.
pub(crate) type Outcomes<A> = Vec<Result<A, Status>>;

/// Where the calls of one kind meet. Clones are the same place.
pub(crate) struct Gatherer<C: Carrier>(Arc<Mutex<State<C>>>);

struct State<C: Carrier> {
    waiting: VecDeque<Waiting<C>>,
    under_way: usize,
}

struct Waiting<C: Carrier> {
    item: C::Item,
    tell: oneshot::Sender<Result<C::Answer, Status>>,
}

impl<C: Carrier> Clone for Gatherer<C> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<C: Carrier> Default for Gatherer<C> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(State { waiting: VecDeque::new(), under_way: 0 })))
    }
}

impl<C: Carrier> fmt::Debug for Gatherer<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gatherer").finish_non_exhaustive()
    }
}

impl<C: Carrier> Gatherer<C> {
    /// Asks, alone or in company. Any carrier of the kind will do.
    ///
    /// # Errors
    /// The status of the item, or of the call that it was in.
    pub(crate) async fn ask(&self, carrier: C, item: C::Item) -> Result<C::Answer, Status> {
        let (tell, told) = oneshot::channel();
        if let Some(place) = self.enter(Waiting { item, tell }) {
            // Not within this future: with it would go what others wait for.
            drop(Handle::current().spawn(carry(carrier, place)));
        }
        told.await.unwrap_or_else(|_gone| Err(Status::cancelled("the call was given up")))
    }

    fn lock(&self) -> MutexGuard<'_, State<C>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues up. Returns a place for one more call, if there is one.
    fn enter(&self, waiting: Waiting<C>) -> Option<Place<C>> {
        let mut state = self.lock();
        state.waiting.push_back(waiting);
        let is_free = state.under_way < UNDER_WAY;
        state.under_way += usize::from(is_free);
        is_free.then(|| Place { gatherer: self.clone(), held: true })
    }
}

impl<C: Carrier> State<C> {
    /// As many as one call takes of those who still wait.
    fn group(&mut self) -> Vec<Waiting<C>> {
        let (mut group, mut left) = (Vec::new(), C::BYTES_MAX);
        while group.len() < BATCH_ITEMS_MAX
            && let Some(next) = self.waiting.front()
        {
            let rest = left.checked_sub(C::bytes(&next.item));
            // The first goes whatever its size: alone it is asked for by a call of its own.
            if rest.is_none() && !group.is_empty() {
                break;
            }
            left = rest.unwrap_or(0);
            group.extend(self.waiting.pop_front().filter(|waiting| !waiting.tell.is_closed()));
        }
        group
    }
}

/// The right to have one call under way.
struct Place<C: Carrier> {
    gatherer: Gatherer<C>,
    held: bool,
}

impl<C: Carrier> Place<C> {
    /// Those whose turn it is; when there are none, the place is given back.
    fn next(&mut self) -> Option<Vec<Waiting<C>>> {
        let mut state = self.gatherer.lock();
        let group = state.group();
        if group.is_empty() {
            // Under the same lock: whoever comes next finds it free.
            state.under_way -= usize::from(std::mem::take(&mut self.held));
            return None;
        }
        Some(group)
    }
}

impl<C: Carrier> Drop for Place<C> {
    fn drop(&mut self) {
        // Held still, when its task was cut short.
        self.gatherer.lock().under_way -= usize::from(self.held);
    }
}

async fn carry<C: Carrier>(carrier: C, mut place: Place<C>) {
    loop {
        // Those whom one answer has let go on come all together, right after this.
        tokio::task::yield_now().await;
        let Some(group) = place.next() else { return };
        let (items, tells): (Vec<_>, Vec<_>) = group.into_iter().map(|waiting| (waiting.item, waiting.tell)).unzip();
        for (tell, outcome) in tells.into_iter().zip(outcomes(&carrier, items).await) {
            // Whoever has gone does not want to know.
            drop(tell.send(outcome));
        }
    }
}

async fn outcomes<C: Carrier>(carrier: &C, items: Vec<C::Item>) -> Outcomes<C::Answer> {
    let count = items.len();
    if count == 1 {
        return alone(carrier, items).await;
    }
    let failure = match tokio::time::timeout(carrier.within(), carrier.many(items.clone())).await {
        Ok(Ok(outcomes)) if outcomes.len() == count => return outcomes,
        Ok(Err(status)) if !is_answer(&status) => Arc::new(status),
        Ok(Ok(_) | Err(_)) => return alone(carrier, items).await,
        Err(_elapsed) => Arc::new(late()),
    };
    (0..count).map(|_| Err(same(&failure))).collect()
}

async fn alone<C: Carrier>(carrier: &C, items: Vec<C::Item>) -> Outcomes<C::Answer> {
    let ask = async |item| {
        tokio::time::timeout(carrier.within(), carrier.one(item)).await.unwrap_or_else(|_elapsed| Err(late()))
    };
    join_all(items.into_iter().map(ask)).await
}

/// What nobody hears: a caller's own deadline is over before.
fn late() -> Status {
    Status::deadline_exceeded("no answer in time")
}

/// The same failure for one more, with the same causes.
fn same(failure: &Arc<Status>) -> Status {
    let (details, metadata) = (failure.details().to_vec().into(), failure.metadata().clone());
    let mut status = Status::with_details_and_metadata(failure.code(), failure.message(), details, metadata);
    if std::error::Error::source(failure.as_ref()).is_some() {
        status.set_source(Arc::new(Shared(Arc::clone(failure))));
    }
    status
}

/// A failure that several have.
#[derive(Debug)]
struct Shared(Arc<Status>);

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Shared {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

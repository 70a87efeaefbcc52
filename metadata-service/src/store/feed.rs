//! Tells followers of every commit as it becomes durable: what an export needs beside its scans.
//!
//! An engine publishes each commit, or each group of commits that became durable as one, under the same lock under which
//! it moves its sequence on. So a follower that was told to begin behind a sequence misses nothing and hears nothing
//! twice.
//!
//! Bounded (I17): what a follower has not taken yet is kept in memory, up to [`BEHIND_BYTES_MAX`]. One that falls further
//! behind is cut off, and told so. Keeping it on disk instead would take the metadata's own disk from the commits that
//! it is for, and one that is slower than the commits would never come to an end anyway.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;
use tokio::sync::Notify;

use super::engine::EngineError;

/// Writes by key; `None` removes.
pub type Writes = BTreeMap<Vec<u8>, Option<Bytes>>;

/// Bytes of keys and values that may wait for one follower.
pub const BEHIND_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Followers at a time.
pub const FOLLOWERS_MAX: usize = 4;

/// What one commit, or a group of them, changed.
#[derive(Debug, Clone)]
pub struct Committed {
    /// Sequence of the last commit of the group.
    pub sequence: u64,
    /// The group's writes; of several to one key the last.
    pub writes: Arc<Writes>,
}

/// The engine's end.
#[derive(Debug, Default)]
pub(super) struct Feed(Mutex<Vec<Weak<Queue>>>);

/// What waits for one follower.
#[derive(Debug, Default)]
struct Queue {
    state: Mutex<Waiting>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    commits: VecDeque<Committed>,
    bytes: usize,
    /// It fell behind; nothing is kept for it any more.
    cut_off: bool,
}

/// Hears of every commit behind [`Follower::begins_behind`]. Dropping it ends that.
#[derive(Debug)]
pub struct Follower {
    queue: Arc<Queue>,
    begins_behind: u64,
}

impl Feed {
    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Queue>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a follower; `sequence` is read while nothing is published.
    pub(super) fn follow(&self, sequence: impl FnOnce() -> u64) -> Result<Follower, EngineError> {
        let mut queues = self.lock();
        queues.retain(|queue| queue.strong_count() > 0);
        if queues.len() >= FOLLOWERS_MAX {
            return Err(EngineError::Overloaded);
        }
        let queue = Arc::new(Queue::default());
        queues.push(Arc::downgrade(&queue));
        Ok(Follower { queue, begins_behind: sequence() })
    }

    /// Publishes what has become durable; `move_on` makes its sequence the last durable one.
    pub(super) fn publish(&self, committed: &Committed, move_on: impl FnOnce()) {
        let queues = self.lock();
        move_on();
        for queue in queues.iter().filter_map(Weak::upgrade) {
            queue.push(committed);
        }
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, committed: &Committed) {
        let mut waiting = self.lock();
        if !waiting.cut_off {
            waiting.bytes += size_of_writes(&committed.writes);
            waiting.commits.push_back(committed.clone());
            if waiting.bytes > BEHIND_BYTES_MAX {
                *waiting = Waiting { cut_off: true, ..Waiting::default() };
            }
        }
        drop(waiting);
        self.arrived.notify_one();
    }
}

fn size_of_writes(writes: &Writes) -> usize {
    writes.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, Bytes::len)).sum()
}

impl Follower {
    /// The last commit that it is not told of: every scan from now on shows that one and all before it.
    pub fn begins_behind(&self) -> u64 {
        self.begins_behind
    }

    /// The next one, if there is one already.
    ///
    /// # Errors
    /// [`EngineError::FellBehind`].
    pub fn take(&self) -> Result<Option<Committed>, EngineError> {
        let mut waiting = self.queue.lock();
        if waiting.cut_off {
            return Err(EngineError::FellBehind);
        }
        let next = waiting.commits.pop_front();
        waiting.bytes -= next.as_ref().map_or(0, |committed| size_of_writes(&committed.writes));
        Ok(next)
    }

    /// Waits for the next one.
    ///
    /// # Errors
    /// [`EngineError::FellBehind`].
    pub async fn next(&self) -> Result<Committed, EngineError> {
        loop {
            let arrived = self.queue.arrived.notified();
            if let Some(committed) = self.take()? {
                return Ok(committed);
            }
            arrived.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn committed(sequence: u64, bytes: usize) -> Committed {
        let writes = Writes::from([(b"k".to_vec(), Some(Bytes::from(vec![0; bytes])))]);
        Committed { sequence, writes: Arc::new(writes) }
    }

    #[tokio::test]
    async fn a_follower_hears_in_order_of_what_is_published_from_its_beginning_on() {
        let feed = Feed::default();
        feed.publish(&committed(1, 1), || ());
        let follower = feed.follow(|| 1).unwrap();
        assert_eq!((follower.begins_behind(), follower.take().unwrap().is_none()), (1, true));
        (2..=3).for_each(|sequence| feed.publish(&committed(sequence, 1), || ()));
        assert_eq!(follower.next().await.unwrap().sequence, 2);
        assert_eq!(follower.take().unwrap().unwrap().sequence, 3);
    }

    #[test]
    fn i17_who_falls_behind_is_cut_off_and_the_others_are_not() {
        let feed = Feed::default();
        let (slow, quick) = (feed.follow(|| 0).unwrap(), feed.follow(|| 0).unwrap());
        for sequence in 1..=3 {
            feed.publish(&committed(sequence, BEHIND_BYTES_MAX / 2 - 1), || ());
            assert_eq!(quick.take().unwrap().unwrap().sequence, sequence);
        }
        assert!(matches!(slow.take(), Err(EngineError::FellBehind)));
        assert_eq!(slow.queue.lock().bytes, 0, "nothing is kept for it");
    }

    #[test]
    fn i17_followers_are_few_and_those_that_ended_do_not_count() {
        let feed = Feed::default();
        let mut followers: Vec<_> = (0..FOLLOWERS_MAX).map(|_n| feed.follow(|| 0).unwrap()).collect();
        assert!(matches!(feed.follow(|| 0), Err(EngineError::Overloaded)));
        followers.pop();
        assert!(feed.follow(|| 0).is_ok());
    }
}

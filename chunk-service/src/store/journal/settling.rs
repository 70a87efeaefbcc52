//! What the journal's threads share: which chunks it would restore, and how far their files are settled.

use std::collections::{BTreeMap, HashMap};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use proto::failpoint;
use proto::ids::ChunkId;

use crate::store::disk::Disk;
use crate::store::durable::{blob_name, chk_name};
use crate::store::latch::Latch;

/// What a chunk's last record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Its files are to hold something.
    Put,
    /// They are not the journal's matter.
    Forget,
}

#[derive(Debug, Default)]
struct State {
    /// The last record of each chunk that a replay would find, and its generation.
    last: HashMap<ChunkId, (u64, Kind)>,
    /// How many records of a generation have files that are not all written yet.
    laying: BTreeMap<u64, usize>,
    /// Up to which generation files are durable.
    settled: u64,
    /// Up to which generation no replay will find anything.
    released: u64,
    /// Nothing will be settled any more.
    failed: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    /// Everything up to this generation is settled.
    pub(super) fn settled_up_to(generation: u64) -> Self {
        Self { state: Mutex::new(State { settled: generation, ..State::default() }), changed: Condvar::new() }
    }

    // Nothing under the lock can panic between two changes, so a poisoned one is used on.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a replay would write the chunk's files.
    pub(super) fn would_restore(&self, chunk: ChunkId) -> bool {
        self.lock().last.get(&chunk).is_some_and(|(_generation, kind)| *kind == Kind::Put)
    }

    /// Notes a record of a generation that has become durable. The generation is not settled while what is returned lives.
    pub(super) fn note(self: &Arc<Self>, generation: u64, chunk: ChunkId, kind: Kind) -> Laying {
        let mut state = self.lock();
        state.last.insert(chunk, (generation, kind));
        *state.laying.entry(generation).or_default() += 1;
        Laying { shared: Arc::clone(self), generation }
    }

    /// Waits until the files of every record up to a generation are written. Returns whether they are.
    fn wait_laid(&self, generation: u64) -> bool {
        let state = self.lock();
        let is_laid = |state: &State| state.laying.range(..=generation).next().is_none();
        let state = self.changed.wait_while(state, |state| !is_laid(state) && !state.failed);
        is_laid(&state.unwrap_or_else(PoisonError::into_inner))
    }

    /// Drops what no replay will find any more. Looks through all records only when that is news.
    pub(super) fn released(&self, generation: u64) {
        let mut state = self.lock();
        if state.released < generation {
            state.released = generation;
            state.last.retain(|_chunk, (of, _kind)| *of > generation);
        }
    }

    /// Up to which generation files are durable.
    pub(super) fn settled(&self) -> u64 {
        self.lock().settled
    }

    /// Waits until a generation is settled. Returns whether it is; it never will be after a failure.
    pub(super) fn wait_settled(&self, generation: u64) -> bool {
        let state = self.lock();
        let waiting = |state: &mut State| state.settled < generation && !state.failed;
        let state = self.changed.wait_while(state, waiting).unwrap_or_else(PoisonError::into_inner);
        state.settled >= generation
    }

    /// Nothing will be settled any more: wakes who waits for it.
    pub(super) fn fail(&self) {
        self.lock().failed = true;
        self.changed.notify_all();
    }

    /// The files of the chunks that were put up to a generation.
    fn names(&self, generation: u64) -> Vec<String> {
        let state = self.lock();
        let put = state.last.iter().filter(|(_chunk, (of, kind))| *of <= generation && *kind == Kind::Put);
        put.flat_map(|(chunk, _record)| [blob_name(*chunk), chk_name(*chunk)]).collect()
    }

    #[cfg(test)]
    pub(super) fn is_settled(&self) -> bool {
        self.lock().last.is_empty()
    }
}

/// The files of a durable record are being written.
#[derive(Debug)]
pub(crate) struct Laying {
    shared: Arc<Shared>,
    generation: u64,
}

impl Drop for Laying {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        match state.laying.get_mut(&self.generation) {
            Some(count) if *count > 1 => *count -= 1,
            Some(_) | None => {
                state.laying.remove(&self.generation);
                self.shared.changed.notify_all();
            }
        }
    }
}

/// Makes the files of one generation after the other durable, as they are asked for, until nobody asks any more.
pub(super) fn settle_each(disk: &dyn Disk, latch: &Latch, shared: &Arc<Shared>, generations: &Receiver<u64>) {
    while let Ok(generation) = generations.recv() {
        if !shared.wait_laid(generation) {
            return;
        }
        if let Err(error) = disk.sync_all(&shared.names(generation)) {
            latch.sync_failed("sync what the journal holds", None, &error);
            shared.fail();
            return;
        }
        failpoint!("journal.settled");
        shared.lock().settled = generation;
        shared.changed.notify_all();
    }
}

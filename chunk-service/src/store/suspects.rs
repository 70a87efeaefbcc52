//! Chunks that a read found missing or damaged, until somebody has looked at them.
//!
//! Bounded (I17), each chunk once, best effort: one that finds no place is found again by the next read of it, or by the
//! scrub. A chunk that was looked at stays known, so that a damaged blob which is asked for again and again is not
//! verified as often.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use proto::capability::{ChunkBinding, ReadClaims};
use proto::ids::ChunkId;
use tokio::sync::Notify;

/// Chunks that wait at once.
const WAITING_MAX: usize = 256;
/// Chunks that are known; when there are more, all that do not wait are forgotten.
const KNOWN_MAX: usize = 4096;

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<(ChunkBinding, ReadClaims)>,
    known: HashSet<ChunkId>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Suspects {
    state: Mutex<State>,
    came: Notify,
}

impl Suspects {
    // Nothing under the lock can panic between two changes, so a poisoned one is used on.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A read found this chunk missing or damaged.
    pub(crate) fn add(&self, place: ChunkBinding, claims: ReadClaims) {
        let mut state = self.state();
        if state.known.len() >= KNOWN_MAX {
            state.known = state.waiting.iter().map(|(place, _)| place.chunk).collect();
        }
        if state.waiting.len() < WAITING_MAX && state.known.insert(place.chunk) {
            state.waiting.push_back((place, claims));
            self.came.notify_one();
        }
    }

    /// The next one; waits until there is one.
    pub(crate) async fn next(&self) -> (ChunkBinding, ReadClaims) {
        loop {
            let came = self.came.notified();
            if let Some(next) = self.state().waiting.pop_front() {
                return next;
            }
            came.await;
        }
    }

    /// Looks at this chunk again when a read finds it bad again.
    pub(crate) fn forget(&self, chunk: ChunkId) {
        self.state().known.remove(&chunk);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::store::testing::world::{claims, place};

    #[tokio::test]
    async fn each_suspect_is_looked_at_once_until_it_is_forgotten_and_their_number_is_bounded() {
        let suspects = Suspects::default();
        for _ in 0..3 {
            suspects.add(place(1), claims(b"x"));
        }
        assert_eq!(suspects.next().await.0, place(1));
        suspects.add(place(1), claims(b"x"));
        assert!(suspects.next().now_or_never().is_none(), "it was looked at");
        suspects.forget(place(1).chunk);
        suspects.add(place(1), claims(b"x"));
        assert_eq!(suspects.next().await.0, place(1));
        for number in 0..2 * KNOWN_MAX as u64 {
            suspects.add(place(number + 2), claims(b"x"));
        }
        let waiting = std::iter::from_fn(|| suspects.next().now_or_never()).count();
        assert_eq!(waiting, WAITING_MAX);
        assert!(suspects.state().known.len() <= KNOWN_MAX);
    }
}

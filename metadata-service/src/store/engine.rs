//! What the schema needs of a storage engine: an ordered map of bytes with durable, atomic, decided commits.
//!
//! Every engine keeps these promises, and the conformance suite holds it to them:
//!
//! * **Decided in order.** The closures of commits run one after the other; each sees every write that was accepted
//!   before it, durable or not, so two commands can never both pass one check.
//! * **Durable on return.** [`Engine::commit`] returns after the writes survive a power cut (the memory engine: the
//!   process), unless the closure waives that ([`Decision::answered_early`]); an error of the engine means that the outcome is unknown, and the engine takes no further commit (I19).
//! * **Shown only when durable** (I3). [`Engine::get`] and [`Engine::scan`] never return a write that a crash could
//!   still take back: they wait for its sync.
//! * **Sequence.** Commits that write are numbered from 1 without gaps, across restarts.

use std::collections::BTreeMap;
use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use proto::limits::{BATCH_WRITES_MAX, KEY_BYTES_MAX, RECORD_BYTES_MAX};

use super::feed::Follower;

/// A row: key and value.
pub type Row = (Bytes, Bytes);

/// Why an engine refused or failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EngineError {
    /// A read or write of the engine failed; after a failed write it is latched.
    #[error("the metadata engine cannot {action}: {cause}")]
    Failed {
        /// What was tried.
        action: &'static str,
        /// The engine's own words.
        cause: String,
    },
    /// An earlier failure ended all commits; reads go on.
    #[error("the metadata engine takes no writes since an earlier failure: {0}")]
    Latched(String),
    /// The disk is nearly full: commits that only add are refused before they touch the engine. Passes by itself.
    #[error("the metadata disk is nearly full ({free_bytes} bytes left)")]
    NearlyFull {
        /// Bytes left.
        free_bytes: u64,
    },
    /// Too many commits are waiting.
    #[error("too many metadata commits are waiting")]
    Overloaded,
    /// A follower of the commits was slower than they came, and was cut off.
    #[error("the commits came faster than they were taken")]
    FellBehind,
    /// The engine has been closed.
    #[error("the metadata engine is closed")]
    Closed,
    /// A batch breaks a bound that keeps the engine safe: a bug of the caller.
    #[error("a metadata batch breaks a bound: {0}")]
    BatchTooLarge(&'static str),
}

/// Writes that appear together or not at all. The last write to a key wins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    writes: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

impl Batch {
    /// Sets a key.
    pub fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.writes.insert(key, Some(value));
    }

    /// Removes a key; one that is absent is no error.
    pub fn delete(&mut self, key: Vec<u8>) {
        self.writes.insert(key, None);
    }

    /// The writes in key order; `None` removes.
    pub fn writes(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.writes.iter().map(|(key, value)| (key.as_slice(), value.as_deref()))
    }

    /// The writes themselves, in key order.
    pub fn into_writes(self) -> impl Iterator<Item = (Vec<u8>, Option<Vec<u8>>)> {
        self.writes.into_iter()
    }

    /// Number of writes.
    pub fn len(&self) -> usize {
        self.writes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// Refuses what no engine may be given: see [`BATCH_WRITES_MAX`], [`KEY_BYTES_MAX`] and [`RECORD_BYTES_MAX`]. The empty
    /// key is not for use either: an engine may keep its own row there.
    ///
    /// # Errors
    /// [`EngineError::BatchTooLarge`].
    pub fn check_bounds(&self) -> Result<(), EngineError> {
        if self.writes.len() > BATCH_WRITES_MAX {
            return Err(EngineError::BatchTooLarge("too many writes"));
        }
        if self.writes.contains_key([].as_slice()) {
            return Err(EngineError::BatchTooLarge("a key is empty"));
        }
        if self.writes.keys().any(|key| key.len() > KEY_BYTES_MAX) {
            return Err(EngineError::BatchTooLarge("a key is too long"));
        }
        let too_long = |value: &Option<Vec<u8>>| value.as_ref().is_some_and(|value| value.len() > RECORD_BYTES_MAX);
        if self.writes.values().any(too_long) {
            return Err(EngineError::BatchTooLarge("a value is too long"));
        }
        Ok(())
    }
}

/// A contiguous range of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRange {
    /// First key that belongs to it.
    pub start: Vec<u8>,
    /// First key that no longer does; `None` for no end.
    pub end: Option<Vec<u8>>,
}

impl KeyRange {
    /// All keys that begin with `prefix`.
    pub fn prefix(prefix: &[u8]) -> Self {
        let mut end = prefix.to_vec();
        while let Some(last) = end.pop() {
            if last < u8::MAX {
                end.push(last + 1);
                break;
            }
        }
        Self { start: prefix.to_vec(), end: (!end.is_empty()).then_some(end) }
    }

    /// The part of the range that lies behind `key`.
    #[must_use]
    pub fn after(mut self, key: &[u8]) -> Self {
        let mut next = key.to_vec();
        next.push(0);
        self.start = self.start.max(next);
        self
    }

    /// Whether the key belongs to it.
    pub fn contains(&self, key: &[u8]) -> bool {
        key >= self.start.as_slice() && self.end.as_ref().is_none_or(|end| key < end.as_slice())
    }
}

/// What a commit's closure sees: every accepted write, its own not among them.
pub trait View {
    /// The value of a key.
    ///
    /// # Errors
    /// [`EngineError::Failed`].
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError>;

    /// The first rows of a range, in key order, at most `limit`.
    ///
    /// # Errors
    /// [`EngineError::Failed`].
    fn scan(&self, range: &KeyRange, limit: usize) -> Result<Vec<Row>, EngineError>;

    /// The sequence that this commit gets if it writes anything.
    fn sequence(&self) -> u64;
}

/// What a closure decided; whatever it wants to tell its caller it puts elsewhere: see [`EngineExt::decide`].
#[derive(Debug, Default)]
pub struct Decision {
    /// What to write; may be empty, and then the answer still waits until everything the closure saw is durable.
    pub batch: Batch,
    /// Whether it frees more than it takes: such commits are let through on a nearly full disk.
    pub frees_space: bool,
    /// Whether its caller is told as soon as every later commit will see it, and not only when it is durable. For what is
    /// worth nothing without a later commit that is: a crash in between leaves neither.
    pub answered_early: bool,
}

impl Decision {
    /// Writes that take more than they free.
    pub fn adds(batch: Batch) -> Self {
        Self { batch, ..Self::default() }
    }

    /// Writes that free more than they take.
    pub fn frees(batch: Batch) -> Self {
        Self { batch, frees_space: true, ..Self::default() }
    }
}

/// A type-erased closure. It is pure: it may run on any thread, and must not block.
pub type Decide = Box<dyn FnOnce(&dyn View) -> Result<Decision, EngineError> + Send>;

/// An ordered key-value engine. See the module for what it promises.
#[async_trait]
pub trait Engine: fmt::Debug + Send + Sync {
    /// The durable value of a key.
    ///
    /// # Errors
    /// [`EngineError::Failed`] or [`EngineError::Closed`].
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError>;

    /// The first durable rows of a range, in key order, at most `limit`. The rows of one call are of one moment, between
    /// two commits; two calls are not.
    ///
    /// # Errors
    /// [`EngineError::Failed`] or [`EngineError::Closed`].
    async fn scan(&self, range: &KeyRange, limit: usize) -> Result<Vec<Row>, EngineError>;

    /// Runs the closure in its turn and makes what it decided durable. Returns the commit's sequence, or, when nothing
    /// was written, the last one.
    ///
    /// # Errors
    /// The closure's own [`EngineError`], or the engine's.
    async fn commit(&self, decide: Decide) -> Result<u64, EngineError>;

    /// The sequence of the last durable commit.
    fn sequence(&self) -> u64;

    /// Tells of every commit from now on, each as it has become durable.
    ///
    /// # Errors
    /// [`EngineError::Overloaded`] when there are too many followers.
    fn follow(&self) -> Result<Follower, EngineError>;

    /// Why commits are refused, once a failure has ended them.
    fn latched(&self) -> Option<String>;

    /// Resolves, with the reason, once a failure has ended all commits: what a service watches to stop taking writes.
    async fn failed(&self) -> String;

    /// Ends the engine: what was accepted is made durable, later calls are refused.
    async fn close(&self);
}

/// Typed commits for every engine.
#[async_trait]
pub trait EngineExt: Engine {
    /// As [`Engine::commit`], for a closure that also has something to say, be it an answer or a refusal. A refusal
    /// writes nothing.
    ///
    /// # Errors
    /// The closure's refusal, or the engine's error converted into one.
    async fn decide<T, E, F>(&self, decide: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<EngineError> + Send + 'static,
        F: FnOnce(&dyn View) -> Result<(Decision, T), E> + Send + 'static,
    {
        let (tell, mut told) = tokio::sync::oneshot::channel();
        let erased: Decide = Box::new(move |view| {
            let (decision, answer) = match decide(view) {
                Ok((decision, answer)) => (decision, Ok(answer)),
                Err(refusal) => (Decision::default(), Err(refusal)),
            };
            // The caller may have gone away; the decision holds all the same.
            drop(tell.send(answer));
            Ok(decision)
        });
        self.commit(erased).await?;
        told.try_recv().map_err(|_closure_never_ran| EngineError::Closed)?
    }
}

impl<E: Engine + ?Sized> EngineExt for E {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_range_holds_exactly_the_keys_with_that_prefix() {
        let range = KeyRange::prefix(b"a\xff");
        assert!(range.contains(b"a\xff") && range.contains(b"a\xff\xff\x01"));
        assert!(!range.contains(b"a\xfe") && !range.contains(b"b"));
        assert_eq!(KeyRange::prefix(b"\xff\xff").end, None);
        let rest = KeyRange::prefix(b"a").after(b"ab");
        assert!(!rest.contains(b"ab") && rest.contains(b"ab\0") && !rest.contains(b"b"));
    }

    #[test]
    fn a_batch_with_an_empty_key_is_refused() {
        let mut batch = Batch::default();
        batch.delete(Vec::new());
        assert!(matches!(batch.check_bounds(), Err(EngineError::BatchTooLarge(_))));
    }

    #[test]
    fn an_oversized_batch_is_refused() {
        let mut batch = Batch::default();
        batch.put(vec![1], vec![0; RECORD_BYTES_MAX + 1]);
        assert!(matches!(batch.check_bounds(), Err(EngineError::BatchTooLarge(_))));
        let mut batch = Batch::default();
        batch.delete(vec![1; KEY_BYTES_MAX + 1]);
        assert!(matches!(batch.check_bounds(), Err(EngineError::BatchTooLarge(_))));
        let mut batch = Batch::default();
        (0..=BATCH_WRITES_MAX as u64).for_each(|n| batch.delete(n.to_be_bytes().to_vec()));
        assert!(matches!(batch.check_bounds(), Err(EngineError::BatchTooLarge(_))));
    }
}

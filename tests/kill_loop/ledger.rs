//! The oracle: what was begun, what was acknowledged, and what must therefore be there.
//!
//! Every blob has a name of its own and one entry. An operation notes what it is about to do before it asks, and what it
//! was told afterwards. What it was not told stays open until the services are looked at: then it is one or the other for
//! good. A call whose answer was lost may still be at work in the process that was asked, so that only the death of that
//! process makes its absence final.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use mini_tectonic_client::{Blob, BlobId};

use crate::content::Content;

/// What is known of a blob. `life` counts the metadata service's processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Its put, or its undelete, was begun.
    Begun,
    /// Its put was acknowledged: it is there.
    Stored,
    /// Its put, or its undelete, has ended without an answer.
    PutUnknown { life: u64 },
    /// Its delete was begun.
    Deleting,
    /// Its delete has ended without an answer.
    DeleteUnknown { life: u64 },
    /// It is not there, and must never be seen again.
    Gone,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    content: Content,
    blob: Option<BlobId>,
    state: State,
}

/// A blob that must be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) name: String,
    pub(crate) content: Content,
    pub(crate) blob: BlobId,
}

/// What must not happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Violation {
    /// An acknowledged blob is not there.
    Lost,
    /// A blob is there, but not as it was put.
    Partial,
    /// A blob is there that must not be.
    Phantom,
    /// Anything else: usage that does not add up, an operation that does not end, an error that nothing explains.
    Other,
}

/// All names that were ever given to a blob.
#[derive(Debug, Default)]
struct Book {
    /// Those that are there, or may be.
    entries: BTreeMap<String, Entry>,
    /// Those that must never be seen again.
    gone: HashSet<String>,
}

impl Book {
    fn set(&mut self, name: &str, state: State) {
        if state == State::Gone {
            self.entries.remove(name);
            self.gone.insert(name.to_owned());
        } else if let Some(entry) = self.entries.get_mut(name) {
            entry.state = state;
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    book: Mutex<Book>,
    violations: Mutex<Vec<(Violation, String)>>,
    figures: Mutex<Figures>,
}

/// What was done.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Figures {
    /// Puts that were acknowledged.
    pub(crate) puts: u64,
    /// Deletes that were acknowledged.
    pub(crate) deletes: u64,
    /// Undeletes that were acknowledged.
    pub(crate) undeletes: u64,
    /// Operations whose outcome was not told and was found out.
    pub(crate) settled: u64,
    /// Downloads that were compared to the end.
    pub(crate) reads: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ledger {
    /// Before a put.
    pub(crate) fn begin_put(&self, name: &str, content: Content) {
        lock(&self.book).entries.insert(name.to_owned(), Entry { content, blob: None, state: State::Begun });
    }

    /// After a put: acknowledged.
    pub(crate) fn stored(&self, name: &str, blob: BlobId) {
        if let Some(entry) = lock(&self.book).entries.get_mut(name) {
            (entry.blob, entry.state) = (Some(blob), State::Stored);
        }
        lock(&self.figures).puts += 1;
    }

    /// After a put that certainly stored nothing.
    pub(crate) fn refused(&self, name: &str) {
        self.set(name, State::Gone);
    }

    /// After a put, or an attempt, of which nobody knows.
    pub(crate) fn put_unknown(&self, name: &str, life: u64) {
        self.set(name, State::PutUnknown { life });
    }

    /// Before a delete.
    pub(crate) fn begin_delete(&self, name: &str) {
        self.set(name, State::Deleting);
    }

    /// After a delete: acknowledged.
    pub(crate) fn deleted(&self, name: &str) {
        self.set(name, State::Gone);
        lock(&self.figures).deletes += 1;
    }

    /// After a delete of which nobody knows.
    pub(crate) fn delete_unknown(&self, name: &str, life: u64) {
        self.set(name, State::DeleteUnknown { life });
    }

    /// Before an undelete of a blob whose delete was acknowledged.
    pub(crate) fn begin_undelete(&self, held: &Held) {
        let Held { name, content, blob } = held.clone();
        let mut book = lock(&self.book);
        book.gone.remove(&name);
        book.entries.insert(name, Entry { content, blob: Some(blob), state: State::Begun });
    }

    /// After an undelete: acknowledged.
    pub(crate) fn undeleted(&self, name: &str) {
        lock(&self.book).set(name, State::Stored);
        lock(&self.figures).undeletes += 1;
    }

    /// A download was compared.
    pub(crate) fn read(&self) {
        lock(&self.figures).reads += 1;
    }

    fn set(&self, name: &str, state: State) {
        lock(&self.book).set(name, state);
    }

    /// What must be there now, among the names with this prefix.
    pub(crate) fn held(&self, prefix: &str) -> Vec<Held> {
        let book = lock(&self.book);
        let named = book.entries.range(prefix.to_owned()..).take_while(|(name, _)| name.starts_with(prefix));
        let held = named
            .filter(|(_, entry)| entry.state == State::Stored)
            .filter_map(|(name, entry)| Some(Held { name: name.clone(), content: entry.content, blob: entry.blob? }));
        held.collect()
    }

    /// Notes what must not happen.
    pub(crate) fn violated(&self, violation: Violation, what: impl Into<String>) {
        lock(&self.violations).push((violation, what.into()));
    }

    /// What must not have happened, and did.
    pub(crate) fn violations(&self) -> Vec<(Violation, String)> {
        lock(&self.violations).clone()
    }

    /// What was done.
    pub(crate) fn figures(&self) -> Figures {
        *lock(&self.figures)
    }

    /// Holds a complete listing against the ledger while no operation is under way, and settles what was open.
    pub(crate) fn judge(&self, listing: &[Blob], life: u64) {
        let mut listed: HashMap<&str, &Blob> = HashMap::new();
        for blob in listing {
            if listed.insert(&blob.display_name, blob).is_some() {
                self.violated(Violation::Phantom, format!("{} is listed twice", blob.display_name));
            }
        }
        let mut book = lock(&self.book);
        for name in listed.keys().filter(|name| !book.entries.contains_key(**name)) {
            let was = if book.gone.contains(*name) { "is back" } else { "was never put" };
            self.violated(Violation::Phantom, format!("{name} {was}"));
        }
        let names: Vec<String> = book.entries.keys().cloned().collect();
        for name in names {
            self.judge_one(&mut book, &name, listed.get(name.as_str()).copied(), life);
        }
    }

    fn judge_one(&self, book: &mut Book, name: &str, found: Option<&Blob>, life: u64) {
        let Some(entry) = book.entries.get_mut(name) else { return };
        let (state, violation) = judged(entry, found, life);
        if let Some(violation) = violation {
            self.violated(violation, format!("{name}: {entry:?}, and there is {found:?}"));
        }
        lock(&self.figures).settled += u64::from(state != entry.state);
        entry.blob = entry.blob.or(found.map(|blob| blob.blob_id));
        book.set(name, state);
    }
}

/// What an entry becomes, and what is wrong.
fn judged(entry: &Entry, found: Option<&Blob>, life: u64) -> (State, Option<Violation>) {
    let whole =
        |blob: &Blob| blob.size_bytes == entry.content.size && entry.blob.is_none_or(|blob_id| blob_id == blob.blob_id);
    let (state, wrong) = match (entry.state, found.is_some()) {
        (State::Stored, false) => (State::Gone, Some(Violation::Lost)),
        (State::Gone, true) => (State::Gone, Some(Violation::Phantom)),
        (State::Begun | State::Deleting, _) => (entry.state, Some(Violation::Other)),
        (State::Stored, true) | (State::PutUnknown { .. }, true) => (State::Stored, None),
        (State::Gone, false) | (State::DeleteUnknown { .. }, false) => (State::Gone, None),
        (State::PutUnknown { life: asked }, false) if asked < life => (State::Gone, None),
        (State::DeleteUnknown { life: asked }, true) if asked < life => (State::Stored, None),
        (State::PutUnknown { .. }, false) | (State::DeleteUnknown { .. }, true) => (entry.state, None),
    };
    let partial = found.filter(|blob| !whole(blob)).map(|_blob| Violation::Partial);
    (state, wrong.or(partial))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTENT: Content = Content { size: 5, seed: 1 };

    fn id(n: u8) -> BlobId {
        format!("0190b5c4-7e5a-7cc3-98c4-dc0c0c0739{n:02x}").parse().unwrap()
    }

    fn blob(name: &str, n: u8, size_bytes: u64) -> Blob {
        let sha256 = mini_tectonic_client::Sha256::of(b"");
        let pb = mini_tectonic_client::pb::Blob {
            blob_id: id(n).to_string(),
            display_name: name.to_owned(),
            size_bytes,
            sha256: sha256.to_string(),
            create_time: Some(std::time::SystemTime::UNIX_EPOCH.into()),
            ..Default::default()
        };
        Blob::try_from(pb).unwrap()
    }

    fn violations(ledger: &Ledger) -> Vec<Violation> {
        ledger.violations().into_iter().map(|(violation, _what)| violation).collect()
    }

    #[test]
    fn an_acknowledged_blob_that_is_not_listed_is_lost() {
        let ledger = Ledger::default();
        ledger.begin_put("a", CONTENT);
        ledger.stored("a", id(1));
        ledger.judge(&[blob("a", 1, 5)], 1);
        assert_eq!(violations(&ledger), []);
        ledger.judge(&[], 2);
        assert_eq!(violations(&ledger), [Violation::Lost]);
    }

    #[test]
    fn a_blob_of_another_size_or_id_is_partial_and_a_stranger_or_a_double_a_phantom() {
        let ledger = Ledger::default();
        ledger.begin_put("a", CONTENT);
        ledger.stored("a", id(1));
        ledger.judge(&[blob("a", 1, 4)], 1);
        ledger.judge(&[blob("a", 2, 5)], 1);
        ledger.judge(&[blob("a", 1, 5), blob("b", 2, 5)], 1);
        ledger.judge(&[blob("a", 1, 5), blob("a", 1, 5)], 1);
        use Violation::{Partial, Phantom};
        assert_eq!(violations(&ledger), [Partial, Partial, Phantom, Phantom]);
    }

    #[test]
    fn what_was_refused_or_deleted_stays_away() {
        let ledger = Ledger::default();
        ledger.begin_put("refused", CONTENT);
        ledger.refused("refused");
        ledger.begin_put("deleted", CONTENT);
        ledger.stored("deleted", id(1));
        ledger.begin_delete("deleted");
        ledger.deleted("deleted");
        ledger.judge(&[], 1);
        assert_eq!(violations(&ledger), []);
        ledger.judge(&[blob("refused", 2, 5)], 1);
        ledger.judge(&[blob("deleted", 1, 5)], 1);
        assert_eq!(violations(&ledger), [Violation::Phantom; 2]);
    }

    #[test]
    fn an_unknown_put_is_settled_by_being_seen_or_by_the_end_of_the_process_that_was_asked() {
        for seen in [true, false] {
            let ledger = Ledger::default();
            ledger.begin_put("a", CONTENT);
            ledger.put_unknown("a", 1);
            ledger.judge(&[], 1);
            let there = [blob("a", 1, 5)];
            ledger.judge(if seen { &there } else { &[] }, 2);
            assert_eq!(violations(&ledger), [], "either is right");
            ledger.judge(if seen { &[] } else { &there }, 2);
            assert_eq!(violations(&ledger), [if seen { Violation::Lost } else { Violation::Phantom }]);
        }
    }

    #[test]
    fn an_unknown_delete_is_settled_likewise() {
        for seen in [true, false] {
            let ledger = Ledger::default();
            ledger.begin_put("a", CONTENT);
            ledger.stored("a", id(1));
            ledger.begin_delete("a");
            ledger.delete_unknown("a", 1);
            let there = [blob("a", 1, 5)];
            ledger.judge(&there, 1);
            ledger.judge(if seen { &there } else { &[] }, 2);
            assert_eq!(violations(&ledger), [], "either is right");
            ledger.judge(if seen { &[] } else { &there }, 2);
            assert_eq!(violations(&ledger), [if seen { Violation::Lost } else { Violation::Phantom }]);
        }
    }
}

//! What the clients were told, and what the services must therefore show.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use mini_tectonic_client::{Blob, BlobId};

use crate::dice::{Dice, content};

/// What is known of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Its put was begun, and not answered with success.
    Putting,
    /// It was acknowledged, or seen.
    Stored(BlobId),
    /// Its delete was begun, and not answered with success.
    Deleting(BlobId),
    /// Its delete was acknowledged, or it was seen to be gone.
    Gone,
}

/// A blob that was put.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) number: u64,
    pub(crate) size: usize,
    pub(crate) fate: Fate,
}

impl Entry {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        content(self.number, self.size)
    }
}

/// The name under which a blob is put.
pub(crate) fn name_of(number: u64) -> String {
    format!("blob {number:08}")
}

/// What must not happen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Violations {
    /// Acknowledged and gone.
    pub(crate) lost: u64,
    /// Shown, but not with all of its bytes.
    pub(crate) partial: u64,
    /// Deleted and back.
    pub(crate) undead: u64,
    /// Shown, though nobody put it.
    pub(crate) phantom: u64,
    /// Usage that is not the sum of what is shown.
    pub(crate) usage: u64,
    /// Services that do not start, or that fail though the power is on.
    pub(crate) broken: u64,
}

impl Violations {
    pub(crate) fn any(&self) -> bool {
        *self != Self::default()
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.lost += other.lost;
        self.partial += other.partial;
        self.undead += other.undead;
        self.phantom += other.phantom;
        self.usage += other.usage;
        self.broken += other.broken;
    }
}

impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lost, partial, undead, phantom, usage, broken } = self;
        write!(f, "{lost} lost, {partial} partial, {undead} back from the dead, {phantom} phantom, ")?;
        write!(f, "{usage} wrong usage, {broken} broken")
    }
}

/// All blobs of a tenant, by number.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    entries: Mutex<BTreeMap<u64, Entry>>,
    acked: Mutex<u64>,
}

impl Ledger {
    pub(crate) fn entries(&self) -> MutexGuard<'_, BTreeMap<u64, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts and deletes that were acknowledged.
    pub(crate) fn acked(&self) -> u64 {
        *self.acked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count_ack(&self) {
        *self.acked.lock().unwrap_or_else(PoisonError::into_inner) += 1;
    }

    pub(crate) fn begin_put(&self, size: usize) -> Entry {
        let mut entries = self.entries();
        let number = entries.last_key_value().map_or(1, |(last, _)| last + 1);
        let entry = Entry { number, size, fate: Fate::Putting };
        entries.insert(number, entry);
        entry
    }

    pub(crate) fn put_acked(&self, number: u64, blob: BlobId) {
        self.count_ack();
        self.shown(number, blob);
    }

    /// Whoever was shown a blob may rely on it as much as whoever put it.
    pub(crate) fn shown(&self, number: u64, blob: BlobId) {
        if let Some(entry) = self.entries().get_mut(&number).filter(|entry| entry.fate == Fate::Putting) {
            entry.fate = Fate::Stored(blob);
        }
    }

    /// A stored blob, and how many there are.
    pub(crate) fn any_stored(&self, dice: &Dice) -> Option<(Entry, BlobId, usize)> {
        let entries = self.entries();
        let stored = |entry: &Entry| match entry.fate {
            Fate::Stored(blob) => Some((*entry, blob)),
            Fate::Putting | Fate::Deleting(_) | Fate::Gone => None,
        };
        let stored: Vec<_> = entries.values().filter_map(stored).collect();
        (!stored.is_empty()).then(|| {
            let (entry, blob) = *dice.pick(&stored);
            (entry, blob, stored.len())
        })
    }

    /// Whether it is this caller's to delete: another may have been quicker.
    pub(crate) fn begin_delete(&self, number: u64, blob: BlobId) -> bool {
        let mut entries = self.entries();
        let entry = entries.get_mut(&number).filter(|entry| entry.fate == Fate::Stored(blob));
        entry.map(|entry| entry.fate = Fate::Deleting(blob)).is_some()
    }

    pub(crate) fn delete_acked(&self, number: u64) {
        self.count_ack();
        self.settle(number, Fate::Gone);
    }

    pub(crate) fn settle(&self, number: u64, fate: Fate) {
        if let Some(entry) = self.entries().get_mut(&number) {
            entry.fate = fate;
        }
    }

    pub(crate) fn is_stored(&self, number: u64) -> bool {
        self.entries().get(&number).is_some_and(|entry| matches!(entry.fate, Fate::Stored(_)))
    }
}

/// The number in a blob's name.
pub(crate) fn number_of(blob: &Blob) -> Option<u64> {
    blob.display_name.strip_prefix("blob ")?.parse().ok()
}

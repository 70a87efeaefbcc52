//! Objects that are stored: what there is to read, and what has to be deleted in the end.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::TryStreamExt as _;
use mini_tectonic_client::{Blob, BlobId, Client, Error, ListOptions};

use super::chance;

/// An object: what is needed to read it and to know every byte of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Object {
    pub(super) blob_id: BlobId,
    pub(super) number: u64,
    pub(super) size_bytes: u64,
}

/// Display names of one seed's objects begin with it.
fn prefix(seed: u64) -> String {
    format!("bench-{seed}-")
}

/// An object's display name, from which a later run knows what it holds.
pub(super) fn name(seed: u64, number: u64) -> String {
    format!("{}{number}", prefix(seed))
}

fn number_in(name: &str, seed: u64) -> Option<u64> {
    name.strip_prefix(&prefix(seed))?.parse().ok()
}

/// Objects of one kind. Clones hold the same ones.
#[derive(Debug, Clone, Default)]
pub(super) struct Objects(Arc<Mutex<Vec<Arc<Object>>>>);

impl Objects {
    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Object>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds one.
    pub(super) fn add(&self, object: Object) {
        self.lock().push(Arc::new(object));
    }

    /// How many there are.
    pub(super) fn count(&self) -> u64 {
        u64::try_from(self.lock().len()).unwrap_or(u64::MAX)
    }

    /// All of them, in an order that the seed gives, at most so many.
    pub(super) fn shuffled(&self, seed: u64, most: u64) -> Vec<Arc<Object>> {
        let mut all = self.lock().clone();
        chance::shuffle(&mut all, seed);
        all.truncate(usize::try_from(most).unwrap_or(usize::MAX));
        all
    }

    /// One that is there. It stays as long as the caller holds it.
    pub(super) fn any(&self, draw: u64) -> Option<Arc<Object>> {
        let all = self.lock();
        all.get(chance::below(draw, all.len())).cloned()
    }

    /// Takes one out that nobody holds.
    pub(super) fn take(&self, draw: u64) -> Option<Arc<Object>> {
        let mut all = self.lock();
        let first = chance::below(draw, all.len());
        let free = |place: &usize| all.get(*place).is_some_and(|object| Arc::strong_count(object) == 1);
        let place = (first..all.len()).chain(0..first).find(free)?;
        Some(all.swap_remove(place))
    }

    /// Takes all of them out.
    pub(super) fn take_all(&self) -> Vec<Arc<Object>> {
        std::mem::take(&mut *self.lock())
    }

    /// Finds those that an earlier run with this seed has left.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub(super) async fn find(client: &Client, seed: u64) -> Result<Self, Error> {
        let found = Self::default();
        let options = ListOptions { prefix: prefix(seed), page_size: super::PAGE_SIZE, ..ListOptions::default() };
        let mut blobs = std::pin::pin!(client.list_blobs(options));
        while let Some(Blob { blob_id, display_name, size_bytes, .. }) = blobs.try_next().await? {
            if let Some(number) = number_in(&display_name, seed) {
                found.add(Object { blob_id, number, size_bytes });
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects(count: u64) -> Objects {
        let objects = Objects::default();
        let blob_id: BlobId = "0190b5c4-7e5a-7cc3-98c4-dc0c0c07398f".parse().unwrap();
        (0..count).for_each(|number| objects.add(Object { blob_id, number, size_bytes: 1 }));
        objects
    }

    #[test]
    fn each_object_is_read_once_in_an_order_of_its_own() {
        let order: Vec<u64> = objects(100).shuffled(1, u64::MAX).iter().map(|object| object.number).collect();
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..100).collect::<Vec<_>>());
        assert_ne!(order, sorted);
        assert_eq!(objects(100).shuffled(1, 10).len(), 10);
    }

    #[test]
    fn what_somebody_reads_is_not_taken() {
        let objects = objects(3);
        let read = objects.any(1).unwrap();
        let taken: Vec<u64> = (0..3).filter_map(|draw| objects.take(draw)).map(|object| object.number).collect();
        assert_eq!(taken.len(), 2);
        assert!(!taken.contains(&read.number));
        drop(read);
        assert!(objects.take(0).is_some() && objects.take(0).is_none() && objects.any(0).is_none());
    }

    #[test]
    fn a_name_tells_the_number_to_the_same_seed_alone() {
        assert_eq!(number_in(&name(7, 42), 7), Some(42));
        for other in [name(8, 42), name(77, 42), "bench-7-".to_owned(), "holiday.jpg".to_owned()] {
            assert_eq!(number_in(&other, 7), None, "{other}");
        }
    }
}

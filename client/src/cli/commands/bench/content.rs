//! What objects hold. An object's bytes follow from the seed, its number and its size alone, so a reader compares every
//! byte with what must be there, and nobody has to remember it.
//!
//! ```text
//! cell of 4 KiB:  number of the object (8 bytes) | offset of the cell (8 bytes) | seeded bytes, the same in all objects
//! ```
//! So no two objects are alike, no cell is like another, and making or comparing a byte costs about as much as copying it.
//! What does not shrink under compression within an object is what has to be stored.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use proto::entropy::{Entropy as _, SeededEntropy};

/// What begins with a stamp.
const CELL_BYTES: u64 = 4096;
const STAMP_BYTES: usize = 16;
/// Seeded bytes, which repeat after so many.
const PATTERN_BYTES: usize = 1024 * 1024;

/// Makes objects, and compares.
#[derive(Debug, Clone)]
pub(super) struct Content {
    pattern: Arc<[u8]>,
    /// Time spent on making and comparing, in nanoseconds: the client's processor time has it too.
    spent: Arc<AtomicU64>,
}

impl Content {
    /// The same seed makes the same objects.
    pub(super) fn new(seed: u64) -> Self {
        let mut pattern = vec![0; PATTERN_BYTES];
        SeededEntropy::new(seed).fill(&mut pattern);
        Self { pattern: pattern.into(), spent: Arc::default() }
    }

    /// Fills a buffer with the bytes that an object has at this offset.
    pub(super) fn fill(&self, number: u64, offset: u64, mut buffer: &mut [u8]) {
        let began = Instant::now();
        self.walk(number, offset, buffer.len(), |expected| {
            let (part, rest) = std::mem::take(&mut buffer).split_at_mut(expected.len());
            part.copy_from_slice(expected);
            buffer = rest;
            true
        });
        self.spend(began);
    }

    /// Whether these are the bytes that the object has at this offset.
    pub(super) fn matches(&self, number: u64, offset: u64, mut bytes: &[u8]) -> bool {
        let began = Instant::now();
        let matches = self.walk(number, offset, bytes.len(), |expected| {
            let (part, rest) = bytes.split_at(expected.len());
            bytes = rest;
            part == expected
        });
        self.spend(began);
        matches
    }

    /// Passes what an object has at this offset, part by part, until `each` says no.
    fn walk(&self, number: u64, mut offset: u64, mut left: usize, mut each: impl FnMut(&[u8]) -> bool) -> bool {
        while left > 0 {
            let cell = offset / CELL_BYTES * CELL_BYTES;
            let stamp = stamp(number, cell);
            let in_cell = to_usize(offset - cell);
            let part = match stamp.get(in_cell..) {
                Some(stamp) if !stamp.is_empty() => stamp,
                Some(_) | None => {
                    let from = to_usize(offset % PATTERN_BYTES as u64);
                    let until = from + to_usize(CELL_BYTES) - in_cell;
                    self.pattern.get(from..until).expect("cells divide the pattern")
                }
            };
            let part = part.get(..left).unwrap_or(part);
            if !each(part) {
                return false;
            }
            left -= part.len();
            offset += part.len() as u64;
        }
        true
    }

    fn spend(&self, began: Instant) {
        let nanoseconds = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.spent.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    /// Time spent so far on making and comparing.
    pub(super) fn spent(&self) -> Duration {
        Duration::from_nanos(self.spent.load(Ordering::Relaxed))
    }
}

fn stamp(number: u64, cell: u64) -> [u8; STAMP_BYTES] {
    let mut stamp = [0; STAMP_BYTES];
    let bytes = number.to_le_bytes().into_iter().chain(cell.to_le_bytes());
    stamp.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    stamp
}

fn to_usize(small: u64) -> usize {
    usize::try_from(small).expect("a place within the pattern")
}

/// Takes an object's bytes in order, and refuses the first that is not what was put.
#[derive(Debug)]
pub(super) struct Comparing {
    content: Content,
    number: u64,
    size_bytes: u64,
    /// Bytes that were right, for whoever waits for the end.
    right: Arc<AtomicU64>,
}

impl Comparing {
    /// For the object of this number and size. `right` counts the bytes that were as they must be.
    pub(super) fn new(content: &Content, number: u64, size_bytes: u64, right: &Arc<AtomicU64>) -> Self {
        Self { content: content.clone(), number, size_bytes, right: Arc::clone(right) }
    }
}

impl Write for Comparing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let offset = self.right.load(Ordering::Relaxed);
        let end = offset + bytes.len() as u64;
        if end > self.size_bytes || !self.content.matches(self.number, offset, bytes) {
            let problem = format!("what it has from byte {offset} to byte {end} is not what was put");
            return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
        }
        self.right.store(end, Ordering::Relaxed);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn object(content: &Content, number: u64, size: usize) -> Vec<u8> {
        let mut bytes = vec![0; size];
        content.fill(number, 0, &mut bytes);
        bytes
    }

    #[test]
    fn objects_differ_by_number_and_by_seed_and_are_the_same_each_time() {
        let (one, other) = (Content::new(1), Content::new(2));
        for size in [1, 8, 4096, 5000, PATTERN_BYTES + 1] {
            assert_eq!(object(&one, 7, size), object(&one, 7, size));
            assert_ne!(object(&one, 7, size), object(&one, 8, size), "{size}");
            assert!(size <= STAMP_BYTES || object(&one, 7, size) != object(&other, 7, size), "{size}");
        }
    }

    #[test]
    fn no_two_cells_of_an_object_are_alike() {
        let bytes = object(&Content::new(1), 7, 3 * PATTERN_BYTES);
        let cells: std::collections::HashSet<_> = bytes.chunks(4096).collect();
        assert_eq!(cells.len(), 3 * PATTERN_BYTES / 4096);
    }

    #[test]
    fn a_reader_takes_what_was_put_and_refuses_what_is_longer() {
        let (content, right) = (Content::new(1), Arc::default());
        let bytes = object(&content, 7, 10_000);
        let mut reader = Comparing::new(&content, 7, 10_000, &right);
        bytes.chunks(999).for_each(|part| reader.write_all(part).unwrap());
        assert_eq!(right.load(Ordering::Relaxed), 10_000);
        assert_eq!(reader.write_all(b"x").unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    proptest! {
        #[test]
        fn any_part_is_what_the_whole_has_there(number: u64, from in 0_usize..20_000, length in 0_usize..20_000) {
            let content = Content::new(1);
            let whole = object(&content, number, from + length);
            let mut part = vec![0; length];
            content.fill(number, from as u64, &mut part);
            prop_assert_eq!(&part, &whole[from..]);
            prop_assert!(content.matches(number, from as u64, &part));
        }

        #[test]
        fn a_flipped_bit_anywhere_is_seen(number: u64, at in 0_usize..10_000, bit in 0..8_u8) {
            let (content, right) = (Content::new(1), Arc::default());
            let mut bytes = object(&content, number, 10_000);
            bytes[at] ^= 1_u8 << bit;
            let written = Comparing::new(&content, number, 10_000, &right).write_all(&bytes);
            prop_assert_eq!(written.unwrap_err().kind(), io::ErrorKind::InvalidData);
        }

        #[test]
        fn another_object_of_the_same_size_is_seen(number: u64, other: u64, size in 8_usize..10_000) {
            prop_assume!(number != other);
            let content = Content::new(1);
            prop_assert!(!content.matches(number, 0, &object(&content, other, size)));
        }
    }
}

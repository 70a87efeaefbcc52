//! The journal's halves: whatever they hold, opening and replaying them ends, and what is appended then comes back.
//!
//! An input changes bytes of halves that a journal wrote. With an odd first byte all heads get their sums anew, or no change
//! of one would ever be looked at.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Choices;
use crate::checksum::crc32c;
use crate::entropy::SeededEntropy;
use crate::runtime::journal::{self, HALF_BYTES_MIN, HalfFile, Journal, Opened, Shape};

const SHAPE: Shape = Shape { half_bytes: HALF_BYTES_MIN, growth_bytes: 4096 };
const BLOCK: usize = 4096;
/// Bytes of the heads of a half, and of a group: the last four are the sum of the others.
const HALF_HEAD: usize = 20;
const GROUP_HEAD: usize = 64;

/// A half in memory. Clones are the same one.
#[derive(Debug, Clone, Default)]
struct MemoryHalf(Arc<Mutex<Vec<u8>>>);

impl MemoryHalf {
    fn content(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn place(&self, at: usize, bytes: &[u8]) {
        let mut content = self.content();
        let end = at + bytes.len();
        let length = content.len().max(end);
        content.resize(length, 0);
        content.get_mut(at..end).expect("it was made long enough").copy_from_slice(bytes);
    }

    /// Gives every block's beginning the sum that a head there would have.
    fn seal(&self) {
        for (index, block) in self.content().chunks_exact_mut(BLOCK).enumerate() {
            let bytes = if index == 0 { HALF_HEAD } else { GROUP_HEAD };
            let head = block.get_mut(..bytes).expect("a block has more");
            let (covered, sum) = head.split_last_chunk_mut::<4>().expect("a head has more");
            *sum = crc32c(covered).to_be_bytes();
        }
    }
}

impl HalfFile for MemoryHalf {
    fn size(&self) -> io::Result<u64> {
        Ok(self.content().len() as u64)
    }

    fn read_at(&self, buffer: &mut Vec<u8>, length: usize, offset: u64) -> io::Result<()> {
        let (content, offset) = (self.content(), usize::try_from(offset).map_err(io::Error::other)?);
        buffer.extend_from_slice(content.get(offset..offset + length).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.place(usize::try_from(offset).map_err(io::Error::other)?, bytes);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

fn opened(halves: &[MemoryHalf; 2]) -> Option<Opened<MemoryHalf>> {
    journal::open(halves.clone(), SHAPE, &SeededEntropy::new(1)).ok()
}

fn replayed(opened: &Opened<MemoryHalf>) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    let take = |record: &[u8]| {
        records.push(record.to_vec());
        Ok::<(), io::Error>(())
    };
    opened.replay(take).expect("memory can be read again");
    records
}

/// Two generations, neither of them released.
fn written() -> [MemoryHalf; 2] {
    let halves = <[MemoryHalf; 2]>::default();
    let journal = opened(&halves).and_then(|opened| opened.begin().ok());
    let mut journal: Journal<_> = journal.expect("memory can be written");
    for (index, size) in [3, 5_000, 10, 20].into_iter().enumerate() {
        if index == 2 {
            journal.rotate().expect("memory can be written");
        }
        journal.append(&[vec![7; size]]).expect("it fits");
    }
    halves
}

/// Fuzzes [`journal::open`] and what follows it. Each change: half and block (1 byte), where in the block (1), what (8).
pub(super) fn run(input: &[u8]) {
    let mut choices = Choices::new(input);
    let sealed = choices.byte() % 2 == 1;
    let halves = written();
    let [even, odd] = &halves;
    while !choices.is_over() {
        let [place, at, bytes @ ..] = choices.bytes::<10>();
        let half = if place.is_multiple_of(2) { even } else { odd };
        half.place(usize::from(place / 2 % 6) * BLOCK + usize::from(at), &bytes);
    }
    if sealed {
        halves.iter().for_each(MemoryHalf::seal);
    }
    let Some(found) = opened(&halves) else { return };
    let records = replayed(&found);
    assert_eq!(found.records(), records.len() as u64);
    let Ok(mut journal) = found.begin() else { return };
    if journal.append(&[b"new"]).is_ok() {
        let again = opened(&halves).expect("it could be opened before");
        assert_eq!(replayed(&again).last().map(Vec::as_slice), Some(b"new".as_slice()));
    }
}

/// No change; a head that asks for much; one of the last number there is.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    let change = |place: u8, at: u8, bytes: [u8; 8]| [&[1, place, at], bytes.as_slice()].concat();
    vec![vec![0], change(3, 40, [0xff; 8]), change(3, 8, [0xff; 8]), change(3, 16, [0xff; 8]), change(2, 32, [0xff; 8])]
}

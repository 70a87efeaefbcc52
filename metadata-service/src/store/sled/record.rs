//! What the journal's records say: one for each group of commits.
//!
//! ```text
//! sequence of its first commit (8) | of its last (8) | writes
//! write  length of the key (2) | key | 0 (1), the key is removed
//!                                    | 1 (1) | length of the value (4) | value
//! ```
//! Integers are big-endian; keys come in order, none twice. The journal has a sum over each record.

use bytes::Bytes;
use proto::limits::{BATCH_WRITES_MAX, KEY_BYTES_MAX, RECORD_BYTES_MAX};
use proto::runtime::journal::GROUP_BYTES_MAX;

use super::group;
use crate::store::feed::Writes;

const REMOVED: u8 = 0;
const SET: u8 = 1;
/// Bytes of a write beside key and value.
pub(super) const FRAMING_BYTES: usize = size_of::<u16>() + 1 + size_of::<u32>();
/// A group takes one more batch as long as it is not full.
const LARGEST: usize =
    2 * size_of::<u64>() + group::BYTES_MAX + BATCH_WRITES_MAX * (FRAMING_BYTES + KEY_BYTES_MAX + RECORD_BYTES_MAX);

const _: () = assert!(KEY_BYTES_MAX <= u16::MAX as usize && LARGEST < GROUP_BYTES_MAX);

/// A group of commits as the journal keeps it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// Sequence of its first commit.
    pub(crate) first: u64,
    /// Of its last.
    pub(crate) last: u64,
    /// What they wrote.
    pub(crate) writes: Writes,
}

/// The record of a group. Keys and values are as short as [`Batch::check_bounds`](crate::store::engine::Batch::check_bounds)
/// has them.
pub(crate) fn encode(first: u64, last: u64, writes: &Writes) -> Vec<u8> {
    let bytes =
        |(key, value): (&Vec<u8>, &Option<Bytes>)| FRAMING_BYTES + key.len() + value.as_ref().map_or(0, Bytes::len);
    let mut record = Vec::with_capacity(2 * size_of::<u64>() + writes.iter().map(bytes).sum::<usize>());
    record.extend_from_slice(&first.to_be_bytes());
    record.extend_from_slice(&last.to_be_bytes());
    for (key, value) in writes {
        record.extend_from_slice(&u16::try_from(key.len()).unwrap_or(u16::MAX).to_be_bytes());
        record.extend_from_slice(key);
        match value {
            None => record.push(REMOVED),
            Some(value) => {
                record.push(SET);
                record.extend_from_slice(&u32::try_from(value.len()).unwrap_or(u32::MAX).to_be_bytes());
                record.extend_from_slice(value);
            }
        }
    }
    record
}

/// Reads a record; `None` for anything that [`encode`] would not have made of commits in order.
pub(crate) fn parse(record: &[u8]) -> Option<Record> {
    let (first, rest) = record.split_first_chunk::<8>()?;
    let (last, mut rest) = rest.split_first_chunk::<8>()?;
    let (first, last) = (u64::from_be_bytes(*first), u64::from_be_bytes(*last));
    let mut writes = Writes::new();
    while !rest.is_empty() {
        let (key, value, behind) = write(rest)?;
        if writes.last_key_value().is_some_and(|(before, _)| before.as_slice() >= key) {
            return None;
        }
        writes.insert(key.to_vec(), value.map(Bytes::copy_from_slice));
        rest = behind;
    }
    (0 < first && first <= last && !writes.is_empty()).then_some(Record { first, last, writes })
}

type Write<'a> = (&'a [u8], Option<&'a [u8]>, &'a [u8]);

/// Key, value, and what lies behind.
fn write(bytes: &[u8]) -> Option<Write<'_>> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    let (key, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    let (&tag, rest) = rest.split_first()?;
    // The empty key is the database's own.
    match (tag, key.is_empty()) {
        (REMOVED, false) => Some((key, None, rest)),
        (SET, false) => {
            let (length, rest) = rest.split_first_chunk::<4>()?;
            let (value, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
            Some((key, Some(value), rest))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writes() -> Writes {
        let value = |bytes: &'static [u8]| Some(Bytes::from_static(bytes));
        Writes::from([
            (b"a".to_vec(), value(b"")),
            (b"b".to_vec(), None),
            (b"b\0".to_vec(), value(b"some")),
            (vec![0xff; KEY_BYTES_MAX], Some(Bytes::from(vec![1; RECORD_BYTES_MAX]))),
        ])
    }

    #[test]
    fn a_record_reads_as_made_and_no_shorter_one_is_taken() {
        let made = encode(7, 9, &writes());
        assert_eq!(parse(&made), Some(Record { first: 7, last: 9, writes: writes() }));
        // Without its last write it is whole again, which is what the journal's sum is for.
        let last = made.len() - (FRAMING_BYTES + KEY_BYTES_MAX + RECORD_BYTES_MAX);
        for cut in (0..made.len()).filter(|cut| *cut > last || *cut < 2 * size_of::<u64>() + 1) {
            assert_eq!(parse(&made[..cut]), None, "cut at {cut}");
        }
    }

    #[test]
    fn a_record_out_of_order_or_of_no_commit_is_not_taken() {
        let one = |key: &[u8]| Writes::from([(key.to_vec(), None)]);
        for (first, last) in [(0, 1), (2, 1)] {
            assert_eq!(parse(&encode(first, last, &one(b"a"))), None);
        }
        assert_eq!(parse(&encode(1, 1, &Writes::new())), None, "nothing is written");
        assert_eq!(parse(&encode(1, 1, &one(b""))), None, "the database's own key");
        let mut twice = encode(1, 1, &one(b"a"));
        twice.extend_from_slice(&encode(1, 1, &one(b"a"))[16..]);
        assert_eq!(parse(&twice), None);
        let mut tag = encode(1, 1, &one(b"a"));
        *tag.last_mut().unwrap() = 2;
        assert_eq!(parse(&tag), None);
    }
}

//! What the journal's records say.
//!
//! ```text
//! put     1 (1 byte) | length of the checksum file (4) | checksum file | the chunk's bytes
//! forget  2 (1 byte) | chunk id (16)
//! ```
//! Lengths are big-endian. The checksum file's text is the one that stands beside the bytes, so a record holds all that is
//! needed to write both again.

use proto::ids::ChunkId;

use crate::store::chk::Chk;

const PUT: u8 = 1;
const FORGET: u8 = 2;

/// A record.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Record<'a> {
    /// The chunk's files hold this.
    Put(Box<Chk>, &'a [u8]),
    /// Its files are not the journal's matter any more.
    Forget(ChunkId),
}

impl Record<'_> {
    pub(crate) fn chunk(&self) -> ChunkId {
        match self {
            Self::Put(chk, _content) => chk.binding.chunk,
            Self::Forget(chunk) => *chunk,
        }
    }
}

pub(crate) fn put(chk: &Chk, content: &[u8]) -> Vec<u8> {
    let text = chk.print();
    let mut record = Vec::with_capacity(1 + 4 + text.len() + content.len());
    record.push(PUT);
    // A few hundred bytes: chunks that go through the journal have few pieces.
    record.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
    record.extend_from_slice(text.as_bytes());
    record.extend_from_slice(content);
    record
}

pub(crate) fn forget(chunk: ChunkId) -> Vec<u8> {
    let mut record = vec![FORGET];
    record.extend_from_slice(chunk.as_bytes());
    record
}

/// Reads a record; `None` for anything that [`put`] and [`forget`] would not have made.
pub(crate) fn parse(record: &[u8]) -> Option<Record<'_>> {
    match record.split_first()? {
        (&PUT, rest) => {
            let (length, rest) = rest.split_first_chunk::<4>()?;
            let (text, content) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
            let chk = Chk::parse(text).ok()?;
            (chk.sums.size_bytes == content.len() as u64).then(|| Record::Put(Box::new(chk), content))
        }
        (&FORGET, id) => ChunkId::try_from(id).ok().map(Record::Forget),
        _unknown => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::world::{pattern, place, sums};

    #[test]
    fn a_record_reads_as_made_and_no_other_is_taken() {
        for size in [0, 1, 70_000] {
            let content = pattern(size, 3);
            let chk = Chk { binding: place(1), sums: sums(&content) };
            let made = put(&chk, &content);
            assert_eq!(parse(&made), Some(Record::Put(Box::new(chk), &content)));
            for cut in 0..made.len().min(1_000) {
                assert_eq!(parse(&made[..cut]), None, "cut at {cut}");
            }
        }
        let made = forget(place(2).chunk);
        assert_eq!(parse(&made), Some(Record::Forget(place(2).chunk)));
        assert_eq!((parse(&made[..16]), parse(&[3, 0]), parse(&[])), (None, None, None));
    }
}

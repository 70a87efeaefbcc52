//! The journal's layout.
//!
//! ```text
//! half   head (block 0) | group | group | ...                        blocks have 4,096 bytes
//! head   magic (8) | salt (8) | crc32c of both (4)
//! group  salt (8) | generation (8) | number within it (8) | groups of the generation before (8) | released (8)
//!        | records (4) | payload bytes (4) | crc32c of the payload (4) | zeros (8) | crc32c of the group's head (4)
//!        | payload | zeros to the block's end
//! payload  records, each: length (4) | bytes
//! ```
//! Integers are big-endian. A group begins with a block, so that writing one never touches a block of another. The salt is
//! drawn when the files are made and stored nowhere else: records hold what strangers wrote, and who does not know the salt
//! cannot write what would be taken for a group.

use crate::checksum::crc32c;

/// What a group begins and ends with.
pub(super) const BLOCK_BYTES: u64 = 4096;
/// Bytes of a group's head.
pub(super) const HEAD_BYTES: usize = 64;
/// Bytes of a half's head.
pub(super) const HALF_HEAD_BYTES: usize = 20;
/// Greatest number of a generation, and of a group in it. No journal lives to see it.
pub(super) const COUNT_MAX: u64 = u64::MAX / 2;
/// Its last byte is the version.
const MAGIC: [u8; 8] = *b"mtjrnl\0\x01";
/// Version of this layout.
pub(super) const VERSION: u8 = 1;

const _: () = assert!(MAGIC[7] == VERSION);

/// Bytes in whole blocks.
pub(super) fn blocks(bytes: usize) -> u64 {
    (bytes as u64).next_multiple_of(BLOCK_BYTES)
}

/// What a half's first block says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HalfHead {
    /// Groups of this salt follow.
    Salt(u64),
    /// A later version of this program wrote it.
    TooNew(u8),
    /// It is none.
    Damaged,
}

/// The first bytes of a half.
pub(super) fn half_head(salt: u64) -> Vec<u8> {
    let mut head = MAGIC.to_vec();
    head.extend_from_slice(&salt.to_be_bytes());
    head.extend_from_slice(&crc32c(&head).to_be_bytes());
    head
}

/// Reads them.
pub(super) fn parse_half_head(bytes: &[u8]) -> HalfHead {
    let Some((covered, crc)) = bytes.get(..HALF_HEAD_BYTES).and_then(<[u8]>::split_last_chunk::<4>) else {
        return HalfHead::Damaged;
    };
    let Some((magic, salt)) = covered.split_first_chunk::<8>() else { return HalfHead::Damaged };
    if crc32c(covered) != u32::from_be_bytes(*crc) {
        return HalfHead::Damaged;
    }
    match (magic, salt.try_into().map(u64::from_be_bytes)) {
        ([name @ .., version], Ok(salt)) if *name == MAGIC[..7] => {
            if *version == VERSION {
                HalfHead::Salt(salt)
            } else {
                HalfHead::TooNew(*version)
            }
        }
        (_foreign, _) => HalfHead::Damaged,
    }
}

/// What precedes a group's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct GroupHead {
    pub(super) salt: u64,
    pub(super) generation: u64,
    pub(super) group: u64,
    pub(super) previous: u64,
    pub(super) released: u64,
    pub(super) records: u32,
    pub(super) payload_bytes: u32,
    pub(super) payload_crc: u32,
}

impl GroupHead {
    pub(super) fn encode(&self) -> Vec<u8> {
        let Self { salt, generation, group, previous, released, records, payload_bytes, payload_crc } = self;
        let mut head = Vec::with_capacity(HEAD_BYTES);
        for number in [salt, generation, group, previous, released] {
            head.extend_from_slice(&number.to_be_bytes());
        }
        for number in [records, payload_bytes, payload_crc] {
            head.extend_from_slice(&number.to_be_bytes());
        }
        head.resize(HEAD_BYTES - 4, 0);
        head.extend_from_slice(&crc32c(&head).to_be_bytes());
        head
    }

    /// `None` for what is no group's head of this salt.
    pub(super) fn decode(bytes: &[u8; HEAD_BYTES], salt: u64) -> Option<Self> {
        let (covered, crc) = bytes.split_last_chunk::<4>()?;
        let (longs, rest) = covered.split_at_checked(5 * 8)?;
        let mut longs = longs.chunks_exact(8).map(|long| long.try_into().map(u64::from_be_bytes));
        let mut long = || longs.next()?.ok();
        let (found, generation, group, previous, released) = (long()?, long()?, long()?, long()?, long()?);
        // The salt first: most blocks are no heads.
        if found != salt || crc32c(covered) != u32::from_be_bytes(*crc) {
            return None;
        }
        let mut shorts = rest.chunks_exact(4).map(|short| short.try_into().map(u32::from_be_bytes));
        let mut short = || shorts.next()?.ok();
        let (records, payload_bytes, payload_crc) = (short()?, short()?, short()?);
        let plausible = released <= generation && generation <= COUNT_MAX && group <= COUNT_MAX;
        plausible.then_some(Self { salt, generation, group, previous, released, records, payload_bytes, payload_crc })
    }
}

/// The records of a payload; an error where they do not fill it exactly.
pub(super) fn records(payload: &[u8], count: u32) -> Option<Vec<&[u8]>> {
    let (mut rest, mut records) = (payload, Vec::new());
    for _ in 0..count {
        let (length, behind) = rest.split_first_chunk::<4>()?;
        let (record, behind) = behind.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
        records.push(record);
        rest = behind;
    }
    rest.is_empty().then_some(records)
}

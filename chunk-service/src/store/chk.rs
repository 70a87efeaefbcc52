//! The checksum file of a chunk: `{uuid}.blob.chk`.
//!
//! Text, so that `sha256sum -c` checks a store without this program (it skips lines that begin with `#`). Every line
//! ends in LF.
//!
//! | line | content |
//! |---|---|
//! | 1 | `# mini-tectonic chunk v1` |
//! | 2 | `# chunk=` id ` block=` id ` blob=` id ` shard=` index from 0 `/` count ` size=` n ` generation=` n ` epoch=` n ` sequence=` n |
//! | 3 | `# crc32c-64k=` CRC-32C of each 64 KiB piece, 8 hex digits, comma-separated; nothing for 0 bytes |
//! | 4 | SHA-256 of the chunk, 64 hex digits, two blanks, id of the chunk `.blob` |
//! | 5 | `# end crc32c=` CRC-32C of every byte before this line, 8 hex digits |
//!
//! Numbers are decimal without leading zeros, hex is lower case, ids are canonical UUIDs. A text is taken only if
//! printing what was read from it gives the same bytes; so there is exactly one text for each content, and every
//! truncated or changed byte is noticed.
//!
//! Every later version keeps the form of the first line and of the last, whatever it says between them: so a file of
//! such a version is told from one of this version whose number was damaged. It is never written over, moved or taken
//! for a left-over by this program, which cannot know what it says; only a delete of its chunk removes it.
//!
//! Line 2 binds the sums to the chunk's place, so that two files that were swapped do not verify (I2). The file is
//! never trusted alone: a reader compares it with its capability, which carries what the metadata holds.

use std::fmt::Write as _;

use proto::capability::ChunkBinding;
use proto::checksum::{ChunkSums, crc32c};
use proto::limits::{CHUNK_BYTES_MAX, PIECE_BYTES};

/// Longest file that is read: that of the largest chunk, 9 bytes a piece, and the other lines.
pub(crate) const CHK_BYTES_MAX: u64 = CHUNK_BYTES_MAX / PIECE_BYTES * 9 + 1024;

/// What a checksum file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chk {
    /// The chunk and its place.
    pub(crate) binding: ChunkBinding,
    /// The sums of its bytes.
    pub(crate) sums: ChunkSums,
}

/// Format version that this program writes, and the latest one that it reads.
pub(crate) const VERSION: u32 = 1;
const FIRST_WORDS: &str = "# mini-tectonic chunk v";

/// Why bytes are not taken for a checksum file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ChkError {
    /// They never were one, or were changed.
    #[error("not a checksum file, or a damaged one")]
    Damaged,
    /// A later program wrote them.
    #[error("checksum file of a later version {found}; this program knows up to {VERSION}")]
    TooNew {
        /// Its version.
        found: u32,
    },
}

impl Chk {
    /// The file's text.
    pub(crate) fn print(&self) -> String {
        let ChunkBinding { chunk, block, blob, shard_index, shard_count, generation, epoch, sequence } = self.binding;
        let ChunkSums { size_bytes, sha256, pieces } = &self.sums;
        let mut text = String::with_capacity(512 + pieces.len() * 9);
        let mut line = |arguments: std::fmt::Arguments<'_>| {
            let written = text.write_fmt(arguments);
            debug_assert!(written.is_ok(), "writing to a string cannot fail");
        };
        line(format_args!("{FIRST_WORDS}{VERSION}\n"));
        line(format_args!("# chunk={chunk} block={block} blob={blob} shard={shard_index}/{shard_count} "));
        line(format_args!("size={size_bytes} generation={generation} epoch={epoch} sequence={sequence}\n"));
        line(format_args!("# crc32c-64k="));
        for (index, piece) in pieces.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            line(format_args!("{comma}{piece:08x}"));
        }
        line(format_args!("\n{sha256}  {chunk}.blob\n"));
        let crc = crc32c(text.as_bytes());
        text.push_str(&last_line(crc));
        text
    }

    /// Reads a file's bytes.
    ///
    /// # Errors
    /// [`ChkError`] for anything that [`Chk::print`] would not have written.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, ChkError> {
        match Self::parse_known(bytes) {
            Some(chk) => Ok(chk),
            None => Err(later_version(bytes).map_or(ChkError::Damaged, |found| ChkError::TooNew { found })),
        }
    }

    fn parse_known(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        Self::read(text).filter(|chk| chk.is_consistent() && chk.print() == text)
    }

    /// Finds the fields, leniently: [`Chk::parse`] prints them again and compares.
    fn read(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let (_version, place, pieces, digest) = (lines.next()?, lines.next()?, lines.next()?, lines.next()?);
        let mut values = place.split(' ').filter_map(|field| field.split_once('=')).map(|(_key, value)| value);
        let (chunk, block, blob) = (values.next()?, values.next()?, values.next()?);
        let (shard_index, shard_count) = values.next()?.split_once('/')?;
        let size_bytes = values.next()?.parse().ok()?;
        let binding = ChunkBinding {
            chunk: chunk.parse().ok()?,
            block: block.parse().ok()?,
            blob: blob.parse().ok()?,
            shard_index: shard_index.parse().ok()?,
            shard_count: shard_count.parse().ok()?,
            generation: values.next()?.parse().ok()?,
            epoch: values.next()?.parse().ok()?,
            sequence: values.next()?.parse().ok()?,
        };
        let (_key, pieces) = pieces.split_once('=')?;
        let (sha256, _name) = digest.split_once("  ")?;
        let sums = ChunkSums { size_bytes, sha256: sha256.parse().ok()?, pieces: read_pieces(pieces)? };
        Some(Self { binding, sums })
    }

    fn is_consistent(&self) -> bool {
        let pieces = u64::try_from(self.sums.pieces.len()).unwrap_or(u64::MAX);
        pieces == self.sums.size_bytes.div_ceil(PIECE_BYTES) && self.binding.shard_index < self.binding.shard_count
    }
}

/// The version of a whole file that is later than this program's.
fn later_version(bytes: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(bytes).ok()?;
    let number = text.lines().next()?.strip_prefix(FIRST_WORDS)?;
    let found: u32 = number.parse().ok().filter(|found: &u32| found.to_string() == number)?;
    let (before, _last_line) = text.split_at_checked(text.len().checked_sub(last_line(0).len())?)?;
    (found > VERSION && text == format!("{before}{}", last_line(crc32c(before.as_bytes())))).then_some(found)
}

/// The last line of a file, over the sum of all bytes before it.
fn last_line(crc: u32) -> String {
    format!("# end crc32c={crc:08x}\n")
}

fn read_pieces(list: &str) -> Option<Vec<u32>> {
    if list.is_empty() {
        return Some(Vec::new());
    }
    list.split(',').map(|hex| u32::from_str_radix(hex, 16).ok()).collect()
}

#[cfg(test)]
mod tests;

//! SHA-256 over whole things, CRC-32C over frames and pieces.
//!
//! Both come from maintained crates that use the processor's instructions (SHA-NI, SSE 4.2). A chunk's pieces are its
//! consecutive runs of [`PIECE_BYTES`], the last one shorter; the list of their CRC-32Cs is
//! itself summed up by [`pieces_sha256`], which the metadata holds.

use std::fmt;
use std::str::FromStr;

use sha2::Digest as _;

use crate::hex;
use crate::limits::PIECE_BYTES;

/// Why bytes or text are no SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a SHA-256 as 64 lower-case hex digits")]
pub struct DigestError;

/// A SHA-256, printed as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sha256([u8; 32]);

impl Sha256 {
    /// The SHA-256 of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(sha2::Sha256::digest(bytes).into())
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl TryFrom<&[u8]> for Sha256 {
    type Error = DigestError;
    fn try_from(bytes: &[u8]) -> Result<Self, DigestError> {
        bytes.try_into().map(Self).map_err(|_length| DigestError)
    }
}

impl FromStr for Sha256 {
    type Err = DigestError;
    fn from_str(text: &str) -> Result<Self, DigestError> {
        let mut bytes = [0; 32];
        hex::fill(&mut bytes, text).then_some(Self(bytes)).ok_or(DigestError)
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex::display(&self.0).fmt(f)
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Folds bytes into a SHA-256.
#[derive(Debug, Clone, Default)]
pub struct Sha256Hasher(sha2::Sha256);

impl Sha256Hasher {
    /// Folds in the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The sum of all bytes so far.
    pub fn finish(self) -> Sha256 {
        Sha256(self.0.finalize().into())
    }
}

/// CRC-32C (Castagnoli, RFC 3720 appendix B.4) of these bytes.
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
}

/// CRC-32C of what was summed to `crc` followed by these bytes.
pub fn crc32c_append(crc: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc, bytes)
}

/// SHA-256 over a list of pieces' CRC-32Cs, each as four bytes, big-endian.
pub fn pieces_sha256(pieces: &[u32]) -> Sha256 {
    let mut hasher = Sha256Hasher::default();
    for crc in pieces {
        hasher.update(&crc.to_be_bytes());
    }
    hasher.finish()
}

/// Folds a chunk's bytes, in slices of any length, into everything that is known of it: size, SHA-256, pieces.
#[derive(Debug, Clone, Default)]
pub struct ChunkHasher {
    sha256: Sha256Hasher,
    pieces: Vec<u32>,
    open_piece_crc: u32,
    size_bytes: u64,
}

/// What [`ChunkHasher`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkSums {
    /// Number of bytes.
    pub size_bytes: u64,
    /// SHA-256 of all bytes.
    pub sha256: Sha256,
    /// CRC-32C of each piece, in order; empty for 0 bytes.
    pub pieces: Vec<u32>,
}

impl ChunkSums {
    /// See [`pieces_sha256`].
    pub fn pieces_sha256(&self) -> Sha256 {
        pieces_sha256(&self.pieces)
    }
}

impl ChunkHasher {
    /// Bytes folded so far.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Folds in the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        let mut rest = bytes;
        while !rest.is_empty() {
            let room = PIECE_BYTES - self.size_bytes % PIECE_BYTES;
            let take = usize::try_from(room).map_or(rest.len(), |room| room.min(rest.len()));
            let (now, later) = rest.split_at(take);
            self.open_piece_crc = crc32c_append(self.open_piece_crc, now);
            self.size_bytes += now.len() as u64;
            if self.size_bytes.is_multiple_of(PIECE_BYTES) {
                self.pieces.push(std::mem::take(&mut self.open_piece_crc));
            }
            rest = later;
        }
    }

    /// Everything about the bytes so far.
    pub fn finish(mut self) -> ChunkSums {
        if !self.size_bytes.is_multiple_of(PIECE_BYTES) {
            self.pieces.push(self.open_piece_crc);
        }
        ChunkSums { size_bytes: self.size_bytes, sha256: self.sha256.finish(), pieces: self.pieces }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sums_match_the_published_vectors() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(Sha256::of(b"abc").to_string(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn upper_case_short_and_signed_digests_are_refused() {
        let good = Sha256::of(b"abc").to_string();
        assert_eq!(good.parse(), Ok(Sha256::of(b"abc")));
        for bad in ["", "ba", &good.to_uppercase(), &format!("+{}", &good[1..]), &"é".repeat(32)] {
            assert_eq!(bad.parse::<Sha256>(), Err(DigestError), "{bad}");
        }
    }

    #[test]
    fn no_bytes_have_no_pieces() {
        let sums = ChunkHasher::default().finish();
        assert_eq!((sums.size_bytes, sums.pieces.len(), sums.sha256), (0, 0, Sha256::of(b"")));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn the_cut_of_the_input_does_not_matter(
            size in 0usize..300_000,
            cuts in proptest::collection::vec(1usize..100_000, 0..8),
        ) {
            let bytes: Vec<u8> = (0u8..251).cycle().take(size).collect();
            let mut hasher = ChunkHasher::default();
            let mut rest = bytes.as_slice();
            for cut in cuts {
                let (now, later) = rest.split_at(cut.min(rest.len()));
                hasher.update(now);
                rest = later;
            }
            hasher.update(rest);
            let sums = hasher.finish();
            let pieces: Vec<u32> = bytes.chunks(65_536).map(crc32c).collect();
            prop_assert_eq!(sums, ChunkSums { size_bytes: size as u64, sha256: Sha256::of(&bytes), pieces });
        }
    }
}

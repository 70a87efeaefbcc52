//! What the objects hold: seeded bytes in a file, which is stamped anew for each object, so that no two are alike and
//! making one costs next to nothing.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use proto::entropy::{Entropy as _, SeededEntropy};
use tempfile::NamedTempFile;

/// One worker's file.
#[derive(Debug)]
pub(super) struct Content {
    file: NamedTempFile,
    size_bytes: u64,
}

impl Content {
    /// Writes a file of seeded bytes.
    pub(super) fn new(size_bytes: u64, seed: u64) -> io::Result<Self> {
        const PIECE_BYTES: u64 = 1024 * 1024;
        let entropy = SeededEntropy::new(seed);
        let mut file = NamedTempFile::with_prefix("mini-tectonic-bench-")?;
        let mut left = size_bytes;
        while left > 0 {
            let mut piece = vec![0; usize::try_from(left.min(PIECE_BYTES)).unwrap_or_default()];
            entropy.fill(&mut piece);
            file.write_all(&piece)?;
            left -= piece.len() as u64;
        }
        Ok(Self { file, size_bytes })
    }

    /// Makes it the object of this number. Objects of fewer than eight bytes may be alike.
    pub(super) fn stamp(&self, number: u64) -> io::Result<()> {
        let stamp = number.to_be_bytes();
        let fits = usize::try_from(self.size_bytes).unwrap_or(stamp.len()).min(stamp.len());
        let file: &File = self.file.as_file();
        file.write_all_at(stamp.get(stamp.len() - fits..).unwrap_or_default(), 0)
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        self.file.path()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_have_their_size_and_differ() {
        for size in [0, 1, 7, 8, 4096, 1024 * 1024 + 1] {
            let content = Content::new(size, 1).unwrap();
            content.stamp(1).unwrap();
            let one = std::fs::read(content.path()).unwrap();
            content.stamp(2).unwrap();
            let two = std::fs::read(content.path()).unwrap();
            assert_eq!((one.len() as u64, two.len() as u64), (size, size));
            assert!(size == 0 || one != two, "{size}");
        }
    }
}

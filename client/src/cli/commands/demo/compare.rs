//! Whether what came out is what went in.

use std::fs::File;
use std::io::{self, BufReader, Read as _};
use std::path::Path;

use proto::checksum::{Sha256, Sha256Hasher};
use proto::limits;

use crate::cli::failure::{Exit, Failure};

/// How much is read at once.
const PIECE_BYTES: usize = 1024 * 1024;

/// What is known of a file before it goes in.
#[derive(Debug)]
pub(super) struct Sums {
    /// Its size.
    pub(super) size_bytes: u64,
    /// Its SHA-256.
    pub(super) sha256: Sha256,
}

impl Sums {
    /// Reads the file.
    pub(super) fn of(path: &Path) -> Result<Self, Failure> {
        let mut hasher = Sha256Hasher::default();
        let mut size_bytes = 0;
        read_pieces(path, |piece| {
            hasher.update(piece);
            size_bytes += piece.len() as u64;
            Ok(())
        })?;
        Ok(Self { size_bytes, sha256: hasher.finish() })
    }

    /// A block size with which the file has a few blocks, so that there is something to see.
    pub(super) fn block_bytes(&self) -> u64 {
        const BLOCKS: u64 = 4;
        let frames = self.size_bytes.div_ceil(BLOCKS).next_multiple_of(limits::FRAME_BYTES);
        frames.clamp(limits::FRAME_BYTES, limits::BLOCK_BYTES)
    }
}

/// Compares what came out with what went in, and with what that was when it went in.
///
/// # Errors
/// [`Exit::DataLoss`] when they differ; [`Exit::Other`] when the original changed meanwhile.
pub(super) fn compare(original: &Path, copy: &Path, before: &Sums) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::local(format_args!("cannot read {}", copy.display()), &error);
    let mut copied = BufReader::with_capacity(PIECE_BYTES, File::open(copy).map_err(failed)?);
    let mut offset = 0_u64;
    let mut same = Vec::new();
    read_pieces(original, |piece| {
        same.resize(piece.len(), 0);
        if copied.read_exact(&mut same).is_err() || same != piece {
            let message = format!("the copy differs within {} bytes after byte {offset}", piece.len());
            return Err(Failure::new(Exit::DataLoss, message));
        }
        offset += piece.len() as u64;
        Ok(())
    })?;
    if copied.read(&mut [0]).map_err(failed)? > 0 {
        return Err(Failure::new(Exit::DataLoss, "the copy is longer than the original"));
    }
    if Sums::of(copy)?.sha256 == before.sha256 {
        Ok(())
    } else {
        Err(Failure::new(Exit::Other, format!("{} changed while the demo ran", original.display())))
    }
}

fn read_pieces(path: &Path, mut take: impl FnMut(&[u8]) -> Result<(), Failure>) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::local(format_args!("cannot read {}", path.display()), &error);
    let mut file = File::open(path).map_err(failed)?;
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let length = file.read(&mut piece).map_err(failed)?;
        match piece.get(..length) {
            Some(read) if length > 0 => take(read)?,
            Some(_) | None => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn file(folder: &Path, name: &str, content: &[u8]) -> PathBuf {
        let path = folder.join(name);
        proto::runtime::folder::publish(&path, content).unwrap();
        path
    }

    #[test]
    fn a_changed_a_shorter_and_a_longer_copy_do_not_pass() {
        let folder = tempfile::tempdir().unwrap();
        let content = vec![7; 3 * PIECE_BYTES + 1];
        let original = file(folder.path(), "original", &content);
        let before = Sums::of(&original).unwrap();
        assert_eq!((before.size_bytes, before.sha256), (content.len() as u64, Sha256::of(&content)));
        assert!(compare(&original, &file(folder.path(), "same", &content), &before).is_ok());
        let mut changed = content.clone();
        changed[2_000_000] ^= 1;
        let shorter = &content[..content.len() - 1];
        let longer = [content.as_slice(), b"x"].concat();
        for bad in [changed.as_slice(), shorter, longer.as_slice()] {
            let failure = compare(&original, &file(folder.path(), "bad", bad), &before).unwrap_err();
            assert_eq!(failure.exit(), Exit::DataLoss);
        }
    }

    #[test]
    fn an_original_that_changed_meanwhile_is_not_called_equal() {
        let folder = tempfile::tempdir().unwrap();
        let original = file(folder.path(), "original", b"before");
        let before = Sums::of(&original).unwrap();
        let changed = file(folder.path(), "original", b"after");
        let failure = compare(&original, &changed, &before).unwrap_err();
        assert_eq!(failure.exit(), Exit::Other);
    }
}

//! The file from which a worker puts its objects, one after the other.
//!
//! In memory where the system has such files, so that what is measured does not share the disk with what feeds it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::content::Content;

/// Bytes made at a time.
const PIECE_BYTES: usize = 256 * 1024;

/// One worker's file.
#[derive(Debug)]
pub(super) struct Scratch {
    file: File,
    path: PathBuf,
    /// Removed with this, where it has a name.
    _named: Option<tempfile::TempPath>,
}

impl Scratch {
    /// An empty file.
    #[cfg(target_os = "linux")]
    pub(super) fn new() -> io::Result<Self> {
        use std::os::fd::AsRawFd as _;

        let descriptor = rustix::fs::memfd_create("mini-tectonic-bench", rustix::fs::MemfdFlags::CLOEXEC)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", descriptor.as_raw_fd()));
        Ok(Self { file: File::from(descriptor), path, _named: None })
    }

    /// An empty file.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn new() -> io::Result<Self> {
        let (file, path) = tempfile::NamedTempFile::with_prefix("mini-tectonic-bench-")?.into_parts();
        Ok(Self { file, path: path.to_path_buf(), _named: Some(path) })
    }

    /// Makes it the object of this number and size.
    pub(super) fn become_object(&self, content: &Content, number: u64, size_bytes: u64) -> io::Result<()> {
        self.file.set_len(size_bytes)?;
        let longest = usize::try_from(size_bytes).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
        let mut piece = vec![0; longest];
        let mut offset = 0;
        while offset < size_bytes {
            let left = usize::try_from(size_bytes - offset).unwrap_or(PIECE_BYTES);
            piece.truncate(left);
            content.fill(number, offset, &mut piece);
            self.file.write_all_at(&piece, offset)?;
            offset += piece.len() as u64;
        }
        Ok(())
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_becomes_one_object_after_the_other_whatever_their_sizes() {
        let (content, scratch) = (Content::new(1), Scratch::new().unwrap());
        for (number, size) in [(1, 0), (2, 600_000), (3, 4096), (4, 1), (5, 262_144), (6, 262_145)] {
            scratch.become_object(&content, number, size).unwrap();
            assert!(std::fs::metadata(scratch.path()).unwrap().is_file());
            let bytes = std::fs::read(scratch.path()).unwrap();
            assert_eq!(bytes.len() as u64, size);
            assert!(content.matches(number, 0, &bytes), "{number}");
        }
    }
}

//! Where the bytes come from, opened.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use proto::limits::SMALL_BLOB_BYTES;

use super::Source;
use crate::apart::Place;
use crate::error::Error;

/// Bytes to store.
pub(super) enum Input {
    /// Bytes that are there to be read again.
    Kept(Kept),
    /// Bytes of unknown number, read once.
    Stream(Box<dyn Read + Send>),
    /// A FIFO or a device. Opening it may block until somebody writes, so that is left to whoever reads it.
    Special(PathBuf),
}

/// Bytes of a known number that can be read again.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    content: Content,
    name: PathBuf,
    size_bytes: u64,
}

#[derive(Debug, Clone)]
enum Content {
    /// A regular file, open, with the size that it had then.
    File(Arc<File>),
    Memory(Bytes),
}

impl Input {
    /// Looks at the source, and opens it where that cannot block for long.
    ///
    /// # Errors
    /// [`Error::Local`] for what is not there, is a folder, or may not be read.
    pub(super) fn open(source: Source) -> Result<Self, Error> {
        let path = match source {
            Source::Reader(reader) => return Ok(Self::Stream(reader)),
            Source::Bytes(content) => return Ok(Self::Kept(Kept::memory(content))),
            Source::File(path) => path,
        };
        let kind = std::fs::metadata(&path).map_err(|source| local("read", &path, source))?.file_type();
        if kind.is_dir() {
            return Err(local("read", &path, io::ErrorKind::IsADirectory.into()));
        }
        if !kind.is_file() {
            return Ok(Self::Special(path));
        }
        let file = File::open(&path).map_err(|source| local("open", &path, source))?;
        let size_bytes = file.metadata().map_err(|source| local("read", &path, source))?.len();
        Ok(Self::Kept(Kept { content: Content::File(Arc::new(file)), name: path, size_bytes }))
    }

    /// The number of bytes, where it is known.
    pub(super) fn size_bytes(&self) -> Option<u64> {
        if let Self::Kept(kept) = self { Some(kept.size_bytes) } else { None }
    }

    /// The bytes that can be read again.
    pub(super) fn kept(&self) -> Option<Kept> {
        if let Self::Kept(kept) = self { Some(kept.clone()) } else { None }
    }

    /// Where to read it.
    pub(super) fn place(&self) -> Place {
        if matches!(self, Self::Kept(_)) { Place::Pool } else { Place::Thread }
    }

    /// The bytes in order, and what to call them in errors. Blocks as the input does.
    pub(super) fn into_reader(self) -> Result<(Box<dyn Read + Send>, PathBuf), Error> {
        match self {
            Self::Kept(Kept { content: Content::File(file), name, .. }) => Ok((Box::new(file), name)),
            Self::Kept(Kept { content: Content::Memory(content), name, .. }) => Ok((Box::new(content.reader()), name)),
            Self::Stream(reader) => Ok((reader, PathBuf::from("the input"))),
            Self::Special(path) => match File::open(&path) {
                Ok(file) => Ok((Box::new(file), path)),
                Err(source) => Err(local("open", &path, source)),
            },
        }
    }
}

impl Kept {
    pub(super) fn memory(content: Bytes) -> Self {
        let size_bytes = content.len() as u64;
        Self { content: Content::Memory(content), name: PathBuf::from("the bytes"), size_bytes }
    }

    /// All of the bytes, if they are few. `None` also when they cannot be had now: whoever reads them next says why.
    pub(super) fn if_small(&self) -> Option<Bytes> {
        if self.size_bytes > SMALL_BLOB_BYTES {
            return None;
        }
        match &self.content {
            Content::Memory(content) => Some(content.clone()),
            Content::File(file) => {
                let size = usize::try_from(self.size_bytes).ok()?;
                // One byte more: a file that has grown is not what it was.
                let mut buffer = vec![0; size + 1];
                let read = read_up_to(file, &mut buffer).ok()?;
                buffer.truncate(read);
                (read == size).then(|| buffer.into())
            }
        }
    }

    /// Reads bytes once more.
    ///
    /// # Errors
    /// [`Error::SourceChanged`] when they are not there any more, else [`Error::Local`].
    pub(super) fn read_again(&self, offset: u64, bytes: usize) -> Result<Vec<u8>, Error> {
        let file = match &self.content {
            Content::File(file) => file,
            Content::Memory(content) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX);
                let found = content.get(start..start.saturating_add(bytes));
                return found.map(<[u8]>::to_vec).ok_or_else(|| self.changed("it is shorter now"));
            }
        };
        let mut buffer = vec![0; bytes];
        match file.read_exact_at(&mut buffer, offset) {
            Ok(()) => Ok(buffer),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(self.changed("it is shorter now")),
            Err(source) => Err(local("read", &self.name, source)),
        }
    }

    pub(super) fn changed(&self, problem: &str) -> Error {
        Error::SourceChanged { path: self.name.clone(), problem: problem.to_owned() }
    }
}

/// Reads from the beginning until the buffer is full or the file ends.
fn read_up_to(file: &File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut read = 0;
    while let Some(rest) = buffer.get_mut(read..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, read as u64) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

pub(super) fn local(action: &'static str, path: &Path, source: io::Error) -> Error {
    Error::Local { action, path: path.to_path_buf(), source }
}

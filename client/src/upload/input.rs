//! Where the bytes come from, opened.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Source;
use crate::apart::Place;
use crate::error::Error;

/// Bytes to store.
pub(super) enum Input {
    /// A regular file.
    File(InputFile),
    /// Bytes of unknown number, read once.
    Stream(Box<dyn Read + Send>),
    /// A FIFO or a device. Opening it may block until somebody writes, so that is left to whoever reads it.
    Special(PathBuf),
}

/// A regular file, open, with the size that it had then.
#[derive(Debug, Clone)]
pub(super) struct InputFile {
    file: Arc<File>,
    path: PathBuf,
    size_bytes: u64,
}

impl Input {
    /// Looks at the source, and opens it where that cannot block for long.
    ///
    /// # Errors
    /// [`Error::Local`] for what is not there, is a folder, or may not be read.
    pub(super) fn open(source: Source) -> Result<Self, Error> {
        let path = match source {
            Source::Reader(reader) => return Ok(Self::Stream(reader)),
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
        Ok(Self::File(InputFile { file: Arc::new(file), path, size_bytes }))
    }

    /// The number of bytes, where it is known.
    pub(super) fn size_bytes(&self) -> Option<u64> {
        if let Self::File(file) = self { Some(file.size_bytes) } else { None }
    }

    /// The file that can be read again.
    pub(super) fn file(&self) -> Option<InputFile> {
        if let Self::File(file) = self { Some(file.clone()) } else { None }
    }

    /// Where to read it.
    pub(super) fn place(&self) -> Place {
        if matches!(self, Self::File(_)) { Place::Pool } else { Place::Thread }
    }

    /// The bytes in order, and what to call them in errors. Blocks as the input does.
    pub(super) fn into_reader(self) -> Result<(Box<dyn Read + Send>, PathBuf), Error> {
        match self {
            Self::File(InputFile { file, path, .. }) => Ok((Box::new(file), path)),
            Self::Stream(reader) => Ok((reader, PathBuf::from("the input"))),
            Self::Special(path) => match File::open(&path) {
                Ok(file) => Ok((Box::new(file), path)),
                Err(source) => Err(local("open", &path, source)),
            },
        }
    }
}

impl InputFile {
    /// Reads bytes once more.
    ///
    /// # Errors
    /// [`Error::SourceChanged`] when they are not there any more, else [`Error::Local`].
    pub(super) fn read_again(&self, offset: u64, bytes: usize) -> Result<Vec<u8>, Error> {
        let mut buffer = vec![0; bytes];
        match self.file.read_exact_at(&mut buffer, offset) {
            Ok(()) => Ok(buffer),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(self.changed("it is shorter now")),
            Err(source) => Err(local("read", &self.path, source)),
        }
    }

    pub(super) fn changed(&self, problem: &str) -> Error {
        Error::SourceChanged { path: self.path.clone(), problem: problem.to_owned() }
    }
}

pub(super) fn local(action: &'static str, path: &Path, source: io::Error) -> Error {
    Error::Local { action, path: path.to_path_buf(), source }
}

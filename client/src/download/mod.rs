//! Reading a blob.
//!
//! The metadata service says which blocks the range has and where they are ([`layout`]); each block is read and verified
//! frame by frame ([`block`]) and written to its place in a [`file`], in order to a [`writer`], or into [`memory`]. A block
//! that is read whole is also checked against the SHA-256 that the metadata holds, in the one pass that writes it (I2).

mod block;
mod file;
mod layout;
mod memory;
mod writer;

use std::fmt;
use std::io::Write;
use std::path::PathBuf;

use proto::ids::BlobId;

use self::layout::Layout;
use self::writer::Output;
use crate::apart::{self, Place};
use crate::blob::Blob;
use crate::client::Client;
use crate::error::Error;
use crate::progress::{Meter, Progress};

/// Part of a blob.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ByteRange {
    /// First byte; at most the blob's size.
    pub offset: u64,
    /// How many bytes; all that follow when `None`. The range ends with the blob if that is earlier.
    pub limit: Option<u64>,
}

/// What to read, and how.
#[derive(Clone, Default)]
pub struct DownloadOptions {
    /// Which bytes; all of them by default.
    pub range: ByteRange,
    /// Is told how far the download has come.
    pub progress: Option<Progress>,
}

impl fmt::Debug for DownloadOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DownloadOptions")
            .field("range", &self.range)
            .field("progress", &self.progress.is_some())
            .finish()
    }
}

/// Where the bytes of a download go.
pub enum Sink {
    /// A file: written beside it under a temporary name, and renamed only after everything verified. One that exists
    /// and is not a regular file (`/dev/null`) is written directly, as a writer.
    File(PathBuf),
    /// Gets the bytes in order. Each frame is verified before it is written, each block when it is complete: after an
    /// error, what was written is a beginning of the blob that may hold a damaged block. Written on a thread of its own.
    Writer(Box<dyn Write + Send>),
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Writer(_) => f.write_str("Writer"),
        }
    }
}

/// What was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Downloaded {
    /// The blob.
    pub blob: Blob,
    /// Bytes written to the sink.
    pub bytes: u64,
}

impl Client {
    /// Reads a blob, or part of it, and verifies every byte.
    ///
    /// # Errors
    /// [`Error`]; of category [`DataLoss`](crate::Category::DataLoss) when no copy of a block verifies.
    pub async fn download(&self, blob: BlobId, options: DownloadOptions, sink: Sink) -> Result<Downloaded, Error> {
        let target = apart::run(Place::Pool, move || Target::of(sink)).await?;
        let layout = Layout::open(self, blob, options.range).await?;
        let (blob, bytes) = (layout.blob.clone(), layout.total_bytes());
        let meter = Meter::new(Some(bytes), options.progress);
        let ahead = memory::message(self, &layout).await;
        match target {
            Target::Replace(path) => file::fetch(layout, ahead, path, &meter).await?,
            Target::Write(output) => writer::fetch(layout, ahead, output, &meter).await?,
        }
        Ok(Downloaded { blob, bytes })
    }
}

/// A sink, looked at.
enum Target {
    /// A regular file, or one that is not there yet.
    Replace(PathBuf),
    Write(Output),
}

impl Target {
    fn of(sink: Sink) -> Result<Self, Error> {
        let path = match sink {
            Sink::Writer(writer) => return Ok(Self::Write(Output::Writer(writer))),
            Sink::File(path) => path,
        };
        match std::fs::metadata(&path) {
            Ok(found) if !found.is_file() && !found.is_dir() => Ok(Self::Write(Output::Special(path))),
            // What is wrong with the path, if anything, shows when the file is made.
            Ok(_) | Err(_) => Ok(Self::Replace(path)),
        }
    }
}

/// The error for a whole block that is not what the metadata says, although each of its frames was right.
fn wrong_sum(blob_id: BlobId, block_index: u64) -> Error {
    Error::Damaged { blob_id, problem: format!("block {block_index} has another SHA-256 than the metadata holds") }
}

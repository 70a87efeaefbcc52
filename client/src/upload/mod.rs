//! Storing a blob.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::path::PathBuf;

use crate::blob::Blob;
use crate::client::Client;
use crate::error::Error;
use crate::progress::Progress;

/// Where the bytes of an upload come from.
pub enum Source {
    /// A file. A regular one has a known size and is read again where a stream broke; any other (a FIFO, a device) is
    /// read once, to its end.
    File(PathBuf),
    /// Bytes of unknown number that cannot be read again. Read on a thread of its own.
    Reader(Box<dyn Read + Send>),
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Reader(_) => f.write_str("Reader"),
        }
    }
}

/// What to store with the bytes.
#[derive(Clone, Default)]
pub struct UploadOptions {
    /// A name for people, at most 1,024 bytes; need not be unique.
    pub display_name: String,
    /// Media type, at most 255 bytes.
    pub content_type: String,
    /// At most 32 labels; keys at most 63 bytes, values at most 255, all together at most 2 KiB.
    pub labels: BTreeMap<String, String>,
    /// Is told how far the upload has come.
    pub progress: Option<Progress>,
}

impl fmt::Debug for UploadOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UploadOptions")
            .field("display_name", &self.display_name)
            .field("content_type", &self.content_type)
            .field("labels", &self.labels)
            .field("progress", &self.progress.is_some())
            .finish()
    }
}

impl Client {
    /// Stores a blob and returns it once it is durable and visible. On any failure, and when the future is dropped,
    /// nothing becomes visible.
    ///
    /// # Errors
    /// [`Error`]; [`Error::Unsettled`] when the last answer was lost.
    pub async fn upload(&self, source: Source, options: UploadOptions) -> Result<Blob, Error> {
        todo!()
    }
}

//! Storing a blob.
//!
//! ```text
//! input --read, hash, cut--> frames --one stream per block--> chunk service
//!   producer                  conductor, block, replay          receipts --> CommitUpload (session)
//! ```
//! Reading, hashing, sending and the nodes' writing overlap; what is in memory is bounded by the frames in flight. The
//! blob's SHA-256 and the frames' CRC-32Cs are folded once, when a byte is read: a byte that has to be sent again must
//! have the same CRC-32C, so what is stored is what was summed (I2). Nothing is visible before the commit (I3); a failure
//! or a drop before it gives the upload up, and a crash leaves it to its lease.

mod block;
mod conductor;
mod input;
mod producer;
mod replay;
mod session;
mod target;

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::path::PathBuf;

use self::conductor::Conductor;
use self::input::Input;
use self::session::Session;
use crate::apart::{self, Place};
use crate::blob::Blob;
use crate::client::Client;
use crate::error::Error;
use crate::progress::{Meter, Progress};

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
    /// Stores a blob and returns it once it is durable and visible. On a failure, and when the future is dropped, nothing
    /// becomes visible, but for one case: once the commit is on its way, only its answer tells. A future that is dropped
    /// then may have stored the blob.
    ///
    /// # Errors
    /// [`Error`]; [`Error::Unsettled`] when the commit's answer was lost.
    pub async fn upload(&self, source: Source, options: UploadOptions) -> Result<Blob, Error> {
        let input = apart::run(Place::Pool, move || Input::open(source)).await?;
        let meter = Meter::new(input.size_bytes(), options.progress.clone());
        let (session, plans) = Session::start(self, input.size_bytes(), options).await?;
        let sent = match Conductor::new(&session, &input, plans, meter) {
            Ok(conductor) => conductor.run(input).await,
            Err(error) => Err(error),
        };
        match sent {
            Ok((whole, receipts)) => session.commit(whole, receipts).await,
            Err(error) => {
                session.give_up().await;
                Err(error)
            }
        }
    }
}

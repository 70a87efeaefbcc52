//! Storing a blob.
//!
//! ```text
//! input --read, hash, cut--> frames --one stream per block--> chunk service
//!   producer                  conductor, block, replay          receipts --> CommitUpload (session)
//! ```
//! A blob of at most one piece goes as one message instead, alone ([`small`]) or with others ([`batch`]); where that fails
//! it goes on as a stream.
//!
//! Reading, hashing, sending and the nodes' writing overlap; what is in memory is bounded by the frames in flight. The
//! blob's SHA-256 and the frames' CRC-32Cs are folded once, when a byte is read: a byte that has to be sent again must
//! have the same CRC-32C, so what is stored is what was summed (I2). Nothing is visible before the commit (I3); a failure
//! or a drop before it gives the upload up, and a crash leaves it to its lease.

mod batch;
mod block;
mod conductor;
mod input;
mod intake;
mod producer;
mod replay;
mod session;
mod small;
mod target;

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::path::PathBuf;

use bytes::Bytes;
use proto::error::Reason;
use proto::pb;

use self::conductor::Conductor;
use self::input::Input;
use self::session::Session;
use self::small::Small;
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
    /// Bytes in memory.
    Bytes(Bytes),
    /// Bytes of unknown number that cannot be read again. Read on a thread of its own.
    Reader(Box<dyn Read + Send>),
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Bytes(content) => f.debug_tuple("Bytes").field(&content.len()).finish(),
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

/// Opens a source, and reads and sums what is small.
async fn opened(source: Source) -> Result<(Input, Option<Small>), Error> {
    let look = |source| {
        let input = Input::open(source)?;
        let small = input.kept().and_then(|kept| kept.if_small()).map(Small::of);
        Ok((input, small))
    };
    match source {
        // Nothing of it can block.
        Source::Bytes(_) => look(source),
        Source::File(_) | Source::Reader(_) => apart::run(Place::Pool, move || look(source)).await,
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
        let (input, small) = opened(source).await?;
        let kept = input.kept();
        let stored = self.upload_once(input, small.as_ref(), options.clone()).await;
        match (stored, kept) {
            // A crash of the service may take a plan with it that was given out just before.
            (Err(error), Some(kept)) if error.reason() == Some(Reason::UploadNotFound) => {
                tracing::debug!(%error, "the upload begins anew");
                self.upload_once(Input::Kept(kept), small.as_ref(), options).await
            }
            (stored, _) => stored,
        }
    }

    async fn upload_once(&self, input: Input, small: Option<&Small>, options: UploadOptions) -> Result<Blob, Error> {
        let meter = Meter::new(input.size_bytes(), options.progress.clone());
        let (session, plans) = Session::start(self, input.size_bytes(), options).await?;
        if let Some(small) = small
            && let Some(receipts) = small::write_one(&session, &plans, small).await
        {
            meter.add(small.whole.size_bytes);
            return session.commit(small.whole, receipts).await;
        }
        self.send(session, plans, input, meter).await
    }

    /// Sends the bytes as streams, and commits.
    async fn send(
        &self,
        session: Session,
        plans: Vec<pb::BlockPlan>,
        input: Input,
        meter: Meter,
    ) -> Result<Blob, Error> {
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

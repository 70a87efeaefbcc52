//! To a writer: the blocks in order, the next one opened before the last one ends.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

use bytes::Bytes;
use proto::checksum::{Sha256, Sha256Hasher};
use proto::ids::BlobId;
use proto::limits;
use proto::pb;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::block::BlockReader;
use super::layout::Layout;
use super::wrong_sum;
use crate::apart::{self, Place};
use crate::error::Error;
use crate::progress::Meter;

/// Verified frames that wait to be written.
const FRAMES_AHEAD: usize = 8;
/// How much of a block is left when the next one is opened: enough to cover a round trip, little enough that the new
/// stream does not wait for its turn until it is cut.
const OPEN_AHEAD_BYTES: u64 = 4 * limits::MIB;

/// Where the bytes go.
pub(super) enum Output {
    Writer(Box<dyn Write + Send>),
    /// A device or a FIFO. Opening it may block until somebody reads, so that is left to whoever writes it.
    Special(PathBuf),
}

impl Output {
    fn open(self) -> Result<(Box<dyn Write + Send>, PathBuf), Error> {
        match self {
            Self::Writer(writer) => Ok((writer, PathBuf::from("the output"))),
            Self::Special(path) => match OpenOptions::new().write(true).open(&path) {
                Ok(file) => Ok((Box::new(file), path)),
                Err(source) => Err(Error::Local { action: "open", path, source }),
            },
        }
    }
}

/// What the writing thread is told.
enum Item {
    /// The next bytes belong to this block; with its SHA-256 if all of it comes.
    Block {
        index: u64,
        expected: Option<Sha256>,
    },
    Bytes(Bytes),
    End,
}

/// Reads everything into the output. `ahead` is what is already here of the first block.
pub(super) async fn fetch(
    layout: Layout,
    ahead: Option<pb::ReadChunkResponse>,
    output: Output,
    meter: &Meter,
) -> Result<(), Error> {
    let (items, inbox) = mpsc::channel(FRAMES_AHEAD);
    let blob_id = layout.source().blob_id;
    let writing = apart::run(Place::Thread, move || write(inbox, output, blob_id));
    feed(layout, ahead, items, meter).await?;
    writing.await
}

/// Reads the blocks in order. Ends early when the writing has ended; how it ended is for its future to say.
async fn feed(
    mut layout: Layout,
    ahead: Option<pb::ReadChunkResponse>,
    items: mpsc::Sender<Item>,
    meter: &Meter,
) -> Result<(), Error> {
    let source = layout.source().clone();
    let mut current = layout.next().await?.map(|part| BlockReader::new(&source, part, meter).with(ahead));
    while let Some(mut reader) = current.take() {
        let mut opening = JoinSet::new();
        let part = reader.part();
        let begin = Item::Block { index: part.block.index, expected: part.whole_sum() };
        if items.send(begin).await.is_err() {
            return Ok(());
        }
        while let Some(frame) = reader.next().await? {
            if items.send(Item::Bytes(frame)).await.is_err() {
                return Ok(());
            }
            if opening.is_empty()
                && reader.left_bytes() <= OPEN_AHEAD_BYTES
                && let Some(part) = layout.next().await?
            {
                opening.spawn(BlockReader::new(&source, part, meter).opened());
            }
        }
        current = opening.join_next().await.transpose().map_err(|_panicked| apart::ended_early())?;
    }
    // Refused only if the writing has ended, and it says why.
    drop(items.send(Item::End).await);
    Ok(())
}

/// The block being written.
struct Open {
    index: u64,
    sum: Option<(Sha256Hasher, Sha256)>,
}

impl Open {
    /// Checks the block's sum, once all of it was seen.
    fn close(self, blob_id: BlobId) -> Result<(), Error> {
        let verified = self.sum.is_none_or(|(hasher, expected)| hasher.finish() == expected);
        if verified { Ok(()) } else { Err(wrong_sum(blob_id, self.index)) }
    }
}

/// Writes what it is told to. An inbox that closes before [`Item::End`] means that reading failed.
fn write(mut inbox: mpsc::Receiver<Item>, output: Output, blob_id: BlobId) -> Result<(), Error> {
    let (mut writer, name) = output.open()?;
    let local = |source| Error::Local { action: "write", path: name.clone(), source };
    let mut open: Option<Open> = None;
    while let Some(item) = inbox.blocking_recv() {
        match item {
            Item::Block { index, expected } => {
                let sum = expected.map(|expected| (Sha256Hasher::default(), expected));
                open.replace(Open { index, sum }).map_or(Ok(()), |done| done.close(blob_id))?;
            }
            Item::Bytes(bytes) => {
                if let Some((hasher, _expected)) = open.as_mut().and_then(|block| block.sum.as_mut()) {
                    hasher.update(&bytes);
                }
                writer.write_all(&bytes).map_err(local)?;
            }
            Item::End => {
                open.take().map_or(Ok(()), |done| done.close(blob_id))?;
                writer.flush().map_err(local)?;
            }
        }
    }
    Ok(())
}

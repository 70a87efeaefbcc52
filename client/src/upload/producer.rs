//! Reading: one pass over the input, in order, that cuts frames and folds each byte into the blob's SHA-256 and its
//! frame's CRC-32C.
//!
//! Runs where blocking is allowed, and is held back in two ways: a block is begun only when one of the [`Slots`] is free,
//! and a frame is passed on only when the block's channel has room. So what is in memory depends on neither the size of
//! the blob nor the speed of the other side.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use proto::checksum::{Sha256, Sha256Hasher, crc32c};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::input::{Input, local};
use crate::error::Error;

/// Frames of a block that are read ahead of what was sent.
const FRAMES_AHEAD: usize = 8;

/// How the service wants a blob to be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cut {
    /// Bytes of every block but the last.
    pub(super) block_bytes: u64,
    /// Bytes of every frame of a block but the last.
    pub(super) frame_bytes: u64,
}

impl Cut {
    /// How many bytes the frame has that begins `in_block` bytes into a block, if there are enough.
    fn frame_at(&self, in_block: u64) -> u64 {
        self.frame_bytes.min(self.block_bytes - in_block)
    }
}

/// The payload of one stream message.
#[derive(Debug, Clone)]
pub(super) struct Frame {
    pub(super) content: Bytes,
    pub(super) crc32c: u32,
}

/// What a block consists of, in order.
#[derive(Debug)]
pub(super) enum Piece {
    Frame(Frame),
    /// The block is complete; with its SHA-256 if it is the whole blob, so that the node can compare.
    End {
        sha256: Option<Sha256>,
    },
}

/// A block that the input has reached.
#[derive(Debug)]
pub(super) struct OpenBlock {
    pub(super) index: u64,
    /// Its pieces. A channel that closes before [`Piece::End`] means that reading failed.
    pub(super) pieces: mpsc::Receiver<Piece>,
    /// Free again when the block is durable.
    pub(super) slot: OwnedSemaphorePermit,
}

/// Bounds the blocks in flight.
pub(super) type Slots = Arc<Semaphore>;

/// What all the input was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Whole {
    pub(super) size_bytes: u64,
    pub(super) sha256: Sha256,
}

/// Nobody takes the blocks any more: the upload has failed elsewhere.
struct Unwanted;

/// Reads an input to its end.
pub(super) struct Producer {
    cut: Cut,
    /// How many bytes the input must have.
    expected: Option<u64>,
    slots: Slots,
    blocks: mpsc::Sender<OpenBlock>,
    runtime: Handle,
    hasher: Sha256Hasher,
    read_bytes: u64,
    current: Option<Current>,
    next_index: u64,
}

struct Current {
    pieces: mpsc::Sender<Piece>,
    index: u64,
    bytes: u64,
}

impl Producer {
    pub(super) fn new(cut: Cut, expected: Option<u64>, slots: Slots, blocks: mpsc::Sender<OpenBlock>) -> Self {
        Self {
            cut,
            expected,
            slots,
            blocks,
            runtime: Handle::current(),
            hasher: Sha256Hasher::default(),
            read_bytes: 0,
            current: None,
            next_index: 0,
        }
    }

    /// Reads everything. `None` when nobody wants it any more.
    ///
    /// # Errors
    /// [`Error::Local`], or [`Error::SourceChanged`] when a file has another size than it had.
    pub(super) fn run(mut self, input: Input) -> Result<Option<Whole>, Error> {
        let (mut reader, name) = input.into_reader()?;
        while let Some(content) = self.read_frame(reader.as_mut(), &name)? {
            if let Err(Unwanted) = self.pass_on(content) {
                return Ok(None);
            }
        }
        if self.expected.is_some() {
            expect_end(reader.as_mut(), &name)?;
        }
        if let Err(Unwanted) = self.end_block() {
            return Ok(None);
        }
        Ok(Some(Whole { size_bytes: self.read_bytes, sha256: self.hasher.finish() }))
    }

    fn read_frame(&self, reader: &mut dyn Read, name: &Path) -> Result<Option<Bytes>, Error> {
        let in_block = self.current.as_ref().map_or(0, |block| block.bytes);
        let left = self.expected.map_or(u64::MAX, |expected| expected - self.read_bytes);
        let wanted = usize::try_from(self.cut.frame_at(in_block).min(left)).unwrap_or(usize::MAX);
        let content = read_full(reader, wanted).map_err(|source| local("read", name, source))?;
        if self.expected.is_some() && content.len() < wanted {
            let problem = "it became shorter".to_owned();
            return Err(Error::SourceChanged { path: name.to_path_buf(), problem });
        }
        Ok(Some(Bytes::from(content)).filter(|content| !content.is_empty()))
    }

    fn pass_on(&mut self, content: Bytes) -> Result<(), Unwanted> {
        let bytes = content.len() as u64;
        self.hasher.update(&content);
        self.read_bytes += bytes;
        let crc32c = crc32c(&content);
        let mut block = match self.current.take() {
            Some(block) => block,
            None => self.begin_block()?,
        };
        block.pieces.blocking_send(Piece::Frame(Frame { content, crc32c })).map_err(|_closed| Unwanted)?;
        block.bytes += bytes;
        let full = block.bytes == self.cut.block_bytes;
        self.current = Some(block);
        if full { self.end_block() } else { Ok(()) }
    }

    fn begin_block(&mut self) -> Result<Current, Unwanted> {
        let slot = self.runtime.block_on(Arc::clone(&self.slots).acquire_owned()).map_err(|_closed| Unwanted)?;
        let (pieces, receiver) = mpsc::channel(FRAMES_AHEAD);
        let index = self.next_index;
        self.next_index += 1;
        self.blocks.blocking_send(OpenBlock { index, pieces: receiver, slot }).map_err(|_closed| Unwanted)?;
        Ok(Current { pieces, index, bytes: 0 })
    }

    /// Ends the block that is open, if one is.
    fn end_block(&mut self) -> Result<(), Unwanted> {
        let Some(block) = self.current.take() else { return Ok(()) };
        let only_block = block.index == 0
            && (block.bytes < self.cut.block_bytes || self.expected.is_some_and(|expected| expected == block.bytes));
        let sha256 = only_block.then(|| self.hasher.clone().finish());
        block.pieces.blocking_send(Piece::End { sha256 }).map_err(|_closed| Unwanted)
    }
}

/// Reads so many bytes, or all up to the end.
fn read_full(reader: &mut dyn Read, wanted: usize) -> io::Result<Vec<u8>> {
    let mut content = vec![0; wanted];
    let mut filled = 0;
    while let Some(room) = content.get_mut(filled..).filter(|room| !room.is_empty()) {
        match reader.read(room) {
            Ok(0) => break,
            Ok(bytes) => filled += bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    content.truncate(filled);
    Ok(content)
}

fn expect_end(reader: &mut dyn Read, name: &Path) -> Result<(), Error> {
    let more = read_full(reader, 1).map_err(|source| local("read", name, source))?;
    if more.is_empty() {
        return Ok(());
    }
    Err(Error::SourceChanged { path: PathBuf::from(name), problem: "it became longer".to_owned() })
}

#[cfg(test)]
mod tests;

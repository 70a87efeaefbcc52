//! What was read of a block, so that it can be sent again: the frames themselves, or, for a file, only their CRC-32Cs.

use bytes::Bytes;
use proto::checksum::crc32c;

use super::input::InputFile;
use super::producer::Frame;
use crate::apart::{self, Place};
use crate::error::Error;

/// The frames of one block so far. All but the last are equally long.
#[derive(Debug)]
pub(super) struct Replay {
    frame_bytes: u64,
    bytes: u64,
    frames: Frames,
}

#[derive(Debug)]
enum Frames {
    /// The input cannot be read again.
    Kept(Vec<Frame>),
    /// The file, where in it the block begins, and each frame's CRC-32C as it went into the blob's SHA-256.
    InFile { file: InputFile, block_offset: u64, crcs: Vec<u32> },
}

impl Replay {
    pub(super) fn new(frame_bytes: u64, block_offset: u64, file: Option<InputFile>) -> Self {
        let frames = match file {
            Some(file) => Frames::InFile { file, block_offset, crcs: Vec::new() },
            None => Frames::Kept(Vec::new()),
        };
        Self { frame_bytes, bytes: 0, frames }
    }

    /// Bytes so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn push(&mut self, frame: &Frame) {
        self.bytes += frame.content.len() as u64;
        match &mut self.frames {
            Frames::Kept(frames) => frames.push(frame.clone()),
            Frames::InFile { crcs, .. } => crcs.push(frame.crc32c),
        }
    }

    /// Where a stream can go on, given what the node has: there, if a frame begins there, else at the start.
    pub(super) fn resume_at(&self, persisted_bytes: u64) -> u64 {
        let known = persisted_bytes <= self.bytes;
        let begins = persisted_bytes.is_multiple_of(self.frame_bytes) || persisted_bytes == self.bytes;
        if known && begins { persisted_bytes } else { 0 }
    }

    /// The frame that begins at this offset; `None` at the end.
    ///
    /// # Errors
    /// [`Error::SourceChanged`] when a file does not hold the same bytes any more, else [`Error::Local`].
    pub(super) async fn frame_at(&self, offset: u64) -> Result<Option<Frame>, Error> {
        if offset >= self.bytes {
            return Ok(None);
        }
        let number = usize::try_from(offset / self.frame_bytes).unwrap_or(usize::MAX);
        match &self.frames {
            Frames::Kept(frames) => Ok(frames.get(number).cloned()),
            Frames::InFile { file, block_offset, crcs } => {
                let Some(&expected) = crcs.get(number) else { return Ok(None) };
                let bytes = usize::try_from(self.frame_bytes.min(self.bytes - offset)).unwrap_or(usize::MAX);
                let (file, at) = (file.clone(), block_offset + offset);
                apart::run(Place::Pool, move || reread(&file, at, bytes, expected)).await.map(Some)
            }
        }
    }
}

/// Reads a frame once more. Its bytes must be those that the blob's SHA-256 was made of.
fn reread(file: &InputFile, offset: u64, bytes: usize, expected: u32) -> Result<Frame, Error> {
    let content = file.read_again(offset, bytes)?;
    if crc32c(&content) != expected {
        return Err(file.changed("bytes that had to be sent again are different now"));
    }
    Ok(Frame { content: Bytes::from(content), crc32c: expected })
}

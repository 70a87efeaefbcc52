//! What was read of a block, so that it can be sent again: the frames themselves, or, for a file, only their CRC-32Cs.

use bytes::Bytes;
use proto::checksum::crc32c;

use super::input::Kept;
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
    InFile { file: Kept, block_offset: u64, crcs: Vec<u32> },
}

impl Replay {
    pub(super) fn new(frame_bytes: u64, block_offset: u64, file: Option<Kept>) -> Self {
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
fn reread(file: &Kept, offset: u64, bytes: usize, expected: u32) -> Result<Frame, Error> {
    let content = file.read_again(offset, bytes)?;
    if crc32c(&content) != expected {
        return Err(file.changed("bytes that had to be sent again are different now"));
    }
    Ok(Frame { content: Bytes::from(content), crc32c: expected })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::upload::Source;
    use crate::upload::input::Input;

    fn frame(content: &'static [u8]) -> Frame {
        Frame { content: Bytes::from_static(content), crc32c: crc32c(content) }
    }

    async fn all(replay: &Replay) -> Result<Vec<Bytes>, Error> {
        let (mut offset, mut contents) = (0, Vec::new());
        while let Some(frame) = replay.frame_at(offset).await? {
            offset += frame.content.len() as u64;
            contents.push(frame.content);
        }
        Ok(contents)
    }

    #[tokio::test]
    async fn frames_come_again_from_memory_or_from_the_file() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"the block before|abcdefghij").unwrap();
        let input = Input::open(Source::File(file.path().to_path_buf())).unwrap().kept();
        for source in [None, input] {
            let mut replay = Replay::new(4, 17, source);
            for content in [b"abcd".as_slice(), b"efgh", b"ij"] {
                replay.push(&frame(content));
            }
            assert_eq!(all(&replay).await.unwrap(), ["abcd", "efgh", "ij"]);
        }
    }

    #[tokio::test]
    async fn a_file_with_other_bytes_than_were_summed_is_refused() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"abcdefgh").unwrap();
        let input = Input::open(Source::File(file.path().to_path_buf())).unwrap().kept();
        let mut replay = Replay::new(4, 0, input);
        replay.push(&frame(b"abcd"));
        replay.push(&frame(b"efgX"));
        assert!(replay.frame_at(0).await.is_ok());
        assert!(matches!(replay.frame_at(4).await, Err(Error::SourceChanged { .. })));
        file.as_file().set_len(6).unwrap();
        assert!(matches!(replay.frame_at(4).await, Err(Error::SourceChanged { .. })));
    }

    #[test]
    fn a_stream_goes_on_only_where_a_frame_begins() {
        let mut replay = Replay::new(4, 0, None);
        replay.push(&frame(b"abcd"));
        replay.push(&frame(b"ef"));
        let resumed: Vec<u64> = [0, 3, 4, 5, 6, 8].map(|persisted| replay.resume_at(persisted)).into();
        assert_eq!(resumed, [0, 0, 4, 0, 6, 0]);
    }
}

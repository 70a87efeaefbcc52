//! What comes of a block's input: each piece is read once, and noted so that it can be sent again.

use proto::checksum::Sha256;
use tokio::sync::mpsc;

use super::producer::{Frame, Piece};
use super::replay::Replay;
use crate::error::Error;

/// The input of one block.
#[derive(Debug)]
pub(super) struct Intake {
    /// Where in the blob the block begins.
    offset: u64,
    /// Most bytes that the plan allows.
    max_bytes: u64,
    pieces: mpsc::Receiver<Piece>,
    replay: Replay,
    /// The block's end, once it was reached.
    end: Option<End>,
    /// Somebody was waiting for input when they were last stopped.
    starved: bool,
}

#[derive(Debug, Clone, Copy)]
struct End {
    sha256: Option<Sha256>,
}

impl Intake {
    pub(super) fn new(offset: u64, max_bytes: u64, pieces: mpsc::Receiver<Piece>, replay: Replay) -> Self {
        Self { offset, max_bytes, pieces, replay, end: None, starved: false }
    }

    /// Bytes of it so far.
    pub(super) fn bytes(&self) -> u64 {
        self.replay.bytes()
    }

    /// Whether whoever asked for a frame was stopped while there was none.
    pub(super) fn is_starved(&self) -> bool {
        self.starved
    }

    /// Where a stream can go on, given what the node has.
    pub(super) fn resume_at(&self, persisted_bytes: u64) -> u64 {
        self.replay.resume_at(persisted_bytes)
    }

    /// The block's SHA-256, when its end was reached and it is the whole blob.
    pub(super) fn sha256(&self) -> Option<Sha256> {
        self.end.and_then(|end| end.sha256)
    }

    /// The frame that begins at this offset: one noted before, or the next of the input. `None` at the block's end.
    ///
    /// # Errors
    /// [`Error::QuotaReached`] when the input goes on behind the plan; as [`Replay::frame_at`].
    pub(super) async fn frame_at(&mut self, offset: u64) -> Result<Option<Frame>, Error> {
        if offset < self.replay.bytes() {
            return self.replay.frame_at(offset).await;
        }
        if self.end.is_some() {
            return Ok(None);
        }
        self.starved = true;
        let piece = self.pieces.recv().await;
        self.starved = false;
        match piece {
            Some(Piece::Frame(frame)) if offset + frame.content.len() as u64 > self.max_bytes => {
                Err(Error::QuotaReached { available_bytes: self.offset + self.max_bytes })
            }
            Some(Piece::Frame(frame)) => {
                self.replay.push(&frame);
                Ok(Some(frame))
            }
            Some(Piece::End { sha256 }) => {
                self.end = Some(End { sha256 });
                Ok(None)
            }
            // Reading failed, and whoever reads says how; this block has nothing to add.
            None => std::future::pending().await,
        }
    }

    /// Reads what has not been read yet, up to the block's end.
    ///
    /// # Errors
    /// As [`Self::frame_at`].
    pub(super) async fn read_to_end(&mut self) -> Result<(), Error> {
        while self.frame_at(self.replay.bytes()).await?.is_some() {}
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proto::checksum::crc32c;

    use super::*;

    /// The node had written a small blob in a call whose answer was lost, and gave its receipt to the stream that went on
    /// before that had read any input. The upload failed over a receipt that came too early, though nothing was wrong.
    #[tokio::test]
    async fn size_and_sum_of_a_block_are_known_also_when_its_receipt_came_before_its_input() {
        let content = Bytes::from_static(b"abcd");
        let sha256 = Some(Sha256::of(&content));
        let (input, pieces) = mpsc::channel(2);
        let mut intake = Intake::new(0, 4, pieces, Replay::new(4, 0, None));
        assert_eq!((intake.bytes(), intake.sha256()), (0, None));
        input.send(Piece::Frame(Frame { crc32c: crc32c(&content), content })).await.unwrap();
        input.send(Piece::End { sha256 }).await.unwrap();
        for _ in 0..2 {
            intake.read_to_end().await.unwrap();
            assert_eq!((intake.bytes(), intake.sha256(), intake.is_starved()), (4, sha256, false));
        }
    }

    #[tokio::test]
    async fn input_behind_the_plan_is_refused_however_it_is_read() {
        let (input, pieces) = mpsc::channel(1);
        let mut intake = Intake::new(100, 3, pieces, Replay::new(4, 100, None));
        let content = Bytes::from_static(b"abcd");
        input.send(Piece::Frame(Frame { crc32c: crc32c(&content), content })).await.unwrap();
        assert!(matches!(intake.read_to_end().await, Err(Error::QuotaReached { available_bytes: 103 })));
    }
}

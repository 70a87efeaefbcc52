//! What happens to one chunk, read from an input: streams with any frames, and what else ends a write.
//!
//! Offsets, sizes and sums are right unless the input says otherwise: they are read relative to what the model holds, so
//! that few inputs end at the first check.

use std::sync::LazyLock;

use bytes::Bytes;
use proto::checksum::{Sha256, crc32c};
use proto::entropy::{Entropy as _, SeededEntropy};
use proto::fuzzing::Choices;

use crate::write::{Finish, Frame};

/// Bytes that all streams of one input send in all, at most.
const BYTES_MAX: usize = 4 << 20;
const FRAMES_MAX: usize = 24;

static PATTERN: LazyLock<Bytes> = LazyLock::new(|| {
    let mut bytes = vec![0; BYTES_MAX];
    SeededEntropy::new(1).fill(&mut bytes);
    Bytes::from(bytes)
});

/// How a stream goes on when its frames are over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// It ends.
    End,
    /// It breaks.
    Broken,
    /// What comes is not a frame.
    Invalid,
    /// Nothing comes.
    Silent,
}

/// One stream.
#[derive(Debug)]
pub(super) struct Script {
    /// It is about another chunk than its capability.
    pub(super) foreign: bool,
    /// The size it states.
    pub(super) announced: Option<u64>,
    /// Its messages, the opening's first; none when not even that comes.
    pub(super) frames: Vec<Frame>,
    /// What comes behind them.
    pub(super) ending: Ending,
}

/// Something that happens.
#[derive(Debug)]
pub(super) enum Event {
    /// A stream comes.
    Stream(Script),
    /// The client of a silent stream goes away.
    Gone,
    /// Time goes by until a silent stream is cut.
    Wait,
    /// The chunk is deleted.
    Delete,
    /// Writes that wait for their writers are ended.
    Reap,
}

/// Reads events.
#[derive(Debug)]
pub(super) struct Scripts<'a> {
    choices: Choices<'a>,
    bytes_left: usize,
}

impl<'a> Scripts<'a> {
    pub(super) fn new(choices: Choices<'a>) -> Self {
        Self { choices, bytes_left: BYTES_MAX }
    }

    /// The next event; `held` is what an open write has received.
    pub(super) fn next(&mut self, held: &[u8]) -> Option<Event> {
        if self.choices.is_over() {
            return None;
        }
        Some(match self.choices.byte() {
            0 => Event::Gone,
            1 => Event::Wait,
            2 => Event::Delete,
            3 => Event::Reap,
            flags => Event::Stream(self.script(flags, held)),
        })
    }

    /// Bits of `flags`: goes on where the write is, size stated, size odd, frames come, foreign chunk, no message at
    /// all, and two for the ending.
    fn script(&mut self, flags: u8, held: &[u8]) -> Script {
        let is_set = |bit: u8| flags >> bit & 1 == 1;
        let mut content = if is_set(0) { held.to_vec() } else { Vec::new() };
        let mut frames = Vec::new();
        let mut more = !is_set(5);
        while more && frames.len() < FRAMES_MAX {
            let frame_flags = self.choices.byte();
            more = frame_flags & 1 == 1;
            frames.push(self.frame(frame_flags, &mut content));
        }
        let announced = match (is_set(1), is_set(2)) {
            (false, _) => None,
            (true, false) => Some(content.len() as u64),
            (true, true) => Some((content.len() as u64).wrapping_add_signed(self.signed())),
        };
        let ending = match flags >> 6 {
            0 => Ending::End,
            1 => Ending::Broken,
            2 => Ending::Invalid,
            _ => Ending::Silent,
        };
        Script { foreign: is_set(4) && is_set(3), announced, frames, ending }
    }

    /// Bits of `flags`: more follow (read by the caller), last message, CRC stated, CRC wrong, offset wrong, large,
    /// other bytes than most frames have there, digest stated.
    fn frame(&mut self, flags: u8, content: &mut Vec<u8>) -> Frame {
        let is_set = |bit: u8| flags >> bit & 1 == 1;
        let offset = content.len() as u64;
        let stated = if is_set(4) { offset.wrapping_add_signed(self.signed()) } else { offset };
        let bytes = self.bytes(content.len() + usize::from(is_set(6)), if is_set(5) { 17 } else { 1 });
        content.extend_from_slice(&bytes);
        let wrong = u32::from(is_set(3));
        Frame {
            offset: stated,
            crc32c: is_set(2).then(|| crc32c(&bytes) ^ wrong),
            bytes,
            finish: is_set(1).then(|| Finish { sha256: is_set(7).then(|| self.digest(content)) }),
        }
    }

    fn bytes(&mut self, at: usize, factor: usize) -> Bytes {
        let length = usize::from(u16::from_be_bytes(self.choices.bytes())).saturating_mul(factor);
        let at = at.min(PATTERN.len());
        let length = length.min(self.bytes_left).min(PATTERN.len() - at);
        self.bytes_left -= length;
        PATTERN.slice(at..at + length)
    }

    fn digest(&mut self, content: &[u8]) -> Sha256 {
        if self.choices.byte() == u8::MAX { Sha256::of(b"something else") } else { Sha256::of(content) }
    }

    /// Small ones more often than large ones.
    fn signed(&mut self) -> i64 {
        match self.choices.byte() {
            0 => i64::from_be_bytes(self.choices.bytes()),
            byte => i64::from(byte.cast_signed()),
        }
    }
}

//! What the streams of one chunk must lead to: the rules of `write.rs` and of the sessions, over plain vectors.

use proto::checksum::{ChunkHasher, ChunkSums, crc32c};
use proto::limits::{CHUNK_BYTES_MAX, FRAME_BYTES_MAX};

use super::script::{Ending, Script};
use crate::error::ChunkError;
use crate::write::{Finish, Frame};

/// What is held of the chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Held {
    /// Nothing.
    Nothing,
    /// An open write that nobody sends to.
    Parked(Vec<u8>),
    /// The chunk.
    Complete(Vec<u8>),
}

/// How a stream must end.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Its chunk is durable.
    Written(ChunkSums),
    /// With an error of this kind.
    Refused(ChunkError),
    /// Not yet: it is silent.
    Open,
}

impl Outcome {
    /// Compares with how it did end.
    pub(super) fn check(&self, ended: &Result<ChunkSums, ChunkError>) {
        match (self, ended) {
            (Self::Written(expected), Ok(sums)) => assert_eq!(expected, sums),
            (
                Self::Refused(ChunkError::WriteOffsetMismatch { persisted: expected }),
                Err(ChunkError::WriteOffsetMismatch { persisted }),
            ) => assert_eq!(expected, persisted, "where to go on"),
            (Self::Refused(expected), Err(error)) => {
                let same = std::mem::discriminant(expected) == std::mem::discriminant(error);
                assert!(same, "{error:?} instead of {expected:?}");
            }
            (Self::Written(_) | Self::Refused(_) | Self::Open, _) => unreachable!("{ended:?} instead of {self:?}"),
        }
    }
}

/// A stream that is silent.
#[derive(Debug)]
struct Silent {
    received: Vec<u8>,
    comparing: bool,
}

/// The chunk.
#[derive(Debug)]
pub(super) struct Model {
    held: Held,
    silent: Option<Silent>,
    permitted: u64,
}

/// A stream while it is played.
struct Stream {
    received: Vec<u8>,
    comparing: bool,
    max_bytes: u64,
}

fn field() -> ChunkError {
    ChunkError::field("", "")
}

pub(super) fn sums_of(bytes: &[u8]) -> ChunkSums {
    let mut hasher = ChunkHasher::default();
    hasher.update(bytes);
    hasher.finish()
}

impl Model {
    pub(super) fn new(permitted: u64) -> Self {
        Self { held: Held::Nothing, silent: None, permitted: permitted.min(CHUNK_BYTES_MAX) }
    }

    /// What an open write has received.
    pub(super) fn received(&self) -> &[u8] {
        match (&self.silent, &self.held) {
            (Some(Silent { received, .. }), _) | (None, Held::Parked(received)) => received,
            (None, Held::Nothing | Held::Complete(_)) => &[],
        }
    }

    /// What is held, unless a stream is on it.
    pub(super) fn held(&self) -> Option<&Held> {
        self.silent.is_none().then_some(&self.held)
    }

    /// Ends a silent stream, whose bytes are kept. Whether there was one.
    pub(super) fn silence_ends(&mut self) -> bool {
        match self.silent.take() {
            Some(Silent { received, comparing: false }) => self.held = Held::Parked(received),
            Some(Silent { comparing: true, .. }) => {}
            None => return false,
        }
        true
    }

    /// Ends a write that nobody sends to.
    pub(super) fn reap(&mut self) -> u64 {
        match (&self.silent, &self.held) {
            (None, Held::Parked(_)) => {
                self.held = Held::Nothing;
                1
            }
            (_, Held::Nothing | Held::Parked(_) | Held::Complete(_)) => 0,
        }
    }

    /// Removes the chunk.
    pub(super) fn delete(&mut self) {
        self.silent = None;
        self.held = Held::Nothing;
    }

    /// Whether this stream, which comes while another one is silent, ends that one.
    pub(super) fn takes_over(&self, script: &Script) -> bool {
        let offset = script.frames.first().map(|frame| frame.offset);
        let goes_on = match (&self.silent, offset) {
            (Some(Silent { received, comparing: false }), Some(offset)) => {
                offset == 0 || offset == received.len() as u64
            }
            (Some(Silent { comparing: true, .. }), Some(_)) => true,
            (None, _) | (_, None) => false,
        };
        goes_on && self.opening(script).is_ok()
    }

    /// Plays a stream.
    pub(super) fn play(&mut self, script: &Script) -> Outcome {
        self.try_play(script).unwrap_or_else(Outcome::Refused)
    }

    fn opening<'s>(&self, script: &'s Script) -> Result<(&'s Frame, u64), ChunkError> {
        let Some(first) = script.frames.first() else {
            return Err(if script.ending == Ending::Invalid { field() } else { ChunkError::Stalled("") });
        };
        if script.foreign {
            return Err(ChunkError::CapabilityInvalid);
        }
        match script.announced {
            Some(size) if size > self.permitted => Err(field()),
            announced => Ok((first, announced.unwrap_or(self.permitted))),
        }
    }

    fn try_play(&mut self, script: &Script) -> Result<Outcome, ChunkError> {
        let (first, max_bytes) = self.opening(script)?;
        if let Some(Silent { received, comparing: false }) = &self.silent
            && !self.takes_over(script)
        {
            return Err(ChunkError::WriteOffsetMismatch { persisted: received.len() as u64 });
        }
        self.silence_ends();
        let mut stream = self.begin(first.offset, max_bytes)?;
        let finish = match stream.receive(&script.frames, script.ending) {
            Ok(Some(finish)) => finish,
            Ok(None) => {
                self.silent = Some(Silent { received: stream.received, comparing: stream.comparing });
                return Ok(Outcome::Open);
            }
            Err(error) => {
                if !stream.comparing {
                    self.held = Held::Parked(stream.received);
                }
                return Err(error);
            }
        };
        self.complete(stream, script.announced, finish).map(Outcome::Written)
    }

    fn begin(&mut self, offset: u64, max_bytes: u64) -> Result<Stream, ChunkError> {
        let (received, comparing) = match (&self.held, offset) {
            (Held::Complete(_), 0) => (Vec::new(), true),
            (Held::Nothing | Held::Parked(_), 0) => (Vec::new(), false),
            (Held::Parked(received), offset) if offset == received.len() as u64 => (received.clone(), false),
            (Held::Parked(bytes) | Held::Complete(bytes), _) => {
                return Err(ChunkError::WriteOffsetMismatch { persisted: bytes.len() as u64 });
            }
            (Held::Nothing, _) => return Err(ChunkError::WriteOffsetMismatch { persisted: 0 }),
        };
        Ok(Stream { received, comparing, max_bytes })
    }

    fn complete(&mut self, stream: Stream, announced: Option<u64>, finish: Finish) -> Result<ChunkSums, ChunkError> {
        let sums = sums_of(&stream.received);
        let failed = if announced.is_some_and(|size| size != sums.size_bytes) {
            Some(field())
        } else if finish.sha256.is_some_and(|sha256| sha256 != sums.sha256) {
            Some(ChunkError::ChecksumMismatch { what: "", sum: "" })
        } else {
            None
        };
        match (failed, &self.held) {
            (Some(error), _) => {
                if !stream.comparing {
                    self.held = Held::Nothing;
                }
                Err(error)
            }
            (None, Held::Complete(there)) if *there != stream.received => {
                Err(ChunkError::AlreadyExists(proto::ids::ChunkId::NIL))
            }
            (None, Held::Complete(_) | Held::Nothing | Held::Parked(_)) => {
                self.held = Held::Complete(stream.received);
                Ok(sums)
            }
        }
    }
}

impl Stream {
    /// `None` when the stream is silent at last.
    fn receive(&mut self, frames: &[Frame], ending: Ending) -> Result<Option<Finish>, ChunkError> {
        let mut finish = None;
        for frame in frames {
            if finish.is_some() {
                return Err(field());
            }
            self.check(frame)?;
            self.received.extend_from_slice(&frame.bytes);
            finish = frame.finish;
        }
        match ending {
            Ending::End if finish.is_some() => Ok(finish),
            Ending::End | Ending::Invalid => Err(field()),
            Ending::Broken => Err(ChunkError::Stalled("")),
            Ending::Silent => Ok(None),
        }
    }

    fn check(&self, frame: &Frame) -> Result<(), ChunkError> {
        let (received, length) = (self.received.len() as u64, frame.bytes.len() as u64);
        if frame.offset != received {
            Err(ChunkError::WriteOffsetMismatch { persisted: received })
        } else if length > FRAME_BYTES_MAX {
            Err(ChunkError::FrameTooLarge { max: 0 })
        } else if received + length > self.max_bytes {
            Err(field())
        } else if frame.crc32c.is_some_and(|stated| stated != crc32c(&frame.bytes)) {
            Err(ChunkError::ChecksumMismatch { what: "", sum: "" })
        } else {
            Ok(())
        }
    }
}

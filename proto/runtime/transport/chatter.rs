//! Frames that demand something and bring nothing: PING, SETTINGS, PRIORITY, GOAWAY, and kinds that nobody knows.
//!
//! HTTP/2's implementation answers or drops them as fast as they come, so a few connections could keep a processor busy
//! with nothing, and everybody else waits. A connection has a number of them to begin with, and so many more each second;
//! honest clients send one in seconds. Who sends more is cut off. Nothing is kept of what passes but the head of a frame.

use std::io;

use tokio::time::Instant;

/// Such frames that a connection may send at once.
const BURST: u32 = 1_000;
/// How many more it may send each second.
const PER_SECOND: u32 = 100;
/// Bytes with which a client begins.
const PREFACE_BYTES: usize = 24;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const PUSH_PROMISE: u8 = 5;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

/// Follows what comes on one connection.
#[derive(Debug)]
pub(super) struct Chatter {
    /// Bytes to come before the next frame.
    skipped: usize,
    head: [u8; 9],
    head_bytes: usize,
    left: u32,
    renewed: Instant,
}

impl Default for Chatter {
    fn default() -> Self {
        Self { skipped: PREFACE_BYTES, head: [0; 9], head_bytes: 0, left: BURST, renewed: Instant::now() }
    }
}

impl Chatter {
    /// Takes note of bytes, which go on where the last ones ended.
    ///
    /// # Errors
    /// When there was too much of what brings nothing.
    pub(super) fn hear(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while let Some((byte, rest)) = bytes.split_first() {
            if self.skipped > 0 {
                let skipped = self.skipped.min(bytes.len());
                self.skipped -= skipped;
                bytes = bytes.get(skipped..).unwrap_or_default();
                continue;
            }
            if let Some(place) = self.head.get_mut(self.head_bytes) {
                *place = *byte;
            }
            self.head_bytes += 1;
            bytes = rest;
            if self.head_bytes == self.head.len() {
                self.head_bytes = 0;
                self.frame()?;
            }
        }
        Ok(())
    }

    /// A frame's head is whole.
    fn frame(&mut self) -> io::Result<()> {
        let [a, b, c, kind, ..] = self.head;
        self.skipped = usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap_or(usize::MAX);
        match kind {
            DATA | HEADERS | RST_STREAM | PUSH_PROMISE | WINDOW_UPDATE | CONTINUATION => Ok(()),
            _what_brings_nothing => self.spend(),
        }
    }

    fn spend(&mut self) -> io::Result<()> {
        if self.left == 0 {
            self.renew();
        }
        let too_many = || io::Error::new(io::ErrorKind::ConnectionAborted, "too many frames that bring nothing");
        self.left = self.left.checked_sub(1).ok_or_else(too_many)?;
        Ok(())
    }

    /// Only when nothing is left, so that whole seconds do for a measure.
    fn renew(&mut self) {
        let seconds = self.renewed.elapsed().as_secs();
        if seconds > 0 {
            let earned = u32::try_from(seconds).unwrap_or(u32::MAX).saturating_mul(PER_SECOND);
            self.left = earned.min(BURST);
            self.renewed = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::raw::{DATA, Frame, HEADERS, PING, PREFACE, SETTINGS, WINDOW_UPDATE};
    use super::*;

    fn ping() -> Vec<u8> {
        Frame::new(PING, 0, 0, [6; 8]).bytes()
    }

    /// How many pings are heard before it is too much.
    fn heard(chatter: &mut Chatter) -> u32 {
        let count = (0..).find(|_| chatter.hear(&ping()).is_err()).unwrap();
        // The payload of the last one was dropped with the connection.
        chatter.skipped = 0;
        count
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_at_once_and_so_many_each_second_are_heard() {
        let mut chatter = Chatter::default();
        chatter.hear(PREFACE).unwrap();
        assert_eq!(heard(&mut chatter), BURST);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(heard(&mut chatter), 2 * PER_SECOND);
        tokio::time::advance(Duration::from_secs(60 * 60)).await;
        assert_eq!(heard(&mut chatter), BURST);
    }

    #[tokio::test(start_paused = true)]
    async fn what_brings_something_is_not_counted_however_it_is_cut() {
        let frames = [
            Frame::new(HEADERS, 4, 1, vec![PING; 1_000]),
            Frame::new(DATA, 0, 1, vec![SETTINGS; 100_000]),
            Frame::new(DATA, 0, 1, []),
            Frame::new(WINDOW_UPDATE, 0, 0, [0, 0, 0, 1]),
        ];
        let bytes: Vec<u8> = frames.iter().flat_map(Frame::bytes).collect();
        for size in [1, 7, 9, 10, 4_096, bytes.len()] {
            let mut chatter = Chatter::default();
            for part in PREFACE.chunks(size).chain(bytes.chunks(size)).chain(bytes.chunks(size)) {
                chatter.hear(part).unwrap();
            }
            assert_eq!((chatter.left, chatter.skipped, chatter.head_bytes), (BURST, 0, 0), "{size}");
            assert_eq!(heard(&mut chatter), BURST, "{size}");
        }
    }
}

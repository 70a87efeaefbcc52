//! What a blob holds, told by its name: a size and a seed, so that nothing has to be kept to compare it with.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The bytes of one blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Content {
    /// How many.
    pub(crate) size: u64,
    /// Which.
    pub(crate) seed: u64,
}

impl Content {
    /// Reads them.
    pub(crate) fn reader(self) -> ContentReader {
        ContentReader { left: self.size, state: self.seed | 1, word: [0; 8], used: 8 }
    }

    /// Takes bytes and compares them.
    pub(crate) fn comparison(self) -> (Comparison, Compared) {
        let compared = Compared { size: self.size, equal: Arc::default(), differs: Arc::default() };
        (Comparison { expected: self.reader(), compared: compared.clone() }, compared)
    }
}

/// xorshift64*, eight bytes at a time.
#[derive(Debug)]
pub(crate) struct ContentReader {
    left: u64,
    state: u64,
    word: [u8; 8],
    used: usize,
}

impl ContentReader {
    fn next_byte(&mut self) -> u8 {
        if self.used == self.word.len() {
            self.state ^= self.state >> 12;
            self.state ^= self.state << 25;
            self.state ^= self.state >> 27;
            self.word = self.state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes();
            self.used = 0;
        }
        let byte = self.word.get(self.used).copied().unwrap_or_default();
        self.used += 1;
        byte
    }
}

impl Read for ContentReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        buffer.iter_mut().take(length).for_each(|byte| *byte = self.next_byte());
        self.left -= length as u64;
        Ok(length)
    }
}

/// Where a download goes.
#[derive(Debug)]
pub(crate) struct Comparison {
    expected: ContentReader,
    compared: Compared,
}

/// What came of it.
#[derive(Debug, Clone)]
pub(crate) struct Compared {
    size: u64,
    equal: Arc<AtomicU64>,
    differs: Arc<AtomicBool>,
}

impl Compared {
    /// Whether all bytes came, and no other ones.
    pub(crate) fn is_whole(&self) -> bool {
        !self.is_wrong() && self.equal.load(Ordering::SeqCst) == self.size
    }

    /// Whether a byte came that is not the blob's.
    pub(crate) fn is_wrong(&self) -> bool {
        self.differs.load(Ordering::SeqCst)
    }
}

impl Write for Comparison {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut expected = vec![0; bytes.len()];
        let length = self.expected.read(&mut expected)?;
        if expected.get(..length) == Some(bytes) {
            self.compared.equal.fetch_add(length as u64, Ordering::SeqCst);
        } else {
            self.compared.differs.store(true, Ordering::SeqCst);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compare(content: Content, pieces: &[&[u8]]) -> Compared {
        let (mut comparison, compared) = content.comparison();
        pieces.iter().for_each(|piece| comparison.write_all(piece).unwrap());
        compared
    }

    #[test]
    fn only_the_same_bytes_and_all_of_them_are_the_content() {
        let content = Content { size: 1000, seed: 7 };
        let mut bytes = Vec::new();
        content.reader().read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len(), 1000);
        assert!(compare(content, &[&bytes[..3], &bytes[3..]]).is_whole());
        assert!(!compare(content, &[&bytes[..999]]).is_whole());
        assert!(compare(content, &[&bytes, b"x"]).is_wrong());
        assert!(compare(Content { seed: 8, ..content }, &[&bytes]).is_wrong());
        let mut damaged = bytes.clone();
        damaged[500] ^= 1;
        assert!(compare(content, &[&damaged]).is_wrong());
        assert!(compare(Content { size: 0, seed: 1 }, &[]).is_whole());
    }
}

//! Bytes into frames, strictly: every sum, count and order is checked, and [`Decoder::finish`] vouches for the whole.

use std::fmt;

use prost::Message as _;
use proto::checksum::{Sha256, Sha256Hasher, crc32c};
use proto::ids::ClusterId;
use proto::limits::RECORD_BYTES_MAX;
use proto::secret::SecretKey;

use super::{
    BODY_BYTES_MAX, FRAME_HEAD_BYTES, FRAME_SUM_BYTES, Header, KIND_COMMIT, KIND_END, KIND_HEADER, KIND_ROWS, MAGIC,
    MalformedExport, Summary, VERSION, raw,
};

/// Longest first line that is looked for.
const FIRST_LINE_BYTES_MAX: usize = 64;

/// Key and value of a row.
pub type ExportedRow = (Vec<u8>, Vec<u8>);

/// Key of a row, and its new value; `None` removes it.
pub type ExportedWrite = (Vec<u8>, Option<Vec<u8>>);

/// A part of an export. What it says holds only once [`Decoder::finish`] has vouched for the whole.
#[derive(Debug, Clone)]
pub enum Frame {
    /// What it says about itself; always the first.
    Header(Header),
    /// Rows to put.
    Rows(Vec<ExportedRow>),
    /// Writes to apply.
    Commit(Vec<ExportedWrite>),
}

/// Reads an export that comes in pieces of any length.
#[derive(Default)]
pub struct Decoder {
    /// Pushed, and not read yet.
    buffer: Vec<u8>,
    /// How much of the buffer has been read.
    read: usize,
    /// Bytes that were read, and their sum.
    offset: u64,
    hasher: Sha256Hasher,
    version_seen: bool,
    header: Option<Header>,
    last_key: Vec<u8>,
    sequence: u64,
    rows: u64,
    commits: u64,
    ended: bool,
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The buffer may hold the cluster's key.
        f.debug_struct("Decoder").field("offset", &self.offset).field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl Decoder {
    /// Adds the next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..std::mem::take(&mut self.read));
        self.buffer.extend_from_slice(bytes);
    }

    /// The next frame; `None` when it has not been pushed as a whole, or the end was reached.
    ///
    /// # Errors
    /// [`MalformedExport`], at the first byte that cannot be right.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, MalformedExport> {
        if !self.version_seen && !self.first_line()? {
            return Ok(None);
        }
        if self.ended {
            let offset = self.offset;
            return if self.unread().is_empty() { Ok(None) } else { Err(MalformedExport::TrailingBytes { offset }) };
        }
        let Some((kind, body)) = self.whole_frame()? else { return Ok(None) };
        let frame = match kind {
            KIND_END => {
                self.end(&body)?;
                None
            }
            kind => Some(self.frame(kind, &body)?),
        };
        self.advance(FRAME_HEAD_BYTES + body.len() + FRAME_SUM_BYTES);
        if frame.is_none() { self.next_frame() } else { Ok(frame) }
    }

    /// Vouches for the whole, once all of it has been pushed and read.
    ///
    /// # Errors
    /// [`MalformedExport`] when something is missing or something follows.
    pub fn finish(mut self) -> Result<Summary, MalformedExport> {
        let truncated = MalformedExport::Truncated { length: self.offset + self.unread().len() as u64 };
        if self.next_frame()?.is_some() || !self.ended {
            return Err(truncated);
        }
        let Self { header, sequence, rows, commits, offset, .. } = self;
        Ok(Summary { header: header.ok_or(truncated)?, sequence, rows, commits, bytes: offset })
    }

    /// Bytes that are held at the moment.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn held_bytes(&self) -> usize {
        self.buffer.len()
    }

    fn unread(&self) -> &[u8] {
        self.buffer.get(self.read..).unwrap_or_default()
    }

    fn advance(&mut self, length: usize) {
        let bytes = self.buffer.get(self.read..self.read + length).unwrap_or_default();
        self.hasher.update(bytes);
        self.offset += bytes.len() as u64;
        self.read += length;
    }

    fn damaged(&self, problem: &'static str) -> MalformedExport {
        MalformedExport::Damaged { offset: self.offset, problem }
    }

    /// Reads the first line; whether it was there as a whole.
    fn first_line(&mut self) -> Result<bool, MalformedExport> {
        let unread = self.unread();
        let known = unread.len().min(MAGIC.len());
        if unread.get(..known) != MAGIC.as_bytes().get(..known) {
            return Err(MalformedExport::NotAnExport);
        }
        let Some(end) = unread.iter().take(FIRST_LINE_BYTES_MAX).position(|byte| *byte == b'\n') else {
            return if unread.len() < FIRST_LINE_BYTES_MAX { Ok(false) } else { Err(MalformedExport::NotAnExport) };
        };
        let version = unread.get(MAGIC.len()..end).and_then(|digits| std::str::from_utf8(digits).ok());
        let found = version.and_then(|digits| digits.parse().ok()).ok_or(MalformedExport::NotAnExport)?;
        if found > VERSION {
            return Err(MalformedExport::TooNew { found, known: VERSION });
        }
        if version != Some(VERSION.to_string().as_str()) {
            return Err(MalformedExport::NotAnExport);
        }
        self.advance(end + 1);
        self.version_seen = true;
        Ok(true)
    }

    /// Kind and body of the frame that comes next, its sum checked.
    fn whole_frame(&self) -> Result<Option<(u8, Vec<u8>)>, MalformedExport> {
        let unread = self.unread();
        let Some((&[kind, a, b, c, d], _)) = unread.split_first_chunk::<FRAME_HEAD_BYTES>() else { return Ok(None) };
        let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        if length > BODY_BYTES_MAX {
            return Err(self.damaged("a part is too long"));
        }
        let Some(frame) = unread.get(..FRAME_HEAD_BYTES + length + FRAME_SUM_BYTES) else { return Ok(None) };
        let (covered, sum) = frame.split_last_chunk::<FRAME_SUM_BYTES>().ok_or_else(|| self.damaged("it is short"))?;
        if crc32c(covered) != u32::from_be_bytes(*sum) {
            return Err(self.damaged("a checksum does not match"));
        }
        Ok(Some((kind, covered.get(FRAME_HEAD_BYTES..).unwrap_or_default().to_vec())))
    }

    fn frame(&mut self, kind: u8, body: &[u8]) -> Result<Frame, MalformedExport> {
        match (kind, self.header.is_some()) {
            (KIND_HEADER, false) => self.header(body).map(Frame::Header),
            (KIND_ROWS, true) => self.rows(body).map(Frame::Rows),
            (KIND_COMMIT, true) => self.commit(body).map(Frame::Commit),
            _ => Err(self.damaged("its parts are not in order")),
        }
    }

    fn header(&mut self, body: &[u8]) -> Result<Header, MalformedExport> {
        let raw = raw::Header::decode(body).map_err(|_malformed| self.damaged("its header cannot be read"))?;
        let cluster = ClusterId::try_from(raw.cluster.as_slice());
        let cluster = cluster.map_err(|_malformed| self.damaged("its header names no cluster"))?;
        let cluster_key = match raw.cluster_key {
            Some(key) => Some(SecretKey::from_slice(&key).ok_or_else(|| self.damaged("its key has another length"))?),
            None => None,
        };
        let raw::Header { epoch, begins_behind, export_ms, .. } = raw;
        let header = Header { cluster, epoch, begins_behind, export_ms, cluster_key };
        self.sequence = begins_behind;
        self.header = Some(header.clone());
        Ok(header)
    }

    fn rows(&mut self, body: &[u8]) -> Result<Vec<ExportedRow>, MalformedExport> {
        let raw = raw::Rows::decode(body).map_err(|_malformed| self.damaged("rows cannot be read"))?;
        let mut rows = Vec::with_capacity(raw.rows.len());
        for row in raw.rows {
            let value = row.value.ok_or_else(|| self.damaged("a row has no value"))?;
            // Also: the empty key is nobody's.
            if row.key <= self.last_key {
                return Err(self.damaged("its rows are not in order"));
            }
            if value.len() > RECORD_BYTES_MAX {
                return Err(self.damaged("a row is too long"));
            }
            self.last_key.clone_from(&row.key);
            rows.push((row.key, value));
        }
        self.rows += rows.len() as u64;
        Ok(rows)
    }

    fn commit(&mut self, body: &[u8]) -> Result<Vec<ExportedWrite>, MalformedExport> {
        let raw = raw::Commit::decode(body).map_err(|_malformed| self.damaged("a commit cannot be read"))?;
        if raw.sequence < self.sequence {
            return Err(self.damaged("its commits are not in order"));
        }
        if raw.writes.iter().any(|write| write.key.is_empty()) {
            return Err(self.damaged("a commit writes nowhere"));
        }
        let too_long = |write: &raw::Write| write.value.as_ref().is_some_and(|value| value.len() > RECORD_BYTES_MAX);
        if raw.writes.iter().any(too_long) {
            return Err(self.damaged("a row is too long"));
        }
        self.sequence = raw.sequence;
        self.commits += 1;
        Ok(raw.writes.into_iter().map(|write| (write.key, write.value)).collect())
    }

    fn end(&mut self, body: &[u8]) -> Result<(), MalformedExport> {
        let raw = raw::End::decode(body).map_err(|_malformed| self.damaged("its end cannot be read"))?;
        let counted = (self.sequence, self.rows, self.commits, self.offset);
        if self.header.is_none() || (raw.sequence, raw.rows, raw.commits, raw.bytes) != counted {
            return Err(self.damaged("something before its end is missing"));
        }
        let sum: Sha256 = self.hasher.clone().finish();
        if raw.sha256 != sum.as_bytes() {
            return Err(self.damaged("the checksum of the whole does not match"));
        }
        self.ended = true;
        Ok(())
    }
}

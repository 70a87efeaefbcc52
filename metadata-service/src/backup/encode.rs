//! Frames into bytes.

use bytes::Bytes;
use prost::Message as _;
use proto::checksum::{Sha256Hasher, crc32c};

use super::{
    FRAME_HEAD_BYTES, FRAME_SUM_BYTES, Header, KIND_COMMIT, KIND_END, KIND_HEADER, KIND_ROWS, MAGIC, VERSION, raw,
};
use crate::store::engine::Row;

/// Bytes of keys and values at which a frame of a commit ends and the next one begins.
const BODY_BYTES: usize = 128 * 1024;

/// Writes an export.
#[derive(Debug)]
pub(super) struct Encoder {
    /// Written, not yet taken.
    out: Vec<u8>,
    hasher: Sha256Hasher,
    bytes: u64,
    rows: u64,
    commits: u64,
    sequence: u64,
}

impl Encoder {
    /// Begins with the first line and the header.
    pub(super) fn new(header: &Header) -> Self {
        let sequence = header.begins_behind;
        let mut encoder =
            Self { out: Vec::new(), hasher: Sha256Hasher::default(), bytes: 0, rows: 0, commits: 0, sequence };
        encoder.append(format!("{MAGIC}{VERSION}\n").as_bytes());
        let header = raw::Header {
            cluster: header.cluster.as_bytes().to_vec(),
            epoch: header.epoch,
            begins_behind: header.begins_behind,
            export_ms: header.export_ms,
            cluster_key: header.cluster_key.as_ref().map(|key| key.expose().to_vec()),
        };
        encoder.frame(KIND_HEADER, &header.encode_to_vec());
        encoder
    }

    /// The last commit that it holds.
    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Bytes that can be taken.
    pub(super) fn len(&self) -> usize {
        self.out.len()
    }

    /// Takes what has been written.
    pub(super) fn take(&mut self) -> Bytes {
        std::mem::take(&mut self.out).into()
    }

    /// Adds rows of one scan.
    pub(super) fn rows(&mut self, rows: &[Row]) {
        if rows.is_empty() {
            return;
        }
        self.rows += rows.len() as u64;
        let write = |(key, value): &Row| raw::Write { key: key.to_vec(), value: Some(value.to_vec()) };
        let rows = raw::Rows { rows: rows.iter().map(write).collect() };
        self.frame(KIND_ROWS, &rows.encode_to_vec());
    }

    /// Adds what a commit changed, in as many frames as it takes; one without writes moves the sequence on.
    pub(super) fn commit<'a>(&mut self, sequence: u64, writes: impl Iterator<Item = (&'a Vec<u8>, &'a Option<Bytes>)>) {
        self.sequence = sequence;
        let mut body = raw::Commit { sequence, writes: Vec::new() };
        let mut bytes = 0;
        for (key, value) in writes {
            bytes += key.len() + value.as_ref().map_or(0, Bytes::len);
            body.writes.push(raw::Write { key: key.clone(), value: value.as_ref().map(|value| value.to_vec()) });
            if bytes >= BODY_BYTES {
                self.commit_frame(&body);
                (bytes, body.writes) = (0, Vec::new());
            }
        }
        self.commit_frame(&body);
    }

    fn commit_frame(&mut self, body: &raw::Commit) {
        self.commits += 1;
        self.frame(KIND_COMMIT, &body.encode_to_vec());
    }

    /// Adds the end.
    pub(super) fn end(&mut self) {
        let sha256 = self.hasher.clone().finish();
        let (sequence, rows, commits, bytes) = (self.sequence, self.rows, self.commits, self.bytes);
        let end = raw::End { sequence, rows, commits, bytes, sha256: sha256.as_bytes().to_vec() };
        self.frame(KIND_END, &end.encode_to_vec());
    }

    fn frame(&mut self, kind: u8, body: &[u8]) {
        let length = u32::try_from(body.len()).expect("a body is at most a slice or a part of a commit");
        let mut frame = Vec::with_capacity(FRAME_HEAD_BYTES + body.len() + FRAME_SUM_BYTES);
        frame.push(kind);
        frame.extend_from_slice(&length.to_be_bytes());
        frame.extend_from_slice(body);
        frame.extend_from_slice(&crc32c(&frame).to_be_bytes());
        self.append(&frame);
    }

    fn append(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        self.out.extend_from_slice(bytes);
    }
}

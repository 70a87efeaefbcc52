//! Records: what the rows hold, and how that is put into bytes.
//!
//! ```text
//! version (1 byte, 1) | body (protobuf) | CRC-32C of all before it (4 bytes, big-endian)
//! ```
//! A record of an unknown version, a damaged one, and one whose parts make no sense are refused with
//! [`RecordError`], never half-read: reads of it fail, and nothing is decided on it. Every value stays under
//! [`RECORD_BYTES_MAX`](proto::limits::RECORD_BYTES_MAX): texts are bounded before they come here, and lists are rows of
//! their own.
//!
//! A record is a plain struct with typed ids; the protobuf message beside it (`Raw`) only gives it its layout. New
//! fields get new tags; a tag is never used again.

mod blob;
mod block;
mod cluster;
mod damage;
mod garbage;
mod tenant;
mod token;
mod upload;
mod worker;

use prost::Message as _;
use proto::checksum::crc32c;

pub use self::blob::{BlobRecord, DeletedRecord, Description, NameRecord, RetainedRecord};
pub use self::block::{BlockRecord, BlockSums, ChunkRecord, Encoding, ExtentRecord, ReverseRecord};
pub use self::cluster::{ClusterRecord, NodeRecord, RESTORES_MAX, RestoreEnd, RestoreRecord, RetiredKey, SCHEMA};
pub use self::damage::{Damage, DamageRecord};
pub use self::garbage::{GarbageChunkRecord, GarbageRecord};
pub use self::tenant::{MORE_TOKENS_MAX, Quota, RequestRecord, TenantRecord, TrafficClass, UsageRecord};
pub use self::token::{Holder, Scope, Scopes, TokenRecord};
pub use self::upload::{UploadRecord, UploadState};
pub use self::worker::WorkerRecord;

const VERSION: u8 = 1;
const CRC_BYTES: usize = 4;

/// A record that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a {record} record {problem}")]
pub struct RecordError {
    /// Which kind.
    pub record: &'static str,
    /// What is wrong with it.
    pub problem: RecordProblem,
}

/// What is wrong with a record, as the rest of a sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordProblem {
    /// It is not there although others refer to it.
    #[error("is missing")]
    Missing,
    /// It has fewer bytes than any record.
    #[error("is too short")]
    TooShort,
    /// Some bytes are not what was written.
    #[error("does not match its checksum")]
    Checksum,
    /// Written by another version of this program.
    #[error("has format version {found}, but this program knows version {VERSION}{}", if *.found > VERSION { "; use a newer program" } else { "" })]
    Version {
        /// Its version.
        found: u8,
    },
    /// Its body is no protobuf message of its kind.
    #[error("is malformed")]
    Malformed,
    /// Its parts do not belong together.
    #[error("makes no sense")]
    Senseless,
}

/// Something that a row holds.
pub trait Record: Sized {
    /// Its layout.
    type Raw: prost::Message + Default;
    /// Its name in errors.
    const NAME: &'static str;

    /// Lays it out.
    fn to_raw(&self) -> Self::Raw;

    /// Reads it; `None` when its parts make no sense.
    fn from_raw(raw: Self::Raw) -> Option<Self>;
}

/// The bytes of a record.
pub fn encode<R: Record>(record: &R) -> Vec<u8> {
    let raw = record.to_raw();
    let mut bytes = Vec::with_capacity(1 + raw.encoded_len() + CRC_BYTES);
    bytes.push(VERSION);
    bytes.extend_from_slice(&raw.encode_to_vec());
    let crc = crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_be_bytes());
    bytes
}

/// The record of these bytes.
///
/// # Errors
/// [`RecordError`] for anything that [`encode`] of this version did not write.
pub fn decode<R: Record>(bytes: &[u8]) -> Result<R, RecordError> {
    let refuse = |problem| RecordError { record: R::NAME, problem };
    let (covered, crc) = bytes.split_last_chunk::<CRC_BYTES>().ok_or_else(|| refuse(RecordProblem::TooShort))?;
    if crc32c(covered) != u32::from_be_bytes(*crc) {
        return Err(refuse(RecordProblem::Checksum));
    }
    let (version, body) = covered.split_first().ok_or_else(|| refuse(RecordProblem::TooShort))?;
    if *version != VERSION {
        return Err(refuse(RecordProblem::Version { found: *version }));
    }
    let raw = R::Raw::decode(body).map_err(|_malformed| refuse(RecordProblem::Malformed))?;
    R::from_raw(raw).ok_or_else(|| refuse(RecordProblem::Senseless))
}

#[cfg(test)]
mod tests;

//! Backup: all metadata as of one commit, as one stream of bytes, while the service goes on; and back into an empty folder.
//!
//! ```text
//! mini-tectonic export v1\n
//! frame*
//!
//! frame: kind (1) | length of the body (4, big-endian) | body (protobuf) | CRC-32C of all before it in the frame (4)
//! kinds: H  header: cluster, epoch, the commit behind which it begins, time, whether it holds secrets, the cluster's key
//!        R  rows of one scan, in key order; the keys grow through all of these frames
//!        C  what one commit, or a part of it, changed: its sequence and its writes
//!        E  end: the sequence of the state as a whole, the number of rows, of commit frames, of bytes before this frame,
//!           and the SHA-256 of those bytes; nothing follows it
//! ```
//! **Why it is one moment.** The engine has no snapshots. So the export follows the commits from a sequence `b` on, and
//! then scans everything in slices; each slice is of a moment of its own. After each slice come the commits that arrived
//! meanwhile, and behind the last slice all others up to the sequence `e` that is durable then. Whoever puts the frames
//! into an empty map one after the other gets the state at `e`: a key that no commit in `b+1..=e` wrote has not changed
//! since the slice that shows it, and of every other key the last such write is applied behind every slice that may
//! show it older. Commits come between the slices, not behind all of them, so that they need not be kept anywhere.
//!
//! **Bounds** (I17): a slice and the waiting commits are all that is in memory. An export whose reader is slower than
//! the commits is cut off with an error ([`feed`](crate::store::feed) says why it is not kept on disk instead).
//!
//! **Secrets** (I18). With them an export holds the cluster's key and the hashes of all tokens, and an import is the same
//! cluster: nodes and tenants notice nothing. Without them it holds neither, nor the remembered requests (some stand for
//! a token). The import then draws a new key under the old cluster's id: each node joins once more with `--rejoin`, which
//! keeps its id and chunks and replaces its keys; each tenant gets a token by `rotate-token`.

mod decode;
mod encode;
mod error;
mod export;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod import;
#[cfg(test)]
mod tests;

pub use self::decode::{Decoder, ExportedRow, ExportedWrite, Frame};
pub use self::error::{ImportError, MalformedExport};
pub use self::export::{ExportScope, Exporter};
pub use self::import::{Imported, import};

use proto::ids::ClusterId;
use proto::secret::SecretKey;

/// The first line, but for the version and its end.
const MAGIC: &str = "mini-tectonic export v";
/// Version that is written, and the latest one that is read.
const VERSION: u32 = 1;
/// Largest body of a frame that is read; those that are written are much smaller.
const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of kind and length.
const FRAME_HEAD_BYTES: usize = 5;
/// Bytes of a frame's sum.
const FRAME_SUM_BYTES: usize = 4;

const KIND_HEADER: u8 = b'H';
const KIND_ROWS: u8 = b'R';
const KIND_COMMIT: u8 = b'C';
const KIND_END: u8 = b'E';

/// What an export says about itself before anything else.
#[derive(Debug, Clone)]
pub struct Header {
    /// The cluster.
    pub cluster: ClusterId,
    /// Incarnation of its metadata.
    pub epoch: u64,
    /// The commit behind which the export follows all others; the state that it holds is [`Summary::sequence`]'s.
    pub begins_behind: u64,
    /// When it was begun, in milliseconds since 1970.
    pub export_ms: u64,
    /// The cluster's key; `None` for an export without secrets.
    pub cluster_key: Option<SecretKey>,
}

/// What is known of an export that was read to its end and verified.
#[derive(Debug, Clone)]
pub struct Summary {
    /// What it says about itself.
    pub header: Header,
    /// The last commit that it holds.
    pub sequence: u64,
    /// Rows of its scans.
    pub rows: u64,
    /// Frames of commits made while it was taken.
    pub commits: u64,
    /// Its length in bytes.
    pub bytes: u64,
}

/// Layouts of the frames' bodies.
mod raw {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Header {
        #[prost(bytes = "vec", tag = "1")]
        pub(super) cluster: Vec<u8>,
        #[prost(uint64, tag = "2")]
        pub(super) epoch: u64,
        #[prost(uint64, tag = "3")]
        pub(super) begins_behind: u64,
        #[prost(uint64, tag = "4")]
        pub(super) export_ms: u64,
        #[prost(bytes = "vec", optional, tag = "5")]
        pub(super) cluster_key: Option<Vec<u8>>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Write {
        #[prost(bytes = "vec", tag = "1")]
        pub(super) key: Vec<u8>,
        #[prost(bytes = "vec", optional, tag = "2")]
        pub(super) value: Option<Vec<u8>>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Rows {
        #[prost(message, repeated, tag = "1")]
        pub(super) rows: Vec<Write>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Commit {
        #[prost(uint64, tag = "1")]
        pub(super) sequence: u64,
        #[prost(message, repeated, tag = "2")]
        pub(super) writes: Vec<Write>,
    }

    #[derive(Clone, PartialEq, Eq, prost::Message)]
    pub(super) struct End {
        #[prost(uint64, tag = "1")]
        pub(super) sequence: u64,
        #[prost(uint64, tag = "2")]
        pub(super) rows: u64,
        #[prost(uint64, tag = "3")]
        pub(super) commits: u64,
        #[prost(uint64, tag = "4")]
        pub(super) bytes: u64,
        #[prost(bytes = "vec", tag = "5")]
        pub(super) sha256: Vec<u8>,
    }
}

//! The use cases: pure functions of what is stored, a command, and a [`Context`].
//!
//! Owns every row of tenants, blobs, uploads and blocks. A use case that changes something runs inside a commit, sees
//! every write accepted before it, and returns one [`Decision`] with its answer; the engine makes that durable or
//! refuses it as a whole. Whatever is drawn or read from outside (time, ids, nodes, settings) is in the context, so a
//! use case run twice on the same state decides the same.
//!
//! Invariants: I3 (a blob's row, its name-index row and its usage appear in one batch), I4 (a repeat finds the row that
//! the first call wrote), I5 (only receipts seal), I9 (rows are reached through the caller's tenant only), I11 (usage
//! changes in the batch of what it counts).
//!
//! Crash: before a batch is durable nothing has happened, and the call may be repeated; after it, a repeat returns the
//! first answer.

pub mod allocate;
pub mod blobs;
pub mod collect;
pub mod commit;
pub mod delete;
pub mod end;
pub mod layout;
pub mod operator_tokens;
pub mod orphans;
pub mod owner;
mod plan;
pub mod request;
mod seal;
pub mod start;
pub mod tenants;
pub mod tokens;
pub mod undelete;
pub mod upload;
pub mod usage;

use proto::entropy::Entropy;
use proto::secret::SecretKey;

pub use self::plan::PlannedBlock;
use crate::config::Tuning;
use crate::error::MetadataError;
use crate::placement::Candidate;
use crate::store::engine::Decision;

/// What a use case may know beyond the stored rows.
#[derive(Debug)]
pub struct Context<'a> {
    /// Milliseconds since 1970, taken in the commit's turn.
    pub now_ms: u64,
    /// Where ids come from.
    pub entropy: &'a dyn Entropy,
    /// The settings.
    pub tuning: &'a Tuning,
    /// The nodes as they are now.
    pub nodes: &'a [Candidate],
    /// Incarnation of the metadata.
    pub epoch: u64,
    /// The secret that tokens are derived from.
    pub secret: &'a SecretKey,
}

/// What to write and what to answer, or why not.
pub type Outcome<T> = Result<(Decision, T), MetadataError>;

/// An answer that needs no write.
pub(crate) fn unchanged<T>(answer: T) -> Outcome<T> {
    Ok((Decision::default(), answer))
}

#[cfg(test)]
pub(crate) mod tests;

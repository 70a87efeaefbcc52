//! The first start of a node, and the later ones: from a folder to a membership.
//!
//! A node that has joined needs nobody to start: its id and keys are in its folder. With `--rejoin` it asks all the same,
//! under the same id, and what it gets replaces its keys: the metadata service has others since an import without secrets. One that has not draws an id, writes
//! it down, and asks the metadata service with the join token until it gets an answer; started first, it waits.

use std::path::Path;
use std::time::Duration;

use proto::entropy::Entropy;
use proto::failpoint;
use proto::ids::NodeId;
use proto::runtime::folder;
use proto::token::{Token, TokenError, TokenKind};
use tokio::time::Instant;

use crate::error::ChunkError;
use crate::identity::{Membership, NodeFile};
use crate::metadata_link::{LinkError, MetadataLink, Presence, Pulse};
use crate::store::disk::Disk;

/// Pause between two attempts to join.
const PAUSE: Duration = Duration::from_millis(300);
/// How often a node that waits says so.
const REMIND: Duration = Duration::from_secs(10);

/// What a node's folder says at its start. Blocks.
///
/// # Errors
/// When its files are damaged or contradict each other, or chunks are there without any sign of whose they are.
pub(crate) fn open(folder: &Path, disk: &dyn Disk, now_ms: u64, entropy: &dyn Entropy) -> Result<NodeFile, ChunkError> {
    if let Some(file) = NodeFile::read(folder)? {
        if let Some(membership) = &file.membership
            && !NodeFile::is_sealed(folder)?
        {
            NodeFile::seal(folder, file.node, membership)?;
        }
        return Ok(file);
    }
    if disk.holds_any(".blob").map_err(ChunkError::io("list the data folder"))? {
        let problem = "the folder holds chunks, but neither IDENTITY nor this file; restore both from a backup";
        return Err(ChunkError::NodeKey { path: folder.join("node.key"), problem });
    }
    let file = NodeFile { node: NodeId::generate(now_ms, entropy), membership: None };
    file.write(folder)?;
    failpoint!("join.id_written");
    tracing::info!(folder = %folder.display(), node = %file.node, "an empty data folder was initialised");
    Ok(file)
}

/// Asks until the metadata service takes the node in. Returns also when its answer came.
///
/// # Errors
/// [`ChunkError::Refused`] when it will not.
pub(crate) async fn join(
    link: &MetadataLink,
    presence: &Presence,
    join_token: &Path,
) -> Result<(Membership, Pulse, Instant), ChunkError> {
    let mut reminded: Option<Instant> = None;
    loop {
        let sent = Instant::now();
        let why = match read_token(join_token)? {
            Some(token) => match link.register(presence, &token).await {
                Ok((membership, pulse)) => return Ok((membership, pulse, sent)),
                Err(error @ LinkError::Unreachable(_)) => error.text(),
                Err(error @ (LinkError::Refused(_) | LinkError::Nonsense(_))) => return Err(refused(&error)),
            },
            None => format!("{} is not there yet", join_token.display()),
        };
        if reminded.is_none_or(|at| at.elapsed() >= REMIND) {
            tracing::info!(%why, "waiting for the metadata service, to join its cluster");
            reminded = Some(sent);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// A node that joins once more may get other keys, but no other cluster: its chunks are of the one it was in.
///
/// # Errors
/// [`ChunkError::Refused`].
pub(crate) fn refuse_another_cluster(known: Option<&Membership>, joined: &Membership) -> Result<(), ChunkError> {
    match known.filter(|known| known.cluster != joined.cluster) {
        Some(known) => Err(ChunkError::Refused {
            reason: format!("this folder is of cluster {}, the metadata service of {}", known.cluster, joined.cluster),
            advice: "is it the right folder, and the right metadata service?",
        }),
        None => Ok(()),
    }
}

fn refused(error: &LinkError) -> ChunkError {
    ChunkError::Refused {
        reason: error.text(),
        advice: "is the join token the cluster's, and unused? A join token serves one node; if this node's folder \
                 should not be empty, look whether its disk is mounted",
    }
}

fn read_token(path: &Path) -> Result<Option<Token>, ChunkError> {
    let Some(bytes) = folder::read_secret(path)? else { return Ok(None) };
    match std::str::from_utf8(&bytes).unwrap_or_default().trim().parse::<Token>() {
        Ok(token) if token.kind == TokenKind::Join => Ok(Some(token)),
        Err(TokenError::TooNew { found }) => {
            Err(ChunkError::TooNew { path: path.to_path_buf(), found, known: TokenError::KNOWN })
        }
        Ok(_) | Err(TokenError::Malformed) => Err(ChunkError::Setting {
            what: "--join-token-file",
            problem: format!("{} holds no join token", path.display()),
        }),
    }
}

/// Writes down what a node was given, IDENTITY last. Blocks.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn keep(folder: &Path, node: NodeId, membership: &Membership) -> Result<(), ChunkError> {
    NodeFile { node, membership: Some(membership.clone()) }.write(folder)?;
    failpoint!("join.keys_written");
    NodeFile::seal(folder, node, membership)?;
    failpoint!("join.identity_written");
    Ok(())
}

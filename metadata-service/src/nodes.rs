//! The chunk services: who they are, and how they are at the moment.
//!
//! Owns: `nodes/` rows and the nodes' and joining nodes' `token/` rows. Who a node is and where it is reached is durable;
//! when it was last heard of and how much space it has is kept in memory and is back with the next heartbeat.
//!
//! Which keys a node has follows from its row; see [`keys`].
//!
//! Whether a node is lost is a matter of elapsed time, so it is judged by the monotonic clock: a jump of the wall clock
//! loses nobody.

pub mod chunks;
pub mod damage;
pub mod keys;
pub mod link;
pub mod registry;
pub mod usecases;

use std::path::Path;

pub use self::chunks::{ChunkNodes, Condemned, Deletion};
pub use self::link::NodeLink;
pub use self::registry::{NodeStatus, Registry, Report, State};
use crate::error::StartError;
use crate::store::engine::{Engine, KeyRange};
use crate::store::keys as rows;
use crate::store::rows::{RowError, record_of};

/// Reads the registered nodes; there are few. `folder` is named in errors.
///
/// # Errors
/// [`StartError::Engine`].
pub async fn load(engine: &dyn Engine, registry: &Registry, folder: &Path) -> Result<(), StartError> {
    let unreadable = |source: RowError| StartError::Engine { folder: folder.to_path_buf(), source };
    let rows = engine.scan(&KeyRange::prefix(rows::NODES), usize::MAX).await.map_err(|e| unreadable(e.into()))?;
    for row in &rows {
        if let Some(node) = rows::node_of(&row.0) {
            registry.put(node, record_of(row).map_err(|e| unreadable(e.into()))?, engine.sequence());
        }
    }
    Ok(())
}

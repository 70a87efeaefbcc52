//! The chunk services: who they are, and how they are at the moment.
//!
//! Owns: `nodes/` rows and the nodes' and joining nodes' `token/` rows. Who a node is and where it is reached is durable;
//! when it was last heard of and how much space it has is kept in memory and is back with the next heartbeat.
//!
//! Whether a node is lost is a matter of elapsed time, so it is judged by the monotonic clock: a jump of the wall clock
//! loses nobody.

pub mod chunks;
pub mod link;
pub mod registry;
pub mod usecases;

pub use self::chunks::{ChunkNodes, Condemned, Deletion};
pub use self::link::NodeLink;
pub use self::registry::{NodeStatus, Registry, Report, State};

//! Room on the disk, looked at before a group of commits touches it.
//!
//! A disk that fills up under the engine latches it, and sled cannot even open its files before there is space again
//! (nothing is lost then). So below a low watermark only commits that free space are taken, and below a reserve none that
//! write; both pass by themselves when space returns.

use std::fmt;
use std::fs::File;
use std::io;

use crate::store::engine::{Decision, EngineError};

/// Tells how many bytes the disk has left.
pub(crate) trait FreeSpace: fmt::Debug + Send {
    /// Bytes that may still be written.
    ///
    /// # Errors
    /// When the file system does not say.
    fn free_bytes(&self) -> io::Result<u64>;
}

/// The file system that holds a file.
#[derive(Debug)]
pub(super) struct DiskOf(pub(super) File);

impl FreeSpace for DiskOf {
    fn free_bytes(&self) -> io::Result<u64> {
        let status = rustix::fs::fstatvfs(&self.0)?;
        Ok(status.f_bavail.saturating_mul(status.f_frsize))
    }
}

/// When commits are refused for want of space.
#[derive(Debug)]
pub(super) struct Watermarks {
    pub(super) disk: Box<dyn FreeSpace>,
    pub(super) low_bytes: u64,
    pub(super) reserve_bytes: u64,
}

impl Watermarks {
    /// How much room there is now. One look serves a whole group, which is small against the reserve; so is, as long as
    /// room is scarce, what waits for a checkpoint, since one is always due then.
    pub(super) fn look(&self) -> Room {
        match self.disk.free_bytes() {
            Ok(free_bytes) if free_bytes < self.reserve_bytes => Room::None { free_bytes },
            Ok(free_bytes) if free_bytes < self.low_bytes => Room::ToFree { free_bytes },
            Ok(_) => Room::Plenty,
            Err(error) => Room::Unknown(error.to_string()),
        }
    }
}

/// Which commits there is room for.
#[derive(Debug)]
pub(super) enum Room {
    Plenty,
    ToFree { free_bytes: u64 },
    None { free_bytes: u64 },
    Unknown(String),
}

impl Room {
    /// Refuses what there is no room for. What writes nothing always fits.
    pub(super) fn check(&self, decision: &Decision) -> Result<(), EngineError> {
        if decision.batch.is_empty() {
            return Ok(());
        }
        match self {
            Self::Plenty => Ok(()),
            Self::ToFree { .. } if decision.frees_space => Ok(()),
            Self::ToFree { free_bytes } | Self::None { free_bytes } => {
                Err(EngineError::NearlyFull { free_bytes: *free_bytes })
            }
            Self::Unknown(cause) => {
                Err(EngineError::Failed { action: "tell the free space of its disk", cause: cause.clone() })
            }
        }
    }
}

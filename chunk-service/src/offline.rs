//! A chunk folder without a service: for checks of a folder that nobody uses.
//!
//! The folder is locked as a service locks it, so neither can come while the other is there. Nothing is joined, nobody
//! listens, no worker runs. Nothing is written but on request: a checksum file, and what the journal holds and a crash kept
//! from its files.

use std::path::Path;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use proto::capability::{ChunkBinding, ReadClaims};
use proto::checksum::Sha256;
use proto::entropy::OsEntropy;
use proto::ids::{ChunkId, NodeId};
use proto::runtime::TaskGroup;
use proto::runtime::folder::{self, FolderLock};

use crate::blocking::Blocking;
use crate::config::Tuning;
use crate::error::ChunkError;
use crate::identity::NodeFile;
use crate::store::disk::FolderDisk;
use crate::store::journal::{self, Use};
use crate::store::listing::Listing;
pub use crate::store::verify::{Condition, Finding};
use crate::store::{ChunkStore, Describe, Described, Ground};

/// A chunk folder, opened.
#[derive(Debug)]
pub struct ChunkFolder {
    node: NodeId,
    store: ChunkStore,
    _lock: FolderLock,
}

/// The files of one chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkFiles {
    /// The chunk.
    pub chunk: ChunkId,
    /// Size of its bytes; `None` when there are none.
    pub data_bytes: Option<u64>,
    /// It has a checksum file.
    pub has_checksum_file: bool,
    /// What that says; `None` when it was not asked for or does not parse.
    pub checksum_file: Option<(ChunkBinding, u64, Sha256)>,
}

/// Part of a listing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// Chunks that have files.
    pub chunks: Vec<ChunkFiles>,
    /// Names in the folder that no chunk service wrote.
    pub foreign_names: Vec<String>,
}

/// A pass over the folder.
pub struct Pages(Listing);

impl std::fmt::Debug for Pages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pages").finish_non_exhaustive()
    }
}

impl ChunkFolder {
    /// Opens the folder of a node that has joined its cluster; with `repair` what its journal holds is brought to its files
    /// as a start of the service does it.
    ///
    /// # Errors
    /// [`ChunkError`]: not there, in use, damaged, of a newer version, of a node that never joined, or, without `repair`,
    /// one whose journal holds what its files do not.
    pub fn open(path: &Path, repair: bool) -> Result<Self, ChunkError> {
        let problem = "it is not there: no chunk service has ever finished its first start with this folder";
        let foreign = ChunkError::NodeKey { path: path.join("node.key"), problem };
        // Nothing is written to a folder before it is known to be a node's; that includes its lock.
        let node = NodeFile::read(path)?.filter(|file| file.membership.is_some()).ok_or(foreign)?.node;
        let lock = folder::lock(path)?;
        let disk = FolderDisk::open_folder(path).map_err(ChunkError::io("open the data folder"))?;
        let (tuning, tasks) = (Tuning::default(), TaskGroup::new());
        let blocking = Blocking::new(tuning.rules(), tasks.broken_signal());
        let ground = if repair {
            Ground::open(Arc::new(disk), Use::NONE, &OsEntropy)?
        } else {
            let held = journal::unsettled(&disk, &OsEntropy)?;
            if held > 0 {
                return Err(ChunkError::NotSettled { chunks: held });
            }
            Ground::without_journal(Arc::new(disk))
        };
        let store = ChunkStore::new(ground, Arc::new(Nobody), blocking, &tuning, &tasks);
        Ok(Self { node, store, _lock: lock })
    }

    /// Whose folder it is.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Reads a whole chunk and says how it is; with `repair` a bad checksum file over sound bytes is written again.
    ///
    /// # Errors
    /// [`ChunkError`]: nothing is known of the chunk.
    pub async fn verify(&self, place: ChunkBinding, claims: ReadClaims, repair: bool) -> Result<Finding, ChunkError> {
        self.store.verify(place, claims, repair).await
    }

    /// Begins a pass over the folder; `with_checksum_files` reads them, too.
    ///
    /// # Errors
    /// [`ChunkError`].
    pub async fn list(&self, with_checksum_files: bool) -> Result<Pages, ChunkError> {
        self.store.list(with_checksum_files).await.map(Pages)
    }

    /// The next page, and the pass itself unless it is complete.
    ///
    /// # Errors
    /// [`ChunkError`]: the list is incomplete.
    pub async fn next_page(&self, pages: Pages) -> Result<(Page, Option<Pages>), ChunkError> {
        let (rest, page) = self.store.next_page(pages.0).await?;
        let chunks = page.chunks.into_iter().map(|files| ChunkFiles {
            chunk: files.chunk,
            data_bytes: files.data_size,
            has_checksum_file: files.has_chk,
            checksum_file: files.chk.map(|chk| (chk.binding, chk.sums.size_bytes, chk.sums.sha256)),
        });
        let found = Page { chunks: chunks.collect(), foreign_names: page.foreign };
        Ok((found, (!page.complete).then_some(Pages(rest))))
    }
}

/// Nothing is healed here that was not asked for, so nobody has to be asked.
#[derive(Debug)]
struct Nobody;

impl Describe for Nobody {
    fn describe(&self, _chunk: ChunkId) -> BoxFuture<'_, Result<Described, ChunkError>> {
        std::future::ready(Err(ChunkError::MetadataUnreachable(None))).boxed()
    }
}

//! The folder of an import: empty, then half-made, then one that a service starts on.
//!
//! Order: the folder, the lock, the marker `IMPORT`, the rows (whoever imports writes them), `cluster.key`, the tokens
//! beside the folder, the cluster's row with the tokens' rows in one commit, IDENTITY, and last the marker goes. While the
//! marker is there no service starts on the folder, and an import clears it and begins anew; so a crash at any point is
//! mended by running the import again.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use proto::failpoint;
use proto::runtime::folder::{self, FolderError, FolderLock, Identity};
use proto::secret::SecretKey;

use super::{Opening, Paths, ROLE, cluster_key, key_check, open_engine, write_rows};
use crate::backup::ImportError;
use crate::error::StartError;
use crate::store::engine::Engine;
use crate::store::records::ClusterRecord;

const MARKER: &str = "IMPORT";
const MARKER_TEXT: &str = "mini-tectonic import v1\nThis folder is half-made: run 'mini-tectonic-rs import' again.\n";

/// Refuses a folder that an import left half-made.
pub(super) fn refuse_half_made(metadata: &Path) -> Result<(), StartError> {
    if folder::read_small(&metadata.join(MARKER))?.is_none() {
        return Ok(());
    }
    Err(StartError::Inconsistent {
        path: metadata.to_path_buf(),
        problem: "holds an import that did not come to its end; run 'mini-tectonic-rs import' again, it begins anew",
    })
}

/// A folder that is being filled.
#[derive(Debug)]
pub(crate) struct HalfMade {
    paths: Paths,
    lock: FolderLock,
    /// Where the rows go.
    pub(crate) engine: Arc<dyn Engine>,
}

impl HalfMade {
    /// Takes an absent or empty folder, or one that an earlier import left half-made.
    ///
    /// # Errors
    /// [`ImportError::NotEmpty`]; [`ImportError::Folder`], also when a service runs on the folder.
    pub(crate) async fn begin(storage: &Path, opening: Opening<'_>) -> Result<Self, ImportError> {
        let paths = Paths::of(storage);
        refuse_in_use(&paths.metadata)?;
        refuse_filled(&paths.metadata)?;
        folder::create(&paths.metadata)?;
        let lock = folder::lock(&paths.metadata)?;
        refuse_filled(&paths.metadata)?;
        folder::publish(&paths.metadata.join(MARKER), MARKER_TEXT.as_bytes())?;
        failpoint!("import.marked");
        clear(&paths.metadata)?;
        let engine = open_engine(&paths.metadata, opening.tuning).await?;
        Ok(Self { paths, lock, engine })
    }

    /// Makes it whole. The rows are durable by now, but for the cluster's.
    ///
    /// # Errors
    /// [`StartError`].
    pub(crate) async fn finish(
        self,
        row: ClusterRecord,
        secret: &SecretKey,
        opening: Opening<'_>,
    ) -> Result<(), StartError> {
        let Self { paths, lock, engine } = self;
        let row = ClusterRecord { key_check: key_check(secret), ..row };
        let made = async {
            cluster_key::write(&paths.key, secret)?;
            write_rows(&paths, engine.as_ref(), opening, &row).await?;
            failpoint!("import.rows_committed");
            Ok::<_, StartError>(())
        };
        let made = made.await;
        engine.close().await;
        made?;
        Identity::new(ROLE, row.cluster.to_string(), None).write(&paths.metadata)?;
        failpoint!("import.identity_written");
        remove(&paths.metadata.join(MARKER))?;
        folder::sync_folder(&paths.metadata)?;
        drop(lock);
        Ok(())
    }

    /// Leaves it half-made.
    pub(crate) async fn abandon(self) {
        self.engine.close().await;
    }
}

/// Whether the key is the one with which the row's cluster was made.
pub(crate) fn is_key_of(secret: &SecretKey, row: &ClusterRecord) -> bool {
    key_check(secret) == row.key_check
}

/// So that whoever imports over a running service is told that, not that the folder is not empty.
fn refuse_in_use(metadata: &Path) -> Result<(), FolderError> {
    if folder::read_small(&metadata.join("LOCK"))?.is_some() { folder::lock(metadata).map(drop) } else { Ok(()) }
}

fn refuse_filled(metadata: &Path) -> Result<(), ImportError> {
    let names = entries(metadata)?;
    let half_made = names.iter().any(|path| path.ends_with(MARKER));
    // A lock alone is left by a start that was refused, and a temporary marker by an import that died at once.
    let something = |path: &&PathBuf| !is_of_no_account(path) && !path.ends_with("IMPORT.tmp");
    match names.iter().find(something).filter(|_found| !half_made) {
        Some(found) => Err(ImportError::NotEmpty {
            folder: metadata.to_path_buf(),
            found: found.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        }),
        None => Ok(()),
    }
}

/// Removes everything but the lock, the marker, and what the file system keeps there.
fn clear(metadata: &Path) -> Result<(), FolderError> {
    for path in entries(metadata)? {
        if !is_of_no_account(&path) && !path.ends_with(MARKER) {
            remove(&path)?;
        }
    }
    folder::sync_folder(metadata)
}

fn remove(path: &Path) -> Result<(), FolderError> {
    let removed = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    removed.map_err(|source| FolderError::Io { action: "remove", path: path.to_path_buf(), source })
}

/// What a folder holds; nothing when it is not there.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, FolderError> {
    let list =
        || -> std::io::Result<Vec<PathBuf>> { std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect() };
    match list() {
        Ok(paths) => Ok(paths),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(FolderError::Io { action: "list", path: folder.to_path_buf(), source }),
    }
}

/// Whether there is nothing in a folder that a service or an import ever wrote.
pub(super) fn is_untouched(metadata: &Path) -> Result<bool, FolderError> {
    Ok(entries(metadata)?.iter().all(|path| is_of_no_account(path)))
}

/// The lock, and the file system's own folder where a disk is mounted.
fn is_of_no_account(path: &Path) -> bool {
    path.ends_with("LOCK") || path.ends_with("lost+found")
}

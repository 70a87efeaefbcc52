//! sled's files, made good before sled sees them.
//!
//! sled opens what it finds and believes it. Three things it must not find, or not yet:
//!
//! * `snap.*.generating`, a snapshot that it was writing when it was killed. It takes that for the newest snapshot and,
//!   since it is cut short, refuses to open the database, for ever. Such a file is removed: a snapshot only saves
//!   recovery some reading, and the one before is removed after the new one has its name.
//! * half of `conf`, which it writes once, without a sync, and refuses to read when it is damaged. So it is written here,
//!   durably, with the bytes that sled would have written.
//! * a log that is in the page cache only, after a killed process. The snapshot that sled writes at the end of recovery
//!   is synced, and says how far the log goes; so the log is synced before recovery, not only after it.
//!
//! A crash in between leaves less to do for the next start.

use std::fs::File;
use std::io;
use std::path::Path;

use proto::runtime::folder::{self, FolderError};

const CONF: &str = "conf";
const LOG: &str = "db";

/// `conf` as sled 0.34 writes it for its default settings: three lines and their CRC-32.
const CONF_CONTENT: &[u8] = b"segment_size: 524288\nuse_compression: false\nversion: 0.34\nv\x19\x51\xc1";

/// Makes the files good. The folder is there.
///
/// # Errors
/// When a file cannot be read, removed, written or synced.
pub(super) fn prepare(folder: &Path) -> Result<(), FolderError> {
    let failed = |action| move |source| FolderError::Io { action, path: folder.to_path_buf(), source };
    remove_half_snapshots(folder).map_err(failed("remove a half-written snapshot from"))?;
    let conf = folder.join(CONF);
    if folder::read_small(&conf)?.is_none() {
        folder::publish(&conf, CONF_CONTENT)?;
    }
    sync_if_there(&folder.join(LOG)).map_err(failed("sync the log in"))?;
    folder::sync_folder(folder)
}

/// Whether there is a log: without one there is no database.
///
/// # Errors
/// [`FolderError::Io`].
pub(super) fn has_log(folder: &Path) -> Result<bool, FolderError> {
    let path = folder.join(LOG);
    path.try_exists().map_err(|source| FolderError::Io { action: "look for", path, source })
}

fn remove_half_snapshots(folder: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.as_encoded_bytes();
        if name.starts_with(b"snap.") && name.ends_with(b".generating") {
            tracing::info!(file = %entry.path().display(), "removing a snapshot that a crash left half written");
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn sync_if_there(file: &Path) -> io::Result<()> {
    match File::open(file) {
        Ok(file) => file.sync_all(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conf_is_what_sled_would_have_written() {
        let folder = tempfile::tempdir().unwrap();
        drop(sled::Config::new().path(folder.path()).open().unwrap());
        assert_eq!(std::fs::read(folder.path().join(CONF)).unwrap(), CONF_CONTENT);
    }
}

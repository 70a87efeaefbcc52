//! Data folders: created private, locked against a second process, with an IDENTITY that says whose they are.
//!
//! Order: folder and parents first (each synced into its parent), then the lock, then the contents, IDENTITY last; so a
//! folder without IDENTITY is either empty or an interrupted first start, which the next start finishes.
//! [`publish`] is the one way in which small files appear: temporary file, sync, rename, sync of the folder. A crash
//! leaves the old file, or the new one, and at most a `.tmp` beside it that the next publish replaces.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::checksum::crc32c;
use crate::failpoint;

/// Why a data folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Reading or writing failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A secret that others can read is none.
    #[error("others can read the secrets in {path} (mode {mode:04o}); 'chmod 600 {path}' ends that", path = path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// Another process uses it.
    #[error("{} is in use by another process; stop it, or choose another folder", .0.display())]
    InUse(PathBuf),
    /// Nothing can be written there.
    #[error(
        "{} cannot be written to; is it mounted read-only (the kernel does that to a disk with errors: see its log), or \
         does it belong to another user? make it writable, then start again",
        path.display()
    )]
    ReadOnly {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// IDENTITY cannot be read as one.
    #[error("{} is damaged ({problem}); restore it from a backup, do not delete it", path.display())]
    IdentityDamaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: &'static str,
    },
    /// IDENTITY is of a later version.
    #[error("{} has format version {found}, but this program knows versions up to {known}; use a newer program", path.display())]
    IdentityTooNew {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The latest one known here.
        known: u32,
    },
    /// IDENTITY says that the folder is another's.
    #[error("{} belongs to another {what} ({found}, not {expected}); is it the right folder?", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Role, cluster or node.
        what: &'static str,
        /// Whose it is.
        found: String,
        /// Whose it should be.
        expected: String,
    },
}

fn io_error<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> FolderError + 'a {
    move |source| FolderError::Io { action, path: path.to_path_buf(), source }
}

/// Makes the folder (mode 0700) with its missing parents, and syncs each new name into its parent. Returns whether it
/// was made.
///
/// # Errors
/// [`FolderError::Io`], also when something that is not a folder has the name.
pub fn create(folder: &Path) -> Result<bool, FolderError> {
    if folder.is_dir() {
        return Ok(false);
    }
    let parent = parent_of(folder);
    if parent != folder {
        create(parent)?;
    }
    match std::fs::DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => return Ok(false),
        Err(error) => return Err(io_error("create the folder", folder)(error)),
    }
    sync_folder(parent)?;
    Ok(true)
}

fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => path,
    }
}

/// Makes the names in a folder durable.
///
/// # Errors
/// [`FolderError::Io`].
pub fn sync_folder(folder: &Path) -> Result<(), FolderError> {
    File::open(folder).and_then(|open| open.sync_all()).map_err(io_error("sync the folder", folder))
}

/// Writes a small file (mode 0600) so that after a crash it holds the old bytes or the new ones, never a mixture.
/// Durable on return.
///
/// # Errors
/// [`FolderError::Io`].
pub fn publish(path: &Path, bytes: &[u8]) -> Result<(), FolderError> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = PathBuf::from(temporary);
    let write = || -> io::Result<()> {
        // What is there may be of another mode, or a link: it goes, and is not written to.
        match std::fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(io_error("write", &temporary))?;
    failpoint!("file.written");
    #[expect(clippy::disallowed_methods, reason = "the one place that publishes small files")]
    std::fs::rename(&temporary, path).map_err(io_error("rename into place", path))?;
    failpoint!("file.renamed");
    sync_folder(parent_of(path))?;
    failpoint!("file.folder_synced");
    Ok(())
}

/// Reads a small file; `None` when it is not there.
///
/// # Errors
/// [`FolderError::Io`], also for a file of more than 64 KiB: none of ours is that long.
pub fn read_small(path: &Path) -> Result<Option<Vec<u8>>, FolderError> {
    open_there(path)?.map(|file| read_up_to_max(&file).map_err(io_error("read", path))).transpose()
}

/// Reads a small file of secrets, which nobody but its owner may be able to read; `None` when it is not there.
///
/// # Errors
/// [`FolderError::Exposed`], and as [`read_small`].
pub fn read_secret(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, FolderError> {
    let Some(file) = open_there(path)? else { return Ok(None) };
    refuse_exposed(path, &file.metadata().map_err(io_error("read", path))?)?;
    read_up_to_max(&file).map(|bytes| Some(Zeroizing::new(bytes))).map_err(io_error("read", path))
}

/// Refuses a file of secrets that others can read, or change. A pipe or a terminal is nobody's file.
///
/// # Errors
/// [`FolderError::Exposed`].
pub fn refuse_exposed(path: &Path, found: &Metadata) -> Result<(), FolderError> {
    const OTHERS: u32 = 0o077;
    let mode = found.permissions().mode() & 0o7777;
    let is_exposed = found.is_file() && mode & OTHERS != 0;
    if is_exposed { Err(FolderError::Exposed { path: path.to_path_buf(), mode }) } else { Ok(()) }
}

fn open_there(path: &Path) -> Result<Option<File>, FolderError> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error("read", path)(error)),
    }
}

fn read_up_to_max(file: &File) -> io::Result<Vec<u8>> {
    use io::Read as _;
    const BYTES_MAX: u64 = 64 * 1024;
    let mut bytes = Vec::new();
    file.take(BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > BYTES_MAX { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
}

/// Keeps other processes out of a folder for as long as it lives, and the process does.
#[derive(Debug)]
pub struct FolderLock(#[expect(dead_code, reason = "held for its lock")] File);

/// Locks a folder by its file `LOCK`.
///
/// # Errors
/// [`FolderError::InUse`] when another process holds it, [`FolderError::ReadOnly`], or [`FolderError::Io`].
pub fn lock(folder: &Path) -> Result<FolderLock, FolderError> {
    let path = folder.join("LOCK");
    let mut options = OpenOptions::new();
    let opened = options.write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = opened.map_err(|source| {
        if matches!(source.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied) {
            FolderError::ReadOnly { path: folder.to_path_buf(), source }
        } else {
            io_error("open", &path)(source)
        }
    })?;
    match file.try_lock() {
        Ok(()) => Ok(FolderLock(file)),
        Err(std::fs::TryLockError::WouldBlock) => Err(FolderError::InUse(folder.to_path_buf())),
        Err(std::fs::TryLockError::Error(error)) => Err(io_error("lock", &path)(error)),
    }
}

/// Latest format version that this program knows of a role's folders. Chunk folders of version 2 may have a journal, without
/// which their files are not all there is.
fn latest_version(role: &str) -> u32 {
    if role == "chunks" { 2 } else { 1 }
}

/// Whose a data folder is: the content of its file `IDENTITY`.
///
/// ```text
/// mini-tectonic metadata v1
/// cluster=0190b5c4-7e5a-7cc3-98c4-dc0c0c07398f
/// end crc32c=1a2b3c4d
/// ```
/// A chunk folder's first line says `chunks`, and a line `node=` follows. The sum covers every byte before its line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// `metadata` or `chunks`.
    pub role: &'static str,
    /// The cluster's id, as text.
    pub cluster: String,
    /// The node's id, as text; chunk folders only.
    pub node: Option<String>,
    version: u32,
}

impl Identity {
    const FILE: &'static str = "IDENTITY";

    /// An identity of the latest version.
    pub fn new(role: &'static str, cluster: String, node: Option<String>) -> Self {
        Self { role, cluster, node, version: latest_version(role) }
    }

    fn to_text(&self) -> String {
        let mut text = format!("mini-tectonic {} v{}\ncluster={}\n", self.role, self.version, self.cluster);
        if let Some(node) = &self.node {
            text.push_str(&format!("node={node}\n"));
        }
        let crc = crc32c(text.as_bytes());
        text.push_str(&format!("end crc32c={crc:08x}\n"));
        text
    }

    fn parse(text: &str, role: &'static str, path: &Path) -> Result<Self, FolderError> {
        let damaged = |problem| FolderError::IdentityDamaged { path: path.to_path_buf(), problem };
        let (covered, sum) = text.rsplit_once("end crc32c=").ok_or_else(|| damaged("its last line is missing"))?;
        if sum != format!("{:08x}\n", crc32c(covered.as_bytes())) {
            return Err(damaged("its checksum does not match"));
        }
        let mut lines = covered.lines();
        let first = lines.next().and_then(|line| line.strip_prefix("mini-tectonic "));
        let (found_role, version) =
            first.and_then(|line| line.split_once(" v")).ok_or_else(|| damaged("its first line is not known"))?;
        let found: u32 = version.parse().map_err(|_not_a_number| damaged("its version is not a number"))?;
        check_same(path, "role", found_role, role)?;
        let known = latest_version(role);
        if found > known {
            return Err(FolderError::IdentityTooNew { path: path.to_path_buf(), found, known });
        }
        let cluster = lines.next().and_then(|line| line.strip_prefix("cluster="));
        let cluster = cluster.ok_or_else(|| damaged("it names no cluster"))?.to_owned();
        let node = match lines.next().map(|line| line.strip_prefix("node=")) {
            Some(Some(node)) => Some(node.to_owned()),
            Some(None) => return Err(damaged("it has an unknown line")),
            None => None,
        };
        Ok(Self { role, cluster, node, version: found })
    }

    /// Reads the folder's IDENTITY; `None` when there is none.
    ///
    /// # Errors
    /// [`FolderError`]: unreadable, damaged, too new, or of another role.
    pub fn read(folder: &Path, role: &'static str) -> Result<Option<Self>, FolderError> {
        let path = folder.join(Self::FILE);
        let Some(bytes) = read_small(&path)? else { return Ok(None) };
        let text = String::from_utf8(bytes)
            .map_err(|_not_text| FolderError::IdentityDamaged { path: path.clone(), problem: "it is not text" })?;
        Self::parse(&text, role, &path).map(Some)
    }

    /// Writes it, durably: the last step of a first start.
    ///
    /// # Errors
    /// [`FolderError::Io`].
    pub fn write(&self, folder: &Path) -> Result<(), FolderError> {
        publish(&folder.join(Self::FILE), self.to_text().as_bytes())
    }

    /// Makes a folder of an earlier version one of the latest, durably, so that programs that do not know that refuse it.
    ///
    /// # Errors
    /// [`FolderError::Io`].
    pub fn upgrade(self, folder: &Path) -> Result<(), FolderError> {
        let version = latest_version(self.role);
        if self.version == version { Ok(()) } else { Self { version, ..self }.write(folder) }
    }

    /// Refuses an identity that is not the expected one.
    ///
    /// # Errors
    /// [`FolderError::Foreign`].
    pub fn expect(&self, folder: &Path, expected: &Self) -> Result<(), FolderError> {
        let path = folder.join(Self::FILE);
        check_same(&path, "cluster", &self.cluster, &expected.cluster)?;
        let (found, expected) = (self.node.as_deref(), expected.node.as_deref());
        check_same(&path, "node", found.unwrap_or("none"), expected.unwrap_or("none"))
    }
}

fn check_same(path: &Path, what: &'static str, found: &str, expected: &str) -> Result<(), FolderError> {
    if found == expected {
        return Ok(());
    }
    let (found, expected) = (found.to_owned(), expected.to_owned());
    Err(FolderError::Foreign { path: path.to_path_buf(), what, found, expected })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn example() -> Identity {
        Identity::new("chunks", "c".to_owned(), Some("n".to_owned()))
    }

    #[test]
    fn a_folder_and_its_files_are_private() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path().join("a/b");
        assert!(create(&folder).unwrap());
        assert!(!create(&folder).unwrap());
        publish(&folder.join("key"), b"secret").unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&folder.join("key"))), (0o700, 0o600));
        assert_eq!(read_small(&folder.join("key")).unwrap().as_deref(), Some(b"secret".as_slice()));
        assert!(read_small(&folder.join("absent")).unwrap().is_none());
    }

    #[test]
    fn a_secret_is_read_as_long_as_nobody_else_can() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("key");
        assert!(read_secret(&path).unwrap().is_none());
        publish(&path, b"secret").unwrap();
        for (mode, taken) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false), (0o620, false)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let read = read_secret(&path);
            assert_eq!(read.is_ok(), taken, "{mode:o}");
            if let Err(refused) = read {
                let (told, path) = (refused.to_string(), path.display());
                assert!(told.contains(&format!("{path} (mode {mode:04o}); 'chmod 600 {path}'")), "{told}");
            }
        }
        let (reader, _writer) = io::pipe().unwrap();
        let pipe = File::from(std::os::fd::OwnedFd::from(reader));
        assert!(refuse_exposed(Path::new("/dev/stdin"), &pipe.metadata().unwrap()).is_ok());
    }

    /// A secret was written into whatever had the name of the temporary file: one that others could read, or a link to
    /// somebody else's.
    #[test]
    fn what_has_the_name_of_the_temporary_file_is_not_written_to() {
        let temporary = tempfile::tempdir().unwrap();
        let (path, in_the_way) = (temporary.path().join("key"), temporary.path().join("key.tmp"));
        let theirs = temporary.path().join("theirs");
        for is_link in [false, true] {
            publish(&theirs, b"theirs").unwrap();
            if is_link {
                std::os::unix::fs::symlink(&theirs, &in_the_way).unwrap();
            } else {
                std::fs::hard_link(&theirs, &in_the_way).unwrap();
            }
            std::fs::set_permissions(&theirs, std::fs::Permissions::from_mode(0o644)).unwrap();
            publish(&path, b"secret").unwrap();
            assert_eq!(std::fs::read(&theirs).unwrap(), b"theirs", "link: {is_link}");
            assert_eq!(read_secret(&path).unwrap().unwrap().as_slice(), b"secret");
        }
        std::fs::create_dir(&in_the_way).unwrap();
        assert!(publish(&path, b"other").is_err(), "a folder is nobody's temporary file");
    }

    #[test]
    fn a_second_lock_is_refused_until_the_first_is_gone() {
        let temporary = tempfile::tempdir().unwrap();
        let first = lock(temporary.path()).unwrap();
        assert!(matches!(lock(temporary.path()), Err(FolderError::InUse(_))));
        drop(first);
        assert!(lock(temporary.path()).is_ok());
    }

    /// `/sys` takes no files from anybody, root or not, mounted read-only or not.
    #[test]
    fn a_folder_that_takes_no_lock_is_told_to_be_read_only() {
        let refused = lock(Path::new("/sys")).unwrap_err();
        assert!(matches!(refused, FolderError::ReadOnly { .. }), "{refused:?}");
        assert!(refused.to_string().contains("make it writable, then start again"), "{refused}");
    }

    #[test]
    fn an_identity_reads_as_written_and_tells_foreign_folders() {
        let temporary = tempfile::tempdir().unwrap();
        assert!(Identity::read(temporary.path(), "chunks").unwrap().is_none());
        example().write(temporary.path()).unwrap();
        let read = Identity::read(temporary.path(), "chunks").unwrap().unwrap();
        assert_eq!(read, example());
        assert!(matches!(Identity::read(temporary.path(), "metadata"), Err(FolderError::Foreign { .. })));
        let other = Identity { cluster: "d".to_owned(), ..example() };
        assert!(matches!(read.expect(temporary.path(), &other), Err(FolderError::Foreign { what: "cluster", .. })));
    }

    #[test]
    fn a_folder_of_an_earlier_version_is_read_and_made_one_of_the_latest() {
        let temporary = tempfile::tempdir().unwrap();
        Identity { version: 1, ..example() }.write(temporary.path()).unwrap();
        let read = || Identity::read(temporary.path(), "chunks").unwrap().unwrap();
        assert_eq!(read(), Identity { version: 1, ..example() });
        read().upgrade(temporary.path()).unwrap();
        assert_eq!(read(), example());
    }

    #[test]
    fn every_damaged_identity_is_refused_and_a_newer_one_is_named() {
        let path = Path::new("IDENTITY");
        let text = example().to_text();
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            let changed = String::from_utf8(bytes).unwrap();
            assert!(Identity::parse(&changed, "chunks", path).is_err(), "changed at {at}");
            assert!(Identity::parse(&text[..at], "chunks", path).is_err(), "cut at {at}");
        }
        let newer = "mini-tectonic chunks v3\ncluster=c\n";
        let newer = format!("{newer}end crc32c={:08x}\n", crc32c(newer.as_bytes()));
        let refused = Identity::parse(&newer, "chunks", path);
        assert!(matches!(refused, Err(FolderError::IdentityTooNew { found: 3, known: 2, .. })));
    }
}

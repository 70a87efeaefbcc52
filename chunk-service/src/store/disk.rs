//! The seam between the store and the disk: one flat folder of files, named by the store alone.
//!
//! [`FolderDisk`] is the real one. Tests put faults in front of it, or run the store over a model of a disk that loses
//! what was not synced. Everything here blocks: it is called from [`Blocking`](crate::blocking::Blocking) only.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::{self, IoSliceMut};
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use proto::failpoint;
use rustix::buffer::spare_capacity;
use rustix::fs::{Advice, AtFlags, CWD, Dir, FallocateFlags, FileType, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::io::{Errno, ReadWriteFlags, retry_on_intr};

use super::direct::{DirectFile, PieceMemory};

/// Folder within the folder for files that are of no use and may still tell something. What is in it is never read, used
/// or deleted by the service.
pub(crate) const QUARANTINE: &str = ".quarantine";
/// How many files of the same name it takes; a chunk is moved there once or twice in its life.
const QUARANTINED_MAX: u32 = 1000;
/// `f_type` of a tmpfs (`statfs(2)`).
const TMPFS: u32 = 0x0102_1994;

/// How files are opened to be read. A pipe that somebody put there would be waited for without `NONBLOCK`. With `NOATIME`
/// beside it, where that is allowed: the first read of a file would write its inode otherwise, and wait for the file
/// system's journal to do so.
const READING: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC).union(OFlags::NONBLOCK);

/// Room on the disk, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Space {
    /// What it holds in all.
    pub(crate) capacity: u64,
    /// What is left for us.
    pub(crate) free: u64,
}

/// What has a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    /// Its length in bytes.
    pub(crate) size: u64,
    /// It is a file, and not a folder, a link or something else.
    pub(crate) is_file: bool,
}

/// The names in a folder, in no order. A name that is there all the while comes exactly once; one that comes or goes
/// meanwhile may or may not be among them.
pub(crate) type Names = Box<dyn Iterator<Item = io::Result<OsString>> + Send>;

/// One folder.
pub(crate) trait Disk: fmt::Debug + Send + Sync {
    /// Makes a file that must not be there yet (mode 0600).
    fn create_new(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;
    /// The same for a file of so many bytes, which is written from its beginning to its end.
    fn create_sized(&self, name: &str, bytes: u64) -> io::Result<Box<dyn DiskFile>> {
        let _no_matter = bytes;
        self.create_new(name)
    }
    /// Opens a file for reading and syncing; `None` when there is none.
    fn open(&self, name: &str) -> io::Result<Option<Box<dyn DiskFile>>>;
    /// As [`Disk::open`], but only if that needs nothing from the disk; `None` also when there is no such file, or when
    /// nobody can tell.
    fn open_cached(&self, name: &str) -> Option<Box<dyn DiskFile>> {
        let _nobody_can_tell = name;
        None
    }
    /// Opens a file for reading and writing, and makes it if there is none (mode 0600).
    fn open_or_create(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;
    /// Removes a name. Returns whether it was there.
    fn unlink(&self, name: &str) -> io::Result<bool>;
    /// Gives a file another name, replacing what had it.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Moves a file into [`QUARANTINE`], replacing nothing there; its new name is durable on return, that the old one
    /// is gone only after [`Disk::sync_folder`]. Returns whether it was there. An error without an errno is a failed sync.
    fn quarantine(&self, name: &str) -> io::Result<bool>;
    /// Makes the names durable.
    fn sync_folder(&self) -> io::Result<()>;
    /// Makes these files' bytes durable, as far as the files are there, and all names. An error of any of them that nobody
    /// was told of yet is told here, also when no descriptor was open then.
    fn sync_all(&self, names: &[String]) -> io::Result<()>;
    /// Whether any file's name ends like this.
    fn holds_any(&self, suffix: &str) -> io::Result<bool>;
    /// What has this name; `None` when nothing has.
    fn stat(&self, name: &str) -> io::Result<Option<Stat>>;
    /// All names. After an error nothing more is known of them.
    fn names(&self) -> io::Result<Names>;
    /// How much room there is.
    fn space(&self) -> io::Result<Space>;
    /// A mistake that a test wants the store to make.
    #[cfg(test)]
    fn mistake(&self) -> Option<super::testing::mistakes::Mistake> {
        None
    }
}

/// One open file. The descriptor that wrote is the one that syncs: another one would not see an earlier failure.
pub(crate) trait DiskFile: fmt::Debug + Send + Sync {
    /// Writes all of the bytes there.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Writes all of these parts there, one behind the other. Returns how many of the bytes a sync has still to bring to
    /// the disk.
    fn write_parts(&self, parts: &[Bytes], offset: u64) -> io::Result<u64> {
        let mut at = offset;
        for part in parts {
            self.write_at(part, at)?;
            failpoint!("put.part_written");
            at = at.saturating_add(part.len() as u64);
        }
        Ok(at - offset)
    }
    /// Appends exactly so many bytes from there to the buffer, or fails with `UnexpectedEof`.
    fn read_at(&self, buffer: &mut Vec<u8>, length: usize, offset: u64) -> io::Result<()>;
    /// The first so many bytes, but only if that needs nothing from the disk; `None` also when there are fewer, or when
    /// nobody can tell.
    fn read_cached(&self, length: usize) -> Option<Vec<u8>> {
        let _nobody_can_tell = length;
        None
    }
    /// The file's length.
    fn size(&self) -> io::Result<u64>;
    /// Takes room on the disk for so many bytes without changing the length. A disk that cannot is no error.
    fn reserve(&self, bytes: u64) -> io::Result<()>;
    /// Has the system begin to write these bytes to the disk, so that a later sync finds less to do. Promises nothing, and
    /// waits for nothing.
    fn write_soon(&self, offset: u64, bytes: u64) {
        let _nothing_is_promised = (offset, bytes);
    }
    /// Makes the content durable.
    fn sync(&self) -> io::Result<()>;
    /// Forgets what is cached of the content, so that it is read from the disk next time.
    fn drop_cache(&self) -> io::Result<()>;
}

/// A real folder, held by its descriptor: what is mounted over its path later changes nothing.
#[derive(Debug)]
pub(crate) struct FolderDisk {
    folder: OwnedFd,
    path: PathBuf,
    /// Held while a name is made.
    making: Mutex<()>,
    /// The file system is one of the kernel's own: one `syncfs` makes everything durable, and what is cached is given out
    /// without asking anybody.
    in_kernel: bool,
    /// Files of this size and more are written past the page cache; `None` for none.
    direct_from: Option<u64>,
    /// Shared by all files that are.
    pieces: Arc<PieceMemory>,
}

impl FolderDisk {
    /// Opens the folder, which must be there.
    pub(crate) fn open_folder(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::openat(CWD, path, flags, Mode::empty())?;
        let in_kernel = whole_sync::is_known_to_work(&folder)?;
        let (path, making, pieces) = (path.to_path_buf(), Mutex::default(), Arc::default());
        Ok(Self { folder, path, making, in_kernel, direct_from: None, pieces })
    }

    /// The same, which writes files of this size and more past the page cache; `None` for none.
    ///
    /// # Errors
    /// When the folder's file system cannot be asked for.
    pub(crate) fn writing_directly(self, from_bytes: Option<u64>) -> io::Result<Self> {
        // There the cache is all there is.
        let in_memory = u32::try_from(rustix::fs::fstatfs(&self.folder)?.f_type) == Ok(TMPFS);
        Ok(Self { direct_from: from_bytes.filter(|_| !in_memory), ..self })
    }

    fn make(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        // The system makes one name of a folder at a time, and lets whoever waits for that spin; here they sleep.
        let _turn = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(File::from(retry_on_intr(|| rustix::fs::openat(&self.folder, name, flags, Mode::RUSR | Mode::WUSR))?))
    }

    /// The folder of what was moved aside; made when somebody has removed it.
    fn open_quarantine(&self) -> io::Result<OwnedFd> {
        match rustix::fs::mkdirat(&self.folder, QUARANTINE, Mode::RWXU) {
            Ok(()) => sync_names(&self.folder)?,
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.folder, QUARANTINE, flags, Mode::empty())?)
    }

    /// Moves a file to a name that nothing has; not every file system can do that in one step.
    fn move_to_free(&self, name: &str, folder: &OwnedFd, new_name: &str) -> Result<(), Errno> {
        match rustix::fs::renameat_with(&self.folder, name, folder, new_name, RenameFlags::NOREPLACE) {
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => self.look_and_move(name, folder, new_name),
            moved => moved,
        }
    }

    /// The same in two steps: a chunk's files are moved by its owner alone, so nobody comes in between.
    fn look_and_move(&self, name: &str, folder: &OwnedFd, new_name: &str) -> Result<(), Errno> {
        match rustix::fs::statat(folder, new_name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_taken) => Err(Errno::EXIST),
            Err(Errno::NOENT) => rustix::fs::renameat(&self.folder, name, folder, new_name),
            Err(error) => Err(error),
        }
    }
}

/// Whether one call makes a whole file system durable.
mod whole_sync {
    use std::io;
    use std::os::fd::OwnedFd;

    /// `f_type` of file systems whose `syncfs` ends with everything on the disk, names too (`statfs(2)`): ext2 to ext4,
    /// XFS, Btrfs, F2FS, tmpfs. That of FUSE ends before the file system behind it has heard of anything.
    const MAGICS: [u32; 5] = [0xEF53, 0x5846_5342, 0x9123_683E, 0xF2F5_2010, super::TMPFS];
    /// From this version on `syncfs` tells of errors that happened since the descriptor was opened (`syncfs(2)`).
    const LINUX: (u32, u32) = (5, 8);

    /// Whether this folder's file system and the kernel are such.
    pub(super) fn is_known_to_work(folder: &OwnedFd) -> io::Result<bool> {
        let magic = u32::try_from(rustix::fs::fstatfs(folder)?.f_type).unwrap_or_default();
        let kernel = rustix::system::uname();
        Ok(MAGICS.contains(&magic) && version(&kernel.release().to_string_lossy()).is_some_and(|found| found >= LINUX))
    }

    /// The first two numbers of a release like `6.1.0-13-amd64`.
    fn version(release: &str) -> Option<(u32, u32)> {
        let mut numbers = release.split(|c: char| !c.is_ascii_digit());
        Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    }

    #[test]
    fn kernels_are_told_apart_by_their_release() {
        assert_eq!(version("6.1.0-13-amd64"), Some((6, 1)));
        assert_eq!((version("5.10"), version("4.19.0+")), (Some((5, 10)), Some((4, 19))));
        assert_eq!((version("six"), version("")), (None, None));
    }
}

/// A sync within another operation. Its failure is final whatever the reason, so it hides an errno that would pass by itself.
fn sync_names(folder: &OwnedFd) -> io::Result<()> {
    rustix::fs::fsync(folder).map_err(io::Error::other)
}

impl Disk for FolderDisk {
    fn create_new(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(self.make(name)?))
    }

    fn create_sized(&self, name: &str, bytes: u64) -> io::Result<Box<dyn DiskFile>> {
        let file = self.make(name)?;
        let directly = self.direct_from.is_some_and(|from| bytes >= from);
        Ok(if directly { Box::new(DirectFile::new(file, Arc::clone(&self.pieces))) } else { Box::new(file) })
    }

    fn open(&self, name: &str) -> io::Result<Option<Box<dyn DiskFile>>> {
        let open = |flags| retry_on_intr(|| rustix::fs::openat(&self.folder, name, flags, Mode::empty()));
        let opened = match open(READING | OFlags::NOATIME) {
            // Only a file's owner may ask for that.
            Err(Errno::PERM) => open(READING),
            opened => opened,
        };
        match opened {
            Ok(file) => Ok(Some(Box::new(File::from(file)))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn open_cached(&self, name: &str) -> Option<Box<dyn DiskFile>> {
        if !self.in_kernel {
            return None;
        }
        let flags = READING | OFlags::NOATIME;
        // Of Linux 5.12 (`openat2(2)`).
        let file = rustix::fs::openat2(&self.folder, name, flags, Mode::empty(), ResolveFlags::CACHED);
        Some(Box::new(File::from(file.ok()?)))
    }

    fn open_or_create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = retry_on_intr(|| rustix::fs::openat(&self.folder, name, flags, Mode::RUSR | Mode::WUSR))?;
        Ok(Box::new(File::from(file)))
    }

    fn unlink(&self, name: &str) -> io::Result<bool> {
        match rustix::fs::unlinkat(&self.folder, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.folder, from, &self.folder, to)?)
    }

    fn quarantine(&self, name: &str) -> io::Result<bool> {
        let folder = self.open_quarantine()?;
        for number in 0..QUARANTINED_MAX {
            let new_name = if number == 0 { name.to_owned() } else { format!("{name}.{number}") };
            match self.move_to_free(name, &folder, &new_name) {
                Ok(()) => return sync_names(&folder).map(|()| true),
                Err(Errno::NOENT) => return Ok(false),
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Errno::EXIST.into())
    }

    fn sync_folder(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.folder)?)
    }

    fn sync_all(&self, names: &[String]) -> io::Result<()> {
        if !self.in_kernel {
            for name in names {
                if let Some(file) = self.open(name)? {
                    file.sync()?;
                }
            }
            self.sync_folder()?;
        }
        // Also tells of what failed behind descriptors that are closed by now.
        Ok(rustix::fs::syncfs(&self.folder)?)
    }

    fn holds_any(&self, suffix: &str) -> io::Result<bool> {
        for entry in std::fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            if OsStr::as_encoded_bytes(&name).ends_with(suffix.as_bytes()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn stat(&self, name: &str) -> io::Result<Option<Stat>> {
        match rustix::fs::statat(&self.folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => {
                let size = u64::try_from(stat.st_size).map_err(io::Error::other)?;
                Ok(Some(Stat { size, is_file: FileType::from_raw_mode(stat.st_mode).is_file() }))
            }
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn names(&self) -> io::Result<Names> {
        let entries = Dir::read_from(&self.folder)?;
        let names = entries.map(|entry| Ok(OsString::from_vec(entry?.file_name().to_bytes().to_vec())));
        Ok(Box::new(names.filter(|name| !name.as_ref().is_ok_and(|name| name == "." || name == ".."))))
    }

    fn space(&self) -> io::Result<Space> {
        let stat = rustix::fs::fstatvfs(&self.folder)?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        Ok(Space { capacity: bytes(stat.f_blocks), free: bytes(stat.f_bavail) })
    }
}

impl DiskFile for File {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn read_at(&self, buffer: &mut Vec<u8>, length: usize, offset: u64) -> io::Result<()> {
        let end = buffer.len() + length;
        buffer.reserve_exact(length);
        let mut at = offset;
        while buffer.len() < end {
            match rustix::io::pread(self, spare_capacity(buffer), at) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => at = at.saturating_add(read as u64),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        // The buffer may have had more room than was asked for.
        buffer.truncate(end);
        Ok(())
    }

    fn read_cached(&self, length: usize) -> Option<Vec<u8>> {
        let mut buffer = vec![0; length];
        // Of Linux 4.14 (`preadv2(2)`): what is not in the page cache is not waited for, and what comes ends there. Linux 6.18
        // begins to read it, so that it may be there the next time.
        let read = rustix::io::preadv2(self, &mut [IoSliceMut::new(&mut buffer)], 0, ReadWriteFlags::NOWAIT);
        (read == Ok(length)).then_some(buffer)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn reserve(&self, bytes: u64) -> io::Result<()> {
        match retry_on_intr(|| rustix::fs::fallocate(self, FallocateFlags::KEEP_SIZE, 0, bytes)) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn write_soon(&self, offset: u64, bytes: u64) {
        // Linux begins to write dirty pages that nobody is said to need, and keeps them; where it does not, a sync will.
        let _may_fail = rustix::fs::fadvise(self, offset, NonZeroU64::new(bytes), Advice::DontNeed);
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn drop_cache(&self) -> io::Result<()> {
        Ok(rustix::fs::fadvise(self, 0, None, Advice::DontNeed)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_memory_is_read_without_the_disk_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let disk = FolderDisk::open_folder(folder.path()).unwrap();
        disk.create_new("x.blob").unwrap().write_at(b"content", 0).unwrap();
        std::os::unix::fs::symlink("x.blob", folder.path().join("link")).unwrap();
        assert!(disk.open_cached("y.blob").is_none() && disk.open_cached("link").is_none());
        // A file system that cannot say what it has in memory has nothing at hand.
        if let Some(file) = disk.open_cached("x.blob") {
            assert_eq!(file.size().unwrap(), 7);
            assert!([None, Some(b"content".to_vec())].contains(&file.read_cached(7)));
            assert_eq!(file.read_cached(8), None, "it is shorter");
        }
    }

    #[test]
    fn only_files_that_are_large_enough_are_written_past_the_cache() {
        let folder = tempfile::tempdir().unwrap();
        let disk = FolderDisk::open_folder(folder.path()).unwrap();
        let in_memory = u32::try_from(rustix::fs::fstatfs(&disk.folder).unwrap().f_type) == Ok(TMPFS);
        let disk = disk.writing_directly(Some(8192)).unwrap();
        let is_direct =
            |name, bytes| format!("{:?}", disk.create_sized(name, bytes).unwrap()).starts_with("DirectFile");
        assert!(!is_direct("small", 8191));
        assert_eq!(is_direct("large", 8192), !in_memory);
        let disk = disk.writing_directly(None).unwrap();
        assert!(!format!("{:?}", disk.create_sized("any", 1 << 30).unwrap()).starts_with("DirectFile"));
    }

    #[test]
    fn reading_a_file_leaves_no_trace_on_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let disk = FolderDisk::open_folder(folder.path()).unwrap();
        let path = folder.path().join("x.blob");
        disk.create_new("x.blob").unwrap().write_at(b"content", 0).unwrap();
        // Older than the last write, so that a file system that notes reads at all would note the next one.
        let long_ago = std::time::SystemTime::UNIX_EPOCH;
        File::open(&path).unwrap().set_times(std::fs::FileTimes::new().set_accessed(long_ago)).unwrap();
        disk.open("x.blob").unwrap().unwrap().read_at(&mut Vec::new(), 7, 0).unwrap();
        disk.open_cached("x.blob").and_then(|file| file.read_cached(7));
        assert_eq!(path.metadata().unwrap().accessed().unwrap(), long_ago);
    }

    #[test]
    fn a_quarantine_keeps_every_file_that_was_moved_there() {
        let folder = tempfile::tempdir().unwrap();
        let disk = FolderDisk::open_folder(folder.path()).unwrap();
        assert!(!disk.quarantine("x.blob").unwrap());
        for content in [b"first", b"other"] {
            disk.create_new("x.blob").unwrap().write_at(content, 0).unwrap();
            assert!(disk.quarantine("x.blob").unwrap());
            assert!(disk.open("x.blob").unwrap().is_none());
        }
        let read = |name| std::fs::read(folder.path().join(QUARANTINE).join(name)).unwrap();
        assert_eq!((read("x.blob"), read("x.blob.1")), (b"first".to_vec(), b"other".to_vec()));
        disk.create_new("x.blob").unwrap();
        let quarantine = disk.open_quarantine().unwrap();
        assert_eq!(disk.look_and_move("x.blob", &quarantine, "x.blob"), Err(Errno::EXIST), "where it takes two steps");
        disk.look_and_move("x.blob", &quarantine, "x.blob.2").unwrap();
        assert_eq!((read("x.blob"), read("x.blob.2")), (b"first".to_vec(), Vec::new()));
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &std::fs::metadata(folder.path().join(QUARANTINE)).unwrap().permissions(),
        );
        assert_eq!(mode & 0o777, 0o700);
        assert!(!disk.holds_any(".blob").unwrap(), "what is set aside is no chunk");
    }
}

//! The disk as a file system that processes can use.
//!
//! The kernel passes every write on at once and keeps nothing back, so that what is in the page cache and not on the disk
//! is known here alone. A mount lives as long as the processes do: the next ones see nothing that the kernel remembers.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    BackgroundSession, BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use proto::runtime::{Clock as _, SystemClock};

use crate::file::FileImage;
use crate::image::{Body, FolderImage, Image, Inode, Journal, Node, Refusal};
use crate::machine::{Machine, State};

/// How long the kernel may believe what it was told: for ever, since nobody else changes anything.
const VALID: Duration = Duration::from_secs(86_400);
const BLOCK_BYTES: u32 = 4096;
/// 1 TiB, so that the services do not think that the disk is full.
const BLOCKS: u64 = 1 << 28;

/// Makes the disk visible at a folder until the session is dropped.
pub(crate) fn mount(machine: &Arc<Machine>, at: &Path) -> io::Result<BackgroundSession> {
    let mut config = fuser::Config::default();
    config.mount_options = vec![MountOption::FSName("power-cut".to_owned()), MountOption::DefaultPermissions];
    fuser::spawn_mount(Mounted { machine: Arc::clone(machine), listings: Mutex::default() }, at, &config)
}

/// Takes the disk away, once no process uses it any more.
///
/// A thread that has just taken a request when the end comes is told that the connection was aborted
/// (`fuse_dev_do_read` of Linux 6.18), and not that there is none any more. What was under way then is the release of files
/// whose processes are gone: an end like any other. It failed a run once.
pub(crate) fn unmount(session: BackgroundSession) -> io::Result<()> {
    match session.umount_and_join() {
        Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => Ok(()),
        ended => ended,
    }
}

/// Whether this process may mount at all.
///
/// # Errors
/// Why it may not: no `/dev/fuse`, or no right to mount.
pub(crate) fn try_to_mount() -> io::Result<()> {
    let (machine, at) = (Machine::new(Image::new(Journal::None)), tempfile::tempdir()?);
    unmount(mount(&Arc::new(machine), at.path())?)
}

#[derive(Debug)]
struct Mounted {
    machine: Arc<Machine>,
    /// What each open folder listed when it was opened.
    listings: Mutex<Listings>,
}

type Listings = BTreeMap<u64, Vec<(Inode, FileType, OsString)>>;

fn errno(refusal: Refusal) -> Errno {
    match refusal {
        Refusal::Missing => Errno::ENOENT,
        Refusal::Exists => Errno::EEXIST,
        Refusal::NotFolder => Errno::ENOTDIR,
        Refusal::IsFolder => Errno::EISDIR,
        Refusal::NotEmpty => Errno::ENOTEMPTY,
    }
}

fn kind(node: &Node) -> FileType {
    match node.body {
        Body::File(_) => FileType::RegularFile,
        Body::Folder(_) => FileType::Directory,
    }
}

fn attributes(request: &Request, inode: Inode, node: &Node) -> FileAttr {
    let size = match &node.body {
        Body::File(file) => file.bytes().len() as u64,
        Body::Folder(_) => 0,
    };
    let time = UNIX_EPOCH + Duration::from_millis(node.changed_ms);
    FileAttr {
        ino: INodeNo(inode),
        size,
        blocks: size.div_ceil(512),
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        kind: kind(node),
        perm: node.mode,
        nlink: 1,
        uid: request.uid(),
        gid: request.gid(),
        rdev: 0,
        blksize: BLOCK_BYTES,
        flags: 0,
    }
}

fn now_ms() -> u64 {
    SystemClock.now_ms()
}

fn position(offset: u64) -> Result<usize, Errno> {
    usize::try_from(offset).map_err(|_too_far| Errno::EFBIG)
}

fn permissions(mode: u32) -> u16 {
    u16::try_from(mode & 0o7777).expect("twelve bits fit")
}

impl Mounted {
    fn look<T>(&self, work: impl FnOnce(&State) -> Result<T, Errno>) -> Result<T, Errno> {
        self.machine.look().map_or(Err(Errno::EIO), |state| work(&state))
    }

    fn step<T>(&self, work: impl FnOnce(&mut State) -> Result<T, Errno>) -> Result<T, Errno> {
        self.machine.step().map_or(Err(Errno::EIO), |mut state| work(&mut state))
    }

    fn attributes_of(&self, request: &Request, inode: Inode) -> Result<FileAttr, Errno> {
        self.look(|state| Ok(attributes(request, inode, state.image.node(inode).map_err(errno)?)))
    }

    fn create(
        &self,
        request: &Request,
        folder: INodeNo,
        name: &OsStr,
        mode: u32,
        body: Body,
    ) -> Result<FileAttr, Errno> {
        self.step(|state| {
            let made = state.image.create(folder.0, name, permissions(mode), body, now_ms());
            let inode = made.map_err(errno)?;
            Ok(attributes(request, inode, state.image.node(inode).map_err(errno)?))
        })
    }

    fn sync(&self, inode: INodeNo) -> Result<(), Errno> {
        self.step(|state| state.sync(inode.0).map_err(errno))
    }

    fn listings(&self) -> MutexGuard<'_, Listings> {
        self.listings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn done(outcome: Result<(), Errno>, reply: ReplyEmpty) {
    match outcome {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

fn entry(outcome: Result<FileAttr, Errno>, reply: ReplyEntry) {
    match outcome {
        Ok(attributes) => reply.entry(&VALID, &attributes, Generation(0)),
        Err(error) => reply.error(error),
    }
}

fn attribute(outcome: Result<FileAttr, Errno>, reply: ReplyAttr) {
    match outcome {
        Ok(attributes) => reply.attr(&VALID, &attributes),
        Err(error) => reply.error(error),
    }
}

impl Filesystem for Mounted {
    fn lookup(&self, request: &Request, folder: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.look(|state| {
            let inode = state.image.look_up(folder.0, name).map_err(errno)?;
            Ok(attributes(request, inode, state.image.node(inode).map_err(errno)?))
        });
        entry(found, reply);
    }

    fn getattr(&self, request: &Request, inode: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        attribute(self.attributes_of(request, inode.0), reply);
    }

    fn setattr(
        &self,
        request: &Request,
        inode: INodeNo,
        mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let changed = self.step(|state| {
            if let Some(size) = size {
                state.image.file_mut(inode.0).map_err(errno)?.resize(position(size)?);
            }
            let node = state.image.node_mut(inode.0).map_err(errno)?;
            node.changed_ms = now_ms();
            node.mode = mode.map_or(node.mode, permissions);
            Ok(attributes(request, inode.0, node))
        });
        attribute(changed, reply);
    }

    fn mkdir(&self, request: &Request, folder: INodeNo, name: &OsStr, mode: u32, _umask: u32, reply: ReplyEntry) {
        entry(self.create(request, folder, name, mode, Body::Folder(FolderImage::default())), reply);
    }

    fn create(
        &self,
        request: &Request,
        folder: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        match self.create(request, folder, name, mode, Body::File(FileImage::default())) {
            Ok(made) => reply.created(&VALID, &made, Generation(0), FileHandle(0), FopenFlags::empty()),
            Err(error) => reply.error(error),
        }
    }

    fn unlink(&self, _request: &Request, folder: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        done(self.step(|state| state.image.remove(folder.0, name).map_err(errno)), reply);
    }

    fn rmdir(&self, _request: &Request, folder: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        done(self.step(|state| state.image.remove(folder.0, name).map_err(errno)), reply);
    }

    fn rename(
        &self,
        _request: &Request,
        folder: INodeNo,
        name: &OsStr,
        new_folder: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if flags.intersects(!RenameFlags::RENAME_NOREPLACE) {
            return reply.error(Errno::EINVAL);
        }
        let exclusive = flags.contains(RenameFlags::RENAME_NOREPLACE);
        let renamed =
            self.step(|state| state.image.rename((folder.0, name), (new_folder.0, new_name), exclusive).map_err(errno));
        done(renamed, reply);
    }

    fn read(
        &self,
        _request: &Request,
        inode: INodeNo,
        _handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let part = self.look(|state| match &state.image.node(inode.0).map_err(errno)?.body {
            Body::Folder(_) => Err(Errno::EISDIR),
            Body::File(file) => {
                let rest = file.bytes().get(position(offset)?..).unwrap_or_default();
                Ok(rest.get(..position(size.into())?).unwrap_or(rest).to_vec())
            }
        });
        match part {
            Ok(part) => reply.data(&part),
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _request: &Request,
        inode: INodeNo,
        _handle: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let written = self.step(|state| {
            state.image.file_mut(inode.0).map_err(errno)?.write(position(offset)?, data);
            state.image.node_mut(inode.0).map_err(errno)?.changed_ms = now_ms();
            u32::try_from(data.len()).map_err(|_too_long| Errno::EFBIG)
        });
        match written {
            Ok(length) => reply.written(length),
            Err(error) => reply.error(error),
        }
    }

    /// Closing a file makes nothing durable.
    fn flush(&self, _request: &Request, _inode: INodeNo, _handle: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _request: &Request, inode: INodeNo, _handle: FileHandle, _data_only: bool, reply: ReplyEmpty) {
        done(self.sync(inode), reply);
    }

    fn fsyncdir(&self, _request: &Request, inode: INodeNo, _handle: FileHandle, _data_only: bool, reply: ReplyEmpty) {
        done(self.sync(inode), reply);
    }

    fn opendir(&self, _request: &Request, inode: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let listed = self.look(|state| {
            let names = &state.image.folder(inode.0).map_err(errno)?.cached;
            let line = |(name, inode): (&OsString, &Inode)| {
                state.image.node(*inode).map(|node| (*inode, kind(node), name.clone())).map_err(errno)
            };
            let here = [".", ".."].map(|name| Ok((inode.0, FileType::Directory, name.into())));
            here.into_iter().chain(names.iter().map(line)).collect::<Result<Vec<_>, _>>()
        });
        match listed {
            Ok(listing) => {
                let mut listings = self.listings();
                let handle = listings.last_key_value().map_or(1, |(last, _)| last + 1);
                listings.insert(handle, listing);
                reply.opened(FileHandle(handle), FopenFlags::empty());
            }
            Err(error) => reply.error(error),
        }
    }

    fn readdir(&self, _request: &Request, _inode: INodeNo, handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let listings = self.listings();
        let lines = listings.get(&handle.0).map(Vec::as_slice).unwrap_or_default();
        for (at, (inode, kind, name)) in (0_u64..).zip(lines).filter(|(at, _)| *at >= offset) {
            if reply.add(INodeNo(*inode), at + 1, *kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(&self, _r: &Request, _inode: INodeNo, handle: FileHandle, _flags: OpenFlags, reply: ReplyEmpty) {
        self.listings().remove(&handle.0);
        reply.ok();
    }

    fn statfs(&self, _request: &Request, _inode: INodeNo, reply: ReplyStatfs) {
        reply.statfs(BLOCKS, BLOCKS, BLOCKS, BLOCKS, BLOCKS, BLOCK_BYTES, 255, BLOCK_BYTES);
    }
}

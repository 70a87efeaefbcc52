//! A descriptor: good until its process crashes, and told once of a write-back that failed while it was open.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::io::Errno;

use super::{Content, CrashDisk, Inode, State};
use crate::store::disk::DiskFile;

#[derive(Debug)]
pub(super) struct CrashFile {
    pub(super) disk: CrashDisk,
    pub(super) inode: Inode,
    pub(super) age: u64,
    /// Failed write-backs that this descriptor has been told of.
    pub(super) told: AtomicU64,
}

impl CrashFile {
    fn with<T>(&self, use_content: impl FnOnce(&mut Content) -> io::Result<T>) -> io::Result<T> {
        self.with_state(|state| use_content(state.inodes.get_mut(&self.inode).unwrap()))
    }

    fn with_state<T>(&self, use_state: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.disk.0.lock().unwrap();
        if state.age == self.age { use_state(&mut state) } else { Err(Errno::BADF.into()) }
    }
}

impl DiskFile for CrashFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.with_state(|state| {
            let (lost, offset) = (state.loses_next_write, usize::try_from(offset).unwrap());
            let content = state.inodes.get_mut(&self.inode).unwrap();
            let longer = (offset + bytes.len()).saturating_sub(content.cached.len());
            state.free = state.free.checked_sub(longer as u64).ok_or(Errno::NOSPC)?;
            state.loses_next_write = false;
            content.write(offset, bytes, lost);
            state.note();
            Ok(())
        })
    }

    fn read_at(&self, buffer: &mut Vec<u8>, length: usize, offset: u64) -> io::Result<()> {
        self.with(|content| {
            let offset = usize::try_from(offset).unwrap();
            let bytes = content.cached.get(offset..offset + length).ok_or(io::ErrorKind::UnexpectedEof)?;
            buffer.extend_from_slice(bytes);
            Ok(())
        })
    }

    fn read_cached(&self, length: usize) -> Option<Vec<u8>> {
        let mut buffer = Vec::new();
        self.read_at(&mut buffer, length, 0).is_ok().then_some(buffer)
    }

    fn size(&self) -> io::Result<u64> {
        self.with(|content| Ok(content.cached.len() as u64))
    }

    fn reserve(&self, bytes: u64) -> io::Result<()> {
        self.with_state(|state| if state.free < bytes { Err(Errno::NOSPC.into()) } else { Ok(()) })
    }

    fn sync(&self) -> io::Result<()> {
        self.with_state(|state| {
            let content = state.inodes.get_mut(&self.inode).unwrap();
            if self.told.swap(content.failures, Ordering::Relaxed) < content.failures {
                return Err(Errno::IO.into());
            }
            content.sync();
            state.note();
            Ok(())
        })
    }

    fn drop_cache(&self) -> io::Result<()> {
        self.with(|content| {
            content.drop_cache();
            Ok(())
        })
    }
}

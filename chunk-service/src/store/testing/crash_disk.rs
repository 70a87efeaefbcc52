//! A model of a folder that may lose, at a crash, whatever was not synced.
//!
//! Bytes written and names made since the last sync are pending. A crash keeps any subset of them: a write may be kept,
//! torn or lost, each on its own; so may each change of a name. That is more than a journalling file system would do,
//! and all that POSIX promises.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use rustix::io::Errno;

use crate::store::disk::{Disk, DiskFile, Names, QUARANTINE, Space, Stat};

type Inode = u64;

#[derive(Debug, Clone, Default)]
struct Content {
    cached: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<(usize, Vec<u8>)>,
}

#[derive(Debug, Clone)]
enum NameChange {
    Set(String, Inode),
    Remove(String),
}

#[derive(Debug, Default)]
struct State {
    names: BTreeMap<String, Inode>,
    durable_names: BTreeMap<String, Inode>,
    pending: Vec<NameChange>,
    inodes: BTreeMap<Inode, Content>,
    /// Counts crashes: descriptors opened before one are dead.
    age: u64,
    free: u64,
}

/// The disk. Clones are the same one.
#[derive(Debug, Clone)]
pub(crate) struct CrashDisk(Arc<Mutex<State>>);

impl CrashDisk {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(State { free: u64::MAX, ..State::default() })))
    }

    /// How many bytes may still be written.
    pub(crate) fn set_free(&self, free: u64) {
        self.0.lock().unwrap().free = free;
    }

    /// Loses what was not synced, as `choose` says: it returns a number below its argument.
    pub(crate) fn crash(&self, choose: &mut dyn FnMut(usize) -> usize) {
        let mut state = self.0.lock().unwrap();
        let state = &mut *state;
        state.age += 1;
        for change in std::mem::take(&mut state.pending) {
            if choose(2) == 1 {
                apply_name(&mut state.durable_names, change);
            }
        }
        state.names = state.durable_names.clone();
        for content in state.inodes.values_mut() {
            for (offset, bytes) in std::mem::take(&mut content.pending) {
                let kept = match choose(3) {
                    0 => 0,
                    1 => choose(bytes.len()),
                    _ => bytes.len(),
                };
                apply_bytes(&mut content.durable, offset, &bytes[..kept]);
            }
            content.cached = content.durable.clone();
        }
    }

    /// The names, as they are now.
    pub(crate) fn names(&self) -> Vec<String> {
        self.0.lock().unwrap().names.keys().cloned().collect()
    }

    /// A file's bytes, as they are now.
    pub(crate) fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.0.lock().unwrap();
        let inode = state.names.get(name)?;
        Some(state.inodes.get(inode)?.cached.clone())
    }

    /// Changes bytes behind everybody's back, on the disk and in the cache.
    pub(crate) fn damage(&self, name: &str, change: impl Fn(&mut Vec<u8>)) {
        let mut state = self.0.lock().unwrap();
        let inode = state.names[name];
        let content = state.inodes.get_mut(&inode).unwrap();
        content.pending.clear();
        change(&mut content.cached);
        content.durable = content.cached.clone();
    }

    /// Makes an empty file behind everybody's back.
    pub(crate) fn make(&self, name: &str) {
        self.create_new(name).unwrap().sync().unwrap();
    }

    /// Loses a name behind everybody's back.
    pub(crate) fn lose(&self, name: &str) {
        let mut state = self.0.lock().unwrap();
        state.pending.retain(|change| !matches!(change, NameChange::Set(set, _) if set == name));
        state.names.remove(name);
        state.durable_names.remove(name);
    }

    /// Gives two files each other's bytes.
    pub(crate) fn swap(&self, a: &str, b: &str) {
        let (of_a, of_b) = (self.bytes(a).unwrap(), self.bytes(b).unwrap());
        self.damage(a, |bytes| bytes.clone_from(&of_b));
        self.damage(b, |bytes| bytes.clone_from(&of_a));
    }

    fn file(&self, inode: Inode, age: u64) -> Box<dyn DiskFile> {
        Box::new(CrashFile { disk: self.clone(), inode, age })
    }
}

fn apply_name(names: &mut BTreeMap<String, Inode>, change: NameChange) {
    match change {
        NameChange::Set(name, inode) => names.insert(name, inode),
        NameChange::Remove(name) => names.remove(&name),
    };
}

fn apply_bytes(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    let end = offset + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset..end].copy_from_slice(bytes);
}

impl State {
    fn change(&mut self, change: NameChange) {
        apply_name(&mut self.names, change.clone());
        self.pending.push(change);
    }
}

impl Disk for CrashDisk {
    fn create_new(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.0.lock().unwrap();
        if state.names.contains_key(name) {
            return Err(Errno::EXIST.into());
        }
        let inode = state.inodes.len() as u64;
        state.inodes.insert(inode, Content::default());
        state.change(NameChange::Set(name.to_owned(), inode));
        Ok(self.file(inode, state.age))
    }

    fn open(&self, name: &str) -> io::Result<Option<Box<dyn DiskFile>>> {
        let state = self.0.lock().unwrap();
        Ok(state.names.get(name).map(|inode| self.file(*inode, state.age)))
    }

    fn unlink(&self, name: &str) -> io::Result<bool> {
        let mut state = self.0.lock().unwrap();
        let there = state.names.contains_key(name);
        if there {
            state.change(NameChange::Remove(name.to_owned()));
        }
        Ok(there)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        let inode = *state.names.get(from).ok_or(Errno::NOENT)?;
        state.change(NameChange::Remove(from.to_owned()));
        state.change(NameChange::Set(to.to_owned(), inode));
        Ok(())
    }

    fn quarantine(&self, name: &str) -> io::Result<bool> {
        let mut state = self.0.lock().unwrap();
        let Some(inode) = state.names.get(name).copied() else { return Ok(false) };
        let same_name = |taken: &&String| taken.starts_with(&format!("{QUARANTINE}/{name}"));
        let number = state.names.keys().filter(same_name).count();
        let new_name = format!("{QUARANTINE}/{name}.{number}");
        state.names.insert(new_name.clone(), inode);
        state.durable_names.insert(new_name, inode);
        state.change(NameChange::Remove(name.to_owned()));
        Ok(true)
    }

    fn sync_folder(&self) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.pending.clear();
        state.durable_names = state.names.clone();
        Ok(())
    }

    fn holds_any(&self, suffix: &str) -> io::Result<bool> {
        Ok(self.names().iter().any(|name| name.ends_with(suffix) && !name.starts_with(QUARANTINE)))
    }

    fn stat(&self, name: &str) -> io::Result<Option<Stat>> {
        Ok(self.bytes(name).map(|bytes| Stat { size: bytes.len() as u64, is_file: true }))
    }

    fn names(&self) -> io::Result<Names> {
        let names = CrashDisk::names(self).into_iter().filter(|name| !name.starts_with(QUARANTINE));
        Ok(Box::new(names.map(|name| Ok(name.into()))))
    }

    fn space(&self) -> io::Result<Space> {
        Ok(Space { capacity: u64::MAX, free: self.0.lock().unwrap().free })
    }
}

#[derive(Debug)]
struct CrashFile {
    disk: CrashDisk,
    inode: Inode,
    age: u64,
}

impl CrashFile {
    fn with<T>(&self, use_content: impl FnOnce(&mut Content, &mut u64) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.disk.0.lock().unwrap();
        let state = &mut *state;
        if state.age != self.age {
            return Err(Errno::BADF.into());
        }
        use_content(state.inodes.get_mut(&self.inode).unwrap(), &mut state.free)
    }
}

impl DiskFile for CrashFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.with(|content, free| {
            *free = free.checked_sub(bytes.len() as u64).ok_or(Errno::NOSPC)?;
            let offset = usize::try_from(offset).unwrap();
            apply_bytes(&mut content.cached, offset, bytes);
            content.pending.push((offset, bytes.to_vec()));
            Ok(())
        })
    }

    fn read_at(&self, buffer: &mut Vec<u8>, length: usize, offset: u64) -> io::Result<()> {
        self.with(|content, _free| {
            let offset = usize::try_from(offset).unwrap();
            let bytes = content.cached.get(offset..offset + length).ok_or(io::ErrorKind::UnexpectedEof)?;
            buffer.extend_from_slice(bytes);
            Ok(())
        })
    }

    fn size(&self) -> io::Result<u64> {
        self.with(|content, _free| Ok(content.cached.len() as u64))
    }

    fn reserve(&self, bytes: u64) -> io::Result<()> {
        self.with(|_content, free| if *free < bytes { Err(Errno::NOSPC.into()) } else { Ok(()) })
    }

    fn sync(&self) -> io::Result<()> {
        self.with(|content, _free| {
            content.pending.clear();
            content.durable = content.cached.clone();
            Ok(())
        })
    }

    fn drop_cache(&self) -> io::Result<()> {
        self.with(|_content, _free| Ok(()))
    }
}

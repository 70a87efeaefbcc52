//! A model of a folder that may lose, at a crash, whatever was not synced.
//!
//! Bytes written and names changed since the last sync are pending. A crash keeps any subset of them, in the order in
//! which they were made: a file's bytes persist independently of each other (each write may be kept, lost, torn, or be
//! there as zeros or in its later part only), of those of other files, and of the names; so does each change of a name,
//! and a rename is two of them. `sync` ends that for a file's bytes, `sync_folder` for the names. That is more than a
//! journalling file system would do, and all that POSIX promises.
//!
//! A disk can be told to note each instant, that is its state after every call that changes something, and a state can
//! be asked for every image that a crash may leave of it.
//!
//! A write-back may fail behind the page cache, as it does in Linux: the cache goes on showing the bytes, the disk never
//! had them, and only descriptors that were open then are told, once, at their next sync.

mod file;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use proto::checksum::crc32c;
use proto::entropy::{Entropy as _, SeededEntropy};
use rustix::io::Errno;

use self::file::CrashFile;
use crate::store::disk::{Disk, DiskFile, Names, QUARANTINE, Space, Stat};
use crate::store::journal;

type Inode = u64;

/// Ways in which a crash may treat a pending write: kept and lost, six that tear it, and zeros in its place.
const FATES: usize = 9;
/// What a disk takes at once.
const PAGE: usize = 4096;

#[derive(Debug, Clone, Default)]
struct Content {
    cached: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<(usize, Vec<u8>)>,
    /// Failed write-backs so far.
    failures: u64,
}

#[derive(Debug, Clone)]
enum NameChange {
    Set(String, Inode),
    Remove(String),
}

#[derive(Debug, Clone, Default)]
struct State {
    names: BTreeMap<String, Inode>,
    durable_names: BTreeMap<String, Inode>,
    pending: Vec<NameChange>,
    inodes: BTreeMap<Inode, Content>,
    /// Counts crashes: descriptors opened before one are dead.
    age: u64,
    free: u64,
    /// The next write does not get to the disk.
    loses_next_write: bool,
    /// Failed write-backs of all files that whoever synced them all was told of.
    told_of_all: u64,
    /// The states so far, once they are noted.
    instants: Option<Vec<State>>,
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

    /// A disk of its own in the same state; what was not synced is still pending there.
    pub(crate) fn fork(&self) -> Self {
        let state = State { instants: None, ..self.0.lock().unwrap().clone() };
        Self(Arc::new(Mutex::new(state)))
    }

    /// Notes the state after every change from now on, and the present one.
    pub(crate) fn note_instants(&self) {
        let mut state = self.0.lock().unwrap();
        let present = state.clone();
        state.instants = Some(vec![present]);
    }

    /// How many states were noted.
    pub(crate) fn noted(&self) -> usize {
        self.0.lock().unwrap().instants.as_ref().map_or(0, Vec::len)
    }

    /// Each noted state as a disk of its own.
    pub(crate) fn instants(&self) -> Vec<Self> {
        let noted = self.0.lock().unwrap().instants.take().unwrap_or_default();
        noted.into_iter().map(|state| Self(Arc::new(Mutex::new(state)))).collect()
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
        // Files without a name are gone.
        state.inodes.retain(|inode, _content| state.names.values().any(|named| named == inode));
        for content in state.inodes.values_mut() {
            for (offset, bytes) in std::mem::take(&mut content.pending) {
                apply_fate(&mut content.durable, offset, &bytes, choose(FATES));
            }
            content.cached = content.durable.clone();
        }
    }

    /// Every disk that a crash may leave of this one, handed over one by one.
    pub(crate) fn each_crash(&self, mut see: impl FnMut(Self)) {
        let mut path: Vec<(usize, usize)> = Vec::new();
        loop {
            let (crashed, mut depth) = (self.fork(), 0);
            crashed.crash(&mut |below| {
                if depth == path.len() {
                    path.push((0, below));
                }
                depth += 1;
                path[depth - 1].0
            });
            see(crashed);
            while path.last().is_some_and(|(chosen, below)| chosen + 1 == *below) {
                path.pop();
            }
            let Some((chosen, _below)) = path.last_mut() else { return };
            *chosen += 1;
        }
    }

    /// Some of the disks that a crash may leave, this many: the one that lost all, the one that kept all, and others
    /// that this seed decides.
    pub(crate) fn some_crashes(&self, count: usize, seed: u64, mut see: impl FnMut(Self)) {
        let entropy = SeededEntropy::new(seed);
        let random = |below: usize| {
            let mut bytes = [0; 8];
            entropy.fill(&mut bytes);
            usize::try_from(u64::from_be_bytes(bytes) % below as u64).unwrap()
        };
        for number in 0..count {
            let crashed = self.fork();
            crashed.crash(&mut |below| match number {
                0 => 0,
                1 => 1,
                _any => random(below),
            });
            see(crashed);
        }
    }

    /// How many disks a crash may leave, if that is not more than this.
    pub(crate) fn crashes_up_to(&self, most: usize) -> Option<usize> {
        let state = self.0.lock().unwrap();
        let writes = state.inodes.values().map(|content| content.pending.len()).sum::<usize>();
        let mut choices = state.pending.iter().map(|_name| 2).chain((0..writes).map(|_write| FATES));
        let all = choices.try_fold(1_usize, usize::checked_mul);
        all.filter(|all| *all <= most)
    }

    /// The disk that has lost all that was not synced.
    pub(crate) fn without_unsynced(&self) -> Self {
        let crashed = self.fork();
        crashed.crash(&mut |_below| 0);
        crashed
    }

    /// A number that tells two states apart: by names and bytes, and by what is pending.
    pub(crate) fn fingerprint(&self) -> u64 {
        let state = self.0.lock().unwrap();
        let mut hasher = DefaultHasher::new();
        for (name, inode) in &state.names {
            let content = &state.inodes[inode];
            (name, content.cached.len(), crc32c(&content.cached), crc32c(&content.durable)).hash(&mut hasher);
            for (offset, bytes) in &content.pending {
                (offset, bytes.len()).hash(&mut hasher);
            }
        }
        for change in &state.pending {
            match change {
                NameChange::Set(name, _inode) => (1, name).hash(&mut hasher),
                NameChange::Remove(name) => (2, name).hash(&mut hasher),
            }
        }
        hasher.finish()
    }

    /// The next write stays in the page cache and never gets to the disk.
    pub(crate) fn lose_next_write(&self) {
        self.0.lock().unwrap().loses_next_write = true;
    }

    /// The names, as they are now.
    pub(crate) fn names(&self) -> Vec<String> {
        self.0.lock().unwrap().names.keys().cloned().collect()
    }

    /// Those of chunks.
    pub(crate) fn chunk_names(&self) -> Vec<String> {
        self.names().into_iter().filter(|name| !journal::NAMES.contains(&name.as_str())).collect()
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

    /// Changes bytes on the disk, which the page cache does not notice.
    pub(crate) fn damage_below_cache(&self, name: &str, change: impl Fn(&mut Vec<u8>)) {
        let mut state = self.0.lock().unwrap();
        let inode = state.names[name];
        change(&mut state.inodes.get_mut(&inode).unwrap().durable);
    }

    /// Removes every file of this suffix that has no companion with another one, as nobody ever should at a start.
    pub(crate) fn remove_without(&self, suffix: &str, companion: &str) {
        for name in self.names() {
            if name.ends_with(suffix) && self.bytes(&format!("{name}{companion}")).is_none() {
                self.lose(&name);
            }
        }
    }
}

fn apply_name(names: &mut BTreeMap<String, Inode>, change: NameChange) {
    match change {
        NameChange::Set(name, inode) => names.insert(name, inode),
        NameChange::Remove(name) => names.remove(&name),
    };
}

/// What a crash makes of a pending write.
fn apply_fate(content: &mut Vec<u8>, offset: usize, bytes: &[u8], fate: usize) {
    let (half, last) = (bytes.len() / 2, bytes.len().saturating_sub(1));
    match fate {
        0 => {}
        1 => apply_bytes(content, offset, bytes),
        2 => apply_bytes(content, offset, &vec![0; bytes.len()]),
        3 => apply_bytes(content, offset, &bytes[..bytes.len().min(1)]),
        4 => apply_bytes(content, offset, &bytes[..half]),
        5 => apply_bytes(content, offset, &bytes[..last]),
        6 => apply_bytes(content, offset, &bytes[..bytes.len().min(PAGE)]),
        7 => apply_bytes(content, offset + bytes.len().min(PAGE), &bytes[bytes.len().min(PAGE)..]),
        _the_later_half => apply_bytes(content, offset + half, &bytes[half..]),
    }
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
    /// What one call changes.
    fn change(&mut self, changes: impl IntoIterator<Item = NameChange>) {
        for change in changes {
            apply_name(&mut self.names, change.clone());
            self.pending.push(change);
        }
        self.note();
    }

    /// Notes the present state, if that is wanted.
    fn note(&mut self) {
        if let Some(mut instants) = self.instants.take() {
            instants.push(self.clone());
            self.instants = Some(instants);
        }
    }

    fn open(&self, disk: &CrashDisk, inode: Inode) -> Box<dyn DiskFile> {
        let told = AtomicU64::new(self.inodes[&inode].failures);
        Box::new(CrashFile { disk: disk.clone(), inode, age: self.age, told })
    }
}

impl Disk for CrashDisk {
    fn create_new(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.0.lock().unwrap();
        if state.names.contains_key(name) {
            return Err(Errno::EXIST.into());
        }
        let inode = state.inodes.keys().next_back().map_or(0, |last| last + 1);
        state.inodes.insert(inode, Content::default());
        state.change([NameChange::Set(name.to_owned(), inode)]);
        Ok(state.open(self, inode))
    }

    fn open(&self, name: &str) -> io::Result<Option<Box<dyn DiskFile>>> {
        let state = self.0.lock().unwrap();
        Ok(state.names.get(name).map(|inode| state.open(self, *inode)))
    }

    fn open_cached(&self, name: &str) -> Option<Box<dyn DiskFile>> {
        self.open(name).unwrap()
    }

    fn open_or_create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        match self.open(name)? {
            Some(file) => Ok(file),
            None => self.create_new(name),
        }
    }

    fn unlink(&self, name: &str) -> io::Result<bool> {
        let mut state = self.0.lock().unwrap();
        let there = state.names.contains_key(name);
        if there {
            state.change([NameChange::Remove(name.to_owned())]);
        }
        Ok(there)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        let inode = *state.names.get(from).ok_or(Errno::NOENT)?;
        state.change([NameChange::Remove(from.to_owned()), NameChange::Set(to.to_owned(), inode)]);
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
        state.change([NameChange::Remove(name.to_owned())]);
        Ok(true)
    }

    fn sync_folder(&self) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.pending.clear();
        state.durable_names = state.names.clone();
        state.note();
        Ok(())
    }

    fn sync_all(&self, _names: &[String]) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        let failures = state.inodes.values().map(|content| content.failures).sum();
        if std::mem::replace(&mut state.told_of_all, failures) < failures {
            return Err(Errno::IO.into());
        }
        state.inodes.values_mut().for_each(Content::sync);
        state.pending.clear();
        state.durable_names = state.names.clone();
        state.note();
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

impl Content {
    fn write(&mut self, offset: usize, bytes: &[u8], lost: bool) {
        apply_bytes(&mut self.cached, offset, bytes);
        if lost {
            self.failures += 1;
            apply_bytes(&mut self.durable, offset, &vec![0; bytes.len()]);
        } else {
            self.pending.push((offset, bytes.to_vec()));
        }
    }

    /// Brings every pending write to the disk. What is only in the cache by now stays there alone.
    fn sync(&mut self) {
        for (offset, bytes) in std::mem::take(&mut self.pending) {
            apply_bytes(&mut self.durable, offset, &bytes);
        }
    }

    fn drop_cache(&mut self) {
        self.cached = self.durable.clone();
        for (offset, bytes) in &self.pending {
            apply_bytes(&mut self.cached, *offset, bytes);
        }
    }
}

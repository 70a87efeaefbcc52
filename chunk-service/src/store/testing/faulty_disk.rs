//! A disk in front of another one, whose controller makes single calls fail.

use std::collections::HashMap;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use rustix::io::Errno;

use crate::store::disk::{Disk, DiskFile, Names, Space, Stat};

/// A kind of call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Call {
    Create,
    Open,
    Unlink,
    Rename,
    Quarantine,
    SyncFolder,
    SyncAll,
    List,
    Space,
    Write,
    Read,
    Size,
    Reserve,
    Sync,
    DropCache,
}

impl Call {
    pub(crate) const ALL: [Self; 15] = [
        Self::Create,
        Self::Open,
        Self::Unlink,
        Self::Rename,
        Self::Quarantine,
        Self::SyncFolder,
        Self::SyncAll,
        Self::List,
        Self::Space,
        Self::Write,
        Self::Read,
        Self::Size,
        Self::Reserve,
        Self::Sync,
        Self::DropCache,
    ];
}

#[derive(Debug, Default)]
struct Plan {
    made: HashMap<Call, u64>,
    /// The call with this number fails, or every call from it on.
    failures: Vec<(Call, u64, bool, Errno)>,
    /// Reads from this number on, so many of them, come back with a flipped bit.
    rotten_reads: u64,
    /// The next call of a kind waits for this before it returns.
    pause: Option<(Call, Receiver<()>)>,
}

/// Decides which calls fail. Clones control the same disk.
#[derive(Debug, Clone, Default)]
pub(crate) struct Controller(Arc<Mutex<Plan>>);

impl Controller {
    /// The `nth` call of this kind from now on (0 is the next) fails.
    pub(crate) fn fail(&self, call: Call, nth: u64, errno: Errno) {
        self.plan(call, nth, false, errno);
    }

    /// Every call of this kind fails from now on.
    pub(crate) fn fail_always(&self, call: Call, errno: Errno) {
        self.fail_from(call, 0, errno);
    }

    /// Every call of this kind fails from the `nth` on.
    pub(crate) fn fail_from(&self, call: Call, nth: u64, errno: Errno) {
        self.plan(call, nth, true, errno);
    }

    fn plan(&self, call: Call, nth: u64, for_ever: bool, errno: Errno) {
        let mut plan = self.0.lock().unwrap();
        let at = plan.made.get(&call).copied().unwrap_or(0) + nth;
        plan.failures.push((call, at, for_ever, errno));
    }

    /// The next `count` reads of bytes come back wrong.
    pub(crate) fn rot_reads(&self, count: u64) {
        self.0.lock().unwrap().rotten_reads = count;
    }

    /// The next sync of the folder, or read, does not return, although it is done, before the sender is dropped.
    pub(crate) fn pause(&self, call: Call) -> SyncSender<()> {
        let (resume, paused) = sync_channel(0);
        self.0.lock().unwrap().pause = Some((call, paused));
        resume
    }

    fn hang(&self, call: Call) {
        let pause = self.0.lock().unwrap().pause.take_if(|(paused, _resume)| *paused == call);
        if let Some((_call, resume)) = pause {
            assert!(resume.recv().is_err(), "nothing is ever sent");
        }
    }

    /// Nothing fails any more.
    pub(crate) fn heal(&self) {
        let mut plan = self.0.lock().unwrap();
        plan.failures.clear();
        plan.rotten_reads = 0;
    }

    /// Calls of this kind so far.
    pub(crate) fn made(&self, call: Call) -> u64 {
        self.0.lock().unwrap().made.get(&call).copied().unwrap_or(0)
    }

    fn pass(&self, call: Call) -> io::Result<()> {
        let mut plan = self.0.lock().unwrap();
        let made = plan.made.entry(call).or_default();
        let number = *made;
        *made += 1;
        let hit = plan
            .failures
            .iter()
            .find(|(kind, at, for_ever, _)| *kind == call && (*at == number || (*for_ever && number >= *at)));
        hit.map_or(Ok(()), |(_, _, _, errno)| Err((*errno).into()))
    }

    /// Whether calls do what the disk behind does. Only then is anything at hand: what goes wrong goes wrong on the way to
    /// the disk.
    fn is_quiet(&self) -> bool {
        let plan = self.0.lock().unwrap();
        plan.failures.is_empty() && plan.rotten_reads == 0 && plan.pause.is_none()
    }

    fn rot(&self) -> bool {
        let mut plan = self.0.lock().unwrap();
        let rots = plan.rotten_reads > 0;
        plan.rotten_reads = plan.rotten_reads.saturating_sub(1);
        rots
    }
}

/// The disk.
#[derive(Debug)]
pub(crate) struct FaultyDisk {
    inner: Arc<dyn Disk>,
    controller: Controller,
}

impl FaultyDisk {
    pub(crate) fn new(inner: Arc<dyn Disk>, controller: Controller) -> Self {
        Self { inner, controller }
    }

    fn wrap(&self, inner: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        Box::new(FaultyFile { inner, controller: self.controller.clone() })
    }
}

impl Disk for FaultyDisk {
    fn create_new(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.controller.pass(Call::Create)?;
        self.inner.create_new(name).map(|file| self.wrap(file))
    }

    fn create_sized(&self, name: &str, bytes: u64) -> io::Result<Box<dyn DiskFile>> {
        self.controller.pass(Call::Create)?;
        self.inner.create_sized(name, bytes).map(|file| self.wrap(file))
    }

    fn open(&self, name: &str) -> io::Result<Option<Box<dyn DiskFile>>> {
        self.controller.pass(Call::Open)?;
        Ok(self.inner.open(name)?.map(|file| self.wrap(file)))
    }

    fn open_cached(&self, name: &str) -> Option<Box<dyn DiskFile>> {
        if self.controller.is_quiet() { self.inner.open_cached(name).map(|file| self.wrap(file)) } else { None }
    }

    fn open_or_create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.controller.pass(Call::Open)?;
        self.inner.open_or_create(name).map(|file| self.wrap(file))
    }

    fn unlink(&self, name: &str) -> io::Result<bool> {
        self.controller.pass(Call::Unlink)?;
        self.inner.unlink(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.controller.pass(Call::Rename)?;
        self.inner.rename(from, to)
    }

    fn quarantine(&self, name: &str) -> io::Result<bool> {
        self.controller.pass(Call::Quarantine)?;
        self.inner.quarantine(name)
    }

    fn sync_folder(&self) -> io::Result<()> {
        self.controller.pass(Call::SyncFolder)?;
        let synced = self.inner.sync_folder();
        self.controller.hang(Call::SyncFolder);
        synced
    }

    fn sync_all(&self, names: &[String]) -> io::Result<()> {
        self.controller.pass(Call::SyncAll)?;
        self.inner.sync_all(names)
    }

    fn holds_any(&self, suffix: &str) -> io::Result<bool> {
        self.controller.pass(Call::List)?;
        self.inner.holds_any(suffix)
    }

    fn stat(&self, name: &str) -> io::Result<Option<Stat>> {
        self.controller.pass(Call::Size)?;
        self.inner.stat(name)
    }

    fn names(&self) -> io::Result<Names> {
        self.controller.pass(Call::List)?;
        let controller = self.controller.clone();
        Ok(Box::new(self.inner.names()?.map(move |name| controller.pass(Call::List).and(name))))
    }

    fn space(&self) -> io::Result<Space> {
        self.controller.pass(Call::Space)?;
        self.inner.space()
    }
}

#[derive(Debug)]
struct FaultyFile {
    inner: Box<dyn DiskFile>,
    controller: Controller,
}

impl DiskFile for FaultyFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.controller.pass(Call::Write)?;
        self.inner.write_at(bytes, offset)
    }

    fn write_parts(&self, parts: &[Bytes], offset: u64) -> io::Result<u64> {
        let (mut at, mut unsynced) = (offset, 0);
        for part in parts {
            self.controller.pass(Call::Write)?;
            unsynced += self.inner.write_parts(std::slice::from_ref(part), at)?;
            at += part.len() as u64;
        }
        Ok(unsynced)
    }

    fn read_at(&self, buffer: &mut Vec<u8>, length: usize, offset: u64) -> io::Result<()> {
        self.controller.pass(Call::Read)?;
        let before = buffer.len();
        self.inner.read_at(buffer, length, offset)?;
        self.controller.hang(Call::Read);
        if self.controller.rot()
            && let Some(byte) = buffer.get_mut(before + length / 2)
        {
            *byte ^= 1;
        }
        Ok(())
    }

    fn read_cached(&self, length: usize) -> Option<Vec<u8>> {
        if self.controller.is_quiet() { self.inner.read_cached(length) } else { None }
    }

    fn size(&self) -> io::Result<u64> {
        self.controller.pass(Call::Size)?;
        self.inner.size()
    }

    fn reserve(&self, bytes: u64) -> io::Result<()> {
        self.controller.pass(Call::Reserve)?;
        self.inner.reserve(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.controller.pass(Call::Sync)?;
        self.inner.sync()
    }

    fn drop_cache(&self) -> io::Result<()> {
        self.controller.pass(Call::DropCache)?;
        self.inner.drop_cache()
    }
}

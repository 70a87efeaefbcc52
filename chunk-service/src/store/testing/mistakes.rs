//! Mistakes that stores are known to make, each of which a test can put into this one (I15, I19).
//!
//! Those about the order of calls, or a call that is left out, are made by a [`MistakenDisk`] in front of the disk: what
//! gets there is what a store with the mistake would send. Those about decisions are made by the store itself, at a step
//! that asks `seeded!`, which is the constant `false` outside tests; or, where it only believes what it is told, by who
//! tells it.

use std::io;
use std::sync::{Arc, Mutex};

use super::crash_disk::CrashDisk;
use crate::store::disk::{Disk, DiskFile, Names, Space, Stat};

/// A mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mistake {
    /// Names are made and removed, and the folder is never synced.
    FolderNotSynced,
    /// A chunk's bytes are not synced before its receipt.
    BlobNotSynced,
    /// A checksum file is not synced before the receipt.
    ChkNotSynced,
    /// The checksum file is published before the bytes that it vouches for are synced.
    PublishedBeforeSync,
    /// The file is opened again to be synced; the failure was told to the descriptor that wrote.
    ReopenedBeforeSync,
    /// A sync that failed is tried again, and believed.
    SyncRetried,
    /// A sync that failed is no reason not to go on.
    SyncFailureIgnored,
    /// What exists is taken for durable: a repeat, or a status, syncs nothing again.
    RepeatNotSynced,
    /// What the page cache shows is taken for what the disk holds.
    CacheBelieved,
    /// A delete removes the bytes first and leaves a checksum file alone.
    BlobUnlinkedFirst,
    /// The checksum file is written under its final name.
    ChkWrittenInPlace,
    /// A start removes bytes without a checksum file.
    LeftoversRemovedAtStart,
    /// Bytes without a checksum file are taken for a whole chunk.
    LeftoverTrusted,
    /// Everybody in line is answered when a sync begins, whatever becomes of it.
    GroupAckedBeforeSync,
    /// A sync also serves those who came while it ran.
    LatecomersServed,
    /// A fault of the disk is forgotten.
    LatchIgnored,
    /// Bytes are compared with their own checksum file, and that with nothing.
    OwnChkTrusted,
    /// A bad copy is removed before there is a good one.
    BadCopyRemoved,
    /// A journal's group is written and not synced.
    JournalNotSynced,
    /// A half of the journal is used again although the files of its chunks were not synced.
    SettledWithoutSync,
    /// A delete does not tell the journal.
    NotForgotten,
}

impl Mistake {
    pub(crate) const ALL: [Self; 21] = [
        Self::FolderNotSynced,
        Self::BlobNotSynced,
        Self::ChkNotSynced,
        Self::PublishedBeforeSync,
        Self::ReopenedBeforeSync,
        Self::SyncRetried,
        Self::SyncFailureIgnored,
        Self::RepeatNotSynced,
        Self::CacheBelieved,
        Self::BlobUnlinkedFirst,
        Self::ChkWrittenInPlace,
        Self::LeftoversRemovedAtStart,
        Self::LeftoverTrusted,
        Self::GroupAckedBeforeSync,
        Self::LatecomersServed,
        Self::LatchIgnored,
        Self::OwnChkTrusted,
        Self::BadCopyRemoved,
        Self::JournalNotSynced,
        Self::SettledWithoutSync,
        Self::NotForgotten,
    ];
}

/// What a mistaken store puts off until another call.
#[derive(Debug, Default)]
struct PutOff {
    /// Names changed since the folder was synced.
    names_changed: bool,
    /// A checksum file that goes after its bytes.
    unlink: Option<String>,
    /// Bytes that are synced after their checksum file is published.
    sync: Option<Arc<dyn DiskFile>>,
}

/// A disk that is used wrongly.
#[derive(Debug)]
pub(crate) struct MistakenDisk {
    inner: Arc<dyn Disk>,
    mistake: Option<Mistake>,
    put_off: Arc<Mutex<PutOff>>,
}

impl MistakenDisk {
    pub(crate) fn new(inner: Arc<dyn Disk>, mistake: Option<Mistake>, below: &CrashDisk) -> Self {
        if mistake == Some(Mistake::LeftoversRemovedAtStart) {
            below.remove_without(".blob", ".chk");
        }
        Self { inner, mistake, put_off: Arc::default() }
    }

    fn makes(&self, mistake: Mistake) -> bool {
        self.mistake == Some(mistake)
    }

    fn file(&self, name: &str, file: Box<dyn DiskFile>, created: bool) -> Box<dyn DiskFile> {
        Box::new(MistakenFile {
            inner: Arc::from(file),
            disk: Arc::clone(&self.inner),
            mistake: self.mistake,
            put_off: Arc::clone(&self.put_off),
            name: name.to_owned(),
            created,
        })
    }
}

impl Disk for MistakenDisk {
    fn create_new(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.put_off.lock().unwrap().names_changed = true;
        let in_place = self.makes(Mistake::ChkWrittenInPlace) && name.ends_with(".tmp");
        let name = if in_place { name.trim_end_matches(".tmp") } else { name };
        if in_place {
            self.inner.unlink(name)?;
        }
        Ok(self.file(name, self.inner.create_new(name)?, true))
    }

    fn open(&self, name: &str) -> io::Result<Option<Box<dyn DiskFile>>> {
        Ok(self.inner.open(name)?.map(|file| self.file(name, file, false)))
    }

    fn open_cached(&self, name: &str) -> Option<Box<dyn DiskFile>> {
        self.inner.open_cached(name).map(|file| self.file(name, file, false))
    }

    fn open_or_create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.inner.open_or_create(name).map(|file| self.file(name, file, false))
    }

    fn unlink(&self, name: &str) -> io::Result<bool> {
        if self.makes(Mistake::BlobUnlinkedFirst) && name.ends_with(".chk") {
            self.put_off.lock().unwrap().unlink = Some(name.to_owned());
            return Ok(true);
        }
        let there = self.inner.unlink(name)?;
        let mut put_off = self.put_off.lock().unwrap();
        put_off.names_changed = true;
        if name.ends_with(".blob")
            && let Some(chk) = put_off.unlink.take()
        {
            self.inner.unlink(&chk)?;
        }
        Ok(there)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        if !self.makes(Mistake::ChkWrittenInPlace) {
            self.inner.rename(from, to)?;
        }
        let mut put_off = self.put_off.lock().unwrap();
        put_off.names_changed = true;
        put_off.sync.take().map_or(Ok(()), |file| file.sync())
    }

    fn quarantine(&self, name: &str) -> io::Result<bool> {
        self.put_off.lock().unwrap().names_changed = true;
        self.inner.quarantine(name)
    }

    fn sync_folder(&self) -> io::Result<()> {
        let changed = std::mem::take(&mut self.put_off.lock().unwrap().names_changed);
        match self.mistake {
            Some(Mistake::FolderNotSynced) => Ok(()),
            Some(Mistake::RepeatNotSynced) if !changed => Ok(()),
            Some(Mistake::SyncRetried) => self.inner.sync_folder().or_else(|_first| self.inner.sync_folder()),
            Some(Mistake::SyncFailureIgnored) => self.inner.sync_folder().or(Ok(())),
            _no_matter_here => self.inner.sync_folder(),
        }
    }

    fn sync_all(&self, names: &[String]) -> io::Result<()> {
        match self.mistake {
            Some(Mistake::SettledWithoutSync) => Ok(()),
            Some(Mistake::SyncRetried) => self.inner.sync_all(names).or_else(|_first| self.inner.sync_all(names)),
            Some(Mistake::SyncFailureIgnored) => self.inner.sync_all(names).or(Ok(())),
            _no_matter_here => self.inner.sync_all(names),
        }
    }

    fn holds_any(&self, suffix: &str) -> io::Result<bool> {
        self.inner.holds_any(suffix)
    }

    fn stat(&self, name: &str) -> io::Result<Option<Stat>> {
        self.inner.stat(name)
    }

    fn names(&self) -> io::Result<Names> {
        self.inner.names()
    }

    fn space(&self) -> io::Result<Space> {
        self.inner.space()
    }

    fn mistake(&self) -> Option<Mistake> {
        self.mistake
    }
}

#[derive(Debug)]
struct MistakenFile {
    inner: Arc<dyn DiskFile>,
    disk: Arc<dyn Disk>,
    mistake: Option<Mistake>,
    put_off: Arc<Mutex<PutOff>>,
    name: String,
    /// Else it was opened.
    created: bool,
}

impl DiskFile for MistakenFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.inner.write_at(bytes, offset)
    }

    fn read_at(&self, buffer: &mut Vec<u8>, length: usize, offset: u64) -> io::Result<()> {
        self.inner.read_at(buffer, length, offset)
    }

    fn read_cached(&self, length: usize) -> Option<Vec<u8>> {
        self.inner.read_cached(length)
    }

    fn size(&self) -> io::Result<u64> {
        self.inner.size()
    }

    fn reserve(&self, bytes: u64) -> io::Result<()> {
        self.inner.reserve(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        match (self.mistake, self.created) {
            (Some(Mistake::JournalNotSynced), _) if self.name.starts_with("journal.") => Ok(()),
            (Some(Mistake::BlobNotSynced), true) | (Some(Mistake::RepeatNotSynced), false) => Ok(()),
            (Some(Mistake::ChkNotSynced), true) if self.name.ends_with(".chk.tmp") => Ok(()),
            (Some(Mistake::PublishedBeforeSync), true) => {
                self.put_off.lock().unwrap().sync = Some(Arc::clone(&self.inner));
                Ok(())
            }
            (Some(Mistake::ReopenedBeforeSync), true) => {
                self.disk.open(&self.name)?.map_or(Ok(()), |again| again.sync())
            }
            (Some(Mistake::SyncRetried), _) => self.inner.sync().or_else(|_first| self.inner.sync()),
            (Some(Mistake::SyncFailureIgnored), _) => self.inner.sync().or(Ok(())),
            _no_matter_here => self.inner.sync(),
        }
    }

    fn drop_cache(&self) -> io::Result<()> {
        if self.mistake == Some(Mistake::CacheBelieved) { Ok(()) } else { self.inner.drop_cache() }
    }
}

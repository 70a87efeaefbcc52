//! Opening a journal: what its halves hold, what of that counts, and what is damaged.
//!
//! A half's groups follow each other without a gap, numbered from 0, all of one generation; where that ends, the rest is
//! searched for a later group of the same generation. One that is found proves that all before it had been synced: what is
//! missing was damaged since. So does a group of the next generation, which says how many groups this one had. Older
//! groups that are found there are what the half held before, and are released.

use std::io;

use super::format::{
    BLOCK_BYTES, GroupHead, HEAD_BYTES, HalfHead, VERSION, blocks, half_head, parse_half_head, records,
};
use super::{AppendError, GROUP_BYTES_MAX, HALF_BYTES_MIN, Half, HalfFile, Journal, Shape};
use crate::checksum::crc32c;
use crate::entropy::Entropy;

/// Why a journal cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError<E: std::error::Error + 'static = std::convert::Infallible> {
    /// A half cannot be read or prepared.
    #[error("the journal cannot be {action}")]
    Io {
        /// What was tried, as `read`.
        action: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Neither half says what its groups look like, although they hold something.
    #[error("the journal is damaged: neither of its files begins as it must")]
    NoHead,
    /// A later version wrote it.
    #[error("the journal has format version {found}, but this program knows version {VERSION}; use a newer program")]
    TooNew {
        /// Its version.
        found: u8,
    },
    /// A record was not taken.
    #[error("a record of the journal cannot be used")]
    Record(#[source] E),
}

/// A part of a half whose records are lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Damage {
    /// Of which generation.
    pub generation: u64,
    /// Its first byte within the half.
    pub from: u64,
    /// The first byte that is sound again, or where the half ends.
    pub to: u64,
}

/// A journal that may be replayed, and then begun.
#[derive(Debug)]
pub struct Opened<F> {
    journal: Journal<F>,
    /// Whole groups that are not released, in order.
    groups: Vec<Found>,
    damages: Vec<Damage>,
    /// The last whole group of all.
    newest: Option<Found>,
    newest_has_records: bool,
}

impl<F: HalfFile> Opened<F> {
    /// Number of records that a replay hands over.
    pub fn records(&self) -> u64 {
        self.groups.iter().map(|found| u64::from(found.head.records)).sum()
    }

    /// What is lost of generations that are not released.
    pub fn damages(&self) -> &[Damage] {
        &self.damages
    }

    /// Hands over every record that is not released, in the order in which they were appended; as often as it is called.
    ///
    /// # Errors
    /// [`OpenError::Io`]; [`OpenError::Record`] with the error of `take`, which ends it.
    pub fn replay<E: std::error::Error>(
        &self,
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), OpenError<E>> {
        for found in &self.groups {
            let payload =
                io_of("read", payload(self.journal.half_of(found.head.generation), found.offset, &found.head))?;
            let records = payload.as_deref().and_then(|payload| records(payload, found.head.records));
            let differs = || OpenError::Io { action: "read", source: io::Error::other("it reads differently now") };
            records.ok_or_else(differs)?.into_iter().try_for_each(&mut take).map_err(OpenError::Record)?;
        }
        Ok(())
    }

    /// Makes durable what was read: a process that was killed, or whose sync failed, may have left it in the system's
    /// cache alone. To be called before anything that was replayed is written elsewhere, if a part of a record must not
    /// outlive the record.
    ///
    /// After a failed sync the cache may call clean what never reached the disk. Only the newest group can be in doubt then,
    /// since each one was synced before the next was written; so that one is written once more as it is.
    ///
    /// # Errors
    /// As the system says; nothing is known then.
    pub fn make_durable(&self) -> io::Result<()> {
        if let Some(found) = &self.newest {
            let half = self.journal.half_of(found.head.generation);
            let bytes = read(half, found.offset, found.end().min(half.size()?).saturating_sub(found.offset))?;
            half.write_at(&bytes, found.offset)?;
        }
        self.journal.halves.iter().try_for_each(|half| half.file.sync())
    }

    /// Begins to append. To be called when everything that was replayed is durable where it belongs, and the halves' names
    /// are durable. Writes nothing where nothing was to be replayed.
    ///
    /// # Errors
    /// [`AppendError`], when that cannot be noted.
    pub fn begin(mut self) -> Result<Journal<F>, AppendError> {
        let growth_bytes = BLOCK_BYTES + self.journal.shape.growth_bytes;
        self.journal.halves.iter_mut().try_for_each(|half| half.grow(growth_bytes)).map_err(AppendError::Write)?;
        self.make_durable().map_err(AppendError::Sync)?;
        let mut journal = self.journal;
        // What is appended to a generation that is released would not be replayed.
        let stays = journal.generation > journal.released && !self.newest_has_records;
        let replayed = journal.generation - u64::from(stays);
        journal.release(replayed);
        if journal.durably_released < replayed {
            journal.append_before::<&[u8]>(journal.shape.half_bytes, &[])?;
        }
        if !stays {
            journal.rotate()?;
        }
        Ok(journal)
    }
}

/// A whole group of a half.
#[derive(Debug, Clone, Copy)]
struct Found {
    head: GroupHead,
    offset: u64,
}

impl Found {
    fn end(&self) -> u64 {
        self.offset + blocks(HEAD_BYTES + self.head.payload_bytes as usize)
    }
}

/// What a half holds.
#[derive(Debug, Default)]
struct Scan {
    groups: Vec<Found>,
    damages: Vec<Damage>,
    size: u64,
}

impl Scan {
    fn generation(&self) -> u64 {
        self.groups.last().map_or(0, |found| found.head.generation)
    }

    /// Where its groups end.
    fn end(&self) -> u64 {
        self.groups.last().map_or(BLOCK_BYTES, Found::end)
    }

    fn next_group(&self) -> u64 {
        self.groups.last().map_or(0, |last| last.head.group + 1)
    }

    /// Whether a group belongs behind those found so far.
    fn continues_with(&self, head: &GroupHead) -> bool {
        self.groups.last().is_none_or(|last| last.head.generation == head.generation && last.head.group < head.group)
    }
}

/// Opens two halves, which may be empty files.
///
/// # Errors
/// [`OpenError`].
pub fn open<F: HalfFile>(halves: [F; 2], shape: Shape, entropy: &dyn Entropy) -> Result<Opened<F>, OpenError> {
    let salt = salt_of(&halves, entropy)?;
    let [even, odd] = halves;
    let mut scans = [scan(&even, salt, 0)?, scan(&odd, salt, 1)?];
    let halves = scans.each_ref().map(|scan| scan.size);
    scans.sort_by_key(Scan::generation);
    let [older, newer] = scans;
    let all = || older.groups.iter().chain(&newer.groups).copied();
    let released = all().map(|found| found.head.released).max().unwrap_or(0);
    let groups = all().filter(|found| found.head.generation > released).collect();
    let damages = damages(&older, &newer, released);
    let newest = newer.groups.last().copied();
    let newest_has_records = newer.groups.iter().any(|found| found.head.records > 0);
    let [even_size, odd_size] = halves;
    let journal = Journal {
        shape: Shape { half_bytes: shape.half_bytes.max(HALF_BYTES_MIN).max(newer.end() + BLOCK_BYTES), ..shape },
        salt,
        generation: newer.generation(),
        at: newer.end(),
        group: newer.next_group(),
        previous: newer.groups.last().map_or(0, |found| found.head.previous),
        released,
        durably_released: released,
        said_here: newer.groups.last().map_or(0, |found| found.head.released),
        broken: false,
        buffer: Vec::new(),
        halves: [Half { size: even_size, file: even }, Half { size: odd_size, file: odd }],
    };
    Ok(Opened { journal, groups, damages, newest, newest_has_records })
}

fn io_of<T, E: std::error::Error>(action: &'static str, outcome: io::Result<T>) -> Result<T, OpenError<E>> {
    outcome.map_err(|source| OpenError::Io { action, source })
}

/// The salt of the halves; they get one if they are new.
fn salt_of<F: HalfFile>(halves: &[F; 2], entropy: &dyn Entropy) -> Result<u64, OpenError> {
    let mut known = None;
    let mut used = false;
    for half in halves {
        let size = io_of("read", half.size())?;
        let first = io_of("read", read(half, 0, size.min(BLOCK_BYTES)))?;
        match parse_half_head(&first) {
            HalfHead::Salt(salt) => known = Some(salt),
            HalfHead::TooNew(found) => return Err(OpenError::TooNew { found }),
            HalfHead::Damaged => used |= size > BLOCK_BYTES,
        }
    }
    let salt = match known {
        Some(salt) => salt,
        None if used => return Err(OpenError::NoHead),
        None => draw(entropy),
    };
    for half in halves {
        io_of("prepared", prepare(half, salt))?;
    }
    Ok(salt)
}

fn draw(entropy: &dyn Entropy) -> u64 {
    let mut drawn = [0; 8];
    entropy.fill(&mut drawn);
    u64::from_be_bytes(drawn)
}

/// Writes a half's head where it is missing.
fn prepare(half: &impl HalfFile, salt: u64) -> io::Result<()> {
    let head = half_head(salt);
    if read(half, 0, half.size()?.min(head.len() as u64))? != head {
        half.write_at(&head, 0)?;
        half.sync()?;
    }
    Ok(())
}

fn read(half: &impl HalfFile, offset: u64, bytes: u64) -> io::Result<Vec<u8>> {
    let mut buffer = Vec::new();
    half.read_at(&mut buffer, usize::try_from(bytes).map_err(io::Error::other)?, offset)?;
    Ok(buffer)
}

/// `remainder` is what generations of this half leave when they are divided by two.
fn scan(half: &impl HalfFile, salt: u64, remainder: u64) -> Result<Scan, OpenError> {
    // There is no generation 0, and one of the other half's would be begun again over groups that it has here.
    let belongs = |head: &GroupHead| head.generation > 0 && head.generation % 2 == remainder;
    let mut scan = Scan { size: io_of("read", half.size())?, ..Scan::default() };
    let mut at = BLOCK_BYTES;
    while at.saturating_add(HEAD_BYTES as u64) <= scan.size {
        let head = io_of("read", whole_group(half, at, scan.size, salt))?;
        match head.filter(|head| belongs(head) && scan.continues_with(head)) {
            Some(head) => {
                let found = Found { head, offset: at };
                if head.group != scan.next_group() {
                    scan.damages.push(Damage { generation: head.generation, from: scan.end(), to: at });
                }
                scan.groups.push(found);
                at = found.end();
            }
            None => at += BLOCK_BYTES,
        }
    }
    Ok(scan)
}

/// The head of the group there, if all of it is sound.
fn whole_group(half: &impl HalfFile, at: u64, size: u64, salt: u64) -> io::Result<Option<GroupHead>> {
    let head = read(half, at, HEAD_BYTES as u64)?;
    let head = head.first_chunk().and_then(|head| GroupHead::decode(head, salt));
    let fits = |head: &GroupHead| {
        let bytes = u64::from(head.payload_bytes);
        bytes <= GROUP_BYTES_MAX as u64 && at + HEAD_BYTES as u64 + bytes <= size
    };
    let Some(head) = head.filter(fits) else { return Ok(None) };
    let payload = payload(half, at, &head)?;
    Ok(payload.filter(|payload| records(payload, head.records).is_some()).map(|_sound| head))
}

/// A group's payload; `None` when it is damaged.
fn payload(half: &impl HalfFile, at: u64, head: &GroupHead) -> io::Result<Option<Vec<u8>>> {
    let payload = read(half, at + HEAD_BYTES as u64, u64::from(head.payload_bytes))?;
    Ok(Some(payload).filter(|payload| crc32c(payload) == head.payload_crc))
}

/// What is lost of generations that are not released.
fn damages(older: &Scan, newer: &Scan, released: u64) -> Vec<Damage> {
    let mut damages: Vec<_> = [older, newer].into_iter().flat_map(|scan| scan.damages.iter().copied()).collect();
    if let Some(Found { head, .. }) = newer.groups.last() {
        let generation = head.generation.saturating_sub(1);
        let is_older = older.generation() == generation;
        let (groups, from) = if is_older { (older.next_group(), older.end()) } else { (0, BLOCK_BYTES) };
        if groups < head.previous {
            damages.push(Damage { generation, from, to: older.size });
        }
    }
    damages.retain(|damage| damage.generation > released);
    damages
}

//! How a chunk is: reads all of it from the disk and compares it with what the metadata holds (I2, I13).
//!
//! An [`Examination`] goes in steps, so that whoever scrubs can spread them over time and no disk thread is held for long.
//! Before the first byte, and after the last, `POSIX_FADV_DONTNEED` asks the kernel to forget the file's cached pages:
//! what is read then comes from the disk and not from memory, and foreground reads do not lose their cache to a scrub that
//! no one will look at again. It is advice: pages that are being written stay, and a file system may ignore it.
//!
//! Damage is declared only when a second reading from the start finds it too (also of a file that was not there: it may
//! have been about to appear). Nothing is changed but the checksum file, and that only on request, over sound bytes, by
//! whoever owns the chunk: the bytes are summed up once more, then the old one is set aside and a new one published as
//! ever. A reading that fails leaves all as it was; a crash between the last two steps leaves none, which is what the next
//! verification repairs. A checksum file that a later version of this program wrote is told of and never touched.
//!
//! A stop ends a verification between two steps of its reading, and a repair before it has changed anything.

use std::io;
use std::sync::Arc;

use proto::capability::{ChunkBinding, ReadClaims};
use proto::checksum::{ChunkHasher, ChunkSums};
use proto::limits::{FRAME_BYTES, MIB, PIECE_BYTES};
use tokio_util::sync::CancellationToken;

use super::ChunkStore;
use super::chk::Chk;
use super::disk::{Disk, DiskFile};
use super::durable::{Found, blob_name, chk_name, read_chk, same_place};
use super::leftover::{OldChk, agree};
use super::sessions::Look;
use crate::error::ChunkError;

/// Bytes read in one step of a verification that nobody slows down.
const STEP_BYTES: u64 = MIB;

/// How a chunk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// Bytes and checksum file match.
    Sound,
    /// The bytes match; the checksum file did not and was written again.
    Rebuilt,
    /// The bytes match; the checksum file is missing or damaged.
    ChecksumFileBad,
    /// The bytes match; a later version of this program wrote the checksum file, which is left as it is.
    ChecksumFileTooNew,
    /// The bytes do not match.
    Corrupt,
    /// There are no bytes.
    Missing,
    /// The disk does not return the bytes.
    Unreadable,
}

impl Condition {
    /// Whether bytes are lost here.
    pub(crate) fn is_damage(self) -> bool {
        match self {
            Self::Sound | Self::Rebuilt | Self::ChecksumFileBad | Self::ChecksumFileTooNew => false,
            Self::Corrupt | Self::Missing | Self::Unreadable => true,
        }
    }
}

/// How a chunk is, and what exactly was found, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How it is.
    pub condition: Condition,
    /// For people.
    pub detail: String,
}

impl Finding {
    fn new(condition: Condition, detail: impl Into<String>) -> Self {
        Self { condition, detail: detail.into() }
    }
}

/// A chunk that is being read.
#[derive(Debug)]
pub(crate) struct Examination {
    disk: Arc<dyn Disk>,
    place: ChunkBinding,
    claims: ReadClaims,
    /// Open once the reading has begun.
    file: Option<Box<dyn DiskFile>>,
    hasher: ChunkHasher,
    /// The first reading found damage.
    second: bool,
}

/// What a step of an examination came to.
#[derive(Debug)]
pub(crate) enum Step {
    /// There is more to read.
    More(Box<Examination>),
    /// It is over.
    End(Finding),
}

/// What a reading found, besides failing.
enum Reading {
    Unfinished,
    Finished(ChunkSums),
    NoFile,
    OfSize(u64),
}

impl ChunkStore {
    /// The examination of a chunk; nothing is read yet.
    pub(crate) fn examination(&self, place: ChunkBinding, claims: ReadClaims) -> Box<Examination> {
        let disk = Arc::clone(&self.disk);
        let hasher = ChunkHasher::default();
        Box::new(Examination { disk, place, claims, file: None, hasher, second: false })
    }

    /// Reads at most `bytes_max` more; the second part of the answer is how many were read.
    ///
    /// # Errors
    /// [`ChunkError::Overloaded`]: no descriptor is free, so nothing is known of the chunk.
    pub(crate) async fn examine_on(
        &self,
        mut examination: Box<Examination>,
        bytes_max: u64,
    ) -> Result<(Step, u64), ChunkError> {
        let left = examination.claims.size_bytes.saturating_sub(examination.hasher.size_bytes());
        let read_on = move || {
            let before = examination.hasher.size_bytes();
            let ended = examination.read_on(bytes_max)?;
            let read = examination.hasher.size_bytes().saturating_sub(before);
            Ok((ended.map_or_else(|| Step::More(examination), Step::End), read))
        };
        self.blocking.run_of(left.min(bytes_max), read_on).await?
    }

    /// Reads a whole chunk and says how it is; with `repair` a bad checksum file over sound bytes is written again.
    ///
    /// # Errors
    /// [`ChunkError::Overloaded`]: no descriptor is free, so nothing is known of the chunk.
    pub(crate) async fn verify(
        &self,
        place: ChunkBinding,
        claims: ReadClaims,
        repair: bool,
    ) -> Result<Finding, ChunkError> {
        let mut examination = self.examination(place, claims);
        let finding = loop {
            match self.examine_on(examination, STEP_BYTES).await?.0 {
                Step::More(rest) => examination = rest,
                Step::End(finding) => break finding,
            }
        };
        if repair { Ok(self.repaired(place, claims, finding).await) } else { Ok(finding) }
    }

    /// As [`ChunkStore::verify`], for a caller that stops: the reading ends then, and a repair that is under way is left
    /// to end by itself.
    ///
    /// # Errors
    /// [`ChunkError::Draining`], and those of a verification.
    pub(crate) async fn verify_until(
        self: &Arc<Self>,
        stop: &CancellationToken,
        place: ChunkBinding,
        claims: ReadClaims,
        repair: bool,
    ) -> Result<Finding, ChunkError> {
        let verified = async {
            let finding = self.verify(place, claims, false).await?;
            if repair { self.repaired_apart(place, claims, finding).await } else { Ok(finding) }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => Err(ChunkError::Draining),
            finding = verified => finding,
        }
    }

    /// As [`ChunkStore::repaired`], in a task of its own: whoever waits here may be cut, and the repair owns its chunk until
    /// it has ended.
    ///
    /// # Errors
    /// [`ChunkError::Panicked`].
    pub(crate) async fn repaired_apart(
        self: &Arc<Self>,
        place: ChunkBinding,
        claims: ReadClaims,
        finding: Finding,
    ) -> Result<Finding, ChunkError> {
        let store = Arc::clone(self);
        let repairing = self.tasks.spawn("repair", async move { store.repaired(place, claims, finding).await });
        repairing.await.ok().flatten().ok_or(ChunkError::Panicked)
    }

    /// Repairs what was found, if it is a checksum file, and says what is then the case.
    async fn repaired(&self, place: ChunkBinding, claims: ReadClaims, finding: Finding) -> Finding {
        if finding.condition != Condition::ChecksumFileBad {
            return finding;
        }
        match self.repair_chk(place, claims).await {
            Ok(true) => Finding::new(Condition::Rebuilt, format!("{}; it was written again", finding.detail)),
            Ok(false) => finding,
            Err(error) => {
                let why = proto::status::chain(&error);
                Finding::new(finding.condition, format!("{}; it cannot be written again now: {why}", finding.detail))
            }
        }
    }

    /// Writes a checksum file again, unless a stream is writing the chunk. Returns whether it is good now.
    async fn repair_chk(&self, place: ChunkBinding, claims: ReadClaims) -> Result<bool, ChunkError> {
        let Look::Claimed(_claim) = self.sessions.look(place.chunk, self.patience).await? else { return Ok(false) };
        match self.find(place).await? {
            Found::Complete(pair) if agree(&pair.chk.sums, &claims) => Ok(true),
            Found::Nothing | Found::Complete(_) | Found::Leftover => {
                self.rebuild(place, claims, OldChk::SetAside).await.map(|_pair| true)
            }
        }
    }
}

impl Examination {
    /// Reads on, or, when a first reading found damage, from the start once more.
    fn read_on(&mut self, bytes_max: u64) -> Result<Option<Finding>, ChunkError> {
        let damage = match self.read(bytes_max) {
            Ok(Reading::Unfinished) => return Ok(None),
            Ok(Reading::Finished(sums)) if agree(&sums, &self.claims) => return self.judge_chk().map(Some),
            Ok(Reading::Finished(sums)) => Finding::new(Condition::Corrupt, self.difference(&sums)),
            Ok(Reading::OfSize(size)) => {
                let detail = format!("the file has {size} bytes; {} were committed", self.claims.size_bytes);
                Finding::new(Condition::Corrupt, detail)
            }
            Ok(Reading::NoFile) => Finding::new(Condition::Missing, "the file is not there"),
            Err(error) if let Some(passing) = ChunkError::passing(&error) => return Err(passing),
            Err(error) => {
                let at = self.hasher.size_bytes();
                let detail = format!("the disk does not return byte {at} and what follows: {error}");
                Finding::new(Condition::Unreadable, detail)
            }
        };
        self.file = None;
        self.hasher = ChunkHasher::default();
        Ok(std::mem::replace(&mut self.second, true).then_some(damage))
    }

    fn read(&mut self, bytes_max: u64) -> io::Result<Reading> {
        let file = match self.file.take() {
            Some(file) => file,
            None => match self.open()? {
                Ok(file) => file,
                Err(without) => return Ok(without),
            },
        };
        let end = self.claims.size_bytes.min(self.hasher.size_bytes().saturating_add(bytes_max.max(1)));
        let mut buffer = Vec::new();
        while self.hasher.size_bytes() < end {
            let length =
                usize::try_from((end - self.hasher.size_bytes()).min(FRAME_BYTES)).map_err(io::Error::other)?;
            buffer.clear();
            file.read_at(&mut buffer, length, self.hasher.size_bytes())?;
            self.hasher.update(&buffer);
        }
        if self.hasher.size_bytes() < self.claims.size_bytes {
            self.file = Some(file);
            return Ok(Reading::Unfinished);
        }
        forget_pages(file.as_ref());
        Ok(Reading::Finished(self.hasher.clone().finish()))
    }

    /// Opens the file; without one of the right size there is nothing to read.
    fn open(&self) -> io::Result<Result<Box<dyn DiskFile>, Reading>> {
        let Some(file) = self.disk.open(&blob_name(self.place.chunk))? else { return Ok(Err(Reading::NoFile)) };
        let size = file.size()?;
        if size != self.claims.size_bytes {
            return Ok(Err(Reading::OfSize(size)));
        }
        forget_pages(file.as_ref());
        Ok(Ok(file))
    }

    /// The bytes are sound; how is the file that says so?
    fn judge_chk(&self) -> Result<Finding, ChunkError> {
        let chunk = self.place.chunk;
        let chk = match self.disk.open(&chk_name(chunk)) {
            Ok(Some(file)) => read_chk(chunk, file.as_ref()),
            Ok(None) => return Ok(bad_chk("is missing")),
            Err(error) => match ChunkError::passing(&error) {
                Some(passing) => return Err(passing),
                None => return Ok(bad_chk(&format!("cannot be opened: {error}"))),
            },
        };
        Ok(match chk {
            Ok(None) => bad_chk("is damaged"),
            Ok(Some(Chk { binding, .. })) if !same_place(&binding, &self.place) => {
                bad_chk(&format!("is that of chunk {}, generation {}", binding.chunk, binding.generation))
            }
            Ok(Some(Chk { sums, .. })) if !agree(&sums, &self.claims) => bad_chk("holds other sums"),
            Ok(Some(_sound)) => Finding::new(Condition::Sound, ""),
            Err(ChunkError::ChecksumFileTooNew { found, known, .. }) => {
                let detail = format!(
                    "the bytes are sound; the checksum file is of a later version {found}, and this program knows up to \
                     {known}: it was left as it is; use a newer program"
                );
                Finding::new(Condition::ChecksumFileTooNew, detail)
            }
            Err(error) => return Err(error),
        })
    }

    /// Where bytes differ from those that were committed, as far as the checksum file can tell.
    fn difference(&self, found: &ChunkSums) -> String {
        let file = self.disk.open(&chk_name(self.place.chunk)).ok().flatten();
        let listed = file.and_then(|file| read_chk(self.place.chunk, file.as_ref()).ok().flatten());
        let Some(Chk { sums, .. }) = listed.filter(|chk| agree(&chk.sums, &self.claims)) else {
            return format!("the bytes have SHA-256 {}; {} was committed", found.sha256, self.claims.sha256);
        };
        let differs = |(index, _): &(usize, _)| found.pieces.get(*index) != sums.pieces.get(*index);
        let mut bad = found.pieces.iter().enumerate().filter(differs).map(|(index, _)| index as u64);
        let first = bad.next().unwrap_or(0).saturating_mul(PIECE_BYTES);
        let count = bad.count() + 1;
        format!("{count} of {} pieces of 64 KiB do not match; the first begins at byte {first}", found.pieces.len())
    }
}

fn bad_chk(problem: &str) -> Finding {
    Finding::new(Condition::ChecksumFileBad, format!("the bytes are sound; the checksum file {problem}"))
}

/// Asks the kernel to keep nothing of the file in memory. Where it cannot, the bytes may come from there.
fn forget_pages(file: &dyn DiskFile) {
    if let Err(error) = file.drop_cache() {
        tracing::debug!(%error, "the pages of a chunk cannot be dropped from the cache");
    }
}

#[cfg(test)]
mod tests;

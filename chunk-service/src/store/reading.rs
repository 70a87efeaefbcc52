//! Reads: every byte that leaves has been checked against what the metadata holds (I2).
//!
//! The permission carries the chunk's size, SHA-256 and the sum of its pieces' CRC-32Cs. A checksum file for the same
//! place with the same sums vouches for the list of pieces; without one the whole chunk is summed up instead, and the
//! file may be rebuilt. Then each piece is checked before any byte of it is handed out.
//!
//! A small chunk whose files are in memory is read on the spot, without a thread that may block. Whatever that does not
//! find as it should be is left to the ordinary way, which looks closer.
//!
//! Bytes that do not verify, and errors of the disk, are read once more past the page cache before they are reported.
//! (`posix_fadvise(POSIX_FADV_DONTNEED)`: the pages of a chunk are clean, so the kernel drops them at once. `O_DIRECT`
//! would need aligned buffers and is not offered by every file system.)

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use proto::capability::{ChunkBinding, ReadClaims};
use proto::checksum::{ChunkSums, crc32c};
use proto::ids::ChunkId;
use proto::limits::PIECE_BYTES;

use super::chk::Chk;
use super::disk::{Disk, DiskFile};
use super::durable::{Found, Unsummed, blob_name, chk_name, read_chk, same_place, sum_up, twice};
use super::leftover::{OldChk, agree};
use super::sessions::Look;
use super::{ChunkStore, Described};
use crate::blocking::Breath;
use crate::error::ChunkError;
use crate::fairness::Account;

/// How long a read waits for the checksum file that is rebuilt on its behalf.
const HEAL_WAITED_FOR: Duration = Duration::from_secs(2);

/// Part of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    /// First byte.
    pub(crate) offset: u64,
    /// How many; `None` for all that follow.
    pub(crate) limit: Option<u64>,
}

/// A chunk whose list of pieces is that of the metadata.
#[derive(Debug)]
struct Opened {
    file: Box<dyn DiskFile>,
    pieces: Vec<u32>,
    /// The checksum file could not be used.
    chk_lost: bool,
}

/// Reads a range, frame by frame.
#[derive(Debug)]
pub(crate) struct RangeReader {
    place: ChunkBinding,
    claims: ReadClaims,
    file: Box<dyn DiskFile>,
    pieces: Vec<u32>,
    /// Where the next frame begins.
    at: u64,
    /// Where the range ends.
    end: u64,
    frame_bytes: u64,
    /// Verified bytes from `at` on, left over from the last piece read.
    ready: Bytes,
}

/// A verified part of a range.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Where it begins within the chunk.
    pub(crate) offset: u64,
    /// Its bytes.
    pub(crate) bytes: Bytes,
}

impl ChunkStore {
    /// Opens a range of a chunk and reads its first frame; `None` when the range is empty.
    ///
    /// # Errors
    /// [`ChunkError::ReadOffsetOutOfRange`], [`ChunkError::Missing`], [`ChunkError::Corrupt`].
    pub(crate) async fn open_range(
        self: &Arc<Self>,
        place: ChunkBinding,
        claims: ReadClaims,
        range: Range,
        frame_bytes: u64,
    ) -> Result<(RangeReader, Option<Frame>), ChunkError> {
        if range.offset > claims.size_bytes {
            return Err(ChunkError::ReadOffsetOutOfRange { size: claims.size_bytes });
        }
        let (disk, stop) = (Arc::clone(&self.disk), self.tasks.stop_signal());
        let at_hand = || {
            let mut reader = RangeReader::of_cached(self.disk.as_ref(), place, claims, range, frame_bytes)?;
            let (moved_bytes, first) = (claims.size_bytes, reader.next_frame());
            Some((moved_bytes, first.map(|first| (reader, first, false))))
        };
        let job = move |breath: &mut Breath| {
            let opened = open(disk.as_ref(), &place, &claims, breath)?;
            let chk_lost = opened.chk_lost;
            let mut reader = RangeReader::new(place, opened, claims, range, frame_bytes);
            breath.moved(reader.next_bytes());
            let first = reader.next_frame()?;
            Ok::<_, ChunkError>((reader, first, chk_lost))
        };
        let (reader, first, chk_lost) =
            self.noted(place, claims, self.blocking.run_unless(at_hand, stop, job).await?)?;
        if chk_lost {
            self.heal(place).await;
        }
        Ok((reader, first))
    }

    /// Makes sure that a chunk is there and its checksum file, or else its bytes, match what the metadata holds.
    ///
    /// # Errors
    /// [`ChunkError::Missing`], [`ChunkError::Corrupt`].
    pub(crate) async fn check(self: &Arc<Self>, place: ChunkBinding, claims: ReadClaims) -> Result<(), ChunkError> {
        let (disk, stop) = (Arc::clone(&self.disk), self.tasks.stop_signal());
        let look =
            move |breath: &mut Breath| open(disk.as_ref(), &place, &claims, breath).map(|opened| opened.chk_lost);
        let chk_lost = self.noted(place, claims, self.blocking.run_long(stop, look).await?)?;
        if chk_lost {
            self.heal(place).await;
        }
        Ok(())
    }

    /// Reads the next frame of a range; the reader comes back with it.
    pub(crate) async fn next_frame(&self, mut reader: RangeReader) -> Result<(RangeReader, Option<Frame>), ChunkError> {
        let (place, claims, bytes) = (reader.place, reader.claims, reader.next_bytes());
        let read = self.blocking.run_of(bytes, move || reader.next_frame().map(|frame| (reader, frame))).await?;
        self.noted(place, claims, read)
    }

    /// Has somebody look at a chunk that a read found missing or damaged.
    fn noted<T>(&self, place: ChunkBinding, claims: ReadClaims, read: Result<T, ChunkError>) -> Result<T, ChunkError> {
        if let Err(ChunkError::Missing(_) | ChunkError::Corrupt(_)) = &read {
            self.suspects.add(place, claims);
        }
        read
    }
}

impl ChunkStore {
    /// Has the checksum file of a chunk that was just verified written again, in a task of its own, and waits for that a
    /// little, so that whoever has read the chunk finds the file whole. It is background work, whoever reads. Without an answer from the metadata, or with too
    /// many others at it, the file is left alone; the next read tries again.
    async fn heal(self: &Arc<Self>, place: ChunkBinding) {
        let Ok(permit) = Arc::clone(&self.heals).try_acquire_owned() else { return };
        let store = self.on_account(Account::own());
        let healing = self.tasks.spawn("heal", async move {
            if let Err(error) = store.heal_now(place).await {
                let error = proto::status::chain(&error);
                tracing::warn!(chunk = %place.chunk, %error, "a checksum file could not be rebuilt yet");
            }
            drop(permit);
        });
        if tokio::time::timeout(HEAL_WAITED_FOR, healing).await.is_err() {
            tracing::debug!(chunk = %place.chunk, "a read does not wait for its checksum file any longer");
        }
    }

    async fn heal_now(&self, place: ChunkBinding) -> Result<(), ChunkError> {
        let described = self.describe.describe(place.chunk).await?;
        let Look::Claimed(_claim) = self.sessions.look(place.chunk, self.patience).await? else { return Ok(()) };
        let Described::Sealed(binding, claims) = described else { return Ok(()) };
        match self.find(place).await? {
            Found::Complete(pair) if agree(&pair.chk.sums, &claims) => Ok(()),
            Found::Nothing | Found::Complete(_) | Found::Leftover => {
                self.rebuild(binding, claims, OldChk::Replace).await.map(drop)
            }
        }
    }
}

/// Chunks of at most so many bytes are read on the spot when they are in memory: opening, copying and checking that much
/// takes less than having a thread do it.
const ON_THE_SPOT_BYTES_MAX: u64 = PIECE_BYTES;

/// The bytes of a small chunk that is in memory, both files of it, and as the metadata has it; `None` is no judgement of it.
fn cached(disk: &dyn Disk, place: &ChunkBinding, claims: &ReadClaims) -> Option<(Opened, Vec<u8>)> {
    if claims.size_bytes > ON_THE_SPOT_BYTES_MAX {
        return None;
    }
    let chk = disk.open_cached(&chk_name(place.chunk))?;
    let chk_bytes = chk.size().ok().filter(|size| *size <= ON_THE_SPOT_BYTES_MAX)?;
    let Chk { binding, sums } = Chk::parse(&chk.read_cached(index(chk_bytes))?).ok()?;
    let file = disk.open_cached(&blob_name(place.chunk))?;
    let is_right = same_place(&binding, place) && agree(&sums, claims) && file.size().ok()? == claims.size_bytes;
    let bytes = file.read_cached(index(claims.size_bytes)).filter(|bytes| pieces_match(bytes, &sums.pieces));
    bytes.filter(|_| is_right).map(|bytes| (Opened { file, pieces: sums.pieces, chk_lost: false }, bytes))
}

/// Opens a chunk and finds a list of pieces that the metadata vouches for.
fn open(disk: &dyn Disk, place: &ChunkBinding, claims: &ReadClaims, breath: &mut Breath) -> Result<Opened, ChunkError> {
    match listed(disk, place.chunk)? {
        Some(Chk { binding, sums })
            if same_place(&binding, place) && (agree(&sums, claims) || seeded!(disk, OwnChkTrusted)) =>
        {
            let file = open_sized(disk, place.chunk, claims)?;
            Ok(Opened { file, pieces: sums.pieces, chk_lost: false })
        }
        Some(_) | None => {
            let (file, sums) = sum_up_sealed(disk, place.chunk, claims, breath)?;
            Ok(Opened { file, pieces: sums.pieces, chk_lost: true })
        }
    }
}

/// What a chunk's checksum file says; `None` when there is none that can be used.
fn listed(disk: &dyn Disk, chunk: ChunkId) -> Result<Option<Chk>, ChunkError> {
    match disk.open(&chk_name(chunk)) {
        Ok(Some(file)) => read_chk(chunk, file.as_ref()),
        Ok(None) => Ok(None),
        Err(error) => ChunkError::passing(&error).map_or(Ok(None), Err),
    }
}

/// Opens a chunk's bytes, which must be as many as the metadata says.
fn open_sized(disk: &dyn Disk, chunk: ChunkId, claims: &ReadClaims) -> Result<Box<dyn DiskFile>, ChunkError> {
    let file = disk.open(&blob_name(chunk)).map_err(|error| read_failed(chunk, &error))?;
    let file = file.ok_or(ChunkError::Missing(chunk))?;
    let size = file.size().map_err(|error| read_failed(chunk, &error))?;
    if size == claims.size_bytes { Ok(file) } else { Err(ChunkError::Corrupt(chunk)) }
}

/// Sums up a whole chunk; its sums must be those that the metadata holds.
pub(crate) fn sum_up_sealed(
    disk: &dyn Disk,
    chunk: ChunkId,
    claims: &ReadClaims,
    breath: &mut Breath,
) -> Result<(Box<dyn DiskFile>, ChunkSums), ChunkError> {
    let file = open_sized(disk, chunk, claims)?;
    let read = || sum_up(file.as_ref(), claims.size_bytes, breath).map(Some);
    match twice(file.as_ref(), read, |sums| agree(sums, claims)) {
        Ok(Some(sums)) => Ok((file, sums)),
        Ok(None) => Err(ChunkError::Corrupt(chunk)),
        Err(Unsummed::Stopped) => Err(ChunkError::Draining),
        Err(Unsummed::Failed(error)) => Err(read_failed(chunk, &error)),
    }
}

fn read_failed(chunk: ChunkId, error: &io::Error) -> ChunkError {
    ChunkError::passing(error).unwrap_or_else(|| {
        tracing::warn!(%chunk, %error, "a chunk cannot be read");
        ChunkError::Corrupt(chunk)
    })
}

impl RangeReader {
    fn new(place: ChunkBinding, opened: Opened, claims: ReadClaims, range: Range, frame_bytes: u64) -> Self {
        let size = claims.size_bytes;
        let end = range.limit.map_or(size, |limit| range.offset.saturating_add(limit).min(size));
        let Opened { file, pieces, chk_lost: _ } = opened;
        Self { place, claims, file, pieces, at: range.offset, end, frame_bytes, ready: Bytes::new() }
    }

    /// A reader that has all it will need; `None` when the chunk is too large for that, or anything about it takes a closer
    /// look or the disk.
    fn of_cached(
        disk: &dyn Disk,
        place: ChunkBinding,
        claims: ReadClaims,
        range: Range,
        frame_bytes: u64,
    ) -> Option<Self> {
        let (opened, bytes) = cached(disk, &place, &claims)?;
        let mut reader = Self::new(place, opened, claims, range, frame_bytes);
        reader.ready = Bytes::from(bytes);
        reader.ready.advance(index(range.offset));
        Some(reader)
    }

    /// Whether another frame follows.
    pub(crate) fn has_more(&self) -> bool {
        self.at < self.end
    }

    /// Bytes of the next frame.
    fn next_bytes(&self) -> u64 {
        self.frame_bytes.min(self.end.saturating_sub(self.at))
    }

    fn next_frame(&mut self) -> Result<Option<Frame>, ChunkError> {
        if !self.has_more() {
            return Ok(None);
        }
        let wanted = index(self.next_bytes());
        if self.ready.len() < wanted {
            self.read_more(wanted)?;
        }
        if self.ready.len() < wanted {
            return Err(ChunkError::Corrupt(self.place.chunk));
        }
        let frame = Frame { offset: self.at, bytes: self.ready.split_to(wanted) };
        self.at += wanted as u64;
        Ok(Some(frame))
    }

    /// Reads and verifies the pieces that are missing from the next `wanted` bytes. What is ready ends where a piece
    /// does; only the first read of a range may begin within one.
    fn read_more(&mut self, wanted: usize) -> Result<(), ChunkError> {
        let missing_from = self.at + self.ready.len() as u64;
        let first_piece = missing_from / PIECE_BYTES;
        let start = first_piece * PIECE_BYTES;
        let end = (self.at + wanted as u64).next_multiple_of(PIECE_BYTES).min(self.claims.size_bytes);
        let length = index(end.saturating_sub(start));
        let kept = self.ready.len();
        let pieces = self.pieces.get(index(first_piece)..).unwrap_or_default();
        let read = || {
            let mut buffer = Vec::with_capacity(kept + length);
            buffer.extend_from_slice(&self.ready);
            self.file.read_at(&mut buffer, length, start).map(|()| Some(buffer))
        };
        let good = |buffer: &Vec<u8>| buffer.get(kept..).is_some_and(|bytes| pieces_match(bytes, pieces));
        let buffer = twice(self.file.as_ref(), read, good).map_err(|error| read_failed(self.place.chunk, &error))?;
        self.ready = Bytes::from(buffer.ok_or(ChunkError::Corrupt(self.place.chunk))?);
        self.ready.advance(index(missing_from - start));
        Ok(())
    }
}

fn pieces_match(bytes: &[u8], pieces: &[u32]) -> bool {
    let count = bytes.len().div_ceil(index(PIECE_BYTES));
    let listed = pieces.get(..count);
    listed.is_some_and(|listed| bytes.chunks(index(PIECE_BYTES)).map(crc32c).eq(listed.iter().copied()))
}

/// A length or index that is known to fit into memory.
fn index(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::world::{World, blob, chk, claims, pattern, place};

    fn on_the_spot(world: &World, place: ChunkBinding, bytes: &[u8], range: Range) -> Option<Vec<u8>> {
        let mut reader = RangeReader::of_cached(world.store.disk.as_ref(), place, claims(bytes), range, 1000)?;
        let mut read = Vec::new();
        while let Some(frame) = reader.next_frame().unwrap() {
            assert_eq!(frame.offset, range.offset + read.len() as u64);
            read.extend_from_slice(&frame.bytes);
        }
        Some(read)
    }

    #[tokio::test]
    async fn a_small_chunk_is_read_on_the_spot_if_both_files_of_it_are_as_they_should_be() {
        let (world, place, bytes) = (World::new(), place(1), pattern(4096, 1));
        world.put_sealed(place, &bytes).await;
        for (from, limit, to) in [(0, None, 4096), (0, Some(1), 1), (1000, Some(2500), 3500), (4096, None, 4096)] {
            let read = on_the_spot(&world, place, &bytes, Range { offset: from as u64, limit });
            assert_eq!(read.as_deref(), Some(&bytes[from..to]));
        }
        let whole = Range { offset: 0, limit: None };
        assert_eq!(on_the_spot(&world, place, &pattern(4096, 2), whole), None, "the metadata has other sums");
        for name in [blob(&place), chk(&place)] {
            let flip = |content: &mut Vec<u8>| content[70] ^= 1;
            world.disk.damage(&name, flip);
            assert_eq!(on_the_spot(&world, place, &bytes, whole), None, "{name} is damaged");
            world.disk.damage(&name, flip);
        }
        world.disk.damage(&blob(&place), |content| content.push(0));
        assert_eq!(on_the_spot(&world, place, &bytes, whole), None, "it is too long");
    }

    #[tokio::test]
    async fn a_chunk_of_more_than_a_piece_is_left_to_a_thread() {
        for (size, is_read) in [(65_536, true), (65_537, false)] {
            let (world, place, bytes) = (World::new(), place(1), pattern(size, 1));
            world.put_sealed(place, &bytes).await;
            let read = on_the_spot(&world, place, &bytes, Range { offset: 0, limit: None });
            assert_eq!(read, is_read.then_some(bytes));
        }
    }
}

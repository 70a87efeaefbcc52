//! How far the scrub has come: the file `scrub.position`.
//!
//! ```text
//! mini-tectonic scrub position v1
//! started=1764000000000 after=0190b5c4-7e5a-7cc3-98c4-dc0c0c07398f
//! end crc32c=1a2b3c4d
//! ```
//! `after=` is `start`, the last chunk that was looked at, or `end`. The file appears by temporary file, sync, rename and
//! sync of the folder. One that is lost, damaged or of another version means that the scrub starts over and says so, and
//! nothing else.

use std::io;
use std::sync::Arc;

use proto::checksum::crc32c;
use proto::ids::ChunkId;

use super::ChunkStore;
use super::disk::Disk;
use crate::error::ChunkError;

const FILE: &str = "scrub.position";
const TEMPORARY: &str = "scrub.position.tmp";
const FIRST_WORDS: &str = "mini-tectonic scrub position v";
const VERSION: u32 = 1;
const BYTES_MAX: u64 = 1024;

/// Where in the order of the chunks' ids a sweep is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    /// Before the first chunk.
    Start,
    /// Behind this one.
    After(ChunkId),
    /// Behind the last one.
    End,
}

/// How far the scrub has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    /// When the sweep began, in milliseconds since 1970.
    pub(crate) started_ms: u64,
    /// Where it is.
    pub(crate) at: At,
}

impl ChunkStore {
    /// The position that was kept; `None` when there is none that can be used.
    ///
    /// # Errors
    /// [`ChunkError::Draining`] or [`ChunkError::Panicked`].
    pub(crate) async fn scrub_position(&self) -> Result<Option<Position>, ChunkError> {
        let disk = Arc::clone(&self.disk);
        let read = self.blocking.run(move || read(disk.as_ref())).await?;
        Ok(read.unwrap_or_else(|error| {
            tracing::warn!(%error, "the scrub's position cannot be read; it starts over");
            None
        }))
    }

    /// Keeps a position, durably.
    ///
    /// # Errors
    /// As for any write: [`ChunkError::ReadOnly`], [`ChunkError::OutOfSpace`].
    pub(crate) async fn keep_scrub_position(&self, position: Position) -> Result<(), ChunkError> {
        self.latch.check()?;
        let (disk, latch) = (Arc::clone(&self.disk), self.latch.clone());
        let failed = "keep the scrub's position";
        let write = move || {
            let file = (|| {
                disk.unlink(TEMPORARY)?;
                let file = disk.create_new(TEMPORARY)?;
                file.write_at(position.print().as_bytes(), 0).map(|()| file)
            })();
            let file = file.map_err(|error| latch.write_failed(failed, None, error))?;
            file.sync().map_err(|error| latch.sync_failed(failed, None, &error))?;
            disk.rename(TEMPORARY, FILE).map_err(|error| latch.write_failed(failed, None, error))
        };
        self.blocking.run(write).await??;
        self.sync_folder().await
    }
}

fn read(disk: &dyn Disk) -> io::Result<Option<Position>> {
    let Some(file) = disk.open(FILE)? else { return Ok(None) };
    let mut bytes = Vec::new();
    let length = usize::try_from(file.size()?.min(BYTES_MAX)).map_err(io::Error::other)?;
    file.read_at(&mut bytes, length, 0)?;
    let position = Position::parse(&bytes);
    if position.is_none() {
        tracing::warn!(problem = problem_of(&bytes), "{FILE} cannot be used; the scrub starts over");
    }
    Ok(position)
}

/// Why a position cannot be used, in words.
fn problem_of(bytes: &[u8]) -> String {
    let first = bytes.split(|byte| *byte == b'\n').next().and_then(|line| std::str::from_utf8(line).ok());
    let found: Option<u32> = first.and_then(|line| line.strip_prefix(FIRST_WORDS)?.parse().ok());
    match found.filter(|found| *found > VERSION) {
        Some(found) => format!("it has format version {found}, but this program knows versions up to {VERSION}"),
        None => "it is damaged".to_owned(),
    }
}

impl Position {
    fn print(&self) -> String {
        let after = match self.at {
            At::Start => "start".to_owned(),
            At::After(chunk) => chunk.to_string(),
            At::End => "end".to_owned(),
        };
        let text = format!("{FIRST_WORDS}{VERSION}\nstarted={} after={after}\n", self.started_ms);
        format!("{text}end crc32c={:08x}\n", crc32c(text.as_bytes()))
    }

    /// Reads what [`Position::print`] wrote, and nothing else.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let (started, after) = text.lines().nth(1)?.split_once(' ')?;
        let at = match after.strip_prefix("after=")? {
            "start" => At::Start,
            "end" => At::End,
            chunk => At::After(chunk.parse().ok()?),
        };
        let position = Self { started_ms: started.strip_prefix("started=")?.parse().ok()?, at };
        (position.print() == text).then_some(position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::world::{World, place};

    #[test]
    fn a_position_of_a_later_version_is_told_from_a_damaged_one() {
        let later = b"mini-tectonic scrub position v2\nwhatever\n";
        assert_eq!(Position::parse(later), None);
        assert!(problem_of(later).contains("format version 2, but this program knows versions up to 1"));
        assert_eq!(problem_of(b"mini-tectonic scrub position v1\n\xff"), "it is damaged");
    }

    #[tokio::test]
    async fn a_position_is_kept_across_a_crash_and_a_damaged_one_is_none() {
        let mut world = World::new();
        assert_eq!(world.store.scrub_position().await.unwrap(), None);
        for at in [At::Start, At::After(place(1).chunk), At::End] {
            let position = Position { started_ms: 1_764_000_000_000, at };
            world.store.keep_scrub_position(position).await.unwrap();
            world = world.crash(&mut |_| 0).await;
            assert_eq!(world.store.scrub_position().await.unwrap(), Some(position));
        }
        let length = world.disk.bytes(FILE).unwrap().len();
        for index in 0..length {
            world.disk.damage(FILE, |content| content[index] ^= 1);
            assert_eq!(world.store.scrub_position().await.unwrap(), None, "byte {index}");
            world.disk.damage(FILE, |content| content[index] ^= 1);
            assert_eq!(Position::parse(&world.disk.bytes(FILE).unwrap()[..index]), None);
        }
    }
}

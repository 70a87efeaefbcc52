//! Which chunks have files: one pass over the folder, in pages, in no order.
//!
//! A folder gives its names in no order, and one chunk has up to three of them; remembering which chunks were seen would
//! take memory that grows with the folder. So each chunk has one name under which it is reported, and the others are
//! looked up: its `.blob`; without that its `.blob.chk`; with neither its `.blob.chk.tmp`. A chunk whose files stay as they
//! are during the pass is reported exactly once; one that comes or goes meanwhile at most once for each of its names.
//!
//! A listing is complete or it is an error: whoever takes a chunk that is missing from it for absent would otherwise
//! destroy data for a folder that could not be read to its end.

use std::ffi::OsStr;
use std::io;
use std::sync::Arc;

use proto::ids::ChunkId;

use super::ChunkStore;
use super::chk::Chk;
use super::disk::{Disk, Names, Stat};
use super::durable::{blob_name, chk_name, chk_temporary_name, read_chk};
use crate::blocking::Breath;
use crate::error::ChunkError;

/// Names looked at for one page.
const NAMES_PER_PAGE: usize = 500;
/// What the folder holds besides chunks; `lost+found` is the file system's own.
const OUR_NAMES: [&str; 11] = [
    "IDENTITY",
    "IDENTITY.tmp",
    "LOCK",
    "node.key",
    "node.key.tmp",
    "scrub.position",
    "scrub.position.tmp",
    "journal.0",
    "journal.1",
    ".quarantine",
    "lost+found",
];

/// The files of one chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ChunkFiles {
    /// The chunk.
    pub(crate) chunk: ChunkId,
    /// Size of its bytes; `None` when there are none.
    pub(crate) data_size: Option<u64>,
    /// It has a checksum file.
    pub(crate) has_chk: bool,
    /// What that says, when it was asked for and the file parses.
    pub(crate) chk: Option<Chk>,
}

/// Part of a listing.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Page {
    /// Chunks; may be none.
    pub(crate) chunks: Vec<ChunkFiles>,
    /// Names that no chunk service wrote.
    pub(crate) foreign: Vec<String>,
    /// Every name has been looked at.
    pub(crate) complete: bool,
}

/// A pass over the folder.
pub(crate) struct Listing {
    disk: Arc<dyn Disk>,
    names: Names,
    with_chks: bool,
}

impl ChunkStore {
    /// Begins a pass over the folder; `with_chks` reads every checksum file, too.
    ///
    /// # Errors
    /// [`ChunkError::Io`], [`ChunkError::Overloaded`].
    pub(crate) async fn list(&self, with_chks: bool) -> Result<Listing, ChunkError> {
        let disk = Arc::clone(&self.disk);
        let open = move || Ok(Listing { names: disk.names()?, disk, with_chks });
        self.blocking.run(open).await?.map_err(failed)
    }

    /// The next page; the listing comes back with it. After an error there is none.
    ///
    /// # Errors
    /// [`ChunkError::Io`], [`ChunkError::Overloaded`].
    pub(crate) async fn next_page(&self, mut listing: Listing) -> Result<(Listing, Page), ChunkError> {
        let read = move |breath: &mut Breath| listing.next_page(|| breath.may_go_on()).map(|page| (listing, page));
        self.blocking.run_long(self.tasks.stop_signal(), read).await?
    }
}

impl Listing {
    fn next_page(&mut self, mut may_go_on: impl FnMut() -> bool) -> Result<Page, ChunkError> {
        let mut page = Page::default();
        for _ in 0..NAMES_PER_PAGE {
            if !may_go_on() {
                return Err(ChunkError::Draining);
            }
            let Some(name) = self.names.next().transpose().map_err(failed)? else {
                page.complete = true;
                break;
            };
            self.look_at(&name, &mut page)?;
        }
        Ok(page)
    }

    fn look_at(&self, name: &OsStr, page: &mut Page) -> Result<(), ChunkError> {
        let (chunk, kind) = match parse(name) {
            Parsed::Chunk(chunk, kind) => (chunk, kind),
            Parsed::Ours => return Ok(()),
            Parsed::Foreign => {
                page.foreign.push(name.to_string_lossy().into_owned());
                return Ok(());
            }
        };
        let (files, reported_as) = self.files(chunk).map_err(failed)?;
        match reported_as {
            Some(reported_as) if reported_as == kind => page.chunks.push(self.with_chk(files)?),
            Some(_another_name) => {}
            None => self.not_a_file(name, page).map_err(failed)?,
        }
        Ok(())
    }

    /// A name of a chunk that no file has: it went meanwhile, or something else bears it.
    fn not_a_file(&self, name: &OsStr, page: &mut Page) -> io::Result<()> {
        let name = name.to_string_lossy();
        if self.disk.stat(&name)?.is_some() {
            page.foreign.push(name.into_owned());
        }
        Ok(())
    }

    /// A chunk's files, and the name under which they are reported; `None` when there are none.
    fn files(&self, chunk: ChunkId) -> io::Result<(ChunkFiles, Option<Kind>)> {
        let file = |name: &str| Ok::<_, io::Error>(self.disk.stat(name)?.filter(|stat| stat.is_file));
        let (blob, chk) = (file(&blob_name(chunk))?, file(&chk_name(chunk))?);
        let reported_as = match (blob, chk) {
            (Some(_), _) => Some(Kind::Blob),
            (None, Some(_)) => Some(Kind::Chk),
            (None, None) => file(&chk_temporary_name(chunk))?.map(|_stat| Kind::ChkTemporary),
        };
        let data_size = blob.map(|Stat { size, .. }| size);
        Ok((ChunkFiles { chunk, data_size, has_chk: chk.is_some(), chk: None }, reported_as))
    }

    /// Adds what the checksum file says, if that was asked for.
    fn with_chk(&self, files: ChunkFiles) -> Result<ChunkFiles, ChunkError> {
        if !self.with_chks || !files.has_chk {
            return Ok(files);
        }
        let Some(file) = self.disk.open(&chk_name(files.chunk)).map_err(failed)? else { return Ok(files) };
        match read_chk(files.chunk, file.as_ref()) {
            Ok(chk) => Ok(ChunkFiles { chk, ..files }),
            Err(ChunkError::ChecksumFileTooNew { .. }) => Ok(files),
            Err(error) => Err(error),
        }
    }
}

fn failed(error: io::Error) -> ChunkError {
    ChunkError::file("list the folder")(error)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Blob,
    Chk,
    ChkTemporary,
}

#[derive(Debug, PartialEq, Eq)]
enum Parsed {
    Chunk(ChunkId, Kind),
    Ours,
    Foreign,
}

fn parse(name: &OsStr) -> Parsed {
    let Some(name) = name.to_str() else { return Parsed::Foreign };
    if OUR_NAMES.contains(&name) {
        return Parsed::Ours;
    }
    let kinds = [(".blob", Kind::Blob), (".blob.chk", Kind::Chk), (".blob.chk.tmp", Kind::ChkTemporary)];
    let of_kind = |(suffix, kind)| Some(Parsed::Chunk(name.strip_suffix(suffix)?.parse().ok()?, kind));
    kinds.into_iter().find_map(of_kind).unwrap_or(Parsed::Foreign)
}

#[cfg(test)]
mod tests;

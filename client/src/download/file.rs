//! Into a file: several blocks at a time, each written where it belongs in a temporary file beside the target.
//!
//! The target changes only by the rename at the end, after every block has verified; until then, and after any failure
//! or a drop of the future, it is what it was, and the temporary file is removed. A crash may leave a file
//! `.<name>.partial-<random>`. Nothing is synced: after a power cut a download can be repeated.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use proto::checksum::{Sha256, Sha256Hasher};
use proto::pb;
use tempfile::NamedTempFile;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::block::BlockReader;
use super::layout::Layout;
use super::wrong_sum;
use crate::apart::{self, Place};
use crate::error::Error;
use crate::progress::Meter;

/// Blocks read at once: while one verifies and is written, the next one arrives.
const BLOCKS_IN_FLIGHT: usize = 3;
/// Verified frames of a block that wait to be written.
const FRAMES_AHEAD: usize = 8;
/// As other programs create files; the process's umask narrows it.
const MODE: u32 = 0o666;

/// A file that is not complete yet.
struct Partial {
    file: NamedTempFile,
    target: PathBuf,
}

/// Reads everything into the file at this path. `ahead` is what is already here of the first block.
pub(super) async fn fetch(
    mut layout: Layout,
    mut ahead: Option<pb::ReadChunkResponse>,
    target: PathBuf,
    meter: &Meter,
) -> Result<(), Error> {
    let partial = apart::run(Place::Pool, move || Partial::create(&target)).await?;
    let file = Arc::new(partial.writable()?);
    let mut blocks = JoinSet::new();
    loop {
        if blocks.len() < BLOCKS_IN_FLIGHT
            && let Some(part) = layout.next().await?
        {
            let reader = BlockReader::new(layout.source(), part, meter).with(ahead.take());
            blocks.spawn(fetch_block(reader, Arc::clone(&file), partial.target.clone()));
            continue;
        }
        match blocks.join_next().await {
            Some(fetched) => fetched.map_err(|_panicked| apart::ended_early())??,
            None => break,
        }
    }
    apart::run(Place::Pool, move || partial.publish()).await
}

/// Reads one block; its bytes are hashed and written apart from the runtime.
async fn fetch_block(mut reader: BlockReader, file: Arc<File>, target: PathBuf) -> Result<(), Error> {
    let (frames, inbox) = mpsc::channel(FRAMES_AHEAD);
    let (blob_id, index) = (reader.blob_id(), reader.part().block.index);
    let (expected, offset) = (reader.part().whole_sum(), reader.part().output_offset);
    let writing = apart::run(Place::Pool, move || {
        write_block(&file, offset, inbox, expected.is_some()).map_err(|source| local("write", &target, source))
    });
    while let Some(frame) = reader.next().await? {
        if frames.send(frame).await.is_err() {
            break;
        }
    }
    drop(frames);
    let sum = writing.await?;
    if expected.is_some() && sum != expected {
        return Err(wrong_sum(blob_id, index));
    }
    Ok(())
}

/// Writes frames one after the other, and returns their SHA-256 if it is wanted.
fn write_block(
    file: &File,
    mut offset: u64,
    mut frames: mpsc::Receiver<Bytes>,
    hash: bool,
) -> io::Result<Option<Sha256>> {
    let mut hasher = hash.then(Sha256Hasher::default);
    while let Some(frame) = frames.blocking_recv() {
        if let Some(hasher) = &mut hasher {
            hasher.update(&frame);
        }
        file.write_all_at(&frame, offset)?;
        offset += frame.len() as u64;
    }
    Ok(hasher.map(Sha256Hasher::finish))
}

impl Partial {
    fn create(target: &Path) -> Result<Self, Error> {
        // Through a link the file it names is replaced, not the link.
        let target = match std::fs::canonicalize(target) {
            Ok(existing) => existing,
            Err(error) if error.kind() == io::ErrorKind::NotFound => target.to_path_buf(),
            Err(source) => return Err(local("write", target, source)),
        };
        let Some(name) = target.file_name().filter(|_name| !target.is_dir()) else {
            return Err(local("write", &target, io::ErrorKind::IsADirectory.into()));
        };
        let mut prefix = std::ffi::OsString::from(".");
        prefix.push(name);
        prefix.push(".partial-");
        let folder = match target.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            Some(_) | None => Path::new("."),
        };
        let file = tempfile::Builder::new()
            .prefix(&prefix)
            .rand_bytes(8)
            .permissions(std::fs::Permissions::from_mode(MODE))
            .tempfile_in(folder)
            .map_err(|source| local("write", &target, source))?;
        Ok(Self { file, target })
    }

    fn writable(&self) -> Result<File, Error> {
        self.file.as_file().try_clone().map_err(|source| local("write", &self.target, source))
    }

    /// Puts the complete file in its place, with the permissions of the one that it replaces.
    fn publish(self) -> Result<(), Error> {
        let Self { file, target } = self;
        let publish = || -> io::Result<()> {
            if let Ok(replaced) = std::fs::metadata(&target) {
                file.as_file().set_permissions(replaced.permissions())?;
            }
            file.persist(&target).map(drop).map_err(|refused| refused.error)
        };
        publish().map_err(|source| local("write", &target, source))
    }
}

fn local(action: &'static str, path: &Path, source: io::Error) -> Error {
    Error::Local { action, path: path.to_path_buf(), source }
}

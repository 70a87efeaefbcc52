//! Many files: small ones travel together, a few such groups at a time.
//!
//! What is printed are the ids of the first files, in the order given, up to the first that fails, as if one had been stored
//! after the other. What was already stored of those behind it is deleted again.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::PathBuf;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;
use mini_tectonic_client::{Blob, Error, UploadOptions};
use proto::limits::{BATCH_ITEMS_MAX, SMALL_BLOB_BYTES};

use super::{Put, is_standard, print, spoken};
use crate::cli::context::{Context, Session};
use crate::cli::failure::{Exit, Failure};

/// Groups under way: while one is made durable, the next ones are read and sent.
const GROUPS_UNDER_WAY: usize = 4;

/// A file, read, if it is small; `None` for any other, and for one whose trouble is for the upload to tell.
type Looked = (PathBuf, Option<Bytes>);

/// What became of a file.
type Stored = (PathBuf, Result<Blob, Error>);

/// Stores all files of the command line.
pub(super) async fn put_all(
    put: &Put,
    context: &Context,
    session: &Session<'_>,
    options: &UploadOptions,
) -> Result<(), Failure> {
    let mut files = Files { paths: put.file.iter().cloned().collect(), looked: VecDeque::new() };
    let mut under_way = FuturesOrdered::new();
    let mut alone = None;
    loop {
        while alone.is_none() && under_way.len() < GROUPS_UNDER_WAY && !files.are_over() {
            let (group, next) = files.next_group().await?;
            alone = next;
            if !group.is_empty() {
                under_way.push_back(store(put, session, group, options));
            }
        }
        let outcome = match (under_way.next().await, alone.take()) {
            (Some(stored), waiting) => {
                alone = waiting;
                tell(context, session, stored).await
            }
            (None, Some(path)) => {
                put.put(context, session, &path, options.labels.clone()).await.and_then(|blob| print(context, &blob))
            }
            (None, None) => return Ok(()),
        };
        if let Err(failure) = outcome {
            while let Some(stored) = under_way.next().await {
                take_back(session, stored).await;
            }
            return Err(failure);
        }
    }
}

/// Files that are still to be stored.
struct Files {
    paths: VecDeque<PathBuf>,
    /// The next ones, which were looked at together.
    looked: VecDeque<Looked>,
}

impl Files {
    fn are_over(&self) -> bool {
        self.paths.is_empty() && self.looked.is_empty()
    }

    /// Small files up to the next that is not, and that one.
    async fn next_group(&mut self) -> Result<(Vec<(PathBuf, Bytes)>, Option<PathBuf>), Failure> {
        if self.looked.is_empty() {
            let paths: Vec<_> = self.paths.drain(..self.paths.len().min(BATCH_ITEMS_MAX)).collect();
            let looked = tokio::task::spawn_blocking(move || paths.into_iter().map(look).collect());
            self.looked = looked.await.map_err(|_panicked| Failure::new(Exit::Other, "reading files ended early"))?;
        }
        let mut group = Vec::new();
        while let Some((path, content)) = self.looked.pop_front() {
            match content {
                Some(content) => group.push((path, content)),
                None => return Ok((group, Some(path))),
            }
        }
        Ok((group, None))
    }
}

fn look(path: PathBuf) -> Looked {
    let content = if is_standard(&path) { None } else { small_content(&path).ok().flatten() };
    (path, content)
}

fn small_content(path: &PathBuf) -> io::Result<Option<Bytes>> {
    let metadata = std::fs::metadata(path)?;
    if !metadata.is_file() || metadata.len() > SMALL_BLOB_BYTES {
        return Ok(None);
    }
    let mut content = Vec::new();
    File::open(path)?.take(metadata.len() + 1).read_to_end(&mut content)?;
    // One that changes meanwhile is for whoever can say so.
    Ok((content.len() as u64 == metadata.len()).then(|| content.into()))
}

async fn store(
    put: &Put,
    session: &Session<'_>,
    group: Vec<(PathBuf, Bytes)>,
    options: &UploadOptions,
) -> Result<Vec<Stored>, Failure> {
    let (paths, contents): (Vec<_>, Vec<_>) = group.into_iter().unzip();
    let named = |path: &PathBuf| UploadOptions { display_name: put.display_name(path), ..options.clone() };
    let blobs = contents.into_iter().zip(&paths).map(|(content, path)| (content, named(path))).collect();
    let outcomes = session.client.upload_batch(blobs).await;
    let outcomes = outcomes.map_err(|error| session.failed("put", &error))?;
    Ok(paths.into_iter().zip(outcomes).collect())
}

/// Prints what was stored, up to the first that was not.
async fn tell(context: &Context, session: &Session<'_>, stored: Result<Vec<Stored>, Failure>) -> Result<(), Failure> {
    let mut stored = stored?.into_iter();
    while let Some((path, outcome)) = stored.next() {
        let told = match outcome {
            Ok(blob) => print(context, &blob),
            Err(error) => Err(session.failed(&format!("put of {}", spoken(&path)), &error)),
        };
        if let Err(failure) = told {
            take_back(session, Ok(stored.collect())).await;
            return Err(failure);
        }
    }
    Ok(())
}

async fn take_back(session: &Session<'_>, stored: Result<Vec<Stored>, Failure>) {
    for (path, outcome) in stored.into_iter().flatten() {
        let Ok(blob) = outcome else { continue };
        if let Err(error) = session.client.delete_blob(blob.blob_id).await {
            tracing::warn!(%error, blob_id = %blob.blob_id, file = %path.display(), "stored, and not taken back");
        }
    }
}

//! What is measured: one put, one get; and the delete that cleans up.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use mini_tectonic_client::{Blob, Client, DownloadOptions, Error, Sink, Source, UploadOptions};

use super::content::Content;
use super::phase::Operation;

/// Blobs that were stored so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Stored(Arc<Mutex<Vec<Blob>>>);

impl Stored {
    fn add(&self, blob: Blob) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(blob);
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<Blob> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Stores one object: each worker has a file of its own, and stamps it with a number that no other object has.
pub(super) fn put(client: &Client, contents: Arc<[Content]>, first_number: u64, stored: &Stored) -> Operation {
    let (client, stored) = (client.clone(), stored.clone());
    Arc::new(move |worker, number| {
        let (client, stored, contents) = (client.clone(), stored.clone(), Arc::clone(&contents));
        Box::pin(async move {
            let Some(content) = contents.get(worker) else { return Ok(()) };
            content.stamp(first_number + number).map_err(|error| cannot_write(content.path(), error))?;
            let options = UploadOptions { display_name: format!("bench-{number}"), ..UploadOptions::default() };
            stored.add(client.upload(Source::File(content.path().to_path_buf()), options).await?);
            Ok(())
        })
    })
}

fn cannot_write(path: &Path, source: std::io::Error) -> Error {
    Error::Local { action: "write", path: path.to_path_buf(), source }
}

/// Reads one of these, over and over, and verifies it against what its put was told.
pub(super) fn get(client: &Client, objects: Vec<Blob>) -> Operation {
    over(client, objects, |client, blob| async move {
        let sink = Sink::Writer(Box::new(std::io::sink()));
        let got = client.download(blob.blob_id, DownloadOptions::default(), sink).await?;
        if got.bytes == blob.size_bytes && got.blob.sha256 == blob.sha256 {
            Ok(())
        } else {
            Err(Error::Damaged { blob_id: blob.blob_id, problem: "it is not what was put".to_owned() })
        }
    })
}

/// Deletes these, one by one.
pub(super) fn delete(client: &Client, objects: Vec<Blob>) -> Operation {
    over(client, objects, |client, blob| async move { client.delete_blob(blob.blob_id).await })
}

fn over<F>(client: &Client, objects: Vec<Blob>, operation: fn(Client, Blob) -> F) -> Operation
where
    F: Future<Output = Result<(), Error>> + Send + 'static,
{
    let client = client.clone();
    Arc::new(move |_worker, number| {
        let count = u64::try_from(objects.len()).unwrap_or(u64::MAX).max(1);
        let object = usize::try_from(number % count).ok().and_then(|index| objects.get(index)).cloned();
        let client = client.clone();
        Box::pin(async move {
            match object {
                Some(object) => operation(client, object).await,
                None => Ok(()),
            }
        })
    })
}

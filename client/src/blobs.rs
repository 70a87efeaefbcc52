//! Blobs already stored: looking at them, listing, deleting.

use futures_util::Stream;
use proto::ids::BlobId;

use crate::blob::Blob;
use crate::client::Client;
use crate::error::Error;

/// Which blobs to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListOptions {
    /// Only blobs whose display name begins with it; these come by name, then id. All blobs, by id, when it is empty.
    pub prefix: String,
    /// Blobs fetched by one call; 0 for the service's default.
    pub page_size: u32,
}

impl Client {
    /// Returns what is known about a blob.
    ///
    /// # Errors
    /// [`Error`]; of category [`NotFound`](crate::Category::NotFound) also for another tenant's blob.
    pub async fn get_blob(&self, blob: BlobId) -> Result<Blob, Error> {
        todo!()
    }

    /// Lists blobs, page by page as the stream is read.
    pub fn list_blobs(&self, options: ListOptions) -> impl Stream<Item = Result<Blob, Error>> + Send + 'static {
        futures_util::stream::empty()
    }

    /// Deletes a blob. From the answer on no call sees it.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn delete_blob(&self, blob: BlobId) -> Result<(), Error> {
        todo!()
    }
}

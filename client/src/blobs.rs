//! Blobs already stored: looking at them, listing, deleting, restoring.

use futures_util::Stream;
use proto::ids::BlobId;
use proto::pb;

use crate::blob::Blob;
use crate::call::new_request_id;
use crate::client::Client;
use crate::error::Error;
use crate::pages::{Page, entries};

/// What listing them is called in errors.
const LIST_BLOBS: &str = "list blobs";

/// Which blobs to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListOptions {
    /// Only blobs whose display name begins with it; these come by name, then id. All blobs, by id, when it is empty.
    pub prefix: String,
    /// Blobs fetched by one call; 0 for the service's default.
    pub page_size: u32,
    /// Deleted blobs that can still be restored, by id, instead of the others; takes no prefix.
    pub deleted: bool,
}

impl Client {
    /// Returns what is known about a blob.
    ///
    /// # Errors
    /// [`Error`]; of category [`NotFound`](crate::Category::NotFound) also for another tenant's blob.
    pub async fn get_blob(&self, blob: BlobId) -> Result<Blob, Error> {
        let operation = format!("get blob {blob}");
        let message = pb::GetBlobRequest { tenant_id: self.tenant_id(), blob_id: blob.to_string() };
        let answer = self
            .metadata(&operation, message, |mut service, message| async move { service.get_blob(message).await })
            .await?;
        self.blob_of(answer.blob, &operation)
    }

    /// Lists blobs, page by page as the stream is read; from the second page on, the next one is fetched meanwhile.
    pub fn list_blobs(&self, options: ListOptions) -> impl Stream<Item = Result<Blob, Error>> + Send + 'static {
        let (client, converter) = (self.clone(), self.clone());
        let fetch = move |page_token| {
            let client = client.clone();
            let message = pb::ListBlobsRequest {
                tenant_id: client.tenant_id(),
                page_size: i32::try_from(options.page_size).unwrap_or(i32::MAX),
                page_token,
                display_name_prefix: options.prefix.clone(),
                deleted: options.deleted,
            };
            async move { client.page_of_blobs(message).await }
        };
        entries(fetch, move |blob| converter.blob_of(Some(blob), LIST_BLOBS))
    }

    async fn page_of_blobs(&self, message: pb::ListBlobsRequest) -> Result<Page<pb::Blob>, Error> {
        let answer = self
            .metadata(LIST_BLOBS, message, |mut service, message| async move { service.list_blobs(message).await })
            .await?;
        Ok((answer.blobs, answer.next_page_token))
    }

    /// Deletes a blob. From the answer on no call sees it but [`Client::undelete_blob`].
    ///
    /// # Errors
    /// [`Error`].
    pub async fn delete_blob(&self, blob: BlobId) -> Result<(), Error> {
        let message = pb::DeleteBlobRequest {
            tenant_id: self.tenant_id(),
            blob_id: blob.to_string(),
            request_id: new_request_id(),
        };
        self.metadata(format!("delete blob {blob}"), message, |mut service, message| async move {
            service.delete_blob(message).await
        })
        .await
        .map(|pb::DeleteBlobResponse {}| ())
    }

    /// Restores a deleted blob, as long as it has not begun to be collected. One that is not deleted is returned as it is.
    ///
    /// # Errors
    /// [`Error`]; with [`Reason::BlobCollected`](crate::Reason::BlobCollected) when it is too late, and as for a blob that
    /// never existed when it is gone.
    pub async fn undelete_blob(&self, blob: BlobId) -> Result<Blob, Error> {
        let operation = format!("undelete blob {blob}");
        let message = pb::UndeleteBlobRequest {
            tenant_id: self.tenant_id(),
            blob_id: blob.to_string(),
            request_id: new_request_id(),
        };
        let answer = self
            .metadata(&operation, message, |mut service, message| async move { service.undelete_blob(message).await })
            .await?;
        self.blob_of(answer.blob, &operation)
    }

    /// The blob of an answer.
    pub(crate) fn blob_of(&self, blob: Option<pb::Blob>, operation: &str) -> Result<Blob, Error> {
        let blob = blob.ok_or("no blob").and_then(Blob::try_from);
        blob.map_err(|problem| self.malformed(operation, problem))
    }
}

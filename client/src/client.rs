//! The client itself: what all operations share.

use std::time::Duration;

use proto::pb;

use crate::config::ClientConfig;
use crate::error::Error;

/// Stores and reads blobs, and manages tenants. Cheap to clone; clones share connections.
#[derive(Debug, Clone)]
pub struct Client {}

impl Client {
    /// Makes a client. Nothing is sent, and no connection made, before the first call.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the endpoint or the token cannot be one.
    pub fn new(config: ClientConfig) -> Result<Self, Error> {
        todo!()
    }

    /// The metadata service's endpoint in its one form, for example `http://127.0.0.1:50051`.
    pub fn endpoint(&self) -> &str {
        todo!()
    }

    /// Returns the state of the whole cluster. Needs the admin token.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn cluster_status(&self) -> Result<pb::GetClusterStatusResponse, Error> {
        todo!()
    }

    /// Waits, at most this long, until uploads that failed or were dropped have been given up at the service too, so
    /// that their reservation is free at once. Worth calling before a program ends after it cancelled an upload.
    pub async fn settle(&self, within: Duration) {
        todo!()
    }
}

//! Client library of MiniTectonic-RS.

mod apart;
mod blob;
mod blobs;
mod call;
mod channel;
mod client;
mod config;
mod download;
mod endpoint;
mod error;
mod pages;
mod progress;
mod retry;
mod tenants;
mod upload;

pub use proto::checksum::Sha256;
pub use proto::error::{Reason, Retry};
pub use proto::ids::{BlobId, TenantId};
pub use proto::pb;

pub use crate::blob::Blob;
pub use crate::blobs::ListOptions;
pub use crate::client::Client;
pub use crate::config::ClientConfig;
pub use crate::download::{ByteRange, DownloadOptions, Downloaded, Sink};
pub use crate::error::{Call, Category, Error, Service};
pub use crate::progress::{Progress, Transferred};
pub use crate::retry::RetryPolicy;
pub use crate::tenants::RegisteredTenant;
pub use crate::upload::{Source, UploadOptions};

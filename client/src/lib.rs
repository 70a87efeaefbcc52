//! Client library of MiniTectonic-RS: stores blobs, reads them back, and manages tenants.
//!
//! A blob's bytes go straight to and from the chunk services, in blocks, several at a time; the metadata service only
//! says where. A blob of any size passes through bounded memory, and every byte that is given out was verified.
//!
//! ```no_run
//! use mini_tectonic_client::{Client, ClientConfig, DownloadOptions, Error, Sink, Source, UploadOptions};
//!
//! # async fn example(token: &str) -> Result<(), Error> {
//! let client = Client::new(ClientConfig::new("http://127.0.0.1:50051").with_token(token))?;
//! let blob = client.upload(Source::File("cat.jpg".into()), UploadOptions::default()).await?;
//! client.download(blob.blob_id, DownloadOptions::default(), Sink::File("copy.jpg".into())).await?;
//! # Ok(())
//! # }
//! ```
//!
//! `examples/roundtrip.rs` is a whole program. One that only wants this library turns the default feature `cli` off:
//! `mini-tectonic-client = { path = "...", default-features = false }`. All calls need a tokio runtime with I/O and
//! time.
//!
//! # What holds
//!
//! * A blob that [`Client::upload`] returned is durable, and visible to every later call. After an error, or when its
//!   future was dropped, nothing is visible, with one exception that says so: [`Error::Unsettled`].
//! * [`Client::download`] checks every frame against its CRC-32C, and every block that is read whole against the
//!   SHA-256 that the metadata service holds. Of a range, the blocks at its ends are checked by CRC-32C alone.
//! * Calls are repeated where that is safe: after a connection that broke, a service that was restarted, a capability
//!   that expired, a service that asked for patience. [`RetryPolicy`] says for how long. Streams go on where they
//!   ended.
//! * Futures may be dropped at any time. An upload is then given up in the background; [`Client::settle`] waits for
//!   that.
//!
//! Errors are of one type; [`Error::category`] says what kind of trouble it is and [`Error::advice`] what to do.

#![warn(missing_docs)]

mod apart;
mod blob;
mod blobs;
mod call;
mod channel;
mod check;
mod client;
mod config;
mod download;
mod endpoint;
mod error;
mod gather;
mod operator;
mod pages;
mod progress;
mod retry;
mod tenants;
mod tokens;
mod upload;
mod workers;

pub use proto::checksum::Sha256;
pub use proto::error::{Reason, Retry};
pub use proto::ids::{BlobId, TenantId};
pub use proto::pb;
pub use proto::traffic::TrafficClass;

pub use crate::blob::Blob;
pub use crate::blobs::ListOptions;
pub use crate::check::CheckEvent;
pub use crate::client::Client;
pub use crate::config::ClientConfig;
pub use crate::download::{ByteRange, DownloadOptions, Downloaded, Sink};
pub use crate::error::{Call, Category, Error, Service};
pub use crate::progress::{Progress, Transferred};
pub use crate::retry::RetryPolicy;
pub use crate::tenants::{RegisteredTenant, TenantChange};
pub use crate::tokens::{AdminRotation, Created};
pub use crate::upload::{Source, UploadOptions};

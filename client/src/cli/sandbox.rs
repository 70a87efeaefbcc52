//! Both services in a temporary folder on free ports, with a credentials file of its own: for `demo`.
//!
//! Nothing outside the folder is touched, and the folder goes when the sandbox does.

use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::context::Context;
use super::credentials::Credentials;
use super::failure::Failure;
use super::output::Output;
use super::services::{self, Options, Services};

/// The services and their folder.
#[derive(Debug)]
pub(crate) struct Sandbox {
    // Before the folder, so that it is dropped first.
    services: Services,
    credentials: Credentials,
    folder: TempDir,
}

impl Sandbox {
    /// Starts both services, with blocks of this size; returns when they are ready and the admin's token is in the
    /// credentials file.
    pub(crate) async fn start(prefix: &str, block_bytes: u64) -> Result<Self, Failure> {
        let folder = tempfile::Builder::new().prefix(prefix).tempdir();
        let folder = folder.map_err(|error| Failure::local("cannot make a temporary folder", &error))?;
        let mut options = Options::on_free_ports(storage_in(folder.path()));
        options.metadata.block_bytes = block_bytes;
        let services = services::start(options, CancellationToken::new()).await?;
        let credentials = Credentials::at(folder.path().join("credentials.toml"));
        services.save_admin_token(&services.endpoint(), &credentials)?;
        Ok(Self { services, credentials, folder })
    }

    /// The folder.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The services' storage.
    pub(crate) fn storage(&self) -> PathBuf {
        storage_in(self.folder())
    }

    /// The services.
    pub(crate) fn services(&self) -> &Services {
        &self.services
    }

    /// What a command sees that is run in here.
    pub(crate) fn context(&self, outside: &Context, out: Output) -> Result<Context, Failure> {
        outside.elsewhere(&self.services.endpoint(), self.credentials.clone(), out)
    }

    /// Stops the services. Returns whether every call had come to its end, and the folder.
    pub(crate) async fn stop(self) -> (bool, TempDir) {
        (self.services.shutdown().await, self.folder)
    }
}

fn storage_in(folder: &Path) -> PathBuf {
    folder.join("storage")
}

//! Both services in this process, over one storage folder: what `serve`, `demo` and `bench --spawn` run.
//!
//! Order of a start: both addresses are bound first, so that a port in use is found before anything is written; then the
//! metadata service, which makes the join token; then the chunk service, which registers with it.
//!
//! Order of a stop: the chunk service first. Streams in flight end while the metadata service still answers, so that a
//! writer whose last block has just become durable can commit it, and a node can still ask what a chunk is.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use proto::runtime::tls::{NetworkOptions, TlsOptions};
use proto::runtime::transport::{self, TransportLimits};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::context::read_token;
use super::credentials::{Credential, Credentials, Holder};
use super::failure::{Exit, Failure};

/// What both services are told.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// The folder that they share.
    pub(crate) storage: PathBuf,
    /// Where the metadata service listens.
    pub(crate) metadata_listen: SocketAddr,
    /// Where the chunk service listens.
    pub(crate) chunk_listen: SocketAddr,
    /// How long a stop waits for calls in flight.
    pub(crate) drain: Duration,
    /// How both listeners are encrypted.
    pub(crate) tls: TlsOptions,
    /// How both deal with other machines.
    pub(crate) network: NetworkOptions,
    /// What strangers are granted, at each of the two listeners.
    pub(crate) transport: TransportLimits,
    /// Constants of the metadata service.
    pub(crate) metadata: metadata_service::Tuning,
    /// Constants of the chunk service.
    pub(crate) chunk: chunk_service::Tuning,
}

impl Options {
    /// Default settings over this folder, on free ports of this machine.
    pub(crate) fn on_free_ports(storage: PathBuf) -> Self {
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            storage,
            metadata_listen: free,
            chunk_listen: free,
            drain: Duration::from_secs(10),
            tls: TlsOptions::default(),
            network: NetworkOptions::default(),
            transport: TransportLimits::default(),
            metadata: metadata_service::Tuning::default(),
            chunk: chunk_service::Tuning::default(),
        }
    }
}

/// Both services, ready.
#[derive(Debug)]
pub(crate) struct Services {
    metadata: metadata_service::Running,
    chunk: chunk_service::Running,
}

/// Starts both; returns when both are ready. `stop` ends a start that waits.
pub(crate) async fn start(options: Options, stop: CancellationToken) -> Result<Services, Failure> {
    let metadata_listener = bind(options.metadata_listen, "--metadata-listen").await?;
    let chunk_listener = bind(options.chunk_listen, "--chunk-listen").await?;
    let mut config = metadata_service::Config::new(&options.storage);
    config.drain = options.drain;
    config.tls = options.tls.clone();
    config.network = options.network.clone();
    config.transport = options.transport.clone();
    config.tuning = options.metadata;
    let started = metadata_service::start(config, metadata_listener, metadata_service::Deps::default(), stop.clone());
    let metadata = started.await.map_err(|error| Failure::local("the metadata service did not start", &error))?;

    let mut config = chunk_service::Config::new(&options.storage);
    config.metadata = metadata.endpoint();
    config.drain = options.drain;
    config.tls = options.tls;
    config.network = options.network;
    config.transport = options.transport;
    config.tuning = options.chunk;
    match chunk_service::start(config, chunk_listener, chunk_service::Deps::default(), stop).await {
        Ok(chunk) => Ok(Services { metadata, chunk }),
        Err(error) => {
            metadata.shutdown().await;
            Err(Failure::local("the chunk service did not start", &error))
        }
    }
}

async fn bind(address: SocketAddr, flag: &str) -> Result<TcpListener, Failure> {
    transport::bind(address).await.map_err(|error| {
        Failure::local(format_args!("cannot listen on {address}"), &error).hint(format!(
            "is another service running there? choose another address with {flag}, port 0 for a free one"
        ))
    })
}

impl Services {
    /// Where clients dial the metadata service.
    pub(crate) fn endpoint(&self) -> String {
        self.metadata.endpoint()
    }

    /// Where clients dial the chunk service.
    pub(crate) fn chunk_endpoint(&self) -> String {
        self.chunk.endpoint()
    }

    /// Keeps the admin's token in a credentials file, under this endpoint.
    pub(crate) fn save_admin_token(&self, endpoint: &str, file: &Credentials) -> Result<(), Failure> {
        let path = self.metadata.admin_token_path();
        let token = read_token(path)?;
        let cluster_id = self.metadata.cluster_id().to_string();
        file.save(endpoint, Holder::Admin, Credential { token, cluster_id })
    }

    /// Resolves only when one of them can no longer be trusted or has ended by itself: why.
    pub(crate) async fn failed(&self) -> Failure {
        let why = tokio::select! {
            why = self.metadata.failed() => format!("the metadata service failed: {why}"),
            why = self.chunk.failed() => format!("the chunk service failed: {why}"),
        };
        Failure::new(Exit::Other, why).hint("its log says more; start it again when the cause is gone")
    }

    /// Stops both. Returns whether every call in flight came to its end.
    pub(crate) async fn shutdown(self) -> bool {
        let chunk = self.chunk.shutdown().await;
        let metadata = self.metadata.shutdown().await;
        chunk && metadata
    }
}

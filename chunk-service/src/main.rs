//! The binary `chunk-service`: one chunk service as a process.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use chunk_service::config::DISK_THREADS_KEPT;
use chunk_service::{ChunkError, Config, Deps, Running, Tuning};
use clap::Parser;
use proto::runtime::telemetry::{self, LogFormat};
use proto::runtime::tls::{NetworkOptions, TlsOptions};
use proto::runtime::transport::{self, TransportLimits};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The C library's keeps for good what bursts needed: 130 of 146 MiB after 256 readers that did not read.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Stores chunks of blobs as checksummed files, and serves them to whoever brings a capability.
///
/// The folder STORAGE/chunks is made at the first start, when the node also joins the cluster of the metadata service
/// with the join token. Started before the metadata service, it waits. Once it has joined it serves reads even while
/// the metadata service is down.
///
/// When it is ready it prints one line on standard output, 'ready chunk=URL'. Logs go to standard error. SIGTERM and
/// Ctrl-C stop it: calls in flight may finish until the drain is over.
#[derive(Parser, Debug)]
#[command(name = "chunk-service", version)]
struct Flags {
    /// Folder of the data; chunks are in its subfolder 'chunks'
    #[arg(long, env = "MINI_TECTONIC_STORAGE", value_name = "DIR", default_value = "./storage")]
    storage: PathBuf,
    /// Address to listen on; port 0 picks a free one
    #[arg(long, env = "MINI_TECTONIC_CHUNK_LISTEN", value_name = "ADDR", default_value = "127.0.0.1:50052")]
    listen: SocketAddr,
    /// URL of the metadata service
    #[arg(long, env = "MINI_TECTONIC_METADATA", value_name = "URL", default_value = chunk_service::config::METADATA_ENDPOINT)]
    metadata: String,
    /// File with the join token, for the first start [default: STORAGE/join.token]
    #[arg(long, env = "MINI_TECTONIC_JOIN_TOKEN_FILE", value_name = "FILE")]
    join_token_file: Option<PathBuf>,
    /// URL under which clients reach this service [default: http:// or https:// and the address it listens on]
    #[arg(long, env = "MINI_TECTONIC_ADVERTISE", value_name = "URL")]
    advertise: Option<String>,
    /// What fails together with this node: a host, a rack [default: the node itself]
    #[arg(
        long,
        env = "MINI_TECTONIC_FAILURE_DOMAIN",
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    failure_domain: String,
    /// How long calls in flight may take after a stop signal
    #[arg(long, env = "MINI_TECTONIC_DRAIN", value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration)]
    drain: Duration,
    /// Form of the log: text or json (what is logged: RUST_LOG, for example 'debug')
    #[arg(long, env = "MINI_TECTONIC_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    log_format: LogFormat,
    #[command(flatten)]
    tls: TlsOptions,
    #[command(flatten)]
    network: NetworkOptions,
    #[command(flatten)]
    transport: TransportLimits,
    #[command(flatten)]
    tuning: Tuning,
}

impl Flags {
    fn into_config(self) -> Config {
        Config {
            metadata: self.metadata,
            join_token_file: self.join_token_file,
            advertise: self.advertise,
            failure_domain: self.failure_domain,
            drain: self.drain,
            tls: self.tls,
            network: self.network,
            transport: self.transport,
            tuning: self.tuning,
            ..Config::new(self.storage)
        }
    }
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    telemetry::init(flags.log_format, "info");
    proto::runtime::process::prepare();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_keep_alive(DISK_THREADS_KEPT).build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return complain(&anyhow::Error::new(error).context("start the runtime")),
    };
    // Told before the runtime waits for its threads, one of which may hang on its disk.
    runtime.block_on(run(flags)).map_or_else(|error| complain(&error), |()| ExitCode::SUCCESS)
}

fn complain(error: &anyhow::Error) -> ExitCode {
    // Where nobody reads, nobody can be told.
    drop(writeln!(std::io::stderr(), "error: {error:#}"));
    ExitCode::FAILURE
}

async fn run(flags: Flags) -> anyhow::Result<()> {
    proto::runtime::process::outlive_hangups();
    let signalled = stop_signal()?;
    let address = flags.listen;
    let listener = transport::bind(address).await.map_err(|source| ChunkError::Listen { address, source })?;
    let running = match chunk_service::start(flags.into_config(), listener, Deps::default(), signalled.clone()).await {
        Err(ChunkError::Stopped) => return Ok(()),
        started => started?,
    };
    say_ready(&running).context("tell on standard output that the service is ready")?;
    let failure = tokio::select! {
        () = signalled.cancelled() => None,
        why = running.failed() => Some(why),
    };
    let clean = running.shutdown().await;
    tracing::info!(clean, "the chunk service has stopped");
    failure.map_or(Ok(()), |why| Err(anyhow::anyhow!(why)))
}

/// Fires at SIGTERM and Ctrl-C.
fn stop_signal() -> anyhow::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for Ctrl-C")?;
    let signalled = CancellationToken::new();
    let inner = signalled.clone();
    proto::runtime::TaskGroup::new().spawn("signals", async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("asked to stop");
        inner.cancel();
    });
    Ok(signalled)
}

fn say_ready(running: &Running) -> std::io::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "ready chunk={}", running.endpoint())?;
    out.flush()
}

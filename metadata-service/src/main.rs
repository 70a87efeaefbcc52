//! The metadata service as a process of its own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use metadata_service::{Config, Deps, Tuning, start};
use proto::runtime::process;
use proto::runtime::telemetry::{self, LogFormat};
use proto::runtime::tls::{NetworkOptions, TlsOptions};
use proto::runtime::transport::{self, TransportLimits};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The C library's keeps what bursts needed, this one gives it back.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The Coordinator of MiniTectonic-RS: tenants, names, blocks and placement.
///
/// Keeps its rows in STORAGE/metadata, which it locks. The first start in an empty folder makes them, and writes
/// STORAGE/admin.token (for the operator) and STORAGE/join.token (for one chunk service). When it is ready, and not
/// before, it prints one line: ready metadata=URL. Logs go to standard error.
#[derive(Debug, Parser)]
#[command(version, after_help = AFTER_HELP)]
struct Args {
    /// The storage folder; made if it is missing
    #[arg(long, env = "MINI_TECTONIC_STORAGE", value_name = "FOLDER", default_value = "./storage")]
    storage: PathBuf,
    /// Where to listen; port 0 picks a free one
    #[arg(long, env = "MINI_TECTONIC_METADATA_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:50051")]
    listen: SocketAddr,
    /// How long calls may go on after Ctrl-C or SIGTERM
    #[arg(long, env = "MINI_TECTONIC_DRAIN", value_name = "TIME", value_parser = humantime::parse_duration, default_value = "10s")]
    drain: Duration,
    /// How log lines look: text or json; RUST_LOG says which are written
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

const AFTER_HELP: &str = "\
Example, with a chunk service beside it:
  metadata-service --storage /srv/tectonic --listen 127.0.0.1:50051
  chunk-service --storage /srv/tectonic --listen 127.0.0.1:50052 --metadata http://127.0.0.1:50051

It stops on Ctrl-C and SIGTERM with exit code 0; calls that do not end within --drain are cut, which loses nothing that
was acknowledged. A wrong command line ends with exit code 2, anything else that ends it with 1.";

fn main() -> ExitCode {
    let args = Args::parse();
    telemetry::init(args.log_format, "info");
    process::prepare();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&anyhow::Error::new(error).context("cannot start the runtime")),
    };
    match runtime.block_on(run(args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&error),
    }
}

#[expect(clippy::print_stderr, reason = "the last word of a process that could not do its work")]
fn complain(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}

#[expect(clippy::print_stdout, reason = "the ready line is this program's output")]
fn announce(endpoint: &str) {
    println!("ready metadata={endpoint}");
}

async fn run(args: Args) -> anyhow::Result<()> {
    process::outlive_hangups();
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let listener = transport::bind(args.listen).await;
    let listener = listener.with_context(|| format!("cannot listen on {}", args.listen))?;
    let Args { storage, drain, tls, network, transport, tuning, .. } = args;
    let config = Config { storage, drain, tls, network, transport, tuning };
    let running = start(config, listener, Deps::default(), CancellationToken::new()).await?;
    announce(&running.endpoint());
    let failure = tokio::select! {
        _ = interrupt.recv() => None,
        _ = terminate.recv() => None,
        reason = running.failed() => Some(reason),
    };
    // Says in the log whether calls had to be cut.
    running.shutdown().await;
    failure.map_or(Ok(()), |reason| Err(anyhow::anyhow!(reason)))
}

//! `serve`: both services in one process, until Ctrl-C or SIGTERM.
//!
//! Standard output gets one line, when both are ready and not before; the log goes to standard error. The first signal
//! drains, which takes at most the drain time of each service; a second one ends the process at once. Neither promises
//! more than `kill -9` does: what was acknowledged is on disk.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use clap::Args;
use proto::runtime::process;
use proto::runtime::telemetry::{self, LogFormat};
use proto::runtime::tls::{NetworkOptions, TlsOptions};
use proto::runtime::transport::TransportLimits;
use tokio_util::sync::CancellationToken;

use crate::cli::context::Context;
use crate::cli::failure::{Exit, Failure};
use crate::cli::services::{self, Options, Services};
use crate::cli::signals::Signals;

/// Run both services over one storage folder, until Ctrl-C
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// The folder for everything that is kept; made if it is not there.
    #[arg(long, value_name = "FOLDER", env = "MINI_TECTONIC_STORAGE", default_value = "./storage")]
    storage: PathBuf,
    /// Where the metadata service listens; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS", env = "MINI_TECTONIC_METADATA_LISTEN", default_value = "127.0.0.1:50051")]
    metadata_listen: SocketAddr,
    /// Where the chunk service listens; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS", env = "MINI_TECTONIC_CHUNK_LISTEN", default_value = "127.0.0.1:50052")]
    chunk_listen: SocketAddr,
    /// How long each service lets calls finish when it is asked to stop.
    #[arg(long, value_name = "DURATION", env = "MINI_TECTONIC_DRAIN", default_value = "10s")]
    #[arg(value_parser = humantime::parse_duration)]
    drain: Duration,
    /// How log lines on standard error look: 'text' or 'json'.
    #[arg(long, value_name = "FORMAT", env = "MINI_TECTONIC_LOG_FORMAT", default_value = "text")]
    log_format: LogFormat,
    #[command(flatten)]
    tls: TlsOptions,
    #[command(flatten)]
    transport: TransportLimits,
    #[command(flatten)]
    metadata: metadata_service::Tuning,
    #[command(flatten)]
    chunk: chunk_service::Tuning,
}

impl Serve {
    /// Runs the command.
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        telemetry::init(self.log_format, log_filter(context));
        let mut signals = Signals::listen().map_err(|error| Failure::local("cannot listen for signals", &error))?;
        process::prepare();
        process::outlive_hangups();
        let Some(services) = start(self.options(context.network().clone()), &mut signals).await? else { return Ok(()) };
        save_admin_token(context, &services);
        let ready = format!("ready metadata={} chunk={}", services.endpoint(), services.chunk_endpoint());
        context.out.line(&ready)?;
        run_until_told(services, &mut signals).await
    }

    fn options(self, network: NetworkOptions) -> Options {
        Options {
            storage: self.storage,
            metadata_listen: self.metadata_listen,
            chunk_listen: self.chunk_listen,
            drain: self.drain,
            tls: self.tls,
            network,
            transport: self.transport,
            metadata: self.metadata,
            chunk: self.chunk,
        }
    }
}

fn log_filter(context: &Context) -> &'static str {
    match (context.quiet(), context.verbose()) {
        (true, _) => "warn",
        (false, 0) => "info",
        (false, 1) => "info,metadata_service=debug,chunk_service=debug",
        (false, _) => "debug",
    }
}

/// Starts both; `None` when a signal came first.
async fn start(options: Options, signals: &mut Signals) -> Result<Option<Services>, Failure> {
    let stop = CancellationToken::new();
    let mut starting = pin!(services::start(options, stop.clone()));
    tokio::select! {
        started = &mut starting => return started.map(Some),
        signal = signals.next() => tracing::info!(signal, "stopping before the start is complete"),
    }
    stop.cancel();
    tokio::select! {
        outcome = &mut starting => {
            if let Ok(services) = outcome {
                services.shutdown().await;
            }
            Ok(None)
        }
        _signal = signals.next() => end_at_once(),
    }
}

/// For one user on one host later commands then just work. Where that is not wanted or not possible, the token is in the
/// storage folder.
fn save_admin_token(context: &Context, services: &Services) {
    let saved = context.credentials().and_then(|file| {
        services.save_admin_token(&services.endpoint(), &file)?;
        Ok(file)
    });
    match saved {
        Ok(file) => tracing::info!(file = %file.path().display(), "saved the admin token for this endpoint"),
        Err(failure) => context.warn(&format!("the admin token is not in the credentials file: {}", failure.message())),
    }
}

async fn run_until_told(services: Services, signals: &mut Signals) -> Result<(), Failure> {
    let outcome = tokio::select! {
        failure = services.failed() => Err(failure),
        signal = signals.next() => {
            tracing::info!(signal, "stopping; calls in flight may finish");
            Ok(())
        }
    };
    tokio::select! {
        finished = services.shutdown() => tracing::info!(finished, "stopped"),
        _signal = signals.next() => end_at_once(),
    }
    outcome
}

fn end_at_once() -> ! {
    std::process::exit(Exit::Interrupted.code().into())
}

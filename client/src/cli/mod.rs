//! The command line tool `mini-tectonic-rs`: parse, run one command, say how it ended.
//!
//! [`args`] has the flags, [`commands`] one file per command, [`context`] what they share: endpoint, credentials, output.
//! Data goes to standard output through [`output`]; everything else goes to standard error; [`failure`] has the exit
//! codes.

mod args;
mod bounds;
mod class;
mod commands;
mod context;
mod credentials;
mod failure;
mod output;
mod progress;
mod sandbox;
mod services;
mod signals;
mod units;
mod views;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;
use proto::runtime::telemetry::{self, LogFormat};
use tokio::runtime::Runtime;

use args::Cli;
use commands::Command;
use context::Context;
use failure::{Exit, Failure};
use signals::Signals;

/// How long threads that still read or write may take once the command is done; one may wait for standard input for ever.
const LAST_THREADS: Duration = Duration::from_secs(2);

/// How long giving up a broken upload at the service may take.
const LAST_CALLS: Duration = Duration::from_secs(2);

/// Runs the command line of this process.
pub(crate) fn run() -> ExitCode {
    let cli = Cli::parse();
    match run_command(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run_command(cli: Cli) -> Result<(), Failure> {
    let context = Context::new(&cli.global)?;
    let runtime = Runtime::new().map_err(|error| Failure::local("cannot start threads", &error))?;
    let outcome = runtime.block_on(run_until_interrupted(cli.command, &context));
    runtime.shutdown_timeout(LAST_THREADS);
    outcome
}

/// `serve` has its own way of ending. Of every other command Ctrl-C and SIGTERM drop what it does, which removes temporary
/// files.
async fn run_until_interrupted(command: Command, context: &Context) -> Result<(), Failure> {
    if matches!(command, Command::Serve(_)) {
        return command.run(context).await;
    }
    telemetry::init(LogFormat::Text, log_filter(context));
    let mut signals = Signals::listen().map_err(|error| Failure::local("cannot listen for signals", &error))?;
    let outcome = tokio::select! {
        outcome = command.run(context) => outcome,
        _signal = signals.next() => Err(Failure::new(Exit::Interrupted, "interrupted")),
    };
    if outcome.is_err() {
        context.settle(LAST_CALLS).await;
    }
    outcome
}

fn log_filter(context: &Context) -> &'static str {
    match context.verbose() {
        0 => "off",
        1 => "warn,mini_tectonic_client=debug",
        _ => "debug",
    }
}

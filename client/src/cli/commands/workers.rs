//! `workers`: the background work: what it does, and how it is to run.

use clap::{Args, Subcommand};
use indicatif::HumanBytes;
use proto::pb;

use crate::cli::context::{Context, Session};
use crate::cli::failure::Failure;
use crate::cli::output::{Align, Table, escape};
use crate::cli::units::{parse_size, time_in_seconds};
use crate::cli::views::{PassView, SettingsView, WorkerView};

/// Show and steer background work: collecting garbage, looking for orphans, scrubbing (admin)
#[derive(Debug, Args)]
pub(crate) struct Workers {
    #[command(subcommand)]
    action: Option<Action>,
}

/// What to do with it.
#[derive(Debug, Subcommand)]
enum Action {
    /// Have a worker do nothing by itself; holds across restarts
    Pause(Name),
    /// Let a worker go on
    Resume(Name),
    /// Bound the speed of a worker, also while it runs
    Pace(PaceArgs),
    /// Run a worker now, also when it is paused
    Run(RunArgs),
}

/// Which worker.
#[derive(Debug, Args)]
struct Name {
    /// uploads, garbage, orphans, or scrub.
    #[arg(value_name = "NAME")]
    name: String,
}

/// Which pace.
#[derive(Debug, Args)]
struct PaceArgs {
    #[command(flatten)]
    worker: Name,
    /// Units per second, such as 500 or 10MiB; 0 for no bound. The list shows the unit.
    #[arg(value_name = "RATE", value_parser = parse_size)]
    rate: u64,
}

/// How to run.
#[derive(Debug, Args)]
struct RunArgs {
    #[command(flatten)]
    worker: Name,
    /// Let the sweep for orphans delete so many chunks that it holds back.
    #[arg(long)]
    accept_all: bool,
}

impl Workers {
    /// Runs the command.
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let session = context.admin(None)?;
        match self.action {
            None => list(context, &session).await,
            Some(Action::Pause(worker)) => update(context, &session, &worker.name, Some(true), None).await,
            Some(Action::Resume(worker)) => update(context, &session, &worker.name, Some(false), None).await,
            Some(Action::Pace(PaceArgs { worker, rate })) => {
                update(context, &session, &worker.name, None, Some(rate)).await
            }
            Some(Action::Run(RunArgs { worker, accept_all })) => run(context, &session, &worker.name, accept_all).await,
        }
    }
}

async fn list(context: &Context, session: &Session<'_>) -> Result<(), Failure> {
    let workers = session.client.list_workers().await.map_err(|error| session.failed("workers", &error))?;
    if context.out.json() {
        return workers.iter().try_for_each(|worker| context.out.object(&WorkerView::from(worker)));
    }
    let rows: Vec<_> = workers.iter().map(row).collect();
    Table::new(&context.out, HEADINGS).page(&rows)
}

async fn update(
    context: &Context,
    session: &Session<'_>,
    name: &str,
    paused: Option<bool>,
    pace: Option<u64>,
) -> Result<(), Failure> {
    let updated = session.client.update_worker(name, paused, pace).await;
    let settings = updated.map_err(|error| session.failed("workers", &error))?;
    if context.out.json() {
        return context.out.object(&SettingsView::from(&settings));
    }
    let state = if settings.paused { "is paused" } else { "runs by itself" };
    let pace = match settings.pace_per_second {
        None => "at its own pace".to_owned(),
        Some(0) => "without a bound on its pace".to_owned(),
        Some(rate) => format!("at most {rate} a second"),
    };
    context.out.line(&format!("{} {state}, {pace}", escape(&settings.name)))
}

/// Passes until there is no more to do, added up.
async fn run(context: &Context, session: &Session<'_>, name: &str, accept_all: bool) -> Result<(), Failure> {
    let mut total = pb::WorkerPass { more: true, ..pb::WorkerPass::default() };
    while total.more {
        let ran = session.client.run_worker(name, accept_all).await;
        let Some(pass) = ran.map_err(|error| session.failed("workers", &error))? else {
            return told(context, name);
        };
        total.examined += pass.examined;
        total.changed += pass.changed;
        total.skipped += pass.skipped;
        total.failed += pass.failed;
        total.more = pass.more;
    }
    if context.out.json() {
        return context.out.object(&PassView::from(&total));
    }
    context.out.line(&pass_in_words(&total))
}

fn told(context: &Context, name: &str) -> Result<(), Failure> {
    if context.out.json() {
        return context.out.object(&PassView::from(&pb::WorkerPass { more: true, ..pb::WorkerPass::default() }));
    }
    context.out.line(&format!("the nodes begin {} with their next heartbeat", escape(name)))
}

fn pass_in_words(pass: &pb::WorkerPass) -> String {
    let pb::WorkerPass { examined, changed, skipped, failed, more: _ } = pass;
    format!("{examined} looked at, {changed} changed, {skipped} left alone, {failed} failed")
}

const HEADINGS: [(&str, Align); 7] = [
    ("WORKER", Align::Left),
    ("NODE", Align::Left),
    ("STATE", Align::Left),
    ("PACE", Align::Right),
    ("LAST PASS", Align::Left),
    ("LAST SWEEP", Align::Left),
    ("HOLDS BACK, LAST ERROR", Align::Left),
];

fn row(worker: &pb::Worker) -> [String; 7] {
    let node = if worker.node_id.is_empty() { "-".to_owned() } else { escape(&worker.node_id) };
    let trouble = [&worker.holds_back, &worker.last_error].into_iter().filter(|text| !text.is_empty());
    let trouble = trouble.map(|text| escape(text)).collect::<Vec<_>>().join("; ");
    [
        escape(&worker.name),
        node,
        if worker.paused { "paused" } else { "on" }.to_owned(),
        pace(worker),
        time_in_seconds(worker.last_pass_time.as_ref()),
        time_in_seconds(worker.last_sweep_time.as_ref()),
        if trouble.is_empty() { "-".to_owned() } else { trouble },
    ]
}

fn pace(worker: &pb::Worker) -> String {
    match (worker.pace_unit.as_str(), worker.pace_per_second) {
        ("", _none) => "-".to_owned(),
        (_unit, 0) => "no bound".to_owned(),
        ("bytes", rate) => format!("{}/s", HumanBytes(rate)),
        (unit, rate) => format!("{rate} {}/s", escape(unit)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_is_shown_in_its_unit() {
        let shown = |unit: &str, rate| {
            pace(&pb::Worker { pace_unit: unit.to_owned(), pace_per_second: rate, ..pb::Worker::default() })
        };
        assert_eq!(
            [shown("", 7), shown("chunks", 0), shown("chunks", 7), shown("bytes", 10 << 20)],
            ["-", "no bound", "7 chunks/s", "10.00 MiB/s"]
        );
    }
}

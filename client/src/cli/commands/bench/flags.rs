//! The flags of `bench`, and where it runs.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use proto::ids::TenantId;
use proto::runtime::process;

use super::mix::Mix;
use super::process::Process;
use super::runner::Runner;
use super::sizes::Sizes;
use super::stage::Stage;
use crate::cli::context::Context;
use crate::cli::failure::{Exit, Failure};

/// Measure operations: throughput, latency, processor time and memory
#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// What to measure.
    #[arg(value_enum, default_value = "both")]
    pub(super) what: What,
    /// The tenant to store the objects for.
    #[arg(short, long, value_name = "TENANT", required_unless_present = "spawn")]
    tenant: Option<TenantId>,
    /// Measure services that are started for it, in a fresh folder, with a tenant of their own: as processes of their own
    /// if metadata-service and chunk-service lie beside this program.
    #[arg(long, conflicts_with_all = ["tenant", "keep", "existing", "service_pid"])]
    spawn: bool,
    /// Where --spawn makes its folder, which says what disk is measured [default: the folder for temporary files]
    #[arg(long, value_name = "FOLDER", requires = "spawn")]
    folder: Option<PathBuf>,
    /// Size of the objects: one ('4KiB'), between two ('1KiB-1MiB', each doubling as likely as the next), or some with
    /// weights ('4KiB:70,64KiB:20,1MiB:10').
    #[arg(long, value_name = "SIZES", default_value = "4KiB")]
    pub(super) size: Sizes,
    /// Operations at once; objects of more than 1 MiB are put from a file in memory, one for each.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(super) concurrency: u16,
    /// For put, get and both: objects of at most 1 MiB by each call of the library; operations are such calls then.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub(super) batch: u64,
    /// Clients, each with connections of its own, over which the operations are spread.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(super) clients: u16,
    /// Operations of each phase, and objects that are there to be read, listed or deleted [default: 1000; for phases with
    /// --duration as many as come]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) count: Option<u64>,
    /// How long each phase lasts at most, for example 10s.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub(super) duration: Option<Duration>,
    /// How long to work before anything is measured [default: a few operations]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub(super) warm_up: Option<Duration>,
    /// For get and list: begin again when everything was read, until --duration is over.
    #[arg(long, requires = "duration")]
    pub(super) repeat: bool,
    /// For mixed: how much of what.
    #[arg(long, value_name = "KIND:WEIGHT,...", default_value = "get:45,stat:30,put:15,delete:10")]
    pub(super) ratio: Mix,
    /// Makes the objects' bytes, sizes and order; the same seed makes the same.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(super) seed: u64,
    /// Leave the objects in place.
    #[arg(long)]
    pub(super) keep: bool,
    /// For get, list, mixed and delete: put nothing beforehand, but take the objects that an earlier run with this seed
    /// and --keep has left.
    #[arg(long)]
    pub(super) existing: bool,
    /// A process whose processor time and memory are told too, on this machine. May be given several times.
    #[arg(long, value_name = "PID")]
    service_pid: Vec<u32>,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum What {
    /// Storing.
    Put,
    /// Reading: each object once, in a shuffled order.
    Get,
    /// Storing, then reading what was stored.
    Both,
    /// Storing, reading, asking and deleting, as --ratio says.
    Mixed,
    /// Listing all blobs, page by page.
    List,
    /// Deleting.
    Delete,
    /// Empty calls to the metadata service.
    Ping,
}

impl Bench {
    /// Runs the command.
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        // A thousand clients have more connections than a shell grants descriptors.
        process::prepare();
        if self.spawn {
            return self.run_on_stage(context).await;
        }
        let Some(tenant) = &self.tenant else { return Err(Failure::new(Exit::Usage, "--tenant is missing")) };
        let named = |pid: &u32| {
            let missing = || Failure::new(Exit::Usage, format!("--service-pid: there is no process {pid}"));
            Process::of_pid(*pid).ok_or_else(missing)
        };
        let services = self.service_pid.iter().map(named).collect::<Result<Vec<_>, _>>()?;
        let mut runner = Runner::new(&self, context, tenant, services)?;
        let outcome = runner.run().await;
        if self.keep { outcome } else { outcome.and(runner.clean_up().await) }
    }

    async fn run_on_stage(&self, context: &Context) -> Result<(), Failure> {
        let stage = Stage::start(context, self.folder.as_deref()).await?;
        let inside = stage.context(context)?;
        let outcome = match Runner::new(self, &inside, stage.tenant(), stage.processes()) {
            Ok(mut runner) => runner.run().await,
            Err(failure) => Err(failure),
        };
        outcome.and(stage.stop().await)
    }
}

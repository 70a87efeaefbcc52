//! `bench`: how many puts and gets per second, and how long each takes.
//!
//! Objects are real files of seeded bytes, each stamped with a number, so that no two are alike; a get counts only when
//! the client library has verified every byte, against the sum that its put was told. Each phase begins with a warm-up
//! that is not counted. What it stored it deletes.

mod content;
mod operations;
mod phase;
mod report;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use proto::ids::TenantId;
use proto::{limits, pb};

use crate::cli::context::{Context, Session};
use crate::cli::credentials::{Credential, Holder};
use crate::cli::failure::{Exit, Failure};
use crate::cli::sandbox::Sandbox;
use crate::cli::units::parse_size;
use content::Content;
use operations::Stored;
use phase::{Limits, Measured, Operation};
use report::Report;

/// Measure puts and gets: throughput and latency percentiles
#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// What to measure.
    #[arg(value_enum, default_value = "both")]
    what: What,
    /// The tenant to store the objects for.
    #[arg(short, long, value_name = "TENANT", required_unless_present = "spawn")]
    tenant: Option<TenantId>,
    /// Measure services that are started for it, in a temporary folder, with a tenant of their own.
    #[arg(long, conflicts_with_all = ["tenant", "keep"])]
    spawn: bool,
    /// Size of each object.
    #[arg(long, value_name = "SIZE", default_value = "4KiB", value_parser = parse_size)]
    size: u64,
    /// Operations at once; each needs a file of the object's size in the temporary folder.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    concurrency: u16,
    /// Operations of each phase [default: 1000, unless --duration is given]
    #[arg(long, value_name = "N", conflicts_with = "duration", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// How long each phase lasts, for example 10s.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// Makes the objects' bytes; the same seed makes the same bytes.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Leave the objects in place.
    #[arg(long)]
    keep: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// Storing.
    Put,
    /// Reading.
    Get,
    /// Storing, then reading what was stored.
    Both,
}

/// Operations of a phase, unless the command line says otherwise.
const COUNT: u64 = 1000;
/// Operations of each worker before the measurement begins.
const WARM_UP_ROUNDS: u64 = 4;

impl Bench {
    /// Runs the command.
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let Some(tenant) = &self.tenant else { return self.run_in_sandbox(context).await };
        let session = context.tenant(tenant)?;
        let stored = Stored::default();
        let outcome = self.measure(context, &session, &stored).await;
        if self.keep {
            return outcome;
        }
        outcome.and(self.clean_up(&session, &stored).await)
    }

    async fn run_in_sandbox(&self, context: &Context) -> Result<(), Failure> {
        let sandbox = Sandbox::start("mini-tectonic-bench-", limits::BLOCK_BYTES).await?;
        let outcome = self.run_inside(&sandbox.context(context, context.out.clone())?).await;
        sandbox.stop().await;
        outcome
    }

    async fn run_inside(&self, inside: &Context) -> Result<(), Failure> {
        let tenant: TenantId = "bench".parse().map_err(|error| Failure::local("the tenant's id", &error))?;
        let admin = inside.admin(Some(&tenant))?;
        let registered = admin.client.register_tenant(&tenant, pb::Quota::default()).await;
        let token = registered.map_err(|error| admin.failed("register-tenant", &error))?.token.as_str().into();
        let credential = Credential { token, cluster_id: String::new() };
        inside.credentials()?.save(inside.endpoint(), Holder::Tenant(&tenant), credential)?;
        self.measure(inside, &inside.tenant(&tenant)?, &Stored::default()).await
    }

    async fn measure(&self, context: &Context, session: &Session<'_>, stored: &Stored) -> Result<(), Failure> {
        let contents: io::Result<Vec<_>> = (0..self.concurrency).map(|worker| self.content(worker)).collect();
        let contents = contents.map_err(|error| Failure::local("cannot write a temporary file", &error))?.into();
        let contents: Arc<[Content]> = contents;
        let put = |first| operations::put(&session.client, Arc::clone(&contents), first, stored);
        self.warm_up(session, put(0)).await?;
        if self.what == What::Get {
            // What is read needs to be there; nothing of this is measured.
            let limits = Limits { count: self.count.unwrap_or(COUNT), duration: None, ..self.limits() };
            ended_well(session, &phase::run(limits, put(1 << 32)).await)?;
        } else {
            self.report(context, session, "put", put(1 << 32)).await?;
        }
        if self.what != What::Put {
            let get = operations::get(&session.client, stored.all());
            self.warm_up(session, Arc::clone(&get)).await?;
            self.report(context, session, "get", get).await?;
        }
        Ok(())
    }

    fn content(&self, worker: u16) -> io::Result<Content> {
        Content::new(self.size, self.seed.wrapping_mul(1 << 16).wrapping_add(u64::from(worker)))
    }

    fn limits(&self) -> Limits {
        let count = if self.duration.is_some() { u64::MAX } else { self.count.unwrap_or(COUNT) };
        Limits { count, duration: self.duration, concurrency: self.concurrency.into() }
    }

    async fn warm_up(&self, session: &Session<'_>, operation: Operation) -> Result<(), Failure> {
        let rounds = WARM_UP_ROUNDS * u64::from(self.concurrency);
        let limits = Limits { count: rounds.min(self.count.unwrap_or(COUNT)), ..self.limits() };
        ended_well(session, &phase::run(limits, operation).await)
    }

    async fn report(
        &self,
        context: &Context,
        session: &Session<'_>,
        name: &'static str,
        operation: Operation,
    ) -> Result<(), Failure> {
        let limits = self.limits();
        let measured = phase::run(limits, operation).await;
        Report::new(name, self.size, limits.concurrency, &measured).print(context)?;
        ended_well(session, &measured)
    }

    async fn clean_up(&self, session: &Session<'_>, stored: &Stored) -> Result<(), Failure> {
        let objects = stored.all();
        let count = u64::try_from(objects.len()).unwrap_or(u64::MAX);
        let limits = Limits { count, duration: None, ..self.limits() };
        ended_well(session, &phase::run(limits, operations::delete(&session.client, objects)).await)
    }
}

/// A benchmark in which operations failed has failed, whatever it measured.
fn ended_well(session: &Session<'_>, measured: &Measured) -> Result<(), Failure> {
    match &measured.first_error {
        Some(error) => Err(session.failed(&format!("{} operations failed; the first: bench", measured.errors), error)),
        None if measured.errors > 0 => Err(Failure::new(Exit::Other, "a worker of the benchmark panicked")),
        None => Ok(()),
    }
}

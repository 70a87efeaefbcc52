//! The run: what is put beforehand, what is measured, what is deleted in the end.
//!
//! Numbers of objects begin anew for each purpose, so that no two objects of a run are alike.

use std::io;
use std::sync::Arc;

use proto::ids::TenantId;

use super::content::Content;
use super::flags::{Bench as Flags, What};
use super::listing::{Pages, lists};
use super::objects::Objects;
use super::operations::{Bench, Turns, deletes, get_batches, gets, mixed, put_batches, puts};
use super::phase::{self, Limits, Measured, Operation};
use super::ping::pings;
use super::process::Process;
use super::report::Phase;
use super::scratch::Scratch;
use crate::cli::context::{Context, Session};
use crate::cli::failure::{Exit, Failure};

/// Operations of a phase, and objects that are put beforehand, unless the command line says otherwise.
const COUNT: u64 = 1000;
/// Operations of each worker before the measurement begins, unless the command line says otherwise.
const WARM_UP_ROUNDS: u64 = 4;
/// The first objects that are put to warm up, and beforehand.
const FIRST_OF_WARM_UP: u64 = 1 << 40;
const FIRST_BEFOREHAND: u64 = 1 << 41;

/// A run.
pub(super) struct Runner<'a> {
    flags: &'a Flags,
    context: &'a Context,
    session: Session<'a>,
    bench: Arc<Bench>,
    /// What is measured is done to these.
    objects: Objects,
    /// What was put to warm up.
    warm: Objects,
    /// Whose processor time and memory are told.
    processes: Vec<Process>,
}

impl<'a> Runner<'a> {
    /// Makes clients and files. Nothing is sent yet.
    pub(super) fn new(
        flags: &'a Flags,
        context: &'a Context,
        tenant: &'a TenantId,
        services: Vec<Process>,
    ) -> Result<Self, Failure> {
        let sessions = (0..flags.clients).map(|_| context.tenant(tenant)).collect::<Result<Vec<_>, _>>()?;
        let clients = sessions.iter().map(|session| session.client.clone()).collect();
        let session = sessions.into_iter().next().expect("there is at least one client");
        let scratches: io::Result<Vec<_>> = (0..flags.concurrency).map(|_worker| Scratch::new()).collect();
        let scratches = scratches.map_err(|error| Failure::local("cannot make a temporary file", &error))?;
        let content = Content::new(flags.seed);
        let bench = Bench { clients, scratches, content, sizes: flags.size.clone(), seed: flags.seed };
        let mut processes = vec![Process::this("client")];
        processes.extend(services);
        let (objects, warm) = (Objects::default(), Objects::default());
        Ok(Self { flags, context, session, bench: Arc::new(bench), objects, warm, processes })
    }

    /// Measures what was asked for.
    pub(super) async fn run(&mut self) -> Result<(), Failure> {
        match self.flags.what {
            What::Put => self.put().await,
            What::Both => {
                self.put().await?;
                self.get().await
            }
            What::Get => {
                self.prepare().await?;
                self.get().await
            }
            What::Mixed => {
                self.prepare().await?;
                self.warm_up(puts(&self.bench, FIRST_OF_WARM_UP, &self.warm)).await?;
                let operation = mixed(&self.bench, &self.flags.ratio, 0, &self.objects);
                self.measure("mixed", self.limits(), operation).await
            }
            What::List => {
                self.prepare().await?;
                self.list().await
            }
            What::Delete => {
                self.prepare().await?;
                let doomed = self.objects.shuffled(self.flags.seed, self.flags.count.unwrap_or(u64::MAX));
                self.objects.take_all();
                self.measure("delete", self.endless(), deletes(&self.bench, doomed)).await
            }
            What::Ping => {
                let operation = pings(self.context, self.flags.clients);
                let operation = operation.map_err(|error| self.session.failed("bench", &error))?;
                self.warm_up(Arc::clone(&operation)).await?;
                self.measure("ping", self.limits(), operation).await
            }
        }
    }

    /// Makes sure that there is something to read: puts it, or finds what an earlier run has left. Nothing of this is
    /// measured.
    async fn prepare(&mut self) -> Result<(), Failure> {
        if self.flags.existing {
            let found = Objects::find(self.bench.client(0), self.flags.seed).await;
            self.objects = found.map_err(|error| self.session.failed("bench --existing", &error))?;
            if self.objects.count() == 0 {
                let message = format!("no run with --keep and --seed {} has left an object", self.flags.seed);
                return Err(Failure::new(Exit::NotFound, message));
            }
            return Ok(());
        }
        let limits = Limits { count: self.flags.count.unwrap_or(COUNT), duration: None, ..self.limits() };
        self.ended_well(&phase::run(limits, puts(&self.bench, FIRST_BEFOREHAND, &self.objects)).await)
    }

    async fn put(&self) -> Result<(), Failure> {
        self.warm_up(puts(&self.bench, FIRST_OF_WARM_UP, &self.warm)).await?;
        let (limits, batch) = (self.limits(), self.flags.batch);
        if batch == 1 {
            return self.measure("put", limits, puts(&self.bench, 0, &self.objects)).await;
        }
        let operation = put_batches(&self.bench, 0, batch, limits.count, &self.objects);
        self.measure("put", Limits { count: limits.count.div_ceil(batch), ..limits }, operation).await
    }

    /// Reads each object once, unless it shall go on. The warm-up reads others: what is measured was not read before.
    async fn get(&self) -> Result<(), Failure> {
        if self.warm.count() == 0 {
            self.warm_up(puts(&self.bench, FIRST_OF_WARM_UP, &self.warm)).await?;
        }
        let warm = self.warm.shuffled(self.flags.seed, u64::MAX);
        self.warm_up(gets(&self.bench, warm, Turns::Again)).await?;
        let objects = self.objects.shuffled(self.flags.seed, self.flags.count.unwrap_or(u64::MAX));
        let operation = match self.flags.batch {
            1 => gets(&self.bench, objects, self.turns()),
            batch => get_batches(&self.bench, objects, batch),
        };
        self.measure("get", self.endless(), operation).await
    }

    async fn list(&self) -> Result<(), Failure> {
        let pages = Pages::default();
        let operation = lists(&self.bench, self.turns(), self.objects.count(), &pages);
        self.measure_pages("list", self.endless(), operation, &pages).await
    }

    fn turns(&self) -> Turns {
        if self.flags.repeat { Turns::Again } else { Turns::Once }
    }

    fn limits(&self) -> Limits {
        let Flags { count, duration, concurrency, .. } = *self.flags;
        let count = count.unwrap_or(if duration.is_some() { u64::MAX } else { COUNT });
        Limits { count, duration, concurrency: concurrency.into() }
    }

    /// For what ends by itself.
    fn endless(&self) -> Limits {
        Limits { count: u64::MAX, ..self.limits() }
    }

    async fn warm_up(&self, operation: Operation) -> Result<(), Failure> {
        let limits = match self.flags.warm_up {
            Some(duration) if duration.is_zero() => return Ok(()),
            Some(duration) => Limits { duration: Some(duration), ..self.endless() },
            None => Limits { count: WARM_UP_ROUNDS * u64::from(self.flags.concurrency), ..self.limits() },
        };
        self.ended_well(&phase::run(limits, operation).await)
    }

    async fn measure(&self, name: &'static str, limits: Limits, operation: Operation) -> Result<(), Failure> {
        self.measure_pages(name, limits, operation, &Pages::default()).await
    }

    async fn measure_pages(
        &self,
        name: &'static str,
        limits: Limits,
        operation: Operation,
        pages: &Pages,
    ) -> Result<(), Failure> {
        let before: Vec<_> = self.processes.iter().map(Process::usage).collect();
        let content = self.bench.content.spent();
        let measured = phase::run(limits, operation).await;
        let processes = self.processes.iter().zip(before).filter_map(|(process, before)| {
            // One whose figures cannot be had is left out rather than told as 0.
            Some((process.clone(), before?, process.usage()?))
        });
        let phase = Phase {
            name,
            sizes: &self.flags.size,
            batch: if matches!(name, "put" | "get") { self.flags.batch } else { 1 },
            limits,
            clients: self.bench.clients.len(),
            measured: &measured,
            content: self.bench.content.spent().saturating_sub(content),
            pages,
            processes: &processes.collect::<Vec<_>>(),
        };
        phase.print(self.context)?;
        self.ended_well(&measured)
    }

    /// Deletes what the run has put.
    pub(super) async fn clean_up(&self) -> Result<(), Failure> {
        let mut doomed = self.warm.take_all();
        if !self.flags.existing {
            doomed.extend(self.objects.take_all());
        }
        let limits = Limits { duration: None, ..self.endless() };
        self.ended_well(&phase::run(limits, deletes(&self.bench, doomed)).await)
    }

    /// A benchmark in which operations failed has failed, whatever it measured.
    fn ended_well(&self, measured: &Measured) -> Result<(), Failure> {
        match &measured.first_error {
            Some(error) => {
                let what = format!("{} operations failed; the first: bench", measured.errors);
                Err(self.session.failed(&what, error))
            }
            None if measured.errors > 0 => Err(Failure::new(Exit::Other, "a worker of the benchmark panicked")),
            None => Ok(()),
        }
    }
}

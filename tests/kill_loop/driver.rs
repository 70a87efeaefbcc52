//! One storage folder under load: who is killed, when, and what is done after it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mini_tectonic_client::{Client, ClientConfig, pb};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::check::Checker;
use crate::clients::{CLIENTS, Shared, Worker, patient};
use crate::ledger::Ledger;
use crate::points::{Point, When};
use crate::random::Random;
use crate::services::{Failpoint, Place, Process, Role};
use crate::tally::Tally;

/// Every operation that was begun ends within this time once the services are ready.
const DEADLINE: Duration = Duration::from_secs(120);
/// A process under load comes to its failpoint within this time, or is killed and tried again later.
const COMES_BY_WITHIN: Duration = Duration::from_secs(15);
/// Older blobs that are read back after each round.
const SAMPLE: usize = 32;

/// See the module.
#[derive(Debug)]
pub(crate) struct Driver<'a> {
    runtime: &'a Runtime,
    tally: &'a mut Tally,
    random: Random,
    place: Place,
    shared: Arc<Shared>,
    checker: Checker,
    workers: Vec<Worker>,
    processes: Vec<Process>,
}

impl<'a> Driver<'a> {
    /// Services over a fresh folder, a tenant, and clients that wait.
    pub(crate) fn start(
        runtime: &'a Runtime,
        tally: &'a mut Tally,
        binaries: &Path,
        folder: &Path,
        seed: u64,
    ) -> Result<Self> {
        let mut random = Random::new(seed);
        let place = Place::new(binaries, folder.join("storage"), &mut random)?;
        let mut processes = vec![place.start(Role::Metadata, None, &[])?, place.start(Role::Chunk, None, &[])?];
        for process in &mut processes {
            process.ready()?.context("it was told to die nowhere")?;
        }
        let _in_runtime = runtime.enter();
        let config = ClientConfig::new(place.endpoint()).with_token(place.admin_token()?);
        let admin = Client::new(config.with_retry(patient()))?;
        let tenant = runtime.block_on(admin.register_tenant(&"posts".parse()?, pb::Quota::default()))?;
        let scratch = folder.join("scratch");
        std::fs::create_dir(&scratch)?;
        let shared = Arc::new(Shared {
            endpoint: place.endpoint(),
            token: tenant.token.as_str().to_owned(),
            ledger: Ledger::default(),
            life: AtomicU64::new(1),
            stop: AtomicBool::new(false),
            scratch,
        });
        let workers = (0..CLIENTS).map(|number| Worker::new(&shared, number, seed)).collect::<Result<_>>()?;
        let checker = Checker::new(&shared)?;
        Ok(Self { runtime, tally, random, place, shared, checker, workers, processes })
    }

    /// The oracle.
    pub(crate) fn ledger(&self) -> &Ledger {
        &self.shared.ledger
    }

    /// What was counted so far.
    pub(crate) fn tally(&self) -> &Tally {
        self.tally
    }

    /// Kills at a random instant under load: one process or both, perhaps a second time while it starts.
    pub(crate) fn random_round(&mut self) -> Result<()> {
        self.under_load(|driver| {
            driver.pause(200);
            let victims = match driver.random.below(3) {
                0 => vec![Role::Metadata],
                1 => vec![Role::Chunk],
                _ => vec![Role::Metadata, Role::Chunk],
            };
            let victims = driver.running(&victims);
            driver.kill(&victims)?;
            if driver.random.below(4) == 0 {
                driver.launch(&victims, None)?;
                driver.pause(100);
                driver.kill(&victims)?;
            }
            driver.launch(&victims, None)?;
            driver.wait_ready()
        })
    }

    /// Has a process die at a point under load.
    pub(crate) fn failpoint_round(&mut self, point: Point) -> Result<()> {
        self.under_load(|driver| {
            match point.when {
                When::LoadAfter(before) => driver.die_at(point.role, Failpoint { name: before, count: 1 })?,
                When::StartAfter(before) => {
                    driver.die_at_start_after(point.role, before, point.name)?;
                    return driver.wait_ready();
                }
                When::FirstStart { .. } | When::Reissue | When::Import | When::Start | When::Load => {}
            }
            let often = point.name.starts_with("put.") || point.name.starts_with("engine.");
            let count = if often && point.when == When::Load { 1 + driver.random.below(8) } else { 1 };
            driver.die_at(point.role, Failpoint { name: point.name, count })?;
            driver.wait_ready()
        })
    }

    /// From two processes to one, or back.
    pub(crate) fn change_form(&mut self) -> Result<()> {
        let roles: Vec<Role> = self.processes.iter().map(Process::role).collect();
        let next = if roles.contains(&Role::Serve) { vec![Role::Metadata, Role::Chunk] } else { vec![Role::Serve] };
        self.under_load(|driver| {
            driver.kill(&roles)?;
            driver.launch(&next, None)?;
            driver.wait_ready()
        })
    }

    /// Holds everything that can be seen against the ledger.
    pub(crate) fn check_all(&mut self) -> Result<()> {
        self.runtime.block_on(async {
            self.checker.compare().await?;
            self.checker.read_all().await
        })
    }

    /// Ends well: no reservation stays, and everything that must be there can be read in full.
    pub(crate) fn finish(&mut self) -> Result<()> {
        self.runtime.block_on(self.checker.nothing_stays_reserved())?;
        self.check_all()
    }

    fn under_load(&mut self, deed: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        self.shared.stop.store(false, Ordering::SeqCst);
        let mut clients = JoinSet::new();
        for worker in self.workers.drain(..) {
            clients.spawn_on(worker.run(), self.runtime.handle());
        }
        deed(self)?;
        self.shared.stop.store(true, Ordering::SeqCst);
        let ended = async { tokio::time::timeout(DEADLINE, clients.join_all()).await };
        self.workers = self.runtime.block_on(ended).context("an operation does not end")?;
        let checker = &mut self.checker;
        self.runtime.block_on(async {
            checker.compare().await?;
            checker.read_some(SAMPLE).await
        })
    }

    /// Arms a process, waits until it has died, and starts it again.
    fn die_at(&mut self, role: Role, failpoint: Failpoint) -> Result<()> {
        let victims = self.running(&[role]);
        self.pause(50);
        self.kill(&victims)?;
        self.die_once(&victims, failpoint)?;
        self.launch(&victims, None)
    }

    /// The same at one point, and at another in the start that follows.
    fn die_at_start_after(&mut self, role: Role, before: &'static str, name: &'static str) -> Result<()> {
        let victims = self.running(&[role]);
        self.pause(50);
        self.kill(&victims)?;
        self.die_once(&victims, Failpoint { name: before, count: 1 })?;
        self.die_once(&victims, Failpoint { name, count: 1 })?;
        self.launch(&victims, None)
    }

    /// Starts processes armed, and waits until one has died.
    fn die_once(&mut self, victims: &[Role], failpoint: Failpoint) -> Result<()> {
        self.launch(victims, Some(failpoint))?;
        let began = Instant::now();
        let died = loop {
            let mut died = false;
            for process in self.processes.iter_mut().filter(|process| victims.contains(&process.role())) {
                died |= process.has_died()?;
            }
            if died || began.elapsed() > COMES_BY_WITHIN {
                break died;
            }
            std::thread::park_timeout(Duration::from_millis(1));
        };
        if died {
            self.tally.hit(failpoint.name);
            self.bury(victims);
            return Ok(());
        }
        self.kill(victims)
    }

    /// The processes in which these roles are played now.
    fn running(&self, roles: &[Role]) -> Vec<Role> {
        let one = self.processes.iter().any(|process| process.role() == Role::Serve);
        if one { vec![Role::Serve] } else { roles.to_vec() }
    }

    fn kill(&mut self, roles: &[Role]) -> Result<()> {
        for process in self.processes.extract_if(.., |process| roles.contains(&process.role())) {
            process.kill()?;
            self.tally.kills += 1;
        }
        self.bury(roles);
        Ok(())
    }

    /// They have died.
    fn bury(&mut self, roles: &[Role]) {
        self.processes.retain(|process| !roles.contains(&process.role()));
        if roles != [Role::Chunk] {
            self.shared.life.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn launch(&mut self, roles: &[Role], failpoint: Option<Failpoint>) -> Result<()> {
        for role in roles {
            self.processes.push(self.place.start(*role, failpoint, &[])?);
        }
        Ok(())
    }

    fn wait_ready(&mut self) -> Result<()> {
        for process in &mut self.processes {
            if let Some(ready) = process.ready()? {
                self.tally.ready_after(ready);
            }
        }
        ensure!(!self.processes.is_empty(), "nothing runs");
        Ok(())
    }

    fn pause(&mut self, max_ms: u64) {
        let pause = Duration::from_micros(self.random.below(max_ms * 1000));
        self.runtime.block_on(async { tokio::time::sleep(pause).await });
    }
}

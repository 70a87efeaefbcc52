//! One storage folder: the quota of a round, who dies in it, and what is looked at behind it.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use kill_loop::random::Random;
use kill_loop::services::{Failpoint, Place, Process, Role};
use mini_tectonic_client::{Client, ClientConfig, pb};
use proto::ids::TenantId;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::edge::{Edge, Held};
use crate::figures::Figures;
use crate::judge::{Judge, watch};
use crate::racer::{RACERS, Racer, SIZES, Shared, patient};

/// Every operation that was begun ends within this time once the services are ready.
const DEADLINE: Duration = Duration::from_secs(120);
/// A process comes to its step within this time, or is killed all the same: garbage takes a grace to come about.
const COMES_BY_WITHIN: Duration = Duration::from_secs(60);
/// Uploads that nobody goes on with end within a round or two.
const LEASE: Duration = Duration::from_secs(2);

/// How a process dies.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Death {
    /// Killed at a random instant, the chunk service perhaps with it.
    AtRandom,
    /// By itself, behind a step.
    At(&'static str),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Driver<'a> {
    runtime: &'a Runtime,
    random: Random,
    place: Place,
    shared: Arc<Shared>,
    operator: Client,
    tenant: TenantId,
    judge: Judge,
    racers: Vec<Racer>,
    processes: Vec<Process>,
}

impl<'a> Driver<'a> {
    /// Services over a fresh folder, a tenant, and clients that wait.
    pub(crate) fn start(runtime: &'a Runtime, binaries: &Path, folder: &Path, seed: u64) -> Result<Self> {
        let mut random = Random::new(seed);
        let place = Place::new(binaries, folder.join("storage"), &mut random)?.with_upload_lease(LEASE);
        let mut processes = vec![place.start(Role::Metadata, None, &[])?, place.start(Role::Chunk, None, &[])?];
        processes.iter_mut().try_for_each(|process| process.ready().map(drop))?;
        let _in_runtime = runtime.enter();
        let config = ClientConfig::new(place.endpoint()).with_token(place.admin_token()?);
        let operator = Client::new(config.with_retry(patient()))?;
        let tenant: TenantId = "posts".parse()?;
        let registered = runtime.block_on(operator.register_tenant(&tenant, pb::Quota::default()))?;
        let shared = Arc::new(Shared {
            endpoint: place.endpoint(),
            token: registered.token.as_str().to_owned(),
            figures: Figures::default(),
            stop: AtomicBool::new(false),
            files: files(folder)?,
        });
        let racers = (0..RACERS).map(|number| Racer::new(&shared, number, seed)).collect::<Result<_>>()?;
        let judge = Judge::new(&shared)?;
        Ok(Self { runtime, random, place, shared, operator, tenant, judge, racers, processes })
    }

    /// What was counted so far.
    pub(crate) fn figures(&self) -> &Figures {
        &self.shared.figures
    }

    /// Sets the quota, has everybody race, kills, and judges.
    pub(crate) fn round(&mut self, edge: Edge, death: Death) -> Result<()> {
        let quota = edge.quota();
        let held = self.runtime.block_on(async {
            self.operator.update_tenant(&self.tenant, Some(quota), pb::TrafficClass::Unspecified).await?;
            self.judge.usage().await
        })?;
        self.shared.stop.store(false, Ordering::SeqCst);
        let mut racing = JoinSet::new();
        for racer in self.racers.drain(..) {
            racing.spawn_on(racer.run(), self.runtime.handle());
        }
        let watching = watch(Arc::clone(&self.shared), self.operator.clone(), quota, Held::of(&held));
        let mut watching_task = JoinSet::new();
        watching_task.spawn_on(watching, self.runtime.handle());
        self.pause(200);
        self.die(death)?;
        self.pause(200);
        self.shared.stop.store(true, Ordering::SeqCst);
        let ended = async { tokio::time::timeout(DEADLINE, racing.join_all()).await };
        self.racers = self.runtime.block_on(ended).context("an operation does not end")?;
        self.runtime.block_on(watching_task.join_all()).into_iter().collect::<Result<()>>()?;
        self.shared.figures.round();
        self.runtime.block_on(self.look(&quota))
    }

    /// At rest.
    async fn look(&mut self, quota: &pb::Quota) -> Result<()> {
        let blobs = self.judge.compare(&self.operator).await?;
        for racer in &mut self.racers {
            let own = blobs.iter().filter(|blob| blob.display_name == racer.prefix());
            racer.told(own.map(|blob| blob.blob_id).collect());
        }
        self.judge.verdicts(quota).await
    }

    fn die(&mut self, death: Death) -> Result<()> {
        match death {
            Death::AtRandom => {
                let victims =
                    if self.random.below(3) == 0 { vec![Role::Metadata, Role::Chunk] } else { vec![Role::Metadata] };
                self.kill(&victims)?;
                victims.into_iter().try_for_each(|role| self.launch(role, None))?;
            }
            Death::At(step) => {
                self.kill(&[Role::Metadata])?;
                let count = if step.starts_with("engine.") { 1 + self.random.below(20) } else { 1 };
                self.launch(Role::Metadata, Some(Failpoint { name: step, count }))?;
                self.wait_for_death(step)?;
                self.launch(Role::Metadata, None)?;
            }
        }
        self.processes.iter_mut().try_for_each(|process| process.ready().map(drop))
    }

    fn wait_for_death(&mut self, step: &'static str) -> Result<()> {
        let began = Instant::now();
        while began.elapsed() < COMES_BY_WITHIN {
            for process in self.processes.iter_mut().filter(|process| process.role() == Role::Metadata) {
                if process.has_died()? {
                    self.shared.figures.died_at(step);
                    self.processes.retain(|process| process.role() != Role::Metadata);
                    return Ok(());
                }
            }
            std::thread::park_timeout(Duration::from_millis(1));
        }
        self.kill(&[Role::Metadata])
    }

    fn kill(&mut self, roles: &[Role]) -> Result<()> {
        for process in self.processes.extract_if(.., |process| roles.contains(&process.role())) {
            process.kill()?;
            self.shared.figures.killed();
        }
        Ok(())
    }

    fn launch(&mut self, role: Role, failpoint: Option<Failpoint>) -> Result<()> {
        self.processes.push(self.place.start(role, failpoint, &[])?);
        Ok(())
    }

    fn pause(&mut self, max_ms: u64) {
        let pause = Duration::from_micros(self.random.below(max_ms * 1000));
        self.runtime.block_on(async { tokio::time::sleep(pause).await });
    }
}

/// Files to put.
fn files(folder: &Path) -> Result<std::path::PathBuf> {
    let files = folder.join("files");
    std::fs::create_dir(&files)?;
    for size in SIZES {
        let mut file = std::fs::File::create_new(files.join(size.to_string()))?;
        std::io::copy(&mut std::io::Read::take(std::io::repeat(9), size), &mut file)?;
        file.flush()?;
    }
    Ok(files)
}

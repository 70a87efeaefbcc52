//! A cluster on a machine, from its first start through many cuts.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use mini_tectonic_client::{Client, ClientConfig, TenantId, pb};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::check::{Findings, check};
use crate::clients;
use crate::cut::Cut;
use crate::dice::Dice;
use crate::image::{Image, Journal};
use crate::ledger::{Ledger, Violations};
use crate::machine::{Lie, Machine};
use crate::mount::{mount, unmount};
use crate::say;
use crate::services::{Services, Started};

/// A cut that has not come by itself until then is made.
const CUT_WITHIN: Duration = Duration::from_secs(30);
/// Steps of a first start, roughly.
const STEPS_OF_A_FIRST_START: usize = 80;

/// What a suite has seen.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) cuts: u64,
    /// Of the cuts, those during a start.
    cuts_in_starts: u64,
    kills: u64,
    /// Puts and deletes.
    acked: u64,
    slowest: Duration,
    pub(crate) violations: Violations,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cuts, cuts_in_starts, kills, acked, slowest, violations } = self;
        writeln!(f, "{cuts} cuts ({cuts_in_starts} during a start), {kills} kills before one")?;
        write!(f, "{acked} acknowledged puts and deletes: {violations}; ready again after {slowest:?} at most")
    }
}

/// How a life ends.
#[derive(Debug, Clone, Copy)]
enum End {
    /// The processes die, the page cache lives on.
    Kill,
    Cut(Cut),
}

/// How much of a log is shown beside a violation.
const LOG_LINES: usize = 25;

/// Clients at work, and what failed for them although the power was on.
type Load = JoinHandle<Vec<String>>;

/// A machine with a cluster, or with the beginnings of one.
pub(crate) struct Site {
    machine: Arc<Machine>,
    dice: Dice,
    mount_point: TempDir,
    home: TempDir,
    runtime: Runtime,
    ledger: Arc<Ledger>,
    tenant_token: Option<String>,
    /// The power goes after so many at most, once clients are at work.
    steps_of_a_life: usize,
    /// Of the last start that came to its end: a cut during the next comes within so many.
    steps_of_a_start: usize,
}

impl Site {
    pub(crate) fn new(journal: Journal, steps_of_a_life: usize, seed: u64) -> Result<Self> {
        Ok(Self {
            machine: Arc::new(Machine::new(Image::new(journal))),
            dice: Dice::new(seed),
            mount_point: TempDir::new()?,
            home: TempDir::new()?,
            runtime: tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?,
            ledger: Arc::default(),
            tenant_token: None,
            steps_of_a_life,
            steps_of_a_start: STEPS_OF_A_FIRST_START,
        })
    }

    /// Makes the disk dishonest from now on.
    pub(crate) fn lie(&self, lie: Lie) {
        self.machine.lock().lie = lie;
    }

    /// Starts the services, checks them, and lets clients work until the power goes; sometimes only the processes die,
    /// a few times over, before it does.
    pub(crate) fn live_and_die(&mut self, tally: &mut Tally) -> Result<()> {
        while self.dice.percent(25) {
            tally.kills += 1;
            self.life(Some(End::Kill), tally)?;
        }
        tally.cuts += 1;
        let cut = Cut::draw(&self.dice);
        self.life(Some(End::Cut(cut)), tally)
    }

    /// Starts the services and checks them.
    pub(crate) fn live(&mut self, tally: &mut Tally) -> Result<()> {
        self.life(None, tally)
    }

    fn life(&mut self, end: Option<End>, tally: &mut Tally) -> Result<()> {
        let acked_before = self.ledger.acked();
        self.machine.on();
        let session = mount(&self.machine, self.mount_point.path()).context("cannot mount")?;
        if end.is_some() && self.dice.percent(25) {
            self.machine.cut_after(self.dice.below(self.steps_of_a_start + 1));
        }
        let services = Services::spawn(&self.mount_point.path().join("storage"), self.home.path())?;
        let (began, steps_before) = (Instant::now(), self.machine.steps());
        let mut findings = Findings::default();
        let mut load = None;
        match services.started(&self.machine) {
            Ok(Started::Cut) => tally.cuts_in_starts += 1,
            Ok(Started::Ready { endpoint }) => {
                tally.slowest = tally.slowest.max(began.elapsed());
                self.machine.no_cut();
                self.steps_of_a_start = self.machine.steps() - steps_before;
                if !self.machine.failing() {
                    (findings, load) = self.work(&endpoint, end.is_some());
                }
            }
            Err(error) => findings = Findings::broken(format!("{error:#}")),
        }
        let log = services.log_text();
        services.kill(&self.machine)?;
        if let Some(load) = load {
            findings.failures(self.runtime.block_on(load)?);
        }
        unmount(session)?;
        tally.acked += self.ledger.acked() - acked_before;
        report(&findings, end, &log);
        tally.violations.add(findings.violations);
        if let Some(End::Cut(cut)) = end {
            self.machine.lock().image.cut(cut, &self.dice);
        }
        Ok(())
    }

    /// Checks what the services show, then lets clients work until the power goes, if it is to.
    fn work(&mut self, endpoint: &str, until_cut: bool) -> (Findings, Option<Load>) {
        let client = match self.token(endpoint).and_then(|token| Ok(clients::client(endpoint, &token)?)) {
            Ok(client) => client,
            Err(error) => return (Findings::broken(format!("register the tenant: {error:#}")), None),
        };
        let findings = self.runtime.block_on(check(&client, &self.ledger));
        if !until_cut || findings.violations.any() {
            return (findings, None);
        }
        self.machine.cut_after(self.dice.up_to(self.steps_of_a_life));
        let (ledger, machine) = (Arc::clone(&self.ledger), Arc::clone(&self.machine));
        let seed = self.dice.number();
        let load = self.runtime.spawn(async move { clients::run(&client, &ledger, &machine, seed).await });
        self.machine.wait_until_failing(CUT_WITHIN);
        (findings, Some(load))
    }

    /// The tenant's token; the tenant is registered first, if need be.
    fn token(&mut self, endpoint: &str) -> Result<String> {
        if let Some(token) = &self.tenant_token {
            return Ok(token.clone());
        }
        let admin = self.machine.lock().image.read("storage/admin.token".as_ref()).map(<[u8]>::to_vec);
        let admin = String::from_utf8(admin.ok().context("there is no admin token")?)?;
        let admin = Client::new(ClientConfig::new(endpoint).with_token(admin))?;
        let tenant: TenantId = "posts".parse()?;
        let registered = self.runtime.block_on(admin.register_tenant(&tenant, pb::Quota::default()))?;
        Ok(self.tenant_token.insert(registered.token.to_string()).clone())
    }
}

fn report(findings: &Findings, end: Option<End>, log: &str) {
    if findings.violations.any() {
        say(&format!("VIOLATION at the start before {end:?}: {}", findings.violations));
        findings.words.iter().take(10).for_each(|words| say(words));
        log.lines().rev().take(LOG_LINES).collect::<Vec<_>>().into_iter().rev().for_each(say);
    }
}

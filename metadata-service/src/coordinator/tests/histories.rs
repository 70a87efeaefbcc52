//! Random histories against a model, over each engine (I3, I4, I5, I8, I11).
//!
//! A history is one tenant's: uploads, allocations, commits, aborts, expiry, deletes, restores, collecting, requests that
//! are repeated and used otherwise, quotas, listings, and the tenant's own end and return, with time passing in between.
//! Half of the calls, or more, are such that they must be refused. The model ([`model`]) foretells every answer, refusals
//! with their reason; after every step the usage row is what the model adds up to, and at the end of each history, and
//! once in its middle, the rows are byte for byte what the model makes of them.
//!
//! Many histories share a database, each with its own clock, and threads take turns with them, so that the sled engine
//! decides commits of different histories in one group. In the middle of its histories a sled database is closed and
//! opened again.
//!
//! Plain `cargo test` runs some histories. All 100,000 on each engine, with figures on the last lines:
//!
//! ```text
//! MINI_TECTONIC_SEQUENCES=100000 cargo test --release -p metadata-service --lib histories -- --nocapture
//! ```
//!
//! A failure names its seed; `MINI_TECTONIC_SEED=<seed>` runs that history alone, prints its steps, and looks at all rows
//! after each.

mod model;
mod rows;
mod steps;
mod world;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use tempfile::TempDir;

use self::rows::Rows;
use self::steps::Step;
use self::world::World;
use super::*;
use crate::figures;
use crate::store::faulty::memory_folder;
use crate::store::sled::{SledEngine, SledOptions};

/// Histories that plain `cargo test` runs on each engine.
const HISTORIES: u64 = 240;
/// Histories that share a database.
const PER_DATABASE: u64 = 240;
/// Steps of a history.
const STEPS: usize = 60;
/// Kinds of calls.
const CALLS: usize = 20;

/// What happened, so that a suite which tries nothing cannot pass for one that finds nothing.
#[derive(Debug, Clone, Default)]
struct Figures {
    histories: u64,
    steps: u64,
    reopened: u64,
    rows: u64,
    /// Calls that had an effect or an answer, and those that were refused or found nothing to do.
    calls: BTreeMap<&'static str, [u64; 2]>,
}

impl Figures {
    fn count(&mut self, call: &'static str, effective: bool) {
        self.calls.entry(call).or_default()[usize::from(!effective)] += 1;
    }

    fn add(&mut self, other: &Self) {
        self.histories += other.histories;
        self.steps += other.steps;
        for (call, [done, refused]) in &other.calls {
            let sum = self.calls.entry(call).or_default();
            *sum = [sum[0] + done, sum[1] + refused];
        }
    }

    /// Whether every call both went well and was refused.
    fn all_happened(&self) -> bool {
        self.calls.len() == CALLS && self.calls.values().flatten().all(|count| *count > 0)
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { histories, steps, reopened, rows, calls } = self;
        write!(f, "{histories} sequences, {steps} steps, {rows} rows compared, {reopened} reopenings, 0 divergences;")?;
        calls.iter().try_for_each(|(call, [done, refused])| write!(f, " {call} {done}+{refused}"))
    }
}

/// An engine that histories share.
#[derive(Debug)]
enum Database {
    Memory(Arc<MemoryEngine>),
    Sled(Arc<SledEngine>, TempDir),
}

impl Database {
    fn sled() -> Self {
        let folder = memory_folder();
        Self::Sled(Arc::new(SledEngine::open(folder.path(), &options()).unwrap()), folder)
    }

    fn engine(&self) -> Arc<dyn Engine> {
        match self {
            Self::Memory(engine) => Arc::<MemoryEngine>::clone(engine),
            Self::Sled(engine, _) => Arc::<SledEngine>::clone(engine),
        }
    }

    /// Threads that keep it busy: commits wait for one another's syncs.
    fn threads(&self) -> usize {
        match self {
            Self::Memory(_) => std::thread::available_parallelism().map_or(1, usize::from),
            Self::Sled(..) => 16,
        }
    }

    /// Closes and opens it; what is in memory only stays as it is.
    fn reopen(&mut self) -> u64 {
        let Self::Sled(engine, folder) = self else { return 0 };
        let sequence = engine.sequence();
        wait_for(engine.close());
        *engine = Arc::new(SledEngine::open(folder.path(), &options()).unwrap());
        assert_eq!(engine.sequence(), sequence);
        1
    }
}

/// The disk may be as small as it is.
fn options() -> SledOptions {
    SledOptions { low_watermark_bytes: 0, reserve_bytes: 0, ..SledOptions::default() }
}

fn wait_for<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// Runs so many steps of every history, many at once.
fn run(worlds: &mut [World], threads: usize, steps: usize, told: bool) {
    let share = worlds.len().div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        for some in worlds.chunks_mut(share) {
            scope.spawn(move || (0..steps).for_each(|_| some.iter_mut().for_each(|world| world.advance(told))));
        }
    });
}

impl World {
    fn advance(&mut self, told: bool) {
        let step = Step::draw(&self.dice);
        if told {
            figures::print(format_args!("{}: {step:?}", self.figures.steps));
        }
        self.step(&step);
        if told {
            check(std::slice::from_ref(self), &self.bench.engine);
        }
    }
}

/// Whether the engine holds what the models make of it, and nothing else; returns the number of rows.
fn check(worlds: &[World], engine: &Arc<dyn Engine>) -> u64 {
    let everything = KeyRange { start: Vec::new(), end: None };
    let found = wait_for(engine.scan(&everything, usize::MAX)).unwrap();
    let found: Rows = found.into_iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
    let mut count = 0;
    for world in worlds {
        let rows = world.model.rows(world.bench.secret(), &found);
        for (key, value) in &rows {
            assert_eq!(found.get(key), Some(value), "seed {}: {}", world.seed, key.escape_ascii());
        }
        count += rows.len();
    }
    assert_eq!(found.len(), count, "no row but the models' is there");
    count as u64
}

/// Runs the histories of one database, half of their steps before it is opened again.
fn run_database(mut database: Database, seeds: std::ops::Range<u64>, told: bool, sum: &mut Figures) {
    let threads = database.threads();
    let mut worlds: Vec<_> = seeds.map(|seed| World::new(database.engine(), seed)).collect();
    run(&mut worlds, threads, STEPS / 2, told);
    worlds.iter_mut().for_each(|world| world.bench.go_on_over(Arc::new(MemoryEngine::new())));
    sum.reopened += database.reopen();
    worlds.iter_mut().for_each(|world| world.bench.go_on_over(database.engine()));
    sum.rows += check(&worlds, &database.engine());
    run(&mut worlds, threads, STEPS - STEPS / 2, told);
    sum.rows += check(&worlds, &database.engine());
    worlds.iter().for_each(|world| sum.add(&world.figures));
    drop(worlds);
    wait_for(database.engine().close());
}

fn suite(name: &str, database: impl Fn() -> Database) {
    let mut sum = Figures::default();
    if let Some(seed) = figures::number("MINI_TECTONIC_SEED") {
        return run_database(database(), seed..seed + 1, true, &mut sum);
    }
    let histories = figures::number("MINI_TECTONIC_SEQUENCES").unwrap_or(HISTORIES);
    for first in (0..histories).step_by(usize::try_from(PER_DATABASE).unwrap()) {
        run_database(database(), first..histories.min(first + PER_DATABASE), false, &mut sum);
    }
    figures::print(format_args!("model of the metadata over {name}: {sum}"));
    assert!(sum.all_happened(), "the histories try everything");
}

#[test]
fn every_answer_and_every_row_is_the_model_s_in_memory() {
    suite("the engine in memory", || Database::Memory(Arc::new(MemoryEngine::new())));
}

#[test]
fn every_answer_and_every_row_is_the_model_s_on_sled() {
    suite("sled", Database::sled);
}

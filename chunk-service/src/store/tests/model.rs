//! The store against a model of what it promised, under random operations, faults, damage, full disks and crashes.
//!
//! Checked after every step: what was answered as durable reads back, unless its bytes were damaged on purpose; what is
//! read is what the metadata holds; other bytes never take the place of sealed ones; what was deleted stays so; an error
//! has a cause. A sequence that fails is made as short as it can be, and printed. Long form, with its figures:
//! `MINI_TECTONIC_SEQUENCES=100000 cargo test --release -p chunk-service --lib model -- --nocapture`

mod known;
mod run;
mod steps;

use std::fmt;
use std::sync::Mutex;

use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use proto::entropy::{Entropy as _, OsEntropy};

use self::run::Run;
use self::steps::{Step, any_steps};
use crate::store::testing::figures;
use crate::store::testing::world::Kind;

/// Sequences of the short form.
const SEQUENCES: u32 = 64;

/// What happened in all sequences.
#[derive(Debug, Default, Clone, Copy)]
struct Figures {
    sequences: u64,
    steps: u64,
    promises: u64,
    crashes: u64,
    faults: u64,
    damages: u64,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sequences, steps, promises, crashes, faults, damages } = self;
        write!(
            f,
            "model of the chunk store: {sequences} sequences, {steps} steps, {promises} promises, {crashes} crashes, \
             {faults} faults, {damages} damages; 0 divergences"
        )
    }
}

fn sequences() -> u32 {
    let asked = std::env::var("MINI_TECTONIC_SEQUENCES").ok();
    asked.map_or(SEQUENCES, |count| count.parse().expect("MINI_TECTONIC_SEQUENCES is a number"))
}

async fn play(steps: Vec<Step>, kind: Kind, figures: &Mutex<Figures>) {
    let mut run = Run::new(kind);
    for step in steps {
        run = run.step(step).await;
    }
    let mut figures = figures.lock().unwrap();
    run.count(&mut figures);
    figures.sequences += 1;
}

/// Plays so many sequences, which this seed decides; panics with the shortest one that diverges.
fn explore(sequences: u32, seed: [u8; 32], figures: &Mutex<Figures>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let config = Config { cases: sequences, max_shrink_iters: 2_000, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    let kinds = proptest::sample::select(vec![Kind::default(), Kind::JOURNALED]);
    let outcome = runner.run(&(any_steps(), kinds), |(steps, kind)| {
        runtime.block_on(play(steps, kind, figures));
        Ok(())
    });
    assert!(outcome.is_ok(), "{}", outcome.unwrap_err());
}

#[test]
fn the_store_keeps_what_it_promised() {
    let (sequences, figures) = (sequences(), Mutex::default());
    let threads = u32::try_from(std::thread::available_parallelism().unwrap().get()).unwrap();
    std::thread::scope(|scope| {
        for number in 0..threads {
            let mine = sequences / threads + u32::from(number < sequences % threads);
            let mut seed = [0; 32];
            OsEntropy.fill(&mut seed);
            let figures = &figures;
            scope.spawn(move || explore(mine, seed, figures));
        }
    });
    let figures = figures.into_inner().unwrap();
    figures::print(figures);
    assert!(figures.sequences >= u64::from(sequences) && figures.promises > 0 && figures.crashes > 0, "{figures}");
}

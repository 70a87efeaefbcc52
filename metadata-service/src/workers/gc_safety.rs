//! GC safety (I6, I7): a seeded explorer of schedules over the real service and its background work.
//!
//! A schedule interleaves writers (start, write, allocate, commit, abort), owners (delete, undelete, repeats of older
//! requests, quotas), readers (capabilities that they use while they last), the clock (time that passes, jumps in both
//! directions), the process (restarts, also in the middle of a pass) and the chunk services (which are away, refuse, lose
//! answers, and delete late and once more) with passes of the upload sweeper and of one or two collectors, at times all at
//! once. Engine, time and nodes are models; everything else is what runs in production.
//!
//! At the moment when a chunk is deleted at a node, and after every step, no chunk may be gone that a committed blob, a
//! deleted blob that can be restored, an upload that can be committed, or a read capability within its life needs. At the
//! end the nodes come back, the graces pass, and after two sweeps, of which the first may be the rest of one, no file, row
//! or byte of usage is left of what is not needed.
//!
//! Plain `cargo test` runs some schedules. All 20,000, with figures on the last line:
//!
//! ```text
//! MINI_TECTONIC_SCHEDULES=20000 cargo test --release -p metadata-service --lib gc_safety -- --nocapture
//! ```
//!
//! A failure names its seed; `MINI_TECTONIC_SEED=<seed>` runs that schedule alone and prints its steps.

mod calls;
mod model;
mod nodes;
mod steps;
mod world;

use std::fmt;

use self::steps::Step;
use self::world::World;

/// Schedules that plain `cargo test` runs.
const SCHEDULES: u64 = 60;
/// Steps of a schedule.
const STEPS: usize = 120;

/// What happened, so that a suite which tries nothing cannot pass for one that finds nothing.
#[derive(Debug, Default, Clone, Copy)]
struct Figures {
    schedules: u64,
    steps: u64,
    commits: u64,
    aborts: u64,
    expiries: u64,
    deletes: u64,
    undeletes: u64,
    reads: u64,
    passes: u64,
    broken_passes: u64,
    restarts: u64,
    jumps: u64,
    deletions: u64,
}

impl Figures {
    fn add(&mut self, other: &Self) {
        let sums = [
            (&mut self.schedules, other.schedules),
            (&mut self.steps, other.steps),
            (&mut self.commits, other.commits),
            (&mut self.aborts, other.aborts),
            (&mut self.expiries, other.expiries),
            (&mut self.deletes, other.deletes),
            (&mut self.undeletes, other.undeletes),
            (&mut self.reads, other.reads),
            (&mut self.passes, other.passes),
            (&mut self.broken_passes, other.broken_passes),
            (&mut self.restarts, other.restarts),
            (&mut self.jumps, other.jumps),
            (&mut self.deletions, other.deletions),
        ];
        for (sum, more) in sums {
            *sum += more;
        }
    }

    fn all_happened(&self) -> bool {
        let Self { commits, aborts, expiries, deletes, undeletes, reads, passes, broken_passes, .. } = *self;
        let happened = [commits, aborts, expiries, deletes, undeletes, reads, passes, broken_passes];
        happened.into_iter().chain([self.restarts, self.jumps, self.deletions]).all(|count| count > 0)
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { schedules, steps, commits, aborts, expiries, deletes, undeletes, reads, .. } = self;
        let Self { passes, broken_passes, restarts, jumps, deletions, .. } = self;
        write!(
            f,
            "GC safety: {schedules} schedules, {steps} steps, {commits} commits, {aborts} aborts, {expiries} expiries, \
             {deletes} deletes, {undeletes} undeletes, {reads} reads, {passes} passes ({broken_passes} cut off), \
             {restarts} restarts, {jumps} clock jumps, {deletions} chunks deleted; \
             0 live chunks deleted, 0 left behind"
        )
    }
}

/// Runs one schedule. Panics with what is wrong.
#[expect(clippy::print_stdout, reason = "a person asked to be told the steps")]
fn run(seed: u64, told: bool) -> Figures {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut world = World::new(seed).await;
        for at in 0..STEPS {
            let step = Step::draw(&world.dice);
            if told {
                println!("{at}: {step:?}");
            }
            world.run(&step).await;
            world.check(&format!("seed {seed}, step {at}, {step:?}")).await;
        }
        world.finish(&format!("seed {seed}, end")).await;
        world.figures()
    })
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} must be a number")))
}

#[test]
#[expect(clippy::print_stdout, reason = "the suite's figures")]
fn i6_i7_nothing_needed_is_deleted_and_nothing_else_stays() {
    if let Some(seed) = number("MINI_TECTONIC_SEED") {
        println!("{}", run(seed, true));
        return;
    }
    let schedules = number("MINI_TECTONIC_SCHEDULES").unwrap_or(SCHEDULES);
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let part = |first| {
        let mut sum = Figures::default();
        (first..schedules).step_by(threads).for_each(|seed| sum.add(&run(seed, false)));
        sum
    };
    let mut sum = Figures::default();
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads as u64).map(|first| scope.spawn(move || part(first))).collect();
        running.into_iter().for_each(|one| sum.add(&one.join().expect("every schedule holds")));
    });
    assert!(sum.all_happened(), "the schedules try everything: {sum:?}");
    println!("{sum}");
}

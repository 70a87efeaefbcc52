//! GC safety (I6, I7): a seeded explorer of schedules over the real service and its background work.
//!
//! A schedule interleaves writers (start, write, allocate, commit, abort), owners (delete, undelete, repeats of older
//! requests, quotas), readers (capabilities that they use while they last), the clock (time that passes, jumps in both
//! directions), the process (restarts, also in the middle of a pass), its disk (metadata that are lost and come back from an
//! older export, and what the operator decides then) and the chunk services (which are away, refuse, lose answers, break
//! lists off, delete late and once more, and keep files of broken writes) with passes of the upload sweeper, of the sweep for
//! orphans, and of one or two collectors, at times all at once. Engine, time and nodes are models; everything else is what
//! runs in production.
//!
//! At the moment when a chunk is deleted at a node, and after every step, no chunk may be gone that a committed blob, a
//! deleted blob that can be restored, an upload that can be committed, or a read capability within its life needs; nor, until
//! an operator has given up a time that an import lost, one of a blob that was acknowledged in it (I16). At the end the nodes
//! come back, the graces pass, and after two sweeps, of which the first may be the rest of one, no file, row or byte of usage
//! is left of what is not needed.
//!
//! Plain `cargo test` runs some schedules. All 20,000, with figures on the last line:
//!
//! ```text
//! MINI_TECTONIC_SCHEDULES=20000 cargo test --release -p metadata-service --lib gc_safety -- --nocapture
//! ```
//!
//! A failure names its seed; `MINI_TECTONIC_SEED=<seed>` runs that schedule alone and prints its steps.

mod calls;
mod ending;
mod figures;
mod model;
mod nodes;
mod restores;
mod steps;
mod world;

use self::figures::Figures;
use self::steps::Step;
use self::world::World;

/// Schedules that plain `cargo test` runs.
const SCHEDULES: u64 = 60;
/// Steps of a schedule.
const STEPS: usize = 120;

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
        (first..schedules).step_by(threads).for_each(|seed| sum = sum.add(run(seed, false)));
        sum
    };
    let mut sum = Figures::default();
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads as u64).map(|first| scope.spawn(move || part(first))).collect();
        running.into_iter().for_each(|one| sum = sum.add(one.join().expect("every schedule holds")));
    });
    assert!(sum.all_happened(), "the schedules try everything: {sum:?}");
    println!("{sum}");
}

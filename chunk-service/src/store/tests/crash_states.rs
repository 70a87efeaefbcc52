//! Every state that a crash may leave of every script of up to two client operations (I1, I2, I8, I15).
//!
//! A script runs over a disk that notes each instant. For each instant two things are looked at. *Killed*: the process is
//! gone and the page cache is not. *Power lost*: every image that the calls so far allow, since each write and each name
//! that was not synced may be there or not, torn or not, independently of every other (see `crash_disk`). A fresh store
//! starts on each, and [`check`] holds it to what had been answered by then. For a sample of the images, what a client
//! does next is run as a script of its own and crashes at each of its instants again.
//!
//! Equal states with equal promises are checked once for each script, in the short form once in all. Long form, with its
//! figures on the last line:
//! `MINI_TECTONIC_LONG=1 cargo test --release -p chunk-service --lib crash_states -- --nocapture`

mod check;
mod scripts;

use std::collections::HashSet;
use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use self::check::Loss;
use self::scripts::{Scene, Script};
use crate::store::testing::figures::{self, Context};
use crate::store::testing::world::Kind;

/// Of so many images one is where a second crash happens.
const SECOND_CRASH_EVERY: u64 = 23;
/// Images of one instant that are looked at; where a crash may leave more (files that only the journal makes durable),
/// so many of them, the seed being the state itself.
const IMAGES_MAX: usize = 400;
const IMAGES_MAX_LONG: usize = 20_000;
/// The short form runs one of so many scripts.
const SHORT_EVERY: usize = 41;

/// What was looked at.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Figures {
    scripts: u64,
    instants: u64,
    killed: u64,
    states: u64,
    different: u64,
    second: u64,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scripts, instants, killed, states, different, second } = self;
        write!(
            f,
            "crash states: {scripts} scripts, {instants} instants, {states} crash states ({different} of them \
             recovered, the others equal one of those), {killed} kills, {second} second crashes; 0 violations"
        )
    }
}

/// Goes through scripts.
#[derive(Debug, Default)]
struct Explorer {
    kind: Kind,
    seen: HashSet<u64>,
    figures: Figures,
}

impl Explorer {
    async fn explore(&mut self, script: &Script) {
        let _context = Context(script);
        self.figures.scripts += 1;
        if figures::long() {
            self.seen.clear();
        }
        for scene in script.play(self.kind).await {
            self.figures.instants += 1;
            self.kill(&scene).await;
            for image in self.images(&scene) {
                self.figures.different += 1;
                check::holds(&image, Loss::Everything, self.kind).await;
                if self.figures.different.is_multiple_of(SECOND_CRASH_EVERY) {
                    self.crash_again(image).await;
                }
            }
        }
    }

    async fn kill(&mut self, scene: &Scene) {
        if self.is_new(scene) {
            self.figures.killed += 1;
            check::sums_are_whole(&scene.disk);
            check::holds(scene, Loss::Each, self.kind).await;
        }
    }

    /// What the client does next crashes in its turn.
    async fn crash_again(&mut self, scene: Scene) {
        for scene in Script::after(scene).play(self.kind).await {
            for image in self.images(&scene) {
                self.figures.second += 1;
                check::holds(&image, Loss::Everything, self.kind).await;
            }
        }
    }

    /// The images that were not seen before.
    fn images(&mut self, scene: &Scene) -> Vec<Scene> {
        let (mut images, mut states) = (Vec::new(), 0);
        let see = |disk| {
            states += 1;
            let image = Scene { disk, known: scene.known.clone() };
            if self.is_new(&image) {
                images.push(image);
            }
        };
        let most = if figures::long() { IMAGES_MAX_LONG } else { IMAGES_MAX };
        match scene.disk.crashes_up_to(most) {
            Some(_few) => scene.disk.each_crash(see),
            None => scene.disk.some_crashes(most, scene.disk.fingerprint(), see),
        }
        self.figures.states += states;
        images
    }

    fn is_new(&mut self, Scene { disk, known }: &Scene) -> bool {
        let mut hasher = DefaultHasher::new();
        (disk.fingerprint(), known).hash(&mut hasher);
        self.seen.insert(hasher.finish())
    }
}

/// Runs the suite with stores of this kind; panics when one breaks a promise.
pub(crate) fn run(scripts: &[Script], kind: Kind) -> Figures {
    let explore = |mine: Vec<&Script>| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut explorer = Explorer { kind, ..Explorer::default() };
        mine.into_iter().for_each(|script| runtime.block_on(explorer.explore(script)));
        explorer.figures
    };
    let threads = if scripts.len() > 100 { std::thread::available_parallelism().unwrap().get() } else { 1 };
    std::thread::scope(|scope| {
        let explore = &explore;
        let share = |number| scripts.iter().skip(number).step_by(threads).collect();
        let running: Vec<_> = (0..threads).map(|number| scope.spawn(move || explore(share(number)))).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).fold(Figures::default(), Figures::add)
    })
}

impl Figures {
    fn add(self, other: Self) -> Self {
        Self {
            scripts: self.scripts + other.scripts,
            instants: self.instants + other.instants,
            killed: self.killed + other.killed,
            states: self.states + other.states,
            different: self.different + other.different,
            second: self.second + other.second,
        }
    }
}

/// The scripts of the short form.
pub(crate) fn some_scripts() -> Vec<Script> {
    Script::all().into_iter().step_by(SHORT_EVERY).chain([Script::put_and_delete()]).collect()
}

#[test]
fn whatever_was_answered_holds_in_every_state_that_a_crash_may_leave() {
    let scripts = if figures::long() { Script::all() } else { some_scripts() };
    for kind in [Kind::default(), Kind::JOURNALED] {
        let figures = run(&scripts, kind);
        figures::print(format_args!("{figures} ({kind:?})"));
        assert!(figures.different > 300, "{figures}");
        assert!(!figures::long() || figures.different >= 20_000, "{figures}");
    }
}

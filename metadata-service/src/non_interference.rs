//! Non-interference (I9): what a tenant sees is a function of what it does, whatever another tenant does meanwhile.
//!
//! A history is a sequence of slots. In each, tenant `bella` makes a call, or something happens to everybody: time passes, the
//! wall clock is set, expired uploads are swept, garbage is collected, the service starts anew. Between the slots tenant
//! `anton` does what it likes: the same calls, and calls about whatever bella has, by their ids, receipts, key ids and page
//! tokens, under the same request ids and names. The history is run three times: with anton's calls, with others, and
//! without a tenant anton at all. All answers that bella gets must be the same bytes: messages, refusals with their details,
//! ids, times, tokens, page tokens, and what its capabilities say. Bella guesses too: ids, receipts and page tokens that were
//! anton's in the first run are tried again in the others, where nothing ever had them.
//!
//! The calls pass the real authentication and handlers, in process; engine and background work are the real ones. Each
//! actor draws from a random source of its own, so that nothing has to be blanked out but two things that travel and say
//! nothing: the request id of a refusal, and within capabilities the cluster's sequence, which is masked there.
//!
//! Not covered, because tenants share it by design: how long a call takes and when the service is overloaded, a disk that
//! is full, a service that met damage and takes no writes, how soon within a sweep garbage goes.
//!
//! Plain `cargo test` runs some histories. All 20,000 in memory and a tenth of them over sled, with figures on the last lines:
//!
//! ```text
//! MINI_TECTONIC_HISTORIES=20000 cargo test --release -p metadata-service --lib non_interference -- --nocapture
//! ```
//!
//! A failure names its seed; `MINI_TECTONIC_SEED=<seed>` runs that history alone.

mod calls;
mod site;
mod steps;
mod tenant;

use std::collections::BTreeMap;
use std::fmt;

use self::site::{Actor, Site, Storage};
use self::steps::{Script, Shared};
use self::tenant::{Guesses, Tenant};
use crate::figures;

/// Histories that plain `cargo test` runs in memory, and over sled.
const HISTORIES: [u64; 2] = [60, 12];
/// Of so many histories in memory one is run over sled too.
const SLED_SHARE: u64 = 10;

/// What happened, so that a suite which tries nothing cannot pass for one that finds nothing.
#[derive(Debug, Clone, Default)]
struct Figures {
    histories: u64,
    /// Answers that bella got, each in three runs.
    answers: u64,
    /// Calls of anton's.
    others: u64,
    /// Anton's calls about what is bella's, and bella's about what was anton's.
    foreign: u64,
    restarts: u64,
    /// Bella's calls that were answered, and that were refused.
    calls: BTreeMap<&'static str, [u64; 2]>,
}

impl Figures {
    fn add(&mut self, other: &Self) {
        self.histories += other.histories;
        self.answers += other.answers;
        self.others += other.others;
        self.foreign += other.foreign;
        self.restarts += other.restarts;
        for (call, [answered, refused]) in &other.calls {
            let sum = self.calls.entry(call).or_default();
            *sum = [sum[0] + answered, sum[1] + refused];
        }
    }

    /// Whether every call was answered and refused, but those that a tenant is never refused, or never granted.
    fn all_happened(&self) -> bool {
        let happened = |(call, [answered, refused]): (&&str, &[u64; 2])| match *call {
            _foreign if call.starts_with("foreign ") => *refused > 0,
            "rotate" | "list tokens" | "stat" => *answered > 0,
            _other => *answered > 0 && *refused > 0,
        };
        self.calls.len() == steps::CALLS && self.calls.iter().all(happened) && self.foreign > 0 && self.restarts > 0
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { histories, answers, others, foreign, restarts, calls } = self;
        write!(f, "{histories} histories of two tenants, {answers} answers compared in three runs each, 0 differ; ")?;
        write!(f, "{others} calls of the other tenant, {foreign} calls about what is foreign, {restarts} restarts;")?;
        calls.iter().try_for_each(|(call, [answered, refused])| write!(f, " {call} {answered}+{refused}"))
    }
}

/// What bella saw in one run.
struct Seen {
    transcript: Vec<String>,
    figures: Figures,
}

async fn run(storage: Storage, seed: u64, script: &Script, guesses: &mut Guesses) -> Seen {
    let mut site = Site::open(storage, seed).await;
    let mut bella = Tenant::register(&site, Actor::Bella).await;
    let mut anton = None;
    let mut figures = Figures::default();
    for (at, slot) in script.slots.iter().enumerate() {
        for call in &slot.others {
            if anton.is_none() {
                anton = Some(Tenant::register(&site, Actor::Anton).await);
            }
            let anton = anton.as_mut().expect("just registered");
            anton.act(&site, call, Some(&bella), &mut Guesses::none(), at).await;
            figures.others += 1;
        }
        match &slot.step {
            steps::Step::Call(call) => {
                bella.act(&site, call, anton.as_ref(), guesses, at).await;
            }
            steps::Step::Shared(shared) => {
                figures.restarts += u64::from(matches!(shared, Shared::Restart));
                site.happen(shared).await;
            }
        }
        site.tick();
    }
    bella.look_at_everything(&site).await;
    site.close().await;
    figures.answers = bella.transcript.len() as u64;
    figures.foreign = bella.foreign + anton.as_ref().map_or(0, |anton| anton.foreign);
    figures.calls = bella.calls;
    Seen { transcript: bella.transcript, figures }
}

/// Runs one history three times. Panics with the first answer that differs.
fn history(storage: Storage, seed: u64) -> Figures {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let script = Script::draw(seed);
        let mut guesses = Guesses::recording();
        let with = run(storage, seed, &script, &mut guesses).await;
        guesses.repeat();
        for (what, other) in [("without", script.without()), ("with other", script.with_others(seed))] {
            let seen = run(storage, seed, &other, &mut guesses).await;
            for (at, (one, two)) in with.transcript.iter().zip(&seen.transcript).enumerate() {
                assert_eq!(one, two, "seed {seed}, answer {at}, {what} calls of the other tenant");
            }
            assert_eq!(with.transcript.len(), seen.transcript.len(), "seed {seed}");
        }
        Figures { histories: 1, ..with.figures }
    })
}

fn suite(name: &str, storage: Storage, histories: u64) {
    if let Some(seed) = figures::number("MINI_TECTONIC_SEED") {
        return figures::print(history(storage, seed));
    }
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let part = |first| {
        let mut sum = Figures::default();
        (first..histories).step_by(threads).for_each(|seed| sum.add(&history(storage, seed)));
        sum
    };
    let mut sum = Figures::default();
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads as u64).map(|first| scope.spawn(move || part(first))).collect();
        running.into_iter().for_each(|one| sum.add(&one.join().expect("every history holds")));
    });
    figures::print(format_args!("non-interference over {name}: {sum}"));
    assert!(sum.all_happened(), "the histories try everything");
}

#[test]
fn i9_a_tenants_view_is_a_function_of_its_own_actions_in_memory() {
    suite("the engine in memory", Storage::Memory, figures::number("MINI_TECTONIC_HISTORIES").unwrap_or(HISTORIES[0]));
}

#[test]
fn i9_a_tenants_view_is_a_function_of_its_own_actions_on_sled() {
    let asked = figures::number("MINI_TECTONIC_HISTORIES").map(|histories| histories.div_ceil(SLED_SHARE));
    suite("sled", Storage::Sled, asked.unwrap_or(HISTORIES[1]));
}

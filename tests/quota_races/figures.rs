//! What a run has counted.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::edge::Held;

/// Complaints that are kept in words.
const WORDS_MAX: usize = 20;

/// What became of an operation of a client's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    /// It was done.
    Done,
    /// The quota did not allow it.
    Refused,
    /// Another one of the race was first: its blob or upload is gone.
    TooLate,
    /// A service was away.
    Away,
}

/// Counted by all, all the time.
#[derive(Debug, Default)]
pub(crate) struct Figures(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    rounds: u64,
    kills: u64,
    deaths: BTreeMap<&'static str, u64>,
    operations: BTreeMap<(&'static str, Outcome), u64>,
    looks: u64,
    checks: u64,
    verdicts: u64,
    overshoot: Option<Held>,
    differences: u64,
    wrong_verdicts: u64,
    other: u64,
    words: Vec<String>,
}

impl Counts {
    fn say(&mut self, words: String) {
        if self.words.len() < WORDS_MAX {
            self.words.push(words);
        }
    }
}

impl Figures {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn round(&self) {
        self.counts().rounds += 1;
    }

    pub(crate) fn killed(&self) {
        self.counts().kills += 1;
    }

    pub(crate) fn died_at(&self, step: &'static str) {
        *self.counts().deaths.entry(step).or_default() += 1;
    }

    pub(crate) fn operation(&self, what: &'static str, outcome: Outcome) {
        *self.counts().operations.entry((what, outcome)).or_default() += 1;
    }

    /// Somebody looked at what the tenant holds; it was by so much too much.
    pub(crate) fn looked(&self, over: Held, words: impl FnOnce() -> String) {
        let mut counts = self.counts();
        counts.looks += 1;
        counts.overshoot = Some(counts.overshoot.map_or(over, |before| before.max(over)));
        if over != Held([0; 3]) {
            counts.say(words());
        }
    }

    /// The cluster checked itself, and found this to be wrong.
    pub(crate) fn checked(&self, differences: Vec<String>) {
        let mut counts = self.counts();
        counts.checks += 1;
        for words in differences {
            counts.differences += 1;
            counts.say(words);
        }
    }

    /// An upload was asked for at rest; what is wrong with the answer.
    pub(crate) fn judged(&self, wrong: Option<String>) {
        let mut counts = self.counts();
        counts.verdicts += 1;
        if let Some(words) = wrong {
            counts.wrong_verdicts += 1;
            counts.say(words);
        }
    }

    /// Something that nothing explains.
    pub(crate) fn other(&self, words: String) {
        let mut counts = self.counts();
        counts.other += 1;
        counts.say(words);
    }

    /// Whether nothing was wrong.
    pub(crate) fn is_sound(&self) -> bool {
        let counts = self.counts();
        let wrong = counts.differences + counts.wrong_verdicts + counts.other;
        wrong == 0 && counts.overshoot == Some(Held([0; 3]))
    }

    /// The steps at which nothing died.
    pub(crate) fn never_died_at(&self, steps: &[&'static str]) -> Vec<&'static str> {
        let counts = self.counts();
        steps.iter().copied().filter(|step| !counts.deaths.contains_key(step)).collect()
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.counts();
        for words in &counts.words {
            writeln!(f, "{words}")?;
        }
        for (step, deaths) in &counts.deaths {
            writeln!(f, "  {step:<24} {deaths:>5} deaths")?;
        }
        for ((what, outcome), count) in &counts.operations {
            writeln!(f, "  {what:<24} {count:>8} {outcome:?}")?;
        }
        let of = |wanted: Outcome| -> u64 {
            counts.operations.iter().filter(|((_, outcome), _)| *outcome == wanted).map(|(_, count)| count).sum()
        };
        let operations: u64 = counts.operations.values().sum();
        let at_steps: u64 = counts.deaths.values().sum();
        let Held([bytes, blobs, uploads]) = counts.overshoot.unwrap_or(Held([0; 3]));
        writeln!(
            f,
            "{} rounds, {} kills ({at_steps} at {} steps); {operations} operations of 64 clients: {} done, {} refused by the \
             quota, {} too late, {} while a service was away",
            counts.rounds,
            counts.kills + at_steps,
            counts.deaths.len(),
            of(Outcome::Done),
            of(Outcome::Refused),
            of(Outcome::TooLate),
            of(Outcome::Away),
        )?;
        writeln!(
            f,
            "{} looks at the usage, {} checks of the cluster, {} verdicts at the edge",
            counts.looks, counts.checks, counts.verdicts
        )?;
        write!(
            f,
            "overshoot {bytes} bytes, {blobs} blobs, {uploads} uploads; differences {}, wrong verdicts {}, other {}",
            counts.differences, counts.wrong_verdicts, counts.other
        )
    }
}

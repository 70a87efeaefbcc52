//! The figures of a run.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use proto::runtime::failpoint::NAMES;

use crate::ledger::{Figures, Ledger, Violation};

/// A restart is to be over within this time.
const READY_WITHIN: Duration = Duration::from_secs(5);

/// Counted by the driver.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Processes that died by SIGKILL.
    pub(crate) kills: u64,
    /// Deaths at each failpoint.
    pub(crate) hits: BTreeMap<&'static str, u64>,
    ready: Vec<Duration>,
}

impl Tally {
    /// A process was ready this long after its start.
    pub(crate) fn ready_after(&mut self, duration: Duration) {
        self.ready.push(duration);
    }

    /// A process died at a failpoint.
    pub(crate) fn hit(&mut self, name: &'static str) {
        self.kills += 1;
        *self.hits.entry(name).or_default() += 1;
    }

    /// Failpoints at which nothing ever died.
    pub(crate) fn never_hit(&self) -> Vec<&'static str> {
        NAMES.iter().copied().filter(|name| !self.hits.contains_key(name)).collect()
    }
}

/// What is printed in the end.
#[derive(Debug)]
pub(crate) struct Report<'a> {
    pub(crate) tally: &'a Tally,
    pub(crate) ledger: &'a Ledger,
    pub(crate) took: Duration,
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tally, ledger, took } = self;
        for name in NAMES {
            writeln!(f, "  {name:<24} {:>5} deaths", tally.hits.get(name).copied().unwrap_or(0))?;
        }
        let violations = ledger.violations();
        for (violation, what) in violations.iter().take(20) {
            writeln!(f, "{violation:?}: {what}")?;
        }
        let Figures { puts, deletes, undeletes, settled, reads } = ledger.figures();
        let at_failpoints: u64 = tally.hits.values().sum();
        let longest = tally.ready.iter().max().copied().unwrap_or_default();
        let late = tally.ready.iter().filter(|ready| **ready > READY_WITHIN).count();
        let count = |of: Violation| violations.iter().filter(|(violation, _)| *violation == of).count();
        writeln!(
            f,
            "kills {} ({at_failpoints} at {} failpoints, the rest at random instants) in {took:.0?}",
            tally.kills,
            tally.hits.len()
        )?;
        writeln!(
            f,
            "acked {puts} puts, {deletes} deletes, {undeletes} undeletes; {settled} open outcomes settled; {reads} blobs read back"
        )?;
        writeln!(
            f,
            "longest time to ready {longest:.1?} of {} restarts, {late} over {READY_WITHIN:?}",
            tally.ready.len()
        )?;
        write!(
            f,
            "lost {}, partial {}, phantom {}, other {}",
            count(Violation::Lost),
            count(Violation::Partial),
            count(Violation::Phantom),
            count(Violation::Other)
        )
    }
}

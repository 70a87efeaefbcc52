//! What schedules did.

use std::fmt;

/// What happened, so that a suite which tries nothing cannot pass for one that finds nothing.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Figures {
    pub(super) schedules: u64,
    pub(super) steps: u64,
    pub(super) commits: u64,
    pub(super) aborts: u64,
    pub(super) expiries: u64,
    pub(super) deletes: u64,
    pub(super) undeletes: u64,
    pub(super) reads: u64,
    pub(super) passes: u64,
    pub(super) broken_passes: u64,
    pub(super) sweeps: u64,
    pub(super) orphans: u64,
    pub(super) litter: u64,
    pub(super) imports: u64,
    pub(super) decisions: u64,
    pub(super) restarts: u64,
    pub(super) jumps: u64,
    pub(super) deletions: u64,
}

impl Figures {
    /// Each with its name, in the order in which they are told.
    fn named(&mut self) -> [(&'static str, &mut u64); 18] {
        [
            ("schedules", &mut self.schedules),
            ("steps", &mut self.steps),
            ("commits", &mut self.commits),
            ("aborts", &mut self.aborts),
            ("expiries", &mut self.expiries),
            ("deletes", &mut self.deletes),
            ("undeletes", &mut self.undeletes),
            ("reads", &mut self.reads),
            ("passes of collectors and of upload sweeps", &mut self.passes),
            ("passes cut off", &mut self.broken_passes),
            ("sweeps of a node for orphans", &mut self.sweeps),
            ("orphans condemned", &mut self.orphans),
            ("files of broken writes", &mut self.litter),
            ("imports of older metadata", &mut self.imports),
            ("decisions", &mut self.decisions),
            ("restarts", &mut self.restarts),
            ("clock jumps", &mut self.jumps),
            ("chunks deleted", &mut self.deletions),
        ]
    }

    pub(super) fn add(mut self, mut other: Self) -> Self {
        for ((_, sum), (_, more)) in self.named().into_iter().zip(other.named()) {
            *sum += *more;
        }
        self
    }

    pub(super) fn all_happened(mut self) -> bool {
        self.named().into_iter().all(|(_, count)| *count > 0)
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut figures = *self;
        let told = figures.named().map(|(name, count)| format!("{count} {name}"));
        write!(f, "GC safety: {}; 0 live chunks deleted, 0 left behind", told.join(", "))
    }
}

//! The steps of a schedule, and how often each is drawn.

use std::time::Duration;

use super::world::Dice;

/// Which upload or blob, taken modulo how many there are.
pub(super) type Which = u64;

/// See the module.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Call(Call),
    /// Time passes, by both clocks.
    Wait(Duration),
    /// The wall clock is set, by so many minutes.
    Jump(i64),
    /// A pass of the upload sweeper.
    Sweep,
    /// A pass of the collector.
    Collect,
    /// The process dies in the middle of a collector's pass, and starts again.
    DieCollecting(u64),
    /// The same in between two passes.
    Restart,
    /// Passes of two collectors and of both sweeps, and calls, all at once.
    Together(Vec<Call>),
    /// A node goes away or comes back.
    Toggle(u64),
    /// Deletes that were on their way arrive.
    Deliver,
    /// A pass of the sweep for orphans; an operator may have asked for it, and accept whatever it finds.
    SweepOrphans {
        accepted: bool,
    },
    /// The process dies while it lists a node, and starts again.
    DieSweeping(u64),
    /// A write that was broken off leaves files behind.
    Litter,
    /// The metadata are exported.
    Export,
    /// They are lost, and the last export takes their place; without one, one that is taken now, and then these calls are
    /// answered before it happens.
    Import(Vec<Call>),
    /// The operator decides about the time that the import lost.
    Decide {
        keep: bool,
    },
}

/// What clients do.
#[derive(Debug, Clone, Copy)]
pub(super) enum Call {
    Start(Option<u64>),
    Allocate(Which),
    /// Writes some of the blocks that are planned, also of uploads that are over.
    Write(Which),
    /// Writes what is missing and commits.
    Commit(Which),
    Abort(Which),
    Delete(Which),
    Undelete(Which),
    /// Repeats an older delete or undelete under its request id.
    Repeat(Which),
    /// Gets permission to read a blob.
    Read(Which),
    Quota(u64),
}

impl Step {
    pub(super) fn draw(dice: &Dice) -> Self {
        match dice.below(50) {
            0..=19 => Self::Call(Call::draw(dice)),
            20..=22 => Self::Wait(Duration::from_secs(60 * dice.below(20))),
            23..=24 => Self::Wait(Duration::from_secs(60 * dice.below(90))),
            25 => Self::Wait(Duration::from_secs(3600 * dice.below(30))),
            26 => Self::Jump(dice.below(480) as i64 - 240),
            27..=28 => Self::Sweep,
            29..=33 => Self::Collect,
            34 => Self::DieCollecting(dice.below(8)),
            35 => Self::Restart,
            36..=37 => Self::Together((0..dice.below(5)).map(|_| Call::draw(dice)).collect()),
            38 => Self::Toggle(dice.below(3)),
            39 => Self::Deliver,
            40..=42 => Self::SweepOrphans { accepted: dice.one_in(4) },
            43 => Self::DieSweeping(dice.below(8)),
            44 => Self::Litter,
            45..=46 => Self::Export,
            47 => Self::Import((0..1 + dice.below(6)).map(|_| Call::draw(dice)).collect()),
            _ => Self::Decide { keep: dice.one_in(2) },
        }
    }
}

impl Call {
    fn draw(dice: &Dice) -> Self {
        let which = dice.below(1_000);
        match dice.below(24) {
            0..=3 => Self::Start(Some(dice.below(400))),
            4..=5 => Self::Start(None),
            6..=7 => Self::Allocate(which),
            8..=9 => Self::Write(which),
            10..=13 => Self::Commit(which),
            14 => Self::Abort(which),
            15..=17 => Self::Delete(which),
            18..=19 => Self::Undelete(which),
            20 => Self::Repeat(which),
            21..=22 => Self::Read(which),
            _ => Self::Quota(dice.below(6_000)),
        }
    }
}

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
    /// Passes of two collectors and of the upload sweeper, and calls, all at once.
    Together(Vec<Call>),
    /// A node goes away or comes back.
    Toggle(u64),
    /// Deletes that were on their way arrive.
    Deliver,
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
        match dice.below(40) {
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
            _ => Self::Deliver,
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

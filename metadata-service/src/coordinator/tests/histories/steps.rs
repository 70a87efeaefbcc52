//! The steps of a history, and how often each is drawn.

use proto::entropy::{Entropy as _, SeededEntropy};

/// Names that blobs get; some begin with others.
pub(super) const NAMES: [&str; 5] = ["", "a", "a/b", "ab", "a\0b"];

/// Draws numbers, the same for the same seed.
#[derive(Debug)]
pub(super) struct Dice(SeededEntropy);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(SeededEntropy::new(seed ^ 0x6d6f_6465_6c21))
    }

    pub(super) fn below(&self, bound: u64) -> u64 {
        let mut random = [0; 8];
        self.0.fill(&mut random);
        u64::from_be_bytes(random) % bound.max(1)
    }

    fn index(&self, bound: usize) -> usize {
        usize::try_from(self.below(bound as u64)).expect("it is below a size")
    }

    fn one_in(&self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn maybe(&self, n: u64, bound: u64) -> Option<u64> {
        let drawn = self.below(bound);
        self.one_in(n).then_some(drawn)
    }
}

/// Which upload or blob, counted from the youngest, modulo how many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Which {
    pub(super) back: usize,
    /// Only those count that the call is for, if there are any.
    pub(super) fitting: bool,
}

/// A request id, one of few, so that they are used again; `None` for none.
pub(super) type Request = Option<u64>;

/// What receipts an allocation brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Receipts {
    /// Of the first so many blocks, those that were given before too.
    First(usize),
    /// Of the last block.
    Last,
    /// One with a size that the block cannot have.
    WrongSize,
    /// One for a block of another upload.
    Foreign(Which),
}

/// How a commit differs from what its upload holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flaw {
    None,
    /// The receipt of a block is left out.
    Missing(usize),
    /// The size is one byte off.
    Size,
    /// The SHA-256 is another.
    Sum,
}

/// See the module.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    Start {
        declared: Option<u64>,
        name: usize,
        request: Request,
    },
    Allocate {
        which: Which,
        back: u64,
        ahead: u64,
        count: u32,
        receipts: Receipts,
    },
    Commit {
        which: Which,
        last: u64,
        blocks: usize,
        flaw: Flaw,
    },
    Abort {
        which: Which,
    },
    Expire {
        which: Which,
    },
    Delete {
        which: Which,
        request: Request,
    },
    Undelete {
        which: Which,
        request: Request,
    },
    /// The next step about one of the garbage rows.
    Collect {
        row: usize,
        due: bool,
    },
    /// The last look at the first chunks, and the end of the rows of those that may go.
    Chunks {
        count: usize,
    },
    Hasten,
    Forget,
    Wait {
        minutes: u64,
    },
    /// Time passes until something is over or due, or until just before.
    WaitFor {
        moment: usize,
        just_before: bool,
    },
    Quota {
        max_bytes: Option<u64>,
        max_blobs: Option<u64>,
        max_blob_bytes: Option<u64>,
        max_open_uploads: Option<u64>,
    },
    Register,
    DropTenant,
    Rotate,
    List {
        size: usize,
        name: usize,
    },
    ListDeleted {
        size: usize,
    },
    Layout {
        which: Which,
        offset: u64,
        limit: u64,
    },
    Look {
        which: Which,
    },
}

/// More than a step of the collector takes apart.
const DECLARED_MAX: u64 = 420;

impl Step {
    pub(super) fn draw(dice: &Dice) -> Self {
        let which = Which { back: dice.index(8), fitting: !dice.one_in(4) };
        let request = dice.maybe(3, 4);
        match dice.below(100) {
            0..=13 => Self::start(dice, request),
            14..=24 => Self::allocate(dice, which),
            25..=40 => Self::commit(dice, which),
            41..=43 => Self::Abort { which },
            44..=46 => Self::Expire { which },
            47..=53 => Self::Delete { which, request },
            54..=57 => Self::Undelete { which, request },
            58..=70 => Self::Collect { row: dice.index(16), due: !dice.one_in(4) },
            71..=73 => Self::Chunks { count: dice.index(65) },
            74..=76 => Self::Hasten,
            77 => Self::Forget,
            78..=79 => Self::Wait { minutes: dice.below(50) },
            80..=81 => Self::WaitFor { moment: dice.index(16), just_before: dice.one_in(2) },
            82..=83 => Self::Wait { minutes: 60 * (1 + dice.below(if dice.one_in(2) { 3 } else { 26 })) },
            84..=86 => Self::Quota {
                max_bytes: dice.maybe(2, if dice.one_in(2) { 30 } else { 900 }),
                max_blobs: dice.maybe(3, 9),
                max_blob_bytes: dice.maybe(3, 120),
                max_open_uploads: dice.maybe(3, 5),
            },
            87 => Self::Register,
            88 => Self::DropTenant,
            89 => Self::Rotate,
            90..=91 => Self::List { size: 1 + dice.index(6), name: dice.index(NAMES.len()) },
            92..=93 => Self::ListDeleted { size: 1 + dice.index(4) },
            94..=96 => Self::Layout { which, offset: dice.below(60), limit: dice.below(90) },
            _ => Self::Look { which },
        }
    }

    fn start(dice: &Dice, request: Request) -> Self {
        let declared = match dice.below(8) {
            0..=2 => None,
            3 => Some(dice.below(DECLARED_MAX)),
            _ => Some(dice.below(60)),
        };
        Self::Start { declared, name: dice.index(NAMES.len()), request }
    }

    fn allocate(dice: &Dice, which: Which) -> Self {
        let receipts = match dice.below(12) {
            0 => Receipts::WrongSize,
            1 => Receipts::Foreign(Which { back: dice.index(8), fitting: false }),
            2 => Receipts::Last,
            _ => Receipts::First(dice.index(6)),
        };
        let (back, ahead) = (dice.maybe(4, 3).unwrap_or(0), dice.maybe(10, 3).unwrap_or(0));
        let count = u32::try_from(dice.below(17)).expect("it is small");
        Self::Allocate { which, back, ahead, count, receipts }
    }

    fn commit(dice: &Dice, which: Which) -> Self {
        let flaw = match dice.below(12) {
            0 => Flaw::Missing(dice.index(4)),
            1 => Flaw::Size,
            2 => Flaw::Sum,
            _ => Flaw::None,
        };
        let blocks = if dice.one_in(3) { dice.index(5) } else { usize::MAX };
        Self::Commit { which, last: 1 + dice.below(super::BLOCK), blocks, flaw }
    }
}

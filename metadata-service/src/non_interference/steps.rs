//! What a history is made of, and how often each is drawn.

use proto::entropy::{Entropy as _, SeededEntropy};

/// Kinds of calls by which a tenant is counted.
pub(super) const CALLS: usize = 26;
/// Slots of a history.
const SLOTS: usize = 60;
/// Names that blobs get; some begin with others.
pub(super) const NAMES: [&str; 4] = ["", "a", "a/b", "ab"];

/// Draws numbers, the same for the same seed.
struct Dice(SeededEntropy);

impl Dice {
    fn below(&self, bound: u64) -> u64 {
        let mut random = [0; 8];
        self.0.fill(&mut random);
        u64::from_be_bytes(random) % bound.max(1)
    }

    fn index(&self) -> usize {
        usize::try_from(self.below(1_000)).expect("it is small")
    }

    /// One of few request ids, so that they are used again; mostly none.
    fn request(&self) -> String {
        match self.below(12) {
            few @ 0..=3 => format!("r{few}"),
            _none => String::new(),
        }
    }
}

/// Which of those that a tenant knows, modulo how many there are.
pub(super) type Which = usize;

/// A call of a tenant's, or of the operator's about it.
#[derive(Debug, Clone)]
pub(super) enum Call {
    Start {
        declared: Option<u64>,
        name: usize,
        request: String,
    },
    Allocate {
        which: Which,
        count: u32,
    },
    /// With receipts of all blocks but so many, and of a size that is so much off.
    Commit {
        which: Which,
        without: usize,
        off: u64,
    },
    Abort(Which),
    GetUpload(Which),
    GetBlob(Which),
    Layout {
        which: Which,
        offset: u64,
    },
    List {
        prefix: usize,
        size: i32,
        deleted: bool,
        /// From where an earlier page ended.
        page: Option<Which>,
    },
    Delete {
        which: Which,
        request: String,
    },
    Undelete {
        which: Which,
        request: String,
    },
    Stat,
    Rotate {
        request: String,
    },
    CreateToken {
        scopes: Vec<i32>,
        hours: Option<i64>,
        request: String,
    },
    Revoke(Which),
    ListTokens,
    /// The tenant goes on with another of its tokens.
    Use(Which),
    Quota {
        bytes: u64,
        blobs: u64,
    },
    /// A call about what is another's.
    Foreign(Foreign, Which),
}

/// Calls about what is another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Foreign {
    GetBlob,
    Layout,
    Delete,
    Undelete,
    Allocate,
    Commit,
    Abort,
    GetUpload,
    Revoke,
    Page,
    Tenant,
}

const FOREIGN: [Foreign; 14] = [
    Foreign::GetBlob,
    Foreign::Layout,
    Foreign::Delete,
    Foreign::Undelete,
    Foreign::Allocate,
    Foreign::Commit,
    Foreign::Abort,
    Foreign::GetUpload,
    Foreign::Revoke,
    Foreign::Page,
    Foreign::Page,
    Foreign::Page,
    Foreign::Page,
    Foreign::Tenant,
];

/// What happens to everybody.
#[derive(Debug, Clone)]
pub(super) enum Shared {
    /// So many minutes pass.
    Wait(u64),
    /// The wall clock is set, by so many minutes.
    Jump(i64),
    Sweep,
    Collect,
    Restart,
}

/// What a slot is for.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// Of bella's.
    Call(Call),
    Shared(Shared),
}

/// One of bella's calls, or what happens to everybody, and what the other tenant does before it.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    pub(super) others: Vec<Call>,
    pub(super) step: Step,
}

/// A history.
#[derive(Debug, Clone)]
pub(super) struct Script {
    pub(super) slots: Vec<Slot>,
}

fn others(dice: &Dice) -> Vec<Call> {
    (0..dice.below(4)).map(|_| Call::draw(dice)).collect()
}

impl Script {
    pub(super) fn draw(seed: u64) -> Self {
        let (own, other) = (Dice(SeededEntropy::new(seed)), Dice(SeededEntropy::new(!seed)));
        let slots = (0..SLOTS).map(|_| Slot { others: others(&other), step: Step::draw(&own) });
        Self { slots: slots.collect() }
    }

    /// The same with other calls of the other tenant.
    pub(super) fn with_others(&self, seed: u64) -> Self {
        let other = Dice(SeededEntropy::new(seed ^ 0x616e_746f_6e00));
        let slots = self.slots.iter().map(|slot| Slot { others: others(&other), step: slot.step.clone() });
        Self { slots: slots.collect() }
    }

    /// The same without the other tenant.
    pub(super) fn without(&self) -> Self {
        let slots = self.slots.iter().map(|slot| Slot { others: Vec::new(), step: slot.step.clone() });
        Self { slots: slots.collect() }
    }
}

impl Step {
    fn draw(dice: &Dice) -> Self {
        match dice.below(24) {
            0 => Self::Shared(Shared::Wait(dice.below(20))),
            1 => Self::Shared(Shared::Wait(60 * dice.below(30))),
            2 => Self::Shared(Shared::Sweep),
            3 => Self::Shared(Shared::Collect),
            4 => Self::Shared(Shared::Restart),
            5 if dice.below(3) == 0 => Self::Shared(Shared::Jump(i64::try_from(dice.below(240)).unwrap_or(0) - 120)),
            _most => Self::Call(Call::draw(dice)),
        }
    }
}

impl Call {
    fn draw(dice: &Dice) -> Self {
        let (which, request) = (dice.index(), dice.request());
        match dice.below(40) {
            0..=6 => {
                let declared = [Some(dice.below(60)), None][usize::from(dice.below(4) == 0)];
                Self::Start { declared, name: dice.index() % NAMES.len(), request }
            }
            7..=8 => Self::Allocate { which, count: u32::try_from(dice.below(5)).unwrap_or(0) },
            9..=15 => {
                Self::Commit { which, without: usize::from(dice.below(5) == 0), off: u64::from(dice.below(8) == 0) }
            }
            16 => Self::Abort(which),
            17 => Self::GetUpload(which),
            18..=19 => Self::GetBlob(which),
            20 => Self::Layout { which, offset: dice.below(70) },
            21..=23 => Self::list(dice),
            24..=25 => Self::Delete { which, request },
            26..=27 => Self::Undelete { which, request },
            28 => Self::Stat,
            29 => Self::Rotate { request },
            30 => {
                let scopes = (0..dice.below(3)).map(|_| i32::try_from(1 + dice.below(4)).unwrap_or(1)).collect();
                let hours = (dice.below(2) == 0).then(|| i64::try_from(1 + dice.below(40)).unwrap_or(1));
                Self::CreateToken { scopes, hours, request }
            }
            31 => Self::Revoke(which),
            32 => Self::ListTokens,
            33 => Self::Use(which),
            34 => Self::Quota { bytes: dice.below(400), blobs: dice.below(8) },
            _foreign => Self::Foreign(FOREIGN[dice.index() % FOREIGN.len()], which),
        }
    }

    fn list(dice: &Dice) -> Self {
        let deleted = dice.below(3) == 0;
        let prefix = if deleted { 0 } else { dice.index() % NAMES.len() };
        let size = [0, 1, 1, 2][dice.index() % 4];
        Self::List { prefix, size, deleted, page: (dice.below(2) == 0).then(|| dice.index()) }
    }
}

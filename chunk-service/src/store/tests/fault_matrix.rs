//! Every call of the disk x every errno x every operation, once and from then on: what a cell must come to.
//!
//! An operation runs without faults first, to count its calls; then each single call of it fails in a world of its own.
//! Checked in every cell: the error is the one that the kind of call and the errno ask for; the latch is closed exactly
//! when a sync failed, or a change of the disk failed for a reason that does not pass by itself; what was answered as
//! durable is there after power is lost; what was there before reads back; nothing panics; what was refused works again
//! when the fault is over, unless the latch is closed.
//!
//! Long form (the short one fails single calls only, with one errno of each kind), with its figures:
//! `MINI_TECTONIC_LONG=1 cargo test --release -p chunk-service --lib fault_matrix -- --nocapture`

use std::collections::BTreeMap;
use std::fmt;

use proto::error::{Classify as _, Reason};
use rustix::io::Errno;

use crate::error::ChunkError;
use crate::store::testing::faulty_disk::Call;
use crate::store::testing::figures::{self, Context};
use crate::store::testing::world::{ALL, Kind, World, blob, chk, claims, pattern, place};
use crate::store::verify::Condition;
use crate::store::writing::WriteStatus;

const ERRNOS: [Errno; 10] = [
    Errno::NOSPC,
    Errno::DQUOT,
    Errno::MFILE,
    Errno::NFILE,
    Errno::ACCESS,
    Errno::IO,
    Errno::ROFS,
    Errno::INTR,
    Errno::NOMEM,
    Errno::AGAIN,
];
/// The errnos of the short form: one of each kind.
const SHORT: [Errno; 3] = [Errno::NOSPC, Errno::IO, Errno::NOMEM];

/// With every chunk but the large ones in the journal.
const JOURNALED: Kind = Kind { journal_below: 128 * 1024, ..Kind::JOURNALED };

/// What is done while a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Operation {
    Put,
    /// So large that room is reserved, and several batches are written.
    PutLarge,
    Resume,
    Repeat,
    /// Over what a crash left.
    PutOverLeftover,
    /// Over a whole chunk that has changed.
    PutOverChanged,
    Query,
    Read,
    /// A read that has its checksum file rebuilt.
    Heal,
    Delete,
    Space,
    /// A verification of a sound chunk.
    Verify,
    /// A verification that has its checksum file written again.
    Repair,
    /// A listing of the folder, with what the checksum files say.
    List,
}

impl Operation {
    const ALL: [Self; 14] = [
        Self::Put,
        Self::PutLarge,
        Self::Resume,
        Self::Repeat,
        Self::PutOverLeftover,
        Self::PutOverChanged,
        Self::Query,
        Self::Read,
        Self::Heal,
        Self::Delete,
        Self::Space,
        Self::Verify,
        Self::Repair,
        Self::List,
    ];

    fn bytes(self) -> Vec<u8> {
        pattern(if self == Self::PutLarge { 1_100_000 } else { 70_000 }, 1)
    }

    /// A world in which it can begin.
    async fn world(self, kind: Kind) -> World {
        let (world, bytes) = (World::of(kind), self.bytes());
        match self {
            Self::Put | Self::PutLarge | Self::Space => {}
            Self::Resume => world.put_part(place(1), 0, &bytes[..30_000]).await.unwrap(),
            Self::PutOverLeftover | Self::PutOverChanged => {
                world.put(place(1), &bytes).await.unwrap();
                let torn = if self == Self::PutOverChanged { blob(&place(1)) } else { chk(&place(1)) };
                world.disk.damage(&torn, |content| content.truncate(9));
            }
            Self::Repeat | Self::Query => {
                world.put(place(1), &bytes).await.unwrap();
            }
            Self::Read | Self::Heal | Self::Delete | Self::Verify | Self::Repair | Self::List => {
                world.put_sealed(place(1), &bytes).await;
                if [Self::Heal, Self::Repair].contains(&self) {
                    world.disk.damage(&chk(&place(1)), |content| content.truncate(9));
                }
            }
        }
        world.put_sealed(place(2), b"another chunk").await;
        world
    }

    /// Runs it. Returns whether it promised that the chunk is durable.
    async fn run(self, world: &World) -> Result<bool, ChunkError> {
        let bytes = self.bytes();
        match self {
            Self::Put | Self::PutLarge | Self::Repeat | Self::PutOverLeftover | Self::PutOverChanged => {
                world.put(place(1), &bytes).await.map(|_receipt| true)
            }
            Self::Resume => world.put_framed(place(1), &bytes, 30_000, 10_000).await.map(|_receipt| true),
            Self::Query => Ok(matches!(world.store.write_status(place(1)).await?, WriteStatus::Complete(_))),
            Self::Read | Self::Heal => {
                let read = world.get(place(1), &bytes, ALL).await?;
                assert!(read == bytes, "I2: wrong bytes");
                Ok(false)
            }
            Self::Delete => world.store.delete(place(1).chunk).await.map(|()| false),
            Self::Space => world.store.space().await.map(|_space| false),
            Self::Verify | Self::Repair => {
                let found = world.store.verify(place(1), claims(&bytes), self == Self::Repair).await?.condition;
                assert!(
                    !matches!(found, Condition::Corrupt | Condition::Missing),
                    "a fault is no lost data: {found:?}"
                );
                Ok(false)
            }
            Self::List => list(world).await.map(|()| false),
        }
    }

    /// What a client does after it was refused: a write that failed is gone, and begins anew.
    fn again(self) -> Self {
        if self == Self::Resume { Self::Put } else { self }
    }
}

/// A listing that ends without an error is complete.
async fn list(world: &World) -> Result<(), ChunkError> {
    let (mut listing, mut chunks) = (world.store.list(true).await?, Vec::new());
    loop {
        let (rest, page) = world.store.next_page(listing).await?;
        chunks.extend(page.chunks.into_iter().map(|files| files.chunk));
        if page.complete {
            break;
        }
        listing = rest;
    }
    assert!([1, 2].iter().all(|number| chunks.contains(&place(*number).chunk)), "I7: {chunks:?}");
    Ok(())
}

/// What a call does to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    Looks,
    Changes,
    Syncs,
}

fn effect(call: Call) -> Effect {
    match call {
        Call::Open | Call::List | Call::Space | Call::Read | Call::Size | Call::DropCache => Effect::Looks,
        Call::Create | Call::Unlink | Call::Rename | Call::Quarantine | Call::Write | Call::Reserve => Effect::Changes,
        Call::Sync | Call::SyncFolder | Call::SyncAll => Effect::Syncs,
    }
}

/// Reasons that pass by themselves, or are no fault of the disk.
fn passing(errno: Errno) -> Option<Reason> {
    match errno {
        Errno::NOSPC | Errno::DQUOT => Some(Reason::NodeOutOfSpace),
        Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::AGAIN => Some(Reason::Overloaded),
        Errno::ACCESS => Some(Reason::Internal),
        _a_fault_of_the_disk => None,
    }
}

#[derive(Debug, Clone, Copy)]
struct Cell {
    operation: Operation,
    call: Call,
    nth: u64,
    errno: Errno,
    /// The call and all later ones of its kind.
    for_ever: bool,
}

impl Cell {
    async fn check(self, kind: Kind) -> Option<Reason> {
        let _context = Context(self);
        let world = self.operation.world(kind).await;
        if self.for_ever {
            world.faults.fail_from(self.call, self.nth, self.errno);
        } else {
            world.faults.fail(self.call, self.nth, self.errno);
        }
        let ran = self.operation.run(&world).await.map_err(|error| error.reason());
        let (mut promised, outcome) = (ran == Ok(true), ran.err());
        world.faults.heal();
        self.check_outcome(outcome, kind.journal_below > 0);
        let closed = world.store.latch().reason().is_some();
        assert_eq!(closed, self.closes(), "the latch; {outcome:?}");
        assert_eq!(world.get(place(2), b"another chunk", ALL).await.unwrap(), b"another chunk");
        assert!(!world.broken.is_cancelled());
        if closed {
            assert!(matches!(world.put(place(3), b"more").await, Err(ChunkError::ReadOnly(_))));
        } else {
            world.put(place(3), b"more").await.unwrap();
            promised |= self.operation.again().run(&world).await.unwrap();
        }
        if promised {
            world.oracle.seal(place(1), &self.operation.bytes());
            let world = world.crash(&mut |_below| 0).await;
            let read = world.get(place(1), &self.operation.bytes(), ALL).await;
            assert!(read.is_ok_and(|read| read == self.operation.bytes()), "I15: a receipt without durability");
        }
        outcome
    }

    fn closes(self) -> bool {
        match effect(self.call) {
            Effect::Looks => false,
            Effect::Changes => passing(self.errno).is_none(),
            Effect::Syncs => true,
        }
    }

    fn check_outcome(self, outcome: Option<Reason>, journaled: bool) {
        if matches!(self.operation, Operation::Read | Operation::Heal) {
            let bearable = matches!(outcome, None | Some(Reason::ChunkCorrupt | Reason::Overloaded));
            assert!(bearable && (outcome.is_none() || effect(self.call) == Effect::Looks), "{outcome:?}");
            let passes = passing(self.errno) == Some(Reason::Overloaded);
            assert!(!passes || outcome != Some(Reason::ChunkCorrupt), "what passes by itself is no damage");
            return;
        }
        if matches!(self.operation, Operation::Verify | Operation::Repair) {
            // Whatever stays is a finding.
            assert!(matches!(outcome, None | Some(Reason::Overloaded)), "{outcome:?}");
            return;
        }
        match effect(self.call) {
            Effect::Syncs => assert_eq!(outcome, Some(Reason::ReadOnly)),
            // A journal that finds no room goes on in its other half.
            Effect::Changes if outcome.is_none() => {
                assert!(journaled && self.call == Call::Write && passing(self.errno) == Some(Reason::NodeOutOfSpace));
            }
            Effect::Changes => assert_eq!(outcome, Some(passing(self.errno).unwrap_or(Reason::ReadOnly))),
            Effect::Looks if self.call == Call::Open => {
                let expected = passing(self.errno).filter(|reason| *reason == Reason::Overloaded);
                assert_eq!(outcome, Some(expected.unwrap_or(Reason::Internal)));
            }
            Effect::Looks => {
                assert!(matches!(outcome, None | Some(Reason::Internal | Reason::Overloaded)), "{outcome:?}")
            }
        }
    }
}

/// What the cells came to.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    cells: u64,
    closed: u64,
    outcomes: BTreeMap<&'static str, u64>,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cells, closed, outcomes } = self;
        write!(f, "I/O errors: {cells} cells of call x errno x operation, {outcomes:?}, {closed} closed the latch; ")?;
        write!(f, "0 answers after a failed sync, 0 panics")
    }
}

/// Runs the suite with stores of this kind; panics when one breaks a promise.
pub(crate) async fn run(long: bool, kind: Kind) -> Figures {
    let mut figures = Figures::default();
    for operation in Operation::ALL {
        for (call, count) in calls(operation, kind).await {
            for errno in ERRNOS {
                for (nth, for_ever) in (0..count).flat_map(|nth| [(nth, false), (nth, true)]) {
                    if long || (!for_ever && SHORT.contains(&errno)) {
                        let cell = Cell { operation, call, nth, errno, for_ever };
                        figures.add(cell, cell.check(kind).await);
                    }
                }
            }
        }
    }
    figures
}

/// The calls that an operation makes.
async fn calls(operation: Operation, kind: Kind) -> Vec<(Call, u64)> {
    let world = operation.world(kind).await;
    let before = Call::ALL.map(|call| world.faults.made(call));
    operation.run(&world).await.unwrap();
    let made = Call::ALL.into_iter().zip(before).map(|(call, before)| (call, world.faults.made(call) - before));
    made.filter(|(_call, count)| *count > 0).collect()
}

impl Figures {
    fn add(&mut self, cell: Cell, outcome: Option<Reason>) {
        self.cells += 1;
        self.closed += u64::from(cell.closes());
        *self.outcomes.entry(outcome.map_or("OK", Reason::as_str)).or_default() += 1;
    }
}

#[tokio::test]
async fn whatever_call_fails_the_answer_and_the_latch_are_what_they_should_be() {
    for kind in [Kind::default(), JOURNALED] {
        let figures = run(figures::long(), kind).await;
        figures::print(format_args!("{figures} ({kind:?})"));
        assert!(figures.cells > 100 && figures.outcomes.len() >= 4, "{figures}");
    }
}

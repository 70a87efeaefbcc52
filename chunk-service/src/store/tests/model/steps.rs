//! What may happen to a store.

use proptest::prelude::*;
use proptest::sample::Index;
use rustix::io::Errno;

use crate::store::testing::faulty_disk::Call;

/// Chunks, and sizes of the contents that a writer may try for each.
pub(super) const CHUNKS: u64 = 3;
pub(super) const CONTENTS: [usize; 3] = [0, 5, 66_000];

/// One of the two files of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    Blob,
    Chk,
}

#[derive(Debug, Clone)]
pub(super) enum Damage {
    Flip(Index),
    Cut(Index),
    Extend,
    Lose,
}

/// Where files come from that get into the places of a chunk's own.
#[derive(Debug, Clone, Copy)]
pub(super) enum Exchange {
    /// Both files with those of the next chunk.
    Pairs,
    Chks,
    Blobs,
    /// Both files are those of an older generation, of this content.
    Stale(usize),
}

/// What a client does.
#[derive(Debug, Clone)]
pub(super) enum Operation {
    Put { chunk: u64, content: usize, frame: usize },
    Part { chunk: u64, content: usize, length: Index },
    Resume { chunk: u64 },
    Status { chunk: u64 },
    Get { chunk: u64, offset: Index, limit: u64 },
    Delete { chunk: u64 },
}

/// How a process ends before the next one starts.
#[derive(Debug, Clone)]
pub(super) enum End {
    /// In good order.
    Stop,
    /// It is killed.
    Kill,
    /// Power is lost.
    Crash { choices: Vec<u8> },
}

#[derive(Debug, Clone)]
pub(super) enum Step {
    Do(Operation),
    /// The metadata commits the chunk.
    Seal {
        chunk: u64,
    },
    End(End),
    Damage {
        chunk: u64,
        which: Which,
        damage: Damage,
    },
    Exchange {
        chunk: u64,
        exchange: Exchange,
    },
    /// A call of the next operation fails.
    Fault {
        call: Call,
        nth: u64,
        errno: Errno,
    },
    DiskFull(bool),
    MetadataDown(bool),
    /// What the journal holds becomes durable where it belongs.
    Settle,
}

pub(super) fn any_steps() -> impl Strategy<Value = Vec<Step>> {
    proptest::collection::vec(any_step(), 1..30)
}

fn chunk() -> std::ops::Range<u64> {
    0..CHUNKS
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        19 => any_operation().prop_map(Step::Do),
        3 => chunk().prop_map(|chunk| Step::Seal { chunk }),
        5 => any_end().prop_map(Step::End),
        5 => any_trouble(),
        1 => any::<bool>().prop_map(Step::DiskFull),
        1 => any::<bool>().prop_map(Step::MetadataDown),
        2 => Just(Step::Settle),
    ]
}

fn any_operation() -> impl Strategy<Value = Operation> {
    let content = || 0..CONTENTS.len();
    prop_oneof![
        6 => (chunk(), content(), 1_000usize..100_000)
            .prop_map(|(chunk, content, frame)| Operation::Put { chunk, content, frame }),
        3 => (chunk(), content(), any::<Index>())
            .prop_map(|(chunk, content, length)| Operation::Part { chunk, content, length }),
        3 => chunk().prop_map(|chunk| Operation::Resume { chunk }),
        3 => chunk().prop_map(|chunk| Operation::Status { chunk }),
        3 => (chunk(), any::<Index>(), 1u64..100_000)
            .prop_map(|(chunk, offset, limit)| Operation::Get { chunk, offset, limit }),
        1 => chunk().prop_map(|chunk| Operation::Delete { chunk }),
    ]
}

fn any_end() -> impl Strategy<Value = End> {
    prop_oneof![
        1 => Just(End::Stop),
        1 => Just(End::Kill),
        3 => proptest::collection::vec(any::<u8>(), 12).prop_map(|choices| End::Crash { choices }),
    ]
}

fn any_trouble() -> impl Strategy<Value = Step> {
    let which = prop_oneof![2 => Just(Which::Chk), 1 => Just(Which::Blob)];
    let damage = prop_oneof![
        3 => any::<Index>().prop_map(Damage::Flip),
        2 => any::<Index>().prop_map(Damage::Cut),
        1 => Just(Damage::Extend),
        1 => Just(Damage::Lose),
    ];
    let exchange = prop_oneof![
        Just(Exchange::Pairs),
        Just(Exchange::Chks),
        Just(Exchange::Blobs),
        (0..CONTENTS.len()).prop_map(Exchange::Stale),
    ];
    let errno = proptest::sample::select(&[Errno::IO, Errno::NOSPC, Errno::MFILE, Errno::ACCESS][..]);
    prop_oneof![
        3 => (chunk(), which, damage).prop_map(|(chunk, which, damage)| Step::Damage { chunk, which, damage }),
        1 => (chunk(), exchange).prop_map(|(chunk, exchange)| Step::Exchange { chunk, exchange }),
        2 => (proptest::sample::select(&Call::ALL[..]), 0..4u64, errno)
            .prop_map(|(call, nth, errno)| Step::Fault { call, nth, errno }),
    ]
}

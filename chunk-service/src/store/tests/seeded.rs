//! Do the suites see anything? Each known mistake is put into the store, and some suite must turn red.
//!
//! The short form asks the suites one after the other until one does; the long one asks all of them, over more scripts:
//! `MINI_TECTONIC_LONG=1 cargo test --release -p chunk-service --lib seeded -- --nocapture`

use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{crash_states, fault_matrix, group_sync, rot_matrix, write_back};
use crate::store::testing::figures;
use crate::store::testing::mistakes::Mistake;
use crate::store::testing::world::Kind;

/// A suite, and its run with a mistake.
type Suite = (&'static str, fn(Option<Mistake>));

const SUITES: [Suite; 7] = [
    ("group sync", |mistake| block_on(group_sync::run(mistake))),
    ("write-back", |mistake| block_on(write_back::run(mistake))),
    ("bit rot", |mistake| {
        block_on(rot_matrix::run(false, mistake));
    }),
    ("crash states", |mistake| {
        crash_states::run(&crash_states::some_scripts(), Kind::default().with(mistake));
    }),
    ("crash states, journal", |mistake| {
        crash_states::run(&crash_states::some_scripts(), Kind::JOURNALED.with(mistake));
    }),
    ("I/O errors", |mistake| {
        block_on(fault_matrix::run(false, Kind::default().with(mistake)));
    }),
    ("I/O errors, journal", |mistake| {
        block_on(fault_matrix::run(false, Kind::JOURNALED.with(mistake)));
    }),
];

fn block_on<T>(suite: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(suite)
}

/// The suites that turn red.
fn red(mistake: Mistake) -> Vec<&'static str> {
    let is_red = |(_, run): &&Suite| catch_unwind(AssertUnwindSafe(|| run(Some(mistake)))).is_err();
    let red = SUITES.iter().filter(is_red).map(|(name, _run)| *name);
    if figures::long() { red.collect() } else { red.take(1).collect() }
}

#[test]
fn every_mistake_is_caught_by_some_suite() {
    let (mut table, mut missed) = (String::from("seeded mistakes:"), Vec::new());
    for mistake in Mistake::ALL {
        let red = red(mistake);
        write!(table, "\n  {:<24} {}", format!("{mistake:?}"), red.join(", ")).unwrap();
        if red.is_empty() {
            missed.push(mistake);
        }
    }
    figures::print(format_args!("{table}\n{} mistakes, {} missed", Mistake::ALL.len(), missed.len()));
    assert_eq!(missed, []);
}

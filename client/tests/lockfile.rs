//! The versions that are locked mend what is known of the code that reads strangers' bytes.
//!
//! A floor is the first version without a defect that could be used against a service; the lock file must never fall
//! below it, whatever else an update brings. It needs no database, so it holds on a closed network too.

use serde::Deserialize;

/// Crate, first good version, and what was wrong before it, under the advisory's number where it has one.
const FLOORS: &[(&str, [u64; 3], &str)] = &[
    ("bytes", [1, 11, 1], "RUSTSEC-2026-0007: an overflow in BytesMut::reserve"),
    ("crossbeam-utils", [0, 8, 7], "RUSTSEC-2022-0041: atomics over unaligned values"),
    ("h2", [0, 4, 19], "RUSTSEC-2024-0332 and later floods that cost a server more than the client"),
    ("lock_api", [0, 4, 2], "RUSTSEC-2020-0070: guards that could be sent where they must not be"),
    ("regex", [1, 5, 5], "RUSTSEC-2022-0013: expressions whose compilation takes for ever"),
    ("ring", [0, 17, 12], "RUSTSEC-2025-0009: a panic where overflow checks are on"),
    ("rustls", [0, 23, 18], "RUSTSEC-2024-0399: a fragmented ClientHello brought a server down"),
    ("rustls-webpki", [0, 103, 13], "RUSTSEC-2026-0098 and 0099: names that an authority must not vouch for passed"),
    ("slab", [0, 4, 11], "RUSTSEC-2025-0047: an index just past the end was accepted"),
    ("smallvec", [1, 6, 1], "RUSTSEC-2021-0003: an overflow in insert_many"),
    ("thread_local", [1, 1, 4], "RUSTSEC-2022-0006: a race in its iterator"),
    ("tokio", [1, 44, 2], "RUSTSEC-2025-0023: a broadcast cloned values without synchronisation"),
    ("tonic", [0, 14, 3], "releases before it were never tried here"),
    (
        "tracing-subscriber",
        [0, 3, 20],
        "RUSTSEC-2025-0055: a caller's escape sequences reached the operator's terminal",
    ),
];

#[derive(Debug, Deserialize)]
struct Lock {
    package: Vec<Package>,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    version: String,
    source: Option<String>,
    checksum: Option<String>,
}

fn packages() -> Vec<Package> {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.lock"));
    let lock: Lock = toml::from_str(&text.expect("the lock file is there")).expect("it is cargo's");
    lock.package
}

fn numbers(version: &str) -> Vec<u64> {
    version.split(['.', '-', '+']).map_while(|part| part.parse().ok()).collect()
}

#[test]
fn nothing_is_locked_below_the_version_that_mended_it() {
    let packages = packages();
    for (name, floor, defect) in FLOORS {
        let mut locked = packages.iter().filter(|package| package.name == *name).peekable();
        assert!(locked.peek().is_some(), "{name} has gone; so may its floor");
        for package in locked {
            assert!(numbers(&package.version).as_slice() >= floor.as_slice(), "{package:?}: {defect}");
        }
    }
}

#[test]
fn everything_foreign_comes_from_a_registry_and_is_held_against_a_sum() {
    for package in packages().into_iter().filter(|package| package.source.is_some()) {
        assert!(package.source.as_deref().is_some_and(|source| source.starts_with("registry+")), "{package:?}");
        assert_eq!(package.checksum.as_deref().map(str::len), Some(64), "{package:?}");
    }
}

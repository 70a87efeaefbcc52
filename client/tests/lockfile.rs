//! The versions that are locked mend what is known of the code that reads strangers' bytes.
//!
//! A floor is the first version without a defect that could be used against a service; the lock file must never fall
//! below it, whatever else an update brings. It needs no database, so it holds on a closed network too.

use std::collections::BTreeMap;

/// Crate, first good version, and what was wrong before it, under the advisory's number where it has one.
const FLOORS: &[(&str, [u64; 3], &str)] = &[
    ("bytes", [1, 11, 1], "RUSTSEC-2026-0007: an overflow in BytesMut::reserve"),
    ("crossbeam-utils", [0, 8, 7], "RUSTSEC-2022-0041: atomics over unaligned values"),
    ("h2", [0, 4, 19], "RUSTSEC-2024-0332 and later floods that cost a server more than the client"),
    ("lock_api", [0, 4, 2], "RUSTSEC-2020-0070: guards that could be sent where they must not be"),
    ("regex", [1, 5, 5], "RUSTSEC-2022-0013: expressions whose compilation takes for ever"),
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

fn version(text: &str) -> [u64; 3] {
    let core = text.split(['-', '+']).next().unwrap();
    let parts: Vec<u64> = core.split('.').map(|part| part.parse().unwrap()).collect();
    parts.try_into().unwrap()
}

fn packages() -> Vec<toml::Value> {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.lock")).unwrap();
    let lock: toml::Table = text.parse().unwrap();
    lock["package"].as_array().unwrap().clone()
}

fn locked() -> BTreeMap<String, Vec<[u64; 3]>> {
    let mut versions: BTreeMap<String, Vec<[u64; 3]>> = BTreeMap::new();
    for package in packages() {
        let name = package["name"].as_str().unwrap().to_owned();
        versions.entry(name).or_default().push(version(package["version"].as_str().unwrap()));
    }
    versions
}

#[test]
fn nothing_is_locked_below_the_version_that_mended_it() {
    let locked = locked();
    for (name, floor, defect) in FLOORS {
        let versions = locked.get(*name).unwrap_or_else(|| panic!("{name} has gone; so may its floor"));
        assert!(versions.iter().all(|found| found >= floor), "{name} {versions:?} is below {floor:?}: {defect}");
    }
}

#[test]
fn everything_comes_from_a_registry_that_is_checked_by_sum() {
    for package in packages() {
        let Some(source) = package.get("source") else { continue };
        assert!(source.as_str().unwrap().starts_with("registry+"), "{package}");
        assert_eq!(package["checksum"].as_str().unwrap().len(), 64, "{package}");
    }
}

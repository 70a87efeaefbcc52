//! What a sweep of one node found, and whether that is plausible.

use std::collections::BTreeSet;
use std::time::Duration;

use proto::ids::{ChunkId, NodeId};
use proto::runtime::clock::millis;

/// Suspects of one node that are remembered, give or take a page; the sweeps after it find the rest.
pub(super) const SUSPECTS_MAX: usize = 65_536;
/// So many orphans are never too much.
const HARMLESS: u64 = 100;
/// Nor is one chunk of so many.
const ONE_OF: u64 = 20;

/// What the id of a chunk says of its age.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Age {
    /// This service did not draw it: no UUIDv7, or one of the future.
    Foreign,
    /// It may belong to an upload whose lease goes on.
    Young,
    /// Older than a lease.
    Old,
}

pub(super) fn age(chunk: ChunkId, now_ms: u64, lease: Duration) -> Age {
    match chunk.drawn_ms().and_then(|drawn_ms| now_ms.checked_sub(drawn_ms)) {
        None => Age::Foreign,
        Some(age_ms) if age_ms <= millis(lease) => Age::Young,
        Some(_longer) => Age::Old,
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Chunks on the node's disk.
    pub(super) listed: u64,
    /// Files and chunks that are not of this service's making.
    pub(super) foreign: u64,
    /// Chunks that nothing refers to, and old enough.
    pub(super) suspects: BTreeSet<ChunkId>,
    /// More of them, for which there is no room.
    pub(super) beyond: u64,
    /// Chunks that only a lost reverse row made look like orphans.
    pub(super) contradicted: u64,
    /// No more are taken.
    pub(super) closed: bool,
}

impl Findings {
    pub(super) fn suspect(&mut self, chunk: ChunkId) {
        if self.closed {
            self.beyond += 1;
        } else {
            self.suspects.insert(chunk);
        }
    }

    /// Whether so many orphans, and those for which there was no room, look like a mistake among the listed chunks.
    pub(super) fn is_too_much(&self, orphans: usize) -> bool {
        let wanted = self.with_beyond(orphans);
        orphans > 0 && wanted > HARMLESS && wanted.saturating_mul(ONE_OF) > self.listed
    }

    fn with_beyond(&self, orphans: usize) -> u64 {
        self.beyond.saturating_add(orphans as u64)
    }

    /// What an operator should know of the node.
    pub(super) fn note(&self, node: NodeId, too_many: Option<usize>) -> Option<String> {
        let orphans = too_many.map(|orphans| {
            format!(
                "nothing refers to {} of the {} chunks of node {node}, which is too much to be believed; nothing of it \
                 is deleted: look with 'mini-tectonic-rs fsck', then 'mini-tectonic-rs workers run orphans \
                 --accept-all' if they may go",
                self.with_beyond(orphans),
                self.listed
            )
        });
        let foreign = (self.foreign > 0).then(|| {
            format!("files on node {node} that no service of this cluster made: {}; they are left alone", self.foreign)
        });
        let contradicted = (self.contradicted > 0).then(|| {
            format!(
                "blocks list {} chunks of node {node} whose reverse rows are missing: metadata are damaged; nothing of \
                 them is deleted: run 'mini-tectonic-rs fsck --repair'",
                self.contradicted
            )
        });
        let notes: Vec<_> = orphans.into_iter().chain(contradicted).chain(foreign).collect();
        (!notes.is_empty()).then(|| notes.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use proto::entropy::SeededEntropy;

    use super::*;

    #[test]
    fn only_an_id_that_was_drawn_longer_ago_than_a_lease_is_old() {
        let (lease, drawn_ms) = (Duration::from_secs(60), 1_700_000_000_000);
        let chunk = ChunkId::generate(drawn_ms, &SeededEntropy::new(1));
        assert_eq!(age(chunk, drawn_ms - 1, lease), Age::Foreign, "of the future");
        assert_eq!(age(chunk, drawn_ms + 60_000, lease), Age::Young);
        assert_eq!(age(chunk, drawn_ms + 60_001, lease), Age::Old);
        let of_another_kind = "0190b5c4-7e5a-4cc3-98c4-dc0c0c07398f".parse().unwrap();
        assert_eq!(age(of_another_kind, u64::MAX, lease), Age::Foreign);
    }

    #[test]
    fn many_orphans_are_too_much_only_if_they_are_a_large_part() {
        for (listed, orphans, too_much) in
            [(100, 100, false), (101, 101, true), (2_020, 101, false), (2_019, 101, true), (10_000, 501, true)]
        {
            let findings = Findings { listed, ..Findings::default() };
            assert_eq!(findings.is_too_much(orphans), too_much, "{orphans} of {listed}");
        }
    }
}

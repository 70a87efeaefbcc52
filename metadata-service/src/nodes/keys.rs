//! A node's keys: which one capabilities are minted under, which one is offered, and how long those before are good.
//!
//! A rotation in the order of its durable steps: the next key's number is written into the node's row (`next_key_id`);
//! the node is given the key with a heartbeat's answer, writes it down, and names it in its next heartbeat; only then it
//! becomes the one that is minted under, in a commit of its own. The key before goes on to be accepted: by the node for
//! as long as a capability lives, by this service, which the node's receipts come back to, for as long as an upload may
//! go on. So no honest call fails at any moment, and a crash between two steps leaves a rotation that the next heartbeat
//! goes on with.
//!
//! Keys are derived from the cluster's secret, the node's id and their number, so only numbers are kept. A node that
//! names a later number than the row is ahead of it: the row is older than the node, as after an import. The row follows.

use std::time::Duration;

use proto::ids::NodeId;
use proto::limits::CLOCK_TOLERANCE;
use proto::runtime::clock::millis;

use crate::config::Tuning;
use crate::coordinator::{Context, Outcome};
use crate::error::MetadataError;
use crate::store::engine::{Batch, Decision, View};
use crate::store::keys;
use crate::store::records::{NodeRecord, RetiredKey};
use crate::store::rows::{BatchExt as _, read};

/// Keys that are kept for receipts at the most: no further rotation begins while there are so many.
const RETIRED_MAX: usize = 64;

/// How long keys are used.
#[derive(Debug, Clone, Copy)]
pub struct KeyTimes {
    /// After so long the next key is offered; zero for never.
    pub life: Duration,
    /// A node accepts capabilities under a key for so long after it was replaced.
    pub capabilities: Duration,
    /// Receipts under a key are accepted for so long after it was replaced.
    pub receipts: Duration,
}

impl KeyTimes {
    /// What follows from the settings.
    pub fn of(tuning: &Tuning) -> Self {
        let capabilities = tuning.capability_life.saturating_add(2 * CLOCK_TOLERANCE);
        let receipts = tuning.upload_life_max.saturating_add(capabilities);
        Self { life: tuning.node_key_life, capabilities, receipts }
    }
}

/// The number of the key that is minted under.
pub fn current(record: &NodeRecord) -> u32 {
    record.key_id.max(1)
}

/// The numbers of the keys that the node is to hold, the one to sign with first.
pub fn to_hold(record: &NodeRecord, now_ms: u64, times: KeyTimes) -> Vec<u32> {
    let retired = record.retired_keys.iter().rev().filter(|key| key.is_good_for(times.capabilities, now_ms));
    let next = (record.next_key_id > 0).then_some(record.next_key_id);
    std::iter::once(current(record)).chain(next).chain(retired.map(|key| key.key_id)).collect()
}

/// Whether a receipt that is signed with this key is accepted.
pub fn signs_receipts(record: &NodeRecord, key_id: u32, now_ms: u64, times: KeyTimes) -> bool {
    let retired = |key: &RetiredKey| key.key_id == key_id && key.is_good_for(times.receipts, now_ms);
    key_id == current(record) || record.retired_keys.iter().any(retired)
}

/// The row after a heartbeat in which the node names the keys that it holds; `None` when nothing changes. A node that
/// names none takes no part in rotations.
pub fn after_heartbeat(record: &NodeRecord, held: &[u32], now_ms: u64, times: KeyTimes) -> Option<NodeRecord> {
    let newest = held.iter().copied().max()?;
    if newest > current(record) {
        return Some(replaced(record, newest, now_ms, times));
    }
    let since_ms = if record.key_since_ms > 0 { record.key_since_ms } else { record.create_ms };
    let is_old = !times.life.is_zero() && now_ms.saturating_sub(since_ms) >= millis(times.life);
    if is_old { offered(record, now_ms, times) } else { None }
}

/// The row with the next key on offer; `None` when one is on offer already, or too many are still good.
fn offered(record: &NodeRecord, now_ms: u64, times: KeyTimes) -> Option<NodeRecord> {
    if record.next_key_id > 0 || good(record, now_ms, times).count() >= RETIRED_MAX {
        return None;
    }
    Some(NodeRecord { next_key_id: current(record).checked_add(1)?, ..record.clone() })
}

fn replaced(record: &NodeRecord, key_id: u32, now_ms: u64, times: KeyTimes) -> NodeRecord {
    let before = RetiredKey { key_id: current(record), retire_ms: now_ms };
    let mut retired_keys: Vec<_> = good(record, now_ms, times).chain(std::iter::once(before)).collect();
    // More than are ever on offer come only from a node that makes numbers up.
    retired_keys.drain(..retired_keys.len().saturating_sub(RETIRED_MAX + 1));
    let next_key_id = if record.next_key_id > key_id { record.next_key_id } else { 0 };
    NodeRecord { key_id, key_since_ms: now_ms, next_key_id, retired_keys, ..record.clone() }
}

fn good(record: &NodeRecord, now_ms: u64, times: KeyTimes) -> impl Iterator<Item = RetiredKey> {
    record.retired_keys.iter().copied().filter(move |key| key.is_good_for(times.receipts, now_ms))
}

impl RetiredKey {
    /// A clock that was set back makes nothing end early.
    fn is_good_for(&self, span: Duration, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.retire_ms) < millis(span)
    }
}

/// Writes what a heartbeat changes; see [`after_heartbeat`].
///
/// # Errors
/// [`MetadataError::Corrupt`] when the node has no row.
pub fn heard(view: &dyn View, context: &Context<'_>, node: NodeId, held: &[u32]) -> Outcome<NodeRecord> {
    change(view, node, |known| after_heartbeat(known, held, context.now_ms, KeyTimes::of(context.tuning)))
}

/// Offers a node its next key. A repeat while one is on offer changes nothing.
///
/// # Errors
/// [`MetadataError::Field`] for an unknown node; [`MetadataError::TooManyKeys`].
pub fn offer(view: &dyn View, context: &Context<'_>, node: NodeId) -> Outcome<NodeRecord> {
    let known: Option<NodeRecord> = read(view, &keys::node(node))?;
    let known = known.ok_or_else(|| MetadataError::field("node_id", "no node of this cluster has this id"))?;
    let times = KeyTimes::of(context.tuning);
    if known.next_key_id == 0 && offered(&known, context.now_ms, times).is_none() {
        return Err(MetadataError::TooManyKeys(node.to_string()));
    }
    change(view, node, |known| offered(known, context.now_ms, times))
}

fn change(
    view: &dyn View,
    node: NodeId,
    change: impl FnOnce(&NodeRecord) -> Option<NodeRecord>,
) -> Outcome<NodeRecord> {
    let key = keys::node(node);
    let known: NodeRecord = read(view, &key)?.ok_or_else(|| MetadataError::missing("node"))?;
    let mut batch = Batch::default();
    let record = match change(&known) {
        Some(changed) => {
            batch.set(key, &changed);
            changed
        }
        None => known,
    };
    Ok((Decision::frees(batch), record))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: KeyTimes = KeyTimes {
        life: Duration::from_millis(1_000),
        capabilities: Duration::from_millis(100),
        receipts: Duration::from_millis(500),
    };

    fn new_node() -> NodeRecord {
        NodeRecord { endpoint: "http://a".to_owned(), create_ms: 10_000, ..NodeRecord::default() }
    }

    #[test]
    fn a_key_is_minted_under_only_when_the_node_holds_it_and_the_one_before_ends_in_two_steps() {
        let record = new_node();
        assert_eq!(after_heartbeat(&record, &[1], 10_999, TIMES), None, "it is young");
        let offered = after_heartbeat(&record, &[1], 11_000, TIMES).expect("its time has come");
        assert_eq!((current(&offered), to_hold(&offered, 11_000, TIMES)), (1, vec![1, 2]));
        assert!(!signs_receipts(&offered, 2, 11_000, TIMES));
        assert_eq!(after_heartbeat(&offered, &[1], 12_000, TIMES), None, "the node has not said that it holds it");
        let replaced = after_heartbeat(&offered, &[1, 2], 12_000, TIMES).expect("it says so now");
        assert_eq!((current(&replaced), replaced.next_key_id, replaced.key_since_ms), (2, 0, 12_000));
        for (now_ms, hold, receipts) in [
            (12_000, vec![2, 1], true),
            (12_099, vec![2, 1], true),
            (12_100, vec![2], true),
            (12_499, vec![2], true),
            (12_500, vec![2], false),
        ] {
            assert_eq!(to_hold(&replaced, now_ms, TIMES), hold, "{now_ms}");
            assert_eq!(signs_receipts(&replaced, 1, now_ms, TIMES), receipts, "{now_ms}");
            assert!(signs_receipts(&replaced, 2, now_ms, TIMES) && !signs_receipts(&replaced, 3, now_ms, TIMES));
        }
        let again = after_heartbeat(&replaced, &[2], 13_000, TIMES).expect("its time has come, too");
        let third = after_heartbeat(&again, &[2, 3], 13_001, TIMES).expect("the node holds it");
        assert_eq!(third.retired_keys, [RetiredKey { key_id: 2, retire_ms: 13_001 }], "the first is forgotten");
    }

    #[test]
    fn a_node_that_is_ahead_of_its_row_is_followed_and_one_behind_is_given_the_key_again() {
        let restored = new_node();
        let followed = after_heartbeat(&restored, &[4], 10_001, TIMES).expect("the node knows better");
        assert_eq!((current(&followed), to_hold(&followed, 10_001, TIMES)), (4, vec![4, 1]));
        assert_eq!(after_heartbeat(&followed, &[1], 10_002, TIMES), None);
        assert_eq!(to_hold(&followed, 10_002, TIMES).first(), Some(&4));
        assert_eq!(after_heartbeat(&followed, &[], 99_000, TIMES), None, "a node that names none is left alone");
        let never = KeyTimes { life: Duration::ZERO, ..TIMES };
        assert_eq!(after_heartbeat(&followed, &[4], 99_000, never), None);
    }

    #[test]
    fn keys_that_are_still_good_are_bounded_whatever_a_node_says() {
        let mut record = new_node();
        for key_id in 2..1_000 {
            record = after_heartbeat(&record, &[key_id], 10_001, TIMES).expect("a later number");
        }
        assert_eq!(record.retired_keys.len(), RETIRED_MAX + 1);
        assert_eq!(offered(&record, 10_001, TIMES), None, "no honest rotation adds to them");
        assert!(offered(&record, 10_501, TIMES).is_some());
        let last = after_heartbeat(&record, &[u32::MAX], 99_000, TIMES).expect("a later number");
        assert_eq!(after_heartbeat(&last, &[u32::MAX], 999_000, TIMES), None, "there is no next number");
    }
}

//! The registry: an image of the `nodes/` rows with what the last heartbeats said.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use proto::capability::NodeKey;
use proto::ids::NodeId;
use proto::runtime::transport::ConnectionCounts;
use proto::secret::SecretKey;
use proto::traffic::ClassLoad;
use tokio::time::Instant;

use super::keys::{self, KeyTimes};
use crate::config::Tuning;
use crate::placement::Candidate;
use crate::store::records::NodeRecord;
use crate::workers::board::WorkerView;

/// How a node says that it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Bytes its disk has in all.
    pub capacity_bytes: u64,
    /// Bytes its disk has left.
    pub free_bytes: u64,
    /// Why it takes no writes; empty when it does.
    pub read_only_reason: String,
    /// Its software's version.
    pub version: String,
    /// Its background work.
    pub workers: Vec<WorkerView>,
    /// What it does for each class of traffic.
    pub loads: Vec<ClassLoad>,
    /// What happened at its listener.
    pub connections: Option<ConnectionCounts>,
    /// What needs an operator there.
    pub warnings: Vec<String>,
}

/// Whether a node can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Takes reads and writes.
    Alive,
    /// Takes reads only.
    ReadOnly,
    /// No heartbeat for too long.
    Lost,
}

#[derive(Debug)]
struct Heard {
    at: Instant,
    at_ms: u64,
    report: Report,
}

#[derive(Debug)]
struct Entry {
    record: NodeRecord,
    sequence: u64,
    key: NodeKey,
    heard: Option<Heard>,
}

/// A node as operators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeStatus {
    /// Its id.
    pub node: NodeId,
    /// Who it is.
    pub record: NodeRecord,
    /// Whether it can be used.
    pub state: State,
    /// What it last said of itself.
    pub report: Report,
    /// When that was; `None` if not since this service started.
    pub heard_ms: Option<u64>,
}

/// See the module.
#[derive(Debug)]
pub struct Registry {
    secret: SecretKey,
    lost_after: Duration,
    key_times: KeyTimes,
    nodes: RwLock<BTreeMap<NodeId, Entry>>,
}

impl Registry {
    /// An empty registry; `secret` is the cluster's.
    pub fn new(secret: SecretKey, tuning: &Tuning) -> Self {
        let (lost_after, key_times) = (tuning.node_lost_after, KeyTimes::of(tuning));
        Self { secret, lost_after, key_times, nodes: RwLock::default() }
    }

    // A panic elsewhere leaves no half-changed entry, so a poisoned lock is used on.
    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<NodeId, Entry>> {
        self.nodes.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<NodeId, Entry>> {
        self.nodes.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over a durable row with the sequence of the commit that wrote it. Commits are answered in any order, so a
    /// row older than the one known is passed over.
    pub fn put(&self, node: NodeId, record: NodeRecord, sequence: u64) {
        let mut nodes = self.write();
        let known = nodes.get(&node);
        if known.is_some_and(|known| known.sequence > sequence) {
            return;
        }
        let key = NodeKey::derive(&self.secret, node, keys::current(&record));
        let heard = nodes.remove(&node).and_then(|entry| entry.heard);
        nodes.insert(node, Entry { record, sequence, key, heard });
    }

    /// Notes a heartbeat. Returns whether the node is registered.
    pub fn heard(&self, node: NodeId, now_ms: u64, report: Report) -> bool {
        let mut nodes = self.write();
        let Some(entry) = nodes.get_mut(&node) else { return false };
        entry.heard = Some(Heard { at: Instant::now(), at_ms: now_ms, report });
        true
    }

    /// Where clients reach a node.
    pub fn endpoint(&self, node: NodeId) -> Option<String> {
        self.read().get(&node).map(|entry| entry.record.endpoint.clone())
    }

    /// A node's key of that number, if receipts under it are accepted now.
    pub fn receipt_key(&self, node: NodeId, key_id: u32, now_ms: u64) -> Option<NodeKey> {
        let nodes = self.read();
        let Entry { record, key, .. } = nodes.get(&node)?;
        if key.key_id == key_id {
            return Some(key.clone());
        }
        keys::signs_receipts(record, key_id, now_ms, self.key_times)
            .then(|| NodeKey::derive(&self.secret, node, key_id))
    }

    /// The keys that a node is to hold, the one to sign with first.
    pub fn keys_to_hold(&self, node: NodeId, now_ms: u64) -> Vec<NodeKey> {
        let nodes = self.read();
        let numbers = nodes.get(&node).map(|entry| keys::to_hold(&entry.record, now_ms, self.key_times));
        numbers.into_iter().flatten().map(|key_id| NodeKey::derive(&self.secret, node, key_id)).collect()
    }

    /// Whether a heartbeat in which a node names these keys changes its row.
    pub fn changes_keys(&self, node: NodeId, held: &[u32], now_ms: u64) -> bool {
        let nodes = self.read();
        let changed = |entry: &Entry| keys::after_heartbeat(&entry.record, held, now_ms, self.key_times).is_some();
        nodes.get(&node).is_some_and(changed)
    }

    /// The key to mint under, and where clients reach the node.
    pub fn access(&self, node: NodeId) -> Option<(NodeKey, String)> {
        self.read().get(&node).map(|entry| (entry.key.clone(), entry.record.endpoint.clone()))
    }

    /// The nodes as placement sees them.
    pub fn candidates(&self) -> Vec<Candidate> {
        let nodes = self.read();
        let candidate = |(node, entry): (&NodeId, &Entry)| Candidate {
            node: *node,
            failure_domain: entry.record.failure_domain.clone(),
            writable: entry.state(self.lost_after) == State::Alive,
            free_bytes: entry.heard.as_ref().map_or(0, |heard| heard.report.free_bytes),
        };
        nodes.iter().map(candidate).collect()
    }

    /// The nodes behind `after` in the order of their ids, at most `limit`.
    pub fn list(&self, after: Option<NodeId>, limit: usize) -> Vec<NodeStatus> {
        use std::ops::Bound::{Excluded, Unbounded};
        let nodes = self.read();
        let behind = nodes.range((after.map_or(Unbounded, Excluded), Unbounded));
        behind.take(limit).map(|(node, entry)| entry.status(*node, self.lost_after)).collect()
    }
}

impl Entry {
    fn state(&self, lost_after: Duration) -> State {
        match &self.heard {
            Some(heard) if heard.at.elapsed() >= lost_after => State::Lost,
            Some(heard) if heard.report.read_only_reason.is_empty() => State::Alive,
            Some(_read_only) => State::ReadOnly,
            None => State::Lost,
        }
    }

    fn status(&self, node: NodeId, lost_after: Duration) -> NodeStatus {
        let heard = self.heard.as_ref();
        NodeStatus {
            node,
            record: self.record.clone(),
            state: self.state(lost_after),
            report: heard.map(|heard| heard.report.clone()).unwrap_or_default(),
            heard_ms: heard.map(|heard| heard.at_ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use proto::entropy::SeededEntropy;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_node_is_alive_while_it_is_heard_of_and_lost_afterwards() {
        let entropy = SeededEntropy::new(1);
        let registry = Registry::new(SecretKey::generate(&entropy), &Tuning::default());
        let node = NodeId::generate(1, &entropy);
        assert!(!registry.heard(node, 1, Report::default()), "a stranger's heartbeat counts for nothing");
        let record = NodeRecord { endpoint: "http://a".to_owned(), create_ms: 1, ..NodeRecord::default() };
        registry.put(node, record.clone(), 1);
        let state = || registry.list(None, 10).first().map(|node| node.state);
        assert_eq!(state(), Some(State::Lost));
        assert!(registry.heard(node, 2, Report { free_bytes: 7, ..Report::default() }));
        assert_eq!(state(), Some(State::Alive));
        assert_eq!(registry.candidates().first().map(|one| (one.writable, one.free_bytes)), Some((true, 7)));
        tokio::time::advance(Duration::from_secs(30)).await;
        assert_eq!(state(), Some(State::Lost));
        let read_only = Report { read_only_reason: "a failed sync".to_owned(), ..Report::default() };
        assert!(registry.heard(node, 3, read_only));
        assert_eq!(state(), Some(State::ReadOnly));
        registry.put(node, NodeRecord { endpoint: "http://b".to_owned(), ..record }, 2);
        assert_eq!((state(), registry.endpoint(node)), (Some(State::ReadOnly), Some("http://b".to_owned())));
        assert!(registry.list(Some(node), 10).is_empty());
    }

    /// A node moved twice in quick succession, and the answers to its two commits came in the other order: clients were
    /// sent to the address that it had left, until it moved again.
    #[test]
    fn the_row_of_the_later_commit_stays_whichever_comes_first() {
        let entropy = SeededEntropy::new(1);
        let registry = Registry::new(SecretKey::generate(&entropy), &Tuning::default());
        let node = NodeId::generate(1, &entropy);
        let put = |endpoint: &str, sequence| {
            let record = NodeRecord { endpoint: endpoint.to_owned(), create_ms: 1, ..NodeRecord::default() };
            registry.put(node, record, sequence);
            registry.endpoint(node).unwrap()
        };
        assert_eq!(put("http://first", 0), "http://first");
        assert_eq!(put("http://third", 9), "http://third");
        assert_eq!(put("http://second", 8), "http://third");
        assert_eq!(put("http://fourth", 10), "http://fourth");
    }
}

//! All background work as its operator sees it: how it is to run, and how it does.
//!
//! Owns: the `worker/` rows, of which it keeps an image. A setting is durable before it takes effect, so a pause survives
//! a restart. The workers of this service are reached through their handles; those of the nodes through heartbeats, which
//! take the settings along and bring the status back.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use proto::ids::NodeId;
use proto::runtime::clock::millis;
use proto::runtime::worker::{Pass, Settings, WorkerHandle};
use tokio::time::Instant;

use crate::coordinator::Outcome;
use crate::store::engine::{Batch, Decision, View};
use crate::store::keys;
use crate::store::records::WorkerRecord;
use crate::store::rows::{BatchExt as _, read};

/// One kind of background work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum WorkerName {
    /// Expires uploads and forgets requests.
    Uploads,
    /// Collects garbage.
    Garbage,
    /// Looks for chunks that nothing refers to.
    Orphans,
    /// Verifies chunks; runs at the nodes.
    Scrub,
}

impl WorkerName {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::Uploads, Self::Garbage, Self::Orphans, Self::Scrub];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Uploads => "uploads",
            Self::Garbage => "garbage",
            Self::Orphans => "orphans",
            Self::Scrub => "scrub",
        }
    }

    /// The one with this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|worker| worker.as_str() == name)
    }

    /// Whether the nodes do it.
    pub fn is_of_nodes(self) -> bool {
        matches!(self, Self::Scrub)
    }
}

/// What an operator changes; `None` for what stays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Change {
    /// Whether it does nothing by itself.
    pub paused: Option<bool>,
    /// Most units of work per second, 0 for no bound.
    pub pace_per_second: Option<u64>,
    /// Have nodes run it now.
    pub run: bool,
}

/// Writes how a worker is to run from now on.
///
/// # Errors
/// [`MetadataError`](crate::error::MetadataError) when its row cannot be read.
pub fn change(view: &dyn View, name: WorkerName, change: Change, now_ms: u64) -> Outcome<(WorkerRecord, u64)> {
    let key = keys::worker(name.as_str());
    let known: WorkerRecord = read(view, &key)?.unwrap_or_default();
    let record = WorkerRecord {
        paused: change.paused.unwrap_or(known.paused),
        pace_per_second: change.pace_per_second.or(known.pace_per_second),
        run_count: known.run_count.saturating_add(u64::from(change.run)),
        run_ms: if change.run { now_ms } else { known.run_ms },
    };
    let mut batch = Batch::default();
    if record != known {
        batch.set(key, &record);
    }
    Ok((Decision::frees(batch), (record, view.sequence())))
}

/// A worker at one service, as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorkerView {
    /// Its name.
    pub name: String,
    /// It does nothing by itself.
    pub paused: bool,
    /// Most units of work per second, 0 for no bound.
    pub pace_per_second: u64,
    /// What the pace counts; empty when it has none.
    pub pace_unit: String,
    /// Passes ended since its service started.
    pub passes: u64,
    /// The last pass that succeeded.
    pub last_pass: Option<Pass>,
    /// When the last pass ended.
    pub last_pass_ms: Option<u64>,
    /// Why the last pass failed; empty when it did not.
    pub last_error: String,
    /// Why it holds back, or what it wants an operator to decide; empty otherwise.
    pub holds_back: String,
    /// When it last went through everything.
    pub last_sweep_ms: Option<u64>,
}

impl WorkerView {
    fn of(name: WorkerName, handle: &WorkerHandle, now_ms: u64) -> Self {
        let (settings, status) = (handle.settings(), handle.status());
        let wall_ms = |at: Instant| now_ms.saturating_sub(millis(at.elapsed()));
        Self {
            name: name.as_str().to_owned(),
            paused: settings.paused,
            pace_per_second: settings.pace_per_second,
            pace_unit: handle.pace_unit().to_owned(),
            passes: status.passes,
            last_pass: status.last_pass,
            last_pass_ms: status.last_pass_at.map(wall_ms),
            last_error: status.last_error.unwrap_or_default(),
            holds_back: status.holds_back.unwrap_or_default(),
            last_sweep_ms: status.last_sweep.map(wall_ms),
        }
    }

    /// What an operator should know of it, in words.
    pub fn warning(&self, node: Option<NodeId>) -> Option<String> {
        let place = node.map(|node| format!(" of node {node}")).unwrap_or_default();
        let Self { name, last_error, holds_back, .. } = self;
        match (last_error.as_str(), holds_back.as_str()) {
            ("", "") => None,
            ("", why) => Some(format!("worker {name}{place} holds back: {why}")),
            (error, _) => Some(format!("the last pass of worker {name}{place} failed: {error}")),
        }
    }
}

/// An operator's word that the next sweep may do what it would hold back from. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Acceptance(Arc<Mutex<Words>>);

#[derive(Debug, Default)]
struct Words {
    given: u64,
    /// The number of the one that holds, if one does.
    holds: Option<u64>,
}

impl Acceptance {
    // Each change is complete in itself, so a poisoned lock is used on.
    fn words(&self) -> MutexGuard<'_, Words> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives it, to one pass. It holds no longer than what is returned: an operator who goes away before the pass begins
    /// leaves no word behind for a pass that somebody else asks for.
    #[must_use = "it holds no longer than this"]
    pub fn give(&self) -> Given {
        let mut words = self.words();
        words.given += 1;
        words.holds = Some(words.given);
        Given { acceptance: self.clone(), number: words.given }
    }

    /// Takes it: the pass that does has it, and no other.
    pub fn take(&self) -> bool {
        self.words().holds.take().is_some()
    }
}

/// A word that was given, until this is dropped.
#[derive(Debug)]
pub struct Given {
    acceptance: Acceptance,
    number: u64,
}

impl Drop for Given {
    fn drop(&mut self) {
        let mut words = self.acceptance.words();
        words.holds = words.holds.filter(|number| *number != self.number);
    }
}

#[derive(Debug, Default)]
struct Entry {
    record: WorkerRecord,
    sequence: u64,
    handle: Option<WorkerHandle>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Board {
    entries: RwLock<BTreeMap<WorkerName, Entry>>,
    /// To the sweep for orphans.
    pub acceptance: Acceptance,
}

impl Board {
    // A panic elsewhere leaves no half-changed entry, so a poisoned lock is used on.
    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<WorkerName, Entry>> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<WorkerName, Entry>> {
        self.entries.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over a durable row with the sequence of the commit that wrote it; one older than the one known is passed
    /// over, since commits are answered in any order.
    pub fn put(&self, name: WorkerName, record: WorkerRecord, sequence: u64) {
        let mut entries = self.write();
        let entry = entries.entry(name).or_default();
        if entry.sequence <= sequence {
            (entry.record, entry.sequence) = (record, sequence);
            entry.configure();
        }
    }

    /// Takes over a worker of this service, which runs from now on as its row says.
    pub fn attach(&self, name: WorkerName, handle: WorkerHandle) {
        let mut entries = self.write();
        let entry = entries.entry(name).or_default();
        entry.handle = Some(handle);
        entry.configure();
    }

    /// How a worker is to run.
    pub fn record(&self, name: WorkerName) -> WorkerRecord {
        self.read().get(&name).map(|entry| entry.record).unwrap_or_default()
    }

    /// A worker of this service.
    pub fn handle(&self, name: WorkerName) -> Option<WorkerHandle> {
        self.read().get(&name).and_then(|entry| entry.handle.clone())
    }

    /// How the nodes' workers are to run.
    pub fn of_nodes(&self) -> Vec<(WorkerName, WorkerRecord)> {
        let names = WorkerName::ALL.into_iter().filter(|name| name.is_of_nodes());
        names.map(|name| (name, self.record(name))).collect()
    }

    /// The workers of this service.
    pub fn own(&self, now_ms: u64) -> Vec<WorkerView> {
        let view = |(name, entry): (&WorkerName, &Entry)| {
            entry.handle.as_ref().map(|handle| WorkerView::of(*name, handle, now_ms))
        };
        self.read().iter().filter_map(view).collect()
    }
}

impl Entry {
    fn configure(&self) {
        let WorkerRecord { paused, pace_per_second, run_count: _, run_ms: _ } = self.record;
        if let Some(handle) = &self.handle {
            handle.configure(Settings { paused, pace_per_second: pace_per_second.unwrap_or_default() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An operator accepted everything and went away before his pass began. Days later another one asked for a pass, and
    /// it deleted what it should have held back from.
    #[test]
    fn an_acceptance_ends_with_the_call_that_gave_it_and_takes_no_other_with_it() {
        let acceptance = Acceptance::default();
        drop(acceptance.give());
        assert!(!acceptance.take());
        let first = acceptance.give();
        let second = acceptance.give();
        drop(first);
        assert!(acceptance.take() && !acceptance.take());
        drop(second);
        assert!(!acceptance.take());
    }
}

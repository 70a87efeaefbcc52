//! Which process comes to a failpoint, and when.

use proto::runtime::failpoint::NAMES;

use crate::services::Role;

/// When a process comes to a failpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// At its first start only, or also then: this many times.
    FirstStart { times: u64 },
    /// When it is started with `--reissue-admin-token`.
    Reissue,
    /// While it is filled from an export.
    Import,
    /// At every start.
    Start,
    /// Under load.
    Load,
    /// Under load, after a death at another failpoint has left what it is about.
    LoadAfter(&'static str),
    /// At the start that follows a death at another failpoint under load.
    StartAfter(&'static str),
}

/// A failpoint, who comes to it, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Point {
    pub(crate) name: &'static str,
    pub(crate) role: Role,
    pub(crate) when: When,
}

impl Point {
    /// Whether nothing comes to it before a lease or a grace is over.
    pub(crate) fn takes_time(&self) -> bool {
        ["expire.", "collect.", "remove.folder_synced"].iter().any(|begin| self.name.starts_with(begin))
    }
}

/// All of them; some in more than one way.
pub(crate) fn all() -> Vec<Point> {
    NAMES.iter().flat_map(|name| ways_to(name)).collect()
}

fn ways_to(name: &'static str) -> Vec<Point> {
    use Role::{Chunk, Metadata};
    use When::{FirstStart, Import, Load, LoadAfter, Reissue, Start, StartAfter};
    let group = name.split_once('.').map_or(name, |(group, _step)| group);
    let ways = match (group, name) {
        // cluster.key, admin.token, join.token, IDENTITY; node.key before and after joining, IDENTITY.
        ("file", _) => vec![(Metadata, FirstStart { times: 4 }), (Chunk, FirstStart { times: 3 })],
        ("start", "start.key_written" | "start.tokens_written" | "start.rows_committed" | "start.identity_written") => {
            vec![(Metadata, FirstStart { times: 1 })]
        }
        ("start", _) => vec![(Metadata, FirstStart { times: 1 }), (Metadata, Start)],
        ("register_node", _) => vec![(Metadata, FirstStart { times: 1 })],
        ("import", _) => vec![(Metadata, Import)],
        ("reissue", _) => vec![(Metadata, Reissue)],
        ("join", "join.folder_created" | "join.locked") => vec![(Chunk, FirstStart { times: 1 }), (Chunk, Start)],
        ("join", _) => vec![(Chunk, FirstStart { times: 1 })],
        ("engine", "engine.journal_turned") => vec![(Metadata, Load)],
        ("engine", "engine.journal_replayed") => vec![(Metadata, StartAfter("engine.group_durable"))],
        ("engine", _) => vec![(Metadata, FirstStart { times: 1 }), (Metadata, Load)],
        ("repeat", _) => vec![(Chunk, LoadAfter("put.folder_synced"))],
        ("leftover", _) => vec![(Chunk, LoadAfter("put.blob_synced"))],
        ("journal", "journal.restored") => vec![(Chunk, Start)],
        ("journal", "journal.file_restored") => vec![(Chunk, StartAfter("journal.group_durable"))],
        ("journal", "journal.written") => vec![(Chunk, Load), (Metadata, Load)],
        ("journal", _) => vec![(Chunk, Load)],
        ("rotate_key", "rotate_key.kept") => vec![(Chunk, Load)],
        ("put" | "remove", _) => vec![(Chunk, Load)],
        (_, _) => vec![(Metadata, Load)],
    };
    ways.into_iter().map(|(role, when)| Point { name, role, when }).collect()
}

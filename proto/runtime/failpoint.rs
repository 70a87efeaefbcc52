//! Named instants at which a process can be made to die, to see what its death leaves behind.
//!
//! A [`failpoint!`](crate::failpoint) stands behind every durable step. In a normal build it is nothing at all: not a
//! branch, not a string. Built with the feature `failpoints`, a process that was started with
//!
//! ```text
//! MINI_TECTONIC_FAILPOINT=put.blob_synced:3
//! ```
//!
//! kills itself (SIGKILL, as `kill -9` does) when it comes to that instant for the third time; without a number, for the
//! first. A name that is not in [`NAMES`] does not compile; that every name is an instant that processes come to is what
//! the kill loop in `tests/kill_loop` shows.

/// Every failpoint there is.
///
/// `put`, `repeat`, `leftover`, `remove`: a chunk's files. `file`: a small file that appears whole. `engine`: a group of
/// commits. `checkpoint`: many of them on their way into the database. `*.durable`: a change that is on disk and not answered. `collect`: garbage on its way out. `start`, `reissue`: the metadata service's folder.
/// `rotate_key`: a node's next key.
/// `import`: one that is filled from an export. `join`: a chunk service's.
pub const NAMES: &[&str] = &[
    "put.blob_created",
    "put.part_written",
    "put.bytes_written",
    "put.blob_synced",
    "put.chk_written",
    "put.chk_published",
    "put.chk_synced",
    "put.folder_synced",
    "put.receipt_built",
    "journal.written",
    "journal.group_durable",
    "journal.turned",
    "journal.settled",
    "journal.file_restored",
    "journal.restored",
    "repeat.synced",
    "leftover.removed",
    "remove.chk_unlinked",
    "remove.blob_unlinked",
    "remove.folder_synced",
    "file.written",
    "file.renamed",
    "file.folder_synced",
    "engine.group_decided",
    "engine.group_published",
    "engine.group_durable",
    "engine.group_shown",
    "engine.journal_turned",
    "engine.journal_replayed",
    "engine.log_flushed",
    "engine.log_synced",
    "checkpoint.rows_written",
    "checkpoint.sequence_written",
    "checkpoint.thawed",
    "start_upload.durable",
    "allocate.durable",
    "commit.durable",
    "abort.durable",
    "expire.durable",
    "delete.durable",
    "undelete.durable",
    "collect.step_durable",
    "collect.chunk_deleted",
    "collect.rows_dropped",
    "register_node.durable",
    "start.folder_created",
    "start.locked",
    "start.engine_opened",
    "start.key_written",
    "start.tokens_written",
    "start.rows_committed",
    "start.identity_written",
    "start.nodes_loaded",
    "start.serving",
    "rotate_key.durable",
    "rotate_key.kept",
    "reissue.rows_committed",
    "reissue.file_written",
    "import.marked",
    "import.rows_committed",
    "import.identity_written",
    "join.folder_created",
    "join.locked",
    "join.id_written",
    "join.registered",
    "join.keys_written",
    "join.identity_written",
];

/// Dies here if the process was told to. The name must be one of
/// [`NAMES`](crate::runtime::failpoint::NAMES).
#[cfg(feature = "failpoints")]
#[macro_export]
macro_rules! failpoint {
    ($name:literal) => {{
        // An item, so that it is looked at also where the code around it is only checked.
        const _: () = assert!($crate::runtime::failpoint::is_known($name), "the name is not in failpoint::NAMES");
        $crate::runtime::failpoint::pass($name);
    }};
}

/// Nothing: this build has no failpoints.
#[cfg(not(feature = "failpoints"))]
#[macro_export]
macro_rules! failpoint {
    ($name:literal) => {};
}

#[cfg(feature = "failpoints")]
pub use self::armed::{is_known, pass};

#[cfg(feature = "failpoints")]
mod armed {
    use std::io::Write as _;
    use std::num::NonZeroU64;
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use rustix::process::{Signal, getpid, kill_process};

    use super::NAMES;

    const VARIABLE: &str = "MINI_TECTONIC_FAILPOINT";

    /// Where this process is to die.
    #[derive(Debug)]
    struct Armed {
        name: String,
        dies_at: u64,
        passed: AtomicU64,
    }

    static ARMED: LazyLock<Option<Armed>> = LazyLock::new(|| {
        let told = std::env::var(VARIABLE).ok()?;
        Some(
            parse(&told).unwrap_or_else(|| end(&format!("{VARIABLE}={told} is not NAME or NAME:COUNT of a failpoint"))),
        )
    });

    fn parse(told: &str) -> Option<Armed> {
        let (name, dies_at) = told.split_once(':').unwrap_or((told, "1"));
        let dies_at: NonZeroU64 = dies_at.parse().ok()?;
        let armed = Armed { name: name.to_owned(), dies_at: dies_at.get(), passed: AtomicU64::new(0) };
        NAMES.contains(&name).then_some(armed)
    }

    /// Comes by a failpoint; does not return from the one that is meant.
    pub fn pass(name: &str) {
        if let Some(armed) = ARMED.as_ref()
            && armed.name == name
            && armed.passed.fetch_add(1, Ordering::SeqCst) + 1 == armed.dies_at
        {
            let killed = kill_process(getpid(), Signal::KILL);
            end(&format!("a process could not kill itself: {killed:?}"))
        }
    }

    /// Says what is wrong with the test, which must not go on.
    fn end(problem: &str) -> ! {
        // Where nobody reads, the exit code has to do.
        drop(writeln!(std::io::stderr(), "error: {problem}"));
        std::process::abort()
    }

    /// Whether there is a failpoint of this name.
    pub const fn is_known(name: &str) -> bool {
        is_among(NAMES, name.as_bytes())
    }

    const fn is_among(names: &[&str], name: &[u8]) -> bool {
        match names.split_first() {
            Some((first, rest)) => is_same(first.as_bytes(), name) || is_among(rest, name),
            None => false,
        }
    }

    const fn is_same(a: &[u8], b: &[u8]) -> bool {
        match (a.split_first(), b.split_first()) {
            (Some((a, rest_of_a)), Some((b, rest_of_b))) => *a == *b && is_same(rest_of_a, rest_of_b),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_name_is_known_only_as_a_whole() {
            assert!(NAMES.iter().all(|name| is_known(name)));
            assert!(!is_known("") && !is_known("put.blob_sync") && !is_known("put.blob_synced2"));
        }

        #[test]
        fn a_failpoint_is_told_by_name_and_count() {
            let told = |text: &str| parse(text).map(|armed| (armed.name, armed.dies_at));
            assert_eq!(told("put.blob_synced"), Some(("put.blob_synced".to_owned(), 1)));
            assert_eq!(told("put.blob_synced:3"), Some(("put.blob_synced".to_owned(), 3)));
            for bad in ["", ":", "put", "put.blob_synced:", "put.blob_synced:0", "put.blob_synced:x"] {
                assert_eq!(told(bad), None, "{bad}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_name_is_given_twice() {
        let mut seen = HashSet::new();
        assert!(NAMES.iter().all(|name| seen.insert(name)));
    }
}

//! Do the suites see anything? Each known mistake is put into the service, and the suites that ought to see it must turn
//! red. With the table on the last lines:
//!
//! ```text
//! cargo test -p metadata-service --lib mistakes -- --nocapture
//! ```

use std::fmt::Write as _;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::figures;

/// Names the mistake that a process makes.
const VARIABLE: &str = "MINI_TECTONIC_MISTAKE";
/// What would make suites run in their long forms, or otherwise.
const LONG_FORMS: [&str; 4] =
    ["MINI_TECTONIC_SEQUENCES", "MINI_TECTONIC_SCHEDULES", "MINI_TECTONIC_HISTORIES", "MINI_TECTONIC_SEED"];
/// How long a suite may take; one that hangs over a mistake has noticed it, too.
const DEADLINE: Duration = Duration::from_secs(120);
/// Suites that run at once.
const AT_ONCE: usize = 4;

/// A mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mistake {
    /// A group is answered whatever its sync said.
    AckedWhateverTheSyncSaid,
    /// A sync that failed is tried again, and believed.
    SyncRetried,
    /// Reads show what is not synced yet.
    ShownBeforeSync,
    /// Reads that waited for a sync show what they read although it failed.
    ShownAfterFailedSync,
    /// A failure is forgotten, and commits go on.
    LatchForgotten,
    /// The database says that it has commits before their rows are there.
    SequenceBeforeRows,
    /// What is removed is forgotten, and what lies below it comes back.
    RemovalForgotten,
    /// A start goes on without the commits that a damaged journal lost.
    DamagedJournalBelieved,
    /// A repeat, which writes nothing, is answered before what it saw is durable.
    RepeatNotDurable,
    /// The commit of a blob leaves its usage to another one.
    UsageInSecondCommit,
    /// Chunks lose their references in one commit and become garbage in another.
    GarbageInSecondCommit,
    /// An upload that was given up, or has expired, is sealed and committed still.
    EndedUploadCommitted,
    /// Leases are held against another machine's clock.
    ForeignClock,
    /// Chunk ids come again.
    ChunkIdReused,
    /// A blob comes back that the collector has begun with.
    CollectedRestored,
    /// Blocks are taken apart before their grace has passed.
    GraceSkipped,
    /// A garbage row goes before its node has deleted the chunk.
    RowDroppedBeforeChunk,
    /// A chunk is deleted without a last look whether something refers to it.
    LateLookSkipped,
    /// It is collected although an import awaits its operator.
    HoldIgnored,
    /// What a time left that an import lost is collected although it is kept.
    LostTimeCollected,
    /// A sweep for orphans reads the metadata before it lists the disk.
    MetadataBeforeDisk,
    /// It is collected before the recovery has read what stands against it.
    CollectedBeforeRecovery,
    /// Remembered requests are the same for all tenants.
    RequestsShared,
    /// A page token is good for the same listing of another tenant.
    PageTokensShared,
    /// A token is revoked whosever it is.
    ForeignTokenRevoked,
}

/// Whether this process makes it.
pub(crate) fn is_made(mistake: Mistake) -> bool {
    static MADE: OnceLock<Option<String>> = OnceLock::new();
    let made = MADE.get_or_init(|| std::env::var(VARIABLE).ok());
    made.as_deref().is_some_and(|name| name == format!("{mistake:?}"))
}

/// A part of the names of its tests.
type Suite = &'static str;

const HISTORIES: Suite = "coordinator::tests::histories::every_answer_and_every_row_is_the_model_s_in_memory";
const DURABILITY: Suite = "store::sled::tests::durability";
const CHECKPOINTS: Suite = "store::sled::tests::checkpoints";
const RECOVERY: Suite = "store::sled::tests::recovery";
const IO_ERRORS: Suite = "service::tests::io_errors::sled";
const COLLECTING: Suite = "coordinator::tests::collecting";
const GC_SAFETY: Suite = "workers::gc_safety";
const ORPHANS: Suite = "workers::orphans";
const RESTORE: Suite = "service::restore";
const NON_INTERFERENCE: Suite = "non_interference::i9_a_tenants_view_is_a_function_of_its_own_actions_in_memory";

/// Which suites see which mistake.
const TABLE: [(Mistake, &[Suite]); 25] = [
    (Mistake::AckedWhateverTheSyncSaid, &[DURABILITY, IO_ERRORS]),
    (Mistake::SyncRetried, &[IO_ERRORS]),
    (Mistake::ShownBeforeSync, &[DURABILITY]),
    (Mistake::ShownAfterFailedSync, &[DURABILITY]),
    (Mistake::LatchForgotten, &[DURABILITY, IO_ERRORS]),
    (Mistake::SequenceBeforeRows, &[CHECKPOINTS]),
    (Mistake::RemovalForgotten, &[CHECKPOINTS]),
    (Mistake::DamagedJournalBelieved, &[RECOVERY]),
    (Mistake::RepeatNotDurable, &[DURABILITY]),
    (Mistake::UsageInSecondCommit, &[HISTORIES]),
    (Mistake::GarbageInSecondCommit, &[HISTORIES]),
    (Mistake::EndedUploadCommitted, &[HISTORIES]),
    (Mistake::ForeignClock, &[HISTORIES]),
    (Mistake::ChunkIdReused, &[HISTORIES, GC_SAFETY]),
    (Mistake::CollectedRestored, &[HISTORIES]),
    (Mistake::GraceSkipped, &[HISTORIES]),
    (Mistake::RowDroppedBeforeChunk, &[GC_SAFETY]),
    (Mistake::LateLookSkipped, &[COLLECTING]),
    (Mistake::HoldIgnored, &[RESTORE, GC_SAFETY]),
    (Mistake::LostTimeCollected, &[COLLECTING, GC_SAFETY]),
    (Mistake::MetadataBeforeDisk, &[ORPHANS]),
    (Mistake::CollectedBeforeRecovery, &[GC_SAFETY]),
    (Mistake::RequestsShared, &[NON_INTERFERENCE]),
    (Mistake::PageTokensShared, &[NON_INTERFERENCE]),
    (Mistake::ForeignTokenRevoked, &[NON_INTERFERENCE]),
];

/// A suite in a process of its own.
struct Running {
    mistake: Option<Mistake>,
    suite: Suite,
    process: Child,
    started: Instant,
}

impl Running {
    fn start(mistake: Option<Mistake>, suite: Suite) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([suite, "--quiet"]).env("RUST_BACKTRACE", "0").env_remove(VARIABLE);
        for variable in LONG_FORMS {
            command.env_remove(variable);
        }
        if let Some(mistake) = mistake {
            command.env(VARIABLE, format!("{mistake:?}"));
        }
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        Self { mistake, suite, process, started: Instant::now() }
    }

    /// Waits for its end; returns whether it is red.
    fn ends_red(mut self) -> bool {
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return !status.success();
            }
            if self.started.elapsed() > DEADLINE {
                self.process.kill().unwrap();
                self.process.wait().unwrap();
                return true;
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
}

#[test]
fn every_mistake_is_seen_by_the_suites_that_ought_to_see_it() {
    let sound = [HISTORIES, DURABILITY, IO_ERRORS, COLLECTING, GC_SAFETY, ORPHANS, RESTORE, NON_INTERFERENCE]
        .map(|suite| (None, suite));
    let mistaken = TABLE.iter().flat_map(|(mistake, suites)| suites.iter().map(|suite| (Some(*mistake), *suite)));
    let runs: Vec<_> = sound.into_iter().chain(mistaken).collect();
    let (mut table, mut wrong) = (String::from("seeded mistakes:"), Vec::new());
    for some in runs.chunks(AT_ONCE) {
        let running: Vec<_> = some.iter().map(|(mistake, suite)| Running::start(*mistake, suite)).collect();
        for run in running {
            let (mistake, suite) = (run.mistake, run.suite);
            let (name, red) = (mistake.map_or("none".to_owned(), |mistake| format!("{mistake:?}")), run.ends_red());
            let colour = if red { "red" } else { "green" };
            write!(table, "\n  {name:<26} {colour:<6} {suite}").unwrap();
            if red != mistake.is_some() {
                wrong.push((name, suite));
            }
        }
    }
    figures::print(format_args!("{table}\n{} mistakes, {} suites wrong", TABLE.len(), wrong.len()));
    assert_eq!(wrong, [], "a suite is red without a mistake, or green with one");
}

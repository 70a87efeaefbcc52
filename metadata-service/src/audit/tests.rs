use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use proto::entropy::SeededEntropy;
use proto::runtime::ManualClock;
use proto::runtime::folder;

use super::file::{FILE_BYTES_MAX, KEPT};
use super::*;

fn event(object: &str) -> Event {
    Event {
        actor: "admin",
        key_id: Some(TokenKeyId::generate(&SeededEntropy::new(1))),
        tenant: "posts".to_owned(),
        method: "/minitectonic.v1.MetadataService/DeleteTenant",
        object: object.to_owned(),
        decision: Decision::Allowed,
        reason: "",
        peer: Some(([127, 0, 0, 1], 7).into()),
        request_id: "r".to_owned(),
    }
}

fn lines(path: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

struct Bench {
    folder: tempfile::TempDir,
    clock: Arc<ManualClock>,
}

impl Bench {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), clock: Arc::new(ManualClock::at(1_700_000_000_123)) }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("audit.log")
    }

    fn open(&self) -> Audit {
        Audit::at(self.path(), Arc::clone(&self.clock) as Arc<dyn Clock>)
    }
}

#[tokio::test]
async fn a_line_says_who_did_what_to_whom_when_and_from_where_in_a_private_file() {
    let bench = Bench::new();
    bench.open().record(event("a\"b\n")).await.unwrap();
    let line = lines(&bench.path()).remove(0);
    let key_id = event("").key_id.unwrap().to_string();
    let expected = serde_json::json!({
        "time": "2023-11-14T22:13:20.123Z", "actor": "admin", "key_id": key_id, "tenant": "posts",
        "method": "/minitectonic.v1.MetadataService/DeleteTenant", "object": "a\"b\n", "decision": "allowed",
        "reason": "", "peer": "127.0.0.1:7", "request_id": "r",
    });
    assert_eq!(line, expected);
    assert_eq!(std::fs::metadata(bench.path()).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn a_restart_goes_on_behind_the_last_line_and_cuts_a_torn_one_off() {
    let bench = Bench::new();
    bench.open().record(event("1")).await.unwrap();
    let mut torn = std::fs::read(bench.path()).unwrap();
    torn.extend_from_slice(b"{\"time\":\"2023-");
    folder::publish(&bench.path(), &torn).unwrap();
    bench.open().record(event("2")).await.unwrap();
    let objects: Vec<_> = lines(&bench.path()).iter().map(|line| line["object"].clone()).collect();
    assert_eq!(objects, ["1", "2"]);
}

#[tokio::test]
async fn texts_of_strangers_are_bounded() {
    let bench = Bench::new();
    bench.open().record(event(&"é".repeat(100_000))).await.unwrap();
    assert_eq!(lines(&bench.path())[0]["object"], "é".repeat(TEXT_CHARS_MAX));
}

#[tokio::test]
async fn a_full_disk_is_told_and_ends_when_there_is_room() {
    let bench = Bench::new();
    std::os::unix::fs::symlink("/dev/full", bench.path()).unwrap();
    let audit = bench.open();
    for _again in 0..2 {
        assert_eq!(audit.record(event("1")).await, Err(AuditError::Full));
    }
    audit.note(event("2")).await;
    std::fs::remove_file(bench.path()).unwrap();
    audit.record(event("3")).await.unwrap();
    assert_eq!(lines(&bench.path()).len(), 1);
}

#[tokio::test]
async fn a_file_that_cannot_be_written_is_no_full_disk() {
    let bench = Bench::new();
    std::fs::create_dir(bench.path()).unwrap();
    assert!(matches!(bench.open().record(event("1")).await, Err(AuditError::Failed(_))));
}

#[tokio::test]
async fn refusals_are_bounded_and_the_next_line_says_how_many_are_missing() {
    let bench = Bench::new();
    let audit = bench.open();
    let refuse = async |count: u64| {
        for _refusal in 0..count {
            audit.refused(|| Event { decision: Decision::Refused, reason: "TOKEN_INVALID", ..event("") }).await;
        }
    };
    refuse(REFUSALS_AT_ONCE + 1_000).await;
    assert_eq!(lines(&bench.path()).len() as u64, REFUSALS_AT_ONCE);
    audit.record(event("1")).await.unwrap();
    let last = lines(&bench.path()).pop().unwrap();
    assert_eq!((&last["object"], &last["refusals_left_out"]), (&"1".into(), &1_000.into()));
    bench.clock.advance(Duration::from_millis(7_500));
    refuse(1_000).await;
    assert_eq!(lines(&bench.path()).len() as u64, REFUSALS_AT_ONCE + 1 + 7);
    bench.clock.advance(Duration::from_secs(3600));
    refuse(1).await;
    assert_eq!(lines(&bench.path()).pop().unwrap()["refusals_left_out"], 1_000 - 7);
}

#[tokio::test]
async fn a_large_file_is_moved_aside_and_the_oldest_one_goes() {
    let bench = Bench::new();
    let aged = |age: usize| bench.path().with_added_extension(age.to_string());
    for age in 1..=KEPT {
        folder::publish(&aged(age), age.to_string().as_bytes()).unwrap();
    }
    bench.open().record(event("first")).await.unwrap();
    let mut whole = std::fs::read(bench.path()).unwrap();
    whole.resize(usize::try_from(FILE_BYTES_MAX).unwrap(), b'\n');
    folder::publish(&bench.path(), &whole).unwrap();
    bench.open().record(event("next")).await.unwrap();
    assert_eq!(lines(&bench.path()).len(), 1);
    assert_eq!(std::fs::read(aged(1)).unwrap(), whole);
    assert_eq!(std::fs::read(aged(KEPT)).unwrap(), (KEPT - 1).to_string().as_bytes());
    assert!(!aged(KEPT + 1).try_exists().unwrap());
    assert_eq!(std::fs::metadata(bench.path()).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn after_a_failed_sync_nothing_more_is_recorded_until_a_restart() {
    let bench = Bench::new();
    std::os::unix::fs::symlink("/dev/null", bench.path()).unwrap();
    let audit = bench.open();
    assert_eq!(audit.record(event("1")).await, Err(AuditError::Latched), "the null device takes bytes and no sync");
    std::fs::remove_file(bench.path()).unwrap();
    assert_eq!(audit.record(event("2")).await, Err(AuditError::Latched));
    assert_eq!(audit.trouble(), Some(AuditError::Latched));
    let restarted = bench.open();
    restarted.record(event("3")).await.unwrap();
    assert_eq!((lines(&bench.path()).len(), restarted.trouble()), (1, None));
}

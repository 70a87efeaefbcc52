use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use tempfile::TempDir;

use super::*;
use crate::runtime::{ManualClock, folder};
use crate::tls::development::Authority;

const HOUR_MS: u64 = 60 * 60 * 1000;
const DAY_MS: u64 = 24 * HOUR_MS;
const NOW_MS: u64 = 1_800_000_000_000;

fn write(folder: &TempDir, name: &str, content: &str) {
    folder::publish(&folder.path().join(name), content.as_bytes()).unwrap();
}

fn issue(folder: &TempDir, until_ms: u64) {
    let authority = Authority::generate(NOW_MS).unwrap();
    let issued = authority.issue(&["localhost".to_owned()], NOW_MS - 30 * DAY_MS, until_ms).unwrap();
    write(folder, "ca.pem", authority.certificate());
    write(folder, "server.pem", &issued.certificate);
    write(folder, "server.key", &issued.key);
}

fn options(folder: &Path) -> TlsOptions {
    TlsOptions { tls_dir: Some(folder.to_path_buf()), ..TlsOptions::default() }
}

fn open(folder: &TempDir, clock: &Arc<ManualClock>) -> Result<Arc<Tls>, TlsError> {
    Tls::open(&options(folder.path()), &NetworkOptions::default(), Arc::<ManualClock>::clone(clock))
}

fn set() -> (TempDir, Arc<ManualClock>) {
    let folder = tempfile::tempdir().unwrap();
    issue(&folder, NOW_MS + 365 * DAY_MS);
    (folder, Arc::new(ManualClock::at(NOW_MS)))
}

fn refused(folder: &TempDir) -> String {
    chain(&open(folder, &Arc::new(ManualClock::at(NOW_MS))).unwrap_err())
}

#[test]
fn a_key_that_others_can_read_is_refused_by_what_to_do() {
    let (folder, clock) = set();
    let key = folder.path().join("server.key");
    for mode in [0o640, 0o604, 0o660, 0o644, 0o610] {
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(
            refused(&folder),
            format!(
                "others can read the private key in {key} (mode {mode:04o}); 'chmod 600 {key}' ends that",
                key = key.display()
            )
        );
    }
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o400)).unwrap();
    assert!(open(&folder, &clock).unwrap().is_on());
}

#[test]
fn files_that_are_not_what_they_should_be_are_named() {
    let (folder, _clock) = set();
    let swap = |name: &str, content: &str, says: &str| {
        let path = folder.path().join(name);
        let before = std::fs::read_to_string(&path).unwrap();
        write(&folder, name, content);
        let said = refused(&folder);
        assert!(said.contains(name) && said.contains(says), "{said}");
        write(&folder, name, &before);
    };
    let other = tempfile::tempdir().unwrap();
    issue(&other, NOW_MS + DAY_MS);
    let read = |folder: &TempDir, name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    swap("server.pem", "nonsense", "holds no certificate");
    swap("server.pem", &read(&folder, "server.key"), "holds no certificate");
    swap("server.key", &read(&folder, "server.pem"), "holds no private key");
    swap("ca.pem", "", "holds no certificate");
    swap("server.key", &read(&other, "server.key"), "is not that of the certificate in");
    std::fs::remove_file(folder.path().join("server.pem")).unwrap();
    assert!(refused(&folder).contains("cannot read"), "{}", refused(&folder));
}

#[test]
fn flags_that_lack_their_counterpart_are_refused() {
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(NOW_MS));
    let file = || Some("file".into());
    for (tls, says) in [
        (TlsOptions { tls_cert: file(), ..TlsOptions::default() }, "--tls-key"),
        (TlsOptions { tls_key: file(), ..TlsOptions::default() }, "--tls-cert"),
        (TlsOptions { tls_client_ca: file(), ..TlsOptions::default() }, "--tls-cert"),
    ] {
        let said = Tls::open(&tls, &NetworkOptions::default(), Arc::clone(&clock)).unwrap_err().to_string();
        assert!(said.contains(says), "{said}");
    }
    let none = Tls::open(&TlsOptions::default(), &NetworkOptions::default(), clock).unwrap();
    assert_eq!((none.is_on(), none.scheme(), none.warnings()), (false, "http", Vec::new()));
}

#[test]
fn an_expired_certificate_is_refused_at_a_start_and_one_that_ends_soon_is_warned_about() {
    let (folder, clock) = set();
    issue(&folder, NOW_MS + 20 * DAY_MS);
    let tls = open(&folder, &clock).unwrap();
    assert_eq!(tls.warnings(), Vec::<String>::new());
    clock.advance(Duration::from_millis(7 * DAY_MS));
    assert_eq!(tls.warnings(), ["the certificate expires in 13 days; replace it"]);
    clock.advance(Duration::from_millis(14 * DAY_MS));
    assert_eq!(tls.warnings(), ["the certificate has expired: nobody can connect. Replace it"]);
    let said = open(&folder, &clock).unwrap_err().to_string();
    assert!(said.contains("server.pem has expired, 24 hours ago"), "{said}");
}

#[test]
fn files_that_cannot_be_used_change_nothing_and_are_told_until_they_can() {
    let (folder, clock) = set();
    let tls = open(&folder, &clock).unwrap();
    let in_use = || tls.server().unwrap();
    let first = in_use();
    assert_eq!(tls.reload(), Reload::Unchanged);
    assert!(Arc::ptr_eq(&first, &in_use()));

    write(&folder, "server.pem", "half a certifi");
    for _look in 0..2 {
        assert_eq!(tls.reload(), Reload::Failed);
        assert!(tls.warnings().first().is_some_and(|words| words.contains("server.pem holds no certificate")));
        assert!(Arc::ptr_eq(&first, &in_use()));
    }
    issue(&folder, NOW_MS - DAY_MS);
    assert_eq!(tls.reload(), Reload::Failed);
    assert!(tls.warnings().first().is_some_and(|words| words.contains("has expired, 24 hours ago")));

    issue(&folder, NOW_MS + 20 * DAY_MS);
    assert_eq!(tls.reload(), Reload::Renewed);
    assert!(!Arc::ptr_eq(&first, &in_use()));
    assert_eq!(tls.warnings(), Vec::<String>::new());
}

#[tokio::test]
async fn the_files_are_looked_at_again_and_again() {
    let (folder, clock) = set();
    let tls = open(&folder, &clock).unwrap();
    let stop = CancellationToken::new();
    let following = super::super::TaskGroup::new();
    let task = following.spawn("certificates", Arc::clone(&tls).follow(Duration::from_millis(5), stop.clone()));
    let first = tls.server().unwrap();
    issue(&folder, NOW_MS + 20 * DAY_MS);
    let renewed = tokio::time::timeout(Duration::from_secs(60), async {
        while Arc::ptr_eq(&first, &tls.server().unwrap()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    renewed.await.unwrap();
    stop.cancel();
    assert!(task.await.unwrap().is_some());
}

//! `fsck` on running services and on a folder that nobody uses: what it says, and how it ends.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use metadata_service::offline::Offline;
use metadata_service::store::engine::{Batch, Decision, EngineExt as _, KeyRange, Row};
use metadata_service::store::keys;
use metadata_service::store::records::UsageRecord;
use metadata_service::store::rows::{BatchExt as _, RowError};
use proto::checksum::crc32c;

use crate::KIB;
use crate::common::{Running, Serve, User, bytes, user_with_services, write};

fn offline(user: &User, more: &str) -> crate::common::Ended {
    user.line(&format!("fsck --storage storage {more}"))
}

#[test]
fn a_sound_store_ends_with_0_online_and_offline_and_a_folder_in_use_is_refused() {
    let (user, serve) = user_with_services();
    user.put("posts", &user.file("in", &bytes(300 * KIB)));
    let said = user.line("fsck").ok();
    assert!(said.contains("1 verified") && said.contains("findings    0"), "{said}");
    offline(&user, "").failed(1, &["in use", "leave --storage away"]);
    drop(serve);
    assert_eq!(offline(&user, "").ok(), said);
    offline(&user, "--quick").ok();
    user.line("fsck --storage nowhere").failed(1, &["nowhere"]);
}

#[test]
fn data_loss_ends_with_7_and_names_the_blob_online_and_offline() {
    let (user, serve) = user_with_services();
    let content = bytes(300 * KIB);
    let id = user.put("posts", &user.file("in", &content));
    let [blob] = serve.chunk_files("blob").try_into().unwrap();
    let mut flipped = content.clone();
    flipped[150_000] ^= 1;
    write(&blob, &flipped);
    let online = user.line("fsck --json");
    online.failed(7, &["data are lost"]);
    let finding: serde_json::Value = serde_json::from_str(online.text().lines().next().unwrap()).unwrap();
    assert_eq!((&finding["kind"], &finding["blob_id"]), (&"DATA_LOST".into(), &id.as_str().into()));
    assert_eq!(finding["tenant_id"], "posts");
    drop(serve);
    let said = offline(&user, "--repair");
    said.failed(7, &["data are lost"]);
    assert!(said.text().contains(&id), "{}", said.text());
    assert!(crate::read(&blob) == flipped, "damaged bytes stay where they are");
    write(&blob, &content);
    offline(&user, "").ok();
}

#[test]
fn a_dry_run_changes_nothing_and_a_repair_offline_writes_the_checksum_file_again() {
    let (user, serve) = user_with_services();
    user.put("posts", &user.file("in", &bytes(300 * KIB)));
    let [chk] = serve.chunk_files("chk").try_into().unwrap();
    let sound = crate::read(&chk);
    write(&chk, b"nonsense");
    drop(serve);
    let dry = offline(&user, "");
    dry.failed(1, &["--repair would repair 1 of these"]);
    assert!(dry.text().contains("CHECKSUM_FILE_BAD") && crate::read(&chk) == b"nonsense", "{}", dry.text());
    offline(&user, "--repair").ok();
    assert!(crate::read(&chk) == sound);
    offline(&user, "").ok();
}

#[test]
fn without_the_admin_s_token_nothing_is_checked() {
    let (user, _serve) = user_with_services();
    let rotated = user.line("rotate-token -t posts");
    let token = rotated.stderr.lines().find_map(|line| line.strip_prefix("token: ")).unwrap();
    user.line(&format!("fsck --token {token}")).failed(4, &["SCOPE_MISSING"]);
    user.line("fsck --after-restore keep").failed(1, &["NOT_RESTORED"]);
    user.line("fsck --after-restore perhaps").failed(2, &["--after-restore"]);
}

/// Everything in a folder and below: names, and what files hold.
fn all_of(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry of it").path();
        if path.is_dir() {
            all.extend(all_of(&path));
            all.insert(path, Vec::new());
        } else {
            all.insert(path.clone(), crate::read(&path));
        }
    }
    all
}

/// A check made a `LOCK`, and a database, in whatever folder it was pointed to.
#[test]
fn a_folder_that_is_not_ours_is_refused_in_words_and_nothing_is_written_to_it() {
    let (user, serve) = user_with_services();
    user.put("posts", &user.file("in", &bytes(KIB)));
    drop(serve);
    let storage = user.path("storage");
    let newer = format!("mini-tectonic metadata v2\ncluster={}\n", crate::NO_SUCH_BLOB);
    let newer = format!("{newer}end crc32c={:08x}\n", crc32c(newer.as_bytes()));
    let holds = |names: &[&str]| {
        std::fs::remove_dir_all(&storage).ok();
        std::fs::create_dir(&storage).unwrap();
        names.iter().for_each(|name| std::fs::create_dir(storage.join(name)).unwrap());
    };
    let refused = |says: &[&str]| {
        let before = all_of(&storage);
        for more in ["", "--quick", "--repair"] {
            offline(&user, more).failed(1, says);
        }
        assert!(all_of(&storage) == before, "{says:?}: something was written");
    };
    let whole = all_of(&storage);
    for (missing, says) in [
        ("metadata/db", "no database (there is no file db in it)"),
        ("metadata/IDENTITY", "has no IDENTITY"),
        ("metadata", "metadata is not there"),
    ] {
        let path = storage.join(missing);
        std::fs::remove_file(&path).or_else(|_folder| std::fs::remove_dir_all(&path)).unwrap();
        refused(&[says, "needs a storage folder"]);
    }
    holds(&["metadata", "chunks"]);
    write(&storage.join("metadata/photo.jpg"), b"mine");
    write(&storage.join("chunks/photo.jpg"), b"mine");
    refused(&["has no IDENTITY", "needs a storage folder"]);
    write(&storage.join("metadata/IDENTITY"), newer.as_bytes());
    refused(&["format version 2", "use a newer program"]);
    holds(&[]);
    for (path, content) in whole.iter().filter(|(path, _)| !path.starts_with(storage.join("chunks"))) {
        match content.is_empty() && path.ends_with("metadata") || path.ends_with("blobs") {
            true => std::fs::create_dir_all(path).unwrap(),
            false => {
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                write(path, content);
            }
        }
    }
    std::fs::create_dir(storage.join("chunks")).unwrap();
    offline(&user, "").failed(1, &["the chunks cannot be checked", "no chunk service has ever finished"]);
    assert_eq!(std::fs::read_dir(storage.join("chunks")).unwrap().count(), 0);
}

async fn open(storage: &Path) -> Offline {
    Offline::open(storage, metadata_service::Tuning::default(), &metadata_service::Deps::default())
        .await
        .expect("it is free")
}

/// Everything that is stored of metadata, after this was written.
fn rows_with(storage: &Path, batch: impl FnOnce(&[Row]) -> Batch) -> Vec<Row> {
    tokio::runtime::Runtime::new().expect("a runtime").block_on(async {
        let offline = open(storage).await;
        let engine = offline.service().engine();
        let all = KeyRange::prefix(b"");
        let batch = batch(&engine.scan(&all, usize::MAX).await.expect("rows can be read"));
        let put = engine.decide(|_view| Ok::<_, RowError>((Decision::frees(batch), ())));
        put.await.expect("rows can be written");
        let rows = engine.scan(&all, usize::MAX).await.expect("rows can be read");
        offline.close().await;
        rows
    })
}

/// Killed after any of its repairs, it is run again, and ends where one that was never killed does.
#[test]
fn a_repair_that_is_killed_half_way_is_finished_by_the_next() {
    const BLOBS: usize = 4;
    let (user, serve) = user_with_services();
    (0..BLOBS).for_each(|n| drop(user.put("posts", &user.file(&format!("in-{n}"), &bytes(KIB)))));
    let checksum_files = serve.chunk_files("chk");
    // Nothing is left to the journal.
    serve.stop();
    let storage = user.path("storage");
    let sound = rows_with(&storage, |_rows| Batch::default());
    let damage = |rows: &[Row]| {
        checksum_files.iter().for_each(|file| std::fs::remove_file(file).unwrap());
        let mut batch = Batch::default();
        let of = |layer: &'static [u8]| rows.iter().filter(move |row| row.0.starts_with(layer));
        let two = of(keys::EXTENTS).take(2);
        of(keys::NAMES).chain(two).chain(of(keys::REVERSE)).for_each(|row| batch.delete(row.0.to_vec()));
        batch.set(keys::usage(&"posts".parse().unwrap()), &UsageRecord::default());
        batch
    };
    // Names, checksum files, extents (missing, put), reverse rows, usage.
    let findings = BLOBS + 2 + (2 + 2) + BLOBS + 1;
    for kill_behind in (0..findings).step_by(2) {
        rows_with(&storage, damage);
        let mut command = user.command();
        command.args(["fsck", "--storage", "storage", "--repair"]).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut killed = Running::start(command);
        let said = BufReader::new(killed.child().stdout.take().unwrap());
        assert_eq!(said.lines().take(kill_behind).map(Result::unwrap).count(), kill_behind);
        killed.child().kill().unwrap();
        killed.wait();
        offline(&user, "--repair");
        // Chunks of blocks without an extent are looked at once that is back.
        offline(&user, "--repair").ok();
        assert!(offline(&user, "").ok().contains("findings    0"), "killed behind {kill_behind}");
        let rows = rows_with(&storage, |_rows| Batch::default());
        assert!(rows == sound, "killed behind {kill_behind}: other rows than before");
        assert!(checksum_files.iter().all(|file| file.is_file()), "killed behind {kill_behind}");
    }
}

#[test]
fn chunks_of_the_time_that_a_restored_backup_lost_are_listed_and_end_with_1_until_they_are_gone() {
    let (user, serve) = user_with_services();
    user.put("posts", &user.file("before", &bytes(KIB)));
    user.line("export --include-secrets --output backup").ok();
    let content = bytes(3 * KIB);
    let lost = user.put("posts", &user.file("after", &content));
    drop(serve);
    std::fs::remove_dir_all(user.path("storage/metadata")).unwrap();
    user.line("import --storage storage backup").ok();
    let listed = |ended: crate::common::Ended| {
        ended.failed(1, &["findings that are not repaired: 1", "--after-restore"]);
        let text = ended.text();
        let lines: Vec<_> = text.lines().filter(|line| line.starts_with("CHUNK_OF_LOST_TIME")).collect();
        assert!(matches!(lines[..], [line] if line.contains(&lost) && line.contains("3072 bytes")), "{text}");
    };
    listed(offline(&user, ""));
    let serve = Serve::start(&user, &user.path("storage"));
    let user = User { endpoint: serve.metadata.clone(), ..user };
    listed(user.line("fsck"));
    user.line("fsck --after-restore keep").ok();
    listed(user.line("fsck --repair"));
}

/// Small chunks are acknowledged from the journal, so behind a kill their files need not hold anything yet. A check that
/// changes nothing cannot know; a repair can.
#[test]
fn behind_a_kill_a_check_asks_for_a_repair_and_the_repair_restores_what_the_journal_holds() {
    let (user, serve) = user_with_services();
    let content = bytes(KIB);
    user.put("posts", &user.file("small", &content));
    let files = [serve.chunk_files("blob"), serve.chunk_files("chk")].concat();
    drop(serve);
    files.iter().for_each(|file| write(file, b""));
    offline(&user, "").failed(1, &["journal holds 1 chunk", "--repair"]);
    assert!(offline(&user, "--repair").ok().contains("findings    0"));
    assert!(offline(&user, "").ok().contains("findings    0"));
    assert!(crate::read(&files[0]) == content);
}

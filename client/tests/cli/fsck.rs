//! `fsck` on running services and on a folder that nobody uses: what it says, and how it ends.

use crate::KIB;
use crate::common::{User, bytes, user_with_services, write};

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
    dry.failed(1, &["1 of these would be repaired by --repair"]);
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

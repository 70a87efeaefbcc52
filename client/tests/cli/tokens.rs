//! `token`: with real services.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::common::{Serve, User, run_to_end, user_with_services};

fn with_token(user: &User, token: &str, line: &str) -> crate::common::Ended {
    let mut command = user.command();
    command.args(line.split_whitespace()).env("MINI_TECTONIC_TOKEN", token);
    run_to_end(command, Vec::new())
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("the file is there").permissions().mode() & 0o777
}

#[test]
fn a_token_does_what_its_scopes_say_and_is_listed_and_revoked() {
    let (user, _serve) = user_with_services();
    let id = user.put("posts", &user.file("in", b"hello"));
    let made = user.line("token create -t posts --scope read,list --expires 30d");
    let token = made.ok();
    assert!(token.starts_with("mt1.") && made.stderr.contains("good for read, list until "), "{made:?}");
    let (get, list) = (format!("get -t posts -b {id}"), "list-blobs -t posts");
    assert_eq!(with_token(&user, &token, &get).ok(), "hello");
    with_token(&user, &token, list).ok();
    with_token(&user, &token, "put -t posts -f in").failed(4, &["SCOPE_MISSING", "scope write"]);
    with_token(&user, &token, &format!("delete -t posts -b {id}")).failed(4, &["SCOPE_MISSING", "scope delete"]);
    with_token(&user, &token, "token create -t posts").failed(4, &["SCOPE_MISSING", "write, delete"]);

    let listed = user.line("token list -t posts").ok();
    let rows: Vec<Vec<&str>> = listed.lines().map(|line| line.split('\t').collect()).collect();
    assert_eq!(rows.len(), 2);
    assert_eq!((rows[0][1], rows[0][3], rows[0][4]), ("read,write,delete,list", "never", "main"));
    assert_eq!((rows[1][1], rows[1][4]), ("read,list", "more"));
    let key_id = token.split('.').nth(1).unwrap();
    assert_eq!(rows[1][0], key_id);
    assert!(!listed.contains(token.split('.').nth(2).unwrap()), "no secret");

    assert_eq!(user.line(&format!("token revoke -t posts {key_id}")).ok(), "");
    with_token(&user, &token, &get).failed(4, &["TOKEN_INVALID"]);
    user.line(&format!("token revoke -t posts {key_id}")).failed(2, &["names no token of this tenant"]);
    user.line("token revoke -t posts nonsense").failed(2, &["16 hex digits"]);
    user.line("token create -t nobody").failed(3, &["TENANT_NOT_FOUND"]);
    for bad in ["token create", "token create -t posts --join", "token create -t posts --scope fly", "token rotate"] {
        assert_eq!(user.line(bad).code, Some(2), "{bad}");
    }
}

#[test]
fn a_token_that_has_expired_is_told_so() {
    let (user, _serve) = user_with_services();
    let token = user.line("token create -t posts --expires 1s").ok();
    let ended = crate::common::wait_until("it has expired", || {
        let listed = with_token(&user, &token, "list-blobs -t posts");
        (listed.code != Some(0)).then_some(listed)
    });
    ended.failed(4, &["TOKEN_EXPIRED", "token create -t"]);
}

#[test]
fn a_token_can_be_kept_or_written_to_a_private_file_instead_of_being_shown() {
    let (user, _serve) = user_with_services();
    let saved = user.line("token create -t posts --save --scope list");
    let key_id = saved.ok();
    assert_eq!(key_id.len(), 16);
    assert!(std::fs::read_to_string(user.credentials()).unwrap().contains(&key_id));
    user.file("in", b"x");
    user.line("put -t posts -f in").failed(4, &["scope write"]);
    let revoked = user.line(&format!("token revoke -t posts {key_id}"));
    assert!(revoked.code == Some(0) && revoked.stderr.starts_with("warning: "), "{revoked:?}");

    let written = user.line("token create -t posts -o posts.token --json").json();
    assert_eq!(written.get("token"), None);
    assert_eq!(mode(&user.path("posts.token")), 0o600);
    user.line("put -t posts -f in --token-file posts.token").ok();
    let shown = user.line("token create -t posts --scope read --json").json();
    assert!(shown["token"].as_str().unwrap().starts_with("mt1.") && shown["scopes"][0] == "read");
}

#[test]
fn tokens_rotate_a_tenants_and_the_admins() {
    let (user, serve) = user_with_services();
    let file = serve.storage.join("admin.token");
    let before = std::fs::read_to_string(&file).unwrap();
    let rotated = user.line("token rotate --admin --json");
    assert_eq!(rotated.json()["file_written"], true);
    let after = std::fs::read_to_string(&file).unwrap();
    assert!(before != after && mode(&file) == 0o600);
    assert!(std::fs::read_to_string(user.credentials()).unwrap().contains(after.trim()));
    user.line("status").ok();
    with_token(&user, before.trim(), "status").ok();
    with_token(&user, before.trim(), "token rotate --admin").failed(4, &["SCOPE_MISSING", "was rotated"]);
    user.line("token rotate --admin --overlap 0s").ok();
    with_token(&user, after.trim(), "status").failed(4, &["TOKEN_EXPIRED"]);
    user.line("status").ok();

    let rotated = user.line("token rotate -t posts");
    assert!(rotated.code == Some(0) && rotated.stderr.contains("token: mt1."), "{rotated:?}");
    assert_eq!(user.line("token list -t posts --json").text().lines().count(), 2);
}

#[test]
fn a_join_token_is_shown_or_written_to_a_private_file() {
    let (user, serve) = user_with_services();
    let used = serve.storage.join("join.token");
    user.line("token create --join -o node.token --expires 1h").ok();
    assert_eq!(mode(&user.path("node.token")), 0o600);
    assert_ne!(std::fs::read(&used).unwrap(), std::fs::read(user.path("node.token")).unwrap());
    assert!(user.line("token create --join").ok().starts_with("mj1."));
}

#[test]
fn without_authentication_anybody_may_do_anything_and_status_says_so() {
    let user = User::of("http://127.0.0.1:1");
    let free = ["--metadata-listen", "127.0.0.1:0", "--chunk-listen", "127.0.0.1:0", "--insecure-no-auth"];
    let serve = Serve::start_with(&user, &user.path("storage"), &free);
    let stranger = User::of(&serve.metadata);
    with_token(&stranger, "none", "register-tenant -q -t posts").ok();
    stranger.file("in", b"hello");
    let id = with_token(&stranger, "none", "put -t posts -f in").ok();
    assert_eq!(with_token(&stranger, "none", &format!("get -t posts -b {id}")).ok(), "hello");
    assert!(with_token(&stranger, "none", "status").ok().contains("authentication is off"));
    let log = std::fs::read_to_string(user.path("serve.log")).unwrap();
    assert!(log.contains("authentication is off"));
    let open = "serve --storage other --metadata-listen 0.0.0.0:0 --chunk-listen 127.0.0.1:0 --insecure-no-auth \
                --insecure-plaintext";
    stranger.line(open).failed(1, &["refusing to listen", "--insecure-no-auth"]);
}

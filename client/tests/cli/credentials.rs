//! Which credential a call takes, where tokens are kept, and what is said when they do not do.

use std::os::unix::fs::PermissionsExt as _;

use rustix::process::Signal;

use crate::common::{Serve, User, run_to_end, user_with_services, write};

#[test]
fn the_token_is_shown_once_and_kept_in_a_private_file() {
    let (user, _serve) = user_with_services();
    let registered = user.line("register-tenant -t likes");
    assert_eq!(registered.ok(), "likes");
    let token = registered.stderr.lines().find_map(|line| line.strip_prefix("token: ")).unwrap();
    assert!(token.starts_with("mt1."));
    let kept = std::fs::read_to_string(user.credentials()).unwrap();
    assert!(kept.contains(token));
    assert_eq!(std::fs::metadata(user.credentials()).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(user.line("register-tenant -q -t quiet").stderr, "");

    let rotated = user.line("rotate-token -t likes");
    assert_eq!(rotated.ok(), "");
    let fresh = rotated.stderr.lines().find_map(|line| line.strip_prefix("token: ")).unwrap();
    assert_ne!(fresh, token);
    for token in [token, fresh] {
        assert_eq!(user.run(["list-blobs", "-t", "likes", "--token", token]).code, Some(0), "both are valid");
    }
    user.line("delete-tenant -t likes").ok();
    assert!(!std::fs::read_to_string(user.credentials()).unwrap().contains("likes"));
}

#[test]
fn credentials_that_do_not_do_end_with_4() {
    let (user, serve) = user_with_services();
    let id = user.put("posts", &user.file("in", b"x"));
    user.line("put -t nobody -f in").failed(4, &["no credential for tenant nobody", "register-tenant -t nobody"]);
    let stranger = User::of(&serve.metadata);
    stranger.line("list-tenants").failed(4, &["no admin credential", "admin.token"]);
    let get = format!("get -t posts -b {id}");
    stranger.line(&get).failed(4, &["no credential for tenant posts"]);
    stranger.line(&format!("{get} --token nonsense")).failed(4, &["TOKEN_INVALID", "--token"]);
    let admin = serve.storage.join("admin.token");
    let admin = admin.to_str().unwrap();
    user.line(&format!("{get} --token-file {admin}")).failed(4, &["SCOPE_MISSING", "the tenant's own token"]);
    user.line("register-tenant -t likes").ok();
    let tenant = token_of(&user, "likes");
    user.line(&format!("list-tenants --token {tenant}")).failed(4, &["SCOPE_MISSING"]);
    // Another tenant's blob is as if it were not there, and so is another tenant.
    user.line(&format!("get -t likes -b {id}")).failed(3, &["BLOB_NOT_FOUND"]);
    user.line(&format!("{get} --token {tenant}")).failed(3, &["TENANT_NOT_FOUND"]);
    user.line(&format!("list-blobs -t posts --token {tenant}")).failed(3, &["TENANT_NOT_FOUND"]);
    user.line(&format!("put -t posts -f in --token {tenant}")).failed(3, &["TENANT_NOT_FOUND"]);
    user.line(&format!("delete -t posts -b {id} --token {tenant}")).failed(3, &["TENANT_NOT_FOUND"]);
}

fn token_of(user: &User, tenant: &str) -> String {
    let kept = std::fs::read_to_string(user.credentials()).expect("there is a credentials file");
    let kept: toml::Value = toml::from_str(&kept).expect("it is TOML");
    let path = ["endpoints", &user.endpoint, "tenants", tenant, "token"];
    let token = path.into_iter().try_fold(&kept, |found, key| found.get(key));
    token.and_then(toml::Value::as_str).expect("it has the tenant's token").to_owned()
}

#[test]
fn flags_come_before_the_environment_and_that_before_the_file() {
    let (user, _serve) = user_with_services();
    let token = token_of(&user, "posts");
    let (good, bad) = (user.file("good.token", format!("{token}\n").as_bytes()), user.file("bad.token", b"nonsense"));
    let (good, bad) = (good.to_str().unwrap(), bad.to_str().unwrap());
    let list = |flags: &[&str], variables: &[(&str, &str)]| {
        let mut command = user.command();
        command.args(["list-blobs", "-t", "posts"]).args(flags).envs(variables.iter().copied());
        run_to_end(command, Vec::new()).code
    };
    let (variable, file_variable) = ("MINI_TECTONIC_TOKEN", "MINI_TECTONIC_TOKEN_FILE");
    assert_eq!(list(&["--token", &token, "--token-file", bad], &[(variable, "nonsense")]), Some(0));
    assert_eq!(list(&["--token-file", good], &[(variable, "nonsense"), (file_variable, bad)]), Some(0));
    assert_eq!(list(&[], &[(variable, &token), (file_variable, bad)]), Some(0));
    assert_eq!(list(&[], &[(file_variable, good)]), Some(0));
    assert_eq!(list(&[], &[(variable, "")]), Some(0), "an empty variable is none");
    assert_eq!(list(&[], &[(file_variable, bad)]), Some(4));
    assert_eq!(list(&["--token-file", "missing"], &[]), Some(1));
    assert_eq!(list(&["--endpoint", &user.endpoint], &[("MINI_TECTONIC_ENDPOINT", "http://127.0.0.1:1")]), Some(0));
}

#[test]
fn a_damaged_credentials_file_is_told_of() {
    let (user, _serve) = user_with_services();
    write(&user.credentials(), b"version = 1\nnot toml");
    user.line("list-blobs -t posts").failed(1, &["credentials.toml", "line 2", "was not changed"]);
}

/// Tokens in a file that others could read were used all the same, at most with a warning that nobody had to see.
#[test]
fn files_of_tokens_that_others_can_read_are_refused() {
    let (user, serve) = user_with_services();
    let tokens = [
        ("list-blobs -t posts", user.credentials()),
        ("list-blobs -t posts --token-file own.token", user.file("own.token", token_of(&user, "posts").as_bytes())),
        ("list-tenants --token-file storage/admin.token", serve.storage.join("admin.token")),
    ];
    for (line, path) in tokens {
        for (mode, told) in [(0o640, "0640"), (0o604, "0604"), (0o666, "0666")] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let advice = format!("'chmod 600 {}'", path.file_name().unwrap().to_str().unwrap());
            let refused = user.line(line);
            refused.failed(1, &["others can read", &format!("(mode {told})"), "'chmod 600 "]);
            assert!(refused.stderr.contains(advice.trim_start_matches("'chmod 600 ")), "{}", refused.stderr);
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        user.line(line).ok();
    }
}

#[test]
fn a_token_of_another_cluster_is_told_of() {
    let (user, mut serve) = user_with_services();
    let address = serve.metadata.strip_prefix("http://").unwrap().to_owned();
    serve.process.signal(Signal::KILL);
    serve.process.wait();
    let flags = ["--metadata-listen", &address, "--chunk-listen", "127.0.0.1:0"];
    let _other = Serve::start_with(&user, &user.path("other"), &flags);
    user.line("list-blobs -t posts").failed(4, &["TOKEN_INVALID", "now another cluster"]);
}

/// `serve` keeps its token under `http://127.0.0.1:PORT`; who then wrote `localhost` was told that there was none.
#[test]
fn localhost_and_its_address_are_the_same_endpoint() {
    let (mut user, serve) = user_with_services();
    user.endpoint = serve.metadata.replace("127.0.0.1", "localhost");
    let id = user.put("posts", &user.file("in", b"hello"));
    user.line("register-tenant -t likes").ok();
    user.line("rotate-token -t posts -q").ok();
    user.line("rotate-token -t posts -q").ok();
    user.endpoint.clone_from(&serve.metadata);
    assert_eq!(user.line(&format!("get -t posts -b {id}")).ok(), "hello");
    user.line("list-blobs -t likes").ok();
}

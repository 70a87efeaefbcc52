//! TLS by the command line: certificates, the whole job over them, and what is said when something is wrong with them.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use rustix::process::Signal;

use super::common::{Running, Serve, User, bytes, wait_until};
use super::{MIB, read};

const FREE: [&str; 6] = ["--tls-dir", "certs", "--metadata-listen", "127.0.0.1:0", "--chunk-listen", "127.0.0.1:0"];

/// A user whose services speak TLS, with a certificate that `certs` made.
fn user_with_tls() -> (User, Serve) {
    let mut user = User::of("http://127.0.0.1:1");
    user.line("certs").ok();
    let serve = Serve::start_with(&user, &user.path("storage"), &FREE);
    user.endpoint.clone_from(&serve.metadata);
    user.line("register-tenant -t posts --tls-ca certs/ca.pem").ok();
    (user, serve)
}

fn log(user: &User) -> String {
    std::fs::read_to_string(user.path("serve.log")).expect("it has a log")
}

#[test]
fn the_whole_job_is_done_over_tls() {
    let (user, serve) = user_with_tls();
    assert!(serve.metadata.starts_with("https://127.0.0.1:") && serve.chunk.starts_with("https://127.0.0.1:"));
    let trusting = |line: &str| user.line(&format!("{line} --tls-ca certs/ca.pem"));
    let content = bytes(3 * MIB);
    user.file("in", &content);
    let id = trusting("put -t posts -f in").ok();
    assert!(trusting(&format!("get -t posts -b {id}")).stdout == content);
    assert!(trusting("list-blobs -t posts").ok().starts_with(&id));
    // Verifying is asked by the metadata service of the chunk service, which wants to see its certificate.
    assert_eq!(trusting("fsck").code, Some(0));
    trusting(&format!("delete -t posts -b {id} -y")).ok();
    trusting(&format!("get -t posts -b {id}")).failed(3, &["BLOB_NOT_FOUND"]);
    let status = trusting("status --json").json();
    assert!(status["connections"]["accepted_count"].as_u64().unwrap() > 5);
    assert!(trusting("status").ok().contains(" open, "));
    assert_eq!(status["warnings"].as_array().map(Vec::len), Some(0), "{status}");
}

#[test]
fn an_unknown_authority_another_host_and_the_wrong_scheme_are_told_with_what_to_do() {
    let (user, serve) = user_with_tls();
    user.line("certs --out other").ok();
    let list = |endpoint: &str, authority: &str| {
        let mut command = user.command();
        command.args(["list-tenants", "--endpoint", endpoint, "--tls-ca", authority, "--token", "any"]);
        super::run_to_end(command, Vec::new())
    };
    let unknown = list(&serve.metadata, "other/ca.pem");
    unknown.failed(6, &["an authority that is not trusted here", "--tls-ca"]);
    let plain = list(&serve.metadata.replace("https://", "http://"), "certs/ca.pem");
    plain.failed(6, &["the port speaks TLS", "https://"]);
    list(&serve.metadata, "missing.pem").failed(2, &["missing.pem", "No such file"]);
    list(&serve.metadata, "certs/ca.key").failed(2, &["certs/ca.key", "no certificate"]);
    drop(serve);

    // TLS lets a service listen where others reach it, under every address of this machine.
    let flags = ["--tls-dir", "certs", "--metadata-listen", "0.0.0.0:0", "--chunk-listen", "0.0.0.0:0"];
    let serve = Serve::start_with(&user, &user.path("storage"), &flags);
    let another = list(&serve.metadata.replace("127.0.0.1", "127.0.0.9"), "certs/ca.pem");
    another.failed(6, &["is for localhost, 127.0.0.1", "not for 127.0.0.9", "--host NAME"]);

    let unencrypted = User::of("http://127.0.0.1:1");
    let serve = Serve::start(&unencrypted, &unencrypted.path("storage"));
    let encrypted = list(&serve.metadata.replace("http://", "https://"), "certs/ca.pem");
    encrypted.failed(6, &["does not speak TLS", "http://"]);
}

#[test]
fn a_token_does_not_leave_this_machine_unencrypted_unless_somebody_says_so() {
    let user = User::of("http://192.0.2.1:1");
    let refused = user.line("list-tenants --token any");
    refused.failed(2, &["http://192.0.2.1:1", "no token is sent there", "https://", "--insecure-plaintext"]);
}

#[test]
fn services_refuse_keys_that_others_can_read_expired_certificates_and_open_addresses() {
    let user = User::of("http://127.0.0.1:1");
    user.line("certs").ok();
    let serve = |flags: &str| user.line(&format!("serve --storage storage {flags} --chunk-listen 127.0.0.1:0"));
    let key = user.path("certs/server.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let tls = "--metadata-listen 127.0.0.1:0 --tls-dir certs";
    serve(tls).failed(1, &["others can read the private key", "chmod 600"]);
    user.line("certs --renew --valid 0s").ok();
    serve(tls).failed(1, &["server.pem has expired", "certs --renew"]);
    serve("--metadata-listen 0.0.0.0:0").failed(1, &["refusing to listen", "--tls-cert", "--insecure-plaintext"]);
}

#[test]
fn certs_overwrites_nothing_and_renews_under_the_same_authority() {
    let user = User::of("http://127.0.0.1:1");
    user.line("certs --renew").failed(1, &["there is no authority", "ca.key"]);
    user.line("certs --host db.example.org --host 10.0.0.1").ok();
    let files = || ["ca.pem", "ca.key", "server.pem", "server.key"].map(|name| read(&user.path("certs").join(name)));
    for name in ["ca.key", "server.key"] {
        let mode = std::fs::metadata(user.path("certs").join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let before = files();
    user.line("certs").failed(1, &["is there already", "--renew"]);
    assert!(files() == before, "nothing was changed");
    user.line("certs --renew").ok();
    let after = files();
    assert!(before[..2] == after[..2] && before[2] != after[2] && before[3] != after[3]);
    user.line("certs --out elsewhere --host not/a*name")
        .failed(1, &["cannot make a certificate", "'not/a*name' is neither"]);
}

#[test]
fn certificates_are_renewed_under_an_open_put_and_bad_ones_are_told() {
    let (user, serve) = user_with_tls();
    let (first, second) = (bytes(2 * MIB), bytes(3 * MIB));
    let mut command = user.command();
    command.args(["put", "-t", "posts", "-f", "-", "--tls-ca", "certs/ca.pem"]);
    let log_of_put = std::fs::File::options().create(true).append(true).open(user.path("put.log")).unwrap();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log_of_put);
    let mut put = Running::start(command);
    put.child().stdin.as_mut().unwrap().write_all(&first).unwrap();
    wait_until("the put has begun", || (!serve.chunk_files("blob").is_empty()).then_some(()));

    user.line("certs --renew").ok();
    serve.process.signal(Signal::HUP);
    let renewed = || log(&user).matches("new certificate files are in use").count() == 2;
    wait_until("both services use the new one", || renewed().then_some(()));
    put.child().stdin.take().unwrap().write_all(&second).unwrap();
    assert_eq!(put.wait().code(), Some(0), "{}", std::fs::read_to_string(user.path("put.log")).unwrap());
    let mut id = String::new();
    std::io::Read::read_to_string(&mut put.child().stdout.take().unwrap(), &mut id).unwrap();
    let got = user.line(&format!("get -t posts -b {} --tls-ca certs/ca.pem", id.trim()));
    assert!(got.stdout == [first, second].concat());

    user.file("certs/server.pem", b"half a certifi");
    serve.process.signal(Signal::HUP);
    wait_until("status says so", || {
        let status = user.line("status --tls-ca certs/ca.pem").ok();
        status.contains("server.pem holds no certificate in PEM form").then_some(())
    });
    assert!(log(&user).contains("the former ones stay in use"));
}

//! The real program, started as an operator starts it.

#![expect(clippy::unwrap_used, clippy::panic, reason = "these are tests: a panic is how they fail")]

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, Command};

const DEADLINE: Duration = Duration::from_secs(60);

fn program(storage: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_metadata-service"));
    command.arg("--storage").arg(storage).args(["--listen", "127.0.0.1:0"]).args(arguments);
    command.env_remove("MINI_TECTONIC_STORAGE").env_remove("MINI_TECTONIC_METADATA_LISTEN");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// Starts the program and returns it with the URL of its ready line.
async fn started(mut command: Command) -> (Child, String) {
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    tokio::time::timeout(DEADLINE, output.read_line(&mut line)).await.unwrap().unwrap();
    let url = line.strip_prefix("ready metadata=").and_then(|rest| rest.strip_suffix('\n'));
    let url = url.unwrap_or_else(|| panic!("no ready line but {line:?}")).to_owned();
    (child, url)
}

fn signal(child: &Child, signal: rustix::process::Signal) {
    let id = rustix::process::Pid::from_raw(child.id().unwrap().try_into().unwrap()).unwrap();
    rustix::process::kill_process(id, signal).unwrap();
}

/// Waits for the end; returns exit code and what was said on standard error.
async fn ended(mut child: Child) -> (Option<i32>, String) {
    let mut said = String::new();
    let mut errors = child.stderr.take().unwrap();
    let (read, status) =
        tokio::time::timeout(DEADLINE, async { tokio::join!(errors.read_to_string(&mut said), child.wait()) })
            .await
            .unwrap();
    read.unwrap();
    (status.unwrap().code(), said)
}

async fn run(mut command: Command) -> (Option<i32>, String) {
    ended(command.spawn().unwrap()).await
}

/// SIGHUP ended a service that had no certificates to read again.
#[tokio::test]
async fn it_says_when_it_is_ready_outlives_a_hangup_and_ends_cleanly_on_both_signals() {
    let folder = tempfile::tempdir().unwrap();
    for signal_sent in [rustix::process::Signal::TERM, rustix::process::Signal::INT] {
        let (child, url) = started(program(folder.path(), &[])).await;
        let address: std::net::SocketAddr = url.strip_prefix("http://").unwrap().parse().unwrap();
        assert!(address.ip().is_loopback() && address.port() != 0, "{url}");
        assert!(tokio::net::TcpStream::connect(address).await.is_ok());
        signal(&child, rustix::process::Signal::HUP);
        signal(&child, signal_sent);
        let (code, said) = ended(child).await;
        assert_eq!(code, Some(0), "{said}");
    }
}

#[tokio::test]
async fn an_open_connection_does_not_hold_the_end_up_beyond_the_drain() {
    let folder = tempfile::tempdir().unwrap();
    let (child, url) = started(program(folder.path(), &["--drain", "100ms"])).await;
    let silent = tokio::net::TcpStream::connect(url.strip_prefix("http://").unwrap()).await.unwrap();
    signal(&child, rustix::process::Signal::TERM);
    let (code, said) = ended(child).await;
    assert!(code.is_some(), "{said}");
    drop(silent);
}

/// A shell gave the service 1,024 descriptors although it might have had many more, and a few hundred clients took them
/// all.
#[tokio::test]
async fn it_takes_as_many_descriptors_as_it_may_have() {
    let folder = tempfile::tempdir().unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -Sn 256 && exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_metadata-service")]);
    shell.arg("--storage").arg(folder.path()).args(["--listen", "127.0.0.1:0"]);
    shell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let (child, _url) = started(shell).await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", child.id().unwrap())).unwrap();
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let (soft, hard) = files.trim().split_once(' ').unwrap();
    assert_eq!(Some(soft), hard.split_whitespace().next(), "{files}");
    signal(&child, rustix::process::Signal::TERM);
    assert_eq!(ended(child).await.0, Some(0));
}

#[tokio::test]
async fn help_explains_and_wrong_flags_end_with_two() {
    let folder = tempfile::tempdir().unwrap();
    let output = program(folder.path(), &["--help"]).output().await.unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    for said in ["--storage", "MINI_TECTONIC_METADATA_LISTEN", "--upload-lease", "join.token", "Example", "exit code"] {
        assert!(help.contains(said), "{said} is missing in\n{help}");
    }
    for wrong in [["--listen", "nowhere"], ["--upload-lease", "soon"], ["--block-bytes", "much"], ["--nonsense", "x"]] {
        assert_eq!(run(program(folder.path(), &wrong)).await.0, Some(2), "{wrong:?}");
    }
}

#[tokio::test]
async fn what_is_in_use_is_named_in_one_line() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (first, url) = started(program(folder.path(), &[])).await;
    let address = url.strip_prefix("http://").unwrap();

    let (code, said) = run(program(folder.path(), &["--log-format", "json"])).await;
    assert_eq!(code, Some(1));
    assert!(said.contains("is in use by another process"), "{said}");

    let mut same_port = Command::new(env!("CARGO_BIN_EXE_metadata-service"));
    same_port.arg("--storage").arg(other.path()).args(["--listen", address]);
    same_port.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let (code, said) = run(same_port).await;
    assert_eq!((code, said.lines().count()), (Some(1), 1), "{said}");
    assert!(said.contains(address) && said.contains("in use"), "{said}");
    assert!(!other.path().join("metadata").try_exists().unwrap(), "nothing is made before the port is there");

    signal(&first, rustix::process::Signal::TERM);
    assert_eq!(ended(first).await.0, Some(0));
}

#[tokio::test]
async fn an_address_that_others_reach_must_be_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_metadata-service"));
    command.arg("--storage").arg(folder.path()).args(["--listen", "0.0.0.0:0"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let (code, said) = run(command).await;
    assert_eq!(code, Some(1));
    assert!(said.contains("--insecure-plaintext"), "{said}");
}

#[tokio::test]
async fn i18_no_secret_is_logged() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = program(folder.path(), &[]);
    command.env("RUST_LOG", "trace");
    let (child, _url) = started(command).await;
    signal(&child, rustix::process::Signal::TERM);
    let (code, said) = ended(child).await;
    assert_eq!(code, Some(0));
    for name in ["admin.token", "join.token"] {
        let token = std::fs::read_to_string(folder.path().join(name)).unwrap();
        let secret = token.split('.').nth(2).unwrap();
        assert!(!said.contains(secret), "the secret of {name} was logged");
    }
}

//! The binary as a person runs it.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{Client, World, pattern};
use crate::peer::Peer;

/// A running binary; killed when it is dropped.
struct Process {
    child: Child,
    endpoint: String,
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.child.kill() {
            assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
        }
        self.child.wait().unwrap();
    }
}

/// The binary in its surroundings, told by variables; flags win over them.
pub(crate) fn command(world: &World) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chunk-service"));
    command.env("MINI_TECTONIC_STORAGE", &world.config.storage);
    command.env("MINI_TECTONIC_METADATA", &world.config.metadata);
    command.env("MINI_TECTONIC_CHUNK_LISTEN", "127.0.0.1:0");
    command.env("MINI_TECTONIC_CHUNK_LOW_WATERMARK", "0").env("RUST_LOG", "warn");
    command
}

/// Starts the binary and waits for its one line; the runtime goes on meanwhile, since the peer lives there.
async fn start(world: &World) -> Process {
    let mut child = command(world).stdout(Stdio::piped()).spawn().unwrap();
    let out = child.stdout.take().unwrap();
    let line = tokio::task::spawn_blocking(move || {
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line).unwrap();
        line
    });
    let line = line.await.unwrap();
    let endpoint = line.strip_prefix("ready chunk=").unwrap_or_else(|| panic!("{line:?}")).trim_end().to_owned();
    Process { child, endpoint }
}

pub(crate) async fn run_to_end(mut command: Command) -> (Option<i32>, String) {
    let run = tokio::task::spawn_blocking(move || command.output().unwrap());
    let output = run.await.unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

fn signal(process: &Process, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(process.child.id()).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

/// SIGHUP ended a service that had no certificates to read again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_but_a_hangup_stops_it_with_success_and_what_it_stored_is_there_after_a_restart() {
    let world = World::prepare().await;
    let (place, bytes) = (Peer::place(), pattern(300_000));
    let mut process = start(&world).await;
    world.peer.open(&place);
    let client = Client::connect(process.endpoint.clone()).await;
    client.put(&place, &world.peer.may_write(place, 300_000), &bytes).await.unwrap();
    for stop in [Signal::TERM, Signal::INT] {
        signal(&process, Signal::HUP);
        signal(&process, stop);
        let status = tokio::task::spawn_blocking(move || process.child.wait().unwrap()).await.unwrap();
        assert_eq!(status.code(), Some(0), "{stop:?}");
        process = start(&world).await;
        let client = Client::connect(process.endpoint.clone()).await;
        let read = client.read(&place, &world.peer.may_read(place, &bytes), 0, 0).await.unwrap();
        assert!(read == bytes);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_in_the_middle_it_keeps_what_it_acknowledged_and_coreutils_agree() {
    let world = World::prepare().await;
    let bytes = pattern(100_000);
    let mut acknowledged = Vec::new();
    for _ in 0..3 {
        let process = start(&world).await;
        let client = Client::connect(process.endpoint.clone()).await;
        let writing = tokio::spawn({
            let (peer, bytes) = (world.peer.clone(), bytes.clone());
            async move {
                let mut done = Vec::new();
                loop {
                    let place = Peer::place();
                    peer.open(&place);
                    match client.put(&place, &peer.may_write(place, 100_000), &bytes).await {
                        Ok(_) => done.push(place),
                        Err(_) => return done,
                    }
                }
            }
        });
        let before = acknowledged.len();
        crate::harness::wait_until("some chunks are stored", async || {
            std::fs::read_dir(world.chunks()).unwrap().count() > 4 * before + 20
        })
        .await;
        drop(process);
        acknowledged.extend(writing.await.unwrap());
    }
    let process = start(&world).await;
    let client = Client::connect(process.endpoint.clone()).await;
    assert!(acknowledged.len() > 10, "{}", acknowledged.len());
    for place in &acknowledged {
        let read = client.read(place, &world.peer.may_read(*place, &bytes), 0, 0).await.unwrap();
        assert!(read == bytes);
    }
    let check = "sha256sum -c --quiet *.chk";
    let sums = Command::new("sh").args(["-c", check]).current_dir(world.chunks()).output().unwrap();
    assert!(sums.status.success(), "{}", String::from_utf8_lossy(&sums.stderr));
    let mut damaged = bytes.clone();
    damaged[5] ^= 1;
    std::fs::write(world.blob_path(&acknowledged[0]), damaged).unwrap();
    let sums = Command::new("sh").args(["-c", check]).current_dir(world.chunks()).output().unwrap();
    assert!(!sums.status.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_start_says_why_and_exits_with_one() {
    let world = World::prepare().await;
    let process = start(&world).await;
    let address = process.endpoint.trim_start_matches("http://").to_owned();
    let with = |arguments: &[&str]| {
        let mut command = command(&world);
        command.args(arguments);
        command
    };
    let other = tempfile::tempdir().unwrap();
    let other = other.path().to_str().unwrap();
    for (what, run, says) in [
        ("folder in use", with(&[]), "in use by another process"),
        ("port in use", with(&["--listen", &address, "--storage", other]), "is the port in use"),
        ("network", with(&["--listen", "0.0.0.0:0", "--storage", other]), "--insecure-plaintext"),
        ("not a URL", with(&["--metadata", "not a url", "--storage", other]), "--metadata"),
        ("a file", with(&["--storage", "/dev/null"]), "the data folder cannot be used"),
    ] {
        let (code, error) = run_to_end(run).await;
        assert_eq!(code, Some(1), "{what}: {error}");
        assert!(error.contains(says), "{what}: {error}");
    }
    let (code, error) = run_to_end(with(&["--stream-stall", "soon"])).await;
    assert_eq!(code, Some(2), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_for_the_metadata_service_it_can_be_stopped() {
    let mut world = World::prepare().await;
    world.stop_metadata().await;
    let child = command(&world).stdout(Stdio::piped()).spawn().unwrap();
    let mut process = Process { child, endpoint: String::new() };
    crate::harness::wait_until("it has begun", async || world.chunks().join("node.key").exists()).await;
    signal(&process, Signal::TERM);
    let mut out = process.child.stdout.take().unwrap();
    let (status, said) = tokio::task::spawn_blocking(move || {
        let mut said = String::new();
        out.read_to_string(&mut said).unwrap();
        (process.child.wait().unwrap(), said)
    })
    .await
    .unwrap();
    assert_eq!((status.code(), said.as_str()), (Some(0), ""));
}

#[test]
fn help_names_every_setting_and_its_variable() {
    let output = Command::new(env!("CARGO_BIN_EXE_chunk-service")).arg("--help").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    for flag in [
        "--storage",
        "--listen",
        "--metadata",
        "--join-token-file",
        "--advertise",
        "--failure-domain",
        "--drain",
        "--log-format",
        "--insecure-plaintext",
        "--stream-stall",
    ] {
        assert!(help.contains(flag), "{flag}");
    }
    assert!(help.contains("MINI_TECTONIC_STORAGE") && help.contains("127.0.0.1:50052"));
}

//! The program's own services: how `serve`, `demo` and `bench` start, stop, and survive being killed.

mod common;

use std::io::{Read as _, Write as _};
use std::process::Stdio;

use common::{Running, Serve, User, bytes, user_with_services, wait_until};
use rustix::process::Signal;

const MIB: usize = 1024 * 1024;

/// Starts it again at the same address, over the same storage.
fn restarted(user: &User, serve: Serve) -> Serve {
    let (storage, metadata) = (serve.storage.clone(), serve.metadata.replace("http://", ""));
    drop(serve);
    Serve::start_with(user, &storage, &["--metadata-listen", &metadata, "--chunk-listen", "127.0.0.1:0"])
}

#[test]
fn ready_is_said_once_the_services_answer() {
    let user = User::of("http://127.0.0.1:1");
    let serve = Serve::start(&user, &user.path("storage"));
    assert!(serve.metadata.starts_with("http://127.0.0.1:") && serve.chunk.starts_with("http://127.0.0.1:"));
    assert_ne!(serve.metadata, serve.chunk);
    let mut status = user.command();
    status.args(["status", "--json", "--endpoint", &serve.metadata]);
    let status = common::run_to_end(status, Vec::new()).json();
    assert_eq!(status["nodes"][0]["state"], "NODE_STATE_ALIVE");
    for name in ["metadata", "chunks", "admin.token", "join.token"] {
        assert!(serve.storage.join(name).try_exists().unwrap(), "{name}");
    }
}

#[test]
fn signals_end_it_with_0_and_what_was_stored_is_there_afterwards() {
    let (user, mut serve) = user_with_services();
    let content = bytes(3 * MIB);
    let id = user.put("posts", &user.file("in", &content));
    for signal in [Signal::TERM, Signal::INT] {
        serve.process.signal(signal);
        assert_eq!(serve.process.wait().code(), Some(0), "{signal:?}");
        serve = restarted(&user, serve);
        assert!(user.line(&format!("get -t posts -b {id}")).stdout == content);
    }
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let (user, mut serve) = user_with_services();
    let mut stored = Vec::new();
    for round in 0..3 {
        let content = bytes(MIB + round);
        stored.push((user.put("posts", &user.file("in", &content)), content));
        serve.process.signal(Signal::KILL);
        serve.process.wait();
        serve = restarted(&user, serve);
        for (id, content) in &stored {
            assert!(user.line(&format!("get -t posts -b {id}")).stdout == *content, "round {round}");
        }
    }
}

#[test]
fn storage_and_ports_in_use_are_named() {
    let (user, serve) = user_with_services();
    let storage = serve.storage.to_str().unwrap();
    let free = "--metadata-listen 127.0.0.1:0 --chunk-listen 127.0.0.1:0";
    user.line(&format!("serve --storage {storage} {free}")).failed(1, &[storage, "in use by another process"]);
    for (flag, url) in [("--metadata-listen", &serve.metadata), ("--chunk-listen", &serve.chunk)] {
        let address = url.strip_prefix("http://").unwrap();
        let other = if flag == "--chunk-listen" { "--metadata-listen" } else { "--chunk-listen" };
        let refused = user.line(&format!("serve --storage other {flag} {address} {other} 127.0.0.1:0"));
        refused.failed(1, &[address, "in use", flag]);
        assert!(refused.stdout.is_empty());
        assert!(!user.path("other").try_exists().unwrap(), "nothing was written");
    }
}

/// A put whose input has begun and does not end, and which holds a chunk open.
fn put_in_flight(user: &User, serve: &Serve, begins_with: &[u8]) -> Running {
    let mut command = user.command();
    command.args(["put", "-t", "posts", "-f", "-"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut put = Running::start(command);
    let stdin = put.child().stdin.as_mut().expect("its standard input is piped");
    stdin.write_all(begins_with).expect("it reads");
    wait_until("the put has begun", || (!serve.chunk_files("blob").is_empty()).then_some(()));
    put
}

fn signal_and_see_it_heard(user: &User, serve: &Serve, signal: Signal) {
    serve.process.signal(signal);
    let log = || std::fs::read_to_string(user.path("serve.log")).expect("it has a log");
    wait_until("the signal is heard", || log().contains("stopping").then_some(()));
}

/// The chunk service lets the stream end; whether the commit still reaches the metadata service, which stops next, is a
/// race that either side may win. What must not happen is an id for a blob that is not there, or silence.
#[test]
fn a_put_in_flight_ends_well_or_says_so_when_the_services_stop() {
    let (user, mut serve) = user_with_services();
    let content = bytes(MIB);
    let mut put = put_in_flight(&user, &serve, &content);
    signal_and_see_it_heard(&user, &serve, Signal::TERM);
    drop(put.child().stdin.take());
    let code = put.wait().code();
    let mut id = String::new();
    put.child().stdout.take().unwrap().read_to_string(&mut id).unwrap();
    assert_eq!(serve.process.wait().code(), Some(0));
    let _serve = restarted(&user, serve);
    if code == Some(0) {
        assert!(user.line(&format!("get -t posts -b {id}")).stdout == content);
    } else {
        assert_eq!((code, id.as_str()), (Some(6), ""), "it cannot reach the services any more, and says so");
    }
}

#[test]
fn a_second_signal_does_not_wait_for_calls_in_flight() {
    let mut user = User::of("http://127.0.0.1:1");
    let flags = ["--metadata-listen", "127.0.0.1:0", "--chunk-listen", "127.0.0.1:0", "--drain", "1h"];
    let mut serve = Serve::start_with(&user, &user.path("storage"), &flags);
    user.endpoint.clone_from(&serve.metadata);
    user.line("register-tenant -t posts").ok();
    let _put = put_in_flight(&user, &serve, &bytes(MIB));
    signal_and_see_it_heard(&user, &serve, Signal::INT);
    serve.process.signal(Signal::INT);
    assert_eq!(serve.process.wait().code(), Some(130));
}

/// SIGHUP, at which certificates are read again, ended a service that had none.
#[test]
fn a_hangup_does_not_end_services_without_certificates() {
    let (user, serve) = user_with_services();
    let (log, told) = (user.path("serve.log"), "there are none: this service has no TLS");
    // Both services of the process say so, each time: signals that come together are one.
    for times in 1..=3 {
        serve.process.signal(Signal::HUP);
        wait_until("both have heard it", || {
            (std::fs::read_to_string(&log).unwrap().matches(told).count() == 2 * times).then_some(())
        });
    }
    user.line("list-blobs -t posts").ok();
    serve.stop();
}

#[test]
fn an_interrupted_put_gives_its_reservation_back() {
    let (user, serve) = user_with_services();
    let mut put = put_in_flight(&user, &serve, &bytes(MIB));
    let reserved = || user.line("stat -t posts --json").json()["usage"]["reserved_blobs"].as_u64();
    assert_eq!(reserved(), Some(1));
    put.signal(Signal::INT);
    assert_eq!(put.wait().code(), Some(130));
    assert_eq!(reserved(), Some(0));
}

#[test]
fn the_demo_proves_itself_and_leaves_nothing() {
    let user = User::of("http://127.0.0.1:1");
    let demo = user.line("demo");
    let told = demo.ok();
    for words in ["register-tenant -t demo", "put -t demo -f", "sha256sum -c", ".blob: OK", "Every byte matched"] {
        assert!(told.contains(words), "{words:?} is not in:\n{told}");
    }
    assert_eq!(std::fs::read_dir(user.home.path()).unwrap().count(), 0, "its folder is gone");
}

#[test]
fn the_demo_takes_any_file_and_can_keep_its_folder() {
    let user = User::of("http://127.0.0.1:1");
    let file = user.file("it's mine.txt", b"hello");
    let told = user.run(["demo".as_ref(), file.as_os_str(), "--keep".as_ref()]).ok();
    assert!(told.contains("Every byte matched: 5 bytes"), "{told}");
    let kept = told.lines().find_map(|line| line.split_once("serve --storage ")).unwrap().1;
    assert!(std::path::Path::new(kept).join("chunks").is_dir());
    user.line("demo missing").failed(1, &["missing"]);
}

fn phases(told: &str) -> Vec<serde_json::Value> {
    told.lines().map(|line| serde_json::from_str(line).expect("bench prints an object a line")).collect()
}

#[test]
fn the_benchmark_measures_and_cleans_up() {
    let (user, _serve) = user_with_services();
    let pid = std::process::id();
    let line = format!("bench both -t posts --size 5000 --concurrency 4 --count 40 --json --service-pid {pid}");
    let phases = phases(&user.line(&line).ok());
    assert_eq!(phases.iter().map(|phase| &phase["operation"]).collect::<Vec<_>>(), ["put", "get"]);
    for phase in &phases {
        assert_eq!((&phase["operations"], &phase["errors"]), (&40.into(), &0.into()));
        assert_eq!(phase["bytes"], 200_000);
        let latency = ["p50", "p90", "p99", "p999", "max"].map(|percentile| phase["latency_ms"][percentile].as_f64());
        assert!(latency.is_sorted() && latency[0] > Some(0.0), "{latency:?}");
        let peaks = phase["processes"].as_array().unwrap().iter().map(|process| process["peak_memory_bytes"].as_u64());
        assert_eq!(phase["processes"][0]["name"], "client");
        assert!(peaks.clone().count() == 2 && peaks.flatten().all(|peak| peak > 100_000), "{phase}");
    }
    assert_eq!(user.line("list-blobs -t posts").ok(), "", "it deleted what it stored");
    user.line("bench put -t posts --service-pid 4294967295").failed(2, &["no process 4294967295"]);
}

#[test]
fn the_benchmark_finds_what_an_earlier_run_has_left_and_no_other_seed_s() {
    let (user, _serve) = user_with_services();
    user.line("bench get -t posts --existing").failed(3, &["has left an object"]);
    user.line("bench put -t posts --size 1KiB-9KiB --concurrency 3 --count 30 --keep --warm-up 0s").ok();
    assert_eq!(user.line("list-blobs -t posts").ok().lines().count(), 30);
    let read = phases(&user.line("bench get -t posts --existing --concurrency 4 --clients 2 --json").ok());
    assert_eq!((&read[0]["operations"], &read[0]["clients"]), (&30.into(), &2.into()));
    let listed = phases(&user.line("bench list -t posts --existing --concurrency 1 --json").ok());
    assert_eq!(listed[0]["entries"], 30);
    let again = "bench list -t posts --existing --concurrency 1 --repeat --duration 1s --json";
    // The second time it once was taken to have ended with its first page.
    let entries = phases(&user.line(again).ok())[0]["entries"].as_u64().unwrap();
    assert!(entries > 30 && entries.is_multiple_of(30), "{entries}");
    user.line("bench delete -t posts --existing --seed 2").failed(3, &["--seed 2"]);
    user.line("bench delete -t posts --existing --count 10").ok();
    assert_eq!(user.line("list-blobs -t posts").ok().lines().count(), 20);
}

#[test]
fn the_benchmark_refuses_bytes_that_are_not_what_was_put() {
    let (user, _serve) = user_with_services();
    let other = user.file("other", &[7; 4096]);
    user.run([
        "put".as_ref(),
        "-t".as_ref(),
        "posts".as_ref(),
        "-f".as_ref(),
        other.as_os_str(),
        "--name".as_ref(),
        "bench-1-0".as_ref(),
    ])
    .ok();
    let refused = user.line("bench get -t posts --existing --warm-up 0s");
    refused.failed(7, &["1 operations failed", "is not what was put"]);
}

#[test]
fn the_benchmark_s_own_services_are_measured_and_stopped() {
    let alone = User::of("http://127.0.0.1:1");
    let mixed =
        "bench mixed --spawn --size 10KiB:1,1:3 --concurrency 2 --count 60 --ratio put:1,get:1,stat:1,delete:1 --json";
    let phases = phases(&alone.line(mixed).ok());
    let parts: Vec<_> = phases.iter().map(|phase| phase["operation"].as_str().unwrap()).collect();
    assert_eq!(parts, ["mixed", "put", "get", "stat", "delete"]);
    let parts = phases[1..].iter().map(|phase| phase["operations"].as_u64().unwrap()).sum::<u64>();
    assert_eq!(phases[0]["operations"], parts);
    let folder = alone.path("disk");
    std::fs::create_dir(&folder).unwrap();
    let text = alone.line("bench get --spawn --folder disk --size 10KiB --concurrency 2 --duration 100ms").ok();
    assert!(text.starts_with("get of 10.00 KiB, 2 at once: ") && text.contains("p99.9"), "{text}");
    assert!(text.contains("client") && text.contains("s CPU"), "{text}");
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0, "its folder is gone");
    let text = alone.line("bench ping --spawn --concurrency 4 --clients 2 --count 100").ok();
    assert!(text.starts_with("ping, 4 at once from 2 clients: 100 in "), "{text}");
}

#[test]
fn every_shell_gets_completions() {
    let user = User::of("http://127.0.0.1:1");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = user.line(&format!("completions {shell}")).ok();
        assert!(script.contains("mini-tectonic-rs") && script.contains("list-blobs"), "{shell}");
    }
}

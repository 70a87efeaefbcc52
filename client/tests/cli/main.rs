//! Every command of the program against real services: what comes out, what does not, and how it ends.

mod backup;
#[path = "../common/mod.rs"]
mod common;
mod credentials;
mod damage;
mod fsck;
mod tls;
mod tokens;
mod workers;

use std::ffi::OsStr;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::process::Stdio;

use common::{Ended, Running, User, bytes, run_to_end, user_with, user_with_services, wait_until, write};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
const NO_SUCH_BLOB: &str = "0190b5c4-7e5a-7cc3-98c4-dc0c0c07398f";

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).expect("a file can be read")
}

fn line_with_input(user: &User, line: &str, input: &[u8]) -> Ended {
    let mut command = user.command();
    command.args(line.split_whitespace());
    run_to_end(command, input.to_vec())
}

fn get_to(user: &User, id: &str, target: &Path) -> Ended {
    user.run([
        OsStr::new("get"),
        "-t".as_ref(),
        "posts".as_ref(),
        "-b".as_ref(),
        id.as_ref(),
        "-o".as_ref(),
        target.as_ref(),
    ])
}

#[test]
fn files_come_out_as_they_went_in() {
    let (user, _serve) = user_with_services();
    for size in [0, 1, 64 * KIB, 256 * KIB, 256 * KIB + 1, 9 * MIB] {
        let content = bytes(size);
        let file = user.file("in", &content);
        let id = user.put("posts", &file);
        assert_eq!(id.len(), 36, "the id and nothing else");
        let out = user.path("out");
        assert_eq!(get_to(&user, &id, &out).ok(), "");
        assert!(read(&out) == content, "{size} bytes to a file");
        let printed = user.line(&format!("get -t posts -b {id}"));
        assert_eq!(printed.code, Some(0), "{}", printed.stderr);
        assert!(printed.stdout == content, "{size} bytes to standard output");
    }
}

#[test]
fn standard_input_and_pipes_are_stored_to_their_end() {
    let (user, _serve) = user_with_services();
    let content = bytes(17 * MIB);
    let stat = line_with_input(&user, "put -t posts -f - --json", &content).json();
    assert_eq!((&stat["size_bytes"], &stat["block_count"]), (&content.len().into(), &3.into()));
    let id = stat["blob_id"].as_str().unwrap();
    assert!(user.line(&format!("get -t posts -b {id} -o -")).stdout == content);

    let fifo = user.path("fifo");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status().unwrap();
    assert!(made.success());
    let writer = std::thread::spawn({
        let fifo = fifo.clone();
        move || write(&fifo, b"through a pipe")
    });
    let id = user.put("posts", &fifo);
    writer.join().unwrap();
    assert_eq!(user.line(&format!("get -t posts -b {id}")).ok(), "through a pipe");
}

/// Small files travel together; whoever reads the ids must not notice.
#[test]
fn of_many_files_the_ids_come_in_order_and_nothing_is_left_of_those_behind_the_first_that_fails() {
    let (user, _serve) = user_with_services();
    let large = bytes(200 * KIB);
    let mut line = vec!["put".to_owned(), "-t".to_owned(), "posts".to_owned()];
    for number in 0..300 {
        let content = if number == 137 { large.clone() } else { format!("file {number}").into_bytes() };
        user.file(&format!("f{number}"), &content);
        line.extend(["-f".to_owned(), format!("f{number}")]);
    }
    let ids = user.run(&line).ok();
    let names = |listed: String| -> Vec<String> {
        listed.lines().map(|line| line.rsplit('\t').next().unwrap().to_owned()).collect()
    };
    let ids: Vec<_> = ids.lines().collect();
    assert_eq!(ids.len(), 300);
    for number in [0, 136, 137, 138, 299] {
        let stat = user.line(&format!("stat -t posts -b {} --json", ids[number])).json();
        assert_eq!(stat["display_name"], format!("f{number}"));
    }
    assert!(user.line(&format!("get -t posts -b {}", ids[137])).stdout == large);
    std::fs::remove_file(user.path("f150")).unwrap();
    let stopped = user.run(&line);
    stopped.failed(1, &["f150", "No such file"]);
    assert_eq!(stopped.text().lines().count(), 150);
    let left = names(user.line("list-blobs -t posts").ok());
    assert_eq!(left.len(), 450, "nothing of the second run is left behind f149");
}

#[test]
fn several_files_are_stored_in_order_and_the_first_failure_ends_it() {
    let (user, _serve) = user_with_services();
    user.file("one", b"1");
    user.file("two", b"22");
    user.file("three", b"333");
    let ids = user.line("put -t posts -f one -f two -f three").ok();
    let sizes: Vec<_> = ids.lines().map(|id| user.line(&format!("get -t posts -b {id}")).stdout.len()).collect();
    assert_eq!(sizes, [1, 2, 3]);

    let stopped = user.line("put -t posts -f one -f missing -f three");
    stopped.failed(1, &["missing", "No such file"]);
    assert_eq!(stopped.text().lines().count(), 1, "the one before the failure");
    let listed = user.line("list-blobs -t posts").ok();
    assert_eq!(listed.lines().count(), 4);
}

/// A range that begins where the blob ends was a success: it wrote an empty file over whatever had the name.
#[test]
fn a_range_that_begins_behind_the_last_byte_fails_and_leaves_files_alone() {
    let (user, _serve) = user_with_services();
    let (id, empty) = (user.put("posts", &user.file("in", b"hello")), user.put("posts", &user.file("empty", b"")));
    user.file("kept", b"as it was");
    for (id, range) in [(&id, "5-"), (&id, "5-5"), (&id, "6-"), (&empty, "0-"), (&id, "18446744073709551615-")] {
        let first = range.split('-').next().unwrap();
        let says = ["READ_OFFSET_OUT_OF_RANGE", &format!("begins with byte {first}")];
        for output in ["", "-o new", "-o kept"] {
            let refused = user.line(&format!("get -t posts -b {id} --range {range} {output}"));
            refused.failed(1, &says);
            assert!(refused.stdout.is_empty() && !user.path("new").try_exists().unwrap());
        }
    }
    assert_eq!(read(&user.path("kept")), b"as it was");
    assert_eq!(user.line(&format!("get -t posts -b {id} --range 4-")).stdout, b"o");
    assert_eq!(user.line(&format!("get -t posts -b {empty}")).ok(), "", "the whole of it is no range");
}

#[test]
fn ranges_are_those_of_http() {
    let (user, _serve) = user_with_services();
    let content = bytes(200 * KIB);
    let id = user.put("posts", &user.file("in", &content));
    let range = |range: &str| user.line(&format!("get -t posts -b {id} --range {range}")).stdout;
    assert_eq!(range("0-0"), content[..1]);
    assert_eq!(range("65535-65536"), content[65535..65537]);
    assert_eq!(range("100000-"), content[100_000..]);
    assert_eq!(range("204799-999999"), content[204_799..]);
    for bad in ["5-4", "a-b", "-5", "5", ""] {
        let refused = user.run(["get", "-t", "posts", "-b", &id, &format!("--range={bad}")]);
        refused.failed(2, &["--range"]);
    }
}

#[test]
fn json_has_the_fields_of_the_protos() {
    let (user, _serve) = user_with_services();
    user.file("in", b"hello, tectonic\n");
    let put = user.line("put -t posts -f in --label a=b --content-type text/plain --json").json();
    let keys: Vec<_> = put.as_object().unwrap().keys().map(String::as_str).collect();
    let mut expected = [
        "blob_id",
        "tenant_id",
        "display_name",
        "content_type",
        "labels",
        "size_bytes",
        "sha256",
        "create_time",
        "block_size_bytes",
        "block_count",
    ];
    expected.sort_unstable();
    assert_eq!(keys, expected);
    assert_eq!((&put["tenant_id"], &put["display_name"]), (&"posts".into(), &"in".into()));
    assert_eq!((&put["labels"]["a"], &put["content_type"]), (&"b".into(), &"text/plain".into()));
    assert_eq!(put["sha256"], "6e0dcae5fb025e1ec4e09ade99c2b6617c0b2b62ad185a8e4d774dcf14d009e6");
    assert!(put["create_time"].as_str().unwrap().ends_with('Z'));
    assert_eq!((put["size_bytes"].as_u64(), put["block_count"].as_u64()), (Some(16), Some(1)));

    let id = put["blob_id"].as_str().unwrap();
    assert_eq!(user.line(&format!("stat -t posts -b {id} --json")).json(), put);
    assert_eq!(user.line("list-blobs -t posts --json").json(), put);
    assert_eq!(user.line(&format!("--json get -t posts -b {id} -o out")).json(), put);

    let tenant = user.line("list-tenants --json").json();
    assert_eq!((&tenant["tenant_id"], &tenant["traffic_class"]), (&"posts".into(), &"TRAFFIC_CLASS_SILVER".into()));
    assert_eq!(tenant["quota"], quota(None, None));
    assert_eq!((&tenant["usage"]["used_bytes"], &tenant["usage"]["used_blobs"]), (&16.into(), &1.into()));
    assert_eq!(user.line("stat -t posts --json").json(), tenant);
    let registered = user.line("register-tenant -t likes --max-bytes 1KiB --max-blobs 7 --json").json();
    assert_eq!(registered["quota"], quota(Some(1024), Some(7)));
}

#[test]
fn status_shows_the_cluster() {
    let (user, serve) = user_with_services();
    let status = user.line("status --json").json();
    let node = &status["nodes"][0];
    assert_eq!((&node["endpoint"], &node["state"]), (&serve.chunk.as_str().into(), &"NODE_STATE_ALIVE".into()));
    assert!(node["free_bytes"].as_u64() > Some(0) && node["capacity_bytes"].as_u64() >= node["free_bytes"].as_u64());
    assert_eq!((&status["tenant_count"], &status["read_only_reason"]), (&1.into(), &"".into()));
    assert_eq!((&status["damaged_chunk_count"], &status["warnings"]), (&0.into(), &serde_json::json!([])));
    assert_eq!(user.line("status --damaged").ok(), "", "nothing is damaged");
    let text = user.line("status").ok();
    for words in [status["cluster_id"].as_str().unwrap(), &serve.chunk, "alive", "taken"] {
        assert!(text.contains(words), "{words} in {text}");
    }
}

#[test]
fn lists_are_tab_separated_in_a_pipe_and_can_be_narrowed() {
    let (user, _serve) = user_with_services();
    let file = user.file("in", b"x");
    let names = ["cat/b", "cat/a", "dog"];
    let ids = names.map(|name| user.run(["put", "-t", "posts", "-f", file.to_str().unwrap(), "--name", name]).ok());
    let listed = user.line("list-blobs -t posts").ok();
    let rows: Vec<Vec<_>> = listed.lines().map(|line| line.split('\t').collect()).collect();
    assert!(rows.iter().all(|row| row.len() == 5 && row[1] == "1" && row[4] == "2d711642b726"), "{listed}");
    let mut in_id_order = ids.clone();
    in_id_order.sort();
    assert_eq!(rows.iter().map(|row| row[0]).collect::<Vec<_>>(), in_id_order);
    let names_of = |line: &str| -> Vec<String> {
        user.line(line).ok().lines().map(|row| row.split('\t').nth(3).unwrap().to_owned()).collect()
    };
    assert_eq!(names_of("list-blobs -t posts --prefix cat/"), ["cat/a", "cat/b"]);
    assert_eq!(names_of("list-blobs -t posts --limit 2"), ["cat/b", "cat/a"]);
    assert!(names_of("list-blobs -t posts --prefix bird").is_empty());
    user.line("register-tenant -t another").ok();
    assert_eq!(user.line("list-tenants").ok(), "another\nposts");
}

#[test]
fn names_cannot_steer_a_terminal_or_break_a_line() {
    let (user, _serve) = user_with_services();
    let file = user.file("in", b"x");
    let name = "a\u{1b}[31m\nb\tc";
    let id = user.run(["put", "-t", "posts", "-f", file.to_str().unwrap(), "--name", name]).ok();
    for line in ["list-blobs -t posts".to_owned(), format!("stat -t posts -b {id}")] {
        let text = user.line(&line).ok();
        assert!(text.contains(r"a\u{1b}[31m\nb\tc") && !text.contains('\u{1b}'), "{text}");
    }
    assert_eq!(user.line("list-blobs -t posts --json").json()["display_name"], name);
}

#[test]
fn what_is_deleted_is_not_found() {
    let (user, _serve) = user_with_services();
    let id = user.put("posts", &user.file("in", b"x"));
    user.line("delete-tenant -t posts").failed(1, &["TENANT_NOT_EMPTY", "delete its blobs first"]);
    assert_eq!(user.line(&format!("delete -t posts -b {id}")).ok(), "");
    for command in ["get", "stat", "delete"] {
        let gone = user.line(&format!("{command} -t posts -b {id}"));
        gone.failed(3, &[command, "BLOB_NOT_FOUND", "list-blobs -t posts", "request id: "]);
        assert!(gone.stdout.is_empty());
    }
}

#[test]
fn what_is_deleted_can_be_listed_and_restored() {
    let (user, _serve) = user_with_services();
    let id = user.put("posts", &user.file("in", b"restored"));
    assert_eq!(user.line("list-blobs -t posts --deleted").ok(), "");
    user.line(&format!("delete -t posts -b {id}")).ok();
    let listed = user.line("list-blobs -t posts --deleted").ok();
    let cells: Vec<_> = listed.trim_end().split('\t').collect();
    let [listed_id, "8", deleted, until, "in"] = cells[..] else { panic!("{listed}") };
    assert!(listed_id == id && deleted.ends_with('Z') && until > deleted, "{listed}");
    let json = user.line("list-blobs -t posts --deleted --json").json();
    assert!(json["delete_time"].is_string() && json["expire_time"].is_string(), "{json}");
    user.line("list-blobs -t posts --deleted --prefix i").failed(2, &["--prefix"]);

    assert_eq!(user.line(&format!("undelete -t posts -b {id}")).ok(), "");
    assert_eq!(user.line(&format!("get -t posts -b {id}")).ok(), "restored");
    let again = user.line(&format!("undelete -t posts -b {id} --json")).json();
    assert_eq!((again["blob_id"].as_str(), again.get("delete_time")), (Some(id.as_str()), None));
    user.line(&format!("undelete -t posts -b {NO_SUCH_BLOB}")).failed(3, &["BLOB_NOT_FOUND"]);
}

#[test]
fn what_is_not_there_ends_with_3_and_leaves_no_file() {
    let (user, _serve) = user_with_services();
    let out = user.path("out");
    get_to(&user, NO_SUCH_BLOB, &out).failed(3, &["BLOB_NOT_FOUND"]);
    assert!(!out.try_exists().unwrap());
    user.line("stat -t nobody").failed(3, &["TENANT_NOT_FOUND", "list-tenants"]);
    user.line("update-tenant -t nobody --max-blobs 1").failed(3, &["TENANT_NOT_FOUND"]);
    user.line("delete-tenant -t nobody").failed(3, &["TENANT_NOT_FOUND"]);
}

#[test]
fn arguments_that_cannot_be_right_end_with_2() {
    let user = User::of("http://127.0.0.1:1");
    let long = "0".repeat(10 * KIB);
    let upper = NO_SUCH_BLOB.to_uppercase();
    let (braces, urn) = (format!("{{{NO_SUCH_BLOB}}}"), format!("urn:uuid:{NO_SUCH_BLOB}"));
    for id in ["", "x", "../../etc/passwd", &upper, &braces, &urn, &long] {
        user.run(["get", "-t", "posts", "-b", id]).failed(2, &["must be a UUID in canonical lower case"]);
    }
    for tenant in ["", "ab", "Posts", "1posts", "po_sts", "../posts", &long] {
        user.run(["list-blobs", "-t", tenant]).failed(2, &["must be 3 to 63 of a-z"]);
    }
    for line in [
        "put -t posts",
        "put -t posts -f a -f b --name c",
        "put -t posts -f a --label x",
        "put -t posts -f a --label x=1 --label x=2",
        "register-tenant",
        "register-tenant -t posts --max-bytes many",
        "update-tenant -t posts",
        "bench",
        "no-such-command",
        "list-tenants --no-such-flag",
        "list-tenants --endpoint ftp://127.0.0.1",
    ] {
        assert_eq!(user.line(line).code, Some(2), "{line}");
    }
}

#[test]
fn a_tenant_is_registered_once() {
    let (user, _serve) = user_with_services();
    let again = user.line("register-tenant -t posts");
    again.failed(1, &["TENANT_ALREADY_EXISTS", "rotate-token -t posts"]);
    assert!(again.stdout.is_empty());
    assert!(user.line("put -t posts -f credentials.toml").code == Some(0), "its credential is still there");
}

#[test]
fn local_files_that_cannot_be_used_end_with_1() {
    let (user, _serve) = user_with_services();
    user.line("put -t posts -f missing").failed(1, &["missing", "No such file"]);
    user.line("put -t posts -f .").failed(1, &["is a folder"]);
    let id = user.put("posts", &user.file("in", b"x"));
    get_to(&user, &id, &user.path("no/such/folder/out")).failed(1, &["no/such/folder"]);
    get_to(&user, &id, user.home.path()).failed(1, &["is a folder"]);
    assert_eq!(user.line("list-blobs -t posts").ok().lines().count(), 1);
}

#[test]
fn a_target_is_replaced_as_a_whole_and_a_device_is_written_to() {
    let (user, _serve) = user_with_services();
    let id = user.put("posts", &user.file("in", b"new"));
    let (target, link) = (user.file("target", b"old and longer"), user.path("link"));
    std::os::unix::fs::symlink(&target, &link).unwrap();
    get_to(&user, &id, &link).ok();
    assert_eq!(read(&target), b"new");
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    get_to(&user, &id, Path::new("/dev/null")).ok();
    assert!(std::fs::metadata("/dev/null").unwrap().file_type().is_char_device());
}

#[test]
fn a_service_that_is_down_ends_with_6_and_is_named() {
    let user = User::of("http://127.0.0.1:1");
    user.file("in", b"x");
    for line in ["list-tenants", "put -t posts -f in", &format!("get -t posts -b {NO_SUCH_BLOB} -o out")] {
        let mut command = user.command();
        command.args(line.split(' ')).env("MINI_TECTONIC_TOKEN", "any");
        run_to_end(command, Vec::new()).failed(6, &["http://127.0.0.1:1", "mini-tectonic-rs serve"]);
    }
    assert!(!user.path("out").try_exists().unwrap());
}

/// A quota without the other bounds.
fn quota(max_bytes: Option<u64>, max_blobs: Option<u64>) -> serde_json::Value {
    serde_json::json!({
        "max_bytes": max_bytes, "max_blobs": max_blobs, "max_blob_bytes": null, "max_open_uploads": 1024,
    })
}

#[test]
fn a_blob_larger_than_one_may_be_ends_with_5_and_says_both_sizes() {
    let (user, _serve) = user_with_services();
    user.line("register-tenant -t small --max-blob-bytes 10 --max-open-uploads 1").ok();
    let (ten, eleven) = (user.file("ten", &[0; 10]), user.file("eleven", &[0; 11]));
    let put = |path: &Path| user.run(["put", "-t", "small", "-f", path.to_str().unwrap()]);
    put(&ten).ok();
    put(&eleven).failed(5, &["QUOTA_EXCEEDED", "at most 10 bytes", "11 are wanted", "--max-blob-bytes"]);
    line_with_input(&user, "put -t small -f -", &[0; 10]).ok();
    line_with_input(&user, "put -t small -f -", &[0; 11]).failed(5, &["more than the 10 bytes"]);
    let shown = user.line("stat -t small").ok();
    assert!(shown.contains("at most 10 B") && shown.contains("open uploads  at most 1\n"), "{shown}");
    user.line("update-tenant -t small --max-open-uploads 0").ok();
    put(&ten).failed(5, &["QUOTA_EXCEEDED", "of 0 open uploads, 0 are left", "--max-open-uploads"]);
    let raised = user.line("update-tenant -t small --max-open-uploads 7 --max-blob-bytes unlimited --json").json();
    assert_eq!((&raised["quota"]["max_open_uploads"], &raised["quota"]["max_blob_bytes"]), (&7.into(), &().into()));
    put(&eleven).ok();
}

#[test]
fn a_transfer_may_ask_for_a_class_and_gets_at_most_its_tenant_s() {
    let (user, _serve) = user_with(&["--heartbeat-interval", "100ms"]);
    let one = user.file("one", &bytes(MIB));
    let moved = |class: usize| {
        let status = user.line("status --json").json();
        status["nodes"][0]["class_loads"][class]["moved_bytes"].as_u64().unwrap()
    };
    let arguments = ["put", "-t", "posts", "--class", "bronze", "-f", one.to_str().unwrap()];
    let id = user.run(arguments).ok();
    wait_until("the node has told of the put", || (moved(2) >= MIB as u64).then_some(()));
    let silver = moved(1);
    user.line(&format!("get -t posts -b {id} --class gold -o out")).ok();
    wait_until("the node has told of the get", || (moved(1) >= silver + MIB as u64).then_some(()));
    assert_eq!(moved(0), 0, "the tenant is silver");
}

#[test]
fn a_quota_that_does_not_allow_it_ends_with_5() {
    let (user, _serve) = user_with_services();
    user.line("register-tenant -t small --max-bytes 10 --max-blobs 2").ok();
    let (ten, one) = (user.file("ten", &[0; 10]), user.file("one", &[0; 1]));
    let put = |path: &Path| user.run(["put", "-t", "small", "-f", path.to_str().unwrap()]);
    put(&ten).ok();
    put(&one).failed(5, &["QUOTA_EXCEEDED", "update-tenant -t small"]);
    assert_eq!(line_with_input(&user, "put -t small -f -", b"x").code, Some(5));
    user.line("update-tenant -t small --max-bytes unlimited").ok();
    put(&one).ok();
    put(&one).failed(5, &["QUOTA_EXCEEDED"]);
    let tenant = user.line("update-tenant -t small --max-blobs 3 --class gold --json").json();
    assert_eq!(tenant["quota"], quota(None, Some(3)));
    assert_eq!(tenant["traffic_class"], "TRAFFIC_CLASS_GOLD");
    put(&one).ok();
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let (user, _serve) = user_with_services();
    let id = user.put("posts", &user.file("in", &bytes(9 * MIB)));
    let mut command = user.command();
    command.args(["get", "-t", "posts", "-b", &id]);
    let mut get = Running::start({
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    });
    let mut stdout = get.child().stdout.take().unwrap();
    std::io::Read::read_exact(&mut stdout, &mut [0; 10]).unwrap();
    drop(stdout);
    assert_eq!(get.wait().code(), Some(0));
    let mut said = String::new();
    std::io::Read::read_to_string(&mut get.child().stderr.take().unwrap(), &mut said).unwrap();
    assert_eq!(said, "");
}

#[test]
fn nothing_but_data_is_said_when_nobody_watches() {
    let (user, _serve) = user_with_services();
    let put = line_with_input(&user, "put -t posts -f -", b"x");
    let id = put.ok();
    assert_eq!(put.stderr, "");
    assert_eq!(user.line(&format!("get -t posts -b {id} -o out")).stderr, "");
    assert_eq!(user.line(&format!("delete -t posts -b {id}")).stderr, "");
}

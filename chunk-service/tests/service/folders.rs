//! Folders on which a chunk service must not start: each is told by name, with what to do, and stays as it is.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use proto::entropy::OsEntropy;
use proto::ids::NodeId;
use proto::runtime::folder::{self, Identity};

use crate::harness::World;
use crate::process::{command, run_to_end};

/// Every file below a folder, and what it holds.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(contents(&path));
            found.insert(path, None);
        } else {
            let bytes = std::fs::read(&path).unwrap();
            found.insert(path, Some(bytes));
        }
    }
    found
}

/// A node that has joined, holds a chunk and was stopped.
async fn stopped() -> World {
    let mut world = World::start().await;
    world.put(b"bytes").await;
    world.stop_service().await;
    world
}

/// Runs the binary, which must refuse the world's folder in these words and leave it as it is.
async fn refuses(what: &str, world: &World, run: Command, says: &[&str]) {
    let before = contents(&world.config.storage);
    let (code, error) = run_to_end(run).await;
    assert_eq!(code, Some(1), "{what}: {error}");
    for words in says {
        assert!(error.contains(words), "{what}: {words:?} is not in: {error}");
    }
    assert_eq!(contents(&world.config.storage), before, "{what}: the folder was changed");
}

fn line(file: &Path, key: &str) -> String {
    let text = std::fs::read_to_string(file).unwrap();
    text.lines().find_map(|line| line.strip_prefix(key)).unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_of_another_cluster_or_node_is_refused() {
    let (world, other) = (stopped().await, stopped().await);
    let mut elsewhere = command(&world);
    elsewhere.env("MINI_TECTONIC_METADATA", &other.config.metadata);
    let advice = ["this data folder belongs to another metadata service", "--rejoin"];
    refuses("another metadata service", &world, elsewhere, &advice).await;

    let (identity, others) = (world.chunks().join("IDENTITY"), other.chunks().join("IDENTITY"));
    let own = std::fs::read(&identity).unwrap();
    std::fs::copy(&others, &identity).unwrap();
    let says = ["IDENTITY belongs to another cluster", "is it the right folder?"];
    refuses("another cluster", &world, command(&world), &says).await;

    std::fs::write(&identity, own).unwrap();
    let node = NodeId::generate(1, &OsEntropy).to_string();
    Identity::new("chunks", line(&identity, "cluster="), Some(node)).write(&world.chunks()).unwrap();
    let says = ["IDENTITY belongs to another node", "is it the right folder?"];
    refuses("another node", &world, command(&world), &says).await;
}

/// A start on chunks of nobody once made a folder beside them before it refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_without_a_sign_of_whose_they_are_are_refused() {
    let world = stopped().await;
    for name in ["IDENTITY", "node.key"] {
        std::fs::remove_file(world.chunks().join(name)).unwrap();
    }
    std::fs::remove_dir(world.chunks().join(".quarantine")).unwrap();
    let says = ["the folder holds chunks, but neither IDENTITY nor this file", "restore both from a backup"];
    refuses("chunks of nobody", &world, command(&world), &says).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_in_use_is_refused() {
    let world = stopped().await;
    let _lock = folder::lock(&world.chunks()).unwrap();
    let says = ["in use by another process", "stop it, or choose another folder"];
    refuses("in use", &world, command(&world), &says).await;
}

/// The same run, with the storage folder mounted read-only for it alone; `None` where that is not allowed.
fn with_a_read_only_mount(world: &World) -> Option<Command> {
    let script = "mount --bind \"$1\" \"$1\" && mount -o remount,bind,ro \"$1\" && shift && exec \"$@\"";
    let in_a_namespace = |program: &std::ffi::OsStr| {
        let mut run = Command::new("unshare");
        run.args(["--mount", "sh", "-ec", script, "sh"]).arg(&world.config.storage).arg(program);
        run
    };
    let probe = in_a_namespace("true".as_ref()).output();
    if !probe.is_ok_and(|probe| probe.status.success()) {
        return None;
    }
    let plain = command(world);
    let mut run = in_a_namespace(plain.get_program());
    run.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    Some(run)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_cannot_be_written_to_is_refused() {
    let world = stopped().await;
    let says = ["cannot be written to", "make it writable, then start again"];
    if let Some(run) = with_a_read_only_mount(&world) {
        refuses("a read-only mount", &world, run, &says).await;
    }
    // Modes do not bind root; where root may not mount either, only the unit test of the lock is left.
    if !rustix::process::geteuid().is_root() {
        let lock = world.chunks().join("LOCK");
        std::fs::set_permissions(&lock, std::fs::Permissions::from_mode(0o400)).unwrap();
        refuses("another user's", &world, command(&world), &says).await;
    }
}

/// A node served over a `node.key` that everybody on the machine could read, and joined with such a token, and said nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_and_tokens_that_others_can_read_are_refused() {
    let (joined, fresh) = (stopped().await, World::prepare().await);
    for (world, path) in
        [(&joined, joined.chunks().join("node.key")), (&fresh, fresh.config.storage.join("join.token"))]
    {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let (code, error) = run_to_end(command(world)).await;
        assert_eq!(code, Some(1), "{error}");
        let path = path.display();
        assert!(error.contains(&format!("{path} (mode 0640); 'chmod 600 {path}'")), "{error}");
    }
}

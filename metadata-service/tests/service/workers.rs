//! Background work, steered over RPC.

use proto::error::Reason;
use proto::pb;

use crate::world::{FakeNode, World, reason};

async fn list(world: &World) -> Vec<pb::Worker> {
    let request = pb::ListWorkersRequest {};
    world.cluster(&world.admin_token()).list_workers(request).await.unwrap().into_inner().workers
}

async fn worker(world: &World, name: &str) -> pb::Worker {
    list(world).await.into_iter().find(|worker| worker.name == name).unwrap()
}

async fn update(world: &World, name: &str, paused: Option<bool>, pace: Option<u64>) -> pb::WorkerSettings {
    let request = pb::UpdateWorkerRequest { name: name.to_owned(), paused, pace_per_second: pace };
    let answer = world.cluster(&world.admin_token()).update_worker(request).await.unwrap();
    answer.into_inner().settings.unwrap()
}

async fn run(world: &World, name: &str) -> Result<Option<pb::WorkerPass>, tonic::Status> {
    let request = pb::RunWorkerRequest { name: name.to_owned(), accept_all: false };
    world.cluster(&world.admin_token()).run_worker(request).await.map(|answer| answer.into_inner().pass)
}

async fn settings_of(world: &World, node: &FakeNode) -> pb::WorkerSettings {
    let settings = node.beat(world).await.unwrap().worker_settings;
    settings.into_iter().find(|settings| settings.name == "scrub").unwrap()
}

#[tokio::test]
async fn a_pause_and_a_pace_survive_a_restart_and_a_paused_worker_still_runs_when_asked() {
    let mut world = World::new().await;
    assert!(!worker(&world, "orphans").await.paused);
    update(&world, "orphans", Some(true), None).await;
    let settings = update(&world, "orphans", None, Some(7)).await;
    assert_eq!((settings.paused, settings.pace_per_second), (true, Some(7)), "what is absent stays");
    for _start in 0..2 {
        let orphans = worker(&world, "orphans").await;
        assert_eq!((orphans.paused, orphans.pace_per_second, orphans.pace_unit.as_str()), (true, 7, "chunks"));
        assert_eq!((orphans.pass_count, orphans.last_sweep_time), (0, None));
        assert_eq!(run(&world, "orphans").await.unwrap(), Some(pb::WorkerPass::default()));
        let ran = worker(&world, "orphans").await;
        assert_eq!((ran.paused, ran.pass_count), (true, 1));
        assert!(ran.last_pass_time.is_some() && ran.last_sweep_time.is_some());
        world.restart().await;
    }
    assert!(!update(&world, "orphans", Some(false), None).await.paused);
    world.restart().await;
    assert!(!worker(&world, "orphans").await.paused);
    assert!(!worker(&world, "uploads").await.paused, "each has settings of its own");
}

#[tokio::test]
async fn two_who_ask_for_a_pass_at_once_get_one_each() {
    let world = World::new().await;
    let (one, other) = tokio::join!(run(&world, "orphans"), run(&world, "orphans"));
    assert!(one.is_ok() && other.is_ok());
    assert_eq!(worker(&world, "orphans").await.pass_count, 2);
}

#[tokio::test]
async fn a_node_is_told_how_its_work_is_to_run_and_tells_how_it_does() {
    let mut world = World::new().await;
    let node = world.node().await;
    let unset = settings_of(&world, &node).await;
    assert_eq!((unset.paused, unset.pace_per_second, unset.run_count), (false, None, 0));
    update(&world, "scrub", Some(true), Some(10 << 20)).await;
    assert_eq!(run(&world, "scrub").await.unwrap(), None, "nodes begin with their next heartbeat");
    world.restart().await;
    let set = settings_of(&world, &node).await;
    assert_eq!((set.paused, set.pace_per_second, set.run_count), (true, Some(10 << 20), 1));
    let pass = pb::WorkerPass { examined: 3, failed: 1, ..pb::WorkerPass::default() };
    let scrub = pb::Worker {
        name: "scrub".to_owned(),
        pass_count: 9,
        last_pass: Some(pass),
        holds_back: "x".repeat(1_000),
        ..pb::Worker::default()
    };
    let workers = vec![scrub; 100];
    world.cluster(&node.token).heartbeat(pb::HeartbeatRequest { workers, ..node.heartbeat() }).await.unwrap();
    let told: Vec<_> = list(&world).await.into_iter().filter(|worker| worker.node_id == node.id.to_string()).collect();
    assert!(told.len() < 100 && told[0].holds_back.len() < 1_000, "what a node says is bounded (I17)");
    assert_eq!((told[0].pass_count, told[0].last_pass), (9, Some(pass)));
}

#[tokio::test]
async fn the_status_says_in_words_what_needs_an_operator() {
    let world = World::new().await;
    let node = world.node().await;
    let warnings = async || {
        let request = pb::GetClusterStatusRequest {};
        world.cluster(&world.admin_token()).get_cluster_status(request).await.unwrap().into_inner().warnings
    };
    assert_eq!(warnings().await, Vec::<String>::new());
    let scrub = pb::Worker { name: "scrub".to_owned(), last_error: "no luck".to_owned(), ..pb::Worker::default() };
    let beat =
        pb::HeartbeatRequest { read_only_reason: "a failed sync".to_owned(), workers: vec![scrub], ..node.heartbeat() };
    world.cluster(&node.token).heartbeat(beat).await.unwrap();
    // Nobody listens at the node's address, so it cannot be swept.
    assert_eq!(run(&world, "orphans").await.unwrap().unwrap().failed, 1);
    let told = warnings().await.join("\n");
    for words in [
        "takes no writes: a failed sync",
        "scrub of node",
        "no luck",
        "worker orphans holds back",
        "could not be swept",
    ] {
        assert!(told.contains(words), "{words} is missing in {told}");
    }
}

#[tokio::test]
async fn a_worker_that_does_not_exist_is_a_bad_argument() {
    let world = World::new().await;
    assert_eq!(reason(run(&world, "everything").await), Reason::FieldInvalid);
}

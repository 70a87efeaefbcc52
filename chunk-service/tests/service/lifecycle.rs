//! Starting, joining, losing the metadata service, healing, faults of the disk, stopping.

use std::time::Duration;

use chunk_service::{ChunkError, Deps};
use proto::error::Reason;
use proto::pb;
use proto::runtime::{folder, transport};
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::harness::{ANY_PORT, Client, World, frame, messages, pattern, wait_until, with_capability};
use crate::peer::Peer;

const SERVICE: &str = "minitectonic.v1.ChunkService";

async fn health(endpoint: &str, service: &str) -> Option<ServingStatus> {
    let channel = Endpoint::from_shared(endpoint.to_owned()).unwrap().connect().await.ok()?;
    let answer = HealthClient::new(channel).check(HealthCheckRequest { service: service.to_owned() }).await.ok()?;
    Some(answer.into_inner().status())
}

#[tokio::test]
async fn a_node_started_first_waits_and_is_not_healthy_until_it_has_joined() {
    let mut world = World::prepare().await;
    let metadata = world.stop_metadata().await;
    std::fs::remove_file(world.config.storage.join("join.token")).unwrap();
    let listener = transport::bind(ANY_PORT).await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (config, token) = (world.config.clone(), world.peer.state().join.expose());
    let starting = tokio::spawn(chunk_service::start(config, listener, Deps::default(), CancellationToken::new()));
    for service in ["", SERVICE] {
        wait_until("health answers", async || health(&endpoint, service).await == Some(ServingStatus::NotServing))
            .await;
    }
    let early = Client::connect(endpoint.clone()).await.get_chunk(&Peer::place(), "x").await.unwrap_err();
    assert_eq!(early.reason, Some(Reason::Starting));
    folder::publish(&world.config.storage.join("join.token"), format!("{}\n", token.as_str()).as_bytes()).unwrap();
    world.metadata = Some(world.peer.listen(metadata).await);
    world.running = Some(starting.await.unwrap().unwrap());
    for service in ["", SERVICE] {
        assert_eq!(health(&endpoint, service).await, Some(ServingStatus::Serving));
    }
    world.put(b"bytes").await;
}

#[tokio::test]
async fn a_start_that_waits_can_be_called_off_and_gives_the_folder_back() {
    let mut world = World::prepare().await;
    world.stop_metadata().await;
    for _ in 0..2 {
        let (listener, stop) = (transport::bind(ANY_PORT).await.unwrap(), CancellationToken::new());
        let starting = chunk_service::start(world.config.clone(), listener, Deps::default(), stop.clone());
        let starting = tokio::spawn(starting);
        wait_until("the folder is made", async || world.chunks().join("node.key").exists()).await;
        stop.cancel();
        assert!(matches!(starting.await.unwrap(), Err(ChunkError::Stopped)));
    }
}

#[tokio::test]
async fn an_interrupted_first_start_is_finished_under_the_same_id() {
    let mut world = World::start().await;
    let node = world.peer.state().node.as_ref().unwrap().0;
    world.stop_service().await;
    // As after a crash just before the last step.
    std::fs::remove_file(world.chunks().join("IDENTITY")).unwrap();
    world.start_service().await.unwrap();
    assert!(world.chunks().join("IDENTITY").exists());
    assert_eq!(world.peer.state().node.as_ref().unwrap().0, node);
    world.put(b"bytes").await;
}

#[tokio::test]
async fn an_empty_folder_with_a_used_join_token_is_refused_with_advice() {
    let mut world = World::start().await;
    world.stop_service().await;
    std::fs::rename(world.chunks(), world.config.storage.join("elsewhere")).unwrap();
    let Err(refused) = world.start_service().await else { panic!("another node took the token") };
    assert!(matches!(refused, ChunkError::Refused { .. }), "{refused:?}");
    assert!(refused.to_string().contains("mounted"), "{refused}");
}

#[tokio::test]
async fn folders_that_cannot_be_this_nodes_are_refused() {
    let mut world = World::start().await;
    let listener = transport::bind(ANY_PORT).await.unwrap();
    let second = chunk_service::start(world.config.clone(), listener, Deps::default(), CancellationToken::new()).await;
    let Err(ChunkError::Folder(in_use)) = second else { panic!("two services in one folder") };
    assert!(in_use.to_string().contains("in use"), "{in_use}");

    world.put(b"bytes").await;
    world.stop_service().await;
    let key = std::fs::read(world.chunks().join("node.key")).unwrap();
    std::fs::remove_file(world.chunks().join("node.key")).unwrap();
    assert!(matches!(world.start_service().await, Err(ChunkError::NodeKey { .. })), "keys are lost");
    let identity = std::fs::read(world.chunks().join("IDENTITY")).unwrap();
    std::fs::remove_file(world.chunks().join("IDENTITY")).unwrap();
    assert!(matches!(world.start_service().await, Err(ChunkError::NodeKey { .. })), "chunks of nobody");
    folder::publish(&world.chunks().join("node.key"), &key).unwrap();
    std::fs::write(world.chunks().join("IDENTITY"), &identity[1..]).unwrap();
    assert!(matches!(world.start_service().await, Err(ChunkError::Folder(_))), "a damaged IDENTITY");
    std::fs::write(world.chunks().join("IDENTITY"), identity).unwrap();
    world.start_service().await.unwrap();
}

#[tokio::test]
async fn a_restarted_node_serves_reads_while_the_metadata_service_is_down() {
    let mut world = World::start().await;
    let bytes = pattern(100_000);
    let place = world.put(&bytes).await;
    let metadata = world.stop_metadata().await;
    world.restart_service().await;
    assert!(world.get(&place, &bytes).await.unwrap() == bytes);
    let (client, new) = (world.client().await, Peer::place());
    let capability = world.peer.may_write(new, 5);
    let refused = client.put(&new, &capability, b"bytes").await.unwrap_err();
    assert_eq!(refused.reason, Some(Reason::Starting));
    world.metadata = Some(world.peer.listen(metadata).await);
    wait_until("writes are taken", async || client.put(&new, &capability, b"bytes").await.is_ok()).await;
}

#[tokio::test]
async fn without_heartbeats_for_long_no_chunk_is_taken_and_reads_go_on() {
    let world = World::start_with(|config| {
        config.tuning.heartbeat_lost_for_writes = Duration::from_secs(1);
    })
    .await;
    let place = world.put(b"bytes").await;
    world.peer.state().fails_with = Some(Reason::Draining);
    let (client, new) = (world.client().await, Peer::place());
    let capability = world.peer.may_write(new, 5);
    wait_until("writes are refused", async || {
        client
            .put(&Peer::place(), &capability, b"bytes")
            .await
            .is_err_and(|error| error.reason == Some(Reason::CapabilityInvalid))
            && client
                .put(&new, &capability, b"bytes")
                .await
                .is_err_and(|error| error.reason == Some(Reason::MetadataUnreachable))
    })
    .await;
    assert_eq!(world.get(&place, b"bytes").await.unwrap(), b"bytes");
    world.peer.state().fails_with = None;
    wait_until("writes are taken again", async || client.put(&new, &capability, b"bytes").await.is_ok()).await;
}

#[tokio::test]
async fn a_heartbeat_says_how_the_node_is() {
    let world = World::start_with(|config| {
        config.advertise = Some("http://chunks.example:1".to_owned());
    })
    .await;
    wait_until("a heartbeat came", async || !world.peer.state().heartbeats.is_empty()).await;
    let heartbeat = world.peer.state().heartbeats.last().unwrap().clone();
    assert_eq!(heartbeat.endpoint, "http://chunks.example:1");
    assert!(heartbeat.capacity_bytes >= heartbeat.free_bytes && heartbeat.free_bytes > 0);
    assert_eq!((heartbeat.read_only_reason.as_str(), heartbeat.version.as_str()), ("", env!("CARGO_PKG_VERSION")));
}

#[tokio::test]
async fn a_fault_of_the_disk_ends_writes_turns_health_off_and_reaches_the_heartbeat() {
    let world = World::start().await;
    let (client, place) = (world.client().await, Peer::place());
    let capability = world.peer.may_write(place, 5);
    std::fs::remove_dir_all(world.chunks()).unwrap();
    for _ in 0..2 {
        let refused = client.put(&place, &capability, b"bytes").await.unwrap_err();
        assert_eq!(refused.reason, Some(Reason::ReadOnly), "{}", refused.message);
    }
    let endpoint = world.running().endpoint();
    wait_until("health is off", async || health(&endpoint, SERVICE).await == Some(ServingStatus::NotServing)).await;
    assert_eq!(health(&endpoint, "").await, Some(ServingStatus::Serving), "the process lives and answers reads");
    wait_until("the heartbeat says so", async || {
        world.peer.state().heartbeats.last().is_some_and(|last| !last.read_only_reason.is_empty())
    })
    .await;
}

#[tokio::test]
async fn checksum_files_are_rebuilt_from_what_the_metadata_holds() {
    let world = World::start().await;
    let bytes = pattern(300_000);
    let place = world.put(&bytes).await;
    let sound = std::fs::read(world.chk_path(&place)).unwrap();
    for damaged in [None, Some(&sound[..sound.len() / 2])] {
        match damaged {
            None => std::fs::remove_file(world.chk_path(&place)).unwrap(),
            Some(part) => std::fs::write(world.chk_path(&place), part).unwrap(),
        }
        assert!(world.get(&place, &bytes).await.unwrap() == bytes);
        wait_until("the file is whole", async || {
            std::fs::read(world.chk_path(&place)).is_ok_and(|found| found == sound)
        })
        .await;
    }
}

#[tokio::test]
async fn damage_is_lost_data_on_the_wire() {
    let world = World::start().await;
    let bytes = pattern(300_000);
    let place = world.put(&bytes).await;
    let mut damaged = bytes.clone();
    damaged[200_000] ^= 1;
    std::fs::write(world.blob_path(&place), &damaged).unwrap();
    let refused = world.get(&place, &bytes).await.unwrap_err();
    assert_eq!((refused.code, refused.reason), (tonic::Code::DataLoss, Some(Reason::ChunkCorrupt)));
    std::fs::remove_file(world.blob_path(&place)).unwrap();
    let refused = world.get(&place, &bytes).await.unwrap_err();
    assert_eq!((refused.code, refused.reason), (tonic::Code::DataLoss, Some(Reason::ChunkMissing)));
}

#[tokio::test]
async fn what_a_killed_service_left_is_settled_with_the_metadata() {
    let world = World::start().await;
    let (client, place, bytes) = (world.client().await, Peer::place(), pattern(1_000));
    let capability = world.peer.may_write(place, 1_000);
    std::fs::write(world.blob_path(&place), &bytes[..700]).unwrap();
    world.peer.state().fails_with = Some(Reason::Draining);
    let unsettled = client.put(&place, &capability, &bytes).await.unwrap_err();
    assert_eq!(unsettled.reason, Some(Reason::MetadataUnreachable));
    assert!(world.blob_path(&place).exists());
    world.peer.state().fails_with = None;
    let unknown = client.put(&place, &capability, &bytes).await.unwrap_err();
    assert_eq!(unknown.reason, Some(Reason::UploadExpired));
    world.peer.open(&place);
    assert_eq!(client.status(&place, &capability).await.unwrap().persisted_size_bytes, 0);
    client.put(&place, &capability, &bytes).await.unwrap();
    assert!(world.get(&place, &bytes).await.unwrap() == bytes);
}

#[tokio::test]
async fn a_disk_below_its_low_watermark_takes_no_chunk_and_serves_what_it_has() {
    let mut world = World::start().await;
    let place = world.put(b"bytes").await;
    world.config.tuning.chunk_low_watermark = u64::MAX;
    world.restart_service().await;
    let (client, new) = (world.client().await, Peer::place());
    let refused = client.put(&new, &world.peer.may_write(new, 5), b"bytes").await.unwrap_err();
    assert_eq!(refused.reason, Some(Reason::NodeOutOfSpace));
    assert_eq!(world.get(&place, b"bytes").await.unwrap(), b"bytes");
    client.delete(&place, &world.peer.may_delete(place)).await.unwrap();
}

#[tokio::test]
async fn a_stop_lets_a_write_finish_and_drops_one_that_does_not() {
    let mut world = World::start_with(|config| config.drain = Duration::from_secs(2)).await;
    let (finishing, hanging, bytes) = (Peer::place(), Peer::place(), pattern(2_000));
    let client = world.client().await;
    let mut streams = Vec::new();
    for place in [finishing, hanging] {
        let capability = world.peer.may_write(place, 2_000);
        let (sender, receiver) = tokio::sync::mpsc::channel(4);
        let request = with_capability(tokio_stream::wrappers::ReceiverStream::new(receiver), &capability);
        let mut writer = client.0.clone();
        let writing = tokio::spawn(async move { writer.write_chunk(request).await });
        sender.send(messages(&place, &bytes, 0, 1_000).remove(0)).await.unwrap();
        wait_until("the bytes arrive", async || {
            client.status(&place, &capability).await.unwrap().persisted_size_bytes == 1_000
        })
        .await;
        streams.push((sender, writing));
    }
    let (kept_open, hangs) = streams.pop().unwrap();
    let (sender, finishes) = streams.pop().unwrap();
    let running = world.running.take().unwrap();
    let stopping = tokio::spawn(running.shutdown());
    let endpoint_refuses = wait_until("nobody new is let in", async || {
        tokio::net::TcpStream::connect(world.config.metadata.trim_start_matches("http://")).await.is_ok()
    });
    endpoint_refuses.await;
    sender.send(pb::WriteChunkRequest { finish_write: true, ..frame(1_000, &bytes[1_000..]) }).await.unwrap();
    drop(sender);
    finishes.await.unwrap().unwrap();
    assert!(!stopping.await.unwrap(), "one stream had to be cut");
    drop(kept_open);
    assert!(hangs.await.unwrap().is_err());
    assert!(world.chk_path(&finishing).exists() && !world.blob_path(&hanging).exists());
    world.start_service().await.unwrap();
    assert!(world.get(&finishing, &bytes).await.unwrap() == bytes);
}

#[tokio::test]
async fn reflection_lists_exactly_what_is_served_in_both_versions() {
    use tonic_reflection::pb::{v1, v1alpha};
    let world = World::start().await;
    let channel = Endpoint::from_shared(world.running().endpoint()).unwrap().connect().await.unwrap();
    let expected = [
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        SERVICE,
    ];
    let request = v1::ServerReflectionRequest {
        message_request: Some(v1::server_reflection_request::MessageRequest::ListServices(String::new())),
        ..Default::default()
    };
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(channel.clone());
    let mut stream = client.server_reflection_info(tokio_stream::iter([request])).await.unwrap().into_inner();
    let Some(v1::server_reflection_response::MessageResponse::ListServicesResponse(list)) =
        stream.message().await.unwrap().unwrap().message_response
    else {
        panic!("not a list")
    };
    let mut names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    names.sort();
    assert_eq!(names, expected);
    let request = v1alpha::ServerReflectionRequest {
        message_request: Some(v1alpha::server_reflection_request::MessageRequest::FileContainingSymbol(
            SERVICE.to_owned(),
        )),
        ..Default::default()
    };
    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(channel);
    let mut stream = client.server_reflection_info(tokio_stream::iter([request])).await.unwrap().into_inner();
    let answer = stream.message().await.unwrap().unwrap().message_response;
    assert!(matches!(answer, Some(v1alpha::server_reflection_response::MessageResponse::FileDescriptorResponse(_))));
}

/// The journal's threads were started by one that bronze's work runs on, and kept its low priority for good: each small
/// write of gold waited for them behind all other work.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_journal_s_threads_have_the_priority_of_the_process() {
    // By thread: name and niceness, the second and the nineteenth field of its line.
    let threads = || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        let lines = tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("stat")).ok());
        let parsed = lines.filter_map(|line| {
            let (name, rest) = line.split_once('(')?.1.rsplit_once(") ")?;
            Some((name.to_owned(), rest.split(' ').nth(16)?.to_owned()))
        });
        parsed.collect::<Vec<_>>()
    };
    let ours = rustix::process::getpriority_process(None).unwrap().to_string();
    let world = World::start().await;
    world.put(b"bytes").await;
    let journal = threads().into_iter().filter(|(name, _)| name.starts_with("chunk-"));
    let journal: Vec<_> = journal.map(|(_, niceness)| niceness).collect();
    assert!(journal.len() >= 2 && journal.iter().all(|niceness| *niceness == ours), "{journal:?}, not {ours}");
}

//! Streams that stall, break, race and are taken over.

use std::time::Duration;

use proto::capability::ChunkBinding;
use proto::error::Reason;
use proto::pb;
use proto::pb::chunk_service_client::ChunkServiceClient;
use proto::status::{WireError, from_status};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;

use crate::harness::{Client, World, messages, pattern, wait_until, with_capability};
use crate::peer::Peer;

/// A WriteChunk stream that the test feeds message by message.
struct OpenStream {
    sender: mpsc::Sender<pb::WriteChunkRequest>,
    writing: JoinHandle<Result<pb::WriteChunkResponse, WireError>>,
}

fn open(client: &Client, capability: &str) -> OpenStream {
    let (sender, receiver) = mpsc::channel(4);
    let request = with_capability(ReceiverStream::new(receiver), capability);
    let mut client = client.0.clone();
    let writing = tokio::spawn(async move {
        let outcome = client.write_chunk(request).await;
        outcome.map(tonic::Response::into_inner).map_err(|status| from_status(&status))
    });
    OpenStream { sender, writing }
}

impl OpenStream {
    async fn send(&self, messages: impl IntoIterator<Item = pb::WriteChunkRequest>) {
        for message in messages {
            self.sender.send(message).await.unwrap();
        }
    }

    async fn refused(self) -> Option<Reason> {
        self.writing.await.unwrap().unwrap_err().reason
    }
}

async fn wait_for_offset(client: &Client, place: &ChunkBinding, capability: &str, offset: u64) {
    wait_until("the bytes arrive", async || {
        client.status(place, capability).await.unwrap().persisted_size_bytes == offset
    })
    .await;
}

#[tokio::test]
async fn a_stream_at_the_persisted_offset_takes_over_and_the_earlier_one_is_told() {
    let world = World::start().await;
    let (client, place, bytes) = (world.client().await, Peer::place(), pattern(3_000));
    let capability = world.peer.may_write(place, 3_000);
    let first = open(&client, &capability);
    first.send(messages(&place, &bytes, 0, 1_000).into_iter().take(2)).await;
    wait_for_offset(&client, &place, &capability, 2_000).await;
    let misfit = client.send(&capability, messages(&place, &bytes, 1_000, 1_000)).await.unwrap_err();
    assert_eq!(misfit.reason, Some(Reason::WriteOffsetMismatch));
    client.send(&capability, messages(&place, &bytes, 2_000, 1_000)).await.unwrap();
    assert_eq!(first.refused().await, Some(Reason::ConcurrentWrite));
    assert!(world.get(&place, &bytes).await.unwrap() == bytes);
}

#[tokio::test]
async fn of_racing_streams_one_wins_and_what_it_wrote_is_whole() {
    let world = World::start().await;
    let (place, bytes) = (Peer::place(), pattern(400_000));
    let capability = world.peer.may_write(place, 400_000);
    let client = world.client().await;
    let racers = (0..8).map(|_| client.send(&capability, messages(&place, &bytes, 0, 50_000)));
    let outcomes = futures_util::future::join_all(racers).await;
    let allowed = [Reason::ConcurrentWrite, Reason::WriteOffsetMismatch];
    for refused in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
        assert!(refused.reason.is_some_and(|reason| allowed.contains(&reason)), "{refused:?}");
    }
    client.send(&capability, messages(&place, &bytes, 0, 50_000)).await.unwrap();
    assert!(world.get(&place, &bytes).await.unwrap() == bytes);
}

#[tokio::test]
async fn what_a_client_sent_before_it_vanished_is_kept() {
    let world = World::start().await;
    let (place, bytes) = (Peer::place(), pattern(900_000));
    let capability = world.peer.may_write(place, 900_000);
    let vanishing = open(&world.client().await, &capability);
    vanishing.send(messages(&place, &bytes, 0, 300_000).into_iter().take(2)).await;
    let client = world.client().await;
    wait_for_offset(&client, &place, &capability, 600_000).await;
    vanishing.writing.abort();
    client.send(&capability, messages(&place, &bytes, 600_000, 300_000)).await.unwrap();
    assert!(world.get(&place, &bytes).await.unwrap() == bytes);
}

#[tokio::test]
async fn a_silent_stream_is_cut_and_may_be_gone_on_with() {
    let world = World::start_with(|config| config.tuning.stream_stall = Duration::from_millis(300)).await;
    let (client, place, bytes) = (world.client().await, Peer::place(), pattern(2_000));
    let capability = world.peer.may_write(place, 2_000);
    let silent = open(&client, &capability);
    silent.send(messages(&place, &bytes, 0, 1_000).into_iter().take(1)).await;
    assert_eq!(silent.refused().await, Some(Reason::StreamStalled));
    client.send(&capability, messages(&place, &bytes, 1_000, 1_000)).await.unwrap();
    let mute = open(&client, &capability);
    assert_eq!(mute.refused().await, Some(Reason::StreamStalled), "also before its first message");
}

#[tokio::test]
async fn empty_messages_are_no_progress() {
    let world = World::start_with(|config| config.tuning.stream_stall = Duration::from_millis(300)).await;
    let (client, place) = (world.client().await, Peer::place());
    let capability = world.peer.may_write(place, 2_000);
    let empty = open(&client, &capability);
    let spec = Some(pb::WriteChunkSpec { chunk_id: place.chunk.to_string(), size_bytes: None });
    empty.send([pb::WriteChunkRequest { spec, ..Default::default() }]).await;
    let sender = empty.sender.clone();
    let flood = tokio::spawn(async move { while sender.send(pb::WriteChunkRequest::default()).await.is_ok() {} });
    assert_eq!(empty.refused().await, Some(Reason::StreamStalled));
    flood.abort();
}

#[tokio::test]
async fn a_stream_lives_only_so_long_whatever_its_progress() {
    let world = World::start_with(|config| config.tuning.stream_life = Duration::from_millis(400)).await;
    let (client, place, bytes) = (world.client().await, Peer::place(), pattern(1_000_000));
    let capability = world.peer.may_write(place, 1_000_000);
    let steady = open(&client, &capability);
    let sender = steady.sender.clone();
    let all = messages(&place, &bytes, 0, 100);
    let feeding = tokio::spawn(async move {
        for message in all {
            tokio::time::sleep(Duration::from_millis(5)).await;
            if sender.send(message).await.is_err() {
                return;
            }
        }
    });
    assert_eq!(steady.refused().await, Some(Reason::StreamStalled));
    feeding.abort();
}

#[tokio::test]
async fn a_reader_that_does_not_read_loses_its_place() {
    let world = World::start_with(|config| {
        config.tuning.stream_stall = Duration::from_millis(300);
        config.tuning.read_streams_max = 1;
    })
    .await;
    // More than the flow-control windows and what the server's transport buffers.
    let bytes = pattern(16 << 20);
    let place = world.put(&bytes).await;
    let capability = world.peer.may_read(place, &bytes);
    let client = world.client().await;
    let request = pb::ReadChunkRequest { chunk_id: place.chunk.to_string(), ..Default::default() };
    let mut idle = client.0.clone().read_chunk(with_capability(request, &capability)).await.unwrap().into_inner();
    let refused = client.get_chunk(&place, &capability).await;
    assert!(refused.is_ok(), "other calls go on");
    let other = world.client().await;
    let refused = other.read(&place, &capability, 0, 1).await;
    assert_eq!(refused.unwrap_err().reason, Some(Reason::Overloaded));
    wait_until("the place is free again", async || other.read(&place, &capability, 0, 1).await.is_ok()).await;
    let cut = loop {
        match idle.message().await {
            Ok(message) => assert!(message.is_some(), "the stream does not end as if it were complete"),
            Err(status) => break from_status(&status),
        }
    };
    assert_eq!(cut.reason, Some(Reason::StreamStalled));
}

/// A connection whose answers come no further than fits into a window, if nobody takes them.
async fn with_a_small_window(world: &World) -> tonic::transport::Channel {
    let endpoint = tonic::transport::Endpoint::from_shared(world.running().endpoint()).unwrap();
    endpoint.initial_stream_window_size(65_535).connect().await.unwrap()
}

/// Asks for a batch of one chunk, and takes no more of the answer than fits into a window.
async fn ask_and_not_take(world: &World, place: &ChunkBinding, capability: &str) -> impl Sized {
    let mut grpc = tonic::client::Grpc::new(with_a_small_window(world).await);
    grpc.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<_, pb::ReadChunksResponse>::default();
    let path = "/minitectonic.v1.ChunkService/ReadChunks".parse().unwrap();
    let item = pb::ReadChunksItem { chunk_id: place.chunk.to_string(), ..Default::default() };
    let request = with_capability(pb::ReadChunksRequest { chunks: vec![item] }, capability);
    grpc.server_streaming(request, path, codec).await.unwrap()
}

/// The place was free when the bytes were read: a client that took none of its batches had the service keep as many as it
/// asked for.
#[tokio::test]
async fn a_batch_that_is_not_taken_keeps_its_place() {
    let world = World::start_with(|config| config.tuning.read_streams_max = 1).await;
    let bytes = pattern(1 << 20);
    let place = world.put(&bytes).await;
    let capability = world.peer.may_read(place, &bytes);
    let client = world.client().await;
    let untaken = ask_and_not_take(&world, &place, &capability).await;
    let refused = client.read(&place, &capability, 0, 1).await;
    assert_eq!(refused.unwrap_err().reason, Some(Reason::Overloaded));
    drop(untaken);
    wait_until("the place is free again", async || client.read(&place, &capability, 0, 1).await.is_ok()).await;
}

/// A range of one frame had given its place back before the frame was sent, one of two when the second was read: a client
/// that took neither had the service keep as many as it asked for.
#[tokio::test]
async fn a_short_read_that_is_not_taken_keeps_its_place() {
    let world = World::start_with(|config| config.tuning.read_streams_max = 1).await;
    let bytes = pattern(1 << 20);
    let place = world.put(&bytes).await;
    let capability = world.peer.may_read(place, &bytes);
    let client = world.client().await;
    for read_limit in [400_000, 800_000] {
        let channel = with_a_small_window(&world).await;
        let request = pb::ReadChunkRequest { chunk_id: place.chunk.to_string(), read_offset: 0, read_limit };
        let untaken = ChunkServiceClient::new(channel).read_chunk(with_capability(request, &capability)).await.unwrap();
        // Time enough for the second frame to be read.
        for _ in 0..200 {
            let refused = client.read(&place, &capability, 0, 1).await;
            assert_eq!(refused.unwrap_err().reason, Some(Reason::Overloaded), "{read_limit} bytes");
        }
        drop(untaken);
        wait_until("the place is free again", async || client.read(&place, &capability, 0, 1).await.is_ok()).await;
    }
}

/// No limit on small frames may break what tools do that write little at a time.
#[tokio::test]
async fn ten_megabytes_in_messages_of_a_hundred_bytes_are_an_upload_like_any_other() {
    let world = World::start().await;
    let bytes = pattern(10_000_000);
    let (client, place) = (world.client().await, Peer::place());
    let capability = world.peer.may_write(place, 10_000_000);
    client.send(&capability, messages(&place, &bytes, 0, 100)).await.unwrap();
    assert!(world.get(&place, &bytes).await.unwrap() == bytes);
}

/// Asks for something and does not say what.
async fn ask_and_fall_silent(world: &World) -> Option<Reason> {
    let endpoint = tonic::transport::Endpoint::from_shared(world.running().endpoint()).unwrap();
    let mut grpc = tonic::client::Grpc::new(endpoint.connect_lazy());
    grpc.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<pb::QueryWriteStatusRequest, pb::QueryWriteStatusResponse>::default();
    let path = "/minitectonic.v1.ChunkService/QueryWriteStatus".parse().unwrap();
    let asked = grpc.client_streaming(tonic::Request::new(tokio_stream::pending()), path, codec).await;
    from_status(&asked.unwrap_err()).reason
}

/// The time for requests of one message is none for streams: they have their own.
#[tokio::test]
async fn a_stream_may_take_longer_than_a_request_may() {
    let world = World::start_with(|config| {
        config.transport.request_stall = Duration::from_millis(100);
        config.transport.request_within = Duration::from_millis(100);
    })
    .await;
    let (client, place, bytes) = (world.client().await, Peer::place(), pattern(2_000));
    let capability = world.peer.may_write(place, 2_000);
    let slow = open(&client, &capability);
    let mut first = messages(&place, &bytes, 0, 1_000);
    let last = first.split_off(1);
    slow.send(first).await;
    wait_for_offset(&client, &place, &capability, 1_000).await;
    // By the time that this later one is refused, the stream would have been.
    assert_eq!(ask_and_fall_silent(&world).await, Some(Reason::StreamStalled));
    slow.send(last).await;
    drop(slow.sender);
    slow.writing.await.unwrap().unwrap();
}

/// What a service is set to holds at its listener.
#[tokio::test]
async fn strangers_get_only_what_the_settings_grant() {
    let world = World::start_with(|config| {
        config.transport.connections_per_address = 2;
        config.transport.first_request_within = Duration::from_millis(200);
    })
    .await;
    let (running, mut silent) = (world.running(), Vec::new());
    while running.connections().silent == 0 || running.connections().refused_address == 0 {
        silent.extend(tokio::net::TcpStream::connect(running.address()).await);
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_delete_ends_an_open_write() {
    let world = World::start().await;
    let (client, place, bytes) = (world.client().await, Peer::place(), pattern(2_000));
    let capability = world.peer.may_write(place, 2_000);
    let writing = open(&client, &capability);
    writing.send(messages(&place, &bytes, 0, 1_000).into_iter().take(1)).await;
    wait_for_offset(&client, &place, &capability, 1_000).await;
    client.delete(&place, &world.peer.may_delete(place)).await.unwrap();
    assert_eq!(writing.refused().await, Some(Reason::ConcurrentWrite));
    assert!(!world.blob_path(&place).exists());
}

#[tokio::test]
async fn open_writes_are_bounded_and_end_when_nobody_comes_back() {
    let world = World::start_with(|config| {
        config.tuning.write_sessions_per_tenant = 1;
        config.tuning.write_session_kept = Duration::from_millis(400);
    })
    .await;
    let (client, one, other, bytes) = (world.client().await, Peer::place(), Peer::place(), pattern(2_000));
    let broken = client.send(&world.peer.may_write(one, 2_000), vec![messages(&one, &bytes, 0, 1_000).remove(0)]).await;
    assert_eq!(broken.unwrap_err().reason, Some(Reason::FieldInvalid));
    let refused = client.put(&other, &world.peer.may_write(other, 2_000), &bytes).await.unwrap_err();
    assert_eq!(refused.reason, Some(Reason::Overloaded));
    assert!(refused.retry_after.is_some());
    let permission = world.peer.may_write(other, 2_000);
    wait_until("the open write ends", async || client.put(&other, &permission, &bytes).await.is_ok()).await;
    assert!(!world.blob_path(&one).exists());
}

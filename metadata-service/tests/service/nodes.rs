//! Nodes: joining, living, being told about chunks.

use std::time::Duration;

use proto::capability::NodeKey;
use proto::entropy::OsEntropy;
use proto::error::Reason;
use proto::ids::NodeId;
use proto::pb;
use proto::runtime::clock::Clock as _;
use proto::secret::SecretKey;

use crate::world::{FakeNode, NODE_ENDPOINT, World, put, reason, refusal};

fn some_node() -> NodeId {
    NodeId::generate(1, &OsEntropy)
}

#[tokio::test]
async fn a_join_token_is_good_for_the_first_node_that_uses_it() {
    let mut world = World::new().await;
    let join = world.join_token();
    let first = FakeNode::join(&world, &join, some_node()).await.unwrap();
    let again = FakeNode::join(&world, &join, first.id).await.unwrap();
    assert_eq!(again.joined, first.joined, "a repeat gets the same answer");
    assert_eq!(first.joined.heartbeat_interval_ms, 5000);
    let other = FakeNode::join(&world, &join, some_node()).await.map(|node| node.id);
    assert_eq!(reason(other), Reason::ScopeMissing);

    world.restart_with(|tuning| tuning.reissue_join_token = true).await;
    let fresh = world.join_token();
    assert_ne!(fresh, join);
    let second = FakeNode::join(&world, &fresh, some_node()).await.unwrap();
    assert_eq!(FakeNode::join(&world, &join, first.id).await.unwrap().token, first.token, "the old one is still bound");
    second.beat(&world).await.unwrap();
}

#[tokio::test]
async fn nodes_are_listed_with_their_state_and_survive_a_restart() {
    let mut world = World::new().await;
    let node = FakeNode::join(&world, &world.join_token(), some_node()).await.unwrap();
    let list = async |world: &World| {
        let request = pb::ListNodesRequest::default();
        world.cluster(&world.admin_token()).list_nodes(request).await.unwrap().into_inner().nodes
    };
    let listed = list(&world).await;
    assert_eq!((listed[0].node_id.clone(), listed[0].state()), (node.id.to_string(), pb::NodeState::Lost));
    assert_eq!(listed[0].last_heartbeat_time, None);
    node.beat(&world).await.unwrap();
    let listed = list(&world).await;
    assert_eq!((listed[0].state(), listed[0].free_bytes), (pb::NodeState::Alive, 1 << 39));
    let read_only = pb::HeartbeatRequest { read_only_reason: "a failed sync".to_owned(), ..node.heartbeat() };
    world.cluster(&node.token).heartbeat(read_only).await.unwrap();
    assert_eq!(list(&world).await[0].state(), pb::NodeState::ReadOnly);
    let moved = pb::HeartbeatRequest { endpoint: "http://127.0.0.1:9".to_owned(), ..node.heartbeat() };
    world.cluster(&node.token).heartbeat(moved).await.unwrap();
    world.restart().await;
    let listed = list(&world).await;
    assert_eq!(listed[0].endpoint, "http://127.0.0.1:9", "where a node is reached is durable");
    assert_eq!(listed[0].state(), pb::NodeState::Lost, "how it is, it says anew");
    node.beat(&world).await.unwrap();
    assert_eq!(
        (list(&world).await[0].state(), list(&world).await[0].endpoint.as_str()),
        (pb::NodeState::Alive, NODE_ENDPOINT)
    );
}

#[tokio::test]
async fn no_upload_starts_without_a_node_that_takes_writes() {
    let world = World::new().await;
    let token = world.tenant("posts").await;
    let request = pb::StartUploadRequest { size_bytes: Some(1), ..Default::default() };
    let refused = refusal(world.metadata(&token).start_upload(request.clone()).await);
    assert_eq!(refused.reason, Some(Reason::NoChunkNode));
    assert!(refused.retry_after.is_some());
    let node = world.node().await;
    world.metadata(&token).start_upload(request.clone()).await.unwrap();
    let full = pb::HeartbeatRequest { free_bytes: 0, ..node.heartbeat() };
    world.cluster(&node.token).heartbeat(full).await.unwrap();
    assert_eq!(reason(world.metadata(&token).start_upload(request).await), Reason::NodeOutOfSpace);
}

#[tokio::test]
async fn a_node_is_told_about_its_own_chunks_only() {
    let mut world = World::new().await;
    world.restart_with(|tuning| tuning.reissue_join_token = true).await;
    let node = world.node().await;
    let token = world.tenant("posts").await;
    let describe = async |world: &World, node: &FakeNode, chunk_id: &str| {
        let request = pb::DescribeChunkRequest { chunk_id: chunk_id.to_owned() };
        world.cluster(&node.token).describe_chunk(request).await.unwrap().into_inner()
    };
    let request = pb::StartUploadRequest { size_bytes: Some(2), ..Default::default() };
    let started = world.metadata(&token).start_upload(request).await.unwrap().into_inner();
    let block = &started.blocks[0];
    let open = describe(&world, &node, &block.chunks[0].chunk_id).await;
    assert_eq!((open.state(), open.block_id.as_str()), (pb::ChunkState::Open, block.block_id.as_str()));
    assert_eq!((open.blob_id, open.size_bytes, open.sha256), (started.upload.unwrap().blob_id, 0, String::new()));

    let blob = put(&world, &node, &token, "n", b"hello").await;
    let layout = pb::GetBlobLayoutRequest { blob_id: blob.blob_id.clone(), ..Default::default() };
    let layout = world.metadata(&token).get_blob_layout(layout).await.unwrap().into_inner();
    let chunk = &layout.blocks[0].chunks[0];
    let sealed = describe(&world, &node, &chunk.chunk_id).await;
    assert_eq!(sealed.state(), pb::ChunkState::Sealed);
    assert_eq!((&sealed.sha256, &sealed.pieces_sha256), (&chunk.sha256, &chunk.pieces_sha256));
    assert_eq!((sealed.size_bytes, sealed.shard_index, sealed.shard_count), (5, 0, 1));
    let binding = node.check(&world, &chunk.capability).binding;
    assert_eq!(
        (sealed.generation, sealed.epoch, sealed.sequence),
        (binding.generation, binding.epoch, binding.sequence)
    );

    world.restart_with(|tuning| tuning.reissue_join_token = true).await;
    let other = world.node().await;
    assert_eq!(describe(&world, &other, &chunk.chunk_id).await.state(), pb::ChunkState::Unknown);
    assert_eq!(describe(&world, &node, &some_node().to_string()).await.state(), pb::ChunkState::Unknown);
}

#[tokio::test]
async fn the_cluster_s_status_adds_up() {
    let world = World::new().await;
    let node = world.node().await;
    for (tenant, bytes) in [("posts", &b"hello"[..]), ("images", b"hello world!")] {
        let token = world.tenant(tenant).await;
        put(&world, &node, &token, "n", bytes).await;
    }
    let request = pb::GetClusterStatusRequest {};
    let status = world.cluster(&world.admin_token()).get_cluster_status(request).await.unwrap().into_inner();
    assert_eq!(status.cluster_id, world.running().cluster_id().to_string());
    assert_eq!((status.tenant_count, status.nodes.len(), status.epoch), (2, 1, 1));
    let usage = status.usage.unwrap();
    assert_eq!((usage.used_blobs, usage.used_bytes, usage.reserved_bytes), (2, 17, 0));
    assert!(status.sequence > 0 && status.read_only_reason.is_empty());
}

#[tokio::test]
async fn a_node_s_next_key_is_used_when_the_node_says_that_it_holds_it_and_not_before() {
    let world = World::new().await;
    let token = world.tenant("posts").await;
    let node = world.node().await;
    let rotate = async |named: &str| {
        let request = pb::RotateNodeKeysRequest { node_id: named.to_owned() };
        world.cluster(&world.admin_token()).rotate_node_keys(request).await
    };
    let offers = rotate("").await.unwrap().into_inner().offers;
    assert_eq!((offers[0].node_id.as_str(), offers[0].next_key_id), (node.id.to_string().as_str(), 2));
    assert_eq!(rotate(&node.id.to_string()).await.unwrap().into_inner().offers, offers, "a repeat offers the same");
    let stranger = NodeId::generate(1, &OsEntropy).to_string();
    assert_eq!(reason(rotate(&stranger).await), Reason::FieldInvalid);
    let beat = async |key_ids: &[u32]| {
        let request = pb::HeartbeatRequest { key_ids: key_ids.to_vec(), ..node.heartbeat() };
        world.cluster(&node.token).heartbeat(request).await.unwrap().into_inner()
    };
    let capability = async || {
        let request = pb::StartUploadRequest { size_bytes: Some(1), ..Default::default() };
        let started = world.metadata(&token).start_upload(request).await.unwrap().into_inner();
        started.blocks[0].chunks[0].capability.clone()
    };
    let answer = beat(&[1]).await;
    assert_eq!(answer.hold_key_ids, [1, 2]);
    let [given] = answer.keys.as_slice() else { panic!("{:?}", answer.hold_key_ids) };
    let next = NodeKey { key_id: given.key_id, secret: SecretKey::from_slice(&given.secret).unwrap() };
    let made_with = |text: &str, key: &NodeKey| {
        let now_ms = world.clock.now_ms();
        proto::capability::verify(text, std::slice::from_ref(key), node.cluster, node.id, now_ms, 0).is_ok()
    };
    assert!(made_with(&capability().await, &node.key), "the node has not said that it holds the next");
    let answer = beat(&[1, 2]).await;
    assert_eq!((answer.hold_key_ids, answer.keys.len()), (vec![2, 1], 0));
    assert!(made_with(&capability().await, &next));
    world.clock.advance(Duration::from_secs(16 * 60 + 1));
    assert_eq!(beat(&[2, 1]).await.hold_key_ids, [2], "nothing that was permitted under the first is valid any more");
    assert_eq!(beat(&[]).await.keys.len(), 0, "a node that names no keys is given none");
}

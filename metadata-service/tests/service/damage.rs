//! Damage: nodes ask what they should hold, tell what they found, and the operator is told whose it is.

use proto::entropy::OsEntropy;
use proto::error::Reason;
use proto::ids::{ChunkId, NodeId};
use proto::pb;

use crate::world::{FakeNode, World, put, reason};

async fn chunk_of(world: &World, token: &str, blob: &pb::Blob) -> pb::ChunkLocation {
    let request = pb::GetBlobLayoutRequest { blob_id: blob.blob_id.clone(), ..Default::default() };
    let layout = world.metadata(token).get_blob_layout(request).await.unwrap().into_inner();
    layout.blocks[0].chunks[0].clone()
}

async fn report(world: &World, node: &FakeNode, chunk_id: &str, condition: pb::ChunkCondition) {
    let mut report =
        pb::ChunkReport { chunk_id: chunk_id.to_owned(), detail: "as found".to_owned(), ..Default::default() };
    report.set_condition(condition);
    let request = pb::ReportChunksRequest { node_id: node.id.to_string(), reports: vec![report] };
    world.cluster(&node.token).report_chunks(request).await.unwrap();
}

async fn damaged(world: &World) -> Vec<pb::DamagedChunk> {
    let request = pb::ListDamagedChunksRequest::default();
    world.cluster(&world.admin_token()).list_damaged_chunks(request).await.unwrap().into_inner().chunks
}

async fn status(world: &World) -> pb::GetClusterStatusResponse {
    let request = pb::GetClusterStatusRequest {};
    world.cluster(&world.admin_token()).get_cluster_status(request).await.unwrap().into_inner()
}

async fn chunks(world: &World, node: &FakeNode, after: &str, page_size: i32) -> pb::ListNodeChunksResponse {
    let request =
        pb::ListNodeChunksRequest { node_id: node.id.to_string(), after_chunk_id: after.to_owned(), page_size };
    world.cluster(&node.token).list_node_chunks(request).await.unwrap().into_inner()
}

#[tokio::test]
async fn damage_is_told_with_whose_it_is_until_the_chunk_is_sound_again() {
    let mut world = World::new().await;
    let node = world.node().await;
    let (posts, images) = (world.tenant("posts").await, world.tenant("images").await);
    let (mine, other) =
        (put(&world, &node, &posts, "n", b"hello").await, put(&world, &node, &images, "n", b"hi").await);
    let (chunk, others) = (chunk_of(&world, &posts, &mine).await, chunk_of(&world, &images, &other).await);
    report(&world, &node, &chunk.chunk_id, pb::ChunkCondition::Corrupt).await;
    report(&world, &node, &others.chunk_id, pb::ChunkCondition::Missing).await;
    report(&world, &node, &ChunkId::generate(1, &OsEntropy).to_string(), pb::ChunkCondition::Missing).await;

    world.restart().await;
    let listed = damaged(&world).await;
    let of = |chunk_id: &str| listed.iter().find(|one| one.chunk_id == chunk_id).unwrap().clone();
    let told = of(&chunk.chunk_id);
    assert_eq!((told.tenant_id.as_str(), &told.blob_id, &told.node_id), ("posts", &mine.blob_id, &node.id.to_string()));
    assert_eq!((told.condition(), told.detail.as_str()), (pb::ChunkCondition::Corrupt, "as found"));
    assert!(told.find_time.is_some());
    assert_eq!(of(&others.chunk_id).tenant_id, "images");
    let told = status(&world).await;
    assert_eq!(told.damaged_chunk_count, 2, "what nothing refers to is no damage");
    assert!(told.warnings.iter().any(|warning| warning.starts_with("2 chunks are missing or damaged")));

    let listed = chunks(&world, &node, "", 0).await.chunks;
    assert!(listed.iter().all(|one| one.damaged), "the node is told what it has to look at again");
    for sound in [pb::ChunkCondition::Sound, pb::ChunkCondition::Rebuilt] {
        report(&world, &node, &chunk.chunk_id, sound).await;
        report(&world, &node, &others.chunk_id, sound).await;
        assert!(damaged(&world).await.is_empty());
    }
    assert_eq!(status(&world).await.damaged_chunk_count, 0);
}

#[tokio::test]
async fn a_node_is_told_page_by_page_what_it_should_hold() {
    let world = World::new().await;
    let node = world.node().await;
    let token = world.tenant("posts").await;
    let mut expected = Vec::new();
    for number in 0..5 {
        let blob = put(&world, &node, &token, "n", format!("bytes {number}").as_bytes()).await;
        expected.push(chunk_of(&world, &token, &blob).await);
    }
    expected.sort_by(|a, b| a.chunk_id.cmp(&b.chunk_id));
    let request = pb::StartUploadRequest { size_bytes: Some(2), ..Default::default() };
    world.metadata(&token).start_upload(request).await.unwrap();
    let (mut after, mut listed) = (String::new(), Vec::new());
    loop {
        let page = chunks(&world, &node, &after, 2).await;
        assert!(page.chunks.len() <= 2);
        listed.extend(page.chunks);
        after = page.next_after_chunk_id;
        if after.is_empty() {
            break;
        }
    }
    assert_eq!(listed.len(), expected.len(), "a chunk that is still written is not among them");
    for (listed, expected) in listed.iter().zip(&expected) {
        let description = listed.description.as_ref().unwrap();
        assert_eq!((&listed.chunk_id, listed.damaged), (&expected.chunk_id, false));
        assert_eq!((description.state(), &description.sha256), (pb::ChunkState::Sealed, &expected.sha256));
    }
}

#[tokio::test]
async fn a_node_speaks_for_itself_only() {
    let world = World::new().await;
    let node = world.node().await;
    let stranger = NodeId::generate(1, &OsEntropy).to_string();
    let mut cluster = world.cluster(&node.token);
    let listing = pb::ListNodeChunksRequest { node_id: stranger.clone(), ..Default::default() };
    assert_eq!(reason(cluster.list_node_chunks(listing).await), Reason::ScopeMissing);
    let reporting = pb::ReportChunksRequest { node_id: stranger, reports: Vec::new() };
    assert_eq!(reason(cluster.report_chunks(reporting).await), Reason::ScopeMissing);
    let own = node.id.to_string();
    let many = pb::ReportChunksRequest { node_id: own.clone(), reports: vec![pb::ChunkReport::default(); 101] };
    assert_eq!(reason(cluster.report_chunks(many).await), Reason::FieldInvalid);
    let vague = pb::ReportChunksRequest { node_id: own, reports: vec![pb::ChunkReport::default()] };
    assert_eq!(reason(cluster.report_chunks(vague).await), Reason::FieldInvalid);
}

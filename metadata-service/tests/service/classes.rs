//! Classes of traffic: what a capability says of its call, and what nodes say of each class.

use proto::pb;
use proto::traffic::TrafficClass;
use tonic::Code;

use crate::world::{FakeNode, World, put};

/// The classes of the write that a tenant is permitted, of more of it, and of a read, when it asks for this class.
async fn granted(world: &World, node: &FakeNode, token: &str, asked: pb::TrafficClass) -> [TrafficClass; 3] {
    let (mut metadata, traffic_class) = (world.metadata(token), asked.into());
    let class = |capability: &str| node.check(world, capability).class;
    let request = pb::StartUploadRequest { traffic_class, ..Default::default() };
    let started = metadata.start_upload(request).await.unwrap().into_inner();
    let blob_id = started.upload.unwrap().blob_id;
    let request = pb::AllocateBlocksRequest { blob_id, block_count: 1, traffic_class, ..Default::default() };
    let more = metadata.allocate_blocks(request).await.unwrap().into_inner();
    let blob_id = put(world, node, token, "n", b"hello").await.blob_id;
    let request = pb::GetBlobLayoutRequest { blob_id, traffic_class, ..Default::default() };
    let layout = metadata.get_blob_layout(request).await.unwrap().into_inner();
    let [first, more] = [&started.blocks, &more.blocks].map(|blocks| class(&blocks[0].chunks[0].capability));
    [first, more, class(&layout.blocks[0].chunks[0].capability)]
}

#[tokio::test]
async fn a_call_is_as_urgent_as_it_asks_and_never_above_its_tenant() {
    use TrafficClass::{Bronze, Gold, Silver};
    let world = World::new().await;
    let node = world.node().await;
    let token = world.tenant("posts").await;
    for (own, of_each) in [(Gold, [Gold, Gold, Silver, Bronze]), (Bronze, [Bronze; 4])] {
        let traffic_class = pb::TrafficClass::from(own).into();
        let request = pb::UpdateTenantRequest { tenant_id: "posts".to_owned(), traffic_class, ..Default::default() };
        world.admin().update_tenant(request).await.unwrap();
        let asked =
            [pb::TrafficClass::Unspecified, pb::TrafficClass::Gold, pb::TrafficClass::Silver, pb::TrafficClass::Bronze];
        for (asked, expected) in asked.into_iter().zip(of_each) {
            assert_eq!(granted(&world, &node, &token, asked).await, [expected; 3], "{asked:?} of a {own:?} tenant");
        }
    }
    let request = pb::GetBlobLayoutRequest { traffic_class: 9, ..Default::default() };
    let refused = world.metadata(&token).get_blob_layout(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn the_state_of_a_node_says_what_it_does_for_each_class() {
    let world = World::new().await;
    let node = world.node().await;
    let load = |class, job_count| pb::ClassLoad { traffic_class: class, job_count, ..Default::default() };
    // A class that nobody knows, and one that is told twice.
    let class_loads = vec![load(3, 30), load(9, 90), load(1, 10), load(1, 11)];
    let beat = pb::HeartbeatRequest { class_loads, ..node.heartbeat() };
    world.cluster(&node.token).heartbeat(beat).await.unwrap();
    let request = pb::GetClusterStatusRequest {};
    let status = world.cluster(&world.admin_token()).get_cluster_status(request).await.unwrap().into_inner();
    assert_eq!(status.nodes[0].class_loads, [load(1, 10), load(3, 30)]);
}

//! Blobs over the wire: looking, listing, reading, deleting.

use std::time::Duration;

use proto::capability::Permit;
use proto::checksum::Sha256;
use proto::error::Reason;
use proto::pb;

use crate::world::{World, put, reason, refusal};

fn layout_of(blob_id: &str, read_offset: u64, read_limit: u64) -> pb::GetBlobLayoutRequest {
    pb::GetBlobLayoutRequest { blob_id: blob_id.to_owned(), read_offset, read_limit, ..Default::default() }
}

#[tokio::test]
async fn a_layout_permits_to_read_exactly_what_was_written() {
    let world = World::new().await;
    let (node, token) = (world.node().await, world.tenant("posts").await);
    let blob = put(&world, &node, &token, "n", b"hello, wide world!").await;
    let mut metadata = world.metadata(&token);
    let layout = metadata.get_blob_layout(layout_of(&blob.blob_id, 0, 0)).await.unwrap().into_inner();
    assert_eq!((layout.blob.as_ref(), layout.next_read_offset), (Some(&blob), None));
    assert_eq!((layout.frame_size_bytes, layout.max_frame_size_bytes), (524_288, 1_048_576));
    let parts = [&b"hello, wid"[..], b"e world!"];
    for (block, bytes) in layout.blocks.iter().zip(parts) {
        let chunk = &block.chunks[0];
        let sum = Sha256::of(bytes).to_string();
        assert_eq!((block.size_bytes, &block.sha256, &chunk.sha256), (bytes.len() as u64, &sum, &sum));
        let capability = node.check(&world, &chunk.capability);
        let Permit::Read(claims) = capability.permit else { panic!("a layout permits to read") };
        assert_eq!((claims.size_bytes, claims.sha256), (bytes.len() as u64, Sha256::of(bytes)));
        assert_eq!(claims.pieces_sha256.to_string(), chunk.pieces_sha256);
        assert_eq!(
            (capability.tenant.as_ref().unwrap().as_str(), chunk.endpoint.as_str()),
            ("posts", "http://127.0.0.1:50052")
        );
    }
    assert_eq!(layout.blocks.len(), 2);
    let second = metadata.get_blob_layout(layout_of(&blob.blob_id, 12, 3)).await.unwrap().into_inner();
    assert_eq!(second.blocks[0].block_index, 1);
    let behind = refusal(metadata.get_blob_layout(layout_of(&blob.blob_id, 19, 0)).await);
    assert_eq!(behind.reason, Some(Reason::ReadOffsetOutOfRange));
    assert_eq!(behind.facts.get("size_bytes").map(String::as_str), Some("18"));
}

#[tokio::test]
async fn a_long_layout_comes_in_parts() {
    let world = World::new().await;
    let (node, token) = (world.node().await, world.tenant("posts").await);
    let mut metadata = world.metadata(&token);
    let bytes = vec![7; 3005];
    let request = pb::StartUploadRequest { size_bytes: Some(3005), ..Default::default() };
    let started = metadata.start_upload(request).await.unwrap().into_inner();
    let blob_id = started.upload.unwrap().blob_id;
    let mut blocks = started.blocks;
    let mut done = 0;
    while !blocks.is_empty() {
        let part = |block: &pb::BlockPlan| &bytes[..usize::try_from(block.max_bytes).unwrap()];
        let receipts = blocks.iter().map(|block| node.write(&world, &blob_id, block, part(block))).collect();
        done += blocks.len() as u64;
        let request = pb::AllocateBlocksRequest {
            blob_id: blob_id.clone(),
            first_block_index: done,
            block_count: 16,
            receipts,
            ..Default::default()
        };
        blocks = metadata.allocate_blocks(request).await.unwrap().into_inner().blocks;
    }
    let request = pb::CommitUploadRequest {
        blob_id: blob_id.clone(),
        size_bytes: 3005,
        sha256: Sha256::of(&bytes).to_string(),
        ..Default::default()
    };
    assert_eq!(metadata.commit_upload(request).await.unwrap().into_inner().blob.unwrap().block_count, 301);
    let first = metadata.get_blob_layout(layout_of(&blob_id, 0, 0)).await.unwrap().into_inner();
    assert_eq!((first.blocks.len(), first.next_read_offset), (256, Some(2560)));
    let rest = metadata.get_blob_layout(layout_of(&blob_id, 2560, 0)).await.unwrap().into_inner();
    assert_eq!((rest.blocks.len(), rest.next_read_offset), (45, None));
    assert_eq!(rest.blocks.last().map(|block| (block.offset_bytes, block.size_bytes)), Some((3000, 5)));
}

#[tokio::test]
async fn blobs_list_by_id_or_by_the_names_that_begin_with_a_prefix() {
    let world = World::new().await;
    let (node, token) = (world.node().await, world.tenant("posts").await);
    let stranger = world.tenant("strangers").await;
    let mut put_in_order = Vec::new();
    for name in ["b/1", "a/2", "a/1", "a\0", "ab"] {
        put_in_order.push((name, put(&world, &node, &token, name, name.as_bytes()).await.blob_id));
        world.clock.advance(Duration::from_millis(1));
    }
    put(&world, &node, &stranger, "a/9", b"other").await;
    let mut metadata = world.metadata(&token);
    let mut list = async |prefix: &str, page_size: i32| {
        let (mut found, mut page_token, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let request = pb::ListBlobsRequest {
                page_size,
                page_token,
                display_name_prefix: prefix.to_owned(),
                ..Default::default()
            };
            let page = metadata.list_blobs(request).await.unwrap().into_inner();
            found.extend(page.blobs.into_iter().map(|blob| blob.blob_id));
            pages += 1;
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return (found, pages);
            }
        }
    };
    let ids = |names: &[&str]| -> Vec<String> {
        let id_of = |name: &&str| put_in_order.iter().find(|(put, _)| put == name).unwrap().1.clone();
        names.iter().map(id_of).collect()
    };
    assert_eq!(list("", 0).await, (ids(&["b/1", "a/2", "a/1", "a\0", "ab"]), 1));
    assert_eq!(list("", 2).await, (ids(&["b/1", "a/2", "a/1", "a\0", "ab"]), 3));
    assert_eq!(list("a", 3).await, (ids(&["a\0", "a/1", "a/2", "ab"]), 2));
    assert_eq!(list("a/", 1).await, (ids(&["a/1", "a/2"]), 2));
    assert_eq!(list("zzz", 1).await, (Vec::new(), 1));
}

#[tokio::test]
async fn a_page_token_is_good_for_its_tenant_and_prefix_only() {
    let world = World::new().await;
    let (node, token) = (world.node().await, world.tenant("posts").await);
    let stranger = world.tenant("strangers").await;
    for name in ["a", "b"] {
        put(&world, &node, &token, name, b"x").await;
        put(&world, &node, &stranger, name, b"x").await;
    }
    let request = pb::ListBlobsRequest { page_size: 1, ..Default::default() };
    let page_token = world.metadata(&token).list_blobs(request.clone()).await.unwrap().into_inner().next_page_token;
    let next = pb::ListBlobsRequest { page_token, ..request };
    let with_prefix = pb::ListBlobsRequest { display_name_prefix: "a".to_owned(), ..next.clone() };
    assert_eq!(reason(world.metadata(&stranger).list_blobs(next.clone()).await), Reason::FieldInvalid);
    assert_eq!(reason(world.metadata(&token).list_blobs(with_prefix).await), Reason::FieldInvalid);
    assert_eq!(world.metadata(&token).list_blobs(next).await.unwrap().into_inner().blobs.len(), 1);
}

#[tokio::test]
async fn i20_after_a_delete_no_call_sees_the_blob() {
    let world = World::new().await;
    let (node, token) = (world.node().await, world.tenant("posts").await);
    let blob_id = put(&world, &node, &token, "n", b"hello").await.blob_id;
    let mut metadata = world.metadata(&token);
    let request = pb::DeleteBlobRequest { blob_id: blob_id.clone(), request_id: "d".to_owned(), ..Default::default() };
    metadata.delete_blob(request.clone()).await.unwrap();
    metadata.delete_blob(request.clone()).await.unwrap();
    let again = pb::DeleteBlobRequest { request_id: String::new(), ..request };
    assert_eq!(reason(metadata.delete_blob(again).await), Reason::BlobNotFound);
    let get = pb::GetBlobRequest { blob_id: blob_id.clone(), ..Default::default() };
    assert_eq!(reason(metadata.get_blob(get).await), Reason::BlobNotFound);
    assert_eq!(reason(metadata.get_blob_layout(layout_of(&blob_id, 0, 0)).await), Reason::BlobNotFound);
    for display_name_prefix in [String::new(), "n".to_owned()] {
        let request = pb::ListBlobsRequest { display_name_prefix, ..Default::default() };
        assert!(metadata.list_blobs(request).await.unwrap().into_inner().blobs.is_empty());
    }
    let usage = world.usage("posts").await;
    assert_eq!((usage.used_blobs, usage.retained_blobs, usage.retained_bytes), (0, 1, 5));
}

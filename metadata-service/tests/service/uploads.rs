//! Uploads over the wire, with a node that signs.

use std::time::Duration;

use bytes::Bytes;
use proto::checksum::Sha256;
use proto::entropy::OsEntropy;
use proto::error::Reason;
use proto::ids::{ClusterId, NodeId};
use proto::pb;
use proto::receipt::{self, Receipt};
use tonic::Code;

use crate::world::{BLOCK, FakeNode, World, nowhere, put, reason, refusal};

async fn start(world: &World, token: &str, size_bytes: Option<u64>) -> (String, Vec<pb::BlockPlan>) {
    let request = pb::StartUploadRequest { size_bytes, ..Default::default() };
    let started = world.metadata(token).start_upload(request).await.unwrap().into_inner();
    (started.upload.unwrap().blob_id, started.blocks)
}

fn commit(blob_id: &str, bytes: &[u8], receipts: Vec<Bytes>) -> pb::CommitUploadRequest {
    pb::CommitUploadRequest {
        blob_id: blob_id.to_owned(),
        size_bytes: bytes.len() as u64,
        sha256: Sha256::of(bytes).to_string(),
        receipts,
        ..Default::default()
    }
}

#[tokio::test]
async fn a_blob_of_many_blocks_goes_in_by_rounds_of_allocation() {
    let world = World::new().await;
    let (node, token) = (world.node().await, world.tenant("posts").await);
    let bytes: Vec<u8> = (0..=254).cycle().take(405).collect();
    let mut metadata = world.metadata(&token);
    let request = pb::StartUploadRequest {
        display_name: "big".to_owned(),
        content_type: "text/plain".to_owned(),
        labels: [("k".to_owned(), "v".to_owned())].into(),
        size_bytes: Some(405),
        ..Default::default()
    };
    let started = metadata.start_upload(request).await.unwrap().into_inner();
    assert_eq!((started.blocks.len(), started.block_size_bytes), (16, BLOCK));
    assert_eq!((started.frame_size_bytes, started.max_frame_size_bytes), (262_144, 1_048_576));
    let blob_id = started.upload.unwrap().blob_id;
    let (mut planned, mut done) = (started.blocks, 0);
    let mut receipts: Vec<Bytes> = Vec::new();
    while done < 41 {
        for block in std::mem::take(&mut planned) {
            let from = usize::try_from(block.offset_bytes).unwrap();
            let to = (from + 10).min(bytes.len());
            receipts.push(node.write(&world, &blob_id, &block, &bytes[from..to]));
            done += 1;
        }
        if done < 41 {
            let request = pb::AllocateBlocksRequest {
                blob_id: blob_id.clone(),
                first_block_index: done,
                block_count: 16,
                receipts: std::mem::take(&mut receipts),
                ..Default::default()
            };
            let more = metadata.allocate_blocks(request).await.unwrap().into_inner();
            assert_eq!(more.upload.unwrap().sealed_block_count, done);
            planned = more.blocks;
        }
    }
    assert_eq!(world.usage("posts").await.reserved_bytes, 405);
    let blob = metadata.commit_upload(commit(&blob_id, &bytes, receipts)).await.unwrap().into_inner().blob.unwrap();
    assert_eq!((blob.size_bytes, blob.block_count, blob.block_size_bytes), (405, 41, BLOCK));
    assert_eq!((blob.display_name.as_str(), blob.content_type.as_str()), ("big", "text/plain"));
    assert_eq!((blob.labels.len(), blob.tenant_id.as_str()), (1, "posts"));
    let usage = world.usage("posts").await;
    assert_eq!((usage.used_bytes, usage.used_blobs, usage.reserved_bytes, usage.reserved_blobs), (405, 1, 0, 0));
    let got = metadata.get_upload(pb::GetUploadRequest { blob_id, ..Default::default() }).await.unwrap();
    assert_eq!(got.into_inner().upload.unwrap().state(), pb::UploadState::Committed);
}

#[tokio::test]
async fn i4_repeats_get_the_first_answer_with_fresh_capabilities() {
    let world = World::new().await;
    let (node, token) = (world.node().await, world.tenant("posts").await);
    let mut metadata = world.metadata(&token);
    let request = pb::StartUploadRequest { request_id: "r".to_owned(), size_bytes: Some(5), ..Default::default() };
    let first = metadata.start_upload(request.clone()).await.unwrap().into_inner();
    world.clock.advance(Duration::from_secs(60));
    let again = metadata.start_upload(request.clone()).await.unwrap().into_inner();
    assert_eq!(again.upload, first.upload);
    let (old, new) = (&first.blocks[0].chunks[0], &again.blocks[0].chunks[0]);
    assert_eq!(old.chunk_id, new.chunk_id);
    assert_ne!(old.capability, new.capability);
    let seconds = |chunk: &pb::ChunkPlan| chunk.capability_expire_time.unwrap().seconds;
    assert_eq!(seconds(new) - seconds(old), 60);
    assert_eq!(node.check(&world, &new.capability).expire_ms, u64::try_from(seconds(new)).unwrap() * 1000);
    let other = pb::StartUploadRequest { size_bytes: Some(6), ..request };
    assert_eq!(reason(metadata.start_upload(other).await), Reason::RequestIdReused);

    let blob_id = first.upload.unwrap().blob_id;
    let receipt = node.write(&world, &blob_id, &first.blocks[0], b"hello");
    let request = commit(&blob_id, b"hello", vec![receipt]);
    let blob = metadata.commit_upload(request.clone()).await.unwrap().into_inner();
    world.clock.advance(Duration::from_secs(60));
    assert_eq!(metadata.commit_upload(request.clone()).await.unwrap().into_inner(), blob);
    assert_eq!(metadata.commit_upload(commit(&blob_id, b"hello", vec![])).await.unwrap().into_inner(), blob);
    assert_eq!(reason(metadata.commit_upload(commit(&blob_id, b"hell0", vec![])).await), Reason::UploadCommitted);
    assert_eq!(world.usage("posts").await.used_blobs, 1);
}

#[tokio::test]
async fn i5_only_receipts_of_the_planned_node_for_the_planned_chunk_commit() {
    let world = World::new().await;
    let (node, token) = (world.node().await, world.tenant("posts").await);
    let (blob_id, blocks) = start(&world, &token, Some(5)).await;
    let mut metadata = world.metadata(&token);
    let capability = node.check(&world, &blocks[0].chunks[0].capability);
    let honest = node.receipt(&capability, b"hello");
    let signed = receipt::sign(&honest, &node.key);
    let mut forged = vec![
        Bytes::new(),
        Bytes::from_static(b"no receipt at all"),
        Bytes::from(vec![0; 513]),
        signed.slice(1..),
        receipt::sign(&Receipt { cluster: ClusterId::generate(1, &OsEntropy), ..honest.clone() }, &node.key),
        receipt::sign(&Receipt { node: NodeId::generate(1, &OsEntropy), ..honest.clone() }, &node.key),
        receipt::sign(&Receipt { generation: 2, ..honest.clone() }, &node.key),
        receipt::sign(&Receipt { size_bytes: 4, ..honest.clone() }, &node.key),
    ];
    let mut flipped = signed.to_vec();
    flipped[20] ^= 1;
    forged.push(Bytes::from(flipped));
    let (foreign_blob, foreign_blocks) = start(&world, &token, Some(5)).await;
    forged.push(node.write(&world, &foreign_blob, &foreign_blocks[0], b"hello"));
    for (number, receipt) in forged.into_iter().enumerate() {
        let refused = refusal(metadata.commit_upload(commit(&blob_id, b"hello", vec![receipt])).await);
        assert_eq!((refused.code, refused.reason), (Code::InvalidArgument, Some(Reason::ReceiptInvalid)), "{number}");
    }
    let none = refusal(metadata.commit_upload(commit(&blob_id, b"hello", vec![])).await);
    assert_eq!((none.code, none.reason), (Code::FailedPrecondition, Some(Reason::UploadIncomplete)));
    assert_eq!(none.facts.get("block_index").map(String::as_str), Some("0"));
    let other_bytes = commit(&blob_id, b"hell0", vec![signed.clone()]);
    assert_eq!(reason(metadata.commit_upload(other_bytes).await), Reason::ChecksumMismatch);
    metadata.commit_upload(commit(&blob_id, b"hello", vec![signed])).await.unwrap();
}

#[tokio::test]
async fn i9_a_foreign_upload_or_blob_looks_exactly_like_a_missing_one() {
    let world = World::new().await;
    let (node, token) = (world.node().await, world.tenant("posts").await);
    let stranger = world.tenant("strangers").await;
    let blob_id = put(&world, &node, &token, "n", b"hello").await.blob_id;
    let (open, _) = start(&world, &token, Some(5)).await;
    let tell = async |kind: usize, id: &str| {
        let (mut metadata, blob_id) = (world.metadata(&stranger), id.to_owned());
        let status = match kind {
            0 => metadata.get_blob(pb::GetBlobRequest { blob_id, ..Default::default() }).await.unwrap_err(),
            1 => metadata
                .get_blob_layout(pb::GetBlobLayoutRequest { blob_id, read_offset: 99, ..Default::default() })
                .await
                .unwrap_err(),
            2 => metadata.delete_blob(pb::DeleteBlobRequest { blob_id, ..Default::default() }).await.unwrap_err(),
            3 => metadata.get_upload(pb::GetUploadRequest { blob_id, ..Default::default() }).await.unwrap_err(),
            4 => metadata.abort_upload(pb::AbortUploadRequest { blob_id, ..Default::default() }).await.unwrap_err(),
            5 => metadata
                .allocate_blocks(pb::AllocateBlocksRequest { blob_id, block_count: 1, ..Default::default() })
                .await
                .unwrap_err(),
            _ => metadata.commit_upload(commit(id, b"hello", vec![])).await.unwrap_err(),
        };
        // The request's own id in the log is random; all else must be alike, to the byte.
        let mut read = proto::status::from_status(&status);
        let request_id = read.request_id.take().unwrap();
        let details = String::from_utf8_lossy(status.details()).replace(&request_id, "").replace(id, "");
        (format!("{read:?}"), details, status.details().len())
    };
    for kind in 0..7 {
        let missing = tell(kind, &nowhere()).await;
        assert_eq!(tell(kind, &blob_id).await, missing, "kind {kind}, a blob");
        assert_eq!(tell(kind, &open).await, missing, "kind {kind}, an upload");
    }
}

#[tokio::test]
async fn an_upload_whose_lease_ran_out_is_expired_by_the_sweep() {
    let world = World::new().await;
    let (node, token) = (world.node().await, world.tenant("posts").await);
    let mut metadata = world.metadata(&token);
    let (late, blocks) = start(&world, &token, Some(5)).await;
    world.clock.advance(Duration::from_secs(3599));
    let (early, _) = start(&world, &token, Some(7)).await;
    assert_eq!(world.running().sweep_uploads().await.unwrap().changed, 0);
    world.clock.advance(Duration::from_secs(1));
    let receipt = {
        let renewed = metadata.get_upload(pb::GetUploadRequest { blob_id: late.clone(), ..Default::default() });
        assert_eq!(renewed.await.unwrap().into_inner().upload.unwrap().state(), pb::UploadState::Expired);
        let capability = proto::capability::verify(
            &blocks[0].chunks[0].capability,
            std::slice::from_ref(&node.key),
            node.cluster,
            node.id,
            1_800_000_000_000,
            0,
        );
        receipt::sign(&node.receipt(&capability.unwrap(), b"hello"), &node.key)
    };
    let refused = metadata.commit_upload(commit(&late, b"hello", vec![receipt])).await;
    assert_eq!(reason(refused), Reason::UploadExpired);
    assert_eq!(world.usage("posts").await.reserved_bytes, 12);
    let pass = world.running().sweep_uploads().await.unwrap();
    assert_eq!((pass.changed, pass.failed, pass.more), (1, 0, false));
    let usage = world.usage("posts").await;
    assert_eq!((usage.reserved_bytes, usage.reserved_blobs), (7, 1));
    metadata.abort_upload(pb::AbortUploadRequest { blob_id: early, ..Default::default() }).await.unwrap();
    assert_eq!(world.usage("posts").await, pb::Usage::default());
}

#[tokio::test]
async fn requests_are_forgotten_by_the_sweep_when_their_day_is_over() {
    let world = World::new().await;
    let register =
        pb::RegisterTenantRequest { tenant_id: "posts".to_owned(), request_id: "r".to_owned(), ..Default::default() };
    world.admin().register_tenant(register.clone()).await.unwrap();
    assert_eq!(world.running().sweep_uploads().await.unwrap().changed, 0);
    world.clock.advance(Duration::from_secs(24 * 3600));
    assert_eq!(world.running().sweep_uploads().await.unwrap().changed, 1);
    assert_eq!(reason(world.admin().register_tenant(register).await), Reason::TenantAlreadyExists);
}

#[tokio::test]
async fn quotas_hold_at_the_edge_whoever_races_for_it() {
    let world = World::new().await;
    world.node().await;
    let quota = pb::Quota { max_bytes: Some(100), ..Default::default() };
    let token = world.tenant_with("posts", quota).await;
    let mut racing = tokio::task::JoinSet::new();
    for _one in 0..32 {
        let mut metadata = world.metadata(&token);
        let request = pb::StartUploadRequest { size_bytes: Some(9), ..Default::default() };
        racing.spawn(async move { metadata.start_upload(request).await.map(|_started| ()) });
    }
    let outcomes = racing.join_all().await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 11);
    for refused in outcomes.into_iter().filter(Result::is_err) {
        assert_eq!(reason(refused), Reason::QuotaExceeded);
    }
    assert_eq!(world.usage("posts").await.reserved_bytes, 99);
}

#[tokio::test]
async fn bad_arguments_are_named() {
    let world = World::new().await;
    let token = world.tenant("posts").await;
    let mut metadata = world.metadata(&token);
    let bad_id = pb::GetBlobRequest { blob_id: "../etc/passwd".to_owned(), ..Default::default() };
    assert_eq!(reason(metadata.get_blob(bad_id).await), Reason::FieldInvalid);
    let too_large = pb::StartUploadRequest { size_bytes: Some(u64::MAX), ..Default::default() };
    assert_eq!(reason(metadata.start_upload(too_large).await), Reason::FieldInvalid);
    let foreign = pb::StartUploadRequest { tenant_id: "images".to_owned(), ..Default::default() };
    assert_eq!(reason(metadata.start_upload(foreign).await), Reason::TenantNotFound);
}

#[tokio::test]
async fn a_node_that_answers_to_another_key_signs_nothing() {
    let mut world = World::new().await;
    let (first, token) = (world.node().await, world.tenant("posts").await);
    world.restart_with(|tuning| tuning.reissue_join_token = true).await;
    first.beat(&world).await.unwrap();
    let second = FakeNode::join(&world, &world.join_token(), NodeId::generate(1, &OsEntropy)).await.unwrap();
    let (blob_id, blocks) = start(&world, &token, Some(5)).await;
    let capability = first.check(&world, &blocks[0].chunks[0].capability);
    let as_itself = Receipt { node: second.id, ..first.receipt(&capability, b"hello") };
    let as_the_first = first.receipt(&capability, b"hello");
    for receipt in [as_itself, as_the_first] {
        let request = commit(&blob_id, b"hello", vec![receipt::sign(&receipt, &second.key)]);
        assert_eq!(reason(world.metadata(&token).commit_upload(request).await), Reason::ReceiptInvalid);
    }
}

//! Many small blobs by one call: what becomes of each is what would have become of it alone.

use bytes::Bytes;
use mini_tectonic_client::{BlobId, Category, Client, ListOptions, TenantChange, UploadOptions};
use proto::entropy::OsEntropy;
use proto::error::Reason;
use proto::limits::{BATCH_ITEMS_MAX, KIB};
use proto::pb;
use proto::pb::chunk_service_client::ChunkServiceClient;
use proto::pb::metadata_service_client::MetadataServiceClient;
use proto::status::{from_status, item_status};
use tokio_stream::StreamExt as _;
use tonic::Request;

use crate::cluster::{Cluster, content, get};

fn named(name: &str) -> UploadOptions {
    UploadOptions { display_name: name.to_owned(), ..UploadOptions::default() }
}

fn contents(sizes: &[u64]) -> Vec<Bytes> {
    let sizes = sizes.iter().zip(0..);
    sizes.map(|(size, seed)| content(usize::try_from(*size).unwrap(), seed).into()).collect()
}

async fn stored(client: &Client, contents: &[Bytes]) -> Vec<BlobId> {
    let blobs = contents.iter().enumerate().map(|(index, bytes)| (bytes.clone(), named(&index.to_string())));
    let outcomes = client.upload_batch(blobs.collect()).await.unwrap();
    let blobs = outcomes.into_iter().zip(contents).enumerate().map(|(index, (blob, bytes))| {
        let blob = blob.unwrap();
        assert_eq!((blob.display_name, blob.size_bytes), (index.to_string(), bytes.len() as u64));
        blob.blob_id
    });
    blobs.collect()
}

async fn assert_read(client: &Client, ids: &[BlobId], contents: &[Bytes]) {
    let outcomes = client.read_batch(ids, u64::MAX).await.unwrap();
    for ((id, expected), outcome) in ids.iter().zip(contents).zip(outcomes) {
        let (blob, bytes) = outcome.unwrap();
        assert!(blob.blob_id == *id && bytes == *expected, "{id} of {} bytes", expected.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_of_every_size_go_in_and_come_out_in_their_order() {
    let mut cluster = Cluster::builder().build().await;
    let client = cluster.tenant("posts", pb::Quota::default()).await;
    // More than one call holds, by number and by bytes, and large ones among them.
    let mut sizes = vec![0, 1, 65_535, 65_536, 65_537, 300_000, 4_096, 0];
    sizes.extend(std::iter::repeat_n(100, BATCH_ITEMS_MAX + 1));
    sizes.extend(std::iter::repeat_n(64 * KIB, 20));
    let contents = contents(&sizes);
    let ids = stored(&client, &contents).await;
    assert_read(&client, &ids, &contents).await;
    assert!(get(&client, ids[3]).await == contents[3] && get(&client, ids[0]).await.is_empty());
    let usage = client.get_tenant(None).await.unwrap().usage.unwrap();
    assert_eq!((usage.used_blobs, usage.used_bytes), (sizes.len() as u64, sizes.iter().sum()));
    assert_eq!((usage.reserved_blobs, usage.reserved_bytes), (0, 0));
    let too_large = client.read(ids[5], 1_000).await.unwrap_err();
    assert!(too_large.to_string().contains("300000 bytes"), "{too_large}");
    cluster.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_quota_refuses_is_refused_alone() {
    let mut cluster = Cluster::builder().build().await;
    let quota = pb::Quota { max_blobs: Some(3), ..Default::default() };
    let client = cluster.tenant("small", quota).await;
    let blobs = contents(&[10, 20, 30, 40, 50]).into_iter().map(|bytes| (bytes, named("one")));
    let outcomes = client.upload_batch(blobs.collect()).await.unwrap();
    let refused: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
    assert_eq!((outcomes.len(), refused.len()), (5, 2));
    assert!(refused.iter().all(|error| error.reason() == Some(Reason::QuotaExceeded)));
    let listed = client.list_blobs(ListOptions::default()).collect::<Vec<_>>().await;
    assert_eq!(listed.len(), 3);
    cluster.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_that_are_gone_foreign_or_damaged_fail_alone() {
    let mut cluster = Cluster::builder().build().await;
    let client = cluster.tenant("posts", pb::Quota::default()).await;
    let stranger = cluster.tenant("other", pb::Quota::default()).await;
    let contents = contents(&[1_000, 2_000, 3_000]);
    let ids = stored(&client, &contents).await;
    let foreign = stored(&stranger, &contents).await[0];
    client.delete_blob(ids[1]).await.unwrap();
    let files = std::fs::read_dir(cluster.chunks_folder()).unwrap().map(|entry| entry.unwrap().path());
    let damaged = |path: &std::path::PathBuf| {
        path.extension().is_some_and(|extension| extension == "blob") && std::fs::read(path).unwrap() == contents[2]
    };
    // The stranger has one of the same bytes.
    for path in files.filter(damaged) {
        let mut bytes = contents[2].to_vec();
        bytes[7] ^= 1;
        std::fs::write(path, bytes).unwrap();
    }
    let never = BlobId::generate(1, &OsEntropy);
    let outcomes = client.read_batch(&[ids[0], ids[1], ids[2], foreign, never], u64::MAX).await.unwrap();
    let category = |index: usize| outcomes[index].as_ref().unwrap_err().category();
    assert_eq!(outcomes[0].as_ref().unwrap().1, contents[0]);
    assert_eq!([category(1), category(3), category(4)], [Category::NotFound; 3]);
    assert_eq!(category(2), Category::DataLoss);
}

/// A batch is one call, but must not be one chance: what a restart interrupts goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_goes_on_when_the_chunk_service_comes_back() {
    let mut cluster = Cluster::builder().build().await;
    let client = cluster.tenant("posts", pb::Quota::default()).await;
    let contents = contents(&[1_000, 2_000, 3_000]);
    cluster.kill_chunk();
    let (uploader, sent) = (client.clone(), contents.clone());
    let uploading = tokio::spawn(async move { stored(&uploader, &sent).await });
    cluster.rejoin_chunk().await;
    let ids = uploading.await.unwrap();
    cluster.kill_chunk();
    let (reader, wanted) = (client.clone(), ids.clone());
    let reading = tokio::spawn(async move { assert_read(&reader, &wanted, &contents).await });
    cluster.rejoin_chunk().await;
    reading.await.unwrap();
    cluster.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_has_a_length_and_counts_as_many_calls_as_it_holds() {
    let mut cluster = Cluster::builder().build().await;
    cluster.tenant("posts", pb::Quota::default()).await;
    let token = cluster.token("posts");
    let mut service = MetadataServiceClient::connect(cluster.metadata_endpoint()).await.unwrap();
    let mut ask = async |count: usize| {
        let blob =
            pb::GetBlobLayoutRequest { blob_id: BlobId::generate(1, &OsEntropy).to_string(), ..Default::default() };
        let mut request = Request::new(pb::GetBlobLayoutsRequest { blobs: vec![blob; count] });
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        let answer = service.get_blob_layouts(request).await;
        answer.map(|answer| answer.into_inner().results.len()).map_err(|status| from_status(&status).reason.unwrap())
    };
    assert_eq!(ask(0).await, Err(Reason::FieldInvalid));
    assert_eq!(ask(BATCH_ITEMS_MAX + 1).await, Err(Reason::FieldInvalid));
    assert_eq!(ask(BATCH_ITEMS_MAX).await, Ok(BATCH_ITEMS_MAX));
    let rates = pb::Rates { requests_per_second: Some(10), ..Default::default() };
    let change = TenantChange { rates: Some(rates), ..TenantChange::default() };
    cluster.admin().change_tenant(&"posts".parse().unwrap(), change).await.unwrap();
    // It is let in as one call, and leaves nothing to the next.
    assert_eq!(ask(BATCH_ITEMS_MAX).await, Ok(BATCH_ITEMS_MAX));
    assert_eq!(ask(1).await, Err(Reason::RateLimited));
}

/// Whoever has no permission must not get a hundred refusals worked out by one call.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_a_stranger_s_is_refused_as_a_whole_and_a_bad_item_of_a_guest_s_alone() {
    let mut cluster = Cluster::builder().build().await;
    cluster.tenant("posts", pb::Quota::default()).await;
    let mut service = MetadataServiceClient::connect(cluster.metadata_endpoint()).await.unwrap();
    let upload = pb::StartUploadRequest { size_bytes: Some(5), ..Default::default() };
    let mut start = Request::new(pb::StartUploadsRequest { uploads: vec![upload; 2] });
    start.metadata_mut().insert("authorization", format!("Bearer {}", cluster.token("posts")).parse().unwrap());
    let started = service.start_uploads(start).await.unwrap().into_inner().results;
    let item = |result: pb::StartUploadsResult| {
        let Some(pb::start_uploads_result::Outcome::Answer(answer)) = result.outcome else { panic!("{result:?}") };
        let plan = &answer.blocks[0].chunks[0];
        let data = pb::ChunkData { content: Bytes::from_static(b"hello"), crc32c: None };
        pb::WriteChunksItem {
            chunk_id: plan.chunk_id.clone(),
            capability: plan.capability.clone(),
            data: Some(data),
            ..Default::default()
        }
    };
    let [good, mut bad] = <[_; 2]>::try_from(started.into_iter().map(item).collect::<Vec<_>>()).unwrap();
    bad.capability = "garbage".to_owned();
    let mut node = ChunkServiceClient::connect(cluster.chunk_endpoint()).await.unwrap();
    let stranger = node.write_chunks(pb::WriteChunksRequest { chunks: vec![bad.clone(), good.clone()] }).await;
    assert_eq!(from_status(&stranger.unwrap_err()).reason, Some(Reason::CapabilityInvalid));
    let guest = node.write_chunks(pb::WriteChunksRequest { chunks: vec![good, bad] }).await.unwrap().into_inner();
    let outcomes: Vec<_> = guest.results.into_iter().map(|result| result.outcome.unwrap()).collect();
    let [pb::write_chunks_result::Outcome::Answer(written), pb::write_chunks_result::Outcome::Error(error)] =
        outcomes.as_slice()
    else {
        panic!("{outcomes:?}")
    };
    assert_eq!((written.persisted_size_bytes, written.receipt.is_empty()), (5, false));
    assert_eq!(from_status(&item_status(error)).reason, Some(Reason::CapabilityInvalid));
}

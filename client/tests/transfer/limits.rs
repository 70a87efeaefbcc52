//! Quotas, and what a transfer may hold in memory.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mini_tectonic_client::{Category, Source, TenantChange, Transferred, UploadOptions, pb};
use proto::rates::BYTES_PER_SECOND_MIN;

use crate::cluster::{BLOCK, Cluster, get, noise, put, write_file};

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_refuses_what_does_not_fit_and_takes_what_just_does() {
    let cluster = Cluster::start().await;
    let quota = pb::Quota { max_bytes: Some(5 * BLOCK as u64 / 2), ..Default::default() };
    let client = cluster.tenant("small", quota).await;
    let fits = noise(1, 5 * BLOCK / 2);
    let too_long = noise(1, 5 * BLOCK / 2 + 1);
    let input = cluster.path("input");
    write_file(&input, &too_long);
    let known = client.upload(Source::File(input), UploadOptions::default()).await.unwrap_err();
    let unknown = put(&client, &too_long).await.unwrap_err();
    for error in [known, unknown] {
        assert_eq!(error.category(), Category::QuotaOrRate, "{error}");
        cluster.assert_nothing_reserved(&client).await;
    }
    let blob = put(&client, &fits).await.unwrap();
    assert!(get(&client, blob.blob_id).await.unwrap() == fits);
    assert_eq!(put(&client, b"x").await.unwrap_err().category(), Category::QuotaOrRate);
    let input = cluster.path("empty");
    write_file(&input, b"");
    let empty = client.upload(Source::File(input), UploadOptions::default()).await.unwrap();
    assert_eq!(empty.size_bytes, 0, "nothing fits into a full quota");
}

/// Its streams are slowed down and its calls refused for a while; what it does is done all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_with_rates_gets_everything_done_within_them() {
    let cluster = Cluster::start().await;
    let client = cluster.unlimited("slow").await;
    let least = Some(BYTES_PER_SECOND_MIN);
    let rates = pb::Rates { requests_per_second: Some(4), read_bytes_per_second: least, write_bytes_per_second: least };
    let change = TenantChange { rates: Some(rates), ..TenantChange::default() };
    let changed = cluster.admin().change_tenant(&"slow".parse().unwrap(), change).await.unwrap();
    assert_eq!(changed.rates, Some(rates));
    let content = noise(3, usize::try_from(2 * BYTES_PER_SECOND_MIN).unwrap());
    let began = tokio::time::Instant::now();
    let blob = put(&client, &content).await.unwrap();
    assert!(get(&client, blob.blob_id).await.unwrap() == content);
    let least_time = std::time::Duration::from_secs(1);
    assert!(began.elapsed() >= least_time, "a second's worth comes at once, the other takes one");
}

/// Counts what is read of an endless input, up to its end.
struct Counted {
    left: u64,
    read: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let count = room.len().min(usize::try_from(self.left).unwrap());
        self.left -= count as u64;
        self.read.fetch_add(count as u64, Ordering::SeqCst);
        Ok(count)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_ahead_does_not_grow_with_the_blob() {
    const SIZE: u64 = 192 * BLOCK as u64;
    let cluster = Cluster::start().await;
    let client = cluster.unlimited("posts").await;
    let read = Arc::new(AtomicU64::new(0));
    let ahead = Arc::new(AtomicU64::new(0));
    let (so_far, most) = (Arc::clone(&read), Arc::clone(&ahead));
    let progress = Arc::new(move |now: Transferred| {
        most.fetch_max(so_far.load(Ordering::SeqCst).saturating_sub(now.done_bytes), Ordering::SeqCst);
    });
    let options = UploadOptions { progress: Some(progress), ..Default::default() };
    let source = Source::Reader(Box::new(Counted { left: SIZE, read }));
    let blob = client.upload(source, options).await.unwrap();
    assert_eq!(blob.size_bytes, SIZE);
    // Four blocks in flight, a frame being read, and one about to be.
    let most = ahead.load(Ordering::SeqCst);
    assert!(most <= 5 * BLOCK as u64, "{most} bytes were in memory");
}

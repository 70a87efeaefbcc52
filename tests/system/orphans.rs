//! Files on a node's disk that nothing refers to, and what becomes of them (I6, I7).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mini_tectonic_client::Client;
use proto::entropy::OsEntropy;
use proto::ids::ChunkId;
use proto::pb;
use proto::runtime::clock::{Clock as _, ManualClock, SystemClock};

use crate::cluster::{Cluster, DEADLINE, content, get, put};
use crate::wait::wait_until;

const LONG: Duration = Duration::from_secs(2 * 60 * 60);

async fn new_cluster() -> (Cluster, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::at(SystemClock.now_ms()));
    let builder = Cluster::builder().clock(Arc::clone(&clock) as _);
    let builder = builder.metadata(|tuning| tuning.heartbeat_interval = Duration::from_millis(50));
    (builder.build().await, clock)
}

/// Files of a chunk that was drawn then.
fn plant(cluster: &Cluster, drawn_ms: u64, suffixes: &[&str]) -> Vec<PathBuf> {
    let chunk = ChunkId::generate(drawn_ms, &OsEntropy);
    let paths: Vec<_> = suffixes.iter().map(|s| cluster.chunks_folder().join(format!("{chunk}{s}"))).collect();
    paths.iter().for_each(|path| std::fs::write(path, b"nobody's").unwrap());
    paths
}

/// A whole sweep that could be made: right after the clock was moved the node does not know the time yet.
async fn sweep(admin: &Client) -> pb::WorkerPass {
    wait_until("a sweep", DEADLINE, || async {
        let pass = admin.run_worker("orphans", false).await.unwrap().unwrap();
        if pass.failed == 0 { Ok(pass) } else { Err(pass) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn i7_what_a_crash_left_on_a_disk_is_gone_after_two_sweeps_and_the_grace_and_nothing_else_is() {
    let (mut cluster, clock) = new_cluster().await;
    let client = cluster.tenant("posts", pb::Quota::default()).await;
    let admin = cluster.admin();
    let bytes = content(300_000, 1);
    let kept = put(&client, "kept", &bytes).await.blob_id;
    let old_ms = clock.now_ms() - 2 * u64::try_from(LONG.as_millis()).unwrap();
    let left: Vec<_> = [&[".blob", ".blob.chk"][..], &[".blob"], &[".blob.chk"], &[".blob.chk.tmp"]]
        .into_iter()
        .flat_map(|suffixes| plant(&cluster, old_ms, suffixes))
        .collect();
    let foreign = cluster.chunks_folder().join("notes.txt");
    std::fs::write(&foreign, b"somebody's").unwrap();

    assert_eq!(sweep(&admin).await.changed, 0, "once is not enough");
    let fresh = put(&client, "written between two sweeps", &bytes).await.blob_id;
    assert_eq!(sweep(&admin).await.changed, 4);
    admin.run_worker("garbage", false).await.unwrap();
    assert!(left.iter().all(|path| path.exists()), "nothing goes before the grace is over");

    clock.advance(LONG);
    let young = plant(&cluster, clock.now_ms(), &[".blob"]);
    wait_until("the files are gone", DEADLINE, || async {
        admin.run_worker("garbage", false).await.unwrap();
        let there: Vec<_> = left.iter().filter(|path| path.exists()).collect();
        if there.is_empty() { Ok(()) } else { Err(format!("{there:?}")) }
    })
    .await;
    assert_eq!((sweep(&admin).await.changed, sweep(&admin).await.changed), (0, 0));
    assert!(young[0].exists() && foreign.exists(), "a young chunk and a foreign file stay");
    let status = admin.cluster_status().await.unwrap();
    assert!(status.warnings.iter().any(|words| words.contains("made: 1;")), "{:?}", status.warnings);
    std::fs::remove_file(&young[0]).unwrap();
    for blob in [kept, fresh] {
        assert!(get(&client, blob).await == bytes);
    }
    cluster.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i6_uploads_under_sweeps_that_never_end_are_safe() {
    let (mut cluster, clock) = new_cluster().await;
    let client = cluster.tenant("posts", pb::Quota::default()).await;
    let admin = cluster.admin();
    let mut written = Vec::new();
    let uploads = async {
        for round in 0..30 {
            let bytes = content(50_000 + round, round as u64);
            written.push((put(&client, "under a sweep", &bytes).await.blob_id, bytes));
        }
    };
    let sweeps = async {
        loop {
            admin.run_worker("orphans", false).await.unwrap();
        }
    };
    tokio::select! {
        () = uploads => {}
        () = sweeps => {}
    }
    clock.advance(LONG);
    assert_eq!((sweep(&admin).await.changed, sweep(&admin).await.changed), (0, 0));
    admin.run_worker("garbage", false).await.unwrap();
    for (blob, bytes) in &written {
        assert!(get(&client, *blob).await == *bytes);
    }
    cluster.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn so_many_orphans_that_they_cannot_be_true_stay_until_an_operator_says_so() {
    let (cluster, clock) = new_cluster().await;
    let admin = cluster.admin();
    let old_ms = clock.now_ms() - 2 * u64::try_from(LONG.as_millis()).unwrap();
    (0..150).for_each(|_| drop(plant(&cluster, old_ms, &[".blob"])));
    for _sweep in 0..3 {
        assert_eq!(sweep(&admin).await.changed, 0);
    }
    let status = admin.cluster_status().await.unwrap();
    assert!(status.warnings.iter().any(|words| words.contains("150 of the 150 chunks")), "{:?}", status.warnings);
    assert_eq!(admin.run_worker("orphans", true).await.unwrap().unwrap().changed, 150);
    assert!(admin.cluster_status().await.unwrap().warnings.is_empty());
}

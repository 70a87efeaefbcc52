//! Nodes' keys are replaced under load and under deaths, and nobody who was permitted something is refused.

use std::time::Duration;

use mini_tectonic_client::Client;
use proto::pb;

use crate::cluster::{Cluster, DEADLINE, content, get, put};
use crate::wait::wait_until;

/// Every heartbeat replaces the key, so that all of them are in use at once: the one on offer, the one that is minted
/// under, those before.
async fn restless() -> Cluster {
    let tuning = |tuning: &mut metadata_service::config::Tuning| {
        tuning.heartbeat_interval = Duration::from_millis(10);
        tuning.node_key_life = Duration::from_millis(1);
        tuning.capability_life = Duration::from_secs(30);
    };
    Cluster::builder().metadata(tuning).build().await
}

async fn key_id(cluster: &Cluster) -> u32 {
    cluster.admin().cluster_status().await.unwrap().nodes[0].key_id
}

async fn work(client: Client, worker: u64) -> u64 {
    let mut done = 0;
    for round in 0..12 {
        let bytes = content(100_000, worker * 1_000 + round);
        let blob = put(&client, "restless", &bytes).await.blob_id;
        assert!(get(&client, blob).await == bytes, "worker {worker}, round {round}");
        done += 1;
    }
    done
}

#[tokio::test(flavor = "multi_thread")]
async fn no_honest_request_fails_while_keys_are_replaced() {
    let mut cluster = restless().await;
    let client = cluster.tenant("posts", pb::Quota::default()).await;
    let first = key_id(&cluster).await;
    let workers: Vec<_> = (0..4).map(|worker| tokio::spawn(work(client.clone(), worker))).collect();
    for worker in workers {
        assert_eq!(worker.await.unwrap(), 12);
    }
    assert!(key_id(&cluster).await > first, "no key was replaced meanwhile");
    cluster.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_that_a_death_cuts_short_goes_on_afterwards() {
    let mut cluster = restless().await;
    let client = cluster.tenant("posts", pb::Quota::default()).await;
    let bytes = content(200_000, 1);
    let mut kept = Vec::new();
    for round in 0..6 {
        let before = key_id(&cluster).await;
        if round % 2 == 0 {
            cluster.restart_chunk().await;
        } else {
            cluster.restart_metadata().await;
        }
        kept.push(put(&client, "kept", &bytes).await.blob_id);
        let look = async || Some(key_id(&cluster).await).filter(|key_id| *key_id > before).ok_or(before);
        wait_until("a later key is in use", DEADLINE, look).await;
    }
    for blob in kept {
        assert!(get(&client, blob).await == bytes);
    }
    cluster.check().await;
}

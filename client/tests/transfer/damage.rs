//! Stored bytes that are damaged or gone: never given out, and no output file appears.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use mini_tectonic_client::{BlobId, ByteRange, Category, Client, DownloadOptions, Sink};

use crate::cluster::{BLOCK, Cluster, get, get_range, noise, put, write_file};

/// The chunk files of the one blob in the store, by size, largest first.
fn chunk_files(cluster: &Cluster) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(cluster.chunks_folder()).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|end| end == "blob")).collect();
    files.sort_by_key(|path| std::cmp::Reverse(std::fs::metadata(path).unwrap().len()));
    files
}

async fn assert_lost(cluster: &Cluster, client: &Client, blob: BlobId, what: &str) {
    let output = cluster.path("output");
    for before in [None, Some("what was there before")] {
        if let Some(before) = before {
            write_file(&output, before.as_bytes());
        }
        let sink = Sink::File(output.clone());
        let error = client.download(blob, DownloadOptions::default(), sink).await.unwrap_err();
        assert_eq!(error.category(), Category::DataLoss, "{what}: {error}");
        assert_eq!(std::fs::read_to_string(&output).ok().as_deref(), before, "{what}");
        cluster.assert_no_partial();
    }
    std::fs::remove_file(&output).unwrap();
    assert_eq!(get(client, blob).await.unwrap_err().category(), Category::DataLoss, "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_bytes_are_data_loss_and_leave_no_file() {
    let cluster = Cluster::start().await;
    let client = cluster.unlimited("posts").await;
    let content = noise(1, 2 * BLOCK + 1000);
    let blob = put(&client, &content).await.unwrap().blob_id;
    let files = chunk_files(&cluster);
    let last = files.last().unwrap();
    let file = OpenOptions::new().read(true).write(true).open(last).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 500).unwrap();

    file.write_all_at(&[byte[0] ^ 1], 500).unwrap();
    assert_lost(&cluster, &client, blob, "one flipped bit").await;
    let sound = ByteRange { offset: 0, limit: Some(2 * BLOCK as u64) };
    assert!(get_range(&client, blob, sound).await.unwrap() == content[..2 * BLOCK], "other blocks are still served");

    file.write_all_at(&byte, 500).unwrap();
    assert!(get(&client, blob).await.unwrap() == content);
    file.set_len(999).unwrap();
    assert_lost(&cluster, &client, blob, "cut off").await;

    file.write_all_at(&content[content.len() - 1..], 999).unwrap();
    file.set_len(1001).unwrap();
    assert_lost(&cluster, &client, blob, "extended").await;
    std::fs::remove_file(last).unwrap();
    assert_lost(&cluster, &client, blob, "gone").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bit_that_changes_on_the_way_never_reaches_the_store_or_the_reader() {
    const ROUNDS: u64 = 24;
    let cluster = Cluster::start().await;
    let client = cluster.unlimited("posts").await;
    let content = noise(2, 3 * BLOCK);
    let (mut stored, mut read) = (0, 0);
    for round in 0..ROUNDS {
        let after = round * 3 * BLOCK as u64 / ROUNDS;
        cluster.proxy.flip_after(after);
        if let Ok(blob) = put(&client, &content).await {
            stored += 1;
            assert_eq!(cluster.proxy.flips(), 2 * round + 1);
            assert!(get(&client, blob.blob_id).await.unwrap() == content, "after {after} bytes");
        }
        cluster.proxy.flip_after(u64::MAX);
        let blob = put(&client, &content).await.unwrap();
        cluster.proxy.flip_after(after);
        if let Ok(bytes) = get(&client, blob.blob_id).await {
            read += 1;
            assert!(bytes == content, "after {after} bytes");
        }
        assert_eq!(cluster.proxy.flips(), 2 * round + 2);
    }
    // A bit of a header may end a transfer with an error; one of the content, which is nearly all there is, may not.
    assert!(stored >= ROUNDS - 4 && read >= ROUNDS - 4, "{stored} stored and {read} read of {ROUNDS}");
}

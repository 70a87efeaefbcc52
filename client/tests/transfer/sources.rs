//! Local inputs and outputs that are not what they should be.

use std::io;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::sync::Arc;

use mini_tectonic_client::{Category, DownloadOptions, Error, Progress, Sink, Source, Transferred, UploadOptions};

use crate::cluster::{BLOCK, Cluster, get, noise, put, write_file};

/// Does something once, when an upload has come this far, and holds it up meanwhile.
fn once_at(bytes: usize, act: impl Fn() + Send + Sync + 'static) -> Progress {
    let done = std::sync::Once::new();
    Arc::new(move |now: Transferred| {
        if now.done_bytes >= bytes as u64 {
            done.call_once(&act);
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changes_its_size_while_it_is_read_is_not_stored() {
    let cluster = Cluster::start().await;
    let client = cluster.unlimited("posts").await;
    for (word, size) in [("shorter", 33 * BLOCK), ("longer", 41 * BLOCK)] {
        let input = cluster.path("input");
        write_file(&input, &noise(1, 40 * BLOCK));
        let file = std::fs::OpenOptions::new().write(true).open(&input).unwrap();
        let change = once_at(BLOCK, move || file.set_len(size as u64).unwrap());
        let options = UploadOptions { progress: Some(change), ..Default::default() };
        let error = client.upload(Source::File(input), options).await.unwrap_err();
        assert!(matches!(error, Error::SourceChanged { .. }) && error.to_string().contains(word), "{error}");
        cluster.assert_nothing_reserved(&client).await;
    }
    let usage = client.get_tenant(None).await.unwrap().usage.unwrap();
    assert_eq!(usage.used_blobs, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_change_before_they_are_sent_again_are_not_stored() {
    let mut cluster = Cluster::start().await;
    let client = cluster.unlimited("posts").await;
    // One block, so that what was sent before the kill has to be sent again.
    let content = noise(2, 40 * BLOCK);
    let input = cluster.path("input");
    write_file(&input, &content);
    let file = std::fs::OpenOptions::new().write(true).open(&input).unwrap();
    let changed = Arc::new(tokio::sync::Notify::new());
    let notify = Arc::clone(&changed);
    let change = once_at(20 * BLOCK + BLOCK / 2, move || {
        for block in 16..24 {
            file.write_all_at(b"changed", block * BLOCK as u64).unwrap();
        }
        notify.notify_one();
    });
    let options = UploadOptions { progress: Some(change), ..Default::default() };
    let uploading = client.upload(Source::File(input), options);
    let killing = async {
        changed.notified().await;
        cluster.restart_chunk().await;
    };
    let (outcome, ()) = tokio::join!(uploading, killing);
    // Whatever was read before and after the change, what is stored must be what was summed.
    match outcome {
        Ok(blob) => {
            assert_eq!(mini_tectonic_client::Sha256::of(&get(&client, blob.blob_id).await.unwrap()), blob.sha256)
        }
        Err(error) => assert!(matches!(error, Error::SourceChanged { .. }), "{error}"),
    }
    cluster.assert_nothing_reserved(&client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn inputs_that_cannot_be_read_are_local_errors() {
    struct Broken;
    impl io::Read for Broken {
        fn read(&mut self, _room: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("as planned"))
        }
    }
    let cluster = Cluster::start().await;
    let client = cluster.unlimited("posts").await;
    for (source, kind) in [
        (Source::File(cluster.path("absent")), io::ErrorKind::NotFound),
        (Source::File(cluster.path("")), io::ErrorKind::IsADirectory),
        (Source::Reader(Box::new(Broken)), io::ErrorKind::Other),
    ] {
        let error = client.upload(source, UploadOptions::default()).await.unwrap_err();
        assert_eq!((error.category(), error.io_kind()), (Category::Other, Some(kind)), "{error}");
    }
    cluster.assert_nothing_reserved(&client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_is_read_to_its_end_and_written_directly() {
    let cluster = Cluster::start().await;
    let client = cluster.unlimited("posts").await;
    let empty = client.upload(Source::File("/dev/null".into()), UploadOptions::default()).await.unwrap();
    assert_eq!(empty.size_bytes, 0);
    let blob = put(&client, &noise(3, BLOCK + 1)).await.unwrap();
    let sink = Sink::File("/dev/null".into());
    let downloaded = client.download(blob.blob_id, DownloadOptions::default(), sink).await.unwrap();
    assert_eq!(downloaded.bytes, BLOCK as u64 + 1);
    assert!(!std::fs::metadata("/dev/null").unwrap().is_file());
}

#[tokio::test(flavor = "multi_thread")]
async fn outputs_that_cannot_be_written_are_local_errors_and_leave_nothing() {
    struct Broken;
    impl io::Write for Broken {
        fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let cluster = Cluster::start().await;
    let client = cluster.unlimited("posts").await;
    let blob = put(&client, &noise(4, 30 * BLOCK)).await.unwrap().blob_id;
    for (sink, kind) in [
        (Sink::File(cluster.path("absent/output")), io::ErrorKind::NotFound),
        (Sink::File(cluster.path("")), io::ErrorKind::IsADirectory),
        (Sink::File("/dev/full".into()), io::ErrorKind::StorageFull),
        (Sink::Writer(Box::new(Broken)), io::ErrorKind::BrokenPipe),
    ] {
        let error = client.download(blob, DownloadOptions::default(), sink).await.unwrap_err();
        assert_eq!((error.category(), error.io_kind()), (Category::Other, Some(kind)), "{error}");
    }
    cluster.assert_no_partial();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_file_keeps_its_permissions_and_its_links() {
    let cluster = Cluster::start().await;
    let client = cluster.unlimited("posts").await;
    let blob = put(&client, b"new").await.unwrap().blob_id;
    let (real, link) = (cluster.path("real"), cluster.path("link"));
    write_file(&real, b"old");
    std::fs::set_permissions(&real, std::fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    client.download(blob, DownloadOptions::default(), Sink::File(link.clone())).await.unwrap();
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(std::fs::read(&real).unwrap(), b"new");
    assert_eq!(std::fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o640);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_that_is_dropped_leaves_no_file() {
    let cluster = Cluster::start().await;
    let client = cluster.unlimited("posts").await;
    let blob = put(&client, &noise(5, 30 * BLOCK)).await.unwrap().blob_id;
    let reached = Arc::new(tokio::sync::Notify::new());
    let notify = Arc::clone(&reached);
    let options = DownloadOptions { progress: Some(once_at(BLOCK, move || notify.notify_one())), ..Default::default() };
    let output = cluster.path("output");
    tokio::select! {
        biased;
        () = reached.notified() => {}
        downloaded = client.download(blob, options, Sink::File(output.clone())) => panic!("it ended: {downloaded:?}"),
    }
    cluster.assert_no_partial();
    assert!(!output.try_exists().unwrap());
}

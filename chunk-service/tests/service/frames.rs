//! What a stream may and may not be.

use bytes::Bytes;
use proto::error::Reason;
use proto::pb;

use crate::harness::{World, frame, messages, pattern};
use crate::peer::Peer;

fn spec(place: &proto::capability::ChunkBinding, size_bytes: Option<u64>) -> Option<pb::WriteChunkSpec> {
    Some(pb::WriteChunkSpec { chunk_id: place.chunk.to_string(), size_bytes })
}

#[tokio::test]
async fn a_bad_frame_is_refused_and_the_good_ones_before_it_are_kept() {
    let world = World::start().await;
    let (client, bytes) = (world.client().await, pattern(3_000));
    type Change = fn(&mut Vec<pb::WriteChunkRequest>);
    let cases: [(&str, Change, Reason, u64); 9] = [
        ("crc32c", |all| all[1].data.as_mut().unwrap().crc32c = Some(7), Reason::ChecksumMismatch, 1_000),
        ("gap", |all| all[1].write_offset = 1_001, Reason::WriteOffsetMismatch, 1_000),
        ("overlap", |all| all[1].write_offset = 999, Reason::WriteOffsetMismatch, 1_000),
        ("repeated", |all| all[1] = frame(0, &[0; 10]), Reason::WriteOffsetMismatch, 1_000),
        ("order", |all| all.swap(1, 2), Reason::WriteOffsetMismatch, 1_000),
        ("spec again", |all| all[1].spec = all[0].spec.clone(), Reason::FieldInvalid, 1_000),
        ("early checksums", |all| all[1].checksums = Some(pb::ChunkChecksums::default()), Reason::FieldInvalid, 1_000),
        ("after the end", |all| all.push(frame(3_000, b"")), Reason::FieldInvalid, 3_000),
        ("too many bytes", |all| all[1] = frame(1_000, &[0; 2_001]), Reason::FieldInvalid, 1_000),
    ];
    for (what, change, reason, kept) in cases {
        let place = Peer::place();
        let capability = world.peer.may_write(place, 1_000_000);
        let mut bad = messages(&place, &bytes, 0, 1_000);
        change(&mut bad);
        let refused = client.send(&capability, bad).await.unwrap_err();
        assert_eq!(refused.reason, Some(reason), "{what}: {}", refused.message);
        let status = client.status(&place, &capability).await.unwrap();
        assert_eq!(status.persisted_size_bytes, kept, "{what}");
        let from = usize::try_from(kept).unwrap();
        client.send(&capability, messages(&place, &bytes, from, 1_000)).await.unwrap();
        assert!(world.get(&place, &bytes).await.unwrap() == bytes, "{what}");
    }
}

#[tokio::test]
async fn a_frame_is_at_most_a_mebibyte() {
    let world = World::start().await;
    let client = world.client().await;
    for size in [1024 * 1024, 1024 * 1024 + 1, 3 * 1024 * 1024] {
        let (place, bytes) = (Peer::place(), pattern(size));
        let capability = world.peer.may_write(place, size as u64);
        let sent = client.send(&capability, messages(&place, &bytes, 0, size)).await;
        match sent {
            Ok(_) => assert_eq!(size, 1024 * 1024),
            Err(refused) => assert_eq!(refused.reason, Some(Reason::FrameTooLarge), "{size}: {}", refused.message),
        }
        assert_eq!(world.chk_path(&place).exists(), size == 1024 * 1024, "{size}");
    }
}

#[tokio::test]
async fn the_first_message_says_which_chunk() {
    let world = World::start().await;
    let (client, place) = (world.client().await, Peer::place());
    let capability = world.peer.may_write(place, 100);
    let named = |chunk_id: &str| {
        let spec = Some(pb::WriteChunkSpec { chunk_id: chunk_id.to_owned(), size_bytes: None });
        vec![pb::WriteChunkRequest { spec, finish_write: true, ..frame(0, b"x") }]
    };
    for (what, stream, reason) in [
        ("no message", vec![], Reason::FieldInvalid),
        ("no spec", vec![frame(0, b"x")], Reason::FieldInvalid),
        ("no id", named(""), Reason::FieldInvalid),
        ("path", named(&format!("../{}", place.chunk)), Reason::FieldInvalid),
        ("upper case", named(&place.chunk.to_string().to_uppercase()), Reason::FieldInvalid),
        ("long", named(&"0".repeat(10_240)), Reason::FieldInvalid),
        ("another", named(&Peer::place().chunk.to_string()), Reason::CapabilityInvalid),
    ] {
        let refused = client.send(&capability, stream).await.unwrap_err();
        assert_eq!(refused.reason, Some(reason), "{what}: {}", refused.message);
    }
    assert_eq!(std::fs::read_dir(world.chunks()).unwrap().filter(is_blob).count(), 0);
}

fn is_blob(entry: &std::io::Result<std::fs::DirEntry>) -> bool {
    entry.as_ref().unwrap().file_name().to_string_lossy().contains(".blob")
}

#[tokio::test]
async fn nothing_stays_of_a_chunk_that_is_not_what_its_writer_stated() {
    let world = World::start().await;
    let (client, bytes) = (world.client().await, pattern(5_000));
    type Change = fn(&mut Vec<pb::WriteChunkRequest>);
    let cases: [(&str, Change, Reason); 3] = [
        ("shorter", |all| all[0].spec.as_mut().unwrap().size_bytes = Some(5_001), Reason::FieldInvalid),
        (
            "sha256",
            |all| all.last_mut().unwrap().checksums.as_mut().unwrap().sha256 = "0".repeat(64),
            Reason::ChecksumMismatch,
        ),
        ("more than permitted", |all| all[0].spec.as_mut().unwrap().size_bytes = Some(100_001), Reason::FieldInvalid),
    ];
    for (what, change, reason) in cases {
        let place = Peer::place();
        let capability = world.peer.may_write(place, 100_000);
        let mut stream = messages(&place, &bytes, 0, 1_000);
        change(&mut stream);
        let refused = client.send(&capability, stream).await.unwrap_err();
        assert_eq!(refused.reason, Some(reason), "{what}: {}", refused.message);
        assert!(!world.blob_path(&place).exists(), "{what}");
        assert_eq!(client.status(&place, &capability).await.unwrap().persisted_size_bytes, 0, "{what}");
    }
}

#[tokio::test]
async fn checksums_sizes_and_data_may_be_left_out() {
    let world = World::start().await;
    let (client, place) = (world.client().await, Peer::place());
    let capability = world.peer.may_write(place, 100);
    let data = |content: &'static [u8]| Some(pb::ChunkData { content: Bytes::from_static(content), crc32c: None });
    let stream = vec![
        pb::WriteChunkRequest { spec: spec(&place, None), ..Default::default() },
        pb::WriteChunkRequest { data: data(b"hello "), ..Default::default() },
        pb::WriteChunkRequest { write_offset: 6, data: data(b"world"), ..Default::default() },
        pb::WriteChunkRequest { write_offset: 11, finish_write: true, ..Default::default() },
    ];
    let written = client.send(&capability, stream).await.unwrap();
    assert_eq!(written.persisted_size_bytes, 11);
    assert_eq!(std::fs::read(world.blob_path(&place)).unwrap(), b"hello world");
    let listed = std::fs::read_to_string(world.chk_path(&place)).unwrap();
    assert!(listed.contains("# crc32c-64k=c99465aa\n"), "{listed}");
}

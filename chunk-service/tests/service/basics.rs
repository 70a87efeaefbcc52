//! Put, get, ask, delete: what every client does.

use proto::error::Reason;
use proto::receipt;

use crate::harness::{World, messages, pattern};
use crate::peer::{Peer, claims};

#[tokio::test]
async fn chunks_of_every_size_come_back_as_they_went_in() {
    let world = World::start().await;
    for size in [0, 1, 65_535, 65_536, 65_537, 262_144, 1_000_000, 5_000_001] {
        let bytes = pattern(size);
        let place = world.put(&bytes).await;
        assert!(world.get(&place, &bytes).await.unwrap() == bytes, "{size} bytes");
    }
    assert!(world.running.is_some());
}

#[tokio::test]
async fn a_receipt_is_signed_and_says_what_was_stored() {
    let world = World::start().await;
    let (place, bytes) = (Peer::place(), pattern(200_000));
    let capability = world.peer.may_write(place, 200_000);
    let written = world.client().await.put(&place, &capability, &bytes).await.unwrap();
    let signed = receipt::verify(&written.receipt, |_node, key_id| Some(world.peer.key(key_id))).unwrap();
    let claims = claims(&bytes);
    assert_eq!((signed.chunk, signed.block, signed.blob), (place.chunk, place.block, place.blob));
    assert_eq!((signed.size_bytes, signed.sha256), (claims.size_bytes, claims.sha256));
    assert_eq!(signed.pieces_sha256, claims.pieces_sha256);
    assert_eq!(written.sha256, claims.sha256.to_string());
}

#[tokio::test]
async fn ranges_come_in_equal_frames_of_exactly_what_was_asked_for() {
    let world = World::start().await;
    let bytes = pattern(1_000_000);
    let place = world.put(&bytes).await;
    let (client, capability) = (world.client().await, world.peer.may_read(place, &bytes));
    for (offset, limit) in [(0, 0), (0, 1), (1, 0), (65_535, 2), (999_999, 0), (300_000, 600_000), (7, u64::MAX)] {
        let frames = client.read_messages(&place, &capability, offset, limit).await.unwrap();
        let from = usize::try_from(offset).unwrap();
        let wanted = if limit == 0 { usize::MAX } else { usize::try_from(limit).unwrap() };
        let to = from.saturating_add(wanted).min(bytes.len());
        assert!(frames.concat() == bytes[from..to], "from {offset}, {limit} bytes");
        let (last, others) = frames.split_last().unwrap();
        assert!(others.iter().all(|frame| frame.len() == 524_288) && last.len() <= 524_288);
    }
    assert!(client.read_messages(&place, &capability, 1_000_000, 0).await.unwrap().is_empty());
    let beyond = client.read(&place, &capability, 1_000_001, 0).await.unwrap_err();
    assert_eq!(beyond.reason, Some(Reason::ReadOffsetOutOfRange));
    let info = client.get_chunk(&place, &capability).await.unwrap();
    assert_eq!((info.size_bytes, info.generation), (1_000_000, 1));
    assert_eq!(info.pieces_sha256, claims(&bytes).pieces_sha256.to_string());
}

#[tokio::test]
async fn a_repeated_put_gets_the_same_receipt_and_other_bytes_are_refused() {
    let world = World::start().await;
    let (place, bytes) = (Peer::place(), pattern(300_000));
    let capability = world.peer.may_write(place, 300_000);
    let client = world.client().await;
    let first = client.put(&place, &capability, &bytes).await.unwrap();
    assert_eq!(client.put(&place, &capability, &bytes).await.unwrap(), first);
    let other = client.put(&place, &capability, &pattern(299_999)).await.unwrap_err();
    assert_eq!(other.reason, Some(Reason::ChunkAlreadyExists));
    let status = client.status(&place, &capability).await.unwrap();
    assert_eq!((status.complete, status.receipt, status.sha256), (true, first.receipt, first.sha256));
    assert!(world.get(&place, &bytes).await.unwrap() == bytes);
}

#[tokio::test]
async fn a_broken_stream_is_gone_on_with_where_it_ended() {
    let world = World::start().await;
    let (place, bytes) = (Peer::place(), pattern(1_000_000));
    let capability = world.peer.may_write(place, 1_000_000);
    let client = world.client().await;
    let mut first_part = messages(&place, &bytes, 0, 100_000);
    first_part.truncate(3);
    let broken = client.send(&capability, first_part).await.unwrap_err();
    assert_eq!(broken.reason, Some(Reason::FieldInvalid), "the stream ended without its last message");
    assert_eq!(client.status(&place, &capability).await.unwrap().persisted_size_bytes, 300_000);
    let wrong = client.send(&capability, messages(&place, &bytes, 200_000, 100_000)).await.unwrap_err();
    assert_eq!(wrong.reason, Some(Reason::WriteOffsetMismatch));
    assert_eq!(wrong.facts.get("persisted_size_bytes").map(String::as_str), Some("300000"));
    client.send(&capability, messages(&place, &bytes, 300_000, 100_000)).await.unwrap();
    assert!(world.get(&place, &bytes).await.unwrap() == bytes);
}

#[tokio::test]
async fn a_deleted_chunk_is_gone_and_deleting_it_again_is_fine() {
    let world = World::start().await;
    let bytes = pattern(10);
    let place = world.put(&bytes).await;
    let client = world.client().await;
    for _ in 0..2 {
        client.delete(&place, &world.peer.may_delete(place)).await.unwrap();
        assert!(!world.blob_path(&place).exists() && !world.chk_path(&place).exists());
    }
    assert_eq!(world.get(&place, &bytes).await.unwrap_err().reason, Some(Reason::ChunkMissing));
}

#[tokio::test]
async fn ten_megabytes_in_tiny_frames_are_taken() {
    let world = World::start().await;
    let (place, bytes) = (Peer::place(), pattern(10_000_000));
    let capability = world.peer.may_write(place, 10_000_000);
    world.client().await.send(&capability, messages(&place, &bytes, 0, 100)).await.unwrap();
    assert!(world.get(&place, &bytes).await.unwrap() == bytes);
}

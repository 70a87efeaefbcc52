//! What the metadata service asks of a node about its files: which there are, and how they are.

use std::collections::BTreeMap;

use proto::capability::ChunkBinding;
use proto::checksum::crc32c;
use proto::error::Reason;
use proto::pb::ChunkCondition;

use crate::harness::{World, pattern};
use crate::peer::{Peer, claims};

fn damage(path: &std::path::Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    change(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn a_listing_names_every_chunk_once_and_every_foreign_file_and_ends_with_a_word() {
    let world = World::start().await;
    let mut places = BTreeMap::new();
    for size in 0..20 {
        let place = world.put(&pattern(size)).await;
        places.insert(place.chunk.to_string(), place);
    }
    std::fs::write(world.chunks().join("notes.txt"), "mine").unwrap();
    let messages = world.client().await.list(&world.peer.may_list(), true).await.unwrap();
    let (last, before) = messages.split_last().unwrap();
    assert!(last.complete && !before.iter().any(|message| message.complete));
    let foreign: Vec<_> = messages.iter().flat_map(|message| &message.foreign_names).collect();
    assert_eq!(foreign, ["notes.txt"]);
    let chunks: Vec<_> = messages.iter().flat_map(|message| &message.chunks).collect();
    assert_eq!(chunks.len(), places.len());
    for files in chunks {
        let place: &ChunkBinding = &places[&files.chunk_id];
        let said = files.checksum_file.as_ref().unwrap();
        assert!(files.has_checksum_file);
        assert_eq!((said.block_id.clone(), said.blob_id.clone()), (place.block.to_string(), place.blob.to_string()));
        assert_eq!((said.generation, said.epoch, said.sequence), (place.generation, place.epoch, place.sequence));
        assert_eq!(files.data_size_bytes, Some(said.size_bytes));
        let bytes = pattern(usize::try_from(said.size_bytes).unwrap());
        assert_eq!(said.sha256, claims(&bytes).sha256.to_string());
    }
}

#[tokio::test]
async fn a_verification_says_how_a_chunk_is_and_repairs_only_its_checksum_file() {
    let (world, bytes) = (World::start().await, pattern(200_000));
    let place = world.put(&bytes).await;
    let (client, capability) = (world.client().await, world.peer.may_verify(place, &bytes));
    let verify = async |repair| client.verify(&place, &capability, repair).await.unwrap();
    assert_eq!(verify(false).await.condition(), ChunkCondition::Sound);

    let sound = std::fs::read(world.chk_path(&place)).unwrap();
    damage(&world.chk_path(&place), |chk| chk[100] ^= 1);
    let told = verify(false).await;
    assert_eq!(
        (told.condition(), told.detail.as_str()),
        (ChunkCondition::ChecksumFileBad, "the bytes are sound; the checksum file is damaged")
    );
    assert_eq!(verify(true).await.condition(), ChunkCondition::Rebuilt);
    assert_eq!(std::fs::read(world.chk_path(&place)).unwrap(), sound);

    damage(&world.blob_path(&place), |blob| blob[150_000] ^= 1);
    let told = verify(true).await;
    assert_eq!(told.condition(), ChunkCondition::Corrupt);
    assert_eq!(told.detail, "1 of 4 pieces of 64 KiB do not match; the first begins at byte 131072");
    assert_eq!(std::fs::read(world.blob_path(&place)).unwrap().len(), bytes.len(), "the file stays where it is");
    std::fs::remove_file(world.blob_path(&place)).unwrap();
    assert_eq!(verify(true).await.condition(), ChunkCondition::Missing);
}

#[tokio::test]
async fn what_was_committed_counts_also_when_the_files_of_two_chunks_were_swapped() {
    let (world, one, other) = (World::start().await, pattern(5_000), pattern(5_001));
    let (of_one, of_other) = (world.put(&one).await, world.put(&other).await);
    let swap = |a: std::path::PathBuf, b: std::path::PathBuf| {
        let aside = a.with_extension("aside");
        std::fs::rename(&a, &aside).unwrap();
        std::fs::rename(&b, &a).unwrap();
        std::fs::rename(&aside, &b).unwrap();
    };
    swap(world.blob_path(&of_one), world.blob_path(&of_other));
    swap(world.chk_path(&of_one), world.chk_path(&of_other));
    let capability = world.peer.may_verify(of_one, &one);
    let told = world.client().await.verify(&of_one, &capability, true).await.unwrap();
    assert_eq!(told.condition(), ChunkCondition::Corrupt);
    let missing = world.peer.may_verify(Peer::place(), &one);
    let refused = world.client().await.verify(&of_one, &missing, true).await.unwrap_err();
    assert_eq!(refused.reason, Some(Reason::CapabilityInvalid));
}

/// A checksum file of a later version was once reported like a damaged one, set aside and written over by this program.
#[tokio::test]
async fn a_checksum_file_of_a_later_version_is_named_and_left_as_it_is() {
    let (mut world, bytes) = (World::start().await, pattern(100_000));
    let place = world.put(&bytes).await;
    let said = "# mini-tectonic chunk v2\nwhatever a later version says\n";
    let later = format!("{said}# end crc32c={:08x}\n", crc32c(said.as_bytes()));
    damage(&world.chk_path(&place), |chk| *chk = later.clone().into());
    let (client, may_verify) = (world.client().await, world.peer.may_verify(place, &bytes));
    let told = client.verify(&place, &may_verify, true).await.unwrap();
    assert_eq!(told.condition(), ChunkCondition::ChecksumFileTooNew);
    assert!(told.detail.contains("of a later version 2, and this program knows up to 1"), "{}", told.detail);
    let may_write = world.peer.may_write(place, 100_000);
    for refused in [
        world.get(&place, &bytes).await.map(drop),
        client.put(&place, &may_write, &bytes).await.map(drop),
        client.status(&place, &may_write).await.map(drop),
    ] {
        let refused = refused.unwrap_err();
        assert_eq!(refused.reason, Some(Reason::FormatTooNew), "{}", refused.message);
        assert!(refused.message.contains("checksum file of a later version 2; this program knows up to 1"));
    }
    let scrubbed = world.running().scrub_now().await.unwrap();
    assert_eq!((scrubbed.examined, scrubbed.changed, scrubbed.failed), (1, 0, 1));
    world.restart_service().await;
    assert_eq!(std::fs::read_to_string(world.chk_path(&place)).unwrap(), later);
    assert_eq!(std::fs::read_dir(world.chunks().join(".quarantine")).unwrap().count(), 0);
}

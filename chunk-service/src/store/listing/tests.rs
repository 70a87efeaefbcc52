use std::collections::BTreeMap;

use proptest::prelude::*;
use rustix::io::Errno;

use super::*;
use crate::store::disk::FolderDisk;
use crate::store::testing::faulty_disk::Call;
use crate::store::testing::world::{World, place};

/// All pages of a listing, and how many there were.
async fn everything(world: &World, with_chks: bool) -> Result<(Vec<ChunkFiles>, Vec<String>, usize), ChunkError> {
    let mut listing = world.store.list(with_chks).await?;
    let (mut chunks, mut foreign, mut pages) = (Vec::new(), Vec::new(), 0);
    loop {
        let (rest, page) = world.store.next_page(listing).await?;
        pages += 1;
        assert!(page.chunks.len() + page.foreign.len() <= NAMES_PER_PAGE);
        chunks.extend(page.chunks);
        foreign.extend(page.foreign);
        listing = rest;
        if page.complete {
            return Ok((chunks, foreign, pages));
        }
    }
}

fn touch(disk: &dyn Disk, name: &str) {
    disk.create_new(name).unwrap();
}

#[tokio::test]
async fn chunks_are_listed_once_with_what_their_checksum_files_say() {
    let (world, whole, bare) = (World::new(), place(1), place(2));
    world.put(whole, b"whole").await.unwrap();
    world.put(bare, b"without").await.unwrap();
    world.disk.lose(&chk_name(bare.chunk));
    for name in ["IDENTITY", "LOCK", "node.key", "notes.txt", &format!("{}.blob.bak", whole.chunk), "0.blob"] {
        touch(&world.disk, name);
    }
    let (mut chunks, mut foreign, pages) = everything(&world, true).await.unwrap();
    chunks.sort_by_key(|files| files.data_size);
    foreign.sort();
    let [first, second] = chunks.as_slice() else { panic!("two chunks: {chunks:?}") };
    assert_eq!((first.chunk, first.data_size, first.has_chk), (whole.chunk, Some(5), true));
    assert_eq!(first.chk.as_ref().map(|chk| chk.binding), Some(whole));
    assert_eq!((second.chunk, second.has_chk, &second.chk), (bare.chunk, false, &None));
    assert_eq!(foreign, ["0.blob", &format!("{}.blob.bak", whole.chunk), "notes.txt"]);
    assert_eq!(pages, 1);
}

#[tokio::test]
async fn a_listing_that_cannot_be_finished_is_an_error_and_no_short_list() {
    let world = World::new();
    for number in 0..5 {
        world.put(place(number), b"x").await.unwrap();
    }
    let names = world.disk.names().len() as u64;
    for nth in 0..=names {
        world.faults.fail(Call::List, nth, Errno::IO);
        let failed = everything(&world, false).await;
        assert!(matches!(failed, Err(ChunkError::Io { .. })), "call {nth}: {failed:?}");
        world.faults.heal();
    }
    world.faults.fail(Call::Size, 3, Errno::IO);
    assert!(everything(&world, false).await.is_err(), "nor is one of which a file cannot be looked at");
    world.faults.heal();
    assert_eq!(everything(&world, false).await.unwrap().0.len(), 5);
}

#[test]
fn a_real_folder_is_listed_like_any_other_and_what_is_no_file_is_foreign() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Arc::new(FolderDisk::open_folder(folder.path()).unwrap());
    let (lone, dressed_up) = (place(1).chunk, place(2).chunk);
    touch(disk.as_ref(), &chk_temporary_name(lone));
    std::fs::create_dir(folder.path().join(blob_name(dressed_up))).unwrap();
    std::fs::create_dir(folder.path().join(".quarantine")).unwrap();
    let mut listing = Listing { names: disk.names().unwrap(), disk, with_chks: true };
    let page = listing.next_page(|| true).unwrap();
    assert_eq!(page.chunks, [ChunkFiles { chunk: lone, data_size: None, has_chk: false, chk: None }]);
    assert_eq!(page.foreign, [blob_name(dressed_up)]);
    assert!(page.complete);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Any subset of a chunk's three names, for so many chunks that there are several pages.
    #[test]
    fn every_chunk_with_a_file_comes_exactly_once(kinds in prop::collection::vec(0u8..8, 0..400)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let world = World::new();
        let mut expected = BTreeMap::new();
        for (number, kinds) in kinds.iter().enumerate() {
            let chunk = place(number as u64).chunk;
            let names = [blob_name(chunk), chk_name(chunk), chk_temporary_name(chunk)];
            let there = |index: usize| kinds & (1 << index) != 0;
            names.iter().enumerate().filter(|(index, _)| there(*index)).for_each(|(_, name)| touch(&world.disk, name));
            if *kinds != 0 {
                expected.insert(chunk, (there(0).then_some(0), there(1)));
            }
        }
        let (chunks, foreign, pages) = runtime.block_on(everything(&world, false)).unwrap();
        let count = chunks.len();
        let listed: BTreeMap<_, _> =
            chunks.into_iter().map(|files| (files.chunk, (files.data_size, files.has_chk))).collect();
        prop_assert_eq!(count, listed.len());
        prop_assert_eq!(listed, expected);
        prop_assert!(foreign.is_empty());
        prop_assert_eq!(pages, world.disk.names().len() / NAMES_PER_PAGE + 1);
    }
}

use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::store::testing::world::pattern;

const PAGE: u64 = PAGE_BYTES as u64;

fn create(path: &Path) -> DirectFile {
    let file = File::options().read(true).write(true).create_new(true).open(path).unwrap();
    DirectFile::new(file, Arc::default())
}

fn way(file: &DirectFile) -> Way {
    *file.way.lock().unwrap()
}

/// Whether this folder's file system takes a page past its cache, found out by other means.
fn goes_past_the_cache(folder: &Path) -> bool {
    let path = folder.join("probe");
    let file = create(&path).file;
    let flags = OFlags::WRONLY | OFlags::DIRECT;
    let opened = rustix::fs::open(&path, flags, rustix::fs::Mode::empty());
    let mut memory = Vec::new();
    let page = &aligned(&mut memory).unwrap()[..PAGE_BYTES];
    let written = opened.map(|probe| File::from(probe).write(page));
    let stat = rustix::fs::statx(&file, c"", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN).unwrap();
    let says_no = stat.stx_mask & StatxFlags::DIOALIGN.bits() != 0 && stat.stx_dio_offset_align == 0;
    matches!(written, Ok(Ok(PAGE_BYTES))) && !says_no
}

/// Cuts bytes into parts of these lengths; what is left is a part as well.
fn cut(bytes: &[u8], lengths: &[usize]) -> Vec<Bytes> {
    let mut left = Bytes::copy_from_slice(bytes);
    let mut parts: Vec<_> = lengths.iter().map(|length| left.split_to((*length).min(left.len()))).collect();
    parts.push(left);
    parts
}

#[test]
fn a_run_of_bytes_is_cut_at_pages() {
    let cut = |offset, total| {
        let pieces = pieces(offset, total);
        pieces.map(|piece| (piece.offset, piece.length, piece.is_whole_pages)).collect::<Vec<_>>()
    };
    assert_eq!(cut(0, 0), []);
    assert_eq!(cut(0, 4095), [(0, 4095, false)]);
    assert_eq!(cut(4096, 4096), [(4096, 4096, true)]);
    assert_eq!(cut(4000, 50), [(4000, 50, false)], "it ends in the page where it begins");
    assert_eq!(cut(4000, 96), [(4000, 96, false)]);
    assert_eq!(cut(4000, 96 + 8192 + 1), [(4000, 96, false), (4096, 8192, true), (12_288, 1, false)]);
    assert_eq!(
        cut(0, PIECE_BYTES + 4097),
        [(0, PIECE_BYTES, true), (PIECE_BYTES as u64, 4096, true), (PIECE_BYTES as u64 + 4096, 1, false)]
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_was_written_in_parts_of_any_length_is_there(
        batches in prop::collection::vec(prop::collection::vec(0_usize..100_000, 0..6), 1..6),
        seed in any::<u8>(),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.blob");
        let (file, goes_past) = (create(&path), goes_past_the_cache(folder.path()));
        let lengths = batches.iter().map(|batch| batch.iter().sum::<usize>());
        let bytes = pattern(lengths.sum(), u64::from(seed));
        file.reserve(1 + bytes.len() as u64).unwrap();
        let mut at = 0;
        for batch in &batches {
            let length = batch.iter().sum::<usize>();
            let cached = file.write_parts(&cut(&bytes[at..at + length], batch), at as u64).unwrap();
            let whole_pages = ((at + length) as u64 / PAGE * PAGE).saturating_sub((at as u64).next_multiple_of(PAGE));
            let expected = if goes_past { length as u64 - whole_pages } else { length as u64 };
            prop_assert_eq!(cached, expected, "{} bytes at {}", length, at);
            at += length;
        }
        file.sync().unwrap();
        prop_assert_eq!(DiskFile::size(&file).unwrap(), bytes.len() as u64);
        let mut read = Vec::new();
        DiskFile::read_at(&file, &mut read, bytes.len(), 0).unwrap();
        prop_assert!(read == bytes && std::fs::read(&path).unwrap() == bytes);
    }
}

/// What another descriptor has in the cache may be older, never what is read.
#[test]
fn pages_that_are_cached_are_not_believed_after_a_write_past_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.blob");
    let (file, reader) = (create(&path), File::options().read(true).open(&path).unwrap());
    for round in 1..=3_u64 {
        let bytes = pattern(3 * PAGE_BYTES + 7, round);
        file.write_parts(&cut(&bytes, &[100, 5000]), 0).unwrap();
        let mut read = vec![0; bytes.len()];
        reader.read_exact_at(&mut read, 0).unwrap();
        assert!(read == bytes, "round {round}");
    }
}

#[test]
fn a_file_system_that_takes_nothing_past_its_cache_is_written_to_through_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = create(&folder.path().join("x.blob"));
    *file.way.lock().unwrap() = Way::ThroughCacheOnly;
    let bytes = pattern(2 * PAGE_BYTES, 1);
    assert_eq!(file.write_parts(&cut(&bytes, &[]), 0).unwrap(), bytes.len() as u64, "all of it waits for the sync");
    assert_eq!(way(&file), Way::ThroughCacheOnly);
    assert!(!rustix::fs::fcntl_getfl(&file.file).unwrap().contains(OFlags::DIRECT));
}

/// Nothing can be written behind the greatest offset, through the cache or past it, and the system says so as it says that a
/// write past the cache is not to its liking.
#[test]
fn a_write_that_is_refused_past_the_cache_is_tried_through_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = create(&folder.path().join("x.blob"));
    let error = file.write_parts(&cut(&pattern(PAGE_BYTES, 1), &[]), 1 << 63).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::INVAL.raw_os_error()));
    assert_eq!(way(&file), Way::ThroughCacheOnly);
    assert!(!rustix::fs::fcntl_getfl(&file.file).unwrap().contains(OFlags::DIRECT));
    let bytes = pattern(PAGE_BYTES + 1, 2);
    assert_eq!(file.write_parts(&cut(&bytes, &[]), 0).unwrap(), bytes.len() as u64, "so is all that follows");
    let mut read = Vec::new();
    DiskFile::read_at(&file, &mut read, bytes.len(), 0).unwrap();
    assert!(read == bytes);
}

#[test]
fn an_error_of_the_disk_is_no_reason_to_write_through_the_cache() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.blob");
    drop(create(&path));
    let file = DirectFile::new(File::open(&path).unwrap(), Arc::default());
    let error = file.write_parts(&cut(&pattern(PAGE_BYTES, 1), &[]), 0).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::BADF.raw_os_error()));
    assert_eq!(way(&file) == Way::PastCache, goes_past_the_cache(folder.path()));
}

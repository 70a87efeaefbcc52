use proptest::prelude::*;

use super::*;

fn block(index: u64, offset: u64, size_bytes: u64) -> Block {
    let copies = vec![pb::ChunkLocation { size_bytes, ..Default::default() }];
    Block { block_id: index.to_string(), index, offset, size_bytes, sha256: Sha256::of(b""), copies }
}

#[test]
fn a_gap_an_overlap_and_a_repeated_block_are_refused() {
    let range = ByteRange { offset: 15, limit: None };
    for second in [block(2, 30, 10), block(2, 19, 11), block(1, 10, 10), block(0, 0, 10)] {
        let mut window = Window::new(range, 100);
        window.part_of(block(1, 10, 10)).unwrap();
        assert!(window.part_of(second.clone()).is_err(), "{second:?}");
    }
    assert!(Window::new(range, 100).part_of(block(0, 0, 15)).is_err(), "it ends where the range begins");
    assert!(Window::new(range, 100).part_of(block(2, 20, 10)).is_err(), "it begins after the range does");
}

#[test]
fn a_range_without_bytes_is_done_at_once() {
    for (offset, limit) in [(0, Some(0)), (7, Some(0)), (10, None), (10, Some(u64::MAX))] {
        assert!(Window::new(ByteRange { offset, limit }, 10).is_done(), "{offset} {limit:?}");
    }
}

#[test]
fn a_block_in_shards_or_with_a_short_copy_is_refused() {
    let replicated = pb::Encoding { kind: Some(pb::encoding::Kind::Replication(pb::Replication { copies: 1 })) };
    let good = pb::BlockLayout {
        size_bytes: 5,
        sha256: Sha256::of(b"").to_string(),
        encoding: Some(replicated),
        chunks: vec![pb::ChunkLocation { size_bytes: 5, ..Default::default() }],
        ..Default::default()
    };
    assert!(Block::try_from(good.clone()).is_ok());
    let shards = pb::Encoding { kind: Some(pb::encoding::Kind::ReedSolomon(pb::ReedSolomon { data: 2, parity: 1 })) };
    assert!(Block::try_from(pb::BlockLayout { encoding: Some(shards), ..good.clone() }).is_err());
    assert!(Block::try_from(pb::BlockLayout { size_bytes: 6, ..good.clone() }).is_err());
    assert!(Block::try_from(pb::BlockLayout { chunks: Vec::new(), ..good.clone() }).is_err());
    assert!(Block::try_from(pb::BlockLayout { offset_bytes: u64::MAX, ..good.clone() }).is_err());
    assert!(Block::try_from(pb::BlockLayout { sha256: String::new(), ..good }).is_err());
}

proptest! {
    #[test]
    fn parts_make_up_exactly_the_range(
        blob_bytes in 0_u64..10_000,
        block_bytes in 1_u64..3_000,
        offset in 0_u64..10_000,
        limit in proptest::option::of(0_u64..12_000),
    ) {
        prop_assume!(offset <= blob_bytes);
        let mut window = Window::new(ByteRange { offset, limit }, blob_bytes);
        let mut expected = offset;
        for index in (offset / block_bytes).. {
            if window.is_done() { break; }
            let at = index * block_bytes;
            let part = window.part_of(block(index, at, block_bytes.min(blob_bytes - at))).unwrap();
            prop_assert_eq!(part.block.offset + part.start, expected);
            prop_assert_eq!(part.output_offset, expected - offset);
            prop_assert!(part.start < part.end && part.end <= part.block.size_bytes);
            prop_assert_eq!(part.whole_sum().is_some(), part.end - part.start == part.block.size_bytes);
            expected = part.block.offset + part.end;
        }
        let end = limit.map_or(blob_bytes, |limit| (offset + limit).min(blob_bytes));
        prop_assert_eq!(expected, end);
    }
}

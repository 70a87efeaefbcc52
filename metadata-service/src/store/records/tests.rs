use std::collections::BTreeMap;
use std::num::NonZeroU64;

use proptest::prelude::*;
use proto::capability::{ChunkBinding, ReadClaims};
use proto::checksum::Sha256;
use proto::entropy::SeededEntropy;
use proto::ids::{BlobId, BlockId, ChunkId, ClusterId, NodeId, TenantId};
use proto::limits;
use proto::rates::Rates;
use proto::token::TokenKeyId;

use super::*;

fn entropy() -> SeededEntropy {
    SeededEntropy::new(1)
}

fn blob() -> BlobRecord {
    let labels = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
    BlobRecord {
        description: Description { display_name: "n".to_owned(), content_type: "text/plain".to_owned(), labels },
        size_bytes: 25,
        sha256: Sha256::of(b"x"),
        start_ms: 1,
        create_ms: 2,
        block_size_bytes: 10,
    }
}

fn block(copies: u32) -> BlockRecord {
    let sums = ReadClaims { size_bytes: u64::MAX, sha256: Sha256::of(b"x"), pieces_sha256: Sha256::of(b"y") };
    let chunk = |_copy| ChunkRecord {
        chunk: ChunkId::generate(1, &entropy()),
        node: NodeId::generate(1, &entropy()),
        epoch: u64::MAX,
        sequence: u64::MAX,
        sums: Some(sums),
    };
    BlockRecord {
        tenant: "posts".parse().ok(),
        blob: BlobId::generate(1, &entropy()),
        index: 3,
        encoding: Encoding::Replicated { copies },
        generation: 1,
        sealed: Some(BlockSums { size_bytes: 10, sha256: Sha256::of(b"x") }),
        chunks: (0..copies).map(chunk).collect(),
    }
}

fn upload() -> UploadRecord {
    UploadRecord {
        state: UploadState::Pending,
        description: blob().description,
        declared_bytes: Some(25),
        block_size_bytes: 10,
        planned_blocks: 3,
        reserved_bytes: 25,
        sealed_blocks: 1,
        sealed_bytes: 10,
        sealed_prefix: 1,
        short_block: None,
        create_ms: 1,
        lease_expire_ms: 2,
        start_epoch: 1,
        end_epoch: None,
    }
}

fn garbage_chunk(node: NodeId, tenant: Option<TenantId>) -> GarbageChunkRecord {
    let binding = ChunkBinding {
        block: BlockId::generate(1, &entropy()),
        blob: BlobId::generate(1, &entropy()),
        shard_index: 1,
        shard_count: 2,
        generation: 3,
        epoch: 4,
        sequence: 5,
        ..ChunkBinding::none()
    };
    GarbageChunkRecord::new(node, tenant, &binding)
}

#[test]
fn a_garbage_chunk_s_row_gives_its_place_back() {
    let (chunk, record) = (ChunkId::generate(1, &entropy()), garbage_chunk(NodeId::NIL, None));
    let binding = record.binding(chunk);
    assert_eq!((binding.chunk, GarbageChunkRecord::new(NodeId::NIL, None, &binding)), (chunk, record));
}

/// Reads as written; no flipped bit, no missing end and no other version is taken.
fn keeps<R: Record + PartialEq + std::fmt::Debug>(record: &R) {
    let bytes = encode(record);
    assert_eq!(decode::<R>(&bytes).as_ref(), Ok(record));
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(decode::<R>(&flipped).is_err(), "{} with bit {bit} flipped", R::NAME);
    }
    for end in 0..bytes.len() {
        assert!(decode::<R>(&bytes[..end]).is_err(), "{} cut at {end}", R::NAME);
    }
    let mut newer = bytes[..bytes.len() - 4].to_vec();
    newer[0] = 2;
    newer.extend_from_slice(&crc32c(&newer).to_be_bytes());
    let refused = decode::<R>(&newer).unwrap_err();
    let said = "has format version 2, but this program knows version 1; use a newer program";
    assert_eq!(refused.to_string(), format!("a {} record {said}", R::NAME));
}

#[test]
fn every_record_reads_as_written_and_no_damaged_one_is_read() {
    let entropy = entropy();
    let key_id = TokenKeyId::generate(&entropy);
    let (node, tenant) = (NodeId::generate(1, &entropy), "posts".parse().unwrap());
    keeps(&blob());
    keeps(&DeletedRecord { blob: blob(), delete_ms: 9, due_ms: None, collecting: false });
    keeps(&DeletedRecord { blob: blob(), delete_ms: 9, due_ms: Some(10), collecting: true });
    keeps(&RetainedRecord {});
    keeps(&NameRecord {});
    keeps(&ExtentRecord { block: BlockId::generate(1, &entropy), size_bytes: 7 });
    keeps(&block(1));
    keeps(&BlockRecord { sealed: None, ..block(3) });
    keeps(&BlockRecord { tenant: None, ..block(1) });
    keeps(&ReverseRecord {
        block: BlockId::generate(1, &entropy),
        blob: BlobId::generate(1, &entropy),
        shard_index: 1,
        generation: 2,
        epoch: 3,
        sequence: 4,
    });
    for state in [UploadState::Pending, UploadState::Aborted, UploadState::Expired] {
        keeps(&UploadRecord { state, ..upload() });
    }
    keeps(&UploadRecord { declared_bytes: None, short_block: Some(0), end_epoch: Some(2), ..upload() });
    keeps(&GarbageRecord { tenant, first_block: 3 });
    for tenant in [None, Some("posts".parse().unwrap())] {
        keeps(&garbage_chunk(node, tenant));
    }
    for damage in [Damage::Corrupt, Damage::Missing, Damage::Unreadable] {
        let (block, blob) = (BlockId::generate(1, &entropy), BlobId::generate(1, &entropy));
        keeps(&DamageRecord { tenant: None, block, blob, damage, detail: "d".to_owned(), find_ms: 5 });
    }
    keeps(&WorkerRecord::default());
    keeps(&WorkerRecord { paused: true, pace_per_second: Some(0), run_count: 3, run_ms: 4 });
    keeps(&UsageRecord { used_bytes: 1, used_blobs: 2, ..UsageRecord::default() });
    keeps(&UsageRecord::default());
    for traffic_class in [TrafficClass::Gold, TrafficClass::Silver, TrafficClass::Bronze] {
        let quota = Quota { max_bytes: Some(0), max_blobs: None, max_blob_bytes: Some(1), max_open_uploads: 0 };
        let tenant = TenantRecord::new(1, quota, traffic_class, key_id);
        let bytes = NonZeroU64::new(u64::MAX);
        let rates = Rates { requests_per_second: NonZeroU64::new(1), read_bytes_per_second: bytes, ..Rates::default() };
        keeps(&TenantRecord { previous_token: Some(key_id), more_tokens: vec![key_id; 14], rates, ..tenant });
    }
    for holder in [
        Holder::Admin,
        Holder::Tenant("posts".parse().unwrap()),
        Holder::Join(None),
        Holder::Join(Some(node)),
        Holder::Node(node),
    ] {
        keeps(&TokenRecord::new(holder, Sha256::of(b"s")));
    }
    keeps(&RequestRecord { fingerprint: Sha256::of(b"f"), object: vec![1, 2], expire_ms: 3 });
    keeps(&NodeRecord {
        endpoint: "http://a".to_owned(),
        failure_domain: "rack".to_owned(),
        create_ms: 1,
        key_id: 2,
        key_since_ms: 3,
        next_key_id: 3,
        retired_keys: vec![RetiredKey { key_id: 1, retire_ms: 3 }],
    });
    let cluster = ClusterId::generate(1, &entropy);
    let ends = [RestoreEnd::Undecided, RestoreEnd::Keep, RestoreEnd::Discard];
    let restores = ends.map(|end| RestoreRecord { import_ms: 2, epoch: 1, sequence: 9, end });
    let key_check = Sha256::of(b"k");
    keeps(&ClusterRecord { cluster, epoch: 1, key_check, create_ms: 1, schema: SCHEMA, restores: restores.to_vec() });
}

#[test]
fn the_largest_records_stay_within_the_bound_of_a_value() {
    let labels: BTreeMap<String, String> =
        (0..limits::LABELS_MAX).map(|n| (format!("{n:02}{}", "k".repeat(30)), "v".repeat(32))).collect();
    assert_eq!(labels.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>(), limits::LABELS_BYTES_MAX);
    let description = Description {
        display_name: "n".repeat(limits::DISPLAY_NAME_BYTES_MAX),
        content_type: "c".repeat(limits::CONTENT_TYPE_BYTES_MAX),
        labels,
    };
    let largest = u64::MAX;
    let upload = UploadRecord {
        description: description.clone(),
        declared_bytes: Some(largest),
        block_size_bytes: largest,
        planned_blocks: largest,
        reserved_bytes: largest,
        sealed_blocks: largest,
        sealed_bytes: largest,
        sealed_prefix: largest,
        short_block: Some(largest),
        create_ms: largest,
        lease_expire_ms: largest,
        start_epoch: largest,
        end_epoch: Some(largest),
        ..upload()
    };
    let blob = BlobRecord {
        description,
        size_bytes: largest,
        start_ms: largest,
        create_ms: largest,
        block_size_bytes: largest,
        ..blob()
    };
    let deleted = DeletedRecord { blob, delete_ms: largest, due_ms: Some(largest), collecting: true };
    for bytes in [encode(&upload), encode(&deleted), encode(&block(20))] {
        assert!(bytes.len() <= limits::RECORD_BYTES_MAX, "{} bytes", bytes.len());
    }
}

#[test]
fn a_block_whose_chunks_do_not_fit_its_encoding_makes_no_sense() {
    let mut lacking = block(2);
    lacking.chunks.pop();
    assert_eq!(decode::<BlockRecord>(&encode(&lacking)).unwrap_err().problem, RecordProblem::Senseless);
}

proptest! {
    #[test]
    fn no_bytes_panic(body in proptest::collection::vec(any::<u8>(), 0..80)) {
        let mut bytes = vec![1];
        bytes.extend_from_slice(&body);
        bytes.extend_from_slice(&crc32c(&bytes).to_be_bytes());
        let read = (decode::<BlobRecord>(&bytes), decode::<BlockRecord>(&bytes), decode::<UploadRecord>(&bytes));
        drop((read, decode::<TenantRecord>(&bytes), decode::<TokenRecord>(&bytes), decode::<ClusterRecord>(&bytes)));
        drop((decode::<ReverseRecord>(&bytes), decode::<GarbageRecord>(&bytes), decode::<RequestRecord>(&body)));
        drop((decode::<DeletedRecord>(&bytes), decode::<GarbageChunkRecord>(&bytes)));
    }
}

//! What the engine holds: keys and records.

use proto::capability::{ChunkBinding, ReadClaims};
use proto::checksum::{Sha256, crc32c};
use proto::entropy::SeededEntropy;
use proto::fuzzing::Choices;
use proto::ids::{BlobId, BlockId, ChunkId, ClusterId, NodeId, TenantId};
use proto::token::TokenKeyId;

use crate::store::engine::KeyRange;
use crate::store::keys;
use crate::store::records::{
    BlobRecord, BlockRecord, BlockSums, ChunkRecord, ClusterRecord, Damage, DamageRecord, DeletedRecord, Description,
    Encoding, ExtentRecord, GarbageChunkRecord, GarbageRecord, Holder, NameRecord, NodeRecord, Quota, Record,
    RequestRecord, RestoreEnd, RestoreRecord, RetainedRecord, RetiredKey, ReverseRecord, Scopes, TenantRecord,
    TokenRecord, TrafficClass, UploadRecord, UploadState, UsageRecord, WorkerRecord, decode, encode,
};

type Check = fn(&[u8]);

/// Every kind of record. New ones go to the end, since a corpus names them by their place.
const RECORDS: [Check; 18] = [
    check::<BlobRecord>,
    check::<DeletedRecord>,
    check::<NameRecord>,
    check::<ExtentRecord>,
    check::<BlockRecord>,
    check::<ReverseRecord>,
    check::<ClusterRecord>,
    check::<NodeRecord>,
    check::<TenantRecord>,
    check::<UsageRecord>,
    check::<TokenRecord>,
    check::<RequestRecord>,
    check::<UploadRecord>,
    check::<GarbageRecord>,
    check::<GarbageChunkRecord>,
    check::<RetainedRecord>,
    check::<DamageRecord>,
    check::<WorkerRecord>,
];

/// What was read is written and read again as the same.
fn check<R: Record>(bytes: &[u8]) {
    let Ok(read) = decode::<R>(bytes) else { return };
    let written = encode(&read);
    let again = decode::<R>(&written).map(|again| encode(&again));
    assert_eq!(again.as_ref(), Ok(&written), "a {} record changed", R::NAME);
}

/// The first byte says which kind of record; if it is at least 128 the others are a whole record, else its body, to which
/// version and sum are put.
pub(super) fn record(input: &[u8]) {
    let mut choices = Choices::new(input);
    let kind = choices.byte();
    let sealed = if kind < 128 { sealed(choices.rest()) } else { choices.rest().to_vec() };
    RECORDS.iter().cycle().skip(usize::from(kind % 128)).take(1).for_each(|check| check(&sealed));
}

/// A record of this body.
pub(super) fn sealed(body: &[u8]) -> Vec<u8> {
    let covered = [&[1], body].concat();
    [covered.as_slice(), &crc32c(&covered).to_be_bytes()].concat()
}

/// A record of each kind as its body, and one whole.
pub(super) fn record_seeds() -> Vec<Vec<u8>> {
    let whole = [
        encode(&blob()),
        encode(&DeletedRecord { blob: blob(), delete_ms: 3, due_ms: Some(4), collecting: true }),
        encode(&NameRecord {}),
        encode(&ExtentRecord { block: block_id(), size_bytes: 10 }),
        encode(&block()),
        encode(&reverse()),
        encode(&cluster()),
        encode(&NodeRecord {
            endpoint: "http://a:1".to_owned(),
            failure_domain: "rack".to_owned(),
            create_ms: 1,
            key_id: 2,
            key_since_ms: 3,
            next_key_id: 3,
            retired_keys: vec![RetiredKey { key_id: 1, retire_ms: 3 }],
        }),
        encode(&tenant()),
        encode(&UsageRecord { used_bytes: 1, used_blobs: 2, ..UsageRecord::default() }),
        encode(&token()),
        encode(&RequestRecord { fingerprint: Sha256::of(b"f"), object: vec![1, 2], expire_ms: 3 }),
        encode(&upload()),
        encode(&GarbageRecord { tenant: tenant_id(), first_block: 3 }),
        encode(&garbage_chunk()),
        encode(&RetainedRecord {}),
        encode(&damage()),
        encode(&WorkerRecord { paused: true, pace_per_second: Some(0), run_count: 3, run_ms: 4 }),
    ];
    let bodies = whole.iter().map(|bytes| bytes.split_last_chunk::<4>().map_or(&[][..], |(body, _crc)| body));
    let mut seeds: Vec<Vec<u8>> =
        (0..).zip(bodies).map(|(kind, body)| [&[kind], body.get(1..).unwrap_or(&[])].concat()).collect();
    seeds.extend(whole.first().map(|bytes| [&[128], bytes.as_slice()].concat()));
    seeds
}

fn entropy() -> SeededEntropy {
    SeededEntropy::new(1)
}

fn blob_id() -> BlobId {
    BlobId::generate(1, &entropy())
}

fn block_id() -> BlockId {
    BlockId::generate(1, &entropy())
}

fn node_id() -> NodeId {
    NodeId::generate(1, &entropy())
}

fn chunk_id() -> ChunkId {
    ChunkId::generate(1, &entropy())
}

fn tenant_id() -> TenantId {
    "posts".parse().expect("a tenant id")
}

fn description() -> Description {
    let labels = [("a".to_owned(), "b".to_owned())].into();
    Description { display_name: "n".to_owned(), content_type: "text/plain".to_owned(), labels }
}

fn blob() -> BlobRecord {
    let description = description();
    BlobRecord {
        description,
        size_bytes: 25,
        sha256: Sha256::of(b"x"),
        start_ms: 1,
        create_ms: 2,
        block_size_bytes: 10,
    }
}

fn block() -> BlockRecord {
    let sums = Some(ReadClaims { size_bytes: 10, sha256: Sha256::of(b"x"), pieces_sha256: Sha256::of(b"y") });
    BlockRecord {
        tenant: "posts".parse().ok(),
        blob: blob_id(),
        index: 3,
        encoding: Encoding::Replicated { copies: 2 },
        generation: 1,
        sealed: Some(BlockSums { size_bytes: 10, sha256: Sha256::of(b"x") }),
        chunks: [sums, None]
            .map(|sums| ChunkRecord { chunk: chunk_id(), node: node_id(), epoch: 1, sequence: 2, sums })
            .into(),
    }
}

fn reverse() -> ReverseRecord {
    ReverseRecord { block: block_id(), blob: blob_id(), shard_index: 1, generation: 2, epoch: 3, sequence: 4 }
}

fn cluster() -> ClusterRecord {
    let restore = RestoreRecord { import_ms: 1, epoch: 2, sequence: 3, end: RestoreEnd::Keep };
    let (cluster, key_check) = (ClusterId::generate(1, &entropy()), Sha256::of(b"k"));
    ClusterRecord { cluster, epoch: 1, key_check, create_ms: 1, schema: 1, restores: vec![restore] }
}

fn garbage_chunk() -> GarbageChunkRecord {
    let binding = ChunkBinding { block: block_id(), blob: blob_id(), shard_count: 1, ..ChunkBinding::none() };
    GarbageChunkRecord::new(node_id(), Some(tenant_id()), &binding)
}

fn damage() -> DamageRecord {
    let (tenant, detail) = (Some(tenant_id()), "piece 3 differs".to_owned());
    DamageRecord { tenant, block: block_id(), blob: blob_id(), damage: Damage::Corrupt, detail, find_ms: 5 }
}

fn tenant() -> TenantRecord {
    let token = TokenKeyId::generate(&entropy());
    let quota = Quota { max_bytes: Some(1), ..Quota::UNLIMITED };
    let traffic_class = TrafficClass::Gold;
    TenantRecord {
        previous_token: Some(token),
        more_tokens: vec![token; 2],
        ..TenantRecord::new(1, quota, traffic_class, token)
    }
}

fn token() -> TokenRecord {
    let successor = Some(TokenKeyId::generate(&entropy()));
    let scopes = Scopes::READ;
    let plain = TokenRecord::new(Holder::Join(Some(node_id())), Sha256::of(b"s"));
    TokenRecord { scopes, create_ms: Some(1), expire_ms: Some(2), successor, ..plain }
}

fn upload() -> UploadRecord {
    UploadRecord {
        state: UploadState::Pending,
        description: description(),
        declared_bytes: Some(25),
        block_size_bytes: 10,
        planned_blocks: 3,
        reserved_bytes: 25,
        sealed_blocks: 1,
        sealed_bytes: 10,
        sealed_prefix: 1,
        short_block: Some(2),
        create_ms: 1,
        lease_expire_ms: 2,
        start_epoch: 1,
        end_epoch: Some(2),
    }
}

/// With an even first byte the others are a key; with an odd one they are two display names, divided by a line feed.
pub(super) fn key(input: &[u8]) {
    let mut choices = Choices::new(input);
    if choices.byte().is_multiple_of(2) { parse_key(choices.rest()) } else { compare_names(choices.rest()) }
}

fn remakes(made: Option<Vec<u8>>, key: &[u8]) {
    assert!(made.is_none_or(|made| made == key), "what was read from a key makes another one");
}

/// What is read from a key makes the same key.
fn parse_key(key: &[u8]) {
    remakes(keys::tenant_of(key).map(|tenant| keys::tenant(&tenant)), key);
    remakes(keys::token_of(key).map(keys::token), key);
    remakes(keys::usage_of(key).map(|tenant| keys::usage(&tenant)), key);
    remakes(keys::upload_of(key).map(|(tenant, blob)| keys::upload(&tenant, blob)), key);
    remakes(keys::node_of(key).map(keys::node), key);
    remakes(keys::block_of(key).map(keys::block), key);
    remakes(keys::extent_of(key).map(|(blob, index)| keys::extent(blob, index)), key);
    remakes(keys::reverse_of(key).map(|(node, chunk)| keys::reverse(node, chunk)), key);
    remakes(keys::damage_of(key).map(|(node, chunk)| keys::damage(node, chunk)), key);
    remakes(keys::worker_of(key).map(keys::worker), key);
    remakes(keys::retained_of(key).map(|(tenant, delete_ms, blob)| keys::retained(&tenant, delete_ms, blob)), key);
    let garbage = keys::garbage_of(key).map(|(not_before_ms, garbage)| match garbage {
        keys::Garbage::Blocks(kind, blob) => keys::garbage(not_before_ms, kind, blob),
        keys::Garbage::Chunk(chunk) => keys::garbage_chunk(not_before_ms, chunk),
    });
    remakes(garbage, key);
    if let Some((tenant, blob)) = keys::name_of(key) {
        let end = keys::name(&tenant, "", blob);
        let end = end.strip_prefix(keys::names(&tenant).as_slice()).unwrap_or(&end);
        assert!(key.starts_with(&keys::names(&tenant)) && key.ends_with(end), "no name has such a key");
    }
    // These take a key of any layer; only its end counts.
    assert!(keys::blob_of(key).is_none_or(|blob| key.ends_with(blob.as_bytes())));
    assert!(keys::extent_index(key).is_none_or(|index| key.ends_with(&index.to_be_bytes())));
}

/// The name index sorts as the names do, and a prefix of it holds the names that begin with it.
fn compare_names(names: &[u8]) {
    let Some((a, b)) = std::str::from_utf8(names).ok().and_then(|text| text.split_once('\n')) else { return };
    let (key_a, key_b) = (keys::name(&tenant_id(), a, blob_id()), keys::name(&tenant_id(), b, blob_id()));
    assert_eq!(key_a.cmp(&key_b), a.as_bytes().cmp(b.as_bytes()));
    let below_b = KeyRange::prefix(&keys::names_with_prefix(&tenant_id(), b));
    assert_eq!(below_b.contains(&key_a), a.starts_with(b));
}

/// Keys of several layers, and names of which one begins with the other.
pub(super) fn key_seeds() -> Vec<Vec<u8>> {
    let tenant = tenant_id();
    let keys = [
        keys::tenant(&tenant),
        keys::upload(&tenant, blob_id()),
        keys::node(node_id()),
        keys::extent(blob_id(), 7),
        keys::name(&tenant, "a\0b", blob_id()),
        keys::usage(&tenant),
        keys::block(block_id()),
        keys::reverse(node_id(), chunk_id()),
        keys::garbage(1, keys::GarbageKind::Blob, blob_id()),
        keys::garbage_chunk(1, chunk_id()),
        keys::retained(&tenant, 3, blob_id()),
        keys::damage(node_id(), chunk_id()),
        keys::worker("scrub"),
    ];
    keys.iter().map(|key| [&[0], key.as_slice()].concat()).chain([b"\x01a\0b\na".to_vec()]).collect()
}

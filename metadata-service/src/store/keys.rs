//! Keys: one prefix per layer, one row per thing, so that nothing is ever a list inside a value.
//!
//! | layer | key |
//! |---|---|
//! | cluster | `cluster/` |
//! | tenants | `tenant/` tenant |
//! | tokens | `token/` key id |
//! | usage | `usage/` tenant |
//! | blobs, deleted blobs | `blob/` tenant `/` blob · `deleted/` tenant `/` blob |
//! | deleted blobs by age | `retained/` tenant `/` time of deletion, blob |
//! | extents | `extent/` blob, block index |
//! | blocks | `block/` block |
//! | reverse | `node/` node, chunk |
//! | uploads | `upload/` tenant `/` blob |
//! | garbage | `gc/` not before, kind, blob · `gc/` not before, 4, chunk |
//! | requests | `request/` scope `/` request id |
//! | name index | `name/` tenant `/` escaped display name, blob |
//! | registry | `nodes/` node |
//! | background work | `worker/` name |
//! | damage | `damage/` node, chunk |
//!
//! Ids are their 16 (token key ids: 8) bytes, integers eight bytes big-endian, so the order of the keys is the order of
//! what they name. A tenant id holds no `/`, so no tenant's prefix is the beginning of another's.

use proto::ids::{BlobId, BlockId, ChunkId, NodeId, TenantId};
use proto::token::TokenKeyId;

use super::engine::KeyRange;

/// All tenants.
pub const TENANTS: &[u8] = b"tenant/";
/// All tokens of all kinds.
pub const TOKENS: &[u8] = b"token/";
/// All usage rows.
pub const USAGES: &[u8] = b"usage/";
/// All committed blobs of all tenants.
pub const BLOBS: &[u8] = b"blob/";
/// All deleted blobs of all tenants that have not been collected.
pub const DELETED: &[u8] = b"deleted/";
/// All deleted blobs of all tenants, each tenant's in the order of deletion.
pub const RETAINED: &[u8] = b"retained/";
/// All extents of all blobs.
pub const EXTENTS: &[u8] = b"extent/";
/// All blocks.
pub const BLOCKS: &[u8] = b"block/";
/// All chunks of all nodes.
pub const REVERSE: &[u8] = b"node/";
/// The name index of all tenants.
pub const NAMES: &[u8] = b"name/";
/// All uploads of all tenants.
pub const UPLOADS: &[u8] = b"upload/";
/// All remembered requests.
pub const REQUESTS: &[u8] = b"request/";
/// All garbage, what is due first.
pub const GARBAGE: &[u8] = b"gc/";
/// All registered nodes.
pub const NODES: &[u8] = b"nodes/";
/// How all background work is to run.
pub const WORKERS: &[u8] = b"worker/";
/// All chunks that were found missing or damaged.
pub const DAMAGE: &[u8] = b"damage/";

fn join(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

/// The one row about the cluster itself.
pub fn cluster() -> Vec<u8> {
    b"cluster/".to_vec()
}

/// A tenant.
pub fn tenant(tenant: &TenantId) -> Vec<u8> {
    join(&[TENANTS, tenant.as_str().as_bytes()])
}

/// A token of any kind.
pub fn token(key_id: TokenKeyId) -> Vec<u8> {
    join(&[TOKENS, key_id.as_bytes()])
}

/// What a tenant holds.
pub fn usage(tenant: &TenantId) -> Vec<u8> {
    join(&[USAGES, tenant.as_str().as_bytes()])
}

/// A tenant's committed blobs, in the order of their ids.
pub fn blobs(tenant: &TenantId) -> Vec<u8> {
    join(&[BLOBS, tenant.as_str().as_bytes(), b"/"])
}

/// A committed blob.
pub fn blob(tenant: &TenantId, blob: BlobId) -> Vec<u8> {
    join(&[&blobs(tenant), blob.as_bytes()])
}

/// A tenant's deleted blobs that have not been collected.
pub fn deleted_blobs(tenant: &TenantId) -> Vec<u8> {
    join(&[DELETED, tenant.as_str().as_bytes(), b"/"])
}

/// A deleted blob that has not been collected.
pub fn deleted(tenant: &TenantId, blob: BlobId) -> Vec<u8> {
    join(&[&deleted_blobs(tenant), blob.as_bytes()])
}

/// A tenant's deleted blobs that have not been collected, the one deleted first first.
pub fn retained_blobs(tenant: &TenantId) -> Vec<u8> {
    join(&[RETAINED, tenant.as_str().as_bytes(), b"/"])
}

/// A deleted blob in the order of deletion.
pub fn retained(tenant: &TenantId, delete_ms: u64, blob: BlobId) -> Vec<u8> {
    join(&[&retained_blobs(tenant), &delete_ms.to_be_bytes(), blob.as_bytes()])
}

/// A blob's blocks, in order.
pub fn extents(blob: BlobId) -> Vec<u8> {
    join(&[EXTENTS, blob.as_bytes()])
}

/// Which block is at an index of a blob.
pub fn extent(blob: BlobId, index: u64) -> Vec<u8> {
    join(&[&extents(blob), &index.to_be_bytes()])
}

/// The extents of a blob from an index on.
pub fn extents_from(blob: BlobId, index: u64) -> KeyRange {
    KeyRange { start: extent(blob, index), end: KeyRange::prefix(&extents(blob)).end }
}

/// A block.
pub fn block(block: BlockId) -> Vec<u8> {
    join(&[BLOCKS, block.as_bytes()])
}

/// A node's chunks, in the order of their ids.
pub fn node_chunks(node: NodeId) -> Vec<u8> {
    join(&[REVERSE, node.as_bytes()])
}

/// A node's chunk.
pub fn reverse(node: NodeId, chunk: ChunkId) -> Vec<u8> {
    join(&[REVERSE, node.as_bytes(), chunk.as_bytes()])
}

/// A tenant's uploads.
pub fn uploads(tenant: &TenantId) -> Vec<u8> {
    join(&[UPLOADS, tenant.as_str().as_bytes(), b"/"])
}

/// An upload that has not become a blob.
pub fn upload(tenant: &TenantId, blob: BlobId) -> Vec<u8> {
    join(&[&uploads(tenant), blob.as_bytes()])
}

/// Why a blob's blocks are garbage; part of the row's key, so that one blob can have rows of several kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GarbageKind {
    /// An upload that ended without a blob.
    Upload,
    /// A deleted blob.
    Blob,
    /// Blocks that were planned behind a blob's end.
    Surplus,
}

/// In a key in place of a [`GarbageKind`]: the row is about one chunk.
const CHUNK_KIND: u8 = 4;

impl GarbageKind {
    fn byte(self) -> u8 {
        match self {
            Self::Upload => 1,
            Self::Blob => 2,
            Self::Surplus => 3,
        }
    }

    fn of_byte(byte: u8) -> Option<Self> {
        [Self::Upload, Self::Blob, Self::Surplus].into_iter().find(|kind| kind.byte() == byte)
    }
}

/// What a garbage row is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Garbage {
    /// Blocks of a blob or upload, to be taken apart into chunks.
    Blocks(GarbageKind, BlobId),
    /// One chunk, to be deleted at its node.
    Chunk(ChunkId),
}

/// Something to collect, not before a moment.
pub fn garbage(not_before_ms: u64, kind: GarbageKind, blob: BlobId) -> Vec<u8> {
    join(&[GARBAGE, &not_before_ms.to_be_bytes(), &[kind.byte()], blob.as_bytes()])
}

/// A chunk to delete, not before a moment.
pub fn garbage_chunk(not_before_ms: u64, chunk: ChunkId) -> Vec<u8> {
    join(&[GARBAGE, &not_before_ms.to_be_bytes(), &[CHUNK_KIND], chunk.as_bytes()])
}

/// All garbage that may be collected at this moment.
pub fn garbage_due(now_ms: u64) -> KeyRange {
    let mut range = KeyRange::prefix(GARBAGE);
    if let Some(next_ms) = now_ms.checked_add(1) {
        range.end = Some(join(&[GARBAGE, &next_ms.to_be_bytes()]));
    }
    range
}

/// From when on a garbage row may be collected, and what it is about.
pub fn garbage_of(key: &[u8]) -> Option<(u64, Garbage)> {
    let (not_before_ms, rest) = key.strip_prefix(GARBAGE)?.split_first_chunk::<8>()?;
    let (kind, id) = rest.split_first()?;
    let garbage = match GarbageKind::of_byte(*kind) {
        Some(kind) => Garbage::Blocks(kind, BlobId::try_from(id).ok()?),
        None if *kind == CHUNK_KIND => Garbage::Chunk(ChunkId::try_from(id).ok()?),
        None => return None,
    };
    Some((u64::from_be_bytes(*not_before_ms), garbage))
}

/// Who asked: the admin's and each tenant's request ids are apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestScope {
    /// The admin.
    Admin,
    /// A tenant.
    Tenant(TenantId),
}

/// A remembered request.
pub fn request(scope: &RequestScope, request_id: &str) -> Vec<u8> {
    // No tenant id is empty, so the admin's scope is nobody else's.
    let scope = match scope {
        RequestScope::Admin => "",
        RequestScope::Tenant(_) if seeded!(RequestsShared) => "everybody",
        RequestScope::Tenant(tenant) => tenant.as_str(),
    };
    join(&[REQUESTS, scope.as_bytes(), b"/", request_id.as_bytes()])
}

/// The requests that a tenant made and that are remembered.
pub fn requests(tenant: &TenantId) -> Vec<u8> {
    request(&RequestScope::Tenant(tenant.clone()), "")
}

/// A registered node.
pub fn node(node: NodeId) -> Vec<u8> {
    join(&[NODES, node.as_bytes()])
}

/// How one kind of background work is to run.
pub fn worker(name: &str) -> Vec<u8> {
    join(&[WORKERS, name.as_bytes()])
}

const ESCAPE: u8 = 0xff;
const NAME_END: [u8; 2] = [0, 1];

/// A chunk of a node that was found missing or damaged.
pub fn damage(node: NodeId, chunk: ChunkId) -> Vec<u8> {
    join(&[DAMAGE, node.as_bytes(), chunk.as_bytes()])
}

/// A tenant's name index.
pub fn names(tenant: &TenantId) -> Vec<u8> {
    join(&[NAMES, tenant.as_str().as_bytes(), b"/"])
}

/// The part of the name index whose display names begin with `prefix`.
pub fn names_with_prefix(tenant: &TenantId, prefix: &str) -> Vec<u8> {
    join(&[&names(tenant), &escape(prefix)])
}

/// A blob in the name index.
pub fn name(tenant: &TenantId, display_name: &str, blob: BlobId) -> Vec<u8> {
    join(&[&names(tenant), &escape(display_name), &NAME_END, blob.as_bytes()])
}

/// Every 0 becomes 0, 255; the end is 0, 1. So a name sorts before every longer one that begins with it, and the id
/// behind the end takes no part in the order of names.
fn escape(name: &str) -> Vec<u8> {
    let mut escaped = Vec::with_capacity(name.len() + NAME_END.len());
    for byte in name.bytes() {
        escaped.push(byte);
        if byte == 0 {
            escaped.push(ESCAPE);
        }
    }
    escaped
}

/// The id that a key ends with; `None` for a key that is too short for one.
fn last_id(key: &[u8]) -> Option<&[u8]> {
    key.last_chunk::<16>().map(<[u8; 16]>::as_slice)
}

/// The blob of a key of [`blob`], [`deleted`], [`retained`], [`upload`] or [`name`].
pub fn blob_of(key: &[u8]) -> Option<BlobId> {
    BlobId::try_from(last_id(key)?).ok()
}

/// Tenant, time of deletion and blob of a key of [`retained`].
pub fn retained_of(key: &[u8]) -> Option<(TenantId, u64, BlobId)> {
    let (rest, id) = key.strip_prefix(RETAINED)?.split_last_chunk::<16>()?;
    let (tenant, delete_ms) = rest.split_last_chunk::<8>()?;
    let tenant = std::str::from_utf8(tenant.strip_suffix(b"/")?).ok()?.parse().ok()?;
    Some((tenant, u64::from_be_bytes(*delete_ms), BlobId::try_from(id.as_slice()).ok()?))
}

/// The node of a key of [`node`].
pub fn node_of(key: &[u8]) -> Option<NodeId> {
    NodeId::try_from(key.strip_prefix(NODES)?).ok()
}

/// The name of a key of [`worker`].
pub fn worker_of(key: &[u8]) -> Option<&str> {
    std::str::from_utf8(key.strip_prefix(WORKERS)?).ok()
}

/// The tenant of a key of [`tenant`].
pub fn tenant_of(key: &[u8]) -> Option<TenantId> {
    std::str::from_utf8(key.strip_prefix(TENANTS)?).ok()?.parse().ok()
}

/// The key id of a key of [`token`].
pub fn token_of(key: &[u8]) -> Option<TokenKeyId> {
    TokenKeyId::try_from(key.strip_prefix(TOKENS)?).ok()
}

/// The tenant of a key of a layer whose keys are `layer/tenant/...`.
pub fn tenant_in(layer: &[u8], key: &[u8]) -> Option<TenantId> {
    let tenant = key.strip_prefix(layer)?.split(|byte| *byte == b'/').next()?;
    std::str::from_utf8(tenant).ok()?.parse().ok()
}

/// Tenant and blob of a key of [`upload`].
pub fn upload_of(key: &[u8]) -> Option<(TenantId, BlobId)> {
    let (tenant, id) = key.strip_prefix(UPLOADS)?.split_last_chunk::<16>()?;
    let tenant = std::str::from_utf8(tenant.strip_suffix(b"/")?).ok()?.parse().ok()?;
    Some((tenant, BlobId::try_from(id.as_slice()).ok()?))
}

/// The tenant of a key of [`usage`].
pub fn usage_of(key: &[u8]) -> Option<TenantId> {
    std::str::from_utf8(key.strip_prefix(USAGES)?).ok()?.parse().ok()
}

/// Blob and block index of a key of [`extent`].
pub fn extent_of(key: &[u8]) -> Option<(BlobId, u64)> {
    let (blob, index) = key.strip_prefix(EXTENTS)?.split_last_chunk::<8>()?;
    Some((BlobId::try_from(blob).ok()?, u64::from_be_bytes(*index)))
}

/// The block of a key of [`block`].
pub fn block_of(key: &[u8]) -> Option<BlockId> {
    BlockId::try_from(key.strip_prefix(BLOCKS)?).ok()
}

/// Node and chunk of a key of [`reverse`].
pub fn reverse_of(key: &[u8]) -> Option<(NodeId, ChunkId)> {
    let (node, chunk) = key.strip_prefix(REVERSE)?.split_first_chunk::<16>()?;
    Some((NodeId::try_from(node.as_slice()).ok()?, ChunkId::try_from(chunk).ok()?))
}

/// Node and chunk of a key of [`damage`].
pub fn damage_of(key: &[u8]) -> Option<(NodeId, ChunkId)> {
    let (node, chunk) = key.strip_prefix(DAMAGE)?.split_first_chunk::<16>()?;
    Some((NodeId::try_from(node.as_slice()).ok()?, ChunkId::try_from(chunk).ok()?))
}

/// Tenant and blob of a key of [`name`].
pub fn name_of(key: &[u8]) -> Option<(TenantId, BlobId)> {
    let key = key.strip_prefix(NAMES)?;
    let slash = key.iter().position(|byte| *byte == b'/')?;
    let (tenant, entry) = key.split_at_checked(slash)?;
    let tenant = std::str::from_utf8(tenant).ok()?.parse().ok()?;
    let (name, id) = entry.strip_prefix(b"/")?.split_last_chunk::<16>()?;
    if name.ends_with(&NAME_END) { Some((tenant, BlobId::try_from(id.as_slice()).ok()?)) } else { None }
}

/// The block index of a key of [`extent`].
pub fn extent_index(key: &[u8]) -> Option<u64> {
    key.last_chunk::<8>().map(|index| u64::from_be_bytes(*index))
}

#[cfg(test)]
mod tests;

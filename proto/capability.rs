//! Capabilities: the metadata service permits one operation on one chunk at one node, for a while (I10).
//!
//! On the wire a capability is the base64url text (no padding) of an encoded
//! [`CapabilityBody`](pb::CapabilityBody) followed by 32 bytes of HMAC-SHA256 under the node's key. It is checked in
//! memory before any disk work; the sum first, so nothing unsigned is ever parsed.
//!
//! Whoever holds a capability can read it, and a tenant holds its own. So all that it says is that tenant's own business,
//! but for the metadata's sequence, which counts everybody's commits and which the node writes into the checksum file:
//! that is masked. The mask is a keyed sum of the nonce and the chunk; should a nonce ever come twice for a chunk, the
//! sequence behind it is the same one.

use std::num::NonZeroU64;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use prost::Message as _;

use crate::checksum::Sha256;
use crate::ids::{BlobId, BlockId, ChunkId, ClusterId, NodeId, TenantId};
use crate::pb;
use crate::rates::Pace;
use crate::secret::{SECRET_BYTES, SecretKey};
use crate::traffic::TrafficClass;

pub(crate) const LABEL: &str = "mini-tectonic capability v1";
const MASK_LABEL: &str = "mini-tectonic capability sequence v1";
/// A node that does not know of the mask would write down that the chunk was planned before everything.
const VERSION: u32 = 2;
/// The sequence is there for all to read. Services of that version may still be running, and capabilities of theirs be good.
const VERSION_PLAIN: u32 = 1;
/// Longest text that is looked at; real ones have about 400 bytes.
const TEXT_BYTES_MAX: usize = 1024;

/// A key shared by the metadata service and one node, and the number that names it.
#[derive(Debug, Clone)]
pub struct NodeKey {
    /// Names the key within capabilities and receipts.
    pub key_id: u32,
    /// The key.
    pub secret: SecretKey,
}

impl NodeKey {
    /// The key of a node, derived from the cluster secret: one compromised node can forge only for itself.
    pub fn derive(cluster_secret: &SecretKey, node: NodeId, key_id: u32) -> Self {
        let parts: [&[u8]; 2] = [node.as_bytes(), &key_id.to_be_bytes()];
        Self { key_id, secret: cluster_secret.derive("mini-tectonic node key v1", &parts) }
    }
}

/// What a read capability says of the bytes, so that a node can serve them without asking anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadClaims {
    /// The chunk's size.
    pub size_bytes: u64,
    /// The chunk's SHA-256.
    pub sha256: Sha256,
    /// See [`pieces_sha256`](crate::checksum::pieces_sha256).
    pub pieces_sha256: Sha256,
}

/// The one operation that is permitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permit {
    /// WriteChunk and QueryWriteStatus, up to so many bytes.
    Write {
        /// Most bytes that are taken.
        max_bytes: u64,
    },
    /// ReadChunk and GetChunk of exactly these bytes.
    Read(ReadClaims),
    /// DeleteChunk.
    Delete,
    /// VerifyChunk of exactly these bytes.
    Verify(ReadClaims),
    /// ListChunks; the binding is [`ChunkBinding::none`].
    List,
}

/// Which chunk, and its place in a block; also what the first lines of a checksum file say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkBinding {
    /// The chunk.
    pub chunk: ChunkId,
    /// Its block.
    pub block: BlockId,
    /// The blob or upload.
    pub blob: BlobId,
    /// Which shard, from 0.
    pub shard_index: u32,
    /// Number of shards or copies.
    pub shard_count: u32,
    /// The block's generation.
    pub generation: u64,
    /// The metadata's epoch at planning.
    pub epoch: u64,
    /// The metadata's sequence at planning.
    pub sequence: u64,
}

impl ChunkBinding {
    /// The binding of what concerns a node and none of its chunks.
    pub fn none() -> Self {
        Self {
            chunk: ChunkId::NIL,
            block: BlockId::NIL,
            blob: BlobId::NIL,
            shard_index: 0,
            shard_count: 0,
            generation: 0,
            epoch: 0,
            sequence: 0,
        }
    }
}

/// A capability that has been checked, or is about to be signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capability {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node that may act on it.
    pub node: NodeId,
    /// The tenant on whose behalf; `None` for the metadata service's own work, which never writes.
    pub tenant: Option<TenantId>,
    /// How urgent the call is. The metadata service's own work is bronze whatever is said here.
    pub class: TrafficClass,
    /// How fast the tenant may go at the node.
    pub pace: Pace,
    /// What is permitted.
    pub permit: Permit,
    /// On which chunk.
    pub binding: ChunkBinding,
    /// First moment of validity, milliseconds since 1970.
    pub not_before_ms: u64,
    /// Last moment of validity, milliseconds since 1970.
    pub expire_ms: u64,
}

/// Why a capability is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CapabilityError {
    /// Wrong in any way that a stranger must not learn more about.
    #[error("the capability is not valid here")]
    Invalid,
    /// Correct, but too old.
    #[error("the capability has expired; ask the metadata service for a fresh one")]
    Expired,
}

/// Signs a capability; `nonce` makes two of them differ.
pub fn sign(capability: &Capability, key: &NodeKey, nonce: [u8; 8]) -> String {
    let mut signed = body(capability, key, nonce).encode_to_vec();
    let sum = key.secret.sum(LABEL, &[&signed]);
    signed.extend_from_slice(&sum);
    URL_SAFE_NO_PAD.encode(signed)
}

fn body(capability: &Capability, key: &NodeKey, nonce: [u8; 8]) -> pb::CapabilityBody {
    let Capability { cluster, node, tenant, class, pace, permit, binding, not_before_ms, expire_ms } = capability;
    let (operation, max_bytes, read) = match permit {
        Permit::Write { max_bytes } => (pb::Operation::Write, *max_bytes, None),
        Permit::Read(read) => (pb::Operation::Read, 0, Some(read)),
        Permit::Delete => (pb::Operation::Delete, 0, None),
        Permit::Verify(read) => (pb::Operation::Verify, 0, Some(read)),
        Permit::List => (pb::Operation::List, 0, None),
    };
    let digest = |digest: Option<&Sha256>| digest.map_or_else(Bytes::new, |d| Bytes::copy_from_slice(d.as_bytes()));
    pb::CapabilityBody {
        version: VERSION,
        key_id: key.key_id,
        cluster_id: Bytes::copy_from_slice(cluster.as_bytes()),
        node_id: Bytes::copy_from_slice(node.as_bytes()),
        operation: operation.into(),
        tenant_id: tenant.as_ref().map(ToString::to_string).unwrap_or_default(),
        chunk_id: Bytes::copy_from_slice(binding.chunk.as_bytes()),
        block_id: Bytes::copy_from_slice(binding.block.as_bytes()),
        blob_id: Bytes::copy_from_slice(binding.blob.as_bytes()),
        shard_index: binding.shard_index,
        shard_count: binding.shard_count,
        generation: binding.generation,
        epoch: binding.epoch,
        sequence: 0,
        max_bytes,
        size_bytes: read.map_or(0, |read| read.size_bytes),
        sha256: digest(read.map(|read| &read.sha256)),
        pieces_sha256: digest(read.map(|read| &read.pieces_sha256)),
        not_before_ms: *not_before_ms,
        expire_ms: *expire_ms,
        nonce: Bytes::copy_from_slice(&nonce),
        traffic_class: pb::TrafficClass::from(*class).into(),
        requests_per_second: pace.requests_per_second.map_or(0, NonZeroU64::get),
        bytes_per_second: pace.bytes_per_second.map_or(0, NonZeroU64::get),
        masked_sequence: binding.sequence ^ mask(key, &nonce, binding.chunk.as_bytes()),
    }
}

fn mask(key: &NodeKey, nonce: &[u8], chunk: &[u8]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = key.secret.sum(MASK_LABEL, &[nonce, chunk]);
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// Checks the signature, that the capability is for this cluster and node, and that `now_ms` lies within its time, give
/// or take `tolerance_ms`. Whether it permits the call at hand is the caller's question: see [`Capability::permit`].
///
/// # Errors
/// [`CapabilityError::Expired`] when only its time is over, else [`CapabilityError::Invalid`].
pub fn verify(
    text: &str,
    keys: &[NodeKey],
    cluster: ClusterId,
    node: NodeId,
    now_ms: u64,
    tolerance_ms: u64,
) -> Result<Capability, CapabilityError> {
    let body = verified_body(text, keys)?;
    let capability = parse(&body).ok_or(CapabilityError::Invalid)?;
    if capability.cluster != cluster || capability.node != node {
        return Err(CapabilityError::Invalid);
    }
    if now_ms.saturating_add(tolerance_ms) < capability.not_before_ms {
        return Err(CapabilityError::Invalid);
    }
    if now_ms > capability.expire_ms.saturating_add(tolerance_ms) {
        return Err(CapabilityError::Expired);
    }
    Ok(capability)
}

/// When a capability's text says that it ends, without any check: for clients that renew in time.
pub fn expire_ms_unverified(text: &str) -> Option<u64> {
    let signed = URL_SAFE_NO_PAD.decode(text).ok()?;
    let (encoded, _sum) = signed.split_at_checked(signed.len().checked_sub(SECRET_BYTES)?)?;
    pb::CapabilityBody::decode(encoded).ok().map(|body| body.expire_ms)
}

/// The body as the node may know it, its sequence too.
fn verified_body(text: &str, keys: &[NodeKey]) -> Result<pb::CapabilityBody, CapabilityError> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(CapabilityError::Invalid);
    }
    let signed = URL_SAFE_NO_PAD.decode(text).map_err(|_malformed| CapabilityError::Invalid)?;
    let split = signed.len().checked_sub(SECRET_BYTES).ok_or(CapabilityError::Invalid)?;
    let (encoded, sum) = signed.split_at_checked(split).ok_or(CapabilityError::Invalid)?;
    let key = keys.iter().find(|key| key.secret.verifies(LABEL, &[encoded], sum)).ok_or(CapabilityError::Invalid)?;
    let body = pb::CapabilityBody::decode(encoded).map_err(|_malformed| CapabilityError::Invalid)?;
    let sequence = match body.version {
        VERSION => body.masked_sequence ^ mask(key, &body.nonce, &body.chunk_id),
        VERSION_PLAIN => body.sequence,
        _ => return Err(CapabilityError::Invalid),
    };
    if body.key_id == key.key_id { Ok(pb::CapabilityBody { sequence, ..body }) } else { Err(CapabilityError::Invalid) }
}

fn parse(body: &pb::CapabilityBody) -> Option<Capability> {
    let permit = match body.operation() {
        pb::Operation::Write => Permit::Write { max_bytes: body.max_bytes },
        pb::Operation::Read => Permit::Read(claims(body)?),
        pb::Operation::Delete => Permit::Delete,
        pb::Operation::Verify => Permit::Verify(claims(body)?),
        pb::Operation::List => Permit::List,
        pb::Operation::Unspecified => return None,
    };
    let tenant = if body.tenant_id.is_empty() { None } else { Some(body.tenant_id.parse().ok()?) };
    if tenant.is_none() && matches!(permit, Permit::Write { .. }) {
        return None;
    }
    // Capabilities of an earlier version say nothing of it.
    let said = TrafficClass::from_wire(body.traffic_class).ok()?.unwrap_or_default();
    let class = if tenant.is_some() { said } else { TrafficClass::Bronze };
    Some(Capability {
        cluster: ClusterId::try_from(body.cluster_id.as_ref()).ok()?,
        node: NodeId::try_from(body.node_id.as_ref()).ok()?,
        tenant,
        class,
        pace: Pace {
            requests_per_second: NonZeroU64::new(body.requests_per_second),
            bytes_per_second: NonZeroU64::new(body.bytes_per_second),
        },
        permit,
        binding: ChunkBinding {
            chunk: ChunkId::try_from(body.chunk_id.as_ref()).ok()?,
            block: BlockId::try_from(body.block_id.as_ref()).ok()?,
            blob: BlobId::try_from(body.blob_id.as_ref()).ok()?,
            shard_index: body.shard_index,
            shard_count: body.shard_count,
            generation: body.generation,
            epoch: body.epoch,
            sequence: body.sequence,
        },
        not_before_ms: body.not_before_ms,
        expire_ms: body.expire_ms,
    })
}

fn claims(body: &pb::CapabilityBody) -> Option<ReadClaims> {
    Some(ReadClaims {
        size_bytes: body.size_bytes,
        sha256: Sha256::try_from(body.sha256.as_ref()).ok()?,
        pieces_sha256: Sha256::try_from(body.pieces_sha256.as_ref()).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::entropy::SeededEntropy;

    fn example(permit: Permit) -> (Capability, NodeKey) {
        let entropy = SeededEntropy::new(3);
        let node = NodeId::generate(1, &entropy);
        let key = NodeKey::derive(&SecretKey::generate(&entropy), node, 1);
        let binding = ChunkBinding {
            chunk: ChunkId::generate(1, &entropy),
            block: BlockId::generate(1, &entropy),
            blob: BlobId::generate(1, &entropy),
            shard_index: 0,
            shard_count: 1,
            generation: 1,
            epoch: 1,
            sequence: 42,
        };
        let cluster = ClusterId::generate(1, &entropy);
        let tenant = Some("posts".parse().unwrap());
        let class = TrafficClass::Gold;
        let pace = Pace { requests_per_second: NonZeroU64::new(7), bytes_per_second: NonZeroU64::new(u64::MAX) };
        (
            Capability { cluster, node, tenant, class, pace, permit, binding, not_before_ms: 1_000, expire_ms: 2_000 },
            key,
        )
    }

    fn check(text: &str, capability: &Capability, key: &NodeKey, now_ms: u64) -> Result<Capability, CapabilityError> {
        verify(text, std::slice::from_ref(key), capability.cluster, capability.node, now_ms, 30)
    }

    #[test]
    fn what_was_signed_is_what_is_read_for_every_operation() {
        let read = ReadClaims { size_bytes: 11, sha256: Sha256::of(b"a"), pieces_sha256: Sha256::of(b"b") };
        let write = Permit::Write { max_bytes: 7 };
        for permit in [write, Permit::Read(read), Permit::Delete, Permit::Verify(read), Permit::List] {
            let (capability, key) = example(permit);
            let text = sign(&capability, &key, [9; 8]);
            assert_eq!(check(&text, &capability, &key, 1_500), Ok(capability.clone()));
            assert_eq!(expire_ms_unverified(&text), Some(2_000));
        }
    }

    /// A tenant read the cluster's sequence in its capabilities: from two of them it knew how much all others had written in
    /// between.
    #[test]
    fn whoever_holds_capabilities_cannot_tell_from_them_what_others_do() {
        let (capability, key) = example(Permit::Write { max_bytes: 7 });
        let held = |sequence, nonce| {
            let binding = ChunkBinding { sequence, ..capability.binding };
            let text = sign(&Capability { binding, ..capability.clone() }, &key, nonce);
            assert_eq!(check(&text, &capability, &key, 1_500).unwrap().binding.sequence, sequence, "the node can");
            let signed = URL_SAFE_NO_PAD.decode(text).unwrap();
            pb::CapabilityBody::decode(&signed[..signed.len() - SECRET_BYTES]).unwrap()
        };
        let (first, second, same) = (held(42, [1; 8]), held(43, [2; 8]), held(42, [2; 8]));
        for body in [&first, &second, &same] {
            assert_eq!(body.sequence, 0);
            assert!(body.masked_sequence.leading_zeros() < 32, "{:x}", body.masked_sequence);
        }
        assert_ne!(first.masked_sequence, same.masked_sequence, "the same sequence looks the same");
        assert_ne!(first.masked_sequence ^ second.masked_sequence, 42 ^ 43, "two tell of their difference");
        for (small, large) in [(0, 1), (1, u64::MAX), (300, 70_000)] {
            assert_eq!(held(small, [1; 8]).encoded_len(), held(large, [1; 8]).encoded_len(), "its length tells of it");
        }
    }

    #[test]
    fn a_capability_of_the_version_before_is_good_and_one_of_a_later_version_is_not() {
        let (capability, key) = example(Permit::Delete);
        for (version, good) in [(0, false), (1, true), (2, true), (3, false)] {
            let mask = mask(&key, &[9; 8], capability.binding.chunk.as_bytes());
            let (sequence, masked_sequence) = if version == 1 { (42, 0) } else { (0, 42 ^ mask) };
            let body = pb::CapabilityBody { version, sequence, masked_sequence, ..body(&capability, &key, [9; 8]) };
            let mut signed = body.encode_to_vec();
            let sum = key.secret.sum(LABEL, &[&signed]);
            signed.extend_from_slice(&sum);
            let read = check(&URL_SAFE_NO_PAD.encode(signed), &capability, &key, 1_500);
            assert_eq!(read, if good { Ok(capability.clone()) } else { Err(CapabilityError::Invalid) }, "{version}");
        }
    }

    #[test]
    fn the_metadata_service_s_own_work_names_no_tenant_and_never_writes() {
        for (permit, taken) in [(Permit::Delete, true), (Permit::List, true), (Permit::Write { max_bytes: 7 }, false)] {
            let (capability, key) = example(permit);
            let own =
                Capability { tenant: None, class: TrafficClass::Bronze, binding: ChunkBinding::none(), ..capability };
            assert_eq!(check(&sign(&own, &key, [9; 8]), &own, &key, 1_500).is_ok(), taken, "{permit:?}");
        }
    }

    #[test]
    fn a_capability_without_a_class_is_silver_and_one_of_the_metadata_service_s_own_is_bronze() {
        let (capability, key) = example(Permit::Delete);
        let signed = |body: &pb::CapabilityBody| {
            let mut signed = body.encode_to_vec();
            let sum = key.secret.sum(LABEL, &[&signed]);
            signed.extend_from_slice(&sum);
            URL_SAFE_NO_PAD.encode(signed)
        };
        let class = |traffic_class, tenant_id: &str| {
            let body = body(&capability, &key, [9; 8]);
            let text = signed(&pb::CapabilityBody { traffic_class, tenant_id: tenant_id.to_owned(), ..body });
            check(&text, &capability, &key, 1_500).map(|capability| capability.class)
        };
        assert_eq!(class(0, "posts"), Ok(TrafficClass::Silver), "as capabilities were before there were classes");
        assert_eq!(class(1, "posts"), Ok(TrafficClass::Gold));
        assert_eq!(class(9, "posts"), Err(CapabilityError::Invalid));
        assert_eq!((class(0, ""), class(1, "")), (Ok(TrafficClass::Bronze), Ok(TrafficClass::Bronze)));
    }

    #[test]
    fn a_capability_holds_within_its_time_give_or_take_the_tolerance() {
        let (capability, key) = example(Permit::Delete);
        let text = sign(&capability, &key, [9; 8]);
        for (now_ms, expected) in [
            (969, Err(CapabilityError::Invalid)),
            (970, Ok(capability.clone())),
            (2_030, Ok(capability.clone())),
            (2_031, Err(CapabilityError::Expired)),
        ] {
            assert_eq!(check(&text, &capability, &key, now_ms), expected, "at {now_ms}");
        }
    }

    #[test]
    fn every_flipped_bit_foreign_node_cluster_and_key_is_refused() {
        let (capability, key) = example(Permit::Write { max_bytes: 7 });
        let text = sign(&capability, &key, [9; 8]);
        let signed = URL_SAFE_NO_PAD.decode(&text).unwrap();
        for bit in 0..signed.len() * 8 {
            let mut flipped = signed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let flipped = URL_SAFE_NO_PAD.encode(flipped);
            assert_eq!(check(&flipped, &capability, &key, 1_500), Err(CapabilityError::Invalid), "bit {bit}");
        }
        let entropy = SeededEntropy::new(99);
        let stranger = NodeId::generate(1, &entropy);
        let keys = std::slice::from_ref(&key);
        assert!(verify(&text, keys, capability.cluster, stranger, 1_500, 30).is_err());
        assert!(verify(&text, keys, ClusterId::generate(1, &entropy), capability.node, 1_500, 30).is_err());
        let other_key = NodeKey { key_id: 2, secret: key.secret.clone() };
        assert!(check(&text, &capability, &other_key, 1_500).is_err());
        assert!(verify(&text, &[], capability.cluster, capability.node, 1_500, 30).is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics_and_none_is_taken(text in "[A-Za-z0-9_.=-]{0,200}") {
            let (capability, key) = example(Permit::Delete);
            prop_assert_eq!(check(&text, &capability, &key, 1_500), Err(CapabilityError::Invalid));
            expire_ms_unverified(&text);
        }
    }
}

//! Capabilities and receipts. The first byte of an input says what the others are: see [`Given`].
//!
//! Nothing that the key did not sign is ever taken; what is taken says the same when it is signed again.

use std::num::NonZeroU64;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::Choices;
use crate::capability::{self, Capability, ChunkBinding, NodeKey, Permit, ReadClaims};
use crate::checksum::Sha256;
use crate::entropy::SeededEntropy;
use crate::ids::{BlobId, BlockId, ChunkId, ClusterId, NodeId};
use crate::rates::Pace;
use crate::receipt::{self, Receipt};
use crate::secret::SecretKey;
use crate::traffic::TrafficClass;

const NOW_MS: u64 = 1_500;

/// What an input is.
enum Given<'a> {
    /// Anything, as a stranger would send it.
    Foreign(&'a [u8]),
    /// A body, to which the right sum is put.
    Body(Choices<'a>),
    /// Bits to flip in a good one.
    Flips(&'a [u8]),
}

impl<'a> Given<'a> {
    fn of(input: &'a [u8]) -> Self {
        let mut choices = Choices::new(input);
        match choices.byte() % 3 {
            0 => Self::Foreign(choices.rest()),
            1 => Self::Body(choices),
            _ => Self::Flips(choices.rest()),
        }
    }
}

fn with_sum(label: &str, body: &[u8]) -> Vec<u8> {
    [body, &key().secret.sum(label, &[body])].concat()
}

/// `None` when nothing would change.
fn flipped(good: &[u8], flips: &[u8]) -> Option<Vec<u8>> {
    let flips = flips.iter().chain(std::iter::repeat(&0));
    let bytes: Vec<u8> = good.iter().zip(flips).map(|(byte, flip)| byte ^ flip).collect();
    (bytes != good).then_some(bytes)
}

fn node() -> NodeId {
    NodeId::generate(1, &SeededEntropy::new(1))
}

fn cluster() -> ClusterId {
    ClusterId::generate(1, &SeededEntropy::new(2))
}

fn key() -> NodeKey {
    NodeKey::derive(&SecretKey::generate(&SeededEntropy::new(3)), node(), 1)
}

fn binding() -> ChunkBinding {
    let entropy = SeededEntropy::new(4);
    ChunkBinding {
        chunk: ChunkId::generate(1, &entropy),
        block: BlockId::generate(1, &entropy),
        blob: BlobId::generate(1, &entropy),
        shard_index: 2,
        shard_count: 3,
        generation: 4,
        epoch: 5,
        sequence: 6,
    }
}

fn example_capability(permit: Permit) -> Capability {
    let tenant = Some("posts".parse().expect("a tenant id"));
    let (cluster, node, binding) = (cluster(), node(), binding());
    let class = TrafficClass::Gold;
    let pace = Pace { requests_per_second: NonZeroU64::new(7), bytes_per_second: NonZeroU64::new(8) };
    Capability { cluster, node, tenant, class, pace, permit, binding, not_before_ms: 1_000, expire_ms: 2_000 }
}

fn verify_capability(text: &str, now_ms: u64, tolerance_ms: u64) -> Option<Capability> {
    capability::verify(text, &[key()], cluster(), node(), now_ms, tolerance_ms).ok()
}

/// Fuzzes [`capability::verify`] and [`capability::expire_ms_unverified`].
pub(super) fn capability(input: &[u8]) {
    match Given::of(input) {
        Given::Foreign(text) => {
            let text = String::from_utf8_lossy(text);
            assert_eq!(verify_capability(&text, NOW_MS, 0), None, "nobody signed it");
            capability::expire_ms_unverified(&text);
        }
        Given::Body(choices) => capability_body(choices),
        Given::Flips(flips) => {
            let text = capability::sign(&example_capability(Permit::Delete), &key(), [0; 8]);
            let good = URL_SAFE_NO_PAD.decode(text).expect("it was just made");
            let Some(bad) = flipped(&good, flips) else { return };
            assert_eq!(verify_capability(&URL_SAFE_NO_PAD.encode(bad), NOW_MS, 0), None, "a bit was flipped");
        }
    }
}

fn capability_body(mut choices: Choices<'_>) {
    let (now_ms, tolerance_ms) = (u64::from_be_bytes(choices.bytes()), u64::from_be_bytes(choices.bytes()));
    let text = URL_SAFE_NO_PAD.encode(with_sum(capability::LABEL, choices.rest()));
    let Some(taken) = verify_capability(&text, now_ms, tolerance_ms) else { return };
    assert_eq!(capability::expire_ms_unverified(&text), Some(taken.expire_ms));
    let again = capability::sign(&taken, &key(), [0; 8]);
    assert_eq!(verify_capability(&again, now_ms, tolerance_ms), Some(taken));
}

/// A good one of each kind, in each of the forms of [`Given`].
pub(super) fn capability_seeds() -> Vec<Vec<u8>> {
    let claims = ReadClaims { size_bytes: 11, sha256: Sha256::of(b"a"), pieces_sha256: Sha256::of(b"b") };
    let read = [Permit::Read(claims), Permit::Verify(claims)];
    let permits = [Permit::Write { max_bytes: 7 }, Permit::Delete, Permit::List].into_iter().chain(read);
    let stranger = NodeKey { key_id: 1, secret: SecretKey::generate(&SeededEntropy::new(9)) };
    let mut seeds = vec![vec![2, 0, 1]];
    for permit in permits {
        let text = capability::sign(&example_capability(permit), &stranger, [7; 8]);
        seeds.push([&[0], text.as_bytes()].concat());
        let signed = URL_SAFE_NO_PAD.decode(text).expect("it was just made");
        seeds.push([&[1][..], &NOW_MS.to_be_bytes(), &[0; 8], body_of(&signed)].concat());
    }
    seeds
}

fn body_of(signed: &[u8]) -> &[u8] {
    signed.split_last_chunk::<32>().map_or(signed, |(body, _sum)| body)
}

fn verify_receipt(signed: &[u8], key: &NodeKey) -> Option<Receipt> {
    receipt::verify(signed, |_node, _key_id| Some(key.clone())).ok()
}

fn example_receipt() -> Receipt {
    let ChunkBinding { chunk, block, blob, generation, .. } = binding();
    let (sha256, pieces_sha256) = (Sha256::of(b"a"), Sha256::of(b"b"));
    Receipt { cluster: cluster(), node: node(), blob, chunk, block, generation, size_bytes: 7, sha256, pieces_sha256 }
}

/// Fuzzes [`receipt::verify`].
pub(super) fn receipt(input: &[u8]) {
    match Given::of(input) {
        Given::Foreign(signed) => assert_eq!(verify_receipt(signed, &key()), None, "nobody signed it"),
        Given::Body(choices) => {
            let signed = with_sum(receipt::LABEL, choices.rest());
            let Some(taken) = verify_receipt(&signed, &key()) else { return };
            assert_eq!(verify_receipt(&receipt::sign(&taken, &key()), &key()), Some(taken));
        }
        Given::Flips(flips) => {
            let Some(bad) = flipped(&receipt::sign(&example_receipt(), &key()), flips) else { return };
            assert_eq!(verify_receipt(&bad, &key()), None, "a bit was flipped");
        }
    }
}

/// A good one, in each of the forms of [`Given`].
pub(super) fn receipt_seeds() -> Vec<Vec<u8>> {
    let stranger = NodeKey { key_id: 1, secret: SecretKey::generate(&SeededEntropy::new(9)) };
    let signed = receipt::sign(&example_receipt(), &stranger);
    vec![[&[0], signed.as_ref()].concat(), [&[1], body_of(&signed)].concat(), vec![2, 0, 1]]
}

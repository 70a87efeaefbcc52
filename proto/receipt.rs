//! Receipts: a node's signed statement that a chunk is durable (I5).
//!
//! An encoded [`ReceiptBody`](pb::ReceiptBody) followed by 32 bytes of HMAC-SHA256 under the node's key, with another
//! label than a capability's. To clients it is opaque.

use bytes::Bytes;
use prost::Message as _;

use crate::capability::NodeKey;
use crate::checksum::Sha256;
use crate::ids::{BlobId, BlockId, ChunkId, ClusterId, NodeId};
use crate::pb;
use crate::secret::SECRET_BYTES;

pub(crate) const LABEL: &str = "mini-tectonic receipt v1";
const VERSION: u32 = 1;
/// Longest receipt that is looked at; real ones have about 250 bytes.
const BYTES_MAX: usize = 512;

/// A receipt that has been checked, or is about to be signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node that holds the chunk.
    pub node: NodeId,
    /// The upload.
    pub blob: BlobId,
    /// The chunk.
    pub chunk: ChunkId,
    /// Its block.
    pub block: BlockId,
    /// The block's generation.
    pub generation: u64,
    /// The chunk's size.
    pub size_bytes: u64,
    /// The chunk's SHA-256.
    pub sha256: Sha256,
    /// See [`pieces_sha256`](crate::checksum::pieces_sha256).
    pub pieces_sha256: Sha256,
}

/// The receipt is malformed, or no key of the node it names signed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the receipt is not one that the planned node signed")]
pub struct ReceiptError;

/// Signs a receipt.
pub fn sign(receipt: &Receipt, key: &NodeKey) -> Bytes {
    let body = pb::ReceiptBody {
        version: VERSION,
        key_id: key.key_id,
        cluster_id: Bytes::copy_from_slice(receipt.cluster.as_bytes()),
        node_id: Bytes::copy_from_slice(receipt.node.as_bytes()),
        blob_id: Bytes::copy_from_slice(receipt.blob.as_bytes()),
        chunk_id: Bytes::copy_from_slice(receipt.chunk.as_bytes()),
        block_id: Bytes::copy_from_slice(receipt.block.as_bytes()),
        generation: receipt.generation,
        size_bytes: receipt.size_bytes,
        sha256: Bytes::copy_from_slice(receipt.sha256.as_bytes()),
        pieces_sha256: Bytes::copy_from_slice(receipt.pieces_sha256.as_bytes()),
    };
    let mut signed = body.encode_to_vec();
    let sum = key.secret.sum(LABEL, &[&signed]);
    signed.extend_from_slice(&sum);
    Bytes::from(signed)
}

/// Checks the signature with the key that `key_of` has for the node and key id that the receipt names, and returns what
/// it says. Whether that is what was planned is the caller's question.
///
/// # Errors
/// [`ReceiptError`] for anything that no known node signed.
pub fn verify(signed: &[u8], key_of: impl Fn(NodeId, u32) -> Option<NodeKey>) -> Result<Receipt, ReceiptError> {
    if signed.len() > BYTES_MAX {
        return Err(ReceiptError);
    }
    let split = signed.len().checked_sub(SECRET_BYTES).ok_or(ReceiptError)?;
    let (encoded, sum) = signed.split_at_checked(split).ok_or(ReceiptError)?;
    // The node's name selects the key, so the body is parsed first; nothing of it is believed before the sum holds.
    let body = pb::ReceiptBody::decode(encoded).map_err(|_malformed| ReceiptError)?;
    let receipt = parse(&body).ok_or(ReceiptError)?;
    let key = key_of(receipt.node, body.key_id).ok_or(ReceiptError)?;
    if key.key_id == body.key_id && key.secret.verifies(LABEL, &[encoded], sum) {
        Ok(receipt)
    } else {
        Err(ReceiptError)
    }
}

fn parse(body: &pb::ReceiptBody) -> Option<Receipt> {
    if body.version != VERSION {
        return None;
    }
    Some(Receipt {
        cluster: ClusterId::try_from(body.cluster_id.as_ref()).ok()?,
        node: NodeId::try_from(body.node_id.as_ref()).ok()?,
        blob: BlobId::try_from(body.blob_id.as_ref()).ok()?,
        chunk: ChunkId::try_from(body.chunk_id.as_ref()).ok()?,
        block: BlockId::try_from(body.block_id.as_ref()).ok()?,
        generation: body.generation,
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
    use crate::secret::SecretKey;

    fn example() -> (Receipt, NodeKey) {
        let entropy = SeededEntropy::new(5);
        let node = NodeId::generate(1, &entropy);
        let key = NodeKey::derive(&SecretKey::generate(&entropy), node, 1);
        let receipt = Receipt {
            cluster: ClusterId::generate(1, &entropy),
            node,
            blob: BlobId::generate(1, &entropy),
            chunk: ChunkId::generate(1, &entropy),
            block: BlockId::generate(1, &entropy),
            generation: 1,
            size_bytes: 11,
            sha256: Sha256::of(b"a"),
            pieces_sha256: Sha256::of(b"b"),
        };
        (receipt, key)
    }

    fn check(signed: &[u8], key: &NodeKey, node: NodeId) -> Result<Receipt, ReceiptError> {
        verify(signed, |of, key_id| (of == node && key_id == key.key_id).then(|| key.clone()))
    }

    #[test]
    fn what_was_signed_is_what_is_read_and_every_flipped_bit_is_refused() {
        let (receipt, key) = example();
        let signed = sign(&receipt, &key);
        assert_eq!(check(&signed, &key, receipt.node), Ok(receipt.clone()));
        for bit in 0..signed.len() * 8 {
            let mut flipped = signed.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(check(&flipped, &key, receipt.node), Err(ReceiptError), "bit {bit}");
        }
    }

    #[test]
    fn a_capability_s_sum_does_not_sign_a_receipt() {
        let (receipt, key) = example();
        let signed = sign(&receipt, &key);
        let (encoded, _sum) = signed.split_at(signed.len() - SECRET_BYTES);
        let mut forged = encoded.to_vec();
        forged.extend_from_slice(&key.secret.sum("mini-tectonic capability v1", &[encoded]));
        assert_eq!(check(&forged, &key, receipt.node), Err(ReceiptError));
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_none_are_taken(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let (receipt, key) = example();
            prop_assert_eq!(check(&bytes, &key, receipt.node), Err(ReceiptError));
        }
    }
}

//! The text files of a node: whatever is taken prints as the same bytes.
//!
//! Both end in a line with the sum of all before it. With an odd first byte an input is given that line, or no changed
//! input would get past it.

use proto::capability::{ChunkBinding, NodeKey};
use proto::checksum::{ChunkHasher, crc32c};
use proto::entropy::SeededEntropy;
use proto::fuzzing::Choices;
use proto::ids::{BlobId, BlockId, ChunkId, ClusterId, NodeId};
use proto::secret::SecretKey;
use proto::token::{Token, TokenKind};

use crate::identity::{Membership, NodeFile};
use crate::store::chk::Chk;
use crate::store::journal::record;

fn whole(input: &[u8], last_line: &str) -> Vec<u8> {
    let mut choices = Choices::new(input);
    let sealed = choices.byte() % 2 == 1;
    let mut bytes = choices.rest().to_vec();
    if sealed {
        let line = format!("{last_line}{:08x}\n", crc32c(&bytes));
        bytes.extend_from_slice(line.as_bytes());
    }
    bytes
}

/// A whole file, and one without its last line.
fn seeds_of(text: &str) -> [Vec<u8>; 2] {
    let last_line = text.trim_end().rfind('\n').map_or(0, |end| end + 1);
    let (unsealed, _last_line) = text.split_at(last_line);
    [[&[0], text.as_bytes()].concat(), [&[1], unsealed.as_bytes()].concat()]
}

/// Fuzzes [`Chk::parse`].
pub(super) fn chk(input: &[u8]) {
    let bytes = whole(input, "# end crc32c=");
    if let Ok(chk) = Chk::parse(&bytes) {
        assert_eq!(chk.print().as_bytes(), bytes);
    }
}

fn binding(entropy: &SeededEntropy) -> ChunkBinding {
    ChunkBinding {
        chunk: ChunkId::generate(1, entropy),
        block: BlockId::generate(1, entropy),
        blob: BlobId::generate(1, entropy),
        shard_index: 1,
        shard_count: 3,
        generation: 4,
        epoch: 5,
        sequence: 6,
    }
}

/// Files of chunks of no byte, one piece, and several.
pub(super) fn chk_seeds() -> Vec<Vec<u8>> {
    let entropy = SeededEntropy::new(1);
    let binding = binding(&entropy);
    let chk_of = |size: usize| {
        let mut hasher = ChunkHasher::default();
        hasher.update(&vec![7; size]);
        Chk { binding, sums: hasher.finish() }
    };
    [0, 11, 200_000].into_iter().flat_map(|size| seeds_of(&chk_of(size).print())).collect()
}

/// Fuzzes [`record::parse`].
pub(super) fn journal_record(input: &[u8]) {
    let Some(parsed) = record::parse(input) else { return };
    let made = match parsed {
        record::Record::Put(chk, content) => record::put(&chk, content),
        record::Record::Forget(chunk) => record::forget(chunk),
    };
    assert_eq!(made, input);
}

/// A put of a few bytes, and a record that forgets.
pub(super) fn journal_record_seeds() -> Vec<Vec<u8>> {
    let entropy = SeededEntropy::new(1);
    let mut hasher = ChunkHasher::default();
    hasher.update(b"hello");
    let chk = Chk { binding: binding(&entropy), sums: hasher.finish() };
    vec![record::put(&chk, b"hello"), record::forget(chk.binding.chunk)]
}

/// Fuzzes [`NodeFile::parse`].
pub(super) fn node_key(input: &[u8]) {
    let bytes = whole(input, "end crc32c=");
    if let Some(file) = NodeFile::parse(&bytes) {
        assert_eq!(file.print().as_bytes(), bytes);
    }
}

/// Files before and after joining, with one key and with two.
pub(super) fn node_key_seeds() -> Vec<Vec<u8>> {
    let entropy = SeededEntropy::new(1);
    let node = NodeId::generate(1, &entropy);
    let secret = SecretKey::generate(&entropy);
    let (cluster, token) = (ClusterId::generate(1, &entropy), Token::generate(TokenKind::Node, &entropy));
    let joined = |keys: &[u32]| {
        let keys = keys.iter().map(|key_id| NodeKey::derive(&secret, node, *key_id)).collect();
        Membership::new(cluster, keys, token.clone())
    };
    let files = [None, joined(&[1]), joined(&[2, 1])].map(|membership| NodeFile { node, membership });
    files.iter().flat_map(|file| seeds_of(file.print().as_str())).collect()
}

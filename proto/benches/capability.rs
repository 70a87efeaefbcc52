//! What a permission costs: signing one, as the metadata service does for each chunk of a plan, and checking one, as a
//! node does for each call.

use std::hint::black_box;

use criterion::Criterion;
use mini_tectonic_proto::capability::{Capability, ChunkBinding, NodeKey, Permit, ReadClaims, sign, verify};
use mini_tectonic_proto::checksum::Sha256;
use mini_tectonic_proto::entropy::SeededEntropy;
use mini_tectonic_proto::ids::{BlobId, BlockId, ChunkId, ClusterId, NodeId};
use mini_tectonic_proto::rates::Pace;
use mini_tectonic_proto::secret::SecretKey;
use mini_tectonic_proto::traffic::TrafficClass;

const NOW_MS: u64 = 1_700_000_000_000;
const LIFE_MS: u64 = 900_000;
const TOLERANCE_MS: u64 = 30_000;

fn capability(entropy: &SeededEntropy, permit: Permit) -> Capability {
    Capability {
        cluster: ClusterId::generate(NOW_MS, entropy),
        node: NodeId::generate(NOW_MS, entropy),
        tenant: Some("posts".parse().expect("an id of letters is one")),
        class: TrafficClass::Gold,
        pace: Pace::default(),
        permit,
        binding: ChunkBinding {
            chunk: ChunkId::generate(NOW_MS, entropy),
            block: BlockId::generate(NOW_MS, entropy),
            blob: BlobId::generate(NOW_MS, entropy),
            shard_index: 0,
            shard_count: 1,
            generation: 1,
            epoch: 1,
            sequence: 42,
        },
        not_before_ms: NOW_MS,
        expire_ms: NOW_MS + LIFE_MS,
    }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let entropy = SeededEntropy::new(1);
    let sum = Sha256::of(b"hello");
    let read = ReadClaims { size_bytes: 4096, sha256: sum, pieces_sha256: sum };
    for (name, permit) in [("write", Permit::Write { max_bytes: 4096 }), ("read", Permit::Read(read))] {
        let capability = capability(&entropy, permit);
        let key = NodeKey::derive(&SecretKey::generate(&entropy), capability.node, 1);
        let text = sign(&capability, &key, [7; 8]);
        let keys = [key.clone()];
        criterion.bench_function(&format!("capability/sign/{name}"), |bencher| {
            bencher.iter(|| sign(black_box(&capability), &key, [7; 8]));
        });
        criterion.bench_function(&format!("capability/verify/{name}"), |bencher| {
            bencher.iter(|| {
                let Capability { cluster, node, .. } = capability;
                verify(black_box(&text), &keys, cluster, node, NOW_MS, TOLERANCE_MS)
            });
        });
    }
    criterion.final_summary();
}

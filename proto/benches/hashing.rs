//! What the sums cost: SHA-256 and CRC-32C of a frame, and everything that a node folds of a chunk.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use mini_tectonic_proto::checksum::{ChunkHasher, Sha256, crc32c};
use mini_tectonic_proto::entropy::{Entropy as _, SeededEntropy};
use mini_tectonic_proto::limits;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for (name, size) in [("4 KiB", 4 * limits::KIB), ("64 KiB", limits::PIECE_BYTES), ("256 KiB", limits::FRAME_BYTES)]
    {
        let mut bytes = vec![0; usize::try_from(size).expect("a frame fits into memory")];
        SeededEntropy::new(1).fill(&mut bytes);
        let mut group = criterion.benchmark_group("hashing");
        group.throughput(Throughput::Bytes(size));
        group.bench_function(format!("sha256/{name}"), |bencher| bencher.iter(|| Sha256::of(black_box(&bytes))));
        group.bench_function(format!("crc32c/{name}"), |bencher| bencher.iter(|| crc32c(black_box(&bytes))));
        group.bench_function(format!("chunk/{name}"), |bencher| {
            bencher.iter(|| {
                let mut hasher = ChunkHasher::default();
                hasher.update(black_box(&bytes));
                hasher.finish()
            });
        });
        group.finish();
    }
    criterion.final_summary();
}

//! What a checksum file costs: printing it, as each write does, and parsing it, as each read does.

use std::hint::black_box;

use chunk_service::benching::ChkFile;
use criterion::Criterion;
use proto::limits;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for (name, size) in [("4 KiB", 4 * limits::KIB), ("64 MiB", limits::BLOCK_BYTES)] {
        let file = ChkFile::of_chunk(size);
        let text = file.print();
        assert!(ChkFile::parse(text.as_bytes()).is_some(), "what was printed is taken");
        criterion.bench_function(&format!("chk/print/{name}"), |bencher| bencher.iter(|| black_box(&file).print()));
        criterion.bench_function(&format!("chk/parse/{name}"), |bencher| {
            bencher.iter(|| ChkFile::parse(black_box(text.as_bytes())));
        });
    }
    criterion.final_summary();
}

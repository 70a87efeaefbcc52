//! What a durable commit costs: so many callers at once, each with one row, on a real folder in the one for temporary
//! files (`TMPDIR` says on which disk). `examples/engine_commits.rs` measures more callers over a longer time.

use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use futures_util::future::try_join_all;
use metadata_service::store::engine::{Batch, Decision, Engine as _, EngineError, View};
use metadata_service::store::sled::{SledEngine, SledOptions};
use tokio::runtime::Runtime;

const CALLERS: [u64; 3] = [1, 16, 64];
const ROW_BYTES: usize = 200;

async fn commit(engine: &SledEngine, key: u64) -> Result<(), EngineError> {
    let decide = move |_: &dyn View| {
        let mut batch = Batch::default();
        batch.put(key.to_be_bytes().to_vec(), vec![7; ROW_BYTES]);
        Ok(Decision::adds(batch))
    };
    engine.commit(Box::new(decide)).await.map(drop)
}

/// As many rounds of all callers at once.
async fn rounds(engine: &SledEngine, callers: u64, rounds: u64, next_key: &mut u64) -> Duration {
    let began = Instant::now();
    for _ in 0..rounds {
        let keys = *next_key..*next_key + callers;
        *next_key = keys.end;
        try_join_all(keys.map(|key| commit(engine, key))).await.expect("the disk takes commits");
    }
    began.elapsed()
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let runtime = Runtime::new().expect("the machine has threads");
    let folder = tempfile::tempdir().expect("there is a folder for temporary files");
    let engine = runtime.block_on(async { SledEngine::open(&folder.path().join("db"), &SledOptions::default()) });
    let engine = engine.expect("an empty folder can be opened");
    let mut next_key = 0;
    let mut group = criterion.benchmark_group("engine");
    for callers in CALLERS {
        group.throughput(Throughput::Elements(callers));
        group.bench_function(format!("commit/{callers} callers"), |bencher| {
            bencher.iter_custom(|count| runtime.block_on(rounds(&engine, callers, count, &mut next_key)));
        });
    }
    group.finish();
    runtime.block_on(engine.close());
    criterion.final_summary();
}

use tempfile::TempDir;

use super::*;
use crate::store::conformance;

fn open(folder: &Path) -> SledEngine {
    SledEngine::open(folder, &SledOptions::default()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sled_engine_keeps_the_promises_of_every_engine() {
    let folder = TempDir::new().unwrap();
    conformance::suite(open(folder.path())).await;
}

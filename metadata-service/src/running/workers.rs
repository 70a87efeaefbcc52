//! The background work of this service.

use std::sync::Arc;

use proto::entropy::Entropy;
use proto::runtime::TaskGroup;
use proto::runtime::worker::{self, Schedule, Worker};

use crate::service::Service;
use crate::store::engine::KeyRange;
use crate::store::keys;
use crate::store::rows::{RowError, record_of};
use crate::workers::board::WorkerName;
use crate::workers::garbage::GarbageCollector;
use crate::workers::orphans::OrphanSweeper;
use crate::workers::uploads::UploadSweeper;

/// Reads how the workers are to run; there are few.
pub(super) async fn load(service: &Service) -> Result<(), RowError> {
    let engine = service.engine();
    for row in engine.scan(&KeyRange::prefix(keys::WORKERS), usize::MAX).await? {
        // A name that only a newer version knows means nothing here.
        if let Some(name) = keys::worker_of(&row.0).and_then(WorkerName::parse) {
            service.workers().put(name, record_of(&row)?, engine.sequence());
        }
    }
    Ok(())
}

/// Starts them, each as its row says.
pub(super) fn start(tasks: &TaskGroup, service: &Service, entropy: &Arc<dyn Entropy>) {
    let (sweep, orphan_sweep) = (service.tuning().sweep_interval, service.tuning().orphan_sweep_interval);
    let starter = Starter { tasks, service, entropy };
    starter.start(WorkerName::Uploads, UploadSweeper::new(service.clone()), sweep);
    starter.start(WorkerName::Garbage, GarbageCollector::new(service.clone()), sweep);
    starter.start(WorkerName::Orphans, OrphanSweeper::new(service.clone()), orphan_sweep);
}

struct Starter<'a> {
    tasks: &'a TaskGroup,
    service: &'a Service,
    entropy: &'a Arc<dyn Entropy>,
}

impl Starter<'_> {
    fn start(&self, name: WorkerName, worker: impl Worker, interval: std::time::Duration) {
        let schedule = Schedule { interval: Some(interval) };
        let handle = worker::start(self.tasks, worker, schedule, Arc::clone(self.entropy));
        self.service.workers().attach(name, handle);
    }
}

#[cfg(test)]
mod tests {
    use proto::runtime::ManualClock;

    use super::*;
    use crate::service::testing;
    use crate::store::engine::{Batch, Decision, EngineExt as _};
    use crate::store::memory::MemoryEngine;
    use crate::store::records::WorkerRecord;
    use crate::store::rows::BatchExt as _;

    /// A newer version had work of its own. After a step back to this one the row of the collector lay behind the rows of
    /// that work, was not read, and a paused collector ran.
    #[tokio::test]
    async fn rows_of_unknown_work_hide_no_setting() {
        let service = testing::service(Arc::new(MemoryEngine::new()), Arc::new(ManualClock::at(1)));
        let mut batch = Batch::default();
        for name in ["a", "b", "c", "d", "e", "garbage"] {
            batch.set(keys::worker(name), &WorkerRecord { paused: true, ..WorkerRecord::default() });
        }
        let put = service.engine().decide(|_view| Ok::<_, RowError>((Decision::frees(batch), ())));
        put.await.unwrap();
        load(&service).await.unwrap();
        assert!(service.workers().record(WorkerName::Garbage).paused);
    }
}

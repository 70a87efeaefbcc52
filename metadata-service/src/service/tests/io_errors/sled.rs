//! The real engine's log and disk fail under each operation.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use proto::error::{Classify as _, Reason};

use super::operations::{Effect, OPERATIONS, Operation};
use super::stage::{Stage, rows};
use crate::figures;
use crate::store::engine::{Decision, Engine, EngineError};
use crate::store::faulty::{DiskFaults, LogFaults, memory_folder};
use crate::store::memory::MemoryEngine;
use crate::store::sled::{SledEngine, SledOptions};

type Rows = BTreeMap<Bytes, Bytes>;

/// What happens to the log or the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// The next sync fails; the one after it would not.
    SyncFails,
    SyncPanics,
    /// Below the low watermark.
    LowSpace,
    /// Below the reserve.
    NoSpace,
    /// The file system does not tell.
    UnknownSpace,
}

impl Trouble {
    const ALL: [Self; 5] = [Self::SyncFails, Self::SyncPanics, Self::LowSpace, Self::NoSpace, Self::UnknownSpace];

    fn begin(self, log: &LogFaults, disk: &DiskFaults) {
        match self {
            Self::SyncFails => log.fail_once(),
            Self::SyncPanics => log.panic(),
            Self::LowSpace => disk.set_free(SledOptions::default().low_watermark_bytes - 1),
            Self::NoSpace => disk.set_free(SledOptions::default().reserve_bytes - 1),
            Self::UnknownSpace => disk.fail(),
        }
    }

    /// How an operation is refused, if it is.
    fn refusal(self, effect: Effect) -> Option<Reason> {
        match (self, effect) {
            (_, Effect::Reads | Effect::Decides) | (Self::LowSpace, Effect::Frees) => None,
            (Self::SyncFails | Self::UnknownSpace, _) => Some(Reason::Internal),
            (Self::SyncPanics, _) => Some(Reason::ReadOnly),
            (Self::LowSpace | Self::NoSpace, _) => Some(Reason::NodeOutOfSpace),
        }
    }

    fn ends_writes(self) -> bool {
        matches!(self, Self::SyncFails | Self::SyncPanics)
    }
}

/// The rows before and after an operation that goes well.
async fn without_trouble(operation: &Operation) -> (Rows, Rows) {
    let stage = Stage::new(Arc::new(MemoryEngine::new())).await;
    let before = stage.rows().await.into_iter().collect();
    operation.run(&stage).await.unwrap_or_else(|error| panic!("{}: {error}", operation.name));
    (before, stage.rows().await.into_iter().collect())
}

async fn cell(operation: &Operation, trouble: Trouble, before: &Rows, after: &Rows) {
    let what = format!("{}, {trouble:?}", operation.name);
    let (folder, log, disk) = (memory_folder(), LogFaults::default(), DiskFaults::default());
    disk.set_free(u64::MAX);
    let options = SledOptions::default();
    let opened = SledEngine::open_with(folder.path(), &options, log.seams_with(&disk));
    let engine: Arc<dyn Engine> = Arc::new(opened.unwrap());
    let stage = Stage::new(Arc::clone(&engine)).await;
    assert_eq!(&stage.rows().await.into_iter().collect::<Rows>(), before, "{what}: both engines hold the same");
    trouble.begin(&log, &disk);
    let outcome = operation.run(&stage).await;
    let Some(reason) = trouble.refusal(operation.effect) else {
        outcome.unwrap_or_else(|error| panic!("{what}: {error}"));
        return engine.close().await;
    };
    match outcome {
        Ok(()) => assert!(trouble.ends_writes() && operation.effect == Effect::Plans, "{what}: it is acknowledged"),
        Err(error) => assert_eq!(error.reason(), reason, "{what}: {error}"),
    }
    shows_only(engine.as_ref(), before, after, &what).await;
    if trouble.ends_writes() {
        stage.has_stopped().await;
        engine.close().await;
        let reopened = SledEngine::open(folder.path(), &options).unwrap();
        let found: Rows = rows(&reopened).await.into_iter().collect();
        assert!(found == *before || found == *after, "{what}: a part of it is there");
        reopened.close().await;
    } else {
        disk.set_free(u64::MAX);
        end_group(engine.as_ref()).await;
        operation.run(&stage).await.unwrap_or_else(|error| panic!("{what}, again: {error}"));
        stage.goes_on().await;
        engine.close().await;
    }
}

/// A refusal is answered while its group still takes commits, which the last look at the disk holds for.
async fn end_group(engine: &dyn Engine) {
    engine.commit(Box::new(|_view| Ok(Decision::default()))).await.unwrap();
}

/// Each row is as before, or is not told.
async fn shows_only(engine: &dyn Engine, before: &Rows, after: &Rows, what: &str) {
    for key in before.keys().chain(after.keys()) {
        match engine.get(key).await {
            Ok(value) => assert_eq!(value.as_ref(), before.get(key), "{what}: {}", key.escape_ascii()),
            Err(error) => assert!(matches!(error, EngineError::Latched(_)), "{what}: {error}"),
        }
    }
}

#[tokio::test]
async fn i15_no_operation_is_acknowledged_over_a_log_or_a_disk_that_fails() {
    let (mut cells, mut refused) = (0, 0);
    for operation in &OPERATIONS {
        let (before, after) = without_trouble(operation).await;
        let writes = matches!(operation.effect, Effect::Adds | Effect::Plans | Effect::Frees);
        assert_eq!(before != after, writes, "{} does what it is here for", operation.name);
        for trouble in Trouble::ALL {
            cell(operation, trouble, &before, &after).await;
            cells += 1;
            refused += usize::from(trouble.refusal(operation.effect).is_some());
        }
    }
    figures::print(format_args!(
        "I/O errors: sled, {cells} cells of operation x trouble, {refused} refused by a typed error: \
         0 acknowledged after a failed sync, 0 shown that were not durable, 0 torn, 0 panics"
    ));
}

//! Each call of the engine fails under each operation.

use std::sync::Arc;

use proto::error::{Classify as _, Reason};

use super::operations::{OPERATIONS, Operation};
use super::stage::Stage;
use crate::figures;
use crate::store::faulty::engine::{EngineCall, Fault, FaultyEngine};

fn reason(call: EngineCall, fault: Fault) -> Reason {
    match (fault, call) {
        // What a closure could not read ends its group.
        (Fault::Failed, EngineCall::ViewGet | EngineCall::ViewScan) | (Fault::Latched, _) => Reason::ReadOnly,
        (Fault::Failed, _) => Reason::Internal,
        (Fault::NearlyFull, _) => Reason::NodeOutOfSpace,
        (Fault::Overloaded, _) => Reason::Overloaded,
        (Fault::Closed, _) => Reason::Draining,
    }
}

/// Returns whether the operation makes that many calls.
async fn cell(operation: &Operation, call: EngineCall, after: u64, fault: Fault) -> bool {
    let what = format!("{}, {call:?} {after}, {fault:?}", operation.name);
    let engine = Arc::new(FaultyEngine::default());
    let stage = Stage::new(Arc::<FaultyEngine>::clone(&engine)).await;
    let before = engine.rows().await;
    engine.arm(call, after, fault);
    let outcome = operation.run(&stage).await;
    if !engine.disarm() {
        outcome.unwrap_or_else(|error| panic!("{what}: {error}"));
        return false;
    }
    let error = outcome.expect_err(&what);
    assert_eq!(error.reason(), reason(call, fault), "{what}: {error}");
    assert_eq!(engine.rows().await, before, "{what}: nothing is written");
    if fault.latches() {
        stage.has_stopped().await;
    } else {
        operation.run(&stage).await.unwrap_or_else(|error| panic!("{what}, again: {error}"));
        stage.goes_on().await;
    }
    true
}

#[tokio::test]
async fn i19_a_call_that_fails_gives_an_error_of_its_kind_and_leaves_no_trace() {
    let mut cells = 0;
    for operation in &OPERATIONS {
        let mut met = 0;
        for call in EngineCall::ALL {
            let mut after = 0;
            while cell(operation, call, after, Fault::Failed).await {
                for fault in Fault::ALL.into_iter().filter(|fault| *fault != Fault::Failed) {
                    assert!(cell(operation, call, after, fault).await);
                }
                (after, met) = (after + 1, met + Fault::ALL.len());
            }
        }
        assert!(met > 0, "{} needs the engine", operation.name);
        cells += met;
    }
    figures::print(format_args!(
        "I/O errors: {} operations, {cells} cells of call x error: each a typed error, 0 acknowledged, 0 panics",
        OPERATIONS.len()
    ));
}

//! The stream of a check: what is found as it is found, then the summary or the error.

use std::sync::Arc;

use proto::pb;
use proto::pb::check_cluster_response::Event;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::refused;
use crate::check::{Check, Finding, Options, Summary};
use crate::error::MetadataError;
use crate::service::Service;

/// Findings on their way to whoever asked; a check waits for a slow reader.
const FINDINGS_UNDERWAY: usize = 16;

pub(super) type CheckStream = ReceiverStream<Result<pb::CheckClusterResponse, Status>>;

/// Starts a check in a task of its own, which ends when nobody reads its stream any more.
pub(super) fn start(service: &Service, options: Options) -> CheckStream {
    let (tell, findings) = mpsc::channel(FINDINGS_UNDERWAY);
    let (send, stream) = mpsc::channel(FINDINGS_UNDERWAY);
    let check = Check::new(service.clone(), Arc::clone(service.chunk_nodes()), options, tell);
    drop(service.tasks().spawn("check", pass_on(check, findings, send)));
    ReceiverStream::new(stream)
}

type Sender = mpsc::Sender<Result<pb::CheckClusterResponse, Status>>;

async fn pass_on(check: Check, mut findings: mpsc::Receiver<Finding>, send: Sender) {
    let mut check = std::pin::pin!(check.run());
    let outcome = loop {
        tokio::select! {
            biased;
            () = send.closed() => return,
            Some(finding) = findings.recv() => drop(send.send(Ok(event(Event::Finding(finding.into())))).await),
            outcome = &mut check => break outcome,
        }
    };
    while let Ok(finding) = findings.try_recv() {
        drop(send.send(Ok(event(Event::Finding(finding.into())))).await);
    }
    drop(send.send(last(outcome)).await);
}

fn last(outcome: Result<Summary, MetadataError>) -> Result<pb::CheckClusterResponse, Status> {
    outcome.map(|summary| event(Event::Summary(summary.into()))).map_err(refused)
}

fn event(event: Event) -> pb::CheckClusterResponse {
    pb::CheckClusterResponse { event: Some(event) }
}

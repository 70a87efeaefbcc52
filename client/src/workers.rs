//! Background work of the cluster, for operators. All of it needs the admin token.

use std::time::Duration;

use proto::pb;

use crate::call::{attempt, request};
use crate::client::Client;
use crate::error::Error;

/// How long a pass of background work may take: a node with very many chunks is gone through in one.
const PASS_TIMEOUT: Duration = Duration::from_secs(60 * 60);

impl Client {
    /// Lists the background work of the metadata service and of the nodes.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn list_workers(&self) -> Result<Vec<pb::Worker>, Error> {
        let list = |request| async move { self.peers().metadata().cluster_client().list_workers(request).await };
        let answer = self.repeated("list background work", pb::ListWorkersRequest {}, list).await?;
        Ok(answer.workers)
    }

    /// Pauses background work, lets it go on, or changes its pace; `None` leaves it as it is. Holds across restarts.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn update_worker(
        &self,
        name: &str,
        paused: Option<bool>,
        pace_per_second: Option<u64>,
    ) -> Result<pb::WorkerSettings, Error> {
        let operation = format!("change how {name} runs");
        let message = pb::UpdateWorkerRequest { name: name.to_owned(), paused, pace_per_second };
        let update = |request| async move { self.peers().metadata().cluster_client().update_worker(request).await };
        let answer = self.repeated(&operation, message, update).await?;
        answer.settings.ok_or_else(|| self.malformed(operation, "no settings"))
    }

    /// Runs a pass of background work now, also when it is paused, and returns what it did; `None` for work of the nodes,
    /// which begin with their next heartbeat. `accept_all` lets the sweep for orphans do what it would hold back from.
    ///
    /// # Errors
    /// [`Error`]. Nothing is repeated: each call is a pass.
    pub async fn run_worker(&self, name: &str, accept_all: bool) -> Result<Option<pb::WorkerPass>, Error> {
        let peer = self.peers().metadata();
        let message = pb::RunWorkerRequest { name: name.to_owned(), accept_all };
        let mut client = peer.cluster_client();
        let answer = client.run_worker(request(message, self.authorization()));
        let answer = attempt(peer, &peer.call(format!("run {name}")), PASS_TIMEOUT, answer).await?;
        Ok(answer.into_inner().pass)
    }
}

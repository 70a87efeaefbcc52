//! Checking a whole cluster.

use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt as _, TryStreamExt as _};
use proto::pb;
use proto::pb::check_cluster_response::Event;

use crate::call::request;
use crate::client::Client;
use crate::error::Error;

/// What a check says: what it finds, and at its end what it looked at.
pub type CheckEvent = Event;

impl Client {
    /// Has the metadata service check metadata and chunks against each other: see `ClusterService.CheckCluster`. What is
    /// found comes as it is found; the last event is the summary, and a stream without one ends with an error. Needs the
    /// admin token. Takes as long as reading everything takes, unless `skip_bytes` is set.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn check_cluster(
        &self,
        message: pb::CheckClusterRequest,
    ) -> Result<BoxStream<'static, Result<CheckEvent, Error>>, Error> {
        let peer = self.peers().metadata();
        let call = peer.call("check the cluster");
        let answer = peer.cluster_client().check_cluster(request(message, self.authorization())).await;
        let events = answer.map_err(|status| Error::from_call(&call, status))?.into_inner();
        let events = events.map_err(move |status| Error::from_call(&call, status));
        let client = self.clone();
        let events = events.and_then(move |message| {
            let event = message.event.ok_or_else(|| client.malformed("check the cluster", "an event without content"));
            std::future::ready(event)
        });
        Ok(until_summary(events, self.clone()).boxed())
    }
}

/// The events, and an error if they end without a summary.
fn until_summary(
    events: impl futures_util::Stream<Item = Result<CheckEvent, Error>> + Send + 'static,
    client: Client,
) -> impl futures_util::Stream<Item = Result<CheckEvent, Error>> + Send + 'static {
    stream::unfold((Box::pin(events), false, client), |(mut events, done, client)| async move {
        match events.next().await {
            Some(event) => {
                let done = done || matches!(event, Ok(Event::Summary(_)) | Err(_));
                Some((event, (events, done, client)))
            }
            None if done => None,
            None => {
                let error = client.malformed("check the cluster", "the stream ended without a summary");
                Some((Err(error), (events, true, client)))
            }
        }
    })
}

//! Calls with one answer: the credential, a deadline for the answer, and repeats where they are safe.

use std::future::Future;
use std::time::Duration;

use proto::entropy::{Entropy as _, OsEntropy};
use proto::hex;
use proto::pb::metadata_service_client::MetadataServiceClient;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::channel::Peer;
use crate::client::Client;
use crate::error::{Call, Error};
use crate::gather::{Carrier, Gatherer};
use crate::retry::Budget;

/// The value of `authorization` for a credential; `None` when it holds what a header cannot.
pub(crate) fn bearer(credential: &str) -> Option<MetadataValue<Ascii>> {
    let mut value: MetadataValue<Ascii> = format!("Bearer {credential}").parse().ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// A message with its credential.
pub(crate) fn request<M>(message: M, authorization: Option<&MetadataValue<Ascii>>) -> Request<M> {
    let mut request = Request::new(message);
    if let Some(value) = authorization {
        request.metadata_mut().insert("authorization", value.clone());
    }
    request
}

/// A name for one intent of the user's, however often the call has to be repeated.
pub(crate) fn new_request_id() -> String {
    let mut bytes = [0; 16];
    OsEntropy.fill(&mut bytes);
    hex::display(&bytes).to_string()
}

/// One attempt: waits for the answer at most so long.
pub(crate) async fn attempt<T>(
    peer: &Peer,
    call: &Call,
    within: Duration,
    answer: impl Future<Output = Result<T, Status>>,
) -> Result<T, Error> {
    tracing::trace!(operation = call.operation, endpoint = call.endpoint, "asking");
    let outcome = match tokio::time::timeout(within, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(status)) => Err(Error::from_call(call, status)),
        Err(_elapsed) => Err(Error::TimedOut { call: Box::new(call.clone()), after: within }),
    };
    if matches!(outcome, Ok(_) | Err(Error::Refused { .. })) {
        peer.mark_answered();
    }
    outcome
}

impl Client {
    /// Calls a method of `MetadataService`, repeating the call where the error allows it. A call that changes something
    /// must carry a `request_id`, or be harmless to repeat.
    pub(crate) async fn metadata<M, R, F>(
        &self,
        operation: impl Into<String>,
        message: M,
        method: impl Fn(MetadataServiceClient<Channel>, Request<M>) -> F,
    ) -> Result<R, Error>
    where
        M: Clone,
        F: Future<Output = Result<Response<R>, Status>>,
    {
        self.repeated(operation, message, |request| method(self.peers().metadata().metadata_client(), request)).await
    }

    /// As [`Client::metadata`], for a call that may travel with others of its kind.
    pub(crate) async fn gathered<C: Carrier>(
        &self,
        operation: impl Into<String>,
        message: C::Item,
        gatherer: &Gatherer<C>,
        carrier: impl Fn(Self) -> C,
    ) -> Result<C::Answer, Error> {
        let ask = |message: Request<C::Item>| async {
            gatherer.ask(carrier(self.clone()), message.into_inner()).await.map(Response::new)
        };
        self.repeated(operation, message, ask).await
    }

    /// As [`Client::metadata`], for any service at the metadata service's endpoint.
    pub(crate) async fn repeated<M, R, F>(
        &self,
        operation: impl Into<String>,
        message: M,
        send: impl Fn(Request<M>) -> F,
    ) -> Result<R, Error>
    where
        M: Clone,
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let peer = self.peers().metadata();
        let call = peer.call(operation);
        let mut budget = Budget::new(self.config().retry);
        let mut lost = None;
        loop {
            let answer = send(request(message.clone(), self.authorization()));
            let error = match attempt(peer, &call, self.config().call_timeout, answer).await {
                Ok(answer) => return Ok(answer.into_inner()),
                Err(error) => error,
            };
            match budget.spend(error, peer.has_answered()) {
                Ok(spent) => {
                    lost = lost.or(Some(spent.error).filter(Error::outcome_unknown));
                    tokio::time::sleep(spent.pause).await;
                }
                // Only an answer that will not change settles what a lost one left open.
                Err(last) if last.retryable() => return Err(lost.unwrap_or(last)),
                Err(last) => return Err(last),
            }
        }
    }

    /// The error for an answer of the metadata service that lacks what it must have.
    pub(crate) fn malformed(&self, operation: impl Into<String>, problem: impl Into<String>) -> Error {
        let call = Box::new(self.peers().metadata().call(operation));
        Error::Protocol { call, problem: problem.into() }
    }
}

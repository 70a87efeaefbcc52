//! What an operator asks of the metadata service beyond its state.

use bytes::Bytes;
use futures_util::{Stream, stream};
use proto::pb;

use crate::call::{attempt, request};
use crate::client::Client;
use crate::error::Error;

impl Client {
    /// Exports all metadata as of one moment, while the service goes on: the bytes of the export, in order. It carries
    /// its own version and checksums, and is complete only when those say so; `mini-tectonic-rs export` checks that. With
    /// `include_secrets` it holds the cluster's key, which opens everything. Needs the admin token.
    ///
    /// # Errors
    /// [`Error`], also as the last item of the stream; an export is not taken up again, but begun anew.
    pub async fn export_metadata(
        &self,
        include_secrets: bool,
    ) -> Result<impl Stream<Item = Result<Bytes, Error>> + Send + 'static, Error> {
        let (peer, within) = (self.peers().metadata(), self.config().call_timeout);
        let call = peer.call("export the metadata");
        let message = request(pb::ExportMetadataRequest { include_secrets }, self.authorization());
        let mut service = peer.cluster_client();
        let messages = attempt(peer, &call, within, service.export_metadata(message)).await?.into_inner();
        let client = self.clone();
        Ok(stream::try_unfold((messages, call), move |(mut messages, call)| {
            let client = client.clone();
            async move {
                let message = attempt(client.peers().metadata(), &call, within, messages.message()).await?;
                Ok(message.map(|message| (message.data, (messages, call))))
            }
        }))
    }

    /// Ends the time after an import in which nothing is collected. Kept, chunks that were written after the export stay
    /// for ever; discarded, they are collected, and nothing brings them back. Needs the admin token.
    ///
    /// # Errors
    /// [`Error`]; its reason is `NotRestored` when there is nothing to decide.
    pub async fn end_restore(&self, lost_time: pb::LostTime) -> Result<(), Error> {
        let message = pb::EndRestoreRequest { lost_time: lost_time.into() };
        let answer = self.repeated("end the time after an import", message, |message| async move {
            self.peers().metadata().cluster_client().end_restore(message).await
        });
        answer.await.map(|pb::EndRestoreResponse {}| ())
    }
}

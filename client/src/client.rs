//! The client itself: what all operations share.

use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use proto::pb;
use proto::status::chain;
use proto::tls::exposure::may_send_secrets;
use proto::tls::{Dialer, Trust};
use tokio_util::task::TaskTracker;
use tonic::metadata::{Ascii, MetadataValue};

use crate::call::bearer;
use crate::channel::{Dialing, Peers};
use crate::config::ClientConfig;
use crate::endpoint;
use crate::error::Error;
use crate::gather::{Commits, Gatherer, Layouts, Starts};
use crate::pages::entries;

/// Stores and reads blobs, and manages tenants. Cheap to clone; clones share connections. Belongs to the tokio runtime of
/// its first call, on which its connections live.
#[derive(Debug, Clone)]
pub struct Client(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    config: ClientConfig,
    authorization: Option<MetadataValue<Ascii>>,
    peers: Peers,
    gatherers: Gatherers,
    /// What goes on after its caller has gone: giving uploads up.
    farewells: TaskTracker,
}

/// Where calls to the metadata service about small blobs meet.
#[derive(Debug, Default)]
pub(crate) struct Gatherers {
    pub(crate) starts: Gatherer<Starts>,
    pub(crate) commits: Gatherer<Commits>,
    pub(crate) layouts: Gatherer<Layouts>,
}

impl Client {
    /// Makes a client. Nothing is sent, and no connection made, before the first call.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the endpoint, the token or the authority cannot be one, and when the token would go to
    /// another machine unencrypted although nobody said that it may.
    pub fn new(mut config: ClientConfig) -> Result<Self, Error> {
        config.endpoint = endpoint::normalise(&config.endpoint)?;
        let bad_token =
            || Error::Invalid { what: "token", problem: "it holds characters that no token has".to_owned() };
        let authorization = config.token.as_ref().map(|token| bearer(token).ok_or_else(bad_token)).transpose()?;
        if authorization.is_some() {
            may_send_secrets(&config.endpoint, config.insecure_plaintext)
                .map_err(|refused| Error::Invalid { what: "endpoint", problem: refused.to_string() })?;
        }
        let trust = Trust::from_file(config.tls_ca.as_deref())
            .map_err(|error| Error::Invalid { what: "authority", problem: chain(&error) })?;
        let ClientConfig { connect_timeout: timeout, insecure_plaintext, .. } = config;
        let dialing = Dialing { dialer: Dialer::new(trust), timeout, insecure_plaintext };
        let peers = Peers::new(&config.endpoint, dialing)
            .map_err(|error| Error::Invalid { what: "endpoint", problem: error.to_string() })?;
        Ok(Self(Arc::new(Shared {
            config,
            authorization,
            peers,
            gatherers: Gatherers::default(),
            farewells: TaskTracker::new(),
        })))
    }

    /// The metadata service's endpoint in its one form, for example `http://127.0.0.1:50051`.
    pub fn endpoint(&self) -> &str {
        &self.0.config.endpoint
    }

    /// Returns the state of the whole cluster. Needs the admin token.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn cluster_status(&self) -> Result<pb::GetClusterStatusResponse, Error> {
        let message = pb::GetClusterStatusRequest {};
        self.repeated("get the cluster's status", message, |message| async move {
            self.peers().metadata().cluster_client().get_cluster_status(message).await
        })
        .await
    }

    /// Lists the chunks that were found missing or damaged and have not been found sound since. Needs the admin token.
    pub fn list_damaged_chunks(&self) -> impl Stream<Item = Result<pb::DamagedChunk, Error>> + Send + 'static {
        let client = self.clone();
        let fetch = move |page_token| {
            let client = client.clone();
            async move {
                let message = pb::ListDamagedChunksRequest { page_size: 0, page_token };
                let answer = client
                    .repeated("list damaged chunks", message, |message| async {
                        client.peers().metadata().cluster_client().list_damaged_chunks(message).await
                    })
                    .await?;
                Ok((answer.chunks, answer.next_page_token))
            }
        };
        entries(fetch, Ok)
    }

    /// Waits, at most this long, until uploads that were dropped have been given up at the service too, so that what
    /// they reserved is free at once. Worth calling before a program ends that cancelled an upload.
    pub async fn settle(&self, within: Duration) {
        self.0.farewells.close();
        if tokio::time::timeout(within, self.0.farewells.wait()).await.is_err() {
            tracing::debug!("some uploads could not be given up in time; they expire by themselves");
        }
    }

    pub(crate) fn config(&self) -> &ClientConfig {
        &self.0.config
    }

    /// Whose blobs are meant, as requests say it: empty for the token's tenant.
    pub(crate) fn tenant_id(&self) -> String {
        self.0.config.tenant.as_ref().map(ToString::to_string).unwrap_or_default()
    }

    /// The class that uploads and downloads ask for, as requests say it.
    pub(crate) fn traffic_class(&self) -> i32 {
        let class = self.0.config.traffic_class.map(pb::TrafficClass::from);
        class.unwrap_or(pb::TrafficClass::Unspecified).into()
    }

    pub(crate) fn peers(&self) -> &Peers {
        &self.0.peers
    }

    pub(crate) fn gatherers(&self) -> &Gatherers {
        &self.0.gatherers
    }

    pub(crate) fn authorization(&self) -> Option<&MetadataValue<Ascii>> {
        self.0.authorization.as_ref()
    }

    pub(crate) fn farewells(&self) -> &TaskTracker {
        &self.0.farewells
    }
}

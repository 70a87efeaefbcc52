//! Connections: one service, a few HTTP/2 connections to it, made when they are first used.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use proto::limits;
use proto::pb::chunk_service_client::ChunkServiceClient;
use proto::pb::cluster_service_client::ClusterServiceClient;
use proto::pb::metadata_service_client::MetadataServiceClient;
use proto::tls::Dialer;
use proto::tls::exposure::may_send_secrets;
use tonic::transport::{Channel, Endpoint};

use crate::error::{Call, Error, Service};
use crate::gather::{Gatherer, Reads, Writes};

/// One HTTP/2 connection is served by one task on each side; a few carry bulk better than one.
const CONNECTIONS_PER_NODE: usize = 4;
/// Addresses that chunk services had at some time are forgotten beyond this number.
const NODES_REMEMBERED: usize = 1024;
/// What a connection may hold that was not taken up yet. A stream that waits for its turn keeps its window full; with
/// less than this it would hold up the streams that it waits for.
const CONNECTION_WINDOW_BYTES: u32 = limits::HTTP2_STREAMS_PER_CONNECTION * limits::HTTP2_STREAM_WINDOW_BYTES;
/// Largest frame that a chunk service may announce; a larger one would be a waste of memory.
const FRAME_BYTES_ACCEPTED: u64 = 4 * limits::MIB;

/// A service at an endpoint.
pub(crate) struct Peer {
    service: Service,
    endpoint: String,
    settings: Endpoint,
    dialer: Dialer,
    connections: Vec<OnceLock<Channel>>,
    next: AtomicUsize,
    /// Where calls to a node about small chunks meet.
    pub(crate) writes: Gatherer<Writes>,
    pub(crate) reads: Gatherer<Reads>,
    /// It has answered before, so a failure is more likely a restart than a wrong address.
    answered: AtomicBool,
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.service, self.endpoint)
    }
}

impl Peer {
    fn new(
        service: Service,
        endpoint: &str,
        connections: usize,
        dialing: &Dialing,
    ) -> Result<Self, tonic::transport::Error> {
        let settings = Endpoint::from_shared(endpoint.to_owned())?
            .connect_timeout(dialing.timeout)
            .initial_stream_window_size(limits::HTTP2_STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(limits::HTTP2_FRAME_BYTES)
            .http2_keep_alive_interval(limits::HTTP2_KEEPALIVE_INTERVAL)
            .keep_alive_timeout(limits::HTTP2_KEEPALIVE_TIMEOUT);
        Ok(Self {
            service,
            endpoint: endpoint.to_owned(),
            settings,
            dialer: dialing.dialer.clone(),
            connections: std::iter::repeat_with(OnceLock::new).take(connections).collect(),
            next: AtomicUsize::new(0),
            writes: Gatherer::default(),
            reads: Gatherer::default(),
            answered: AtomicBool::new(false),
        })
    }

    /// A call to this service, for error messages.
    pub(crate) fn call(&self, operation: impl Into<String>) -> Call {
        Call { operation: operation.into(), service: self.service, endpoint: self.endpoint.clone() }
    }

    pub(crate) fn has_answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    pub(crate) fn mark_answered(&self) {
        self.answered.store(true, Ordering::Relaxed);
    }

    /// The connections in turn. Must be called within a runtime: a new connection's task is started there.
    fn channel(&self) -> Channel {
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.connections.len().max(1);
        let slot = self.connections.get(turn);
        let connect = || self.settings.connect_with_connector_lazy(self.dialer.clone());
        slot.map_or_else(connect, |slot| slot.get_or_init(connect).clone())
    }

    pub(crate) fn metadata_client(&self) -> MetadataServiceClient<Channel> {
        MetadataServiceClient::new(self.channel()).max_decoding_message_size(limits::METADATA_RESPONSE_BYTES_MAX)
    }

    pub(crate) fn cluster_client(&self) -> ClusterServiceClient<Channel> {
        ClusterServiceClient::new(self.channel()).max_decoding_message_size(limits::METADATA_RESPONSE_BYTES_MAX)
    }

    /// `frame_bytes_max` is what the metadata service announced.
    pub(crate) fn chunk_client(&self, frame_bytes_max: u64) -> ChunkServiceClient<Channel> {
        let frame_bytes = frame_bytes_max.clamp(limits::FRAME_BYTES_MAX, FRAME_BYTES_ACCEPTED);
        let message_bytes = usize::try_from(frame_bytes + 64 * limits::KIB).unwrap_or(limits::CHUNK_MESSAGE_BYTES_MAX);
        ChunkServiceClient::new(self.channel()).max_decoding_message_size(message_bytes)
    }
}

/// The metadata service and the chunk services met so far.
#[derive(Debug)]
pub(crate) struct Peers {
    metadata: Peer,
    nodes: Mutex<HashMap<String, Arc<Peer>>>,
    dialing: Dialing,
}

/// How connections are opened.
#[derive(Debug)]
pub(crate) struct Dialing {
    pub(crate) dialer: Dialer,
    pub(crate) timeout: Duration,
    /// Capabilities go to other machines also without TLS.
    pub(crate) insecure_plaintext: bool,
}

impl Peers {
    pub(crate) fn new(metadata: &str, dialing: Dialing) -> Result<Self, tonic::transport::Error> {
        let metadata = Peer::new(Service::Metadata, metadata, 1, &dialing)?;
        Ok(Self { metadata, nodes: Mutex::default(), dialing })
    }

    pub(crate) fn metadata(&self) -> &Peer {
        &self.metadata
    }

    /// The chunk service at an endpoint that the metadata service named.
    ///
    /// # Errors
    /// [`Error::Invalid`] when a capability would go there unencrypted; [`Error::Protocol`] when it is no endpoint.
    pub(crate) fn node(&self, endpoint: &str) -> Result<Arc<Peer>, Error> {
        may_send_secrets(endpoint, self.dialing.insecure_plaintext)
            .map_err(|refused| Error::Invalid { what: "endpoint of a chunk service", problem: refused.to_string() })?;
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(peer) = nodes.get(endpoint) {
            return Ok(Arc::clone(peer));
        }
        let peer = Peer::new(Service::Chunk, endpoint, CONNECTIONS_PER_NODE, &self.dialing);
        let peer = Arc::new(peer.map_err(|_malformed| Error::Protocol {
            call: Box::new(self.metadata.call("find a chunk service")),
            problem: format!("the malformed endpoint '{endpoint}'"),
        })?);
        if nodes.len() >= NODES_REMEMBERED {
            nodes.clear();
        }
        nodes.insert(endpoint.to_owned(), Arc::clone(&peer));
        Ok(peer)
    }
}

//! A chunk service in its own folder, a peer, and a client that speaks the protocol by hand.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use chunk_service::{ChunkError, Config, Deps, Running};
use proto::capability::ChunkBinding;
use proto::checksum::crc32c;
use proto::pb;
use proto::pb::chunk_service_client::ChunkServiceClient;
use proto::runtime::{folder, transport};
use proto::status::{WireError, from_status};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic::{IntoRequest, Request, Status};

use crate::peer::{Listening, Peer};

pub(crate) const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);
const DEADLINE: Duration = Duration::from_secs(30);

/// Waits until a condition holds; what is waited for is shown when it does not.
pub(crate) async fn wait_until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waited = tokio::time::timeout(DEADLINE, async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_ok(), "{what}: not within {DEADLINE:?}");
}

/// A service with its surroundings.
pub(crate) struct World {
    /// Removed with the world.
    _folder: tempfile::TempDir,
    pub(crate) peer: Peer,
    pub(crate) metadata: Option<Listening>,
    pub(crate) running: Option<Running>,
    pub(crate) config: Config,
}

impl World {
    /// Everything is up.
    pub(crate) async fn start() -> Self {
        Self::start_with(|_config| {}).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let mut world = Self::prepare().await;
        change(&mut world.config);
        world.start_service().await.unwrap();
        world
    }

    /// The peer is up, the service is not.
    pub(crate) async fn prepare() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let peer = Peer::new();
        let metadata = peer.listen(ANY_PORT).await;
        let mut config = Config::new(folder.path().join("storage"));
        config.metadata = format!("http://{}", metadata.address);
        config.drain = Duration::from_secs(5);
        config.tuning.chunk_low_watermark = 0;
        let world = Self { _folder: folder, peer, metadata: Some(metadata), running: None, config };
        std::fs::create_dir_all(&world.config.storage).unwrap();
        let token = world.peer.state().join.expose();
        folder::publish(&world.config.storage.join("join.token"), format!("{}\n", token.as_str()).as_bytes()).unwrap();
        world
    }

    pub(crate) async fn start_service(&mut self) -> Result<(), ChunkError> {
        let listener = transport::bind(ANY_PORT).await.unwrap();
        let starting = chunk_service::start(self.config.clone(), listener, Deps::default(), CancellationToken::new());
        self.running = Some(tokio::time::timeout(DEADLINE, starting).await.unwrap()?);
        Ok(())
    }

    pub(crate) async fn stop_service(&mut self) -> bool {
        self.running.take().unwrap().shutdown().await
    }

    pub(crate) async fn restart_service(&mut self) {
        self.stop_service().await;
        self.start_service().await.unwrap();
    }

    /// Nobody listens where the metadata service was; returns where that is.
    pub(crate) async fn stop_metadata(&mut self) -> SocketAddr {
        let metadata = self.metadata.take().unwrap();
        let address = metadata.address;
        metadata.stop().await;
        address
    }

    pub(crate) fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.running().endpoint()).await
    }

    pub(crate) fn chunks(&self) -> PathBuf {
        self.config.storage.join("chunks")
    }

    pub(crate) fn blob_path(&self, place: &ChunkBinding) -> PathBuf {
        self.chunks().join(format!("{}.blob", place.chunk))
    }

    pub(crate) fn chk_path(&self, place: &ChunkBinding) -> PathBuf {
        self.chunks().join(format!("{}.blob.chk", place.chunk))
    }

    /// Puts bytes as a new chunk, sealed at the peer.
    pub(crate) async fn put(&self, bytes: &[u8]) -> ChunkBinding {
        let place = Peer::place();
        self.peer.open(&place);
        let capability = self.peer.may_write(place, bytes.len() as u64);
        self.client().await.put(&place, &capability, bytes).await.unwrap();
        self.peer.seal(&place, bytes);
        place
    }

    pub(crate) async fn get(&self, place: &ChunkBinding, bytes: &[u8]) -> Result<Vec<u8>, WireError> {
        let capability = self.peer.may_read(*place, bytes);
        self.client().await.read(place, &capability, 0, 0).await
    }
}

/// Speaks ChunkService by hand.
#[derive(Debug, Clone)]
pub(crate) struct Client(pub(crate) ChunkServiceClient<Channel>);

pub(crate) fn with_capability<T>(message: impl IntoRequest<T>, capability: &str) -> Request<T> {
    let mut request = message.into_request();
    let value = format!("Bearer {capability}").parse().unwrap();
    request.metadata_mut().insert("authorization", value);
    request
}

/// One WriteChunk message with a frame.
pub(crate) fn frame(offset: usize, content: &[u8]) -> pb::WriteChunkRequest {
    let data = pb::ChunkData { content: Bytes::copy_from_slice(content), crc32c: Some(crc32c(content)) };
    pb::WriteChunkRequest { write_offset: offset as u64, data: Some(data), ..Default::default() }
}

/// The messages of a whole write from `from` on.
pub(crate) fn messages(
    place: &ChunkBinding,
    bytes: &[u8],
    from: usize,
    frame_bytes: usize,
) -> Vec<pb::WriteChunkRequest> {
    let mut messages: Vec<_> = bytes[from..]
        .chunks(frame_bytes)
        .enumerate()
        .map(|(index, content)| frame(from + index * frame_bytes, content))
        .collect();
    if messages.is_empty() {
        messages.push(pb::WriteChunkRequest { write_offset: from as u64, ..Default::default() });
    }
    let size_bytes = Some(bytes.len() as u64);
    messages[0].spec = Some(pb::WriteChunkSpec { chunk_id: place.chunk.to_string(), size_bytes });
    let last = messages.last_mut().unwrap();
    last.finish_write = true;
    last.checksums = Some(pb::ChunkChecksums { sha256: proto::checksum::Sha256::of(bytes).to_string() });
    messages
}

impl Client {
    pub(crate) async fn connect(endpoint: String) -> Self {
        let endpoint = Endpoint::from_shared(endpoint)
            .unwrap()
            .initial_stream_window_size(proto::limits::HTTP2_STREAM_WINDOW_BYTES)
            .initial_connection_window_size(proto::limits::HTTP2_CONNECTION_WINDOW_BYTES)
            .http2_max_header_list_size(64 * 1024);
        Self(ChunkServiceClient::new(endpoint.connect().await.unwrap()).max_decoding_message_size(2 * 1024 * 1024))
    }

    pub(crate) async fn send(
        &self,
        capability: &str,
        messages: Vec<pb::WriteChunkRequest>,
    ) -> Result<pb::WriteChunkResponse, WireError> {
        let request = with_capability(tokio_stream::iter(messages), capability);
        answer(self.0.clone().write_chunk(request).await)
    }

    pub(crate) async fn put(
        &self,
        place: &ChunkBinding,
        capability: &str,
        bytes: &[u8],
    ) -> Result<pb::WriteChunkResponse, WireError> {
        self.send(capability, messages(place, bytes, 0, 256 * 1024)).await
    }

    pub(crate) async fn status(
        &self,
        place: &ChunkBinding,
        capability: &str,
    ) -> Result<pb::QueryWriteStatusResponse, WireError> {
        let request = pb::QueryWriteStatusRequest { chunk_id: place.chunk.to_string() };
        answer(self.0.clone().query_write_status(with_capability(request, capability)).await)
    }

    /// Reads a range, checking each message's place and sum.
    pub(crate) async fn read(
        &self,
        place: &ChunkBinding,
        capability: &str,
        offset: u64,
        limit: u64,
    ) -> Result<Vec<u8>, WireError> {
        Ok(self.read_messages(place, capability, offset, limit).await?.concat())
    }

    pub(crate) async fn read_messages(
        &self,
        place: &ChunkBinding,
        capability: &str,
        offset: u64,
        limit: u64,
    ) -> Result<Vec<Vec<u8>>, WireError> {
        let request =
            pb::ReadChunkRequest { chunk_id: place.chunk.to_string(), read_offset: offset, read_limit: limit };
        let mut stream = answer(self.0.clone().read_chunk(with_capability(request, capability)).await)?;
        let (mut frames, mut at) = (Vec::new(), offset);
        while let Some(message) = stream.message().await.map_err(|status| from_status(&status))? {
            assert_eq!(message.chunk.is_some(), frames.is_empty() && at == offset, "chunk info comes first, once");
            assert_eq!(message.read_offset, at);
            let Some(data) = message.data else { continue };
            assert_eq!(data.crc32c, Some(crc32c(&data.content)));
            at += data.content.len() as u64;
            frames.push(data.content.to_vec());
        }
        Ok(frames)
    }

    pub(crate) async fn get_chunk(&self, place: &ChunkBinding, capability: &str) -> Result<pb::ChunkInfo, WireError> {
        let request = pb::GetChunkRequest { chunk_id: place.chunk.to_string() };
        answer(self.0.clone().get_chunk(with_capability(request, capability)).await).map(|got| got.chunk.unwrap())
    }

    pub(crate) async fn verify(
        &self,
        place: &ChunkBinding,
        capability: &str,
        repair: bool,
    ) -> Result<pb::VerifyChunkResponse, WireError> {
        let request = pb::VerifyChunkRequest { chunk_id: place.chunk.to_string(), repair };
        answer(self.0.clone().verify_chunk(with_capability(request, capability)).await)
    }

    /// All messages of a listing.
    pub(crate) async fn list(
        &self,
        capability: &str,
        with_checksum_files: bool,
    ) -> Result<Vec<pb::ListChunksResponse>, WireError> {
        let request = pb::ListChunksRequest { with_checksum_files };
        let mut stream = answer(self.0.clone().list_chunks(with_capability(request, capability)).await)?;
        let mut messages = Vec::new();
        while let Some(message) = stream.message().await.map_err(|status| from_status(&status))? {
            messages.push(message);
        }
        Ok(messages)
    }

    pub(crate) async fn delete(&self, place: &ChunkBinding, capability: &str) -> Result<(), WireError> {
        let request = pb::DeleteChunkRequest { chunk_id: place.chunk.to_string() };
        answer(self.0.clone().delete_chunk(with_capability(request, capability)).await).map(drop)
    }
}

fn answer<T>(outcome: Result<tonic::Response<T>, Status>) -> Result<T, WireError> {
    outcome.map(tonic::Response::into_inner).map_err(|status| from_status(&status))
}

/// Bytes that differ everywhere.
pub(crate) fn pattern(size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    proto::entropy::Entropy::fill(&proto::entropy::SeededEntropy::new(size as u64), &mut bytes);
    bytes
}

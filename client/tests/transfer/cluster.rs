//! Both services in one process over one temporary folder, each on a runtime of its own, so that it can be killed alone.

use std::fmt::Debug;
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mini_tectonic_client::{
    Blob, BlobId, ByteRange, Client, ClientConfig, DownloadOptions, Error, Sink, Source, UploadOptions, pb,
};
use proto::entropy::{Entropy as _, OsEntropy, SeededEntropy};
use proto::runtime::{Clock, SystemClock};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::proxy::Proxy;

/// How long anything may take before a test fails.
pub(crate) const DEADLINE: Duration = Duration::from_secs(120);

pub(crate) const KIB: usize = 1024;
pub(crate) const MIB: usize = 1024 * KIB;

/// The block size that tests use, so that a few megabytes are several blocks.
pub(crate) const BLOCK: usize = MIB;

/// A service and the runtime that it runs on.
struct Hosted<R> {
    address: SocketAddr,
    running: Option<R>,
    runtime: Option<Runtime>,
}

impl<R: Send + 'static> Hosted<R> {
    async fn start<F, E>(address: SocketAddr, start: impl Fn(TcpListener) -> F) -> Self
    where
        F: Future<Output = Result<R, E>> + Send + 'static,
        E: Debug + Send + 'static,
    {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        // Port and folder of a service that was just killed may be held for a moment by its last threads.
        let (address, running) = eventually("start", async || {
            let listener = TcpListener::bind(address).await.map_err(|error| error.to_string())?;
            let (address, listener) = (listener.local_addr().unwrap(), listener.into_std().unwrap());
            let entered = runtime.enter();
            let starting = start(TcpListener::from_std(listener).unwrap());
            drop(entered);
            let running = runtime.spawn(starting).await.unwrap().map_err(|error| format!("{error:?}"))?;
            Ok::<_, String>((address, running))
        })
        .await;
        Self { address, running: Some(running), runtime: Some(runtime) }
    }

    /// As kill -9 would: nothing is drained, nothing closed in order. Returns when it is gone.
    async fn kill(&mut self) {
        drop(self.running.take());
        let runtime = self.runtime.take().unwrap();
        tokio::task::spawn_blocking(move || runtime.shutdown_timeout(DEADLINE)).await.unwrap();
    }
}

impl<R> Drop for Hosted<R> {
    fn drop(&mut self) {
        drop(self.running.take());
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// What a cluster is made of.
pub(crate) struct Settings {
    pub(crate) metadata: metadata_service::config::Tuning,
    pub(crate) chunk: chunk_service::config::Tuning,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Default for Settings {
    fn default() -> Self {
        let metadata = metadata_service::config::Tuning {
            block_bytes: BLOCK as u64,
            block_bytes_unknown_size: BLOCK as u64,
            ..Default::default()
        };
        Self { metadata, chunk: chunk_service::config::Tuning::default(), clock: Arc::new(SystemClock) }
    }
}

pub(crate) struct Cluster {
    settings: Settings,
    folder: TempDir,
    metadata: Hosted<metadata_service::Running>,
    chunk: Hosted<chunk_service::Running>,
    /// What clients reach the chunk service through.
    pub(crate) proxy: Arc<Proxy>,
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        Self::with(Settings::default()).await
    }

    pub(crate) async fn with(settings: Settings) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let proxy = Arc::new(Proxy::start().await);
        let metadata = start_metadata(&settings, folder.path(), any()).await;
        let chunk = start_chunk(&settings, folder.path(), metadata.address, proxy.address(), any()).await;
        proxy.forward_to(chunk.address);
        Self { settings, folder, metadata, chunk, proxy }
    }

    /// A path at which nothing is yet.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn chunks_folder(&self) -> PathBuf {
        self.path("storage/chunks")
    }

    pub(crate) fn metadata_address(&self) -> SocketAddr {
        self.metadata.address
    }

    pub(crate) fn config(&self) -> ClientConfig {
        ClientConfig::new(format!("http://{}", self.metadata.address))
    }

    pub(crate) fn admin(&self) -> Client {
        let token = std::fs::read_to_string(self.path("storage/admin.token")).unwrap();
        Client::new(self.config().with_token(token)).unwrap()
    }

    /// Registers a tenant and returns its client.
    pub(crate) async fn tenant(&self, id: &str, quota: pb::Quota) -> Client {
        let registered = self.admin().register_tenant(&id.parse().unwrap(), quota).await.unwrap();
        Client::new(self.config().with_token(registered.token.as_str())).unwrap()
    }

    pub(crate) async fn unlimited(&self, id: &str) -> Client {
        self.tenant(id, pb::Quota::default()).await
    }

    /// Kills the chunk service and starts it again over the same folder.
    pub(crate) async fn restart_chunk(&mut self) {
        self.kill_chunk().await;
        let (metadata, advertised) = (self.metadata.address, self.proxy.address());
        self.chunk = start_chunk(&self.settings, self.folder.path(), metadata, advertised, self.chunk.address).await;
        self.proxy.forward_to(self.chunk.address);
    }

    /// Kills the metadata service and starts it again over the same folder.
    pub(crate) async fn restart_metadata(&mut self) {
        self.metadata.kill().await;
        self.metadata = start_metadata(&self.settings, self.folder.path(), self.metadata.address).await;
    }

    pub(crate) async fn kill_chunk(&mut self) {
        // A process that is killed says nothing any more; a runtime that is shut down might.
        self.proxy.unplug().await;
        self.chunk.kill().await;
    }

    /// Asserts that no upload of the client's tenant is left open.
    pub(crate) async fn assert_nothing_reserved(&self, client: &Client) {
        let usage = client.get_tenant(None).await.unwrap().usage.unwrap();
        assert_eq!((usage.reserved_bytes, usage.reserved_blobs), (0, 0));
    }

    /// Asserts that no temporary file of a download is left.
    pub(crate) fn assert_no_partial(&self) {
        let names = std::fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let partial: Vec<_> = names.filter(|name| name.to_string_lossy().contains(".partial-")).collect();
        assert!(partial.is_empty(), "{partial:?}");
    }
}

fn any() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

async fn start_metadata(settings: &Settings, folder: &Path, address: SocketAddr) -> Hosted<metadata_service::Running> {
    let mut config = metadata_service::Config::new(folder.join("storage"));
    config.tuning = settings.metadata.clone();
    let deps = metadata_service::Deps { clock: Arc::clone(&settings.clock), entropy: Arc::new(OsEntropy) };
    Hosted::start(address, |listener| {
        metadata_service::start(config.clone(), listener, deps.clone(), CancellationToken::new())
    })
    .await
}

async fn start_chunk(
    settings: &Settings,
    folder: &Path,
    metadata: SocketAddr,
    advertised: SocketAddr,
    address: SocketAddr,
) -> Hosted<chunk_service::Running> {
    let mut config = chunk_service::Config::new(folder.join("storage"));
    config.metadata = format!("http://{metadata}");
    config.advertise = Some(format!("http://{advertised}"));
    config.tuning = settings.chunk.clone();
    let deps = chunk_service::Deps { clock: Arc::clone(&settings.clock), entropy: Arc::new(OsEntropy) };
    Hosted::start(address, |listener| {
        chunk_service::start(config.clone(), listener, deps.clone(), CancellationToken::new())
    })
    .await
}

/// Asks again until the answer is `Ok`, and returns what it holds; fails the test with the last answer.
pub(crate) async fn eventually<T, E: Debug>(what: &str, mut ask: impl AsyncFnMut() -> Result<T, E>) -> T {
    let mut last = None;
    let asking = async {
        loop {
            match ask().await {
                Ok(answer) => return answer,
                Err(error) => last = Some(error),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    match tokio::time::timeout(DEADLINE, asking).await {
        Ok(answer) => answer,
        Err(_elapsed) => panic!("{what}: not within {DEADLINE:?}, last {last:?}"),
    }
}

/// Bytes without a pattern, the same for the same seed.
pub(crate) fn noise(seed: u64, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    SeededEntropy::new(seed).fill(&mut bytes);
    bytes
}

pub(crate) fn write_file(path: &Path, content: &[u8]) {
    #[expect(clippy::disallowed_methods, reason = "a test's input needs no durability")]
    std::fs::write(path, content).unwrap();
}

/// Stores bytes as a stream of unknown size.
pub(crate) async fn put(client: &Client, content: &[u8]) -> Result<Blob, Error> {
    let source = Source::Reader(Box::new(std::io::Cursor::new(content.to_vec())));
    client.upload(source, UploadOptions::default()).await
}

/// Reads a range through a writer.
pub(crate) async fn get_range(client: &Client, blob: BlobId, range: ByteRange) -> Result<Vec<u8>, Error> {
    let memory = Memory::default();
    let options = DownloadOptions { range, ..Default::default() };
    let downloaded = client.download(blob, options, Sink::Writer(Box::new(memory.clone()))).await?;
    let content = memory.take();
    assert_eq!(downloaded.bytes, content.len() as u64);
    Ok(content)
}

/// Reads a whole blob through a writer.
pub(crate) async fn get(client: &Client, blob: BlobId) -> Result<Vec<u8>, Error> {
    get_range(client, blob, ByteRange::default()).await
}

/// A writer that keeps what it is given.
#[derive(Clone, Default)]
pub(crate) struct Memory(Arc<std::sync::Mutex<Vec<u8>>>);

impl Memory {
    pub(crate) fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl std::io::Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

//! A whole cluster in one process: each service on its own runtime, so that it can be killed alone.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mini_tectonic_client::{Blob, Client, ClientConfig, DownloadOptions, ListOptions, Sink, Source, UploadOptions};
use proto::checksum::Sha256;
use proto::entropy::OsEntropy;
use proto::ids::{BlobId, TenantId};
use proto::pb;
use proto::runtime::{Clock, SystemClock};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_stream::StreamExt as _;
use tokio_util::sync::CancellationToken;

use crate::wait::wait_until;

/// How long anything may take before a test gives up.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// A service on its own runtime.
struct Hosted<R> {
    runtime: Option<Runtime>,
    running: Option<R>,
    address: SocketAddr,
}

impl<R> Hosted<R> {
    /// As kill -9 would: nothing is drained, nothing is closed in order.
    fn kill(&mut self) {
        drop(self.running.take());
        if let Some(runtime) = self.runtime.take() {
            tokio::task::block_in_place(|| runtime.shutdown_timeout(DEADLINE));
        }
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

fn new_runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// What a cluster is made of.
pub(crate) struct Builder {
    metadata: metadata_service::config::Tuning,
    chunk: chunk_service::config::Tuning,
    clock: Arc<dyn Clock>,
}

impl Builder {
    /// Changes the metadata service's settings.
    pub(crate) fn metadata(mut self, change: impl FnOnce(&mut metadata_service::config::Tuning)) -> Self {
        change(&mut self.metadata);
        self
    }

    /// Gives both services this clock.
    pub(crate) fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Starts both services in fresh folders on free ports.
    pub(crate) async fn build(self) -> Cluster {
        self.build_in(tempfile::tempdir().unwrap()).await
    }

    /// Starts both services on free ports over what is in `storage` in this folder.
    pub(crate) async fn build_in(self, folder: TempDir) -> Cluster {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let metadata = start_metadata(&self, folder.path(), any).await;
        let chunk = start_chunk(&self, folder.path(), metadata.address, any).await;
        Cluster { settings: self, folder, metadata, chunk, tenants: BTreeMap::new() }
    }
}

/// Starts a service on a runtime of its own. A killed one lets go of its folder and port a little after its end, so a
/// start that finds them taken is repeated until they are free.
async fn host<R, E, S, F>(address: SocketAddr, start: S) -> (R, Runtime)
where
    R: Send + 'static,
    E: Debug + Send + 'static,
    S: Fn(TcpListener) -> F,
    F: Future<Output = Result<R, E>> + Send + 'static,
{
    let attempt = || async {
        let runtime = new_runtime();
        let listener = {
            let _inside = runtime.enter();
            let bound = std::net::TcpListener::bind(address).map_err(|error| error.to_string())?;
            bound.set_nonblocking(true).unwrap();
            TcpListener::from_std(bound).unwrap()
        };
        match runtime.spawn(start(listener)).await.unwrap() {
            Ok(running) => Ok((running, runtime)),
            Err(error) => {
                runtime.shutdown_background();
                Err(format!("{error:?}"))
            }
        }
    };
    wait_until("a service starts", DEADLINE, attempt).await
}

async fn start_metadata(settings: &Builder, folder: &Path, address: SocketAddr) -> Hosted<metadata_service::Running> {
    let mut config = metadata_service::Config::new(folder.join("storage"));
    config.tuning = settings.metadata.clone();
    let start = |listener| {
        let deps = metadata_service::Deps { clock: Arc::clone(&settings.clock), entropy: Arc::new(OsEntropy) };
        metadata_service::start(config.clone(), listener, deps, CancellationToken::new())
    };
    let (running, runtime) = host(address, start).await;
    Hosted { address: running.address(), runtime: Some(runtime), running: Some(running) }
}

async fn start_chunk(
    settings: &Builder,
    folder: &Path,
    metadata: SocketAddr,
    address: SocketAddr,
) -> Hosted<chunk_service::Running> {
    let mut config = chunk_service::Config::new(folder.join("storage"));
    config.metadata = format!("http://{metadata}");
    config.tuning = settings.chunk.clone();
    let start = |listener| {
        let deps = chunk_service::Deps { clock: Arc::clone(&settings.clock), entropy: Arc::new(OsEntropy) };
        chunk_service::start(config.clone(), listener, deps, CancellationToken::new())
    };
    let (running, runtime) = host(address, start).await;
    Hosted { address: running.address(), runtime: Some(runtime), running: Some(running) }
}

/// One metadata service and one chunk service over one storage folder.
pub(crate) struct Cluster {
    settings: Builder,
    folder: TempDir,
    metadata: Hosted<metadata_service::Running>,
    chunk: Hosted<chunk_service::Running>,
    tenants: BTreeMap<TenantId, String>,
}

impl Cluster {
    /// Default settings, real time.
    pub(crate) fn builder() -> Builder {
        Builder {
            metadata: metadata_service::config::Tuning::default(),
            chunk: chunk_service::config::Tuning::default(),
            clock: Arc::new(SystemClock),
        }
    }

    pub(crate) fn storage(&self) -> PathBuf {
        self.folder.path().join("storage")
    }

    pub(crate) fn chunks_folder(&self) -> PathBuf {
        self.storage().join("chunks")
    }

    /// Where nothing of the services is.
    pub(crate) fn scratch(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn metadata_endpoint(&self) -> String {
        format!("http://{}", self.metadata.address)
    }

    pub(crate) fn chunk_endpoint(&self) -> String {
        format!("http://{}", self.chunk.address)
    }

    pub(crate) fn metadata(&self) -> &metadata_service::Running {
        self.metadata.running.as_ref().expect("the metadata service runs")
    }

    pub(crate) fn chunk(&self) -> &chunk_service::Running {
        self.chunk.running.as_ref().expect("the chunk service runs")
    }

    /// A client with the operator's token.
    pub(crate) fn admin(&self) -> Client {
        self.client(&self.admin_token())
    }

    pub(crate) fn admin_token(&self) -> String {
        std::fs::read_to_string(self.storage().join("admin.token")).unwrap().trim().to_owned()
    }

    pub(crate) fn client(&self, token: &str) -> Client {
        Client::new(ClientConfig::new(self.metadata_endpoint()).with_token(token)).unwrap()
    }

    /// Registers a tenant and returns a client with its token.
    pub(crate) async fn tenant(&mut self, id: &str, quota: pb::Quota) -> Client {
        let tenant: TenantId = id.parse().unwrap();
        let registered = self.admin().register_tenant(&tenant, quota).await.unwrap();
        let token = registered.token.to_string();
        let client = self.client(&token);
        self.tenants.insert(tenant, token);
        client
    }

    /// The token of a tenant that was registered here.
    pub(crate) fn token(&self, tenant: &str) -> &str {
        &self.tenants[&tenant.parse::<TenantId>().unwrap()]
    }

    /// A client with a fresh token of a tenant that was registered before.
    pub(crate) async fn known_tenant(&mut self, id: &str) -> Client {
        let tenant: TenantId = id.parse().unwrap();
        let token = self.admin().rotate_tenant_token(Some(&tenant)).await.unwrap().to_string();
        let client = self.client(&token);
        self.tenants.insert(tenant, token);
        client
    }

    /// Ends the metadata service without a drain; [`Cluster::restart_metadata`] brings it back.
    pub(crate) fn kill_metadata(&mut self) {
        self.metadata.kill();
    }

    /// The same folder and address again.
    pub(crate) async fn restart_metadata(&mut self) {
        self.metadata.kill();
        self.metadata = start_metadata(&self.settings, self.folder.path(), self.metadata.address).await;
    }

    /// Ends the chunk service without a drain; [`Cluster::restart_chunk`] brings it back.
    pub(crate) fn kill_chunk(&mut self) {
        self.chunk.kill();
    }

    /// The chunk service starts once with `--rejoin`.
    pub(crate) async fn rejoin_chunk(&mut self) {
        self.settings.chunk.rejoin = true;
        self.restart_chunk().await;
        self.settings.chunk.rejoin = false;
    }

    pub(crate) async fn restart_chunk(&mut self) {
        self.chunk.kill();
        let (metadata, own) = (self.metadata.address, self.chunk.address);
        self.chunk = start_chunk(&self.settings, self.folder.path(), metadata, own).await;
    }

    /// Every invariant that can be seen from outside: every listed blob reads back with its sum (I1, I2), what is used
    /// is the sum of what is listed and nothing stays reserved (I3, I11), and every complete pair of files verifies.
    pub(crate) async fn check(&self) {
        for (tenant, token) in &self.tenants {
            let client = self.client(token);
            let blobs: Vec<Blob> = client.list_blobs(ListOptions::default()).collect::<Result<_, _>>().await.unwrap();
            for blob in &blobs {
                let bytes = get(&client, blob.blob_id).await;
                assert_eq!((bytes.len() as u64, Sha256::of(&bytes)), (blob.size_bytes, blob.sha256), "{blob:?}");
            }
            let usage = client.get_tenant(None).await.unwrap().usage.unwrap();
            let bytes: u64 = blobs.iter().map(|blob| blob.size_bytes).sum();
            assert_eq!((usage.used_bytes, usage.used_blobs), (bytes, blobs.len() as u64), "usage of {tenant}");
        }
        for entry in std::fs::read_dir(self.chunks_folder()).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "chk") {
                check_pair(&path);
            }
        }
    }
}

/// Reads a checksum file as `sha256sum -c` would.
fn check_pair(chk: &Path) {
    let text = std::fs::read_to_string(chk).unwrap();
    let line = text.lines().find(|line| !line.starts_with('#')).unwrap();
    let (sum, name) = line.split_once("  ").unwrap();
    let bytes = std::fs::read(chk.with_file_name(name)).unwrap();
    assert_eq!(Sha256::of(&bytes).to_string(), sum, "{}", chk.display());
}

/// Bytes that differ from place to place, so that a misplaced frame cannot go unnoticed.
pub(crate) fn content(size: usize, seed: u64) -> Vec<u8> {
    let entropy = proto::entropy::SeededEntropy::new(seed);
    let mut bytes = vec![0; size];
    proto::entropy::Entropy::fill(&entropy, &mut bytes);
    bytes
}

/// Uploads bytes from memory, as from a pipe: the size is not known beforehand.
pub(crate) async fn put(client: &Client, name: &str, bytes: &[u8]) -> Blob {
    let source = Source::Reader(Box::new(std::io::Cursor::new(bytes.to_vec())));
    let options = UploadOptions { display_name: name.to_owned(), ..UploadOptions::default() };
    client.upload(source, options).await.unwrap()
}

/// Uploads a file of known size.
pub(crate) async fn put_file(client: &Client, path: &Path, bytes: &[u8]) -> Blob {
    std::fs::write(path, bytes).unwrap();
    client.upload(Source::File(path.to_path_buf()), UploadOptions::default()).await.unwrap()
}

/// Downloads a blob into memory.
pub(crate) async fn get(client: &Client, blob: BlobId) -> Vec<u8> {
    let shared = SharedBuffer::default();
    let sink = Sink::Writer(Box::new(shared.clone()));
    client.download(blob, DownloadOptions::default(), sink).await.unwrap();
    shared.take()
}

/// A writer whose bytes can be taken afterwards.
#[derive(Clone, Default)]
pub(crate) struct SharedBuffer(Arc<std::sync::Mutex<Vec<u8>>>);

impl SharedBuffer {
    pub(crate) fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl std::io::Write for SharedBuffer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

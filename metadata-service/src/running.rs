//! Starting and stopping.
//!
//! Start: check the settings and the address, lock and recover the storage folder, load the registry, begin to answer
//! with health at "not serving", start the workers, turn health on. Stop: health off, no new connections, let calls end
//! within the drain, stop the workers, close the engine, release the lock. A stop promises no more than a kill does:
//! whatever was answered is durable either way.
//!
//! Health goes off for good when no writes are taken any more (I19); reads are answered on.

mod health;
mod workers;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use proto::entropy::{Entropy, OsEntropy};
use proto::failpoint;
use proto::ids::ClusterId;
use proto::runtime::folder::FolderLock;
use proto::runtime::tls::{self, Tls};
use proto::runtime::transport::{self, ConnectionCounts, Door, Gate, Router};
use proto::runtime::worker::Pass;
use proto::runtime::{Clock, SystemClock, TaskGroup};
use proto::tls::exposure::Listening;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::health::{Health, SERVED};
use crate::audit::Audit;
use crate::auth::Authenticator;
use crate::config::Config;
use crate::error::StartError;
use crate::grpc::{cluster_server, metadata_server};
use crate::mint::Mint;
use crate::nodes::{self, NodeLink, Registry};
use crate::service::{Front, Parts, Service};
use crate::storage::{self, Opening, Paths, Storage};
use crate::store::engine::Engine;
use crate::workers::board::WorkerName;

/// What a service takes from the machine, so that tests can bring their own.
#[derive(Debug, Clone)]
pub struct Deps {
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Draws ids, secrets and nonces.
    pub entropy: Arc<dyn Entropy>,
}

impl Default for Deps {
    fn default() -> Self {
        Self { clock: Arc::new(SystemClock), entropy: Arc::new(OsEntropy) }
    }
}

/// A service that answers.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    drain: Duration,
    service: Service,
    engine: Arc<dyn Engine>,
    paths: Paths,
    lock: FolderLock,
    health: Health,
    gate: Arc<Gate>,
    tls: Arc<Tls>,
    tasks: TaskGroup,
    stop_serving: CancellationToken,
    served: Served,
}

/// How the server ended, once it has.
type Served = tokio::sync::watch::Receiver<Option<bool>>;

/// Starts a service on the listener; returns when it is ready.
///
/// # Errors
/// [`StartError`]: a setting, the address, the folder, or `stop` fired first.
pub async fn start(
    config: Config,
    listener: TcpListener,
    deps: Deps,
    stop: CancellationToken,
) -> Result<Running, StartError> {
    config.check()?;
    let address = listener.local_addr().map_err(StartError::Listener)?;
    let listening = Listening {
        address,
        tls: config.tls.is_on(),
        auth: !config.tuning.insecure_no_auth,
        insecure_plaintext: config.network.insecure_plaintext,
    };
    let exposed = listening.judge()?;
    for warning in &exposed {
        tracing::warn!("{warning}");
    }
    let tls = Tls::open(&config.tls, &config.network, Arc::clone(&deps.clock))?;
    let front = Front { gate: Gate::new(config.transport.clone()), tls, exposed };
    let opening = Opening { tuning: &config.tuning, entropy: deps.entropy.as_ref(), now_ms: deps.clock.now_ms() };
    let storage = storage::open(&config.storage, opening).await?;
    let started = start_on(&config, listener, front, &deps, storage).await?;
    if stop.is_cancelled() {
        started.shutdown().await;
        return Err(StartError::Stopped);
    }
    Ok(started)
}

async fn start_on(
    config: &Config,
    listener: TcpListener,
    front: Front,
    deps: &Deps,
    storage: Storage,
) -> Result<Running, StartError> {
    if config.tuning.reissue_join_token {
        storage::reissue_join_token(&storage, deps.entropy.as_ref()).await?;
    }
    if config.tuning.reissue_admin_token {
        storage::reissue_admin_token(&storage, deps.entropy.as_ref()).await?;
    }
    let address = listener.local_addr().map_err(StartError::Listener)?;
    let Storage { lock, engine, cluster, paths } = storage;
    let registry = Registry::new(cluster.secret.clone(), &config.tuning);
    nodes::load(engine.as_ref(), &registry, &paths.metadata).await?;
    failpoint!("start.nodes_loaded");
    let (tasks, registry) = (TaskGroup::new(), Arc::new(registry));
    let mint = Mint {
        cluster: cluster.id,
        life: config.tuning.capability_life,
        registry: Arc::clone(&registry),
        clock: Arc::clone(&deps.clock),
        entropy: Arc::clone(&deps.entropy),
    };
    let service = Service::new(Parts {
        engine: Arc::clone(&engine),
        cluster,
        tuning: config.tuning.clone(),
        registry,
        chunk_nodes: Arc::new(NodeLink::new(mint.clone(), front.tls.dialer(), config.network.insecure_plaintext)),
        mint,
        clock: Arc::clone(&deps.clock),
        entropy: Arc::clone(&deps.entropy),
        tasks: tasks.clone(),
        admin_token: Some(paths.admin_token.clone()),
        audit: Audit::at(paths.metadata.join("audit.log"), Arc::clone(&deps.clock)),
        front: front.clone(),
    });
    let unreadable = |source| StartError::Engine { folder: paths.metadata.clone(), source };
    workers::load(&service).await.map_err(unreadable)?;
    let (health, router) = router(&service).await?;
    let stop_serving = CancellationToken::new();
    let Front { gate, tls, .. } = front;
    let (gate_of_door, tls_of_door) = (Arc::clone(&gate), Arc::clone(&tls));
    let door = Door { listener, gate: gate_of_door, tls: tls_of_door, background: None, drain: config.drain };
    tasks.spawn("certificates", Arc::clone(&tls).follow(tls::POLL, tasks.stop_signal()));
    let served = serve(&tasks, router, door, stop_serving.clone());
    workers::start(&tasks, &service, &deps.entropy);
    failpoint!("start.serving");
    health.serving().await;
    tasks.spawn("health", health.clone().follow(service.clone(), tasks.clone()));
    tracing::info!(version = env!("CARGO_PKG_VERSION"), %address, folder = %paths.metadata.display(), "ready");
    let drain = config.drain;
    Ok(Running { address, drain, service, engine, paths, lock, health, gate, tls, tasks, stop_serving, served })
}

async fn router(service: &Service) -> Result<(Health, Router), StartError> {
    let authenticator = Authenticator::new(service.clone());
    let (health, health_server) = Health::new().await;
    let router = transport::server()
        .add_service(health_server)
        .add_service(metadata_server(service, &authenticator))
        .add_service(cluster_server(service, &authenticator));
    let router = transport::with_reflection(router, &SERVED).map_err(StartError::Reflection)?;
    Ok((health, router))
}

fn serve(tasks: &TaskGroup, router: Router, door: Door, stop: CancellationToken) -> Served {
    let (ended, served) = tokio::sync::watch::channel(None);
    tasks.spawn_critical("server", async move {
        ended.send_replace(Some(transport::serve(router, door, stop).await));
    });
    served
}

impl Running {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What clients on this machine dial.
    pub fn endpoint(&self) -> String {
        let mut address = self.address;
        if address.ip().is_unspecified() {
            address.set_ip(match address.ip() {
                std::net::IpAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
                std::net::IpAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
            });
        }
        format!("{}://{address}", self.tls.scheme())
    }

    /// What happened at its listener so far.
    pub fn connections(&self) -> ConnectionCounts {
        self.gate.counts()
    }

    /// Where the operator's token is kept.
    pub fn admin_token_path(&self) -> &Path {
        &self.paths.admin_token
    }

    /// Where the token is kept by which a node joins.
    pub fn join_token_path(&self) -> &Path {
        &self.paths.join_token
    }

    /// The cluster's id.
    pub fn cluster_id(&self) -> ClusterId {
        self.service.cluster().id
    }

    /// Runs a pass that expires uploads and forgets requests, now.
    ///
    /// # Errors
    /// Why the pass failed, as text.
    pub async fn sweep_uploads(&self) -> Result<Pass, String> {
        self.run_worker(WorkerName::Uploads).await
    }

    /// Runs a pass that looks for orphans on one node, now; when it says that there is more, another one goes on.
    ///
    /// # Errors
    /// Why the pass failed, as text.
    pub async fn sweep_orphans(&self) -> Result<Pass, String> {
        self.run_worker(WorkerName::Orphans).await
    }

    /// Runs a pass that collects garbage, now; when it says that there is more, another one goes on.
    ///
    /// # Errors
    /// Why the pass failed, as text.
    pub async fn collect_garbage(&self) -> Result<Pass, String> {
        self.run_worker(WorkerName::Garbage).await
    }

    async fn run_worker(&self, name: WorkerName) -> Result<Pass, String> {
        match self.service.workers().handle(name) {
            Some(worker) => worker.run_now().await,
            None => Err("it does not run here".to_owned()),
        }
    }

    /// Resolves only if the service cannot go on, with the reason: a critical task panicked, or the server ended by
    /// itself. Losing the ability to write is no such case: reads go on, and health says it.
    pub async fn failed(&self) -> String {
        let mut served = self.served.clone();
        let broken = self.tasks.broken_signal();
        tokio::select! {
            () = broken.cancelled() => "a critical task of the metadata service panicked".to_owned(),
            _ended = served.wait_for(Option::is_some) => "the metadata service's server ended".to_owned(),
        }
    }

    /// Stops: see the module. Returns whether everything ended within its time.
    pub async fn shutdown(self) -> bool {
        let Self { drain, engine, lock, health, tasks, stop_serving, mut served, .. } = self;
        health.not_serving().await;
        stop_serving.cancel();
        let drained = matches!(served.wait_for(Option::is_some).await.as_deref(), Ok(Some(true)));
        let ended = tasks.shutdown(drain).await;
        engine.close().await;
        drop(lock);
        tracing::info!(drained, ended, "stopped");
        drained && ended
    }
}

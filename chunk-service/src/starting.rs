//! From a configuration to a running service.
//!
//! Order: the folder is made, locked and read, and its journal replayed; the server listens, with health off; the node joins, if it has not yet;
//! a first heartbeat; health on. A node that has joined before serves reads also when the metadata service is down:
//! then the first heartbeat is waited for only briefly. No file of the folder is looked at before somebody asks for it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use proto::entropy::{Entropy, OsEntropy};
use proto::failpoint;
use proto::limits::SMALL_REQUEST_BYTES_MAX;
use proto::pb::chunk_service_server::SERVICE_NAME;
use proto::runtime::folder::{self, FolderLock};
use proto::runtime::tls::{self, Tls};
use proto::runtime::transport::{self, Door, Gate};
use proto::runtime::worker::{self, Schedule};
use proto::runtime::{Clock, SystemClock, TaskGroup};
use proto::tls::exposure::{Listening, Warning};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::background::Background;
use crate::blocking::Blocking;
use crate::config::{Config, Mode};
use crate::error::ChunkError;
use crate::grpc::Handlers;
use crate::heartbeat::{Beat, Heartbeat};
use crate::identity::{MemberCell, NodeFile};
use crate::join;
use crate::metadata_link::{MetadataLink, Presence};
use crate::node::{Front, Node};
use crate::pace::Paces;
use crate::reaper::Reaper;
use crate::running::{Guards, Running, Server};
use crate::scrub::{self, Inspector, ScrubControl, ScrubSettings};
use crate::settling::Settling;
use crate::store::disk::{FolderDisk, QUARANTINE};
use crate::store::{ChunkStore, Ground};
use crate::time::NodeTime;

/// How long a node that has joined before waits for its first heartbeat's answer.
const FIRST_HEARTBEAT_WITHIN: Duration = Duration::from_secs(1);
/// How often the scrub looks whether it is time to go on, when it has ended, failed or was paused.
const SCRUB_INTERVAL: Duration = Duration::from_secs(60);
/// Pause between two first heartbeats.
const FIRST_HEARTBEAT_PAUSE: Duration = Duration::from_millis(100);
/// What is served besides reflection, which lists itself.
const SERVED: [&str; 2] = [SERVICE_NAME, "grpc.health.v1.Health"];

/// What a service takes from its surroundings.
#[derive(Debug, Clone)]
pub struct Deps {
    /// Tells the time until the metadata service does.
    pub clock: Arc<dyn Clock>,
    /// Where ids come from.
    pub entropy: Arc<dyn Entropy>,
}

impl Default for Deps {
    fn default() -> Self {
        Self { clock: Arc::new(SystemClock), entropy: Arc::new(OsEntropy) }
    }
}

/// Starts a chunk service and returns when it is ready. A node that has not joined yet waits for the metadata service,
/// however long that takes; `stop` calls the start off.
///
/// # Errors
/// [`ChunkError::Stopped`] when it was called off; [`ChunkError::Folder`] for a folder in use or foreign;
/// [`ChunkError::NodeKey`], [`ChunkError::Refused`], [`ChunkError::Setting`].
pub async fn start(
    config: Config,
    listener: TcpListener,
    deps: Deps,
    stop: CancellationToken,
) -> Result<Running, ChunkError> {
    tokio::select! {
        biased;
        () = stop.cancelled() => Err(ChunkError::Stopped),
        running = Box::pin(make_ready(config, listener, deps)) => running,
    }
}

/// A folder that is ours.
struct Opened {
    lock: FolderLock,
    ground: Ground,
    file: NodeFile,
}

/// Gives bronze threads of its own, where classes are told apart. Not before everything is open: the journal's threads
/// have the priority of whoever starts them, and gold waits for them.
fn with_background(blocking: Blocking, config: &Config) -> Result<Blocking, ChunkError> {
    if config.tuning.scheduler == Mode::Off {
        return Ok(blocking);
    }
    let background = Background::new().map_err(ChunkError::io("make threads for background work"))?;
    Ok(blocking.with_background(background))
}

async fn make_ready(config: Config, listener: TcpListener, deps: Deps) -> Result<Running, ChunkError> {
    config.check()?;
    let address = listener.local_addr().map_err(ChunkError::io("ask for the listener's address"))?;
    let exposed = check_network(&config, address)?;
    let tls = Tls::open(&config.tls, &config.network, Arc::clone(&deps.clock))?;
    let link = Arc::new(MetadataLink::new(&config.metadata, tls.dialer())?);
    let tasks = TaskGroup::new();
    let blocking = Blocking::new(config.tuning.rules(), tasks.broken_signal());
    let Opened { lock, ground, file } = open(&config, &deps, &blocking).await?;
    let blocking = with_background(blocking, &config)?;
    let node = Arc::new(Node {
        id: file.node,
        membership: MemberCell::default(),
        time: Arc::new(NodeTime::new(Arc::clone(&deps.clock))),
        store: Arc::new(ChunkStore::new(ground, Arc::clone(&link) as _, blocking, &config.tuning, &tasks)),
        tuning: config.tuning.clone(),
        paces: Paces::default(),
        tasks,
        draining: CancellationToken::new(),
        front: Front { gate: Gate::new(config.transport.clone()), tls: Arc::clone(&tls), exposed },
    });
    let gate = Arc::clone(&node.front.gate);
    let (tls_of_door, background) = (Arc::clone(&tls), node.store.blocking().background());
    let door = Door { listener, gate: Arc::clone(&gate), tls: tls_of_door, background, drain: config.drain };
    let (health, server) = listen(&node, door).await?;
    let presence = presence(&config, &node, address);
    let endpoint = presence.endpoint.clone();
    let patience = if file.membership.is_some() { Some(FIRST_HEARTBEAT_WITHIN) } else { None };
    join(&config, &node, &link, &presence, file).await?;
    let mut heartbeat = Heartbeat::new(Arc::clone(&node), Arc::clone(&link), presence, config.chunks_folder());
    first_heartbeat(&mut heartbeat, patience).await?;
    health.all_on().await;
    node.tasks.spawn("certificates", tls.follow(tls::POLL, node.tasks.stop_signal()));
    let scrub = start_scrub(&node, link, &deps);
    run_workers(&node, &deps, heartbeat.with_scrub(scrub.clone()), &health);
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        %address,
        %endpoint,
        node = %node.id,
        folder = %config.chunks_folder().display(),
        "the chunk service is ready"
    );
    Ok(Running { address, endpoint, node, health, gate, server, scrub, lock })
}

fn check_network(config: &Config, address: SocketAddr) -> Result<Vec<Warning>, ChunkError> {
    let insecure_plaintext = config.network.insecure_plaintext;
    let listening = Listening { address, tls: config.tls.is_on(), auth: true, insecure_plaintext };
    let exposed = listening.judge();
    let exposed = exposed.map_err(|refused| ChunkError::Setting { what: "--listen", problem: refused.to_string() })?;
    for warning in &exposed {
        tracing::warn!("{warning}");
    }
    Ok(exposed)
}

async fn open(config: &Config, deps: &Deps, blocking: &Blocking) -> Result<Opened, ChunkError> {
    let (path, now_ms, entropy) = (config.chunks_folder(), deps.clock.now_ms(), Arc::clone(&deps.entropy));
    let (journal, directly) = (config.tuning.journal(), config.tuning.written_directly());
    let job = move || {
        folder::create(&path)?;
        failpoint!("join.folder_created");
        let lock = folder::lock(&path)?;
        failpoint!("join.locked");
        let disk = FolderDisk::open_folder(&path).and_then(|disk| disk.writing_directly(directly));
        let disk = disk.map_err(ChunkError::io("open the data folder"))?;
        let file = join::open(&path, &disk, now_ms, entropy.as_ref())?;
        // Only now: a folder that is not ours stays as it is.
        folder::create(&path.join(QUARANTINE))?;
        if journal.below > 0 {
            NodeFile::upgrade(&path)?;
        }
        let ground = Ground::open(Arc::new(disk), journal, entropy.as_ref())?;
        Ok(Opened { lock, ground, file })
    };
    blocking.run(job).await?
}

/// What the health service says.
#[derive(Debug, Clone)]
pub(crate) struct Health(HealthReporter);

impl Health {
    async fn all_on(&self) {
        self.0.set_service_status("", ServingStatus::Serving).await;
        self.0.set_service_status(SERVICE_NAME, ServingStatus::Serving).await;
    }

    pub(crate) async fn all_off(&self) {
        self.0.set_service_status("", ServingStatus::NotServing).await;
        self.writes_off().await;
    }

    /// The process lives and serves reads, but the service is not whole.
    async fn writes_off(&self) {
        self.0.set_service_status(SERVICE_NAME, ServingStatus::NotServing).await;
    }
}

async fn listen(node: &Arc<Node>, door: Door) -> Result<(Health, Server), ChunkError> {
    let (reporter, health_service) = tonic_health::server::health_reporter();
    let health = Health(reporter);
    health.all_off().await;
    let health_service = health_service.max_decoding_message_size(SMALL_REQUEST_BYTES_MAX);
    let router = transport::server().add_service(Handlers::into_server(Arc::clone(node))).add_service(health_service);
    let router = transport::with_reflection(router, &SERVED)
        .map_err(|error| ChunkError::Setting { what: "reflection", problem: error.to_string() })?;
    let (stop, ended) = (CancellationToken::new(), CancellationToken::new());
    let (stopped, end) = (stop.clone(), ended.clone().drop_guard());
    let task = node.tasks.spawn_critical("server", async move {
        let _end = end;
        transport::serve(router, door, stopped).await
    });
    let guards = Guards::new(&stop, &node.tasks);
    Ok((health, Server { task, stop, ended, guards }))
}

fn presence(config: &Config, node: &Node, address: SocketAddr) -> Presence {
    let reachable = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port()),
        IpAddr::V6(ip) if ip.is_unspecified() => SocketAddr::new(Ipv6Addr::LOCALHOST.into(), address.port()),
        IpAddr::V4(_) | IpAddr::V6(_) => address,
    };
    let endpoint = config.advertise.clone().unwrap_or_else(|| format!("{}://{reachable}", node.front.tls.scheme()));
    Presence { node: node.id, endpoint, failure_domain: config.failure_domain.clone() }
}

/// Makes the node a member of its cluster, or finds that it is one.
async fn join(
    config: &Config,
    node: &Node,
    link: &MetadataLink,
    presence: &Presence,
    file: NodeFile,
) -> Result<(), ChunkError> {
    let membership = match file.membership {
        Some(membership) if !config.tuning.rejoin => membership,
        known => {
            let (membership, pulse, sent) = join::join(link, presence, &config.join_token_path()).await?;
            join::refuse_another_cluster(known.as_ref(), &membership)?;
            failpoint!("join.registered");
            let (path, id, kept) = (config.chunks_folder(), node.id, membership.clone());
            node.store.blocking().run(move || join::keep(&path, id, &kept)).await??;
            node.time.set(pulse.server_ms, sent);
            membership
        }
    };
    link.set_member(node.id, membership.token.clone());
    node.membership.set(membership);
    Ok(())
}

/// Sends heartbeats until one is answered, or the patience ends.
///
/// # Errors
/// [`ChunkError::Refused`]: this folder and that metadata service do not belong together.
async fn first_heartbeat(heartbeat: &mut Heartbeat, patience: Option<Duration>) -> Result<(), ChunkError> {
    let answered = async {
        loop {
            match heartbeat.beat().await {
                Beat::Answered => return Ok(()),
                Beat::Refused(reason) => return Err(ChunkError::Refused { reason, advice: NOT_KNOWN_THERE }),
                Beat::Unanswered => tokio::time::sleep(FIRST_HEARTBEAT_PAUSE).await,
            }
        }
    };
    let Some(patience) = patience else { return answered.await };
    tokio::time::timeout(patience, answered).await.unwrap_or_else(|_elapsed| {
        tracing::warn!("the metadata service does not answer; reads are served, writes are not taken yet");
        Ok(())
    })
}

const NOT_KNOWN_THERE: &str = "this data folder belongs to another metadata service, or that one has lost its own folder; if its metadata were \
     imported without secrets, start this service once with --rejoin";

/// Starts the scrub, and the visits to chunks that reads found bad.
fn start_scrub(node: &Arc<Node>, link: Arc<MetadataLink>, deps: &Deps) -> ScrubControl {
    let inspector = Arc::new(Inspector { store: Arc::clone(&node.store), metadata: link });
    let (visits, stop) = (Arc::clone(&inspector), node.tasks.stop_signal());
    node.tasks.spawn("visits to suspects", async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = scrub::visit_suspects(&visits) => {}
        }
    });
    let settings = ScrubSettings { period: node.tuning.scrub_period, pace: node.tuning.scrub_pace };
    let schedule = Schedule { interval: Some(SCRUB_INTERVAL) };
    ScrubControl::start(&node.tasks, inspector, Arc::clone(&node.time), settings, schedule, Arc::clone(&deps.entropy))
}

fn run_workers(node: &Arc<Node>, deps: &Deps, heartbeat: Heartbeat, health: &Health) {
    node.tasks.spawn_critical("heartbeat", heartbeat.run());
    let interval = Some(node.tuning.write_session_kept / 4);
    worker::start(&node.tasks, Reaper(Arc::clone(&node.store)), Schedule { interval }, Arc::clone(&deps.entropy));
    let interval = Some(node.tuning.journal_settled);
    worker::start(&node.tasks, Settling(Arc::clone(&node.store)), Schedule { interval }, Arc::clone(&deps.entropy));
    let (mut faults, stop, health) = (node.store.latch().watch(), node.tasks.stop_signal(), health.clone());
    node.tasks.spawn("health", async move {
        tokio::select! {
            () = stop.cancelled() => {}
            fault = faults.wait_for(Option::is_some).map(|fault| fault.is_ok()) => if fault {
                health.writes_off().await;
            },
        }
    });
}

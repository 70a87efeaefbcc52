//! The shell around the use cases: it brings time, ids, nodes and settings, has decisions made durable, and mints.
//!
//! Each change runs in a task of its own, so that it ends also when its caller goes away (the answer is then lost, and
//! a repeat finds the effect).
//!
//! Fail-stop (I19): the first failure of the engine, the first damaged record and the first broken invariant end all
//! writes; [`Service::stopped`] tells whoever watches. Reads go on, and never show what is damaged.

mod calls;
mod export;
mod jumps;
mod nodes;
mod restore;
mod tokens;
mod workers;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use proto::entropy::Entropy;
use proto::ids::ClusterId;
use proto::runtime::TaskGroup;
use proto::runtime::clock::Clock;
use proto::runtime::tls::Tls;
use proto::runtime::transport::{Gate, TransportLimits};
use proto::secret::SecretKey;
use proto::status::chain;
use proto::tls::exposure::Warning;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use self::export::ExportPieces;
use self::jumps::JumpWatch;
pub use self::nodes::{Beat, ClusterStatus, Joined, KeyOrder};
pub use self::restore::LostTime;
use self::restore::Restores;
pub use self::tokens::RotatedAdminToken;
use crate::audit::Audit;
use crate::config::Tuning;
use crate::coordinator::blobs::Blob;
use crate::coordinator::layout::SealedBlock;
use crate::coordinator::upload::Upload;
use crate::coordinator::{Context, Outcome, PlannedBlock};
use crate::error::MetadataError;
use crate::mint::{Granted, Mint};
use crate::nodes::{ChunkNodes, Registry};
use crate::store::engine::{Engine, EngineExt as _, View};
use crate::store::records::RestoreRecord;
use crate::workers::board::Board;

/// Which cluster this is.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// Its id.
    pub id: ClusterId,
    /// Its secret, from which all keys and tokens are derived.
    pub secret: SecretKey,
    /// Incarnation of its metadata.
    pub epoch: u64,
    /// The imports that still matter when the service starts.
    pub restores: Vec<RestoreRecord>,
}

/// See the module. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Service {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    engine: Arc<dyn Engine>,
    cluster: Cluster,
    tuning: Tuning,
    registry: Arc<Registry>,
    mint: Mint,
    chunk_nodes: Arc<dyn ChunkNodes>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    tasks: TaskGroup,
    fail_stop: FailStop,
    restores: Restores,
    board: Board,
    jumps: JumpWatch,
    start_ms: u64,
    admin_token: Option<PathBuf>,
    audit: Audit,
    front: Front,
}

/// An upload with the permissions to write its blocks.
#[derive(Debug)]
pub struct WritePlan {
    /// The upload.
    pub upload: Upload,
    /// Its blocks, and each one's chunks.
    pub blocks: Vec<(PlannedBlock, Vec<Granted>)>,
}

/// A layout with the permissions to read its blocks.
#[derive(Debug)]
pub struct ReadPlan {
    /// The blob.
    pub blob: Blob,
    /// Its blocks, and each one's chunks.
    pub blocks: Vec<(SealedBlock, Vec<Granted>)>,
    /// Where to go on; `None` when the range is complete.
    pub next_read_offset: Option<u64>,
}

/// What a service is put together from.
#[derive(Debug)]
pub struct Parts {
    /// Keeps the rows.
    pub engine: Arc<dyn Engine>,
    /// Which cluster this is.
    pub cluster: Cluster,
    /// The settings.
    pub tuning: Tuning,
    /// The nodes.
    pub registry: Arc<Registry>,
    /// Permits reads and writes at nodes.
    pub mint: Mint,
    /// Does at nodes what the service itself asks of them.
    pub chunk_nodes: Arc<dyn ChunkNodes>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Draws ids and nonces.
    pub entropy: Arc<dyn Entropy>,
    /// Where changes run.
    pub tasks: TaskGroup,
    /// The file with the operator's token, if there may be one.
    pub admin_token: Option<PathBuf>,
    /// Puts calls on record.
    pub audit: Audit,
    /// Its listener.
    pub front: Front,
}

/// What a service knows of its own listener, for its status and its access rules.
#[derive(Debug, Clone)]
pub struct Front {
    /// Who is let in.
    pub gate: Arc<Gate>,
    /// How they are greeted.
    pub tls: Arc<Tls>,
    /// What there is to warn about.
    pub exposed: Vec<Warning>,
}

impl Front {
    /// That of a service that nobody calls.
    pub fn closed(clock: Arc<dyn Clock>) -> Self {
        Self { gate: Gate::new(TransportLimits::default()), tls: Tls::off(clock), exposed: Vec::new() }
    }
}

impl Service {
    /// Puts a service together.
    pub fn new(parts: Parts) -> Self {
        let Parts { engine, cluster, tuning, registry, mint, chunk_nodes, clock, entropy, .. } = parts;
        let Parts { tasks, admin_token, audit, front, .. } = parts;
        let (fail_stop, start_ms) = (FailStop::default(), clock.now_ms());
        let jumps = JumpWatch::new(start_ms, Instant::now());
        let known = if seeded!(CollectedBeforeRecovery) { Vec::new() } else { cluster.restores.clone() };
        let restores = Restores::new(known);
        let shared = Shared {
            engine,
            cluster,
            tuning,
            registry,
            mint,
            chunk_nodes,
            clock,
            entropy,
            tasks,
            fail_stop,
            restores,
            board: Board::default(),
            jumps,
            start_ms,
            admin_token,
            audit,
            front,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Keeps the rows.
    pub fn engine(&self) -> &dyn Engine {
        self.shared.engine.as_ref()
    }

    /// Which cluster this is.
    pub fn cluster(&self) -> &Cluster {
        &self.shared.cluster
    }

    /// The settings.
    pub fn tuning(&self) -> &Tuning {
        &self.shared.tuning
    }

    /// The nodes.
    pub fn registry(&self) -> &Registry {
        &self.shared.registry
    }

    /// Puts calls on record.
    pub fn audit(&self) -> &Audit {
        &self.shared.audit
    }

    /// Its listener.
    pub fn front(&self) -> &Front {
        &self.shared.front
    }

    /// Does at nodes what the service itself asks of them.
    pub fn chunk_nodes(&self) -> &Arc<dyn ChunkNodes> {
        &self.shared.chunk_nodes
    }

    /// Where the service's own tasks run.
    pub(crate) fn tasks(&self) -> &TaskGroup {
        &self.shared.tasks
    }

    /// When this service was put together.
    fn start_ms(&self) -> u64 {
        self.shared.start_ms
    }

    /// The time.
    pub fn now_ms(&self) -> u64 {
        self.shared.clock.now_ms()
    }

    /// Whether the wall clock has run evenly for at least so long, as far as this process can know.
    pub fn clock_is_steady(&self, pause: Duration) -> bool {
        self.shared.look_at_clocks();
        self.shared.jumps.is_steady(Instant::now(), pause)
    }

    /// Why no writes are taken, if none are.
    pub fn read_only_reason(&self) -> Option<String> {
        self.shared.engine.latched().or_else(|| self.shared.fail_stop.reason.get().cloned())
    }

    /// Resolves, with the reason, once no writes are taken any more.
    pub async fn stopped(&self) -> String {
        tokio::select! {
            reason = self.shared.engine.failed() => reason,
            () = self.shared.fail_stop.fired.cancelled() => self.read_only_reason().unwrap_or_default(),
        }
    }

    /// Passes an outcome on, and ends all writes if it tells of damage.
    pub(crate) fn watch<T>(&self, outcome: Result<T, MetadataError>) -> Result<T, MetadataError> {
        self.shared.fail_stop.watch(outcome)
    }

    /// Runs a use case in its turn, in a task that outlives its caller.
    pub(crate) async fn decide<T, F>(&self, decide: F) -> Result<T, MetadataError>
    where
        T: Send + 'static,
        F: FnOnce(&dyn View, &Context<'_>) -> Outcome<T> + Send + 'static,
    {
        let shared = Arc::clone(&self.shared);
        let task = self.shared.tasks.spawn("commit", async move { shared.commit(decide).await });
        match task.await {
            Ok(Some(outcome)) => outcome,
            Ok(None) => Err(MetadataError::Bug("a commit panicked")),
            Err(_cancelled) => Err(MetadataError::Draining),
        }
    }
}

impl Shared {
    fn look_at_clocks(&self) {
        self.jumps.look(self.clock.now_ms(), Instant::now());
    }

    async fn commit<T, F>(self: Arc<Self>, decide: F) -> Result<T, MetadataError>
    where
        T: Send + 'static,
        F: FnOnce(&dyn View, &Context<'_>) -> Outcome<T> + Send + 'static,
    {
        self.fail_stop.check()?;
        self.look_at_clocks();
        let nodes = self.registry.candidates();
        let shared = Arc::clone(&self);
        let outcome = self.engine.decide(move |view| {
            let context = Context {
                now_ms: shared.clock.now_ms(),
                entropy: shared.entropy.as_ref(),
                tuning: &shared.tuning,
                nodes: &nodes,
                epoch: shared.cluster.epoch,
                secret: &shared.cluster.secret,
            };
            decide(view, &context)
        });
        self.fail_stop.watch(outcome.await)
    }
}

/// Ends all writes at the first sign of damage. The first reason is kept.
#[derive(Debug, Default)]
struct FailStop {
    reason: OnceLock<String>,
    fired: CancellationToken,
}

impl FailStop {
    fn check(&self) -> Result<(), MetadataError> {
        if self.reason.get().is_some() { Err(MetadataError::ReadOnly) } else { Ok(()) }
    }

    fn watch<T>(&self, outcome: Result<T, MetadataError>) -> Result<T, MetadataError> {
        if let Err(error @ (MetadataError::Corrupt(_) | MetadataError::Bug(_))) = &outcome {
            let reason = chain(error);
            if self.reason.set(reason).is_ok() {
                tracing::error!(cause = %chain(error), "no writes are taken from now on");
            }
            self.fired.cancel();
        }
        outcome
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

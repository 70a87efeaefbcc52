//! A service over models, with its background work at hand, and what must hold.

use std::future::Future;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use proto::checksum::Sha256;
use proto::entropy::{Entropy, SeededEntropy};
use proto::ids::{BlobId, ChunkId, ClusterId, NodeId, TenantId};
use proto::runtime::clock::Clock;
use proto::runtime::worker::{Pass, Worker};
use proto::runtime::{ManualClock, TaskGroup};
use proto::secret::SecretKey;
use tokio::time::Instant;

use super::figures::Figures;
use super::model::{Fate, Known, Model};
use super::nodes::ModelNodes;
use super::restores::Export;
use super::steps::{Call, Step};
use crate::config::Tuning;
use crate::coordinator::request::RequestId;
use crate::coordinator::tenants::RegisterTenant;
use crate::error::MetadataError;
use crate::mint::Mint;
use crate::nodes::{Registry, Report};
use crate::service::{Cluster, Front, Parts, Service};
use crate::store::engine::{Batch, Decision, Engine as _, EngineExt as _};
use crate::store::keys::{self, RequestScope};
use crate::store::memory::MemoryEngine;
use crate::store::records::{
    ClusterRecord, DeletedRecord, NodeRecord, Quota, SCHEMA, TrafficClass, UploadRecord, UploadState,
};
use crate::store::rows::{BatchExt as _, RowError, load};
use crate::workers::garbage::GarbageCollector;
use crate::workers::orphans::OrphanSweeper;
use crate::workers::uploads::UploadSweeper;

/// Small blocks, so that a few bytes make many.
pub(super) const BLOCK: u64 = 10;
const NODES: usize = 3;
pub(super) const HOUR: Duration = Duration::from_secs(3600);

/// Draws numbers, the same ones for the same seed.
#[derive(Debug, Clone)]
pub(super) struct Dice(Arc<SeededEntropy>);

impl Dice {
    pub(super) fn below(&self, bound: u64) -> u64 {
        let mut random = [0; 8];
        self.0.fill(&mut random);
        u64::from_be_bytes(random) % bound.max(1)
    }

    fn entropy(&self) -> &SeededEntropy {
        &self.0
    }

    pub(super) fn one_in(&self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// A delete or undelete that was answered, so that it can be repeated.
#[derive(Debug, Clone)]
pub(super) struct Answered {
    pub(super) request: RequestId,
    pub(super) blob: BlobId,
    pub(super) restores: bool,
    pub(super) at_ms: u64,
}

/// The background work of a service.
#[derive(Clone)]
pub(super) struct Background {
    pub(super) collector: Arc<GarbageCollector>,
    pub(super) uploads: Arc<UploadSweeper>,
    pub(super) orphans: Arc<OrphanSweeper>,
}

impl Background {
    fn of(service: &Service) -> Self {
        Self {
            collector: Arc::new(GarbageCollector::new(service.clone())),
            uploads: Arc::new(UploadSweeper::new(service.clone())),
            orphans: Arc::new(OrphanSweeper::new(service.clone())),
        }
    }
}

/// See the module.
pub(super) struct World {
    pub(super) dice: Dice,
    pub(super) tenant: TenantId,
    pub(super) service: Service,
    pub(super) nodes: Arc<ModelNodes>,
    pub(super) answered: Vec<Answered>,
    /// The latest moment that the wall clock has shown.
    pub(super) latest_ms: u64,
    pub(super) done: Figures,
    /// The last export, until it is imported: each is only once.
    pub(super) export: Option<Export>,
    pub(super) node_ids: Vec<NodeId>,
    pub(super) work: Background,
    pub(super) engine: Arc<MemoryEngine>,
    pub(super) cluster: Cluster,
    clock: Arc<ManualClock>,
    tuning: Tuning,
    jumped: Option<Instant>,
}

fn tuning(dice: &Dice) -> Tuning {
    let defaults = Tuning::default();
    let shortest = defaults.capability_life + proto::limits::CLOCK_TOLERANCE;
    Tuning {
        block_bytes: BLOCK,
        block_bytes_unknown_size: BLOCK,
        retention: if dice.one_in(2) { HOUR * u32::try_from(dice.below(3)).unwrap() } else { defaults.retention },
        garbage_grace: if dice.one_in(3) { shortest } else { defaults.garbage_grace },
        ..defaults
    }
}

impl World {
    pub(super) async fn new(seed: u64) -> Self {
        let entropy = Arc::new(SeededEntropy::new(seed));
        let dice = Dice(Arc::clone(&entropy));
        let clock = Arc::new(ManualClock::at(1_700_000_000_000));
        let secret = SecretKey::generate(entropy.as_ref());
        let id = ClusterId::generate(1, entropy.as_ref());
        let cluster = Cluster { id, secret, epoch: 1, restores: Vec::new() };
        let nodes = Arc::new(ModelNodes::new(Arc::default(), Arc::clone(&clock), dice.clone()));
        let node_ids: Vec<_> = (0..NODES).map(|_| NodeId::generate(1, entropy.as_ref())).collect();
        let (engine, tuning) = (Arc::new(MemoryEngine::new()), tuning(&dice));
        let service = service(&engine, &cluster, &tuning, &nodes, &clock, &dice, &node_ids);
        write_cluster(&engine, &cluster).await;
        let work = Background::of(&service);
        let tenant: TenantId = "posts".parse().unwrap();
        let register = RegisterTenant {
            tenant: tenant.clone(),
            request: RequestId { scope: RequestScope::Admin, id: String::new() },
            quota: Quota::default(),
            traffic_class: TrafficClass::Silver,
            rates: proto::rates::Rates::default(),
        };
        service.register_tenant(register).await.unwrap();
        let (done, latest_ms) = (Figures { schedules: 1, ..Figures::default() }, clock.now_ms());
        let answered = Vec::new();
        Self {
            dice,
            tenant,
            service,
            nodes,
            answered,
            latest_ms,
            done,
            export: None,
            node_ids,
            work,
            engine,
            cluster,
            clock,
            tuning,
            jumped: None,
        }
    }

    pub(super) fn model(&self) -> MutexGuard<'_, Model> {
        self.nodes.model.lock().unwrap()
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    pub(super) fn figures(&self) -> Figures {
        Figures { deletions: self.model().deletions, ..self.done }
    }

    pub(super) async fn run(&mut self, step: &Step) {
        self.done.steps += 1;
        hear(self.service.registry(), &self.node_ids);
        match step {
            Step::Call(call) => self.call(*call).await,
            Step::Wait(time) => self.wait(*time).await,
            Step::Jump(minutes) => self.jump(*minutes),
            Step::Sweep => self.count(self.work.uploads.run_scheduled().await),
            Step::Collect => self.count(self.work.collector.run_scheduled().await),
            Step::DieCollecting(calls) => self.die_in(*calls, self.work.clone().collector.run_scheduled()).await,
            Step::DieSweeping(calls) => self.die_in(*calls, self.work.clone().orphans.run_scheduled()).await,
            Step::SweepOrphans { accepted } => self.sweep_orphans(*accepted).await,
            Step::Restart => self.restart().await,
            Step::Together(calls) => self.together(calls).await,
            Step::Toggle(node) => self.nodes.toggle(self.node_ids[usize::try_from(*node).unwrap() % NODES]),
            Step::Deliver => self.nodes.deliver(),
            Step::Litter => self.litter(),
            Step::Export => self.take_export().await,
            Step::Import(calls) => self.lose_and_import(calls).await,
            Step::Decide { keep } => self.decide(*keep).await,
        }
        self.latest_ms = self.latest_ms.max(self.now_ms());
        self.note_expiries().await;
    }

    fn count(&mut self, pass: Result<Pass, MetadataError>) {
        pass.expect("a pass over sound rows does not fail");
        self.done.passes += 1;
    }

    async fn sweep_orphans(&mut self, accepted: bool) {
        let orphans = Arc::clone(&self.work.orphans);
        let pass = if accepted {
            let _given = self.service.workers().acceptance.give();
            orphans.run_once().await
        } else {
            orphans.run_scheduled().await
        };
        self.count_sweep(pass);
    }

    pub(super) fn count_sweep(&mut self, pass: Result<Pass, MetadataError>) -> bool {
        let pass = pass.expect("a pass over sound rows does not fail");
        self.done.sweeps += u64::from(!pass.held_back);
        self.done.orphans += pass.changed;
        pass.more
    }

    /// What is left of a write that was broken off, of which the metadata know nothing.
    fn litter(&mut self) {
        let node = self.node_ids[usize::try_from(self.dice.below(NODES as u64)).unwrap()];
        let at = (node, ChunkId::generate(self.now_ms(), self.dice.entropy()));
        let planned = (self.cluster.epoch, self.engine.sequence());
        let mut model = self.model();
        model.files.insert(at);
        model.litter.insert(at, (!self.dice.one_in(3)).then_some(planned));
        drop(model);
        self.done.litter += 1;
    }

    pub(super) async fn wait(&self, time: Duration) {
        tokio::time::advance(time).await;
        self.clock.advance(time);
    }

    fn jump(&mut self, minutes: i64) {
        self.done.jumps += 1;
        self.clock.set(self.clock.now_ms().saturating_add_signed(minutes * 60_000));
        self.jumped = Some(Instant::now());
    }

    /// The process dies with one of the next calls to a node that a pass makes.
    async fn die_in(&mut self, calls: u64, pass: impl Future<Output = Result<Pass, MetadataError>>) {
        let died = self.nodes.die_after(calls);
        let cut_off = tokio::select! {
            biased;
            () = died.cancelled() => true,
            pass = pass => {
                self.count(pass);
                false
            }
        };
        self.done.broken_passes += u64::from(cut_off);
        self.nodes.live_on();
        self.restart().await;
    }

    async fn restart(&mut self) {
        self.done.restarts += 1;
        // Commits that were under way end one way or the other.
        for _turn in 0..8 {
            tokio::task::yield_now().await;
        }
        if self.jumped.is_some_and(|jumped| jumped.elapsed() < self.tuning.garbage_grace) {
            self.model().forget_permissions();
        }
        self.open().await;
    }

    /// A start: from what is stored.
    pub(super) async fn open(&mut self) {
        let row: ClusterRecord = load(self.engine.as_ref(), &keys::cluster()).await.unwrap().unwrap();
        self.cluster = Cluster { epoch: row.epoch, restores: row.restores, ..self.cluster.clone() };
        let Self { engine, cluster, tuning, nodes, clock, dice, node_ids, .. } = &*self;
        self.service = service(engine, cluster, tuning, nodes, clock, dice, node_ids);
        self.work = Background::of(&self.service);
    }

    async fn together(&mut self, calls: &[Call]) {
        let other = GarbageCollector::new(self.service.clone());
        let Background { collector, uploads, orphans } = self.work.clone();
        let calls = async {
            for call in calls {
                self.call(*call).await;
            }
        };
        let (first, second, expired, swept, ()) = tokio::join!(
            collector.run_scheduled(),
            other.run_scheduled(),
            uploads.run_scheduled(),
            orphans.run_scheduled(),
            calls
        );
        [first, second, expired].into_iter().for_each(|pass| self.count(pass));
        self.count_sweep(swept);
    }

    /// Which uploads the sweeper has ended.
    pub(super) async fn note_expiries(&mut self) {
        for at in self.with_fate(Fate::Open) {
            let blob = self.model().known[at].blob;
            let row: Option<UploadRecord> =
                load(self.engine.as_ref(), &keys::upload(&self.tenant, blob)).await.unwrap();
            if row.is_none_or(|row| row.state != UploadState::Pending) {
                self.model().known[at].fate = Fate::Over;
                self.done.expiries += 1;
            }
        }
    }

    pub(super) fn with_fate(&self, fate: Fate) -> Vec<usize> {
        let model = self.model();
        (0..model.known.len()).filter(|at| model.known[*at].fate == fate).collect()
    }

    /// Nothing that is needed is gone, and what is visible is what was committed.
    pub(super) async fn check(&self, when: &str) {
        assert_eq!(self.service.read_only_reason(), None, "{when}");
        assert_eq!(self.model().violations, Vec::<String>::new(), "{when}");
        let known = self.model().known.clone();
        for known in &known {
            let visible = self.service.get_blob(&self.tenant, known.blob).await.is_ok();
            assert_eq!(visible, known.fate == Fate::Committed, "{when}: {} is {:?}", known.blob, known.fate);
            let restorable = known.fate == Fate::Deleted && self.can_be_restored(known).await;
            let now_ms = self.now_ms();
            for (index, block) in &known.blocks {
                let kept = if restorable {
                    *index < known.block_count()
                } else {
                    block.written && known.needs(*index, now_ms)
                };
                let there = self.model().files.contains(&block.at);
                assert!(
                    !kept || there || block.gone,
                    "{when}: block {index} of {} is gone, {:?}",
                    known.blob,
                    known.fate
                );
            }
        }
    }

    async fn can_be_restored(&self, known: &Known) -> bool {
        let key = keys::deleted(&self.tenant, known.blob);
        let tombstone: Option<DeletedRecord> = load(self.engine.as_ref(), &key).await.unwrap();
        tombstone.is_some_and(|tombstone| !tombstone.collecting)
    }
}

/// The service as a start puts it together.
fn service(
    engine: &Arc<MemoryEngine>,
    cluster: &Cluster,
    tuning: &Tuning,
    nodes: &Arc<ModelNodes>,
    clock: &Arc<ManualClock>,
    dice: &Dice,
    node_ids: &[NodeId],
) -> Service {
    let registry = Arc::new(Registry::new(cluster.secret.clone(), tuning));
    for node in node_ids {
        let record = NodeRecord { endpoint: "http://node".to_owned(), create_ms: 1, ..NodeRecord::default() };
        registry.put(*node, record, 1);
    }
    hear(&registry, node_ids);
    let entropy: Arc<dyn Entropy> = Arc::<SeededEntropy>::clone(&dice.0);
    let mint = Mint {
        cluster: cluster.id,
        life: tuning.capability_life,
        registry: Arc::clone(&registry),
        clock: Arc::<ManualClock>::clone(clock),
        entropy: Arc::clone(&entropy),
    };
    Service::new(Parts {
        engine: Arc::<MemoryEngine>::clone(engine),
        cluster: cluster.clone(),
        tuning: tuning.clone(),
        registry,
        mint,
        chunk_nodes: Arc::<ModelNodes>::clone(nodes),
        clock: Arc::<ManualClock>::clone(clock),
        entropy,
        tasks: TaskGroup::new(),
        admin_token: None,
        audit: crate::audit::Audit::none(),
        front: Front::closed(Arc::<ManualClock>::clone(clock)),
    })
}

fn hear(registry: &Registry, nodes: &[NodeId]) {
    for node in nodes {
        registry.heard(*node, 1, Report { free_bytes: u64::MAX, ..Report::default() });
    }
}

/// The row that the first start writes.
async fn write_cluster(engine: &MemoryEngine, cluster: &Cluster) {
    let key_check = Sha256::of(b"");
    let Cluster { id, epoch, .. } = *cluster;
    let row = ClusterRecord { cluster: id, epoch, key_check, create_ms: 1, schema: SCHEMA, restores: Vec::new() };
    let mut batch = Batch::default();
    batch.set(keys::cluster(), &row);
    let put = engine.decide(|_view| Ok::<_, RowError>((Decision::adds(batch), ())));
    put.await.unwrap();
}

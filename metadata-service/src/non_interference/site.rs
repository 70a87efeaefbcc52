//! A service whose randomness tells actors apart, and what happens to everybody.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use proto::capability::{ChunkBinding, NodeKey, ReadClaims};
use proto::entropy::{Entropy, SeededEntropy};
use proto::ids::NodeId;
use proto::runtime::worker::Worker as _;
use proto::runtime::{Clock as _, ManualClock};
use tempfile::TempDir;

use super::steps::Shared;
use crate::auth::Authenticator;
use crate::config::Tuning;
use crate::mint::Mint;
use crate::nodes::chunks::{ChunkPages, NodeError, Verdict};
use crate::nodes::{ChunkNodes, Condemned, Deletion, Report};
use crate::service::testing::parts;
use crate::service::{Parts, Service};
use crate::store::engine::Engine;
use crate::store::faulty::memory_folder;
use crate::store::memory::MemoryEngine;
use crate::store::records::NodeRecord;
use crate::store::sled::{SledEngine, SledOptions};
use crate::workers::garbage::GarbageCollector;
use crate::workers::uploads::UploadSweeper;

/// Small blocks, so that a few bytes make many.
const BLOCK: u64 = 10;

/// Who draws random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Actor {
    Nobody,
    Anton,
    Bella,
}

/// One source for each actor, so that what one draws does not change what another one gets.
#[derive(Debug)]
struct Sources {
    acting: AtomicUsize,
    sources: [SeededEntropy; 3],
}

impl Entropy for Sources {
    fn fill(&self, buffer: &mut [u8]) {
        self.sources[self.acting.load(Ordering::SeqCst)].fill(buffer);
    }
}

/// Chunk services that do as they are told.
#[derive(Debug)]
struct Obedient;

#[async_trait]
impl ChunkNodes for Obedient {
    async fn delete(&self, _chunk: &Condemned) -> Deletion {
        Deletion::Gone
    }

    async fn verify(&self, _: NodeId, _: ChunkBinding, _: ReadClaims, _: bool) -> Result<Verdict, NodeError> {
        Err(NodeError::Unavailable("nobody asks".to_owned()))
    }

    fn list(&self, _node: NodeId, _with_checksum_files: bool) -> ChunkPages {
        Box::pin(futures_util::stream::empty())
    }
}

/// Where the rows are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Storage {
    Memory,
    Sled,
}

fn sled(folder: &TempDir) -> Arc<dyn Engine> {
    let options = SledOptions { low_watermark_bytes: 0, reserve_bytes: 0, ..SledOptions::default() };
    Arc::new(SledEngine::open(folder.path(), &options).unwrap())
}

/// See the module.
pub(super) struct Site {
    pub(super) service: Service,
    pub(super) authenticator: Authenticator,
    clock: Arc<ManualClock>,
    engine: Arc<dyn Engine>,
    folder: Option<TempDir>,
    sources: Arc<Sources>,
    nodes: [NodeId; 2],
}

impl Site {
    pub(super) async fn open(storage: Storage, seed: u64) -> Self {
        let folder = (storage == Storage::Sled).then(memory_folder);
        let engine = folder.as_ref().map_or_else(|| Arc::new(MemoryEngine::new()) as Arc<dyn Engine>, sled);
        let sources = [1, 2, 3].map(|actor| SeededEntropy::new(seed.wrapping_mul(31).wrapping_add(actor)));
        let sources = Arc::new(Sources { acting: AtomicUsize::new(0), sources });
        let nodes = [1, 2].map(|_node| NodeId::generate(1, sources.as_ref()));
        let clock = Arc::new(ManualClock::at(1_700_000_000_000));
        let service = service(&engine, &clock, &sources, &nodes);
        let authenticator = Authenticator::new(service.clone());
        Self { service, authenticator, clock, engine, folder, sources, nodes }
    }

    /// Whoever acts from now on.
    pub(super) fn act_as(&self, actor: Actor) {
        self.sources.acting.store(actor as usize, Ordering::SeqCst);
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    /// The key of a node.
    pub(super) fn key(&self, node: NodeId) -> NodeKey {
        self.service.registry().access(node).expect("every node is registered").0
    }

    /// No two slots share a moment: ids are in the order of their drawing.
    pub(super) fn tick(&self) {
        self.clock.advance(Duration::from_millis(1));
        hear(&self.service, &self.nodes);
    }

    pub(super) async fn happen(&mut self, shared: &Shared) {
        self.act_as(Actor::Nobody);
        match *shared {
            Shared::Wait(minutes) => self.clock.advance(Duration::from_secs(60 * minutes)),
            Shared::Jump(minutes) => self.clock.set(self.now_ms().saturating_add_signed(minutes * 60_000)),
            Shared::Sweep => {
                let sweeper = UploadSweeper::new(self.service.clone());
                while sweeper.run_once().await.unwrap().more {}
            }
            Shared::Collect => {
                let collector = GarbageCollector::new(self.service.clone());
                while collector.run_once().await.unwrap().more {}
            }
            Shared::Restart => self.restart().await,
        }
    }

    async fn restart(&mut self) {
        if let Some(folder) = &self.folder {
            self.engine.close().await;
            // The last handle, so that the database is let go of.
            let nothing: Arc<dyn Engine> = Arc::new(MemoryEngine::new());
            self.engine = Arc::clone(&nothing);
            self.service = service(&nothing, &self.clock, &self.sources, &self.nodes);
            self.authenticator = Authenticator::new(self.service.clone());
            self.engine = sled(folder);
        }
        self.service = service(&self.engine, &self.clock, &self.sources, &self.nodes);
        self.authenticator = Authenticator::new(self.service.clone());
    }

    pub(super) async fn close(self) {
        self.engine.close().await;
    }
}

/// The service as a start puts it together.
fn service(engine: &Arc<dyn Engine>, clock: &Arc<ManualClock>, sources: &Arc<Sources>, nodes: &[NodeId; 2]) -> Service {
    let tuning = Tuning { block_bytes: BLOCK, block_bytes_unknown_size: BLOCK, ..Tuning::default() };
    let parts = parts(Arc::clone(engine), Arc::<ManualClock>::clone(clock));
    for node in nodes {
        let record = NodeRecord { endpoint: "http://node".to_owned(), create_ms: 1, ..NodeRecord::default() };
        parts.registry.put(*node, record, 1);
    }
    let entropy: Arc<dyn Entropy> = Arc::<Sources>::clone(sources);
    let mint = Mint { entropy: Arc::clone(&entropy), ..parts.mint.clone() };
    let service = Service::new(Parts { mint, entropy, tuning, chunk_nodes: Arc::new(Obedient), ..parts });
    hear(&service, nodes);
    service
}

fn hear(service: &Service, nodes: &[NodeId; 2]) {
    for node in nodes {
        service.registry().heard(*node, 1, Report { free_bytes: u64::MAX, ..Report::default() });
    }
}

//! The metadata of a storage folder without a service: for checks of a folder that nobody uses.
//!
//! Nothing is initialised: a folder that no first start has finished is refused, and nothing is written to it. One of ours
//! is opened as a start opens it, which writes: its lock, and what the engine's recovery leaves. So it cannot be on a
//! read-only file system. The folder is locked as a service locks
//! it, so neither can come while the other is there. No worker runs.

use std::path::Path;
use std::sync::Arc;

use proto::runtime::TaskGroup;
use proto::runtime::folder::FolderLock;

use crate::audit::Audit;
use crate::config::Tuning;
use crate::error::StartError;
use crate::mint::Mint;
use crate::nodes::{self, NodeLink, Registry};
use crate::running::Deps;
use crate::service::{Front, Parts, Service};
use crate::storage::{self, Opening, Storage};
use crate::store::engine::Engine;

/// A storage folder's metadata, opened.
#[derive(Debug)]
pub struct Offline {
    service: Service,
    engine: Arc<dyn Engine>,
    lock: FolderLock,
}

impl Offline {
    /// Opens the metadata below a storage folder.
    ///
    /// # Errors
    /// [`StartError`]: not there, in use, damaged, or of a newer version.
    pub async fn open(storage: &Path, tuning: Tuning, deps: &Deps) -> Result<Self, StartError> {
        let opening = Opening { tuning: &tuning, entropy: deps.entropy.as_ref(), now_ms: deps.clock.now_ms() };
        let Storage { lock, engine, cluster, paths } = storage::open_finished(storage, opening).await?;
        let registry = Registry::new(cluster.secret.clone(), &tuning);
        nodes::load(engine.as_ref(), &registry, &paths.metadata).await?;
        let registry = Arc::new(registry);
        let mint = Mint {
            cluster: cluster.id,
            life: tuning.capability_life,
            registry: Arc::clone(&registry),
            clock: Arc::clone(&deps.clock),
            entropy: Arc::clone(&deps.entropy),
        };
        let front = Front::closed(Arc::clone(&deps.clock));
        let service = Service::new(Parts {
            engine: Arc::clone(&engine),
            cluster,
            tuning,
            registry,
            chunk_nodes: Arc::new(NodeLink::new(mint.clone(), front.tls.dialer(), false)),
            mint,
            clock: Arc::clone(&deps.clock),
            entropy: Arc::clone(&deps.entropy),
            tasks: TaskGroup::new(),
            admin_token: None,
            audit: Audit::none(),
            front,
        });
        Ok(Self { service, engine, lock })
    }

    /// The use cases over it.
    pub fn service(&self) -> &Service {
        &self.service
    }

    /// Makes everything durable and lets the folder go.
    pub async fn close(self) {
        self.engine.close().await;
        drop(self.lock);
    }
}

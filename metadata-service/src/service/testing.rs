//! A service over any engine, for unit tests.

use std::sync::Arc;

use proto::entropy::{Entropy, SeededEntropy};
use proto::ids::ClusterId;
use proto::runtime::{Clock, ManualClock, TaskGroup};
use proto::secret::SecretKey;

use super::{Cluster, Front, Parts, Service};
use crate::audit::Audit;
use crate::config::Tuning;
use crate::mint::Mint;
use crate::nodes::{ChunkNodes, NodeLink, Registry};
use crate::store::engine::{Batch, Decision, Engine, EngineExt as _};
use crate::store::records::RestoreRecord;
use crate::store::rows::RowError;

/// Put together as in production, with a repeatable entropy.
pub(crate) fn service(engine: Arc<dyn Engine>, clock: Arc<ManualClock>) -> Service {
    Service::new(parts(engine, clock))
}

/// As [`service`], with chunk services that a test controls, after these imports.
pub(crate) fn restored_over(
    engine: Arc<dyn Engine>,
    clock: Arc<ManualClock>,
    chunk_nodes: Arc<dyn ChunkNodes>,
    restores: &[RestoreRecord],
) -> Service {
    let parts = parts(engine, clock);
    let cluster = Cluster { restores: restores.to_vec(), ..parts.cluster.clone() };
    Service::new(Parts { chunk_nodes, cluster, ..parts })
}

/// What [`service`] is put together from.
pub(crate) fn parts(engine: Arc<dyn Engine>, clock: Arc<dyn Clock>) -> Parts {
    let entropy: Arc<dyn Entropy> = Arc::new(SeededEntropy::new(1));
    let secret = SecretKey::generate(entropy.as_ref());
    let id = ClusterId::generate(1, entropy.as_ref());
    let cluster = Cluster { id, secret: secret.clone(), epoch: 1, restores: Vec::new() };
    let tuning = Tuning::default();
    let registry = Arc::new(Registry::new(secret, &tuning));
    let mint = Mint {
        cluster: cluster.id,
        life: tuning.capability_life,
        registry: Arc::clone(&registry),
        clock: Arc::clone(&clock),
        entropy: Arc::clone(&entropy),
    };
    let front = Front::closed(Arc::clone(&clock));
    let chunk_nodes = Arc::new(NodeLink::new(mint.clone(), front.tls.dialer(), false));
    Parts {
        engine,
        cluster,
        tuning,
        registry,
        mint,
        chunk_nodes,
        clock,
        entropy,
        tasks: TaskGroup::new(),
        admin_token: None,
        audit: Audit::none(),
        front,
    }
}

/// Puts bytes under a key that are no record.
pub(crate) async fn damage(service: &Service, key: Vec<u8>) {
    let mut batch = Batch::default();
    batch.put(key, b"no record at all".to_vec());
    let put = service.engine().decide(|_view| Ok::<_, RowError>((Decision::adds(batch), ())));
    put.await.unwrap();
}

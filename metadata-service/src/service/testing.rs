//! A service over any engine, for unit tests.

use std::sync::Arc;
use std::time::Duration;

use proto::entropy::SeededEntropy;
use proto::ids::ClusterId;
use proto::runtime::{ManualClock, TaskGroup};
use proto::secret::SecretKey;

use super::{Cluster, Parts, Service};
use crate::config::Tuning;
use crate::nodes::Registry;
use crate::store::engine::{Batch, Decision, Engine, EngineExt as _};
use crate::store::rows::RowError;

/// Put together as in production, with a repeatable entropy.
pub(crate) fn service(engine: Arc<dyn Engine>, clock: Arc<ManualClock>) -> Service {
    let entropy = Arc::new(SeededEntropy::new(1));
    let secret = SecretKey::generate(entropy.as_ref());
    Service::new(Parts {
        engine,
        cluster: Cluster { id: ClusterId::generate(1, entropy.as_ref()), secret: secret.clone(), epoch: 1 },
        tuning: Tuning::default(),
        registry: Arc::new(Registry::new(secret, Duration::from_secs(30))),
        clock,
        entropy,
        tasks: TaskGroup::new(),
    })
}

/// Puts bytes under a key that are no record.
pub(crate) async fn damage(service: &Service, key: Vec<u8>) {
    let mut batch = Batch::default();
    batch.put(key, b"no record at all".to_vec());
    let put = service.engine().decide(|_view| Ok::<_, RowError>((Decision { batch, frees_space: false }, ())));
    put.await.unwrap();
}

//! Real servers on real sockets; peers that break rules speak HTTP/2 by hand.

mod answers;
mod connections;
mod http2;
mod lanes;
pub(super) mod raw;
mod requests;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::*;
use crate::runtime::tls::Tls;
use crate::runtime::{SystemClock, TaskGroup};

const DEADLINE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A server with the health service on it.
struct Served {
    address: SocketAddr,
    gate: Arc<Gate>,
    stop: CancellationToken,
    serving: tokio::task::JoinHandle<Option<bool>>,
    _stops: tokio_util::sync::DropGuard,
}

/// Limits that no test reaches by accident.
fn patient() -> TransportLimits {
    TransportLimits {
        handshake_within: DAY,
        first_request_within: DAY,
        request_stall: DAY,
        request_within: DAY,
        answer_taken_within: DAY,
        ..TransportLimits::default()
    }
}

async fn serve_with(limits: TransportLimits) -> Served {
    serve_as(limits, Tls::off(Arc::new(SystemClock))).await
}

async fn serve_as(limits: TransportLimits, tls: Arc<Tls>) -> Served {
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_service_status("", ServingStatus::Serving).await;
    serve_router(server().add_service(health), limits, tls).await
}

async fn door(limits: TransportLimits, tls: Arc<Tls>, drain: Duration) -> Door {
    let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    Door { listener, gate: Gate::new(limits), tls, background: None, drain }
}

async fn serve_router(router: Router, limits: TransportLimits, tls: Arc<Tls>) -> Served {
    let (door, stop) = (door(limits, tls, DAY).await, CancellationToken::new());
    let (address, gate) = (door.listener.local_addr().unwrap(), Arc::clone(&door.gate));
    let serving = TaskGroup::new().spawn("server", serve(router, door, stop.clone()));
    let _stops = stop.clone().drop_guard();
    Served { address, gate, stop, serving, _stops }
}

impl Served {
    /// Our own kind of client, which dials from this address.
    fn client(&self, from: [u8; 4]) -> HealthClient<Channel> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).unwrap();
        HealthClient::new(endpoint.local_address(Some(from.into())).connect_lazy())
    }

    async fn answers(&self, from: [u8; 4]) -> bool {
        self.client(from).check(HealthCheckRequest::default()).await.is_ok()
    }
}

/// Waits until a condition holds.
async fn wait_until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waited = tokio::time::timeout(DEADLINE, async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_ok(), "{what}: not within {DEADLINE:?}");
}

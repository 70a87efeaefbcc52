//! What the health service says: serving once recovered, and never again once no writes are taken.

use proto::limits::SMALL_REQUEST_BYTES_MAX;
use proto::pb::cluster_service_server::ClusterServiceServer;
use proto::pb::metadata_service_server::MetadataServiceServer;
use proto::runtime::TaskGroup;
use tonic::server::NamedService;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health as HealthApi, HealthServer};
use tonic_health::server::{HealthReporter, health_reporter};

use crate::service::Service;

const METADATA: &str = <MetadataServiceServer<()> as NamedService>::NAME;
const CLUSTER: &str = <ClusterServiceServer<()> as NamedService>::NAME;

/// The services that reflection lists.
pub(super) const SERVED: [&str; 3] = [METADATA, CLUSTER, "grpc.health.v1.Health"];

/// Sets the status of every service at once.
#[derive(Debug, Clone)]
pub(super) struct Health {
    reporter: HealthReporter,
}

impl Health {
    /// Not serving yet.
    pub(super) async fn new() -> (Self, HealthServer<impl HealthApi>) {
        let (reporter, server) = health_reporter();
        let health = Self { reporter };
        health.not_serving().await;
        (health, server.max_decoding_message_size(SMALL_REQUEST_BYTES_MAX))
    }

    pub(super) async fn serving(&self) {
        self.set(ServingStatus::Serving).await;
    }

    pub(super) async fn not_serving(&self) {
        self.set(ServingStatus::NotServing).await;
    }

    async fn set(&self, status: ServingStatus) {
        for service in ["", METADATA, CLUSTER] {
            self.reporter.set_service_status(service, status).await;
        }
    }

    /// Goes off for good when no writes are taken any more, or a critical task broke.
    pub(super) async fn follow(self, service: Service, tasks: TaskGroup) {
        let (stop, broken) = (tasks.stop_signal(), tasks.broken_signal());
        tokio::select! {
            () = stop.cancelled() => {}
            () = broken.cancelled() => self.not_serving().await,
            reason = service.stopped() => {
                tracing::error!(%reason, "the metadata service takes no writes from now on; reads go on");
                self.not_serving().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use proto::runtime::ManualClock;
    use proto::runtime::tls::Tls;
    use proto::runtime::transport::{self, Door, Gate, TransportLimits};
    use tokio_util::sync::CancellationToken;
    use tonic::transport::Endpoint;
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_check_response::ServingStatus as Status;
    use tonic_health::pb::health_client::HealthClient;

    use super::*;
    use crate::service::testing;
    use crate::store::keys;
    use crate::store::memory::MemoryEngine;

    #[tokio::test]
    async fn i19_health_goes_off_for_good_when_no_writes_are_taken() {
        let (tasks, stop) = (TaskGroup::new(), CancellationToken::new());
        let (health, server) = Health::new().await;
        let listener = transport::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let endpoint = Endpoint::from_shared(format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let router = transport::server().add_service(server);
        let tls = Tls::off(Arc::new(ManualClock::at(1)));
        let gate = Gate::new(TransportLimits::default());
        let door = Door { listener, gate, tls, background: None, drain: Duration::from_secs(1) };
        tasks.spawn("server", transport::serve(router, door, stop.clone()));
        let client = HealthClient::new(endpoint.connect_lazy());
        let ask = async |service: &str| {
            let request = HealthCheckRequest { service: service.to_owned() };
            client.clone().check(request).await.unwrap().into_inner().status()
        };
        assert_eq!(ask(METADATA).await, Status::NotServing, "not before it is ready");
        health.serving().await;
        for name in ["", METADATA, CLUSTER] {
            assert_eq!(ask(name).await, Status::Serving, "{name}");
        }
        let service = testing::service(Arc::new(MemoryEngine::new()), Arc::new(ManualClock::at(1)));
        let following = tasks.spawn("health", health.follow(service.clone(), tasks.clone()));
        let tenant = "posts".parse().unwrap();
        testing::damage(&service, keys::tenant(&tenant)).await;
        service.get_tenant(&tenant).await.unwrap_err();
        following.await.unwrap();
        for name in ["", METADATA, CLUSTER] {
            assert_eq!(ask(name).await, Status::NotServing, "{name}");
        }
        stop.cancel();
        tasks.shutdown(Duration::from_secs(60)).await;
    }
}

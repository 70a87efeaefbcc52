//! What the health service says: serving once recovered, and never again once no writes are taken.

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
        (health, server)
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

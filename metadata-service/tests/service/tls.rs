//! TLS: who needs a certificate for what.

use std::path::Path;

use metadata_service::{Config, Deps, Running, start};
use proto::entropy::OsEntropy;
use proto::error::Reason;
use proto::ids::NodeId;
use proto::pb;
use proto::pb::cluster_service_client::ClusterServiceClient;
use proto::pb::metadata_service_client::MetadataServiceClient;
use proto::runtime::{Clock as _, SystemClock, folder, transport};
use proto::status::{WireError, from_status};
use proto::tls::development::Authority;
use proto::tls::{Dialer, Trust, certified_key};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tonic::Request;
use tonic::transport::{Channel, Endpoint};

use super::world::NODE_ENDPOINT;

/// A folder as `certs` makes it.
fn certificates() -> TempDir {
    let (folder, now_ms) = (tempfile::tempdir().unwrap(), SystemClock.now_ms());
    let authority = Authority::generate(now_ms).unwrap();
    let issued = authority.issue(&["127.0.0.1".to_owned()], now_ms, now_ms + 3_600_000).unwrap();
    let write = |name: &str, text: &str| folder::publish(&folder.path().join(name), text.as_bytes()).unwrap();
    write("ca.pem", authority.certificate());
    write("server.pem", &issued.certificate);
    write("server.key", &issued.key);
    folder
}

/// Whoever trusts the authority in a folder, and shows the certificate in another one.
fn dialer(trusts: &Path, shows: Option<&Path>) -> Dialer {
    let identity = shows.map(|folder| {
        let (certificate, key) = (folder.join("server.pem"), folder.join("server.key"));
        let read = |path: &Path| std::fs::read(path).unwrap();
        certified_key((&certificate, &read(&certificate)), (&key, &read(&key))).unwrap()
    });
    Dialer::new(Trust::from_file(Some(&trusts.join("ca.pem"))).unwrap().with_identity(identity))
}

struct Caller<'a> {
    running: &'a Running,
    dialer: Dialer,
}

impl Caller<'_> {
    fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(self.running.endpoint()).unwrap();
        endpoint.connect_with_connector_lazy(self.dialer.clone())
    }

    async fn register_node(&self, join: &str) -> Result<pb::RegisterNodeResponse, WireError> {
        let node_id = NodeId::generate(1, &OsEntropy).to_string();
        let message =
            pb::RegisterNodeRequest { node_id, endpoint: NODE_ENDPOINT.to_owned(), failure_domain: String::new() };
        let answer = ClusterServiceClient::new(self.channel()).register_node(with(message, join)).await;
        answer.map(tonic::Response::into_inner).map_err(|status| from_status(&status))
    }

    async fn register_tenant(&self, admin: &str) -> Result<(), WireError> {
        let message = pb::RegisterTenantRequest { tenant_id: "posts".to_owned(), ..Default::default() };
        let answer = MetadataServiceClient::new(self.channel()).register_tenant(with(message, admin)).await;
        answer.map(drop).map_err(|status| from_status(&status))
    }

    async fn describe_chunk(&self, node: &str) -> Result<(), WireError> {
        let message = pb::DescribeChunkRequest { chunk_id: "0190b5c4-7e5a-7cc3-98c4-dc0c0c07398f".to_owned() };
        let answer = ClusterServiceClient::new(self.channel()).describe_chunk(with(message, node)).await;
        answer.map(drop).map_err(|status| from_status(&status))
    }
}

fn with<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {}", token.trim()).parse().unwrap());
    request
}

#[tokio::test]
async fn with_mutual_tls_a_node_s_token_is_of_no_use_without_a_certificate_and_tenants_need_none() {
    let (storage, ours, others) = (tempfile::tempdir().unwrap(), certificates(), certificates());
    let mut config = Config::new(storage.path());
    config.tls.tls_dir = Some(ours.path().to_path_buf());
    let listener = transport::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let running = start(config, listener, Deps::default(), CancellationToken::new()).await.unwrap();
    assert!(running.endpoint().starts_with("https://127.0.0.1:"), "{}", running.endpoint());
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    let (join, admin) = (read(running.join_token_path()), read(running.admin_token_path()));

    let bare = Caller { running: &running, dialer: dialer(ours.path(), None) };
    let refused = bare.register_node(&join).await.unwrap_err();
    assert_eq!(refused.reason, Some(Reason::ScopeMissing));
    assert!(refused.message.contains("certificate of --tls-client-ca"), "{refused:?}");
    bare.register_tenant(&admin).await.unwrap();

    let shown = Caller { running: &running, dialer: dialer(ours.path(), Some(ours.path())) };
    let joined = shown.register_node(&join).await.unwrap();
    shown.describe_chunk(&joined.node_token).await.unwrap();
    let stolen = bare.describe_chunk(&joined.node_token).await.unwrap_err();
    assert_eq!(stolen.reason, Some(Reason::ScopeMissing));

    let stranger = Caller { running: &running, dialer: dialer(ours.path(), Some(others.path())) };
    let unknown = stranger.describe_chunk(&joined.node_token).await.unwrap_err();
    assert_eq!(unknown.reason, None, "it does not get as far as to be asked for a token: {unknown:?}");
    assert!(running.connections().failed_handshakes >= 1);
    assert!(running.shutdown().await);
}

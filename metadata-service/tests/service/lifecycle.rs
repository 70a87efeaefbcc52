//! Starting, stopping, and what the standard services say meanwhile.

use std::collections::BTreeSet;
use std::time::Duration;

use metadata_service::{Config, Deps, StartError, start};
use proto::pb;
use proto::runtime::tls::NetworkOptions;
use proto::runtime::transport;
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::world::{World, put};

#[tokio::test]
async fn i1_tenants_and_blobs_survive_a_restart() {
    let mut world = World::new().await;
    let (node, token) = (world.node().await, world.tenant("posts").await);
    let blob = put(&world, &node, &token, "n", b"hello, wide world!").await;
    let (cluster, usage) = (world.running().cluster_id(), world.usage("posts").await);
    world.restart().await;
    assert_eq!(world.running().cluster_id(), cluster);
    assert_eq!(world.usage("posts").await, usage);
    let mut metadata = world.metadata(&token);
    let request = pb::GetBlobRequest { blob_id: blob.blob_id.clone(), ..Default::default() };
    assert_eq!(metadata.get_blob(request).await.unwrap().into_inner().blob, Some(blob.clone()));
    let request = pb::GetBlobLayoutRequest { blob_id: blob.blob_id, ..Default::default() };
    let layout = metadata.get_blob_layout(request).await.unwrap().into_inner();
    node.check(&world, &layout.blocks[1].chunks[0].capability);
}

#[tokio::test]
async fn an_open_upload_goes_on_after_a_restart() {
    let mut world = World::new().await;
    let (node, token) = (world.node().await, world.tenant("posts").await);
    let request = pb::StartUploadRequest { size_bytes: Some(5), ..Default::default() };
    let started = world.metadata(&token).start_upload(request).await.unwrap().into_inner();
    let blob_id = started.upload.unwrap().blob_id;
    let receipt = node.write(&world, &blob_id, &started.blocks[0], b"hello");
    world.restart().await;
    let request = pb::CommitUploadRequest {
        blob_id,
        size_bytes: 5,
        sha256: proto::checksum::Sha256::of(b"hello").to_string(),
        receipts: vec![receipt],
        ..Default::default()
    };
    world.metadata(&token).commit_upload(request).await.unwrap();
}

#[tokio::test]
async fn health_needs_no_token_and_knows_every_service() {
    let world = World::new().await;
    let mut health = HealthClient::new(world.channel());
    for service in ["", "minitectonic.v1.MetadataService", "minitectonic.v1.ClusterService"] {
        let request = HealthCheckRequest { service: service.to_owned() };
        let answer = health.check(request).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service}");
    }
}

#[tokio::test]
async fn reflection_lists_exactly_what_is_served() {
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

    let world = World::new().await;
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut client = ServerReflectionClient::new(world.channel());
    let mut answers = client.server_reflection_info(tokio_stream::iter([request])).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap().message_response;
    let Some(MessageResponse::ListServicesResponse(list)) = answer else { panic!("{answer:?}") };
    let listed: BTreeSet<_> = list.service.into_iter().map(|service| service.name).collect();
    let expected = [
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        "minitectonic.v1.ClusterService",
        "minitectonic.v1.MetadataService",
    ];
    assert_eq!(listed, expected.into_iter().map(str::to_owned).collect());
}

#[tokio::test]
async fn a_folder_in_use_a_foreign_address_and_a_bad_setting_are_refused() {
    let world = World::new().await;
    let try_start = async |config: Config, address: &str| {
        let listener = transport::bind(address.parse().unwrap()).await.unwrap();
        start(config, listener, Deps::default(), CancellationToken::new()).await.map(|running| running.address())
    };
    let in_use = try_start(world.config(), "127.0.0.1:0").await.unwrap_err();
    assert!(in_use.to_string().contains("is in use by another process"), "{in_use}");
    let open = try_start(world.config(), "0.0.0.0:0").await.unwrap_err();
    assert!(matches!(open, StartError::Exposed(_)), "{open}");
    let mut config = world.config();
    config.tuning.block_bytes = 0;
    assert!(matches!(try_start(config, "127.0.0.1:0").await, Err(StartError::Setting(_))));
}

#[tokio::test]
async fn an_open_address_is_served_when_it_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config {
        network: NetworkOptions { insecure_plaintext: true, ..Default::default() },
        ..Config::new(folder.path())
    };
    let listener = transport::bind("0.0.0.0:0".parse().unwrap()).await.unwrap();
    let running = start(config, listener, Deps::default(), CancellationToken::new()).await.unwrap();
    assert!(running.endpoint().starts_with("http://127.0.0.1:"), "{}", running.endpoint());
    assert!(running.shutdown().await);
}

/// What a service is set to holds at its listener.
#[tokio::test]
async fn strangers_get_only_what_the_settings_grant() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config::new(folder.path());
    config.transport.connections_per_address = 2;
    config.transport.first_request_within = Duration::from_millis(200);
    let listener = transport::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let running = start(config.clone(), listener, Deps::default(), CancellationToken::new()).await.unwrap();
    let mut silent = Vec::new();
    while running.connections().silent == 0 || running.connections().refused_address == 0 {
        silent.extend(tokio::net::TcpStream::connect(running.address()).await);
        tokio::task::yield_now().await;
    }
    drop(silent);
    let asked = async || {
        let channel = Endpoint::from_shared(running.endpoint()).unwrap().connect_lazy();
        HealthClient::new(channel).check(HealthCheckRequest::default()).await.is_ok()
    };
    while !asked().await {}
    assert!(running.shutdown().await);
    config.transport.connections_max = 0;
    let listener = transport::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let refused = start(config, listener, Deps::default(), CancellationToken::new()).await;
    assert!(matches!(refused, Err(StartError::Setting(_))));
}

#[tokio::test]
async fn a_stop_during_the_start_ends_it_and_frees_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let stop = CancellationToken::new();
    stop.cancel();
    let listener = transport::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let stopped = start(Config::new(folder.path()), listener, Deps::default(), stop).await;
    assert!(matches!(stopped, Err(StartError::Stopped)));
    let listener = transport::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let running = start(Config::new(folder.path()), listener, Deps::default(), CancellationToken::new());
    assert!(running.await.unwrap().shutdown().await);
}

#[tokio::test]
async fn a_connection_that_says_nothing_holds_up_neither_the_end_nor_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { drain: Duration::from_millis(50), ..Config::new(folder.path()) };
    let mut silent = Vec::new();
    for _start in 0..3 {
        let listener = transport::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let running = start(config.clone(), listener, Deps::default(), CancellationToken::new()).await.unwrap();
        silent.push(tokio::net::TcpStream::connect(running.address()).await.unwrap());
        // An answer shows that the connection before it has been accepted.
        let channel = Endpoint::from_shared(running.endpoint()).unwrap().connect_lazy();
        let mut health = HealthClient::new(channel);
        health.check(HealthCheckRequest::default()).await.unwrap();
        silent.push(tokio::net::TcpStream::connect(running.address()).await.unwrap());
        running.shutdown().await;
    }
}

#[tokio::test]
async fn without_authentication_only_a_loopback_address_is_served_whatever_else_is_allowed() {
    let world = World::new().await;
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config { storage: folder.path().to_path_buf(), ..world.config() };
    (config.network.insecure_plaintext, config.tuning.insecure_no_auth) = (true, true);
    let listener = transport::bind("0.0.0.0:0".parse().unwrap()).await.unwrap();
    let refused = start(config, listener, Deps::default(), CancellationToken::new()).await.unwrap_err();
    assert!(refused.to_string().contains("--insecure-no-auth"), "{refused}");
    assert!(!folder.path().join("metadata").try_exists().unwrap(), "nothing was written");
}

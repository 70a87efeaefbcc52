//! TLS: the calls that only the metadata service makes need its certificate.

use std::path::Path;

use proto::error::Reason;
use proto::pb;
use proto::pb::chunk_service_client::ChunkServiceClient;
use proto::runtime::{Clock as _, SystemClock, folder};
use proto::tls::development::Authority;
use proto::tls::{Dialer, Trust, certified_key};
use tonic::transport::Endpoint;

use crate::harness::{Client, World, with_capability};

fn certify(folder: &Path) {
    let now_ms = SystemClock.now_ms();
    let authority = Authority::generate(now_ms).unwrap();
    let issued = authority.issue(&["127.0.0.1".to_owned()], now_ms, now_ms + 3_600_000).unwrap();
    let write = |name: &str, text: &str| folder::publish(&folder.join(name), text.as_bytes()).unwrap();
    write("ca.pem", authority.certificate());
    write("server.pem", &issued.certificate);
    write("server.key", &issued.key);
}

fn client(world: &World, folder: &Path, shows: bool) -> Client {
    let identity = shows.then(|| {
        let (certificate, key) = (folder.join("server.pem"), folder.join("server.key"));
        let read = |path: &Path| std::fs::read(path).unwrap();
        certified_key((&certificate, &read(&certificate)), (&key, &read(&key))).unwrap()
    });
    let dialer = Dialer::new(Trust::from_file(Some(&folder.join("ca.pem"))).unwrap().with_identity(identity));
    let endpoint = Endpoint::from_shared(world.running().endpoint()).unwrap();
    Client(ChunkServiceClient::new(endpoint.connect_with_connector_lazy(dialer)))
}

/// A capability to delete that leaked from the metadata service, or was made by whoever read a node's key, is worth
/// nothing without the certificate.
#[tokio::test]
async fn deleting_verifying_and_listing_need_a_certificate_and_writing_and_reading_do_not() {
    let folder = tempfile::tempdir().unwrap();
    certify(folder.path());
    let world = World::start_with(|config| config.tls.tls_dir = Some(folder.path().to_path_buf())).await;
    let (bare, shown) = (client(&world, folder.path(), false), client(&world, folder.path(), true));
    let place = crate::peer::Peer::place();
    world.peer.open(&place);
    bare.put(&place, &world.peer.may_write(place, 5), b"hello").await.unwrap();
    world.peer.seal(&place, b"hello");

    let delete = || pb::DeleteChunkRequest { chunk_id: place.chunk.to_string() };
    let verify = || pb::VerifyChunkRequest { chunk_id: place.chunk.to_string(), repair: false };
    let list = || pb::ListChunksRequest { with_checksum_files: false };
    let may_delete = world.peer.may_delete(place);
    let (may_verify, may_list) = (world.peer.may_verify(place, b"hello"), world.peer.may_list());
    let refused = [
        bare.0.clone().delete_chunk(with_capability(delete(), &may_delete)).await.map(drop),
        bare.0.clone().verify_chunk(with_capability(verify(), &may_verify)).await.map(drop),
        bare.0.clone().list_chunks(with_capability(list(), &may_list)).await.map(drop),
        // Nothing about the capability is told to who may not use one.
        bare.0.clone().delete_chunk(with_capability(delete(), "nonsense")).await.map(drop),
    ];
    for refused in refused {
        let refused = proto::status::from_status(&refused.unwrap_err());
        assert_eq!(refused.reason, Some(Reason::CapabilityInvalid));
        assert!(refused.message.contains("certificate of --tls-client-ca"), "{refused:?}");
    }
    assert_eq!(bare.read(&place, &world.peer.may_read(place, b"hello"), 0, 0).await.unwrap(), b"hello");
    shown.0.clone().verify_chunk(with_capability(verify(), &may_verify)).await.unwrap();
    shown.0.clone().list_chunks(with_capability(list(), &may_list)).await.unwrap();
    shown.0.clone().delete_chunk(with_capability(delete(), &may_delete)).await.unwrap();
}

//! A capability permits one operation on one chunk at one node, for a while; nothing else permits anything.

use std::time::Duration;

use proto::capability::{self, Capability, ChunkBinding, NodeKey, Permit};
use proto::entropy::OsEntropy;
use proto::error::Reason;
use proto::ids::{ClusterId, NodeId};
use proto::pb;
use proto::secret::SecretKey;
use proto::status::{WireError, from_status};
use proto::token::{Token, TokenKind};

use crate::harness::{Client, World, messages, pattern, wait_until, with_capability};
use crate::peer::{Peer, claims};

/// The reasons with which each method refuses this credential for this chunk.
async fn refusals(client: &Client, place: &ChunkBinding, credential: &str) -> [Option<Reason>; 7] {
    let reason = |error: Option<WireError>| error.and_then(|error| error.reason);
    [
        reason(client.send(credential, messages(place, b"bytes", 0, 10)).await.err()),
        reason(client.status(place, credential).await.err()),
        reason(client.read(place, credential, 0, 0).await.err()),
        reason(client.get_chunk(place, credential).await.err()),
        reason(client.verify(place, credential, false).await.err()),
        reason(client.list(credential, false).await.err()),
        reason(client.delete(place, credential).await.err()),
    ]
}

#[tokio::test]
async fn each_operation_needs_its_own_capability() {
    let world = World::start().await;
    let (client, invalid) = (world.client().await, Some(Reason::CapabilityInvalid));
    let place = world.put(b"bytes").await;
    let may = |permit| world.peer.sign(&world.peer.capability(place, permit));
    let write = refusals(&client, &place, &may(Permit::Write { max_bytes: 5 })).await;
    assert_eq!(write, [None, None, invalid, invalid, invalid, invalid, invalid]);
    let read = refusals(&client, &place, &may(Permit::Read(claims(b"bytes")))).await;
    assert_eq!(read, [invalid, invalid, None, None, invalid, invalid, invalid]);
    let verify = refusals(&client, &place, &may(Permit::Verify(claims(b"bytes")))).await;
    assert_eq!(verify, [invalid, invalid, invalid, invalid, None, invalid, invalid]);
    let list = refusals(&client, &place, &may(Permit::List)).await;
    assert_eq!(list, [invalid, invalid, invalid, invalid, invalid, None, invalid]);
    let delete = refusals(&client, &place, &may(Permit::Delete)).await;
    assert_eq!(delete, [invalid, invalid, invalid, invalid, invalid, invalid, None]);
}

#[tokio::test]
async fn what_is_wrong_in_any_way_is_refused_alike_and_before_any_file_is_touched() {
    let world = World::start().await;
    let (client, place) = (world.client().await, Peer::place());
    let good = world.peer.capability(place, Permit::Write { max_bytes: 100 });
    let signed = |change: &dyn Fn(&mut Capability)| {
        let mut changed = good.clone();
        change(&mut changed);
        world.peer.sign(&changed)
    };
    let foreign_key = NodeKey { key_id: 1, secret: SecretKey::generate(&OsEntropy) };
    for (what, credential) in [
        ("another chunk", signed(&|capability| capability.binding.chunk = Peer::place().chunk)),
        ("another node", signed(&|capability| capability.node = NodeId::generate(1, &OsEntropy))),
        ("another cluster", signed(&|capability| capability.cluster = ClusterId::generate(1, &OsEntropy))),
        ("too early", signed(&|capability| capability.not_before_ms += 600_000)),
        ("another key", capability::sign(&good, &foreign_key, [0; 8])),
        ("a token", Token::generate(TokenKind::Tenant, &OsEntropy).expose().to_string()),
        ("nonsense", "nonsense".to_owned()),
        ("nothing", String::new()),
        ("too long", "a".repeat(5_000)),
    ] {
        let refused = refusals(&client, &place, &credential).await;
        assert_eq!(refused, [Some(Reason::CapabilityInvalid); 7], "{what}");
    }
    let expired = signed(&|capability| {
        capability.not_before_ms -= 900_000;
        capability.expire_ms -= 960_000;
    });
    assert_eq!(refusals(&client, &place, &expired).await, [Some(Reason::CapabilityExpired); 7]);
    assert!(!world.blob_path(&place).exists());
}

#[tokio::test]
async fn a_call_needs_exactly_one_credential() {
    let world = World::start().await;
    let place = world.put(b"bytes").await;
    let (mut client, capability) = (world.client().await.0, world.peer.may_read(place, b"bytes"));
    let request = || pb::GetChunkRequest { chunk_id: place.chunk.to_string() };
    let none = from_status(&client.get_chunk(request()).await.unwrap_err());
    assert_eq!(none.reason, Some(Reason::TokenMissing));
    let mut twice = with_capability(tonic::Request::new(request()), &capability);
    twice.metadata_mut().append("authorization", format!("Bearer {capability}").parse().unwrap());
    let twice = from_status(&client.get_chunk(twice).await.unwrap_err());
    assert_eq!(twice.reason, Some(Reason::CapabilityInvalid));
    client.get_chunk(with_capability(tonic::Request::new(request()), &capability)).await.unwrap();
}

#[tokio::test]
async fn a_key_that_was_rotated_out_is_still_taken() {
    let world = World::start().await;
    let place = world.put(b"bytes").await;
    let capability = world.peer.capability(place, Permit::Read(claims(b"bytes")));
    let text = capability::sign(&capability, &world.peer.key(2), [0; 8]);
    world.client().await.get_chunk(&place, &text).await.unwrap();
    let text = capability::sign(&capability, &world.peer.key(3), [0; 8]);
    assert!(world.client().await.get_chunk(&place, &text).await.is_err());
}

#[tokio::test]
async fn a_stream_is_cut_when_its_capability_expires_and_a_fresh_one_goes_on() {
    let world = World::start().await;
    let (client, place, bytes) = (world.client().await, Peer::place(), pattern(2_000));
    let mut short = world.peer.capability(place, Permit::Write { max_bytes: 2_000 });
    // Good for another moment, give or take the tolerance of 30 seconds.
    short.expire_ms = world.peer.now_ms() - 29_500;
    let (sender, messages_in) = tokio::sync::mpsc::channel(8);
    let request = with_capability(tokio_stream::wrappers::ReceiverStream::new(messages_in), &world.peer.sign(&short));
    let mut writer = client.0.clone();
    let writing = tokio::spawn(async move { writer.write_chunk(request).await });
    let mut all = messages(&place, &bytes, 0, 1_000);
    all.truncate(1);
    sender.send(all.remove(0)).await.unwrap();
    let cut = from_status(&writing.await.unwrap().unwrap_err());
    assert_eq!(cut.reason, Some(Reason::CapabilityExpired));
    let fresh = world.peer.may_write(place, 2_000);
    wait_until("the write is kept", async || {
        client.status(&place, &fresh).await.unwrap().persisted_size_bytes == 1_000
    })
    .await;
    client.send(&fresh, messages(&place, &bytes, 1_000, 1_000)).await.unwrap();
}

#[tokio::test]
async fn capabilities_are_judged_by_the_metadata_services_clock() {
    let world = World::start().await;
    let place = world.put(b"bytes").await;
    let before = world.peer.may_read(place, b"bytes");
    let client = world.client().await;
    client.get_chunk(&place, &before).await.unwrap();
    world.peer.state().time_offset_ms = 2 * 60 * 60 * 1000;
    let after = world.peer.may_read(place, b"bytes");
    wait_until("a heartbeat brings the time", async || client.get_chunk(&place, &after).await.is_ok()).await;
    let refused = client.get_chunk(&place, &before).await.unwrap_err();
    assert_eq!(refused.reason, Some(Reason::CapabilityExpired));
    tokio::time::timeout(Duration::from_secs(20), client.read(&place, &after, 0, 0)).await.unwrap().unwrap();
}

//! Requests of one message that do not arrive.

use tokio::time::timeout;

use super::raw::{DATA, END_HEADERS, END_STREAM, Frame, HEADERS, RESET, Raw, call, health_check};
use super::*;

#[tokio::test]
async fn a_request_that_stops_half_way_is_refused() {
    let served = serve_with(TransportLimits { request_stall: Duration::from_millis(300), ..patient() }).await;
    // A message of 4 bytes is announced. The last one is whole, but does not end.
    for said in [b"".as_slice(), b"\0\0\0\0\x04", b"\0\0\0\0\x04ab", b"\0\0\0\0\0"] {
        let mut raw = Raw::greeted(served.address).await;
        raw.send(&[health_check(1), Frame::new(DATA, 0, 1, said).bytes()].concat()).await;
        let refused = timeout(DEADLINE, raw.next_of(HEADERS)).await.unwrap().unwrap();
        assert_eq!(refused.flags, END_STREAM | END_HEADERS, "headers and nothing more are a refusal: {said:?}");
    }
    assert!(served.answers([127, 0, 0, 1]).await);
}

#[tokio::test]
async fn frames_without_a_byte_are_no_progress_and_steady_drops_end_too() {
    let drops: [(&str, TransportLimits, &[u8]); 2] = [
        ("empty", TransportLimits { request_stall: Duration::from_millis(300), ..patient() }, b""),
        ("steady", TransportLimits { request_within: Duration::from_millis(300), ..patient() }, b"a"),
    ];
    for (name, limits, drop) in drops {
        let served = serve_with(limits).await;
        let mut raw = Raw::greeted(served.address).await;
        // 64 KiB are announced, and come slowly.
        raw.send(&[health_check(1), Frame::new(DATA, 0, 1, *b"\0\0\x01\0\0").bytes()].concat()).await;
        let frame = Frame::new(DATA, 0, 1, drop).bytes();
        let dripping = async {
            loop {
                if timeout(Duration::from_millis(5), raw.0.readable()).await.is_ok() {
                    let Some(frame) = raw.frame().await else { panic!("{name}: the connection ended") };
                    if frame.kind == HEADERS {
                        return;
                    }
                }
                raw.send(&frame).await;
            }
        };
        assert!(timeout(DEADLINE, dripping).await.is_ok(), "{name}");
    }
}

/// A refusal came before the message, the stream was reset, and the message then counted as the client's mistake: a client
/// with an old token was sent away with GOAWAY after some hundred refusals.
#[tokio::test]
async fn a_client_that_is_refused_again_and_again_before_it_has_sent_its_messages_is_refused_and_not_sent_away() {
    let served = serve_with(patient()).await;
    let mut raw = Raw::greeted(served.address).await;
    let streams: Vec<u32> = (0..1_200).map(|number| 2 * number + 1).collect();
    for some in streams.chunks(60) {
        let headers: Vec<u8> = some.iter().flat_map(|stream| call(*stream, "/no.such.Service/Method")).collect();
        raw.send(&headers).await;
        for _ in some {
            let refused = timeout(DEADLINE, raw.next_of(HEADERS)).await.unwrap().expect("the connection lives");
            assert_eq!(refused.flags, END_STREAM | END_HEADERS);
        }
        let message = |stream: &u32| Frame::new(DATA, END_STREAM, *stream, [0; 5]).bytes();
        raw.send(&some.iter().flat_map(message).collect::<Vec<u8>>()).await;
    }
    raw.send(&[health_check(2_401), Frame::new(DATA, END_STREAM, 2_401, [0; 5]).bytes()].concat()).await;
    assert_eq!(timeout(DEADLINE, raw.next_of(DATA)).await.unwrap().expect("the connection lives").stream, 2_401);
}

/// What does not end after its refusal is reset: the stream's place is free again.
#[tokio::test]
async fn a_request_that_goes_on_after_its_refusal_for_too_long_or_with_too_much_is_reset() {
    let stalled = TransportLimits { request_stall: Duration::from_millis(300), ..patient() };
    for (limits, frames) in [(stalled, 0), (patient(), 64)] {
        let served = serve_with(limits).await;
        let mut raw = Raw::greeted(served.address).await;
        raw.send(&call(1, "/no.such.Service/Method")).await;
        assert!(timeout(DEADLINE, raw.next_of(HEADERS)).await.unwrap().is_some());
        raw.send(&Frame::new(DATA, 0, 1, [0; 16 * 1024]).bytes().repeat(frames)).await;
        let reset = timeout(DEADLINE, raw.next_of(RESET)).await.unwrap().unwrap();
        assert_eq!(reset.stream, 1);
        assert!(served.answers([127, 0, 0, 1]).await);
    }
}

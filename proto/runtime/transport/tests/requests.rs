//! Requests of one message that do not arrive.

use tokio::time::timeout;

use super::raw::{DATA, END_HEADERS, END_STREAM, Frame, HEADERS, Raw, health_check};
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

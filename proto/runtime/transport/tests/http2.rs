//! What HTTP/2 itself bounds, read from the wire.

use std::collections::BTreeMap;

use tokio::time::timeout;

use super::raw::{
    DATA, END_HEADERS, END_STREAM, Frame, GO_AWAY, HEADERS, PING, RESET, Raw, SETTINGS, WINDOW_UPDATE, health_check,
};
use super::*;

/// ENHANCE_YOUR_CALM.
const CALM: u32 = 11;

#[tokio::test]
async fn the_settings_on_the_wire_are_those_of_the_contract() {
    let served = serve_with(patient()).await;
    let mut raw = Raw::greeted(served.address).await;
    let settings = timeout(DEADLINE, raw.next_of(SETTINGS)).await.unwrap().unwrap();
    let announced: BTreeMap<u16, u32> = settings
        .payload
        .chunks_exact(6)
        .map(|entry| (u16::from_be_bytes([entry[0], entry[1]]), u32::from_be_bytes(entry[2..].try_into().unwrap())))
        .collect();
    // Concurrent streams, window of a stream, frame, header list.
    assert_eq!(announced, BTreeMap::from([(3, 64), (4, 1 << 20), (5, (1 << 20) - 1), (6, 8 << 10)]));
    let window = timeout(DEADLINE, raw.next_of(WINDOW_UPDATE)).await.unwrap().unwrap();
    assert_eq!((window.stream, window.number(0) + 65_535), (0, 4 << 20));
}

#[tokio::test]
async fn streams_beyond_the_announced_number_are_refused_and_the_connection_lives() {
    let served = serve_with(patient()).await;
    let mut raw = Raw::greeted(served.address).await;
    for number in 0..65 {
        raw.send(&health_check(2 * number + 1)).await;
    }
    let refused = timeout(DEADLINE, raw.next_of(RESET)).await.unwrap().unwrap();
    assert_eq!((refused.stream, refused.number(0)), (129, 7), "REFUSED_STREAM for the 65th");
    // The message of the first one: 5 bytes that say that nothing follows.
    raw.send(&Frame::new(DATA, END_STREAM, 1, [0; 5]).bytes()).await;
    assert_eq!(timeout(DEADLINE, raw.next_of(DATA)).await.unwrap().unwrap().stream, 1);
}

#[tokio::test]
async fn a_peer_for_whose_mistakes_we_reset_too_many_streams_is_sent_away() {
    let served = serve_with(patient()).await;
    let mut raw = Raw::greeted(served.address).await;
    // ":method: GET" alone is no request: the server has to reset the stream.
    let mistake = |number: u32| Frame::new(HEADERS, END_STREAM | END_HEADERS, 2 * number + 1, [0x82]).bytes();
    let mistakes: Vec<u8> = (0..=128).flat_map(mistake).collect();
    raw.send(&mistakes).await;
    let away = timeout(DEADLINE, raw.next_of(GO_AWAY)).await.unwrap().unwrap();
    assert_eq!(away.number(4), CALM);
    assert!(served.answers([127, 0, 0, 1]).await);
}

#[tokio::test]
async fn a_peer_that_resets_what_it_opens_too_fast_is_sent_away() {
    let served = serve_with(patient()).await;
    let mut raw = Raw::greeted(served.address).await;
    let rapid =
        |number: u32| [health_check(2 * number + 1), Frame::new(RESET, 0, 2 * number + 1, [0; 4]).bytes()].concat();
    let flood: Vec<u8> = (0..2_000).flat_map(rapid).collect();
    raw.send(&flood).await;
    let away = timeout(DEADLINE, raw.next_of(GO_AWAY)).await.unwrap().unwrap();
    assert_eq!(away.number(4), CALM);
    assert!(served.answers([127, 0, 0, 1]).await);
}

/// Eight connections that sent pings as fast as they were answered once made everybody else wait five times as long.
#[tokio::test]
async fn a_peer_that_does_nothing_but_demand_answers_is_cut_off() {
    let served = serve_with(patient()).await;
    for kind in [PING, SETTINGS] {
        let payload: &[u8] = if kind == PING { &[7; 8] } else { &[] };
        let demands = Frame::new(kind, 0, 0, payload).bytes().repeat(100);
        let mut raw = Raw::greeted(served.address).await;
        raw.send(&demands).await;
        raw.send(&[health_check(1), Frame::new(DATA, END_STREAM, 1, [0; 5]).bytes()].concat()).await;
        assert!(timeout(DEADLINE, raw.next_of(DATA)).await.unwrap().is_some(), "a hundred are no flood");
        let flood = async { while tokio::io::AsyncWriteExt::write_all(&mut raw.0, &demands).await.is_ok() {} };
        timeout(DEADLINE, flood).await.unwrap();
    }
    assert!(served.answers([127, 0, 0, 1]).await);
}

#[tokio::test]
async fn a_header_list_of_more_than_8_kib_reaches_no_service() {
    let served = serve_with(patient()).await;
    for (bytes, passes) in [(6 << 10, true), (9 << 10, false)] {
        let mut request = tonic::Request::new(HealthCheckRequest::default());
        request.metadata_mut().insert("x", "a".repeat(bytes).parse().unwrap());
        assert_eq!(served.client([127, 0, 0, 1]).check(request).await.is_ok(), passes, "{bytes}");
    }
}

/// Time jumps to the next timer whenever nobody has anything to do.
#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_answer_the_keepalive_is_gone() {
    let served = serve_with(patient()).await;
    let mut raw = Raw::greeted(served.address).await;
    raw.send(&[health_check(1), Frame::new(DATA, END_STREAM, 1, [0; 5]).bytes()].concat()).await;
    let started = tokio::time::Instant::now();
    timeout(DAY, raw.next_of(PING)).await.unwrap().unwrap();
    let pinged = started.elapsed();
    timeout(DAY, raw.ended()).await.unwrap();
    assert_eq!((pinged.as_secs(), (started.elapsed() - pinged).as_secs()), (30, 10));
    wait_until("its place is free", async || served.gate.counts().open == 0).await;
}

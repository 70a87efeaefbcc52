//! Places, and connections that do not say what they want.

use super::raw::{DATA, END_STREAM, Frame, HEADERS, PREFACE, Raw, SETTINGS, health_check};
use super::*;

const ONE: [u8; 4] = [127, 0, 0, 1];
const TWO: [u8; 4] = [127, 0, 0, 2];
const THREE: [u8; 4] = [127, 0, 0, 3];
const FOUR: [u8; 4] = [127, 0, 0, 4];

async fn raws(count: usize, from: [u8; 4], served: &Served) -> Vec<Raw> {
    let mut raws = Vec::new();
    for _ in 0..count {
        raws.push(Raw::connect(from, served.address).await);
    }
    raws
}

#[tokio::test]
async fn beside_an_address_that_has_all_its_places_others_are_served() {
    let served = serve_with(TransportLimits { connections_per_address: 8, ..patient() }).await;
    let silent = raws(8, TWO, &served).await;
    wait_until("they are in", async || served.gate.counts().open == 8).await;
    for _ in 0..3 {
        if let Ok(mut turned_away) = Raw::try_connect(TWO, served.address).await {
            turned_away.ended().await;
        }
    }
    assert!(!served.answers(TWO).await, "this address is full");
    assert!(served.answers(ONE).await && served.answers(THREE).await);
    let counts = served.gate.counts();
    assert!(counts.refused_address >= 4 && counts.refused_full == 0, "{counts:?}");
    drop(silent);
    wait_until("their places are given back", async || served.gate.counts().open == 0).await;
    assert!(served.answers(TWO).await);
}

#[tokio::test]
async fn a_full_listener_turns_everybody_away_until_somebody_leaves() {
    let served = serve_with(TransportLimits { connections_max: 8, connections_per_address: 64, ..patient() }).await;
    // An address may take six; the last quarter is for those that hold few.
    let mut first = raws(6, TWO, &served).await;
    let second = [raws(1, THREE, &served).await, raws(1, FOUR, &served).await];
    wait_until("they are in", async || served.gate.counts().open == 8).await;
    assert!(!served.answers(ONE).await);
    assert!(served.gate.counts().refused_full >= 1);
    drop(first.pop());
    wait_until("a place is given back", async || served.gate.counts().open == 7).await;
    assert!(served.answers(ONE).await);
    drop((first, second));
    wait_until("all are given back", async || served.gate.counts().open == 0).await;
}

#[tokio::test]
async fn who_sends_no_whole_request_in_time_is_put_out_wherever_it_stopped() {
    let limits = TransportLimits { first_request_within: Duration::from_millis(300), ..patient() };
    let served = serve_with(limits).await;
    let (settings, request) = (Frame::new(SETTINGS, 0, 0, []).bytes(), health_check(1));
    let unfinished = Frame { flags: 0, ..Frame::new(HEADERS, 0, 1, request[9..].to_vec()) }.bytes();
    let said: [&[u8]; 6] = [
        b"",
        &PREFACE[..10],
        PREFACE,
        &[PREFACE, &settings].concat(),
        &[PREFACE, &settings, &request[..20]].concat(),
        &[PREFACE, &settings, &unfinished].concat(),
    ];
    for (number, said) in (1..).zip(said) {
        let mut raw = Raw::connect(ONE, served.address).await;
        raw.send(said).await;
        tokio::time::timeout(DEADLINE, raw.ended()).await.unwrap();
        wait_until("it is counted", async || served.gate.counts().silent == number).await;
    }
    wait_until("their places are given back", async || served.gate.counts().open == 0).await;
}

#[tokio::test]
async fn who_floods_without_reading_or_asking_is_put_out_too() {
    let served = serve_with(patient()).await;
    let mut raw = Raw::greeted(served.address).await;
    let pings = Frame::new(raw::PING, 0, 0, [0; 8]).bytes().repeat(4096);
    let flood = async { while tokio::io::AsyncWriteExt::write_all(&mut raw.0, &pings).await.is_ok() {} };
    tokio::time::timeout(DEADLINE, flood).await.unwrap();
    wait_until("its place is given back", async || served.gate.counts().open == 0).await;
}

#[tokio::test]
async fn who_has_asked_once_may_stay() {
    let served = serve_with(TransportLimits { first_request_within: Duration::from_millis(300), ..patient() }).await;
    let mut asked = Raw::greeted(served.address).await;
    let message = |stream| [health_check(stream), Frame::new(DATA, END_STREAM, stream, [0; 5]).bytes()].concat();
    asked.send(&message(1)).await;
    assert!(asked.next_of(DATA).await.is_some());
    // By the time that one that came later is put out, the first one would have been.
    Raw::connect(ONE, served.address).await.ended().await;
    asked.send(&message(3)).await;
    assert_eq!(asked.next_of(DATA).await.unwrap().stream, 3);
    assert_eq!(served.gate.counts().silent, 1);
}

/// Watches of health need no credential, and each keeps memory until it ends.
#[tokio::test]
async fn an_address_has_so_many_watches_and_may_ask_for_health_all_the_same() {
    let served = serve_with(patient()).await;
    let (mut clients, mut watched) = ([served.client(TWO), served.client(TWO)], Vec::new());
    for client in &mut clients {
        for _ in 0..crate::limits::WATCHES_PER_ADDRESS / 2 {
            watched.push(client.watch(HealthCheckRequest::default()).await.unwrap());
        }
    }
    let mut third = served.client(TWO);
    let refused = third.watch(HealthCheckRequest::default()).await.unwrap_err();
    assert_eq!(crate::status::from_status(&refused).reason, Some(Reason::Overloaded));
    assert!(third.check(HealthCheckRequest::default()).await.is_ok());
    assert!(served.client(THREE).watch(HealthCheckRequest::default()).await.is_ok());
    drop(watched);
    wait_until("a place is given back", async || third.watch(HealthCheckRequest::default()).await.is_ok()).await;
}

/// One connection that never said a word once made every stop last as long as the drain.
#[tokio::test]
async fn silent_connections_do_not_hold_up_a_stop() {
    let served = serve_with(patient()).await;
    let (_mute, _idle) = (Raw::connect(ONE, served.address).await, Raw::greeted(served.address).await);
    wait_until("they are in", async || served.gate.counts().open == 2).await;
    served.stop.cancel();
    let ended = tokio::time::timeout(DEADLINE, served.serving).await.unwrap();
    assert!(matches!(ended, Ok(Some(true))));
    assert_eq!(served.gate.counts().silent, 0, "they were not late");
}

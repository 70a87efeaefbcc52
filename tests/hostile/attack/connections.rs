//! Connections that say nothing, or half of something.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use futures_util::stream::{self, StreamExt as _};
use tokio::time::Instant;

use super::Target;
use super::wire::{
    DATA, HEADERS, PREFACE, REFUSED_STREAM, Raw, Seen, address, call_headers, frame, greeting, open_call, stream_id,
};

/// How long after its time a connection may still be there, on a busy machine.
const GRACE: Duration = Duration::from_secs(30);
/// How long after its time nobody needs to ask why it is still there.
const QUEUED: Duration = Duration::from_secs(2);
/// Connections that are dialled at the same time.
const DIALLED_AT_ONCE: usize = 256;

/// What became of connections.
#[derive(Debug, Default)]
struct Fates {
    /// Closed at once, with a reset.
    turned_away: usize,
    /// Closed in good order, later.
    put_out: usize,
    /// Still there after everybody's time.
    left: usize,
}

/// Opens connections that say something and then nothing, and waits for their end.
async fn sit(
    target: &Target,
    connections: impl Iterator<Item = (usize, SocketAddr, Vec<u8>)>,
) -> Result<(Fates, Duration)> {
    let began = Instant::now();
    let dialled: Vec<_> = stream::iter(connections)
        .map(async |(number, to, said)| {
            let mut raw = Raw::connect(address(number), to).await.ok()?;
            // Who was turned away already cannot send.
            raw.send(&said).await.ok();
            Some(raw)
        })
        .buffer_unordered(DIALLED_AT_ONCE)
        .collect()
        .await;
    let dialling = began.elapsed();
    let ends = futures_util::future::join_all(dialled.into_iter().map(async |raw| match raw {
        Some(raw) => end(raw, target.times.first_request).await,
        None => Some(true),
    }))
    .await;
    let count = |fate: Option<bool>| ends.iter().filter(|end| **end == fate).count();
    Ok((Fates { turned_away: count(Some(true)), put_out: count(Some(false)), left: count(None) }, dialling))
}

/// The end of a connection. One that the system greeted for a service whose queue was full is not known to it, and only
/// finds out when it says something: then it is let in, or not.
async fn end(mut raw: Raw, first_request: Duration) -> Option<bool> {
    if let Some(end) = raw.end(first_request + QUEUED).await {
        return Some(end);
    }
    raw.send(b"P").await.ok();
    raw.end(first_request + GRACE).await
}

/// Connections that never say a word: 10,000 from all our addresses, or more than two addresses may hold.
pub(super) async fn silent(target: &Target) -> Result<String> {
    let (count, addresses) = if target.long { (10_000, 8) } else { (1_000, 2) };
    let to = |number: usize| if target.long { target.either(number / 8) } else { target.chunk };
    let connections = (0..count).map(|number| (number % addresses, to(number), Vec::new()));
    let (Fates { turned_away, put_out, left }, dialling) = sit(target, connections).await?;
    ensure!(left == 0, "{left} of {count} are still there");
    // Whoever dials so slowly that the first ones were put out meanwhile is at no limit.
    ensure!(turned_away > 0 || dialling > target.times.first_request, "nobody was turned away of {count}");
    ensure!(put_out > 0, "nobody was let in");
    Ok(format!("{count} dialled in {dialling:.1?}: {turned_away} turned away, {put_out} put out in time"))
}

/// The preface, and each beginning of a request, and then nothing.
pub(super) async fn half_said(target: &Target) -> Result<String> {
    let greeting = greeting();
    let request = open_call(1, "/grpc.health.v1.Health/Check", None);
    let half = request.get(..20).unwrap_or_default();
    let unfinished = frame(HEADERS, 0, 1, &call_headers("/grpc.health.v1.Health/Check", None));
    let said = [
        PREFACE.get(..10).unwrap_or_default().to_vec(),
        PREFACE.to_vec(),
        greeting.clone(),
        [greeting.as_slice(), half].concat(),
        [greeting.as_slice(), &unfinished].concat(),
    ];
    let count = if target.long { 2_000 } else { 250 };
    let connections = said.iter().cycle().take(count).enumerate();
    let connections = connections.map(|(number, said)| (number, target.either(number / 8), said.clone()));
    let (Fates { turned_away, put_out, left }, _) = sit(target, connections).await?;
    ensure!(left == 0, "{left} of {count} are still there");
    Ok(format!("{count} dialled: all ended in time ({})", turned_away + put_out))
}

/// Half a TLS handshake, to listeners that speak no TLS: a greeting of the wrong kind.
pub(super) async fn half_tls(target: &Target) -> Result<String> {
    let hello: [&[u8]; 3] = [&[0x16], &[0x16, 3, 1, 2, 0], &[0x16, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3, 0, 0, 0, 0, 0]];
    let count = if target.long { 2_000 } else { 250 };
    let connections = hello.iter().cycle().take(count).enumerate();
    let connections = connections.map(|(number, said)| (number, target.either(number / 8), said.to_vec()));
    let (Fates { turned_away, put_out, left }, _) = sit(target, connections).await?;
    ensure!(left == 0, "{left} of {count} are still there");
    Ok(format!("{count} dialled: all ended in time ({})", turned_away + put_out))
}

/// A thousand calls on each connection whose messages never come.
pub(super) async fn idle_streams(target: &Target) -> Result<String> {
    const STREAMS: u32 = 1_000;
    let path = "/minitectonic.v1.MetadataService/GetBlob";
    let within = target.times.request_stall + GRACE;
    let connections = if target.long { 64 } else { 8 };
    let opened: Vec<u8> =
        (0..STREAMS).flat_map(|number| open_call(stream_id(number), path, Some(&target.token))).collect();
    let said = [greeting(), opened].concat();
    let watched = (0..connections).map(async |number| {
        let mut raw = Raw::connect(address(number), target.metadata).await?;
        // Every stream ends in one way or the other.
        let seen = raw.exchange(std::iter::once(said.clone()), within, |seen| is_over(seen, STREAMS)).await;
        ensure!(is_over(&seen, STREAMS), "streams are left: {seen}");
        ensure!(seen.answers == 0, "who said nothing was answered: {seen}");
        anyhow::Ok(seen)
    });
    let seen = futures_util::future::try_join_all(watched).await?;
    let seen = seen.into_iter().fold(Seen::default(), Seen::and);
    ensure!(seen.resets.contains_key(&REFUSED_STREAM) || seen.is_calmed(), "no stream was refused: {seen}");
    Ok(seen.to_string())
}

fn is_over(seen: &Seen, streams: u32) -> bool {
    let over = seen.refusals + seen.resets.get(&REFUSED_STREAM).copied().unwrap_or_default();
    seen.ended > 0 || seen.is_calmed() || over >= u64::from(streams)
}

/// Requests of one message whose bytes come one a second.
pub(super) async fn slow_requests(target: &Target) -> Result<String> {
    let path = "/minitectonic.v1.MetadataService/GetBlob";
    let count = 32;
    let within = target.times.request_within + GRACE;
    let dripping = (0..count).map(async |number| {
        let mut raw = Raw::connect(address(number), target.metadata).await?;
        let announced = frame(DATA, 0, 1, &[0, 0, 0, 16, 0]);
        raw.send(&[greeting(), open_call(1, path, Some(&target.token)), announced].concat()).await?;
        let began = Instant::now();
        let mut seen = Seen::default();
        while began.elapsed() < within && seen.refusals == 0 && seen.ended == 0 {
            seen = seen.and(raw.watch(target.times.drip, |seen| seen.refusals > 0).await);
            raw.send(&frame(DATA, 0, 1, b"a")).await.ok();
        }
        ensure!(seen.refusals == 1, "it was not refused in {:?}: {seen}", began.elapsed());
        Ok(began.elapsed())
    });
    let took = futures_util::future::try_join_all(dripping).await?;
    let longest = took.into_iter().max().unwrap_or_default();
    Ok(format!("{count} calls, each refused after at most {longest:.1?}"))
}

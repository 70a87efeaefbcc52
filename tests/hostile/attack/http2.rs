//! Floods of frames, each of which is allowed, or almost.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, ensure};
use futures_util::future::try_join_all;
use prost::Message as _;
use proto::pb;
use tokio::time::Instant;

use super::Target;
use super::call::prefixed;
use super::wire::{
    ADDRESSES, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PREFACE, RESET, Raw, SETTINGS, Seen,
    address, call_headers, frame, greeting, header, health_check, open_call, stream_id,
};

/// How long one connection of a flood may last.
pub(super) const LONGEST: Duration = Duration::from_secs(30);
/// Bytes of a flood that a server may have taken from a peer that reads nothing, before it makes the peer wait.
const TAKEN_MAX: u64 = 64 << 20;

/// Repeats an attack from all our addresses at once until its time is over, and adds up what was seen.
async fn everywhere(target: &Target, attack: impl AsyncFn(IpAddr, SocketAddr) -> Result<Seen>) -> Result<Seen> {
    let ends = Instant::now() + target.lasts;
    let attack = &attack;
    let each = (0..usize::from(ADDRESSES)).map(async |number| {
        let mut seen = Seen::default();
        let mut turn = number;
        while Instant::now() < ends {
            seen = seen.and(attack(address(number), target.either(turn)).await?);
            turn += 1;
        }
        anyhow::Ok(seen)
    });
    Ok(try_join_all(each).await?.into_iter().fold(Seen::default(), Seen::and))
}

/// Says blocks on a new connection and reads what comes until its end.
async fn say(from: IpAddr, to: SocketAddr, blocks: impl Iterator<Item = Vec<u8>> + Send) -> Result<Seen> {
    // Who is turned away for having too many connections has seen enough.
    let Ok(mut raw) = Raw::connect(from, to).await else { return Ok(Seen::default()) };
    Ok(raw.exchange(std::iter::once(greeting()).chain(blocks), LONGEST, |_seen| false).await)
}

/// Calls that are taken back as soon as they are opened.
pub(super) async fn rapid_resets(target: &Target) -> Result<String> {
    let seen = everywhere(target, async |from, to| {
        let pair =
            |number: u32| [health_check(stream_id(number)), frame(RESET, 0, stream_id(number), &[0; 4])].concat();
        say(from, to, (0..2_000).map(pair)).await
    })
    .await?;
    ensure!(seen.is_calmed() && seen.ended > 0, "nobody was sent away: {seen}");
    Ok(seen.to_string())
}

/// Calls with mistakes for which the server has to reset them.
pub(super) async fn made_resets(target: &Target) -> Result<String> {
    let seen = everywhere(target, async |from, to| {
        // A method alone is no request.
        let mistake = |number: u32| frame(HEADERS, END_STREAM | END_HEADERS, stream_id(number), &[0x82]);
        say(from, to, (0..1_000).map(mistake)).await
    })
    .await?;
    ensure!(seen.is_calmed() && seen.ended > 0, "nobody was sent away: {seen}");
    Ok(seen.to_string())
}

/// One request whose headers never end.
pub(super) async fn continuations(target: &Target) -> Result<String> {
    const FRAMES: u32 = 10_000;
    let seen = everywhere(target, async |from, to| {
        let first = frame(HEADERS, 0, 1, &call_headers("/grpc.health.v1.Health/Check", None));
        let junk: Vec<u8> = (0..100).flat_map(|number| header(0, &format!("x-{number}"), &"a".repeat(100))).collect();
        let more = (0..FRAMES).map(move |_| frame(CONTINUATION, 0, 1, &junk));
        let seen = say(from, to, std::iter::once(first).chain(more)).await?;
        ensure!(seen.ended == 1, "it may go on for ever: {seen}");
        ensure!(seen.sent < u64::from(FRAMES) * 10_000, "all of it was taken: {seen}");
        Ok(seen)
    })
    .await?;
    ensure!(seen.ended > 0, "nothing happened: {seen}");
    Ok(seen.to_string())
}

/// A header that is said once and meant ten thousand times: 14 KiB on the wire, 40 MiB unpacked.
pub(super) async fn header_bomb(target: &Target) -> Result<String> {
    let seen = everywhere(target, async |from, to| {
        let remembered = header(0x40, "x", &"a".repeat(4_000));
        // The first entry of the table of what was said.
        let again = vec![0x80 | 62; 10_000];
        let bomb = |number: u32| {
            let block =
                [call_headers("/grpc.health.v1.Health/Check", None), remembered.clone(), again.clone()].concat();
            frame(HEADERS, END_STREAM | END_HEADERS, stream_id(number), &block)
        };
        let Ok(mut raw) = Raw::connect(from, to).await else { return Ok(Seen::default()) };
        let bombs = std::iter::once(greeting()).chain((0..20).map(bomb));
        Ok(raw.exchange(bombs, Duration::from_millis(500), |_seen| false).await)
    })
    .await?;
    let refused = seen.refusals + seen.resets.values().sum::<u64>() + seen.go_aways.values().sum::<u64>();
    ensure!(refused > 0 && seen.answers == 0, "it was taken: {seen}");
    Ok(seen.to_string())
}

/// Frames that demand an answer each and bring nothing: some are answered, and with more of them the connection ends.
async fn demanding(target: &Target, demand: Vec<u8>) -> Result<String> {
    let (few, many) = (demand.repeat(50), demand.repeat(4_096));
    let (few, many) = (&few, &many);
    let seen = everywhere(target, async |from, to| {
        let Ok(mut raw) = Raw::connect(from, to).await else { return Ok(Seen::default()) };
        let first = [greeting(), health_check(1), few.clone()].concat();
        let mut seen = raw.exchange(std::iter::once(first), LONGEST, |seen| seen.acknowledged >= 50).await;
        // From here on nothing is read.
        seen.sent += raw.push(many, LONGEST).await;
        ensure!(seen.sent < TAKEN_MAX, "{} bytes were taken from a peer that reads nothing", seen.sent);
        ensure!(raw.end(LONGEST).await.is_some(), "it may go on for ever: {seen}");
        Ok(Seen { ended: 1, ..seen })
    })
    .await?;
    ensure!(seen.acknowledged > 0 && seen.ended > 0, "nothing was answered, or nobody cut off: {seen}");
    Ok(seen.to_string())
}

/// Pings as fast as they go.
pub(super) async fn pings(target: &Target) -> Result<String> {
    demanding(target, frame(PING, 0, 0, &[7; 8])).await
}

/// Settings as fast as they go.
pub(super) async fn settings(target: &Target) -> Result<String> {
    // The window of a stream, now one and now the other.
    let [one, other] = [[0, 4, 0, 1, 0, 0], [0, 4, 0, 2, 0, 0]].map(|entry| frame(SETTINGS, 0, 0, &entry));
    demanding(target, [one, other].concat()).await
}

/// Readers who grant their answers no window, or a byte of one, and are otherwise well and alive: chunks, and listings. A
/// stream's own timers cannot end what nobody asks for, so the connection ends.
pub(super) async fn deaf(target: &Target) -> Result<String> {
    const STREAMS: u32 = 32;
    let plan = target.plan_read().await?;
    let chunk = pb::ReadChunkRequest { chunk_id: plan.chunk.clone(), ..Default::default() }.encode_to_vec();
    let chunk = ("/minitectonic.v1.ChunkService/ReadChunk", target.chunk, plan.capability.as_str(), chunk);
    let page = pb::ListBlobsRequest { page_size: 1_000, ..Default::default() }.encode_to_vec();
    let page = ("/minitectonic.v1.MetadataService/ListBlobs", target.metadata, target.token.as_str(), page);
    let within = target.times.answer_taken * 2 + LONGEST;
    let cases = [chunk, page];
    let each = cases.iter().cycle().take(usize::from(ADDRESSES)).enumerate().map(async |(number, case)| {
        let (path, to, credential, message) = case;
        let window = u8::from(number >= cases.len());
        let mut asked = [PREFACE, &frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, window])].concat();
        for stream in (0..STREAMS).map(stream_id) {
            asked.extend(open_call(stream, path, Some(credential)));
            asked.extend(frame(DATA, END_STREAM, stream, &prefixed(message)));
        }
        let mut raw = Raw::connect(address(number), *to).await?;
        raw.send(&asked).await?;
        let seen = raw.watch(within, |_seen| false).await;
        ensure!(seen.ended == 1 && seen.answers > 0, "its answers wait for ever: {seen}");
        anyhow::Ok(seen)
    });
    let seen = try_join_all(each).await?.into_iter().fold(Seen::default(), Seen::and);
    Ok(seen.to_string())
}

/// Frames without a byte, in a call that waits for some: a million.
pub(super) async fn empty_frames(target: &Target) -> Result<String> {
    let blocks = if target.long { 125 } else { 12 };
    let plan = target.plan_write(1 << 20).await?;
    let unary = ("/minitectonic.v1.MetadataService/GetBlob", target.metadata, target.token.as_str());
    let upload = ("/minitectonic.v1.ChunkService/WriteChunk", target.chunk, plan.capability.as_str());
    let within = target.times.request_stall.max(target.times.stream_stall) + LONGEST;
    let each = [unary, upload].into_iter().cycle().take(8).enumerate().map(async |(number, (path, to, credential))| {
        let mut raw = Raw::connect(address(number), to).await?;
        let opened = [greeting(), open_call(1, path, Some(credential))].concat();
        let empty = frame(DATA, 0, 1, &[]).repeat(1_000);
        let blocks = std::iter::once(opened).chain((0..blocks).map(|_| empty.clone()));
        let seen = raw.exchange(blocks, within, |seen| seen.refusals > 0).await;
        ensure!(seen.refusals > 0 || seen.ended > 0, "it goes on for ever: {path} {seen}");
        anyhow::Ok(seen)
    });
    let seen = try_join_all(each).await?.into_iter().fold(Seen::default(), Seen::and);
    Ok(seen.to_string())
}

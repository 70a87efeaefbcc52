//! Streams of chunks: slow ones, unread ones, and ones whose messages do not fit together.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use futures_util::future::{join_all, try_join_all};
use mini_tectonic_client::{DownloadOptions, Sha256, Sink};
use prost::Message as _;
use proto::checksum::crc32c;
use proto::error::Reason;
use proto::limits::FRAME_BYTES_MAX;
use proto::pb;
use proto::pb::chunk_service_client::ChunkServiceClient;
use proto::pb::metadata_service_client::MetadataServiceClient;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic::transport::Channel;

use super::call::{Answer, Call, DEADLINE, body, prefixed};
use super::{Plan, Target, bearing, pattern};

const WRITE: &str = "/minitectonic.v1.ChunkService/WriteChunk";

/// A message with a frame.
fn frame(offset: usize, content: Bytes) -> pb::WriteChunkRequest {
    let crc32c = Some(crc32c(&content));
    let data = pb::ChunkData { content, crc32c };
    pb::WriteChunkRequest { write_offset: offset as u64, data: Some(data), ..Default::default() }
}

fn spec(plan: &Plan, size_bytes: u64) -> pb::WriteChunkSpec {
    pb::WriteChunkSpec { chunk_id: plan.chunk.clone(), size_bytes: Some(size_bytes) }
}

/// The messages of a whole write.
fn messages(plan: &Plan, bytes: &Bytes, frame_bytes: usize) -> Vec<pb::WriteChunkRequest> {
    let starts = (0..bytes.len()).step_by(frame_bytes);
    let mut messages: Vec<_> = starts.map(|at| frame(at, bytes.slice(at..bytes.len().min(at + frame_bytes)))).collect();
    if let Some(first) = messages.first_mut() {
        first.spec = Some(spec(plan, bytes.len() as u64));
    }
    if let Some(last) = messages.last_mut() {
        last.finish_write = true;
        last.checksums = Some(pb::ChunkChecksums { sha256: Sha256::of(bytes).to_string() });
    }
    messages
}

async fn write(channel: &Channel, plan: &Plan, messages: Vec<pb::WriteChunkRequest>) -> Answer {
    let request = bearing(tokio_stream::iter(messages), &plan.capability);
    let mut service = ChunkServiceClient::new(channel.clone());
    Answer::of_outcome(&service.write_chunk(request).await)
}

async fn status(channel: &Channel, plan: &Plan) -> Result<pb::QueryWriteStatusResponse> {
    let message = pb::QueryWriteStatusRequest { chunk_id: plan.chunk.clone() };
    let mut service = ChunkServiceClient::new(channel.clone());
    Ok(service.query_write_status(bearing(message, &plan.capability)).await?.into_inner())
}

/// An honest client whose messages hold 100 bytes, and come in HTTP/2 frames of their own: all of it must be taken.
pub(super) async fn small_frames(target: &Target) -> Result<String> {
    let size = if target.long { 100_000_000 } else { 10_000_000 };
    let (bytes, block) = (pattern(size), 50_000_000);
    let (began, mut receipts) = (Instant::now(), Vec::new());
    // Blobs of one block each: what is shown is the same, and simpler.
    let parts: Vec<Bytes> = (0..size).step_by(block).map(|at| bytes.slice(at..size.min(at + block))).collect();
    let mut frames = 0;
    for part in &parts {
        let plan = target.plan_write(part.len() as u64).await?;
        let channel = target.chunk_channel(0)?;
        let (sender, sent) = body();
        let messages = messages(&plan, part, 100);
        frames += messages.len();
        let sending = async move {
            for message in messages {
                if sender.send(prefixed(&message.encode_to_vec())).await.is_err() {
                    break;
                }
            }
        };
        let call = Call::new(&channel, WRITE, &plan.capability);
        let (answer, ()) = tokio::join!(timeout(5 * DEADLINE, call.answered(sent)), sending);
        let answer = answer.context("no answer came")??;
        ensure!(answer.code == Code::Ok, "an honest client was refused: {answer:?}");
        receipts.push((plan.clone(), status(&channel, &plan).await?.receipt));
    }
    for ((plan, receipt), part) in receipts.into_iter().zip(&parts) {
        commit_and_read(target, &plan, receipt, part).await?;
    }
    Ok(format!("{frames} frames of 100 bytes in {:.1?}, read back", began.elapsed()))
}

async fn commit_and_read(target: &Target, plan: &Plan, receipt: Bytes, bytes: &Bytes) -> Result<()> {
    let sha256 = Sha256::of(bytes);
    let message = pb::CommitUploadRequest {
        blob_id: plan.blob.clone(),
        size_bytes: plan.size_bytes,
        sha256: sha256.to_string(),
        receipts: vec![receipt],
        ..Default::default()
    };
    let mut service = MetadataServiceClient::new(target.metadata_channel(0)?);
    service.commit_upload(bearing(message, &target.token)).await?;
    let blob = plan.blob.parse()?;
    let sink = Sink::Writer(Box::new(std::io::sink()));
    let read = target.client.download(blob, DownloadOptions::default(), sink).await?;
    ensure!(read.bytes == plan.size_bytes && read.blob.sha256 == sha256, "what was written is not what is read");
    Ok(target.client.delete_blob(blob).await?)
}

/// Uploads of one byte a second, each a frame of its own: they are let go on, and end when they fall silent.
pub(super) async fn slow_uploads(target: &Target) -> Result<String> {
    let uploads = if target.long { 64 } else { 16 };
    let each = (0..uploads).map(async |number| {
        let plan = target.plan_write(1 << 20).await?;
        let channel = target.chunk_channel(number)?;
        let (sender, receiver) = mpsc::channel(4);
        let request = bearing(ReceiverStream::new(receiver), &plan.capability);
        let mut service = ChunkServiceClient::new(channel.clone());
        let dripping = async {
            let ends = Instant::now() + target.lasts;
            let mut at = 0;
            while at == 0 || Instant::now() < ends {
                let message = frame(at, Bytes::from_static(b"a"));
                let spec = (at == 0).then(|| spec(&plan, 1 << 20));
                sender.send(pb::WriteChunkRequest { spec, ..message }).await.context("it was cut in the middle")?;
                at += 1;
                sleep(target.times.drip).await;
            }
            // From here on nothing comes.
            anyhow::Ok((at as u64, Instant::now()))
        };
        let (outcome, dripped) = tokio::join!(timeout(DEADLINE, service.write_chunk(request)), dripping);
        let (sent, silent_since) = dripped?;
        let waited = silent_since.elapsed();
        let outcome = outcome.context("a silent stream was not cut")?;
        Answer::of_outcome(&outcome).expect("silence", &[Reason::StreamStalled])?;
        let kept = status(&channel, &plan).await?.persisted_size_bytes;
        ensure!(kept == sent, "of {sent} bytes {kept} were taken");
        target.abort(&plan).await?;
        anyhow::Ok((sent, waited))
    });
    let ended = try_join_all(each).await?;
    let (bytes, waited): (Vec<_>, Vec<_>) = ended.into_iter().unzip();
    let longest = waited.into_iter().max().unwrap_or_default();
    Ok(format!("{uploads} uploads of {} bytes in all, cut after {longest:.1?} of silence", bytes.iter().sum::<u64>()))
}

/// What became of a reader.
#[derive(Debug, PartialEq, Eq)]
enum Reader {
    /// Its connection was closed before it could ask.
    TurnedAway,
    /// It was told that there are too many.
    Refused,
    /// It was cut, with so many bytes on their way to it.
    Cut(u64),
}

/// Readers that ask for a chunk and then read nothing of it.
pub(super) async fn never_reads(target: &Target) -> Result<String> {
    let plan = target.plan_read().await?;
    // In the long form more than one tenant may have.
    let readers = if target.long { 300 } else { 16 };
    let ended = try_join_all((0..readers).map(|number| never_read(target, &plan, number))).await?;
    let cut = ended.iter().filter_map(|reader| if let Reader::Cut(bytes) = reader { Some(*bytes) } else { None });
    let (count, most) = (cut.clone().count(), cut.max().context("nobody was let in")? / 1024);
    let away = ended.iter().filter(|reader| **reader == Reader::TurnedAway).count();
    // Each has a connection of its own, for which there are places but with few descriptors.
    ensure!(target.few_descriptors || away == 0, "{away} connections were closed");
    Ok(format!("{readers} readers, {away} turned away, {count} let in and cut, with at most {most} KiB of their bytes"))
}

async fn never_read(target: &Target, plan: &Plan, number: usize) -> Result<Reader> {
    let message = pb::ReadChunkRequest { chunk_id: plan.chunk.clone(), ..Default::default() };
    let mut service = ChunkServiceClient::new(target.chunk_channel(number)?).max_decoding_message_size(2 << 20);
    let mut answers = match service.read_chunk(bearing(message, &plan.capability)).await {
        Ok(answers) => answers.into_inner(),
        // What no service said is the transport's.
        Err(status) if std::error::Error::source(&status).is_some() => return Ok(Reader::TurnedAway),
        // A tenant has only so many.
        Err(status) => {
            Answer::of(&status).expect("too many readers", &[Reason::Overloaded])?;
            return Ok(Reader::Refused);
        }
    };
    sleep(target.times.stream_stall + Duration::from_secs(2)).await;
    let mut bytes = 0;
    let ended = loop {
        match timeout(DEADLINE, answers.message()).await.context("the stream does not end")? {
            Ok(Some(answer)) => bytes += answer.data.unwrap_or_default().content.len() as u64,
            Ok(None) => break None,
            Err(status) => break Some(Answer::of(&status)),
        }
    };
    ensure!(bytes < plan.size_bytes, "everything was sent to a reader that does not read");
    ended.context("a stream that was cut ended as if it were whole")?.expect("cut", &[Reason::StreamStalled])?;
    Ok(Reader::Cut(bytes))
}

/// One case of a write that makes no sense.
type Case = (&'static str, fn(&Plan) -> Vec<pb::WriteChunkRequest>, &'static [Reason]);

/// Runs cases until the time is over, each on an upload of its own.
async fn each_refused(target: &Target, size: u64, cases: &[Case]) -> Result<String> {
    let ends = Instant::now() + target.lasts;
    let (mut refused, mut turned_away) = (vec![0_u64; cases.len()], 0);
    while refused.contains(&0) || Instant::now() < ends {
        let heard = try_join_all(cases.iter().enumerate().map(async |(number, (what, messages, reasons))| {
            let plan = target.plan_write(size).await?;
            let channel = target.chunk_channel(number)?;
            let answer = write(&channel, &plan, messages(&plan)).await;
            // What earlier ones have left open is kept for a while, and counts.
            let heard = !answer.is_turned_away();
            if heard {
                answer.expect(what, reasons)?;
            }
            target.abort(&plan).await.map(|()| heard)
        }))
        .await?;
        refused.iter_mut().zip(&heard).for_each(|(count, heard)| *count += u64::from(*heard));
        turned_away += heard.iter().filter(|heard| !**heard).count();
    }
    let refused: u64 = refused.iter().sum();
    Ok(format!("{refused} uploads, each refused with its reason, and {turned_away} turned away"))
}

/// Three frames of a thousand bytes, and then whatever is done to them.
fn three(plan: &Plan) -> Vec<pb::WriteChunkRequest> {
    messages(plan, &pattern(3_000), 1_000)
}

/// The same, with one of them changed.
fn changed(plan: &Plan, index: usize, change: impl FnOnce(&mut pb::WriteChunkRequest)) -> Vec<pb::WriteChunkRequest> {
    let mut messages = three(plan);
    messages.get_mut(index).map(change);
    messages
}

/// Frames out of order, overlapping, repeated, after the end.
pub(super) async fn wrong_frames(target: &Target) -> Result<String> {
    const OFFSET: &[Reason] = &[Reason::WriteOffsetMismatch];
    const FIELD: &[Reason] = &[Reason::FieldInvalid];
    let cases: [Case; 8] = [
        ("out of order", |plan| changed(plan, 1, |message| message.write_offset = 2_000), OFFSET),
        ("overlapping", |plan| changed(plan, 1, |message| message.write_offset = 500), OFFSET),
        ("repeated", |plan| changed(plan, 1, |message| message.write_offset = 0), OFFSET),
        ("far beyond everything", |plan| changed(plan, 1, |message| message.write_offset = u64::MAX), OFFSET),
        ("not from the beginning", |plan| changed(plan, 0, |message| message.write_offset = 1_000), OFFSET),
        ("after the end", |plan| [three(plan), vec![frame(3_000, Bytes::new())]].concat(), FIELD),
        ("begun twice", |plan| changed(plan, 1, |message| message.spec = Some(spec(plan, 3_000))), FIELD),
        ("without an end", |plan| three(plan).into_iter().take(2).collect(), FIELD),
    ];
    each_refused(target, 3_000, &cases).await
}

/// Sizes and sums that are not those of the bytes.
pub(super) async fn wrong_sizes(target: &Target) -> Result<String> {
    fn announced(plan: &Plan, size: u64) -> Vec<pb::WriteChunkRequest> {
        changed(plan, 0, |first| first.spec = Some(spec(plan, size)))
    }
    let cases: [Case; 6] = [
        ("more than is permitted", |plan| announced(plan, u64::MAX), &[Reason::FieldInvalid]),
        ("less than comes", |plan| announced(plan, 1_500), &[Reason::FieldInvalid]),
        ("more than comes", |plan| announced(plan, 3_001), &[Reason::FieldInvalid]),
        (
            "a frame beyond the largest",
            |plan| messages(plan, &pattern(FRAME_LARGEST + 1), FRAME_LARGEST + 1),
            &[Reason::FrameTooLarge],
        ),
        (
            "a frame with another sum",
            |plan| changed(plan, 1, |message| message.data.get_or_insert_default().crc32c = Some(1)),
            &[Reason::ChecksumMismatch],
        ),
        (
            "a chunk with another sum",
            |plan| changed(plan, 2, |last| last.checksums.get_or_insert_default().sha256 = Sha256::of(b"").to_string()),
            &[Reason::ChecksumMismatch],
        ),
    ];
    each_refused(target, 2 * FRAME_BYTES_MAX, &cases).await
}

#[expect(clippy::cast_possible_truncation, reason = "1 MiB")]
const FRAME_LARGEST: usize = FRAME_BYTES_MAX as usize;

/// Several uploads of the same chunk at the same time: one of them counts, and it is whole.
pub(super) async fn racing_uploads(target: &Target) -> Result<String> {
    let ends = Instant::now() + target.lasts;
    let (mut races, mut overtaken) = (0, 0);
    let bytes = pattern(500_000);
    while races == 0 || Instant::now() < ends {
        let plan = target.plan_write(bytes.len() as u64).await?;
        let racers = (0..8).map(async |number| {
            anyhow::Ok(write(&target.chunk_channel(number)?, &plan, messages(&plan, &bytes, 50_000)).await)
        });
        for answer in join_all(racers).await {
            let answer = answer?;
            if answer.code != Code::Ok {
                answer.expect("a race", &[Reason::ConcurrentWrite, Reason::WriteOffsetMismatch])?;
                overtaken += 1;
            }
        }
        let channel = target.chunk_channel(0)?;
        let whole = write(&channel, &plan, messages(&plan, &bytes, 50_000)).await;
        ensure!(whole.code == Code::Ok, "after the race: {whole:?}");
        commit_and_read(target, &plan, status(&channel, &plan).await?.receipt, &bytes).await?;
        races += 1;
    }
    Ok(format!("{races} races of 8, {overtaken} overtaken; each chunk read back"))
}

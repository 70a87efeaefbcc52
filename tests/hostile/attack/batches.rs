//! Batches: as large as they may be, of items that do not belong together, and with answers that nobody takes.

use std::io::Cursor;

use anyhow::{Result, ensure};
use futures_util::future::try_join_all;
use mini_tectonic_client::{Sha256, Source, UploadOptions};
use prost::Message as _;
use proto::checksum::crc32c;
use proto::entropy::OsEntropy;
use proto::error::Reason;
use proto::ids::BlobId;
use proto::limits::{BATCH_BYTES_MAX, BATCH_ITEMS_MAX};
use proto::pb;
use proto::pb::chunk_service_client::ChunkServiceClient;
use proto::pb::metadata_service_client::MetadataServiceClient;
use proto::runtime::clock::{Clock as _, SystemClock};
use proto::status::item_status;
use tokio::time::Instant;

use super::call::{Answer, prefixed};
use super::http2::LONGEST;
use super::wire::{ADDRESSES, DATA, END_STREAM, PREFACE, Raw, SETTINGS, Seen, address, frame, open_call, stream_id};
use super::{Plan, Target, bearing, pattern};

const READ_CHUNKS: &str = "/minitectonic.v1.ChunkService/ReadChunks";
const GET_BLOB_LAYOUTS: &str = "/minitectonic.v1.MetadataService/GetBlobLayouts";

/// Refuses an item that was answered, or refused for another reason.
fn item(what: &str, error: Option<&pb::ItemError>, reasons: &[Reason]) -> Result<()> {
    let answer = error.map_or(Answer { code: tonic::Code::Ok, reason: None }, |error| Answer::of(&item_status(error)));
    answer.expect(what, reasons)
}

/// Batches of what is one's own, another's and nobody's, of the same thing again and again, and of none or too many.
pub(super) async fn odd(target: &Target) -> Result<String> {
    let ends = Instant::now() + target.lasts;
    let (mut times, read) = (0, target.plan_read().await?);
    while times == 0 || Instant::now() < ends {
        layouts(target).await?;
        starts(target).await?;
        reads(target, &read).await?;
        writes(target).await?;
        times += 4;
    }
    Ok(format!("{times} rounds of {BATCH_ITEMS_MAX} items, each answered for itself"))
}

/// A blob of ours, one that nobody has, and what is no name, in turn.
async fn layouts(target: &Target) -> Result<()> {
    let nobodys = BlobId::generate(SystemClock.now_ms(), &OsEntropy).to_string();
    let names = [target.blob.to_string(), nobodys, "../admin.token".to_owned()];
    let of = |count| {
        names
            .iter()
            .cycle()
            .take(count)
            .map(|name| pb::GetBlobLayoutRequest { blob_id: name.clone(), ..Default::default() })
    };
    let mut service = MetadataServiceClient::new(target.metadata_channel(0)?);
    for count in [0, BATCH_ITEMS_MAX + 1] {
        let message = pb::GetBlobLayoutsRequest { blobs: of(count).collect() };
        let outcome = service.get_blob_layouts(bearing(message, &target.token)).await;
        Answer::of_outcome(&outcome).expect(("layouts", count), &[Reason::FieldInvalid])?;
    }
    let message = pb::GetBlobLayoutsRequest { blobs: of(BATCH_ITEMS_MAX).collect() };
    let results = service.get_blob_layouts(bearing(message, &target.token)).await?.into_inner().results;
    ensure!(results.len() == BATCH_ITEMS_MAX, "{} layouts", results.len());
    for (result, turn) in results.iter().zip((0..3).cycle()) {
        use pb::get_blob_layouts_result::Outcome;
        match (&result.outcome, turn) {
            (Some(Outcome::Answer(_)), 0) => {}
            (Some(Outcome::Error(error)), 1) => item("nobody's", Some(error), &[Reason::BlobNotFound])?,
            (Some(Outcome::Error(error)), 2) => item("no name", Some(error), &[Reason::FieldInvalid])?,
            (outcome, _) => anyhow::bail!("{outcome:?}"),
        }
    }
    Ok(())
}

/// Uploads of more than there is.
async fn starts(target: &Target) -> Result<()> {
    let upload = pb::StartUploadRequest { size_bytes: Some(u64::MAX), ..Default::default() };
    let message = pb::StartUploadsRequest { uploads: vec![upload; BATCH_ITEMS_MAX] };
    let mut service = MetadataServiceClient::new(target.metadata_channel(1)?);
    let results = service.start_uploads(bearing(message, &target.token)).await?.into_inner().results;
    ensure!(results.len() == BATCH_ITEMS_MAX, "{} uploads", results.len());
    for result in &results {
        use pb::start_uploads_result::Outcome;
        let error = if let Some(Outcome::Error(error)) = &result.outcome { Some(error) } else { None };
        item("an upload without a bound", error, &[Reason::FieldInvalid, Reason::QuotaExceeded])?;
    }
    Ok(())
}

/// A chunk of more bytes than a batch has, with its own permission and with one that was cut.
async fn reads(target: &Target, plan: &Plan) -> Result<()> {
    let of = |capability: &str| pb::ReadChunksItem { chunk_id: plan.chunk.clone(), capability: capability.to_owned() };
    let cut: String = plan.capability.chars().take(100).collect();
    let mut service = ChunkServiceClient::new(target.chunk_channel(0)?);
    let mut read = async |two: [pb::ReadChunksItem; 2]| {
        let chunks = two.into_iter().cycle().take(BATCH_ITEMS_MAX).collect();
        service.read_chunks(tonic::Request::new(pb::ReadChunksRequest { chunks })).await
    };
    let outcome = read([of(&cut), of(&plan.capability)]).await;
    Answer::of_outcome(&outcome).expect("a batch of a stranger", &[Reason::CapabilityInvalid])?;
    let results = read([of(&plan.capability), of(&cut)]).await?.into_inner().results;
    ensure!(results.len() == BATCH_ITEMS_MAX, "{} chunks", results.len());
    for (result, reason) in results.iter().zip([Reason::FieldInvalid, Reason::CapabilityInvalid].into_iter().cycle()) {
        use pb::read_chunks_result::Outcome;
        let error = if let Some(Outcome::Error(error)) = &result.outcome { Some(error) } else { None };
        item("a chunk of many bytes, or a cut permission", error, &[reason])?;
    }
    Ok(())
}

/// The same chunk in every item: it is written once, and whoever comes while it is written is told so.
async fn writes(target: &Target) -> Result<()> {
    let (bytes, plan) = (pattern(1_000), target.plan_write(1_000).await?);
    let whole = pb::WriteChunksItem {
        chunk_id: plan.chunk.clone(),
        capability: plan.capability.clone(),
        data: Some(pb::ChunkData { crc32c: Some(crc32c(&bytes)), content: bytes.clone() }),
        checksums: Some(pb::ChunkChecksums { sha256: Sha256::of(&bytes).to_string() }),
    };
    let message = pb::WriteChunksRequest { chunks: vec![whole; BATCH_ITEMS_MAX] };
    let mut service = ChunkServiceClient::new(target.chunk_channel(1)?);
    let results = service.write_chunks(tonic::Request::new(message)).await?.into_inner().results;
    let mut written = 0;
    for result in &results {
        use pb::write_chunks_result::Outcome;
        match &result.outcome {
            Some(Outcome::Answer(_)) => written += 1,
            Some(Outcome::Error(error)) => {
                item("a race", Some(error), &[Reason::ConcurrentWrite, Reason::WriteOffsetMismatch])?;
            }
            None => anyhow::bail!("an item without an outcome"),
        }
    }
    ensure!(results.len() == BATCH_ITEMS_MAX && written > 0, "of {} items {written} were written", results.len());
    target.abort(&plan).await
}

/// Batches whose answers are as large as they can be, for which no window is granted.
pub(super) async fn untaken(target: &Target) -> Result<String> {
    const STREAMS: u32 = 64;
    let connections = if target.long { usize::from(ADDRESSES) * 2 } else { usize::from(ADDRESSES) / 2 };
    let source = Source::Reader(Box::new(Cursor::new(pattern(usize::try_from(BATCH_BYTES_MAX)?))));
    let blob = target.client.upload(source, UploadOptions::default()).await?.blob_id;
    let plan = target.plan_read_of(blob).await?;
    let chunk = pb::ReadChunksItem { chunk_id: plan.chunk.clone(), ..Default::default() };
    let chunks = pb::ReadChunksRequest { chunks: vec![chunk] }.encode_to_vec();
    let layout = pb::GetBlobLayoutRequest { blob_id: blob.to_string(), ..Default::default() };
    let layouts = pb::GetBlobLayoutsRequest { blobs: vec![layout; BATCH_ITEMS_MAX] }.encode_to_vec();
    let cases = [
        (READ_CHUNKS, target.chunk, plan.capability.as_str(), chunks),
        (GET_BLOB_LAYOUTS, target.metadata, target.token.as_str(), layouts),
    ];
    let within = target.times.answer_taken * 2 + LONGEST;
    let each = cases.iter().cycle().take(connections).enumerate().map(async |(number, case)| {
        let (path, to, credential, message) = case;
        let mut raw = Raw::connect(address(number), *to).await?;
        raw.send(&[PREFACE, &frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])].concat()).await?;
        // Only then has the service said how much it takes.
        raw.watch(LONGEST, |seen| seen.acknowledged > 0).await;
        let mut asked = Vec::new();
        for stream in (0..STREAMS).map(stream_id) {
            asked.extend(open_call(stream, path, Some(credential)));
            asked.extend(frame(DATA, END_STREAM, stream, &prefixed(message)));
        }
        raw.send(&asked).await?;
        let seen = raw.watch(within, |_seen| false).await;
        ensure!(seen.ended == 1, "its answers wait for ever: {seen}");
        anyhow::Ok(seen)
    });
    let seen = try_join_all(each).await?.into_iter().fold(Seen::default(), Seen::and);
    target.client.delete_blob(blob).await?;
    ensure!(seen.answers > 0, "nothing was answered: {seen}");
    Ok(seen.to_string())
}

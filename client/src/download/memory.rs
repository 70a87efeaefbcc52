//! Into memory: a blob as its bytes.
//!
//! A small one is asked for by ReadChunks, which costs its node one message, alone or with others; its message then is what
//! the first of a stream would be, with the same checks and the same ways out. So is that of a batch: what of it does not
//! verify, or did not come, is read as a stream.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::future::join_all;
use proto::checksum::Sha256;
use proto::ids::BlobId;
use proto::limits::{BATCH_BYTES_MAX, BATCH_ITEMS_MAX, MIB};
use proto::pb;
use proto::pb::read_chunks_result::Outcome;
use proto::status::item_status;
use tonic::Request;

use super::block::BlockReader;
use super::layout::{Layout, LayoutSource, Part};
use super::{ByteRange, wrong_sum};
use crate::blob::Blob;
use crate::call::attempt;
use crate::client::Client;
use crate::error::Error;
use crate::gather::{self, Reads};
use crate::progress::Meter;

/// Of blobs that may be larger than this more blocks would have to be told than many answers in one have room for.
const SHARED_LAYOUT_BYTES: u64 = 64 * MIB;

impl Client {
    /// Reads a whole blob into memory, and verifies every byte. One of more than so many bytes is refused before any of
    /// them is read.
    ///
    /// # Errors
    /// As [`Client::download`]; [`Error::Invalid`] for a larger blob.
    pub async fn read(&self, blob: BlobId, max_bytes: u64) -> Result<(Blob, Bytes), Error> {
        let layout = if max_bytes <= SHARED_LAYOUT_BYTES {
            Layout::open_small(self, blob, max_bytes).await?
        } else {
            Layout::open(self, blob, ByteRange::default()).await?
        };
        check_size(&layout, max_bytes)?;
        let ahead = message(self, &layout).await;
        collect(layout, ahead).await
    }

    /// Reads many blobs, and returns what became of each, in their order, as [`Client::read`] does for one. Those of at
    /// most 64 KiB share calls.
    ///
    /// # Errors
    /// [`Error`], when the metadata service cannot be asked.
    pub async fn read_batch(
        &self,
        blobs: &[BlobId],
        max_bytes: u64,
    ) -> Result<Vec<Result<(Blob, Bytes), Error>>, Error> {
        let mut outcomes = Vec::with_capacity(blobs.len());
        for blobs in blobs.chunks(BATCH_ITEMS_MAX) {
            let layouts = self.layouts(blobs, max_bytes).await?;
            let checked = layouts
                .into_iter()
                .map(|layout| layout.and_then(|layout| check_size(&layout, max_bytes).map(|()| layout)));
            let layouts: Vec<_> = checked.collect();
            let found: Vec<_> = layouts.iter().filter_map(|layout| layout.as_ref().ok()).collect();
            let mut ahead = messages(self, &found).await.into_iter();
            for layout in layouts {
                outcomes.push(match layout {
                    Ok(layout) => collect(layout, ahead.next().flatten()).await,
                    Err(error) => Err(error),
                });
            }
        }
        Ok(outcomes)
    }

    /// Looks up so much of each at most.
    async fn layouts(&self, blobs: &[BlobId], max_bytes: u64) -> Result<Vec<Result<Layout, Error>>, Error> {
        let source = |blob_id| LayoutSource { client: self.clone(), blob_id, frame_bytes_max: 0 };
        let range = ByteRange { offset: 0, limit: Some(max_bytes) };
        let requests = blobs.iter().map(|blob| source(*blob).request(0, max_bytes.max(1))).collect();
        let operation = format!("read {} blobs", blobs.len());
        let message = pb::GetBlobLayoutsRequest { blobs: requests };
        let answer =
            self.metadata(&operation, message, |mut service, message| async move {
                service.get_blob_layouts(message).await
            })
            .await?;
        if answer.results.len() != blobs.len() {
            return Err(self.malformed(operation, "another number of results than of blobs"));
        }
        let layouts = blobs.iter().zip(answer.results).map(|(blob, result)| match result.outcome {
            Some(pb::get_blob_layouts_result::Outcome::Answer(page)) => Layout::of(self, *blob, range, page),
            Some(pb::get_blob_layouts_result::Outcome::Error(error)) => {
                let call = self.peers().metadata().call(source(*blob).operation());
                Err(Error::from_call(&call, item_status(&error)))
            }
            None => Err(self.malformed(source(*blob).operation(), "no outcome")),
        });
        Ok(layouts.collect())
    }
}

fn check_size(layout: &Layout, max_bytes: u64) -> Result<(), Error> {
    let size_bytes = layout.blob.size_bytes;
    if size_bytes <= max_bytes {
        return Ok(());
    }
    let problem = format!("it has {size_bytes} bytes, more than the {max_bytes} that are wanted in memory");
    Err(Error::Invalid { what: "blob", problem })
}

/// Asks for a range that is one whole small blob, maybe with others that are read at the same time; `None` for any other,
/// and for one that did not come.
pub(super) async fn message(client: &Client, layout: &Layout) -> Option<pb::ReadChunkResponse> {
    let chunk = layout.small_part()?.first_copy()?;
    let asked = async {
        let (peer, within) = (client.peers().node(&chunk.endpoint)?, client.config().call_timeout);
        let wanted = gather::Wanted { item: item(chunk), size_bytes: chunk.size_bytes };
        let answer = peer.reads.ask(Reads { peer: Arc::clone(&peer), within }, wanted);
        attempt(&peer, &peer.call("read a small chunk"), within, answer).await
    };
    asked.await.inspect_err(|error| tracing::debug!(%error, "a small blob is read as a stream")).ok()
}

fn item(chunk: &pb::ChunkLocation) -> pb::ReadChunksItem {
    pb::ReadChunksItem { chunk_id: chunk.chunk_id.clone(), capability: chunk.capability.clone() }
}

/// Asks for all small ones among these, each at the node of its first copy, and returns what came of each.
async fn messages(client: &Client, layouts: &[&Layout]) -> Vec<Option<pb::ReadChunkResponse>> {
    let mut calls: HashMap<&str, Vec<Wanted<'_>>> = HashMap::new();
    for (index, layout) in layouts.iter().enumerate() {
        let Some(chunk) = layout.small_part().and_then(Part::first_copy) else { continue };
        calls.entry(&chunk.endpoint).or_default().push(Wanted { index, chunk });
    }
    let frame_bytes_max = layouts.iter().map(|layout| layout.source().frame_bytes_max).max().unwrap_or(0);
    let calls = calls.iter().flat_map(|(endpoint, wanted)| fitting(wanted).map(move |wanted| (*endpoint, wanted)));
    let asked = calls.map(|(endpoint, wanted)| ask(client, endpoint, wanted, frame_bytes_max));
    let mut messages: Vec<_> = layouts.iter().map(|_| None).collect();
    for answered in join_all(asked).await {
        match answered {
            Ok(found) => found.into_iter().for_each(|(index, message)| {
                if let Some(place) = messages.get_mut(index) {
                    *place = Some(message);
                }
            }),
            Err(error) => tracing::debug!(%error, "small blobs are read as streams"),
        }
    }
    messages
}

/// A chunk that is asked for.
#[derive(Debug, Clone, Copy)]
struct Wanted<'a> {
    index: usize,
    chunk: &'a pb::ChunkLocation,
}

/// As many as one call gives, again and again.
fn fitting<'a, 'b>(mut wanted: &'b [Wanted<'a>]) -> impl Iterator<Item = &'b [Wanted<'a>]> {
    std::iter::from_fn(move || {
        let mut left = BATCH_BYTES_MAX;
        let fits = |wanted: &&Wanted<'_>| {
            let rest = left.checked_sub(wanted.chunk.size_bytes);
            left = rest.unwrap_or(0);
            rest.is_some()
        };
        let count = wanted.iter().take_while(fits).count();
        let (now, later) = wanted.split_at_checked(count)?;
        wanted = later;
        (!now.is_empty()).then_some(now)
    })
}

async fn ask(
    client: &Client,
    endpoint: &str,
    wanted: &[Wanted<'_>],
    frame_bytes_max: u64,
) -> Result<Vec<(usize, pb::ReadChunkResponse)>, Error> {
    let peer = client.peers().node(endpoint)?;
    let message = pb::ReadChunksRequest { chunks: wanted.iter().map(|wanted| item(wanted.chunk)).collect() };
    let mut service = peer.chunk_client(frame_bytes_max);
    let answer = service.read_chunks(Request::new(message));
    let answer = attempt(&peer, &peer.call("read small chunks"), client.config().call_timeout, answer).await?;
    let results = wanted.iter().zip(answer.into_inner().results);
    let found = results.filter_map(|(wanted, result)| match result.outcome? {
        Outcome::Answer(message) => Some((wanted.index, message)),
        Outcome::Error(error) => {
            tracing::debug!(error = error.message, "a small blob is read as a stream");
            None
        }
    });
    Ok(found.collect())
}

/// All bytes of a blob, of which this message is the first, if it is there.
async fn collect(mut layout: Layout, mut ahead: Option<pb::ReadChunkResponse>) -> Result<(Blob, Bytes), Error> {
    let (source, meter) = (layout.source().clone(), Meter::new(None, None));
    let mut all = Vec::new();
    while let Some(part) = layout.next().await? {
        let (index, expected) = (part.block.index, part.whole_sum());
        let mut reader = BlockReader::new(&source, part, &meter).with(ahead.take());
        let mut block = BytesMut::new();
        let mut only = reader.next().await?.unwrap_or_default();
        while let Some(frame) = reader.next().await? {
            block.extend_from_slice(&std::mem::take(&mut only));
            block.extend_from_slice(&frame);
        }
        let block = if block.is_empty() { only } else { block.freeze() };
        if expected.is_some_and(|expected| Sha256::of(&block) != expected) {
            return Err(wrong_sum(source.blob_id, index));
        }
        all.push(block);
    }
    let bytes = if all.len() == 1 { all.pop().unwrap_or_default() } else { all.concat().into() };
    Ok((layout.blob, bytes))
}

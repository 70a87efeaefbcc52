//! What to read from where: the blocks of a range, page by page.
//!
//! The metadata's word is checked for what can be checked here: the parts must follow each other without a gap and make
//! up exactly the range. Otherwise a missing block would be a silently shorter file (I2).

use std::collections::VecDeque;

use proto::checksum::Sha256;
use proto::ids::BlobId;
use proto::limits::SMALL_BLOB_BYTES;
use proto::pb;

use super::ByteRange;
use crate::blob::Blob;
use crate::client::Client;
use crate::error::Error;
use crate::gather::Layouts;

/// A sealed block, as the metadata holds it.
#[derive(Debug, Clone)]
pub(super) struct Block {
    pub(super) block_id: String,
    pub(super) index: u64,
    /// Where it begins within the blob.
    pub(super) offset: u64,
    pub(super) size_bytes: u64,
    pub(super) sha256: Sha256,
    /// Whole copies of it; at least one.
    pub(super) copies: Vec<pb::ChunkLocation>,
}

impl TryFrom<pb::BlockLayout> for Block {
    /// What is missing, malformed or unknown to this version.
    type Error = &'static str;

    fn try_from(block: pb::BlockLayout) -> Result<Self, &'static str> {
        let kind = block.encoding.and_then(|encoding| encoding.kind);
        if !matches!(kind, Some(pb::encoding::Kind::Replication(_))) {
            return Err("a block in shards, which this client cannot put together");
        }
        if block.chunks.is_empty() || block.chunks.iter().any(|chunk| chunk.size_bytes != block.size_bytes) {
            return Err("a block without whole copies");
        }
        if block.size_bytes == 0 || block.offset_bytes.checked_add(block.size_bytes).is_none() {
            return Err("a block of an impossible size");
        }
        Ok(Self {
            sha256: block.sha256.parse().map_err(|_malformed| "a block without a SHA-256")?,
            block_id: block.block_id,
            index: block.block_index,
            offset: block.offset_bytes,
            size_bytes: block.size_bytes,
            copies: block.chunks,
        })
    }
}

/// The wanted bytes of one block.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) block: Block,
    /// First byte within the block.
    pub(super) start: u64,
    /// One past the last byte within the block.
    pub(super) end: u64,
    /// Where the first byte goes within the output.
    pub(super) output_offset: u64,
}

impl Part {
    /// Where it is, if that is known.
    pub(super) fn first_copy(&self) -> Option<&pb::ChunkLocation> {
        self.block.copies.first().filter(|chunk| !chunk.endpoint.is_empty())
    }

    /// The block's SHA-256, if the part is all of it.
    pub(super) fn whole_sum(&self) -> Option<Sha256> {
        (self.start == 0 && self.end == self.block.size_bytes).then_some(self.block.sha256)
    }
}

/// The bytes of a blob that are wanted, and how far they have been looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Window {
    start: u64,
    end: u64,
    /// Everything before it has been looked up.
    at: u64,
}

impl Window {
    fn new(range: ByteRange, blob_bytes: u64) -> Self {
        let end = range.limit.map_or(u64::MAX, |limit| range.offset.saturating_add(limit)).min(blob_bytes);
        Self { start: range.offset, end: end.max(range.offset), at: range.offset }
    }

    fn is_done(&self) -> bool {
        self.at == self.end
    }

    /// The wanted bytes of the next block.
    fn part_of(&mut self, block: Block) -> Result<Part, &'static str> {
        let block_end = block.offset + block.size_bytes;
        // Only the first block may begin before the window does.
        let follows = block.offset == self.at || (self.at == self.start && block.offset < self.at);
        if !follows || block_end <= self.at {
            return Err("blocks that do not follow each other");
        }
        let (start, end) = (self.at - block.offset, block_end.min(self.end) - block.offset);
        let output_offset = self.at - self.start;
        self.at = block.offset + end;
        Ok(Part { block, start, end, output_offset })
    }
}

/// The parts of a range, in order.
#[derive(Debug)]
pub(super) struct Layout {
    source: LayoutSource,
    pub(super) blob: Blob,
    window: Window,
    parts: VecDeque<Part>,
}

/// Where layouts come from. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct LayoutSource {
    pub(super) client: Client,
    pub(super) blob_id: BlobId,
    pub(super) frame_bytes_max: u64,
}

impl Layout {
    /// Looks the range up.
    pub(super) async fn open(client: &Client, blob_id: BlobId, range: ByteRange) -> Result<Self, Error> {
        let source = LayoutSource { client: client.clone(), blob_id, frame_bytes_max: 0 };
        // On the wire 0 stands for everything; of an empty range only the answer's blob is of use.
        let limit = range.limit.map_or(0, |limit| limit.max(1));
        let page = source.page(range.offset, limit).await?;
        Self::of(client, blob_id, range, page)
    }

    /// Looks up the whole of a blob that is small, maybe with others that are looked up at the same time. Of one that has
    /// more than so many bytes only so many are looked up.
    pub(super) async fn open_small(client: &Client, blob_id: BlobId, max_bytes: u64) -> Result<Self, Error> {
        let source = LayoutSource { client: client.clone(), blob_id, frame_bytes_max: 0 };
        let range = ByteRange { offset: 0, limit: Some(max_bytes) };
        let message = source.request(0, max_bytes.max(1));
        let page = client.gathered(source.operation(), message, &client.gatherers().layouts, Layouts).await?;
        Self::of(client, blob_id, range, page)
    }

    /// The range, as this answer begins it.
    pub(super) fn of(
        client: &Client,
        blob_id: BlobId,
        range: ByteRange,
        mut page: pb::GetBlobLayoutResponse,
    ) -> Result<Self, Error> {
        let mut source = LayoutSource { client: client.clone(), blob_id, frame_bytes_max: 0 };
        let blob = client.blob_of(page.blob.take(), &source.operation())?;
        source.frame_bytes_max = page.max_frame_size_bytes;
        let window = Window::new(range, blob.size_bytes);
        let mut layout = Self { source, blob, window, parts: VecDeque::new() };
        layout.take(page)?;
        Ok(layout)
    }

    /// The only part of a range that is one whole small blob.
    pub(super) fn small_part(&self) -> Option<&Part> {
        let part = self.parts.front()?;
        let Part { block: Block { size_bytes, .. }, start, end, .. } = part;
        let is_whole = *start == 0 && end == size_bytes && *size_bytes == self.blob.size_bytes;
        (is_whole && *size_bytes <= SMALL_BLOB_BYTES).then_some(part)
    }

    /// Number of bytes in the range.
    pub(super) fn total_bytes(&self) -> u64 {
        self.window.end - self.window.start
    }

    pub(super) fn source(&self) -> &LayoutSource {
        &self.source
    }

    /// The next part; `None` after the last.
    pub(super) async fn next(&mut self) -> Result<Option<Part>, Error> {
        if self.parts.is_empty() && !self.window.is_done() {
            let page = self.source.page(self.window.at, self.window.end - self.window.at).await?;
            self.take(page)?;
        }
        Ok(self.parts.pop_front())
    }

    fn take(&mut self, page: pb::GetBlobLayoutResponse) -> Result<(), Error> {
        let malformed = |problem| self.source.malformed(problem);
        for block in page.blocks {
            if self.window.is_done() {
                break;
            }
            let block = Block::try_from(block).map_err(malformed)?;
            self.parts.push_back(self.window.part_of(block).map_err(malformed)?);
        }
        if !self.window.is_done() && (self.parts.is_empty() || page.next_read_offset != Some(self.window.at)) {
            return Err(malformed("a layout that ends before the range does"));
        }
        Ok(())
    }
}

impl LayoutSource {
    pub(super) fn operation(&self) -> String {
        format!("read blob {}", self.blob_id)
    }

    pub(super) fn request(&self, read_offset: u64, read_limit: u64) -> pb::GetBlobLayoutRequest {
        pb::GetBlobLayoutRequest {
            tenant_id: self.client.tenant_id(),
            blob_id: self.blob_id.to_string(),
            read_offset,
            read_limit,
            traffic_class: self.client.traffic_class(),
        }
    }

    async fn page(&self, read_offset: u64, read_limit: u64) -> Result<pb::GetBlobLayoutResponse, Error> {
        let message = self.request(read_offset, read_limit);
        self.client
            .metadata(self.operation(), message, |mut service, message| async move {
                service.get_blob_layout(message).await
            })
            .await
    }

    /// The same block once more: fresh capabilities, and where its copies are now.
    pub(super) async fn refresh(&self, block: &Block) -> Result<Block, Error> {
        let page = self.page(block.offset, 1).await?;
        let fresh = page.blocks.into_iter().next().ok_or("no block").and_then(Block::try_from);
        let fresh = fresh.map_err(|problem| self.malformed(problem))?;
        let same = (&fresh.block_id, fresh.offset, fresh.size_bytes, fresh.sha256)
            == (&block.block_id, block.offset, block.size_bytes, block.sha256);
        if same { Ok(fresh) } else { Err(self.malformed("another block than before")) }
    }

    pub(super) fn malformed(&self, problem: &str) -> Error {
        self.client.malformed(self.operation(), problem)
    }
}

#[cfg(test)]
mod tests;

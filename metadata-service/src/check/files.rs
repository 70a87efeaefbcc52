//! Whether every chunk file has a reason to exist (I6, I8).
//!
//! The disk is listed first and the metadata read afterwards, so a chunk that was planned in between is known. A chunk
//! that nothing refers to and nobody has queued is an orphan once it is older than an upload can be; by its id, which the
//! metadata service drew by its own clock. After an import a chunk that was planned later than the export reaches is not
//! called an orphan: its blob may be wanted. The same is said of the chunks of an upload that the export shows open, since
//! it may have been committed afterwards; rows still refer to these.

use std::collections::HashMap;

use futures_util::StreamExt as _;
use proto::ids::{ChunkId, NodeId};
use proto::runtime::clock::millis;

use super::Check;
use super::finding::{Finding, FindingKind, Subject};
use super::problem::{Problem, Repair};
use super::rows::{Found, find};
use crate::error::MetadataError;
use crate::nodes::chunks::{ChunkFiles, ChunkPage, NodeError};
use crate::store::keys::{self, Garbage};
use crate::store::records::ReverseRecord;

/// Sizes of the bytes of every chunk that has files.
pub(super) type Listed = HashMap<(NodeId, ChunkId), u64>;

impl Check {
    fn node_ids(&self) -> Vec<NodeId> {
        self.service.registry().list(None, usize::MAX).into_iter().map(|status| status.node).collect()
    }

    /// Lists every node's chunks, for a check that reads no bytes.
    pub(super) async fn list_sizes(&mut self) -> Result<(), MetadataError> {
        let mut listed = Listed::new();
        for node in self.node_ids() {
            let mut pages = self.nodes.list(node, false);
            while let Some(Ok(page)) = pages.next().await {
                let sizes = page.chunks.iter().filter_map(|files| Some((files.chunk, files.data_bytes?)));
                listed.extend(sizes.map(|(chunk, bytes)| ((node, chunk), bytes)));
            }
        }
        // A list that broke off costs a look at the chunks that it does not show.
        self.listed = Some(listed);
        Ok(())
    }

    /// Looks at every file of every node.
    pub(super) async fn files(&mut self) -> Result<(), MetadataError> {
        for node in self.node_ids() {
            let mut pages = self.nodes.list(node, self.service.keeps_lost_time());
            while let Some(page) = pages.next().await {
                match page {
                    Ok(page) => self.page(node, page).await?,
                    Err(error) => self.list_broke_off(node, &error).await?,
                }
            }
        }
        Ok(())
    }

    async fn list_broke_off(&mut self, node: NodeId, error: &NodeError) -> Result<(), MetadataError> {
        let subject = Subject { node: Some(node), ..Subject::default() };
        let detail = format!("its chunks could not be listed: {error}");
        self.tell(Finding { kind: FindingKind::NodeUnreachable, detail, subject, repair: None, repaired: false }).await
    }

    async fn page(&mut self, node: NodeId, page: ChunkPage) -> Result<(), MetadataError> {
        for name in page.foreign_names {
            let subject = Subject { node: Some(node), ..Subject::default() };
            let detail = format!("{name:?} is not a file of the chunk service; look at it and move it away");
            self.report(Problem::new(FindingKind::ForeignFile, subject, detail)).await?;
        }
        self.summary.files += page.chunks.len() as u64;
        for files in page.chunks {
            match find::<ReverseRecord>(self.engine(), &keys::reverse(node, files.chunk)).await? {
                Found::Record(reverse) => self.of_kept_upload(node, &files, &reverse).await?,
                Found::Damaged(_reported_in_its_layer) => {}
                Found::Nothing if self.is_queued(Garbage::Chunk(files.chunk)).await? => {}
                Found::Nothing => self.unknown(node, &files).await?,
            }
        }
        Ok(())
    }

    /// Tells of a chunk whose upload was open in the export that was imported.
    async fn of_kept_upload(
        &mut self,
        node: NodeId,
        files: &ChunkFiles,
        reverse: &ReverseRecord,
    ) -> Result<(), MetadataError> {
        if !self.kept_uploads.contains(&reverse.blob) {
            return Ok(());
        }
        let bytes = files.data_bytes.unwrap_or_default();
        let detail = format!("of an upload that was open at the export and maybe committed after it, {bytes} bytes");
        let subject = Subject { blob: Some(reverse.blob), ..Subject::chunk(node, files.chunk) };
        self.report(Problem::new(FindingKind::ChunkOfLostTime, subject, detail)).await
    }

    /// A chunk that nothing refers to.
    async fn unknown(&mut self, node: NodeId, files: &ChunkFiles) -> Result<(), MetadataError> {
        let chunk = files.chunk;
        let (now_ms, lease_ms) = (self.service.now_ms(), millis(self.service.tuning().upload_lease));
        let Some(drawn_ms) = chunk.drawn_ms() else {
            let detail = "its name is not of the kind that the metadata service draws";
            return self.report(Problem::new(FindingKind::ForeignFile, Subject::chunk(node, chunk), detail)).await;
        };
        if drawn_ms.saturating_add(lease_ms) > now_ms {
            return Ok(());
        }
        if let Some(detail) = self.of_lost_time(files) {
            let subject =
                Subject { blob: files.checksum_file.map(|file| file.binding.blob), ..Subject::chunk(node, chunk) };
            return self.report(Problem::new(FindingKind::ChunkOfLostTime, subject, detail)).await;
        }
        let detail = match files.data_bytes {
            Some(bytes) => format!("nothing refers to this chunk of {bytes} bytes"),
            None => "nothing refers to this checksum file, which has no bytes beside it".to_owned(),
        };
        let queue = Repair::Queue { node, chunk };
        self.report(Problem::new(FindingKind::OrphanChunk, Subject::chunk(node, chunk), detail).with_repair(queue))
            .await
    }

    /// What to say of a chunk that must stay since it was planned later than the export reaches.
    fn of_lost_time(&self, files: &ChunkFiles) -> Option<String> {
        if !self.service.keeps_lost_time() {
            return None;
        }
        let Some(file) = files.checksum_file else {
            // Without its checksum file nobody knows when it was planned.
            return Some("written at an unknown time, maybe after the export that was imported".to_owned());
        };
        let binding = file.binding;
        self.service.is_kept(files.chunk, binding.epoch, binding.sequence).then(|| {
            format!(
                "written after the export that was imported: shard {} of {} of a block of blob {}, {} bytes, SHA-256 {}",
                binding.shard_index, binding.shard_count, binding.blob, file.size_bytes, file.sha256
            )
        })
    }
}

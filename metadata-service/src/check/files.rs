//! Whether every chunk file has a reason to exist (I6, I8).
//!
//! The disk is listed first and the metadata read afterwards, so a chunk that was planned in between is known. A chunk
//! that nothing refers to and nobody has queued is an orphan once it is older than an upload can be; by its id, which the
//! metadata service drew by its own clock. After an import a chunk that was planned later than the export reaches is not
//! called an orphan: its blob may be wanted. The same is said of the chunks of an upload that the export shows open, since
//! it may have been committed afterwards; rows still refer to these.

use std::collections::{BTreeSet, HashSet};

use futures_util::StreamExt as _;
use proto::ids::{ChunkId, NodeId};
use proto::runtime::clock::millis;

use super::Check;
use super::finding::{Finding, FindingKind, Subject};
use super::problem::{Problem, Repair};
use super::rows::{Found, find};
use crate::error::MetadataError;
use crate::nodes::chunks::{ChecksumFile, ChunkFiles, ChunkPage, NodeError};
use crate::store::keys::{self, Garbage};
use crate::store::records::{ReverseRecord, UploadRecord};

impl Check {
    fn node_ids(&self) -> Vec<NodeId> {
        self.service.registry().list(None, usize::MAX).into_iter().map(|status| status.node).collect()
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
        let unknown = self.unknown.take();
        self.settle_unknown(unknown).await
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
                Found::Nothing => self.unknown(node, files).await?,
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
        if !self.service.keeps_lost_time() {
            return Ok(());
        }
        let Some(tenant) = self.owner(reverse.blob, Some(reverse.block)).await? else { return Ok(()) };
        match find::<UploadRecord>(self.engine(), &keys::upload(&tenant, reverse.blob)).await? {
            Found::Record(upload) if self.service.is_kept_upload(&upload) => {}
            Found::Record(_) | Found::Nothing | Found::Damaged(_) => return Ok(()),
        }
        let bytes = files.data_bytes.unwrap_or_default();
        let detail = format!("of an upload that was open at the export and maybe committed after it, {bytes} bytes");
        let subject = Subject { blob: Some(reverse.blob), ..Subject::chunk(node, files.chunk) };
        self.report(Problem::new(FindingKind::ChunkOfLostTime, subject, detail)).await
    }

    async fn is_known(&self, node: NodeId, chunk: ChunkId) -> Result<bool, MetadataError> {
        Ok(self.engine().get(&keys::reverse(node, chunk)).await?.is_some())
    }

    /// A chunk that nothing refers to. A young one may be an upload's that ended a moment ago, unless it was planned in a
    /// time that an import lost.
    async fn unknown(&mut self, node: NodeId, files: ChunkFiles) -> Result<(), MetadataError> {
        let (now_ms, lease_ms) = (self.service.now_ms(), millis(self.service.tuning().upload_lease));
        let Some(drawn_ms) = files.chunk.drawn_ms() else {
            let (subject, detail) =
                (Subject::chunk(node, files.chunk), "its name is not of the kind that the metadata service draws");
            return self.report(Problem::new(FindingKind::ForeignFile, subject, detail)).await;
        };
        let is_lost = |file: ChecksumFile| self.service.is_kept(files.chunk, file.binding.epoch, file.binding.sequence);
        if (drawn_ms.saturating_add(lease_ms) <= now_ms || files.checksum_file.is_some_and(is_lost))
            && let Some(lot) = self.unknown.add((node, files))
        {
            self.settle_unknown(lot).await?;
        }
        Ok(())
    }

    /// Chunks that nothing refers to. One that was not in the queue any more when that was read had been collected: its
    /// files are gone since, and the next list does not show it.
    async fn settle_unknown(&mut self, mut lot: Vec<(NodeId, ChunkFiles)>) -> Result<(), MetadataError> {
        self.drop_queued(&mut lot, |(_, files)| Garbage::Chunk(files.chunk)).await?;
        self.drop_gone(&mut lot).await?;
        self.drop_queued(&mut lot, |(_, files)| Garbage::Chunk(files.chunk)).await?;
        for (node, files) in lot {
            if !self.is_known(node, files.chunk).await? {
                self.orphan(node, &files).await?;
            }
        }
        Ok(())
    }

    /// Leaves of these what the nodes still list. Where a list breaks off, that is told, and what it did not show is not.
    async fn drop_gone(&mut self, lot: &mut Vec<(NodeId, ChunkFiles)>) -> Result<(), MetadataError> {
        let mut gone: HashSet<_> = lot.iter().map(|(node, files)| (*node, files.chunk)).collect();
        let nodes: BTreeSet<NodeId> = lot.iter().map(|(node, _)| *node).collect();
        for node in nodes {
            let mut pages = self.nodes.list(node, false);
            while let Some(page) = pages.next().await {
                match page {
                    Ok(page) => page.chunks.iter().for_each(|files| {
                        gone.remove(&(node, files.chunk));
                    }),
                    Err(error) => self.list_broke_off(node, &error).await?,
                }
            }
        }
        lot.retain(|(node, files)| !gone.contains(&(*node, files.chunk)));
        Ok(())
    }

    async fn orphan(&mut self, node: NodeId, files: &ChunkFiles) -> Result<(), MetadataError> {
        let chunk = files.chunk;
        if let Some(detail) = self.of_lost_time(files) {
            let blob = files.checksum_file.map(|file| file.binding.blob);
            let subject = Subject { blob, ..Subject::chunk(node, chunk) };
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

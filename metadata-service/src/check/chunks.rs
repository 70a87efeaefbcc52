//! Whether the chunks of committed blobs are what the metadata says they are (I1, I2).

use std::collections::{BTreeSet, HashMap};

use futures_util::{StreamExt as _, stream};
use proto::ids::NodeId;

use super::Check;
use super::blobs::{Reference, is_committed};
use super::finding::{Finding, FindingKind, Subject};
use crate::error::MetadataError;
use crate::nodes::chunks::{Condition, NodeError, Verdict};

/// Chunks of one blob that are verified at once.
const VERIFIED_AT_ONCE: usize = 4;

impl Check {
    /// Looks at the chunks of a blob: reads them, or else notes that the nodes have to list them.
    pub(super) async fn verify(&mut self, references: Vec<Reference>) -> Result<(), MetadataError> {
        self.summary.references += references.len() as u64;
        if !self.options.skip_bytes {
            return self.read(references).await;
        }
        for reference in references {
            if let Some(lot) = self.sought.add(reference) {
                self.seek(lot).await?;
            }
        }
        Ok(())
    }

    /// Without reading bytes: only what no node's list shows at the right size is read. A list that broke off costs a look
    /// at the chunks that it does not show.
    pub(super) async fn seek(&mut self, mut lot: Vec<Reference>) -> Result<(), MetadataError> {
        let place = |reference: &Reference| (reference.node, reference.binding.chunk);
        let mut sought: HashMap<_, _> = lot.iter().map(|one| (place(one), one.claims.size_bytes)).collect();
        let nodes: BTreeSet<NodeId> = lot.iter().map(|one| one.node).collect();
        for node in nodes {
            let mut pages = self.nodes.list(node, false);
            while let Some(Ok(page)) = pages.next().await {
                for files in page.chunks {
                    if sought.get(&(node, files.chunk)).copied() == files.data_bytes {
                        sought.remove(&(node, files.chunk));
                    }
                }
            }
        }
        lot.retain(|one| sought.contains_key(&place(one)));
        for of_blob in lot.chunk_by(|one, next| one.binding.blob == next.binding.blob) {
            self.read(of_blob.to_vec()).await?;
        }
        Ok(())
    }

    /// Has the nodes verify chunks of one blob. A blob that was deleted meanwhile has lost nothing.
    async fn read(&mut self, references: Vec<Reference>) -> Result<(), MetadataError> {
        let (nodes, repair) = (std::sync::Arc::clone(&self.nodes), self.options.repair);
        let mut verdicts = stream::iter(references)
            .map(|reference| {
                let nodes = std::sync::Arc::clone(&nodes);
                async move {
                    let Reference { node, binding, claims, .. } = reference;
                    (reference.clone(), nodes.verify(node, binding, claims, repair).await)
                }
            })
            .buffer_unordered(VERIFIED_AT_ONCE);
        while let Some((reference, verdict)) = verdicts.next().await {
            match verdict {
                Ok(verdict) => self.judge(&reference, verdict).await?,
                Err(error) => self.unreachable(&reference, &error).await?,
            }
        }
        Ok(())
    }

    async fn judge(
        &mut self,
        reference: &Reference,
        Verdict { condition, detail }: Verdict,
    ) -> Result<(), MetadataError> {
        let (tenant, blob) = (&reference.tenant, reference.binding.blob);
        let (kind, repair, repaired) = match condition {
            Condition::Sound | Condition::Rebuilt | Condition::ChecksumFileBad | Condition::ChecksumFileTooNew => {
                self.summary.verified_chunks += 1;
                self.summary.verified_bytes += reference.claims.size_bytes;
                let what = "write the checksum file again from what the metadata hold";
                let repair = (condition != Condition::ChecksumFileTooNew).then_some(what);
                (FindingKind::ChecksumFileBad, repair, condition == Condition::Rebuilt)
            }
            Condition::Corrupt | Condition::Missing | Condition::Unreadable => (FindingKind::DataLost, None, false),
        };
        if condition == Condition::Sound || !is_committed(self.engine(), tenant, blob).await? {
            return Ok(());
        }
        if kind == FindingKind::DataLost {
            self.summary.lost_blobs += u64::from(self.lost != Some(blob));
            self.lost = Some(blob);
        }
        let subject = Subject {
            tenant: Some(tenant.clone()),
            blob: Some(blob),
            ..Subject::chunk(reference.node, reference.binding.chunk)
        };
        let detail = format!("{}: {detail}", words(condition));
        self.tell(Finding { kind, detail, subject, repair, repaired }).await
    }

    /// Tells once of each node that cannot be asked: nothing is known of its chunks.
    async fn unreachable(&mut self, reference: &Reference, error: &NodeError) -> Result<(), MetadataError> {
        if !self.silent.insert(reference.node) {
            return Ok(());
        }
        let subject = Subject { node: Some(reference.node), ..Subject::default() };
        let detail = format!("some of its chunks could not be checked: {error}");
        self.tell(Finding { kind: FindingKind::NodeUnreachable, detail, subject, repair: None, repaired: false }).await
    }
}

fn words(condition: Condition) -> &'static str {
    match condition {
        Condition::Sound => "the chunk is sound",
        Condition::Rebuilt => "the checksum file was bad and has been written again",
        Condition::ChecksumFileBad => "the checksum file is bad, the bytes are sound",
        Condition::ChecksumFileTooNew => "a later version of the program wrote the checksum file, the bytes are sound",
        Condition::Corrupt => "the bytes are damaged",
        Condition::Missing => "the bytes are gone",
        Condition::Unreadable => "the disk does not return the bytes",
    }
}

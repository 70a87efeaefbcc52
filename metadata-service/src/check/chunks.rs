//! Whether the chunks of committed blobs are what the metadata says they are (I1, I2).

use futures_util::{StreamExt as _, stream};
use proto::ids::{BlobId, TenantId};

use super::Check;
use super::blobs::{Reference, is_committed};
use super::finding::{Finding, FindingKind, Subject};
use crate::error::MetadataError;
use crate::nodes::chunks::{Condition, NodeError, Verdict};

/// Chunks of one blob that are verified at once.
const VERIFIED_AT_ONCE: usize = 4;

impl Check {
    /// Has the nodes verify the chunks of a blob. A blob that was deleted meanwhile has lost nothing.
    pub(super) async fn verify(
        &mut self,
        tenant: &TenantId,
        blob: BlobId,
        references: Vec<Reference>,
    ) -> Result<(), MetadataError> {
        self.summary.references += references.len() as u64;
        let (nodes, repair) = (std::sync::Arc::clone(&self.nodes), self.options.repair);
        let references: Vec<_> = references.into_iter().filter(|reference| self.needs_a_look(reference)).collect();
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
                Ok(verdict) => self.judge(tenant, blob, &reference, verdict).await?,
                Err(error) => self.unreachable(&reference, &error).await?,
            }
        }
        Ok(())
    }

    /// Without reading bytes: only what the node's list does not show at the right size.
    fn needs_a_look(&self, reference: &Reference) -> bool {
        match &self.listed {
            Some(listed) => {
                let key = (reference.node, reference.binding.chunk);
                listed.get(&key) != Some(&reference.claims.size_bytes)
            }
            None => true,
        }
    }

    async fn judge(
        &mut self,
        tenant: &TenantId,
        blob: BlobId,
        reference: &Reference,
        Verdict { condition, detail }: Verdict,
    ) -> Result<(), MetadataError> {
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
            self.lost.insert(blob);
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

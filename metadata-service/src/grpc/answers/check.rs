//! What a check found, as messages.

use proto::pb;

use crate::check::{Finding, FindingKind, Summary};

impl From<FindingKind> for pb::FindingKind {
    fn from(kind: FindingKind) -> Self {
        match kind {
            FindingKind::DataLost => Self::DataLost,
            FindingKind::ChecksumFileBad => Self::ChecksumFileBad,
            FindingKind::OrphanChunk => Self::OrphanChunk,
            FindingKind::ForeignFile => Self::ForeignFile,
            FindingKind::UsageWrong => Self::UsageWrong,
            FindingKind::RecordCorrupt => Self::RecordCorrupt,
            FindingKind::RowInconsistent => Self::RowInconsistent,
            FindingKind::RowOrphaned => Self::RowOrphaned,
            FindingKind::ChunkOfLostTime => Self::ChunkOfLostTime,
            FindingKind::NodeUnreachable => Self::NodeUnreachable,
            FindingKind::UsageNotCounted => Self::UsageNotCounted,
        }
    }
}

fn text(id: Option<impl ToString>) -> String {
    id.map(|id| id.to_string()).unwrap_or_default()
}

impl From<Finding> for pb::Finding {
    fn from(finding: Finding) -> Self {
        Self {
            kind: pb::FindingKind::from(finding.kind).into(),
            detail: finding.detail,
            tenant_id: text(finding.subject.tenant),
            blob_id: text(finding.subject.blob),
            chunk_id: text(finding.subject.chunk),
            node_id: text(finding.subject.node),
            repaired: finding.repaired,
            repair: text(finding.repair),
        }
    }
}

impl From<Summary> for pb::CheckSummary {
    fn from(summary: Summary) -> Self {
        Self {
            tenant_count: summary.tenants,
            blob_count: summary.blobs,
            chunk_reference_count: summary.references,
            verified_chunk_count: summary.verified_chunks,
            verified_bytes: summary.verified_bytes,
            chunk_file_count: summary.files,
            finding_count: summary.findings,
            repaired_count: summary.repaired,
            lost_blob_count: summary.lost_blobs,
        }
    }
}

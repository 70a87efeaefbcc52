//! What a check says, for people and for programs.

use indicatif::HumanBytes;
use proto::pb;
use serde::Serialize;

use crate::cli::context::Context;
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::escape;

/// Findings as they come, and what they mean for the exit code.
pub(super) struct Report<'a> {
    context: &'a Context,
    repair: bool,
    lost: u64,
    unreachable: u64,
    uncounted: u64,
    left: u64,
    of_lost_time: u64,
    repairable: u64,
}

#[derive(Serialize)]
struct FindingView<'a> {
    kind: &'static str,
    detail: &'a str,
    tenant_id: &'a str,
    blob_id: &'a str,
    chunk_id: &'a str,
    node_id: &'a str,
    repaired: bool,
    repair: &'a str,
}

/// How a summary is written as JSON: the names of its fields.
#[derive(Serialize)]
#[serde(remote = "pb::CheckSummary")]
struct SummaryFields {
    tenant_count: u64,
    blob_count: u64,
    chunk_reference_count: u64,
    verified_chunk_count: u64,
    verified_bytes: u64,
    chunk_file_count: u64,
    finding_count: u64,
    repaired_count: u64,
    lost_blob_count: u64,
}

#[derive(Serialize)]
struct SummaryJson(#[serde(with = "SummaryFields")] pb::CheckSummary);

impl<'a> Report<'a> {
    pub(super) fn new(context: &'a Context, repair: bool) -> Self {
        Self { context, repair, lost: 0, unreachable: 0, uncounted: 0, left: 0, of_lost_time: 0, repairable: 0 }
    }

    /// Tells of a finding.
    pub(super) fn finding(&mut self, finding: &pb::Finding) -> Result<(), Failure> {
        self.count(finding);
        if self.context.out.json() {
            return self.context.out.object(&FindingView {
                kind: word(finding.kind()),
                detail: &finding.detail,
                tenant_id: &finding.tenant_id,
                blob_id: &finding.blob_id,
                chunk_id: &finding.chunk_id,
                node_id: &finding.node_id,
                repaired: finding.repaired,
                repair: &finding.repair,
            });
        }
        let about = [
            ("tenant", &finding.tenant_id),
            ("blob", &finding.blob_id),
            ("chunk", &finding.chunk_id),
            ("node", &finding.node_id),
        ];
        let about: String =
            about.iter().filter(|(_, id)| !id.is_empty()).map(|(what, id)| format!(" {what} {}", escape(id))).collect();
        let repair = match (finding.repaired, finding.repair.as_str()) {
            (true, what) => format!(" (repaired: {})", escape(what)),
            (false, "") => String::new(),
            (false, what) => format!(" (--repair would: {})", escape(what)),
        };
        self.context.out.line(&format!("{}:{about}: {}{repair}", word(finding.kind()), escape(&finding.detail)))
    }

    fn count(&mut self, finding: &pb::Finding) {
        match finding.kind() {
            pb::FindingKind::DataLost => self.lost += 1,
            pb::FindingKind::NodeUnreachable => self.unreachable += 1,
            pb::FindingKind::UsageNotCounted => self.uncounted += 1,
            pb::FindingKind::Unspecified
            | pb::FindingKind::ChecksumFileBad
            | pb::FindingKind::OrphanChunk
            | pb::FindingKind::ForeignFile
            | pb::FindingKind::UsageWrong
            | pb::FindingKind::RecordCorrupt
            | pb::FindingKind::RowInconsistent
            | pb::FindingKind::RowOrphaned
            | pb::FindingKind::ChunkOfLostTime => {
                self.left += u64::from(!finding.repaired);
                self.of_lost_time += u64::from(finding.kind() == pb::FindingKind::ChunkOfLostTime);
                self.repairable += u64::from(!finding.repaired && !finding.repair.is_empty());
            }
        }
    }

    /// Tells what was looked at.
    pub(super) fn summary(&mut self, summary: &pb::CheckSummary) -> Result<(), Failure> {
        if self.context.out.json() {
            return self.context.out.object(&SummaryJson(*summary));
        }
        let verified = format!("{} verified, {}", summary.verified_chunk_count, HumanBytes(summary.verified_bytes));
        let (referred, files) = (summary.chunk_reference_count, summary.chunk_file_count);
        self.context.out.facts(&[
            ("tenants", summary.tenant_count.to_string()),
            ("blobs", summary.blob_count.to_string()),
            ("chunks", format!("{referred} referred to, {verified}; {files} on disk")),
            ("findings", format!("{}, {} repaired", summary.finding_count, summary.repaired_count)),
            ("lost blobs", summary.lost_blob_count.to_string()),
        ])
    }

    /// How the command ends.
    pub(super) fn verdict(self) -> Result<(), Failure> {
        if self.lost > 0 {
            let message = format!("data are lost; chunks of committed blobs that are gone or damaged: {}", self.lost);
            return Err(Failure::new(Exit::DataLoss, message).hint(
                "the files stay where they are; restore their bytes from a copy of the disk, or put the blobs again from \
                 their source and delete the damaged ones",
            ));
        }
        if self.unreachable > 0 {
            let message = "not everything could be looked at: a chunk service did not answer";
            return Err(Failure::new(Exit::Unavailable, message).hint("start it, and run fsck again"));
        }
        if self.uncounted > 0 {
            let message = "not everything could be looked at: the usage of a busy tenant was not counted";
            return Err(Failure::new(Exit::Unavailable, message).hint("run fsck again when less is written"));
        }
        if self.left > 0 {
            let hint = match (self.repairable, self.repair) {
                (0, _) if self.of_lost_time == self.left => {
                    "all are chunks that were written after the export that was imported, and no blob refers to them; \
                     'fsck --after-restore keep' lets them stay, 'fsck --after-restore discard' lets them be collected"
                        .to_owned()
                }
                (0, _) => {
                    "nothing of this can be repaired without guessing; each finding says what it is about".to_owned()
                }
                (_, true) => "run it once more: something changed while it was repaired".to_owned(),
                (repairable, false) => format!("--repair would repair {repairable} of these"),
            };
            return Err(Failure::new(Exit::Other, format!("findings that are not repaired: {}", self.left)).hint(hint));
        }
        Ok(())
    }
}

fn word(kind: pb::FindingKind) -> &'static str {
    kind.as_str_name().trim_start_matches("FINDING_KIND_")
}

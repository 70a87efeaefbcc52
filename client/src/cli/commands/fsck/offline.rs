//! A check of a storage folder without any service: both folders are locked, so that none can start meanwhile.

use std::io;
use std::path::Path;
use std::sync::Arc;

use chunk_service::ChunkError;
use chunk_service::offline::{ChunkFolder, Finding as Found};
use futures_util::{StreamExt as _, stream};
use metadata_service::check::{Check, Options};
use metadata_service::nodes::chunks::{
    ChecksumFile, ChunkFiles, ChunkNodes, ChunkPage, ChunkPages, Condemned, Condition, Deletion, NodeError, Verdict,
};
use metadata_service::offline::Offline;
use proto::capability::{ChunkBinding, ReadClaims};
use proto::ids::NodeId;
use proto::pb;
use tokio::sync::mpsc;

use super::report::Report;
use crate::cli::context::Context;
use crate::cli::failure::Failure;

/// Findings on their way to the report.
const FINDINGS_UNDERWAY: usize = 16;

/// Checks a storage folder.
pub(super) async fn check(context: &Context, storage: &Path, options: pb::CheckClusterRequest) -> Result<(), Failure> {
    let tuning = metadata_service::Tuning::default();
    let opened = Offline::open(storage, tuning, &metadata_service::Deps::default()).await;
    let metadata = opened.map_err(|error| refused("the metadata cannot be checked", &error))?;
    let outcome = match ChunkFolder::open(&storage.join("chunks"), options.repair) {
        Ok(folder) => run(context, &metadata, LocalNode(Arc::new(folder)), options).await,
        Err(error) => Err(refused("the chunks cannot be checked", &error)),
    };
    metadata.close().await;
    outcome
}

fn refused(what: &str, error: &(dyn std::error::Error + 'static)) -> Failure {
    let mut causes = std::iter::successors(Some(error), |error| error.source());
    let is_read_only = causes.any(|cause| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::ReadOnlyFilesystem)
    });
    if is_read_only {
        return Failure::local(what, error).hint(
            "the file system is mounted read-only, and a check has to lock the folder and to let the engine recover; copy \
             the folder to another disk and check the copy, or mount it writable",
        );
    }
    let mut causes = std::iter::successors(Some(error), |error| error.source());
    if causes.any(|cause| matches!(cause.downcast_ref(), Some(ChunkError::NotSettled { .. }))) {
        return Failure::local(what, error).hint("fsck --storage with --repair brings them there before it checks");
    }
    Failure::local(what, error).hint(
        "fsck --storage needs a storage folder with metadata/ and chunks/ that no service is using; to check running \
         services leave --storage away",
    )
}

async fn run(
    context: &Context,
    metadata: &Offline,
    node: LocalNode,
    options: pb::CheckClusterRequest,
) -> Result<(), Failure> {
    let (tell, mut findings) = mpsc::channel(FINDINGS_UNDERWAY);
    let wanted = Options { repair: options.repair, skip_bytes: options.skip_bytes };
    let check = Check::new(metadata.service().clone(), Arc::new(node), wanted, tell);
    let mut report = Report::new(context, options.repair);
    let told = async {
        while let Some(finding) = findings.recv().await {
            report.finding(&finding.into())?;
        }
        Ok::<_, Failure>(())
    };
    let (summary, told) = tokio::join!(check.run(), told);
    told?;
    let summary = summary.map_err(|error| Failure::local("the check did not come to its end", &error))?;
    report.summary(&summary.into())?;
    report.verdict()
}

/// The one node whose folder is here.
#[derive(Debug, Clone)]
struct LocalNode(Arc<ChunkFolder>);

impl LocalNode {
    fn check(&self, node: NodeId) -> Result<(), NodeError> {
        if node == self.0.node() {
            return Ok(());
        }
        Err(NodeError::Unavailable("its folder is not in this storage folder".to_owned()))
    }
}

fn failed(error: ChunkError) -> NodeError {
    NodeError::Unavailable(proto::status::chain(&error))
}

#[tonic::async_trait]
impl ChunkNodes for LocalNode {
    async fn delete(&self, _chunk: &Condemned) -> Deletion {
        Deletion::Refused("a check deletes nothing".to_owned())
    }

    async fn verify(
        &self,
        node: NodeId,
        place: ChunkBinding,
        claims: ReadClaims,
        repair: bool,
    ) -> Result<Verdict, NodeError> {
        self.check(node)?;
        let Found { condition, detail } = self.0.verify(place, claims, repair).await.map_err(failed)?;
        Ok(Verdict { condition: condition_of(condition), detail })
    }

    fn list(&self, node: NodeId, with_checksum_files: bool) -> ChunkPages {
        let local = self.clone();
        let pages = stream::try_unfold(Some(None), move |state| {
            let local = local.clone();
            async move {
                let Some(begun) = state else { return Ok(None) };
                local.check(node)?;
                let pages = match begun {
                    Some(pages) => pages,
                    None => local.0.list(with_checksum_files).await.map_err(failed)?,
                };
                let (page, rest) = local.0.next_page(pages).await.map_err(failed)?;
                Ok(Some((page_of(page), rest.map(Some))))
            }
        });
        pages.boxed()
    }
}

fn condition_of(condition: chunk_service::offline::Condition) -> Condition {
    use chunk_service::offline::Condition as Local;
    match condition {
        Local::Sound => Condition::Sound,
        Local::Rebuilt => Condition::Rebuilt,
        Local::ChecksumFileBad => Condition::ChecksumFileBad,
        Local::ChecksumFileTooNew => Condition::ChecksumFileTooNew,
        Local::Corrupt => Condition::Corrupt,
        Local::Missing => Condition::Missing,
        Local::Unreadable => Condition::Unreadable,
    }
}

fn page_of(page: chunk_service::offline::Page) -> ChunkPage {
    let chunks = page.chunks.into_iter().map(|files| ChunkFiles {
        chunk: files.chunk,
        data_bytes: files.data_bytes,
        has_checksum_file: files.has_checksum_file,
        checksum_file: files.checksum_file.map(|(binding, size_bytes, sha256)| ChecksumFile {
            binding,
            size_bytes,
            sha256,
        }),
    });
    ChunkPage { chunks: chunks.collect(), foreign_names: page.foreign_names }
}

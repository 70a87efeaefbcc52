//! `status --damaged`: which chunks are missing or damaged, whose they are, and what was found.

use std::pin::pin;

use futures_util::StreamExt as _;
use proto::{limits, pb};

use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::output::{Align, Table, escape};
use crate::cli::units::time_in_seconds;
use crate::cli::views::DamagedChunkView;

/// Prints them, page by page.
pub(super) async fn run(context: &Context) -> Result<(), Failure> {
    let session = context.admin(None)?;
    let mut pages = pin!(session.client.list_damaged_chunks().ready_chunks(limits::PAGE_SIZE));
    let mut table = Table::new(&context.out, HEADINGS);
    while let Some(page) = pages.next().await {
        let page: Result<Vec<_>, _> = page.into_iter().collect();
        print(context, &mut table, &page.map_err(|error| session.failed("status --damaged", &error))?)?;
    }
    Ok(())
}

const HEADINGS: [(&str, Align); 7] = [
    ("TENANT", Align::Left),
    ("BLOB", Align::Left),
    ("CHUNK", Align::Left),
    ("NODE", Align::Left),
    ("CONDITION", Align::Left),
    ("SINCE", Align::Left),
    ("FOUND", Align::Left),
];

fn print(context: &Context, table: &mut Table<7>, page: &[pb::DamagedChunk]) -> Result<(), Failure> {
    if context.out.json() {
        return page.iter().try_for_each(|chunk| context.out.object(&DamagedChunkView::from(chunk)));
    }
    let rows: Vec<_> = page.iter().map(row).collect();
    table.page(&rows)
}

fn row(chunk: &pb::DamagedChunk) -> [String; 7] {
    [
        if chunk.tenant_id.is_empty() { "unknown".to_owned() } else { escape(&chunk.tenant_id) },
        escape(&chunk.blob_id),
        escape(&chunk.chunk_id),
        escape(&chunk.node_id),
        condition(chunk.condition()).to_owned(),
        time_in_seconds(chunk.find_time.as_ref()),
        escape(&chunk.detail),
    ]
}

fn condition(condition: pb::ChunkCondition) -> &'static str {
    match condition {
        pb::ChunkCondition::Unspecified => "unknown",
        pb::ChunkCondition::Sound => "sound",
        pb::ChunkCondition::Rebuilt => "rebuilt",
        pb::ChunkCondition::ChecksumFileBad => "checksum file bad",
        pb::ChunkCondition::ChecksumFileTooNew => "checksum file too new",
        pb::ChunkCondition::Corrupt => "corrupt",
        pb::ChunkCondition::Missing => "missing",
        pb::ChunkCondition::Unreadable => "unreadable",
    }
}

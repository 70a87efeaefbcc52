//! `list-blobs`: a tenant's blobs, printed page by page as they come.

use std::pin::pin;

use clap::Args;
use futures_util::StreamExt as _;
use indicatif::HumanBytes;
use mini_tectonic_client::{Blob, ListOptions};
use proto::limits;

use crate::cli::args::TenantArg;
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::output::{Align, Table, escape};
use crate::cli::units::time_in_seconds;
use crate::cli::views::BlobView;

/// List a tenant's blobs: id, size, created, name, SHA-256; or deleted ones: id, size, deleted, restorable until, name
#[derive(Debug, Args)]
pub(crate) struct ListBlobs {
    #[command(flatten)]
    tenant: TenantArg,
    /// Only blobs whose name begins with it; sorted by name, else by age.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    prefix: String,
    /// At most so many.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Deleted blobs that 'undelete' can still restore, instead of the others.
    #[arg(long, conflicts_with = "prefix")]
    deleted: bool,
}

impl ListBlobs {
    /// Runs the command.
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let session = context.tenant(&self.tenant.tenant)?;
        let limit = self.limit.unwrap_or(usize::MAX);
        let page_size = limit.clamp(1, limits::PAGE_SIZE_MAX);
        let options = ListOptions {
            prefix: self.prefix,
            page_size: u32::try_from(page_size).unwrap_or_default(),
            deleted: self.deleted,
        };
        let (headings, row): (_, Row) =
            if self.deleted { (HEADINGS_OF_DELETED, deleted_row) } else { (HEADINGS, live_row) };
        let mut pages = pin!(session.client.list_blobs(options).take(limit).ready_chunks(page_size));
        let mut table = Table::new(&context.out, headings);
        while let Some(page) = pages.next().await {
            let page: Result<Vec<_>, _> = page.into_iter().collect();
            print(context, &mut table, row, &page.map_err(|error| session.failed("list-blobs", &error))?)?;
        }
        Ok(())
    }
}

const HEADINGS: [(&str, Align); 5] = [
    ("ID", Align::Left),
    ("SIZE", Align::Right),
    ("CREATED", Align::Left),
    ("NAME", Align::Left),
    ("SHA-256", Align::Left),
];

const HEADINGS_OF_DELETED: [(&str, Align); 5] = [
    ("ID", Align::Left),
    ("SIZE", Align::Right),
    ("DELETED", Align::Left),
    ("RESTORABLE UNTIL", Align::Left),
    ("NAME", Align::Left),
];

/// A blob's cells, for people or for a program.
type Row = fn(&Blob, bool) -> [String; 5];

fn print(context: &Context, table: &mut Table<5>, row: Row, page: &[Blob]) -> Result<(), Failure> {
    if context.out.json() {
        return page.iter().try_for_each(|blob| context.out.object(&BlobView::from(blob)));
    }
    let rows: Vec<_> = page.iter().map(|blob| row(blob, context.out.terminal())).collect();
    table.page(&rows)
}

fn size(blob: &Blob, for_people: bool) -> String {
    if for_people { HumanBytes(blob.size_bytes).to_string() } else { blob.size_bytes.to_string() }
}

fn deleted_row(blob: &Blob, for_people: bool) -> [String; 5] {
    let (deleted, until) = (time_in_seconds(blob.delete_time.as_ref()), time_in_seconds(blob.expire_time.as_ref()));
    [blob.blob_id.to_string(), size(blob, for_people), deleted, until, escape(&blob.display_name)]
}

fn live_row(blob: &Blob, for_people: bool) -> [String; 5] {
    let mut sha256 = blob.sha256.to_string();
    sha256.truncate(SHA256_DIGITS);
    let created = time_in_seconds(Some(&blob.create_time));
    [blob.blob_id.to_string(), size(blob, for_people), created, escape(&blob.display_name), sha256]
}

/// Enough digits to tell blobs apart; `stat` shows all.
const SHA256_DIGITS: usize = 12;

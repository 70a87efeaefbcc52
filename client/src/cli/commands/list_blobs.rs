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

/// List a tenant's blobs: id, size, created, name, SHA-256
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
}

impl ListBlobs {
    /// Runs the command.
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let session = context.tenant(&self.tenant.tenant)?;
        let limit = self.limit.unwrap_or(usize::MAX);
        let page_size = limit.clamp(1, limits::PAGE_SIZE_MAX);
        let options = ListOptions { prefix: self.prefix, page_size: u32::try_from(page_size).unwrap_or_default() };
        let mut pages = pin!(session.client.list_blobs(options).take(limit).ready_chunks(page_size));
        let mut table = Table::new(&context.out, HEADINGS);
        while let Some(page) = pages.next().await {
            let page: Result<Vec<_>, _> = page.into_iter().collect();
            print(context, &mut table, &page.map_err(|error| session.failed("list-blobs", &error))?)?;
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

fn print(context: &Context, table: &mut Table<5>, page: &[Blob]) -> Result<(), Failure> {
    if context.out.json() {
        return page.iter().try_for_each(|blob| context.out.object(&BlobView::from(blob)));
    }
    let rows: Vec<_> = page.iter().map(|blob| row(blob, context.out.terminal())).collect();
    table.page(&rows)
}

fn row(blob: &Blob, for_people: bool) -> [String; 5] {
    let size = if for_people { HumanBytes(blob.size_bytes).to_string() } else { blob.size_bytes.to_string() };
    let mut sha256 = blob.sha256.to_string();
    sha256.truncate(SHA256_DIGITS);
    [blob.blob_id.to_string(), size, time_in_seconds(Some(&blob.create_time)), escape(&blob.display_name), sha256]
}

/// Enough digits to tell blobs apart; `stat` shows all.
const SHA256_DIGITS: usize = 12;

//! Whether each tenant's usage is the sum of its rows (I11).
//!
//! Usage changes with what it counts, so the sum is taken twice: first beside the service, believed only if the usage did
//! not change meanwhile; what then differs is summed up once more in a commit's turn, where nothing moves. Only tenants
//! whose usage differs cost the service that.

use proto::ids::TenantId;

use super::Check;
use super::finding::{FindingKind, Subject};
use super::problem::{Problem, Repair};
use super::rows::{Found, Walk, find, read, senseless};
use crate::coordinator::{Outcome, unchanged};
use crate::error::MetadataError;
use crate::store::engine::{Batch, KeyRange, Row, View};
use crate::store::keys;
use crate::store::records::{BlobRecord, DeletedRecord, UploadRecord, UploadState, UsageRecord};
use crate::store::rows::{self, BatchExt as _, RowError, record_of};

/// Rows that are read at once in a commit's turn.
const ROWS_PER_SCAN: usize = 1_000;

/// A layer that usage counts.
#[derive(Debug, Clone, Copy)]
enum Counted {
    Blobs,
    Uploads,
    Deleted,
}

impl Counted {
    const ALL: [Self; 3] = [Self::Uploads, Self::Blobs, Self::Deleted];

    fn prefix(self, tenant: &TenantId) -> Vec<u8> {
        match self {
            Self::Blobs => keys::blobs(tenant),
            Self::Uploads => keys::uploads(tenant),
            Self::Deleted => keys::deleted_blobs(tenant),
        }
    }

    /// Adds a row. Sums that overflow cannot match anything, so they may saturate.
    fn add(self, row: &Row, sum: &mut UsageRecord) -> Result<(), RowError> {
        let (bytes, blobs, more) = match self {
            Self::Blobs => (&mut sum.used_bytes, &mut sum.used_blobs, record_of::<BlobRecord>(row)?.size_bytes),
            Self::Deleted => {
                let size_bytes = record_of::<DeletedRecord>(row)?.blob.size_bytes;
                (&mut sum.retained_bytes, &mut sum.retained_blobs, size_bytes)
            }
            Self::Uploads => {
                let upload = record_of::<UploadRecord>(row)?;
                if upload.state != UploadState::Pending {
                    return Ok(());
                }
                (&mut sum.reserved_bytes, &mut sum.reserved_blobs, upload.reserved_bytes)
            }
        };
        *bytes = bytes.saturating_add(more);
        *blobs = blobs.saturating_add(1);
        Ok(())
    }
}

/// The sum of a tenant's rows, in a commit's turn.
fn sum(view: &dyn View, tenant: &TenantId) -> Result<UsageRecord, RowError> {
    let mut sum = UsageRecord::default();
    for layer in Counted::ALL {
        let mut range = KeyRange::prefix(&layer.prefix(tenant));
        loop {
            let rows = view.scan(&range, ROWS_PER_SCAN)?;
            rows.iter().try_for_each(|row| layer.add(row, &mut sum))?;
            match rows.last() {
                Some((key, _)) => range = range.after(key),
                None => break,
            }
        }
    }
    Ok(sum)
}

/// Sets a tenant's usage to the sum of its rows.
pub(super) fn recount(view: &dyn View, tenant: &TenantId, batch: &mut Batch) -> Result<(), MetadataError> {
    let sum = sum(view, tenant)?;
    if rows::read(view, &keys::usage(tenant))? != Some(sum) {
        batch.set(keys::usage(tenant), &sum);
    }
    Ok(())
}

/// What is stored and what it should be, if they differ.
fn compare(view: &dyn View, tenant: &TenantId) -> Outcome<Option<(Option<UsageRecord>, UsageRecord)>> {
    let sum = sum(view, tenant)?;
    let stored = rows::read(view, &keys::usage(tenant))?;
    unchanged((stored != Some(sum)).then_some((stored, sum)))
}

impl Check {
    /// Checks the usage of every tenant that has a row of its own or one that is counted.
    pub(super) async fn usages(&mut self) -> Result<(), MetadataError> {
        let mut walk = Walk::over(keys::USAGES);
        while let Some(rows) = walk.next(self.engine()).await? {
            for row in &rows {
                let Some(tenant) = keys::usage_of(&row.0) else {
                    self.report(senseless(row)).await?;
                    continue;
                };
                let subject = Subject { tenant: Some(tenant.clone()), ..Subject::default() };
                match read::<UsageRecord>(row, &subject) {
                    Ok(_readable) => self.usage_of(tenant).await?,
                    Err(damage) => self.report(damage).await?,
                }
            }
        }
        Ok(())
    }

    async fn usage_of(&mut self, tenant: TenantId) -> Result<(), MetadataError> {
        if self.usage_matches(&tenant).await? {
            return Ok(());
        }
        let asked = tenant.clone();
        let compared = self.service.decide(move |view, _context| compare(view, &asked)).await;
        let Some((stored, sum)) = compared? else { return Ok(()) };
        let detail = format!("the usage of tenant {tenant} is {stored:?}, the sum of its rows is {sum:?}");
        let subject = Subject { tenant: Some(tenant.clone()), ..Subject::default() };
        let problem = Problem::new(FindingKind::UsageWrong, subject, detail);
        self.report(problem.with_repair(Repair::Recount(tenant))).await
    }

    /// Whether the sum matches a usage that did not change while the rows were read. A row that cannot be read has been
    /// reported by whoever walks its layer; no sum is believed then.
    async fn usage_matches(&self, tenant: &TenantId) -> Result<bool, MetadataError> {
        let key = keys::usage(tenant);
        let before = find::<UsageRecord>(self.engine(), &key).await?;
        let mut sum = UsageRecord::default();
        for layer in Counted::ALL {
            let mut walk = Walk::over(&layer.prefix(tenant));
            while let Some(rows) = walk.next(self.engine()).await? {
                if rows.iter().try_for_each(|row| layer.add(row, &mut sum)).is_err() {
                    return Ok(true);
                }
            }
        }
        let after = find::<UsageRecord>(self.engine(), &key).await?;
        Ok(before == after && after == Found::Record(sum))
    }
}

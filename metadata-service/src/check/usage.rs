//! Whether each tenant's usage is the sum of its rows (I11).
//!
//! Usage changes with what it counts, in one batch. So rows that were read one after the other add up to it only if it was
//! not written meanwhile: the sum is taken beside the service, which follows the commits and begins again when one writes
//! this usage. That costs commits nothing, whatever the tenant has.
//!
//! A tenant that is written to all the time is counted in a commit's turn, where nothing moves, if it has no more than
//! [`ROWS_PER_TURN`] rows; with more it would hold up everybody's commits, and is reported as not counted.
//!
//! A repair is exact: its turn counts again, or, where that would take too long, finds the usage as it was when the rows
//! added up to something else.

use proto::ids::TenantId;

use super::Check;
use super::finding::{FindingKind, Subject};
use super::problem::{Problem, Repair};
use super::rows::{Found, Walk, find, read, senseless};
use crate::coordinator::unchanged;
use crate::error::MetadataError;
use crate::store::engine::{Batch, KeyRange, Row, View};
use crate::store::feed::Follower;
use crate::store::keys;
use crate::store::records::{BlobRecord, DeletedRecord, UploadRecord, UploadState, UsageRecord};
use crate::store::rows::{self, BatchExt as _, RowError, record_of};

/// Rows of one tenant that a commit's turn counts at most: some milliseconds.
pub(super) const ROWS_PER_TURN: usize = 2_000;
/// How often a tenant is counted beside the service before it is called busy.
const COUNTS: usize = 3;

/// A tenant's usage, and what its rows add up to, of one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Count {
    stored: Option<UsageRecord>,
    sum: UsageRecord,
}

/// How it went to count beside the service.
enum Counted {
    Done(Count),
    /// A row cannot be read, which whoever walks its layer has reported; no sum is believed then.
    Unreadable,
    /// It changed all the time.
    Busy,
}

/// A layer that usage counts.
#[derive(Debug, Clone, Copy)]
enum Layer {
    Blobs,
    Uploads,
    Deleted,
}

impl Layer {
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

/// Counts in a commit's turn; `None` for a tenant that has too many rows for that.
fn count(view: &dyn View, tenant: &TenantId) -> Result<Option<Count>, RowError> {
    let (mut sum, mut left) = (UsageRecord::default(), ROWS_PER_TURN);
    for layer in Layer::ALL {
        let rows = view.scan(&KeyRange::prefix(&layer.prefix(tenant)), left + 1)?;
        let Some(rest) = left.checked_sub(rows.len()) else { return Ok(None) };
        left = rest;
        rows.iter().try_for_each(|row| layer.add(row, &mut sum))?;
    }
    Ok(Some(Count { stored: rows::read(view, &keys::usage(tenant))?, sum }))
}

/// Sets a tenant's usage to the sum of its rows, if that is certain: see the module.
pub(super) fn recount(
    view: &dyn View,
    tenant: &TenantId,
    before: Count,
    batch: &mut Batch,
) -> Result<(), MetadataError> {
    let key = keys::usage(tenant);
    let sum = match count(view, tenant)? {
        Some(now) => now.sum,
        None if rows::read(view, &key)? == before.stored => before.sum,
        None => return Ok(()),
    };
    if rows::read(view, &key)? != Some(sum) {
        batch.set(key, &sum);
    }
    Ok(())
}

/// Whether a commit that it was told of wrote a key; one that it was not told of may have.
fn was_written(follower: &Follower, key: &[u8]) -> bool {
    loop {
        match follower.take() {
            Ok(Some(committed)) if committed.writes.contains_key(key) => return true,
            Ok(Some(_of_another)) => {}
            Ok(None) => return false,
            Err(_fell_behind) => return true,
        }
    }
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
        let subject = Subject { tenant: Some(tenant.clone()), ..Subject::default() };
        let counted = match self.count_beside(&tenant).await? {
            Counted::Done(counted) => Some(counted),
            Counted::Unreadable => return Ok(()),
            Counted::Busy => self.count_in_turn(tenant.clone()).await?,
        };
        let Some(counted) = counted else {
            let detail = "it is written to all the time, so its usage could not be compared with its rows";
            return self.report(Problem::new(FindingKind::UsageNotCounted, subject, detail)).await;
        };
        let Count { stored, sum } = counted;
        if stored == Some(sum) {
            return Ok(());
        }
        let detail = format!("the usage of tenant {tenant} is {stored:?}, the sum of its rows is {sum:?}");
        let problem = Problem::new(FindingKind::UsageWrong, subject, detail);
        self.report(problem.with_repair(Repair::Recount { tenant, counted })).await
    }

    async fn count_in_turn(&self, tenant: TenantId) -> Result<Option<Count>, MetadataError> {
        self.service.decide(move |view, _context| unchanged(count(view, &tenant)?)).await
    }

    async fn count_beside(&self, tenant: &TenantId) -> Result<Counted, MetadataError> {
        for _attempt in 0..COUNTS {
            // With too many followers already, nothing can be said of what changes.
            let Ok(follower) = self.engine().follow() else { return Ok(Counted::Busy) };
            match self.count_following(tenant, &follower).await? {
                Counted::Busy => {}
                counted @ (Counted::Done(_) | Counted::Unreadable) => return Ok(counted),
            }
        }
        Ok(Counted::Busy)
    }

    async fn count_following(&self, tenant: &TenantId, follower: &Follower) -> Result<Counted, MetadataError> {
        let key = keys::usage(tenant);
        let before = find::<UsageRecord>(self.engine(), &key).await?;
        let mut sum = UsageRecord::default();
        for layer in Layer::ALL {
            let mut walk = Walk::over(&layer.prefix(tenant));
            while let Some(rows) = walk.next(self.engine()).await? {
                if was_written(follower, &key) {
                    return Ok(Counted::Busy);
                }
                if rows.iter().try_for_each(|row| layer.add(row, &mut sum)).is_err() {
                    return Ok(Counted::Unreadable);
                }
            }
        }
        // A commit can be read a moment before it is told of.
        let after = find::<UsageRecord>(self.engine(), &key).await?;
        if before != after || was_written(follower, &key) {
            return Ok(Counted::Busy);
        }
        Ok(match after {
            Found::Record(stored) => Counted::Done(Count { stored: Some(stored), sum }),
            Found::Nothing => Counted::Done(Count { stored: None, sum }),
            Found::Damaged(_reported_in_its_layer) => Counted::Unreadable,
        })
    }
}

#[cfg(test)]
mod tests;

//! The arithmetic of quotas (I11): used is the sum of committed blobs, reserved that of open uploads, and no
//! reservation is granted that would exceed the quota. Bounds are checked where something is promised and nowhere after:
//! an upload that was granted may be committed, also when the quota has been lowered since.
//!
//! A sum that would go below zero or beyond 64 bits means that a row was changed without its usage: that is refused as
//! a bug, and nothing is written.

use proto::ids::TenantId;

use crate::error::{MetadataError, QuotaBound};
use crate::store::records::{Quota, UsageRecord};

const BROKEN: MetadataError = MetadataError::Bug("usage does not match what it counts (I11)");

fn add(to: &mut u64, amount: u64) -> Result<(), MetadataError> {
    *to = to.checked_add(amount).ok_or(BROKEN)?;
    Ok(())
}

fn take(from: &mut u64, amount: u64) -> Result<(), MetadataError> {
    *from = from.checked_sub(amount).ok_or(BROKEN)?;
    Ok(())
}

/// Bytes that may still be reserved for a blob that has `reserved` already: what is left of the quota, and what one blob
/// may have; the largest number when there is no bound.
pub fn bytes_left(usage: &UsageRecord, quota: &Quota, reserved: u64) -> u64 {
    let of_blob = left(quota.max_blob_bytes, 0, reserved);
    left(quota.max_bytes, usage.used_bytes, usage.reserved_bytes).min(of_blob)
}

fn left(limit: Option<u64>, used: u64, reserved: u64) -> u64 {
    limit.map_or(u64::MAX, |limit| limit.saturating_sub(used).saturating_sub(reserved))
}

/// Refuses bytes that do not fit. A tenant above its quota is refused even 0 bytes.
///
/// # Errors
/// [`MetadataError::QuotaExceeded`].
pub fn check_bytes(tenant: &TenantId, usage: &UsageRecord, quota: &Quota, bytes: u64) -> Result<(), MetadataError> {
    check(tenant, QuotaBound::Bytes, quota.max_bytes, [usage.used_bytes, usage.reserved_bytes], bytes)
}

/// Refuses a blob that is larger than one may be.
///
/// # Errors
/// [`MetadataError::BlobTooLarge`].
pub fn check_blob_size(tenant: &TenantId, quota: &Quota, wanted: u64) -> Result<(), MetadataError> {
    match quota.max_blob_bytes.filter(|limit| wanted > *limit) {
        Some(limit) => Err(MetadataError::BlobTooLarge { tenant: tenant.to_string(), limit, wanted }),
        None => Ok(()),
    }
}

/// Refuses one more open upload when there are as many as may be.
///
/// # Errors
/// [`MetadataError::QuotaExceeded`].
pub fn check_one_more_upload(tenant: &TenantId, usage: &UsageRecord, quota: &Quota) -> Result<(), MetadataError> {
    check(tenant, QuotaBound::OpenUploads, Some(quota.max_open_uploads), [0, usage.reserved_blobs], 1)
}

/// The refusal of an upload of unknown size that has `reserved` bytes and can have no more, by the bound that is met.
pub fn exhausted(tenant: &TenantId, quota: &Quota, reserved: u64) -> MetadataError {
    if let Err(too_large) = check_blob_size(tenant, quota, reserved.saturating_add(1)) {
        return too_large;
    }
    let limit = quota.max_bytes.unwrap_or(u64::MAX);
    MetadataError::QuotaExceeded { tenant: tenant.to_string(), bound: QuotaBound::Bytes, limit, left: 0 }
}

/// Refuses one more blob when there is no room for it.
///
/// # Errors
/// [`MetadataError::QuotaExceeded`].
pub fn check_one_more_blob(tenant: &TenantId, usage: &UsageRecord, quota: &Quota) -> Result<(), MetadataError> {
    check(tenant, QuotaBound::Blobs, quota.max_blobs, [usage.used_blobs, usage.reserved_blobs], 1)
}

fn check(
    tenant: &TenantId,
    bound: QuotaBound,
    limit: Option<u64>,
    [used, reserved]: [u64; 2],
    more: u64,
) -> Result<(), MetadataError> {
    let Some(limit) = limit else { return Ok(()) };
    let total = used.checked_add(reserved).and_then(|total| total.checked_add(more));
    if total.is_some_and(|total| total <= limit) {
        return Ok(());
    }
    let left = left(Some(limit), used, reserved);
    Err(MetadataError::QuotaExceeded { tenant: tenant.to_string(), bound, limit, left })
}

/// An upload opens.
///
/// # Errors
/// [`MetadataError::Bug`].
pub fn open_upload(usage: &mut UsageRecord, bytes: u64) -> Result<(), MetadataError> {
    add(&mut usage.reserved_blobs, 1)?;
    reserve_more(usage, bytes)
}

/// An open upload gets more.
///
/// # Errors
/// [`MetadataError::Bug`].
pub fn reserve_more(usage: &mut UsageRecord, bytes: u64) -> Result<(), MetadataError> {
    add(&mut usage.reserved_bytes, bytes)
}

/// An upload ends; what it reserved is free again.
///
/// # Errors
/// [`MetadataError::Bug`].
pub fn close_upload(usage: &mut UsageRecord, reserved_bytes: u64) -> Result<(), MetadataError> {
    take(&mut usage.reserved_blobs, 1)?;
    take(&mut usage.reserved_bytes, reserved_bytes)
}

/// A blob appears.
///
/// # Errors
/// [`MetadataError::Bug`].
pub fn add_blob(usage: &mut UsageRecord, bytes: u64) -> Result<(), MetadataError> {
    add(&mut usage.used_blobs, 1)?;
    add(&mut usage.used_bytes, bytes)
}

/// A blob is deleted: no longer used, but retained.
///
/// # Errors
/// [`MetadataError::Bug`].
pub fn retire_blob(usage: &mut UsageRecord, bytes: u64) -> Result<(), MetadataError> {
    take(&mut usage.used_blobs, 1)?;
    take(&mut usage.used_bytes, bytes)?;
    add(&mut usage.retained_blobs, 1)?;
    add(&mut usage.retained_bytes, bytes)
}

/// A deleted blob comes back.
///
/// # Errors
/// [`MetadataError::Bug`].
pub fn restore_blob(usage: &mut UsageRecord, bytes: u64) -> Result<(), MetadataError> {
    release_blob(usage, bytes)?;
    add_blob(usage, bytes)
}

/// A deleted blob is collected.
///
/// # Errors
/// [`MetadataError::Bug`].
pub fn release_blob(usage: &mut UsageRecord, bytes: u64) -> Result<(), MetadataError> {
    take(&mut usage.retained_blobs, 1)?;
    take(&mut usage.retained_bytes, bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn posts() -> TenantId {
        "posts".parse().unwrap()
    }

    #[test]
    fn a_tenant_above_its_quota_is_refused_even_nothing() {
        let usage = UsageRecord { used_bytes: 11, ..UsageRecord::default() };
        let quota = Quota { max_bytes: Some(10), ..Quota::UNLIMITED };
        let refused = check_bytes(&posts(), &usage, &quota, 0);
        assert!(matches!(refused, Err(MetadataError::QuotaExceeded { limit: 10, left: 0, .. })), "{refused:?}");
        let raised = Quota { max_bytes: Some(11), ..quota };
        assert!(check_bytes(&posts(), &usage, &raised, 0).is_ok());
    }

    #[test]
    fn a_sum_below_zero_is_a_bug_and_not_a_wrap() {
        let mut usage = UsageRecord::default();
        assert!(matches!(close_upload(&mut usage, 1), Err(MetadataError::Bug(_))));
        assert!(matches!(retire_blob(&mut usage, 1), Err(MetadataError::Bug(_))));
    }

    proptest! {
        #[test]
        fn what_is_granted_fits_and_what_is_left_is_granted(
            used: u64, reserved: u64, more: u64, limit in proptest::option::of(any::<u64>()),
        ) {
            let usage = UsageRecord { used_bytes: used, reserved_bytes: reserved, ..UsageRecord::default() };
            let quota = Quota { max_bytes: limit, ..Quota::UNLIMITED };
            let total = u128::from(used) + u128::from(reserved) + u128::from(more);
            let fits = limit.is_none_or(|limit| total <= u128::from(limit));
            prop_assert_eq!(check_bytes(&posts(), &usage, &quota, more).is_ok(), fits);
            let left = bytes_left(&usage, &quota, 0);
            let over = limit.is_some_and(|limit| u128::from(used) + u128::from(reserved) > u128::from(limit));
            prop_assert_eq!(check_bytes(&posts(), &usage, &quota, left).is_ok(), !over);
        }
    }
}

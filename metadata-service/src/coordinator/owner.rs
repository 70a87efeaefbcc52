//! Whose a blob is, when only its id is known.
//!
//! A block's row names the tenant; this is for what has no block, and for blocks that an older version planned. The
//! layers themselves are asked, not the rows of tenants or of their usage: one of those may be lost, and its tenant owns
//! its blobs all the same.

use proto::ids::{BlobId, TenantId};

use crate::error::MetadataError;
use crate::store::engine::{Engine, KeyRange};
use crate::store::keys;

/// Whether a tenant has a blob of this id, in whatever state; asked in the order in which one state becomes the next.
///
/// # Errors
/// [`MetadataError`] when the engine fails.
pub async fn holds(engine: &dyn Engine, tenant: &TenantId, blob: BlobId) -> Result<bool, MetadataError> {
    for key in [keys::upload(tenant, blob), keys::blob(tenant, blob), keys::deleted(tenant, blob)] {
        if engine.get(&key).await?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Looks for a blob, in whatever state, under every tenant: two reads for each in each layer, and nothing is kept.
///
/// # Errors
/// [`MetadataError`] when the engine fails.
pub async fn search(engine: &dyn Engine, blob: BlobId) -> Result<Option<TenantId>, MetadataError> {
    for layer in [keys::UPLOADS, keys::BLOBS, keys::DELETED] {
        let mut range = KeyRange::prefix(layer);
        while let Some((key, _)) = engine.scan(&range, 1).await?.first() {
            let Some(tenant) = keys::tenant_in(layer, key) else {
                range = range.after(key);
                continue;
            };
            let of_tenant = [layer, tenant.as_str().as_bytes(), b"/"].concat();
            if engine.get(&[&of_tenant, blob.as_bytes().as_slice()].concat()).await?.is_some() {
                return Ok(Some(tenant));
            }
            let Some(behind) = KeyRange::prefix(&of_tenant).end else { break };
            range.start = behind;
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use proto::entropy::SeededEntropy;

    use super::*;
    use crate::store::engine::{Batch, Decision, EngineExt as _};
    use crate::store::memory::MemoryEngine;
    use crate::store::rows::RowError;

    /// The owner was looked for under the tenants that have a usage row. That of one was lost, and its blobs were nobody's.
    #[tokio::test]
    async fn i1_a_blob_is_found_in_every_state_under_every_tenant_whatever_else_is_lost() {
        let engine = MemoryEngine::new();
        let tenants: Vec<TenantId> =
            ["first", "first-b", "second", "zz-last"].map(|tenant| tenant.parse().unwrap()).into();
        let id = |number: u8| BlobId::generate(1, &SeededEntropy::new(u64::from(number)));
        let mut batch = Batch::default();
        let mut expected = Vec::new();
        for (tenant, first) in tenants.iter().zip([0, 10, 20, 30]) {
            for (key, number) in [
                (keys::upload(tenant, id(first)), first),
                (keys::blob(tenant, id(first + 1)), first + 1),
                (keys::deleted(tenant, id(first + 2)), first + 2),
            ] {
                batch.put(key, b"unreadable".to_vec());
                expected.push((number, tenant.clone()));
            }
        }
        batch.put([keys::BLOBS, b"?"].concat(), Vec::new());
        let put = engine.decide(|_view| Ok::<_, RowError>((Decision::frees(batch), ())));
        put.await.unwrap();
        for (number, tenant) in expected {
            assert_eq!(search(&engine, id(number)).await.unwrap(), Some(tenant.clone()), "{number}");
            assert!(holds(&engine, &tenant, id(number)).await.unwrap());
        }
        assert_eq!(search(&engine, id(99)).await.unwrap(), None);
    }
}

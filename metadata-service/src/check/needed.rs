//! Whether a row that had no reason to exist has one now: asked in the turn that would drop it.
//!
//! A blob that is restored, for one, needs again what was left of it. Damage proves nothing: what refers to a row may be
//! what cannot be read, so the row stays.
//!
//! An extent is not asked about: no id of a blob is drawn twice, so what had no owner gets none.

use proto::token::TokenKeyId;

use super::rows::{Found, see};
use crate::error::MetadataError;
use crate::store::engine::View;
use crate::store::keys;
use crate::store::records::{
    BlobRecord, BlockRecord, DeletedRecord, ExtentRecord, Holder, ReverseRecord, TenantRecord, TokenRecord, decode,
};

/// Whether something refers to a row.
pub(super) fn is_needed(view: &dyn View, key: &[u8], value: &[u8]) -> Result<bool, MetadataError> {
    if let Some((tenant, blob)) = keys::name_of(key) {
        let named = |live: BlobRecord| keys::name(&tenant, &live.description.display_name, blob) == key;
        return Ok(holds(see(view, &keys::blob(&tenant, blob))?, named));
    }
    if let Some((tenant, delete_ms, blob)) = keys::retained_of(key) {
        return Ok(holds(see(view, &keys::deleted(&tenant, blob))?, |dead: DeletedRecord| dead.delete_ms == delete_ms));
    }
    if let Some((node, chunk)) = keys::damage_of(key) {
        return Ok(view.get(&keys::reverse(node, chunk))?.is_some());
    }
    if let (Some((node, chunk)), Ok(place)) = (keys::reverse_of(key), decode::<ReverseRecord>(value)) {
        let lists = |block: BlockRecord| block.chunks.iter().any(|one| one.node == node && one.chunk == chunk);
        return Ok(holds(see(view, &keys::block(place.block))?, lists));
    }
    if let (Some(id), Ok(block)) = (keys::block_of(key), decode::<BlockRecord>(value)) {
        let extent = see(view, &keys::extent(block.blob, block.index))?;
        return Ok(holds(extent, |extent: ExtentRecord| extent.block == id));
    }
    match decode::<TokenRecord>(value) {
        Ok(token) => keys::token_of(key).map_or(Ok(false), |key_id| has_holder(view, key_id, &token.holder)),
        Err(_) => Ok(false),
    }
}

fn has_holder(view: &dyn View, key_id: TokenKeyId, holder: &Holder) -> Result<bool, MetadataError> {
    match holder {
        Holder::Admin | Holder::Join(_) => Ok(true),
        Holder::Tenant(tenant) => {
            let lists = |tenant: TenantRecord| tenant.tokens().any(|own| own == key_id);
            Ok(holds(see(view, &keys::tenant(tenant))?, lists))
        }
        Holder::Node(node) => Ok(view.get(&keys::node(*node))?.is_some()),
    }
}

fn holds<R>(found: Found<R>, is_meant: impl FnOnce(R) -> bool) -> bool {
    match found {
        Found::Record(record) => is_meant(record),
        Found::Nothing => false,
        Found::Damaged(_) => true,
    }
}

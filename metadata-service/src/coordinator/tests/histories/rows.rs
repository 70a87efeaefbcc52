//! The rows that a model must have left, and whether an engine has exactly these.

use std::collections::BTreeMap;

use super::super::*;
use super::model::{Fate, Known, Model};
use crate::store::records::{
    ExtentRecord, GarbageRecord, Holder, NameRecord, RequestRecord, RetainedRecord, ReverseRecord, TokenRecord, decode,
    encode,
};
use crate::tokens;

/// Rows by their keys.
pub(super) type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

impl Model {
    /// Every row that is there because of this tenant. A request's fingerprint is taken from `found`: what it sums up is
    /// told by which repeats are taken for repeats. So is the moment a token was made, on which nothing depends.
    pub(super) fn rows(&self, secret: &SecretKey, found: &Rows) -> Rows {
        let mut rows = Rows::new();
        self.tenant_rows(secret, found, &mut rows);
        self.known.iter().for_each(|known| self.known_rows(known, &mut rows));
        for (key, (_, first_block)) in &self.garbage {
            let garbage = GarbageRecord { tenant: self.tenant.clone(), first_block: *first_block };
            rows.insert(key.clone(), encode(&garbage));
        }
        for ((not_before_ms, chunk), record) in &self.chunks {
            rows.insert(keys::garbage_chunk(*not_before_ms, *chunk), encode(record));
        }
        rows
    }

    fn tenant_rows(&self, secret: &SecretKey, found: &Rows, rows: &mut Rows) {
        if let Some(record) = &self.record {
            rows.insert(keys::tenant(&self.tenant), encode(record));
            for key_id in [Some(record.token), record.previous_token].into_iter().flatten() {
                let token = tokens::of_tenant(secret, &self.tenant, key_id);
                let key = keys::token(key_id);
                let known = found.get(&key).and_then(|bytes| decode::<TokenRecord>(bytes).ok());
                let create_ms = known.and_then(|known| known.create_ms);
                let row = tokens::record(&token, Holder::Tenant(self.tenant.clone()));
                rows.insert(key, encode(&TokenRecord { create_ms, ..row }));
            }
        }
        if let Some(usage) = self.usage_row() {
            rows.insert(keys::usage(&self.tenant), encode(&usage));
        }
        for (id, remembered) in &self.requests {
            let key = keys::request(&RequestScope::Tenant(self.tenant.clone()), id);
            let known = found.get(&key).and_then(|bytes| decode::<RequestRecord>(bytes).ok());
            let fingerprint = known.map_or(Sha256::of(b""), |known| known.fingerprint);
            let object = self.known[remembered.about].blob.as_bytes().to_vec();
            rows.insert(key, encode(&RequestRecord { fingerprint, object, expire_ms: remembered.expire_ms }));
        }
    }

    fn known_rows(&self, known: &Known, rows: &mut Rows) {
        let (tenant, blob) = (&self.tenant, known.blob);
        match &known.fate {
            Fate::Upload => {
                rows.insert(keys::upload(tenant, blob), encode(&known.upload));
            }
            Fate::Live(record) => {
                rows.insert(keys::blob(tenant, blob), encode(record));
                rows.insert(keys::name(tenant, &record.description.display_name, blob), encode(&NameRecord {}));
            }
            Fate::Deleted(tombstone) => {
                rows.insert(keys::deleted(tenant, blob), encode(tombstone));
                rows.insert(keys::retained(tenant, tombstone.delete_ms, blob), encode(&RetainedRecord {}));
            }
            Fate::Gone => {}
        }
        known.blocks.iter().flatten().for_each(|block| block_rows(known, block, rows));
    }
}

fn block_rows(known: &Known, planned: &PlannedBlock, rows: &mut Rows) {
    let PlannedBlock { block, max_bytes, record, .. } = planned;
    let ended_short = known.fate != Fate::Upload && known.upload.short_block == Some(record.index);
    let sealed = record.sealed.filter(|_sums| ended_short);
    let size_bytes = sealed.map_or(*max_bytes, |sums| sums.size_bytes);
    rows.insert(keys::extent(known.blob, record.index), encode(&ExtentRecord { block: *block, size_bytes }));
    rows.insert(keys::block(*block), encode(record));
    let chunk = &record.chunks[0];
    let reverse = ReverseRecord {
        block: *block,
        blob: known.blob,
        shard_index: 0,
        generation: record.generation,
        epoch: chunk.epoch,
        sequence: chunk.sequence,
    };
    rows.insert(keys::reverse(chunk.node, chunk.chunk), encode(&reverse));
}

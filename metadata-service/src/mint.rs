//! Minting capabilities: for each chunk of an answer one permission, for its node and for a while (I10).
//!
//! Done after a commit and outside of it: a repeat gets fresh ones, and the writer thread signs nothing.

use std::sync::Arc;

use proto::capability::{Capability, ChunkBinding, NodeKey, Permit, sign};
use proto::entropy::Entropy;
use proto::ids::{BlockId, ClusterId, NodeId, TenantId};
use proto::rates::{Pace, Rates};
use proto::runtime::clock::{Clock, millis};
use proto::traffic::TrafficClass;

use crate::coordinator::PlannedBlock;
use crate::coordinator::layout::SealedBlock;
use crate::error::MetadataError;
use crate::nodes::Registry;
use crate::store::records::{BlockRecord, ChunkRecord};

/// A chunk with the permission to reach it.
#[derive(Debug, Clone)]
pub struct Granted {
    /// The chunk.
    pub chunk: ChunkRecord,
    /// Which shard, from 0.
    pub shard_index: u32,
    /// Where clients reach its node; empty while that is not known.
    pub endpoint: String,
    /// The capability.
    pub capability: String,
    /// When it ends.
    pub expire_ms: u64,
}

/// Permission for the metadata service's own work at a node.
#[derive(Debug, Clone)]
pub struct Own {
    /// Where the node is.
    pub endpoint: String,
    /// The capability.
    pub capability: String,
}

/// How urgent a tenant's traffic is, and how fast it may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// The class.
    pub class: TrafficClass,
    /// The rates.
    pub rates: Rates,
}

/// On whose behalf.
struct Payer<'a> {
    tenant: Option<&'a TenantId>,
    class: TrafficClass,
    pace: Pace,
}

/// Mints capabilities.
#[derive(Debug, Clone)]
pub struct Mint {
    /// For this cluster.
    pub cluster: ClusterId,
    /// Valid for so long.
    pub life: std::time::Duration,
    /// With these nodes' keys.
    pub registry: Arc<Registry>,
    /// From this moment on.
    pub clock: Arc<dyn Clock>,
    /// For nonces.
    pub entropy: Arc<dyn Entropy>,
}

impl Mint {
    /// Permission to write each chunk of a planned block.
    ///
    /// # Errors
    /// [`MetadataError::Corrupt`] when a chunk's node is not registered.
    pub fn writes(
        &self,
        tenant: &TenantId,
        terms: Terms,
        planned: &PlannedBlock,
    ) -> Result<Vec<Granted>, MetadataError> {
        let permit = |_chunk: &ChunkRecord| Ok(Permit::Write { max_bytes: planned.max_bytes });
        let payer = Payer { tenant: Some(tenant), class: terms.class, pace: terms.rates.of_writes() };
        self.grant(&payer, planned.block, &planned.record, permit)
    }

    /// Permission to read each chunk of a sealed block.
    ///
    /// # Errors
    /// [`MetadataError::Corrupt`] when a chunk has no receipt or its node is not registered.
    pub fn reads(&self, tenant: &TenantId, terms: Terms, sealed: &SealedBlock) -> Result<Vec<Granted>, MetadataError> {
        let permit =
            |chunk: &ChunkRecord| chunk.sums.map(Permit::Read).ok_or_else(|| MetadataError::missing("chunk's receipt"));
        let payer = Payer { tenant: Some(tenant), class: terms.class, pace: terms.rates.of_reads() };
        self.grant(&payer, sealed.block, &sealed.record, permit)
    }

    /// Permission for one call of the metadata service's own, on no tenant's behalf and as background work; `None` when the node is not
    /// registered. Never handed to a client.
    pub fn own(&self, node: NodeId, binding: ChunkBinding, permit: Permit) -> Option<Own> {
        let (key, endpoint) = self.registry.access(node)?;
        let nobody = Payer { tenant: None, class: TrafficClass::Bronze, pace: Pace::default() };
        let (capability, _expire_ms) = self.sign(node, &key, &nobody, binding, permit);
        Some(Own { endpoint, capability })
    }

    fn grant(
        &self,
        payer: &Payer<'_>,
        block: BlockId,
        record: &BlockRecord,
        permit: impl Fn(&ChunkRecord) -> Result<Permit, MetadataError>,
    ) -> Result<Vec<Granted>, MetadataError> {
        let chunks = (0..).zip(&record.chunks);
        chunks.map(|(shard, chunk)| self.grant_one(payer, block, record, shard, chunk, permit(chunk)?)).collect()
    }

    fn grant_one(
        &self,
        payer: &Payer<'_>,
        block: BlockId,
        record: &BlockRecord,
        shard_index: u32,
        chunk: &ChunkRecord,
        permit: Permit,
    ) -> Result<Granted, MetadataError> {
        let (key, endpoint) = self.registry.access(chunk.node).ok_or_else(|| MetadataError::missing("node"))?;
        let binding = ChunkBinding {
            chunk: chunk.chunk,
            block,
            blob: record.blob,
            shard_index,
            shard_count: record.encoding.chunk_count(),
            generation: record.generation,
            epoch: chunk.epoch,
            sequence: chunk.sequence,
        };
        let (capability, expire_ms) = self.sign(chunk.node, &key, payer, binding, permit);
        Ok(Granted { chunk: *chunk, shard_index, endpoint, capability, expire_ms })
    }

    /// A capability from now on, and when it ends.
    fn sign(
        &self,
        node: NodeId,
        key: &NodeKey,
        payer: &Payer<'_>,
        binding: ChunkBinding,
        permit: Permit,
    ) -> (String, u64) {
        let not_before_ms = self.clock.now_ms();
        let expire_ms = not_before_ms.saturating_add(millis(self.life));
        let (cluster, tenant) = (self.cluster, payer.tenant.cloned());
        let &Payer { class, pace, .. } = payer;
        let capability = Capability { cluster, node, tenant, class, pace, permit, binding, not_before_ms, expire_ms };
        let mut nonce = [0; 8];
        self.entropy.fill(&mut nonce);
        (sign(&capability, key, nonce), expire_ms)
    }
}

//! The node as its calls see it: who it is, what time it is, whether it takes work, and its store.
//!
//! Every call passes here first, in memory and before any work on the disk (I10): [`Node::admit`] checks the capability
//! and [`Node::writable`] whether chunks are taken at all. Every failed check of a capability is the same answer, but
//! for one that was good and is too old.

use std::sync::Arc;
use std::time::Duration;

use proto::capability::{self, Capability, CapabilityError, ChunkBinding, NodeKey, Permit, ReadClaims};
use proto::checksum::ChunkSums;
use proto::ids::{ChunkId, NodeId, TenantId};
use proto::rates::Pace;
use proto::receipt::{self, Receipt};
use proto::runtime::TaskGroup;
use proto::runtime::tls::Tls;
use proto::runtime::transport::{ClientCertificate, Gate};
use proto::tls::exposure::Warning;
use proto::traffic::TrafficClass;
use tokio_util::sync::CancellationToken;

use crate::config::Tuning;
use crate::error::ChunkError;
use crate::fairness::Account;
use crate::identity::MemberCell;
use crate::pace::Paces;
use crate::store::ChunkStore;
use crate::time::NodeTime;

/// A node and everything it works with.
#[derive(Debug)]
pub(crate) struct Node {
    /// Its id.
    pub(crate) id: NodeId,
    /// Its cluster and keys, once it has joined.
    pub(crate) membership: MemberCell,
    /// What time it is.
    pub(crate) time: Arc<NodeTime>,
    /// Its chunks.
    pub(crate) store: Arc<ChunkStore>,
    /// Its constants.
    pub(crate) tuning: Tuning,
    /// How fast tenants may go.
    pub(crate) paces: Paces,
    /// Its tasks.
    pub(crate) tasks: TaskGroup,
    /// Fires when no new work is taken.
    pub(crate) draining: CancellationToken,
    /// Its listener.
    pub(crate) front: Front,
}

/// What a node knows of its own listener.
#[derive(Debug)]
pub(crate) struct Front {
    /// Who is let in.
    pub(crate) gate: Arc<Gate>,
    /// How they are greeted.
    pub(crate) tls: Arc<Tls>,
    /// What there is to warn about.
    pub(crate) exposed: Vec<Warning>,
}

impl Front {
    /// That of a node that nobody calls.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn closed() -> Self {
        let tls = Tls::off(Arc::new(proto::runtime::SystemClock));
        let gate = Gate::new(proto::runtime::transport::TransportLimits::default());
        Self { gate, tls, exposed: Vec::new() }
    }

    /// What needs an operator, in words.
    pub(crate) fn warnings(&self) -> Vec<String> {
        self.exposed.iter().map(ToString::to_string).chain(self.tls.warnings()).collect()
    }
}

/// Permission to write one chunk.
#[derive(Debug, Clone)]
pub(crate) struct WriteGrant {
    /// The chunk and its place.
    pub(crate) place: ChunkBinding,
    /// On whose behalf.
    pub(crate) tenant: TenantId,
    /// How urgent it is.
    pub(crate) class: TrafficClass,
    /// How fast it may go.
    pub(crate) pace: Pace,
    /// Most bytes that are taken.
    pub(crate) max_bytes: u64,
    /// How long it holds from now on.
    pub(crate) holds_for: Duration,
}

impl WriteGrant {
    /// On whose account its work is.
    pub(crate) fn account(&self) -> Account {
        Account { class: self.class, tenant: Some(self.tenant.clone()) }
    }
}

/// Permission to read, or to verify, one chunk.
#[derive(Debug, Clone)]
pub(crate) struct ReadGrant {
    /// The chunk and its place.
    pub(crate) place: ChunkBinding,
    /// What its bytes must be.
    pub(crate) claims: ReadClaims,
    /// On whose account the work is.
    pub(crate) account: Account,
    /// How fast it may go.
    pub(crate) pace: Pace,
}

impl Node {
    /// With mutual TLS, lets in whose connection came with a certificate that was verified. For what only the metadata
    /// service asks for, and before the capability is looked at: whoever got hold of one can do nothing with it.
    pub(crate) fn admit_service(&self, certificate: Option<&ClientCertificate>) -> Result<(), ChunkError> {
        if self.front.tls.is_mutual() && certificate.is_none() { Err(ChunkError::CertificateMissing) } else { Ok(()) }
    }

    /// Checks that a capability is good at this node now.
    fn admit(&self, credential: Option<&str>) -> Result<(Capability, Duration), ChunkError> {
        if self.draining.is_cancelled() {
            return Err(ChunkError::Draining);
        }
        let text = credential.ok_or(ChunkError::CredentialMissing)?;
        let membership = self.membership.get().ok_or(ChunkError::Starting("has not joined its cluster yet"))?;
        let now = self.time.now();
        let checked =
            capability::verify(text, &membership.keys, membership.cluster, self.id, now.now_ms, now.tolerance_ms);
        let capability = checked.map_err(|error| match error {
            CapabilityError::Invalid => ChunkError::CapabilityInvalid,
            CapabilityError::Expired => ChunkError::CapabilityExpired,
        })?;
        self.paces.request(capability.tenant.as_ref(), capability.pace)?;
        let end_ms = capability.expire_ms.saturating_add(now.tolerance_ms);
        let holds_for = Duration::from_millis(end_ms.saturating_sub(now.now_ms));
        Ok((capability, holds_for))
    }

    /// Checks a capability to write.
    pub(crate) fn admit_write(&self, credential: Option<&str>) -> Result<WriteGrant, ChunkError> {
        let (Capability { permit, binding, tenant, class, pace, .. }, holds_for) = self.admit(credential)?;
        match (permit, tenant) {
            (Permit::Write { max_bytes }, Some(tenant)) => {
                Ok(WriteGrant { place: binding, tenant, class, pace, max_bytes, holds_for })
            }
            (
                Permit::Write { .. } | Permit::Read(_) | Permit::Delete | Permit::Verify(_) | Permit::List,
                _any_tenant,
            ) => Err(ChunkError::CapabilityInvalid),
        }
    }

    /// Checks a capability to read.
    pub(crate) fn admit_read(&self, credential: Option<&str>) -> Result<ReadGrant, ChunkError> {
        let (Capability { permit, binding, tenant, class, pace, .. }, _holds_for) = self.admit(credential)?;
        match permit {
            Permit::Read(claims) => Ok(ReadGrant { place: binding, claims, account: Account { class, tenant }, pace }),
            Permit::Write { .. } | Permit::Delete | Permit::Verify(_) | Permit::List => {
                Err(ChunkError::CapabilityInvalid)
            }
        }
    }

    /// Checks a capability to delete.
    pub(crate) fn admit_delete(&self, credential: Option<&str>) -> Result<ChunkId, ChunkError> {
        let (Capability { permit, binding, .. }, _holds_for) = self.admit(credential)?;
        match permit {
            Permit::Delete => Ok(binding.chunk),
            Permit::Write { .. } | Permit::Read(_) | Permit::Verify(_) | Permit::List => {
                Err(ChunkError::CapabilityInvalid)
            }
        }
    }

    /// Checks a capability to verify.
    pub(crate) fn admit_verify(&self, credential: Option<&str>) -> Result<ReadGrant, ChunkError> {
        let (Capability { permit, binding, .. }, _holds_for) = self.admit(credential)?;
        match permit {
            Permit::Verify(claims) => {
                Ok(ReadGrant { place: binding, claims, account: Account::own(), pace: Pace::default() })
            }
            Permit::Write { .. } | Permit::Read(_) | Permit::Delete | Permit::List => {
                Err(ChunkError::CapabilityInvalid)
            }
        }
    }

    /// Checks a capability to list.
    pub(crate) fn admit_list(&self, credential: Option<&str>) -> Result<(), ChunkError> {
        let (Capability { permit, .. }, _holds_for) = self.admit(credential)?;
        match permit {
            Permit::List => Ok(()),
            Permit::Write { .. } | Permit::Read(_) | Permit::Delete | Permit::Verify(_) => {
                Err(ChunkError::CapabilityInvalid)
            }
        }
    }

    /// Whether chunks are taken now.
    pub(crate) fn writable(&self) -> Result<(), ChunkError> {
        self.store.latch().check()?;
        match self.time.since_heartbeat() {
            None => Err(ChunkError::Starting("has not heard from the metadata service yet")),
            Some(since) if since > self.tuning.heartbeat_lost_for_writes => Err(ChunkError::MetadataUnreachable(None)),
            Some(_) => Ok(()),
        }
    }

    /// The node's signed statement that a chunk is durable. The same for the same chunk.
    pub(crate) fn receipt(&self, place: &ChunkBinding, sums: &ChunkSums) -> Result<bytes::Bytes, ChunkError> {
        let membership = self.membership.get().ok_or(ChunkError::Starting("has not joined its cluster yet"))?;
        let key: &NodeKey = membership.keys.first().ok_or(ChunkError::Starting("has no key yet"))?;
        let receipt = Receipt {
            cluster: membership.cluster,
            node: self.id,
            blob: place.blob,
            chunk: place.chunk,
            block: place.block,
            generation: place.generation,
            size_bytes: sums.size_bytes,
            sha256: sums.sha256,
            pieces_sha256: sums.pieces_sha256(),
        };
        Ok(receipt::sign(&receipt, key))
    }
}

//! How fast tenants may go at this node: what their capabilities say, kept in buckets.
//!
//! A call counts against its tenant's rate of requests before it costs anything, and a stream is opened only while the
//! tenant's streams need not wait for each other for too long already; both are refused with the time to come back. An
//! open stream is never refused: it waits behind each frame until the rate allows the next one, and its peer waits with it.
//! The metadata service's own work is on nobody's account and not bounded.

use std::num::NonZeroU64;
use std::sync::Arc;

use proto::ids::TenantId;
use proto::rates::Pace;
use proto::runtime::buckets::{Buckets, NotYet};
use tokio::time::Instant;

use crate::error::ChunkError;

/// The tenants' buckets.
#[derive(Debug, Default)]
pub(crate) struct Paces {
    requests: Buckets<TenantId>,
    reads: Arc<Buckets<TenantId>>,
    writes: Arc<Buckets<TenantId>>,
}

/// Paces one stream.
#[derive(Debug)]
pub(crate) struct Pacer(Option<Bounded>);

#[derive(Debug)]
struct Bounded {
    buckets: Arc<Buckets<TenantId>>,
    tenant: TenantId,
    rate: NonZeroU64,
}

impl Paces {
    /// Counts a call.
    ///
    /// # Errors
    /// [`ChunkError::RateLimited`].
    pub(crate) fn request(&self, tenant: Option<&TenantId>, pace: Pace) -> Result<(), ChunkError> {
        let (Some(tenant), Some(rate)) = (tenant, pace.requests_per_second) else { return Ok(()) };
        self.requests.take(tenant, rate, 1).map_err(|not_yet| limited("requests", not_yet))
    }

    /// Opens a stream that is read.
    ///
    /// # Errors
    /// [`ChunkError::RateLimited`].
    pub(crate) fn read(&self, tenant: Option<&TenantId>, pace: Pace) -> Result<Pacer, ChunkError> {
        open(&self.reads, tenant, pace).map_err(|not_yet| limited("reads", not_yet))
    }

    /// Opens a stream that is written.
    ///
    /// # Errors
    /// [`ChunkError::RateLimited`].
    pub(crate) fn write(&self, tenant: &TenantId, pace: Pace) -> Result<Pacer, ChunkError> {
        open(&self.writes, Some(tenant), pace).map_err(|not_yet| limited("writes", not_yet))
    }
}

fn open(buckets: &Arc<Buckets<TenantId>>, tenant: Option<&TenantId>, pace: Pace) -> Result<Pacer, NotYet> {
    let (Some(tenant), Some(rate)) = (tenant, pace.bytes_per_second) else { return Ok(Pacer(None)) };
    buckets.check_backlog(tenant)?;
    Ok(Pacer(Some(Bounded { buckets: Arc::clone(buckets), tenant: tenant.clone(), rate })))
}

fn limited(of_what: &'static str, NotYet(retry_after): NotYet) -> ChunkError {
    ChunkError::RateLimited { of_what, retry_after }
}

impl Pacer {
    /// For a stream without a bound.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn none() -> Self {
        Self(None)
    }

    /// Counts bytes that have moved. Returns until when to wait before more do, if at all.
    pub(crate) fn moved(&self, bytes: u64) -> Option<Instant> {
        self.0.as_ref().and_then(|Bounded { buckets, tenant, rate }| buckets.draw(tenant, *rate, bytes))
    }
}

//! Expires uploads whose lease ran out, and forgets requests whose time is over.
//!
//! A pass looks at one page of each layer behind where the last one ended, so that a sweep is a row of bounded passes; the
//! place is only a hint, and is lost at a restart. What is due is decided again in a commit of its own: an upload that was
//! committed or renewed in between stays. A crash leaves uploads that the next sweep expires.
//!
//! Invariants: I7 (reservations and blocks of abandoned uploads are released), I11 (by commits that change both).

use std::sync::{Mutex, PoisonError};

use proto::runtime::worker::{Pass, Worker};

use crate::coordinator::blobs::{Page, page};
use crate::error::MetadataError;
use crate::service::Service;
use crate::store::engine::{KeyRange, Row};
use crate::store::keys;
use crate::store::records::{RequestRecord, UploadRecord, UploadState};
use crate::store::rows::record_of;

/// Rows of each layer that a pass looks at.
const ROWS_PER_PASS: usize = 256;

/// See the module.
#[derive(Debug)]
pub struct UploadSweeper {
    service: Service,
    place: Mutex<Place>,
}

/// Where the last pass ended; `None` at the beginning of a layer.
#[derive(Debug, Clone, Default)]
struct Place {
    uploads: Option<Vec<u8>>,
    requests: Option<Vec<u8>>,
}

impl UploadSweeper {
    /// Sweeps this service's rows.
    pub fn new(service: Service) -> Self {
        Self { service, place: Mutex::default() }
    }

    fn place(&self) -> Place {
        self.place.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn page(&self, prefix: &[u8], after: Option<&[u8]>) -> Result<Page<Row>, MetadataError> {
        page(self.service.engine(), KeyRange::prefix(prefix), after, ROWS_PER_PASS).await
    }

    async fn expire(&self, rows: &[Row], pass: &mut Pass) -> Result<(), MetadataError> {
        let now_ms = self.service.now_ms();
        for row in rows {
            let upload: UploadRecord = record_of(row)?;
            pass.examined += 1;
            if upload.state != UploadState::Pending || !upload.lease_is_over(now_ms) {
                continue;
            }
            let (tenant, blob) = keys::upload_of(&row.0).ok_or_else(|| MetadataError::missing("upload's id"))?;
            let expired = self.service.expire_upload(tenant.clone(), blob).await?;
            tracing::info!(%tenant, %blob, expired, "the lease of an upload ran out");
            pass.changed += u64::from(expired);
            pass.skipped += u64::from(!expired);
        }
        Ok(())
    }

    async fn forget(&self, rows: &[Row], pass: &mut Pass) -> Result<(), MetadataError> {
        let now_ms = self.service.now_ms();
        let mut due = Vec::new();
        for row in rows {
            let request: RequestRecord = record_of(row)?;
            pass.examined += 1;
            if request.expire_ms <= now_ms {
                due.push(row.0.to_vec());
            }
        }
        pass.changed += self.service.forget_requests(due).await?;
        Ok(())
    }
}

impl Worker for UploadSweeper {
    type Error = MetadataError;

    fn name(&self) -> &'static str {
        "upload sweeper"
    }

    async fn run_once(&self) -> Result<Pass, MetadataError> {
        let place = self.place();
        let uploads = self.page(keys::UPLOADS, place.uploads.as_deref()).await?;
        let requests = self.page(keys::REQUESTS, place.requests.as_deref()).await?;
        let mut pass = Pass { more: uploads.next.is_some() || requests.next.is_some(), ..Pass::default() };
        self.expire(&uploads.entries, &mut pass).await?;
        self.forget(&requests.entries, &mut pass).await?;
        let next = Place { uploads: uploads.next, requests: requests.next };
        *self.place.lock().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(pass)
    }
}

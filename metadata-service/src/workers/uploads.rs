//! Expires uploads whose lease ran out, and forgets requests and tokens whose time is over.
//!
//! A sweep goes through these layers once, in bounded passes of one page of each; how far it got is only a hint, and is lost
//! at a restart. What is due is decided again in a commit of its own: an upload that was committed or renewed in between
//! stays. A crash leaves uploads that the next sweep expires.
//!
//! Leases are told by the wall clock, which may jump. A pass that the timer starts expires nothing after a jump, for as
//! long as a lease: writers that are alive renew theirs by the new time meanwhile. A pass that somebody asks for does.
//!
//! Nothing expires while [`Service::collection_hold`] gives a reason, whoever asks: after an import an open upload may be a
//! blob that was committed behind the export, and its writer cannot renew the lease while nobody serves (I16).
//!
//! Invariants: I7 (reservations and blocks of abandoned uploads are released), I11 (by commits that change both).

use std::sync::{Mutex, MutexGuard, PoisonError};

use proto::runtime::worker::{Pass, Worker};

use crate::coordinator::tokens;
use crate::error::MetadataError;
use crate::service::Service;
use crate::store::engine::{KeyRange, Row};
use crate::store::keys;
use crate::store::records::{RequestRecord, TokenRecord, UploadRecord, UploadState};
use crate::store::rows::record_of;
use crate::workers::place::Place;

/// Rows of each layer that a pass looks at.
const ROWS_PER_PASS: usize = 256;

/// See the module.
#[derive(Debug)]
pub struct UploadSweeper {
    service: Service,
    sweep: Mutex<Sweep>,
}

/// How far the sweep has got.
#[derive(Debug, Clone, Default)]
struct Sweep {
    uploads: Place,
    requests: Place,
    tokens: Place,
}

impl UploadSweeper {
    /// Sweeps this service's rows.
    pub fn new(service: Service) -> Self {
        Self { service, sweep: Mutex::default() }
    }

    fn sweep(&self) -> MutexGuard<'_, Sweep> {
        self.sweep.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn pass(&self) -> Result<Pass, MetadataError> {
        let mut sweep = self.sweep().clone();
        let mut pass = Pass::default();
        let engine = self.service.engine();
        let uploads = sweep.uploads.next(engine, KeyRange::prefix(keys::UPLOADS), ROWS_PER_PASS).await?;
        self.expire(&uploads, &mut pass).await?;
        let requests = sweep.requests.next(engine, KeyRange::prefix(keys::REQUESTS), ROWS_PER_PASS).await?;
        self.forget(&requests, &mut pass).await?;
        let tokens = sweep.tokens.next(engine, KeyRange::prefix(keys::TOKENS), ROWS_PER_PASS).await?;
        self.forget_tokens(&tokens, &mut pass).await?;
        // A layer that is through waits for the others, else long ones would take turns for ever.
        pass.more = [&sweep.uploads, &sweep.requests, &sweep.tokens].iter().any(|place| **place != Place::End);
        *self.sweep() = if pass.more { sweep } else { Sweep::default() };
        Ok(pass)
    }

    async fn expire(&self, rows: &[Row], pass: &mut Pass) -> Result<(), MetadataError> {
        let now_ms = self.service.now_ms();
        pass.held_back = self.service.collection_hold().is_some();
        for row in rows {
            let upload: UploadRecord = record_of(row)?;
            pass.examined += 1;
            if upload.state != UploadState::Pending || !upload.lease_is_over(now_ms) {
                continue;
            }
            if pass.held_back {
                pass.skipped += 1;
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

    async fn forget_tokens(&self, rows: &[Row], pass: &mut Pass) -> Result<(), MetadataError> {
        let now_ms = self.service.now_ms();
        let mut due = Vec::new();
        for row in rows {
            let token: TokenRecord = record_of(row)?;
            pass.examined += 1;
            if tokens::is_forgettable(&token, now_ms) {
                due.push(keys::token_of(&row.0).ok_or_else(|| MetadataError::missing("token's id"))?);
            }
        }
        pass.changed += self.service.forget_tokens(&due).await?;
        Ok(())
    }
}

impl Worker for UploadSweeper {
    type Error = MetadataError;

    fn name(&self) -> &'static str {
        "upload sweeper"
    }

    fn holds_back(&self) -> Option<String> {
        self.service.collection_hold()
    }

    async fn run_once(&self) -> Result<Pass, MetadataError> {
        self.service.watch(self.pass().await)
    }

    async fn run_scheduled(&self) -> Result<Pass, MetadataError> {
        if self.service.clock_is_steady(self.service.tuning().upload_lease) {
            self.run_once().await
        } else {
            Ok(Pass::held_back())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use proto::checksum::Sha256;
    use proto::ids::TenantId;
    use proto::rates::Rates;
    use proto::runtime::ManualClock;

    use super::*;
    use crate::coordinator::request::RequestId;
    use crate::coordinator::start::StartUpload;
    use crate::coordinator::tenants::RegisterTenant;
    use crate::service::testing;
    use crate::store::keys::RequestScope;
    use crate::store::memory::MemoryEngine;
    use crate::store::records::{Description, Quota, RestoreEnd, RestoreRecord, TrafficClass, UsageRecord};

    fn service(clock: &Arc<ManualClock>) -> Service {
        testing::service(Arc::new(MemoryEngine::new()), Arc::clone(clock))
    }

    /// Opens uploads of empty blobs, the first ones under a request id.
    async fn open(service: &Service, uploads: usize, with_request: usize) {
        let request = |id: String| RequestId { scope: RequestScope::Admin, id };
        let tenant: TenantId = "posts".parse().unwrap();
        let (quota, traffic_class) = (Quota::default(), TrafficClass::Silver);
        let register = RegisterTenant {
            tenant: tenant.clone(),
            request: request(String::new()),
            quota,
            traffic_class,
            rates: Rates::default(),
        };
        service.register_tenant(register).await.unwrap();
        for n in 0..uploads {
            open_one(service, request(if n < with_request { n.to_string() } else { String::new() })).await;
        }
    }

    async fn open_one(service: &Service, request: RequestId) {
        let (tenant, description) = ("posts".parse().unwrap(), Description::default());
        let start = StartUpload { tenant, request, description, declared_bytes: Some(0) };
        service.start_upload(start, None).await.unwrap();
    }

    async fn sweep(sweeper: &UploadSweeper) -> (u64, u64) {
        let (mut passes, mut changed) = (0, 0);
        loop {
            let pass = sweeper.run_once().await.unwrap();
            assert!(pass.examined <= 3 * ROWS_PER_PASS as u64, "a pass is bounded");
            (passes, changed) = (passes + 1, changed + pass.changed);
            if !pass.more {
                return (passes, changed);
            }
            assert!(passes < 100, "a sweep ends");
        }
    }

    #[tokio::test]
    async fn a_sweep_goes_once_through_layers_of_different_length_and_ends() {
        let clock = Arc::new(ManualClock::at(1_700_000_000_000));
        let service = service(&clock);
        open(&service, 3 * ROWS_PER_PASS - 1, ROWS_PER_PASS + 1).await;
        let sweeper = UploadSweeper::new(service.clone());
        assert_eq!(sweep(&sweeper).await, (3, 0), "nothing is due");
        clock.advance(Duration::from_secs(3600));
        assert_eq!(sweep(&sweeper).await, (3, 3 * ROWS_PER_PASS as u64 - 1), "every lease has run out");
        let tenant = service.get_tenant(&"posts".parse().unwrap()).await.unwrap();
        assert_eq!(tenant.usage, UsageRecord::default());
        clock.advance(Duration::from_secs(23 * 3600));
        assert_eq!(sweep(&sweeper).await, (3, ROWS_PER_PASS as u64 + 1), "every request's day is over");
        assert_eq!(sweep(&sweeper).await, (3, 0));
    }

    /// The machine's clock was set two hours ahead. The next sweep found that the lease of every open upload had run out,
    /// and ended uploads whose writers were busy.
    #[tokio::test(start_paused = true)]
    async fn i7_after_a_jump_of_the_clock_nothing_expires_by_itself_for_as_long_as_a_lease() {
        let clock = Arc::new(ManualClock::at(1_700_000_000_000));
        let service = service(&clock);
        open(&service, 2, 0).await;
        let sweeper = UploadSweeper::new(service.clone());
        let pass_time = async |time: Duration| {
            tokio::time::advance(time).await;
            clock.advance(time);
            sweeper.run_scheduled().await.unwrap().changed
        };
        assert_eq!(pass_time(Duration::from_secs(600)).await, 0);
        clock.advance(Duration::from_secs(2 * 3600));
        assert_eq!(pass_time(Duration::from_secs(600)).await, 0, "every lease seems to be over");
        assert_eq!(pass_time(Duration::from_secs(3599)).await, 0);
        assert_eq!(pass_time(Duration::from_secs(1)).await, 2);
        open_one(&service, RequestId { scope: RequestScope::Admin, id: String::new() }).await;
        clock.advance(Duration::from_secs(2 * 3600));
        assert_eq!(sweeper.run_once().await.unwrap().changed, 1, "whoever asks for a pass means it");
    }

    /// A blob was committed after the export from which the metadata were restored. For them it was an open upload, whose
    /// lease ran out before anybody had looked.
    #[tokio::test]
    async fn i16_while_an_import_is_undecided_nothing_expires() {
        let clock = Arc::new(ManualClock::at(1_700_000_000_000));
        let restore = RestoreRecord { import_ms: 1, epoch: 1, sequence: 1, end: RestoreEnd::Undecided };
        let engine = Arc::new(MemoryEngine::new());
        let nodes = Arc::clone(service(&clock).chunk_nodes());
        let restored = testing::restored_over(
            Arc::<MemoryEngine>::clone(&engine),
            Arc::clone(&clock),
            Arc::clone(&nodes),
            &[restore],
        );
        open(&restored, 2, 1).await;
        let sweeper = UploadSweeper::new(restored);
        clock.advance(Duration::from_secs(48 * 3600));
        assert_eq!(sweep(&sweeper).await, (1, 1), "only the request is forgotten");
        assert!(sweeper.holds_back().is_some());
        let decided = RestoreRecord { end: RestoreEnd::Keep, ..restore };
        let sweeper = UploadSweeper::new(testing::restored_over(engine, clock, nodes, &[decided]));
        assert_eq!((sweep(&sweeper).await, sweeper.holds_back()), ((1, 2), None));
    }

    #[tokio::test]
    async fn a_record_that_cannot_be_read_stops_the_pass_and_all_writes() {
        let service = service(&Arc::new(ManualClock::at(1)));
        testing::damage(&service, [keys::UPLOADS, Sha256::of(b"").as_bytes()].concat()).await;
        let sweeper = UploadSweeper::new(service.clone());
        assert!(matches!(sweeper.run_once().await, Err(MetadataError::Corrupt(_))));
        assert!(service.read_only_reason().is_some());
    }
}

mod io_errors;

use std::future::Future as _;
use std::pin::pin;
use std::task::{Context as TaskContext, Waker};
use std::time::Duration;

use proto::error::{Classify as _, Reason};
use proto::ids::TenantId;
use proto::runtime::ManualClock;

use super::testing::damage;
use super::*;
use crate::coordinator::request::RequestId;
use crate::coordinator::tenants::RegisterTenant;
use crate::store::faulty::LogFaults;
use crate::store::keys::{self, RequestScope};
use crate::store::memory::MemoryEngine;
use crate::store::records::{Quota, TrafficClass};
use crate::store::sled::{SledEngine, SledOptions};

const DEADLINE: Duration = Duration::from_secs(60);

fn service(engine: Arc<dyn Engine>) -> Service {
    testing::service(engine, Arc::new(ManualClock::at(1_700_000_000_000)))
}

fn register(tenant: &str) -> RegisterTenant {
    RegisterTenant {
        tenant: tenant.parse().unwrap(),
        request: RequestId { scope: RequestScope::Admin, id: String::new() },
        quota: Quota::default(),
        traffic_class: TrafficClass::Silver,
        rates: proto::rates::Rates::default(),
    }
}

fn posts() -> TenantId {
    "posts".parse().unwrap()
}

async fn stopped(service: &Service) -> String {
    tokio::time::timeout(DEADLINE, service.stopped()).await.expect("the service must say that it stopped")
}

#[tokio::test]
async fn i19_after_a_failed_sync_no_write_is_taken_and_reads_go_on() {
    let (folder, log) = (tempfile::tempdir().unwrap(), LogFaults::default());
    let engine = SledEngine::open_with(folder.path(), &SledOptions::default(), log.seams()).unwrap();
    let service = service(Arc::new(engine));
    service.register_tenant(register("posts")).await.unwrap();
    assert_eq!(service.read_only_reason(), None);
    log.fail();
    let unknown = service.register_tenant(register("images")).await.unwrap_err();
    assert!(matches!(unknown.reason(), Reason::Internal | Reason::ReadOnly), "{unknown}");
    assert!(!stopped(&service).await.is_empty());
    let refused = service.register_tenant(register("others")).await.unwrap_err();
    assert_eq!(refused.reason(), Reason::ReadOnly);
    assert!(service.read_only_reason().is_some());
    assert_eq!(service.get_tenant(&posts()).await.unwrap().tenant, posts());
}

#[tokio::test]
async fn i19_a_damaged_record_is_refused_and_ends_all_writes_but_no_other_read() {
    let service = service(Arc::new(MemoryEngine::new()));
    service.register_tenant(register("posts")).await.unwrap();
    service.register_tenant(register("images")).await.unwrap();
    damage(&service, keys::tenant(&posts())).await;
    service.register_tenant(register("before")).await.unwrap();
    assert_eq!(service.get_tenant(&posts()).await.unwrap_err().reason(), Reason::RecordCorrupt);
    let reason = stopped(&service).await;
    assert!(reason.contains("tenant record does not match its checksum"), "{reason}");
    assert_eq!(service.register_tenant(register("after")).await.unwrap_err().reason(), Reason::ReadOnly);
    let images = "images".parse().unwrap();
    assert!(service.get_tenant(&images).await.is_ok());
}

#[tokio::test]
async fn what_was_asked_for_happens_also_when_its_caller_goes_away() {
    let service = service(Arc::new(MemoryEngine::new()));
    {
        let mut call = pin!(service.register_tenant(register("posts")));
        let mut waker = TaskContext::from_waker(Waker::noop());
        assert!(call.as_mut().poll(&mut waker).is_pending(), "it is on its way");
    }
    assert!(service.shared.tasks.shutdown(DEADLINE).await, "its task ends by itself");
    assert_eq!(service.get_tenant(&posts()).await.unwrap().tenant, posts());
}

//! Turns as tasks and threads see them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::FutureExt as _;
use proto::runtime::TaskGroup;

use super::*;

fn account(class: TrafficClass) -> Account {
    Account { class, tenant: Some("posts".parse().unwrap()) }
}

fn of(scheduler: &Scheduler, class: TrafficClass) -> ClassLoad {
    scheduler.loads()[class.index()]
}

async fn within_a_minute<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), what).await.expect("it happens within a minute")
}

#[tokio::test]
async fn a_waiter_that_goes_away_gives_its_place_back() {
    let (scheduler, bronze) = (Scheduler::new(Rules::new(1, true)), account(TrafficClass::Bronze));
    let held = scheduler.turn(&bronze, false).await.unwrap();
    let mut gone = Box::pin(scheduler.turn(&bronze, false));
    assert!((&mut gone).now_or_never().is_none());
    let mut other = Box::pin(scheduler.turn(&bronze, false));
    assert!((&mut other).now_or_never().is_none());
    assert_eq!(of(&scheduler, TrafficClass::Bronze).waiting, 2);
    drop(gone);
    assert_eq!(of(&scheduler, TrafficClass::Bronze).waiting, 1);
    drop(held);
    let mut handed = Box::pin(scheduler.turn(&bronze, false));
    assert!((&mut handed).now_or_never().is_none(), "the other one has it");
    // Its turn has come, and it goes away before it has looked.
    drop(other);
    drop(within_a_minute(handed).await.unwrap());
    assert!(scheduler.quiet_within(Duration::from_secs(60)).await);
}

#[tokio::test]
async fn a_close_wakes_all_who_wait_and_refuses_later_ones() {
    let (scheduler, silver) = (Scheduler::new(Rules::new(1, true)), account(TrafficClass::Silver));
    let held = scheduler.turn(&silver, false).await.unwrap();
    let waiting = (0..50).map(|number| scheduler.turn(&silver, number % 7 == 0));
    let closing = async { scheduler.close() };
    let (ended, ()) = tokio::join!(futures_util::future::join_all(waiting), closing);
    assert!(ended.iter().all(Result::is_err));
    assert!(scheduler.turn(&silver, false).await.is_err());
    assert!(!scheduler.quiet_within(Duration::from_millis(1)).await, "the job that runs is left to end");
    drop(held);
    assert!(scheduler.quiet_within(Duration::from_secs(60)).await);
}

#[tokio::test]
async fn what_was_done_is_counted_by_class() {
    let scheduler = Scheduler::new(Rules::new(4, true));
    for (class, bytes) in [(TrafficClass::Gold, 5), (TrafficClass::Bronze, 7), (TrafficClass::Bronze, 8)] {
        let mut turn = scheduler.turn(&account(class), false).await.unwrap();
        turn.begin(bytes);
    }
    drop(scheduler.turn(&account(TrafficClass::Gold), false).await.unwrap());
    let counted = |class| (of(&scheduler, class).jobs, of(&scheduler, class).moved_bytes);
    assert_eq!(TrafficClass::ALL.map(counted), [(1, 5), (0, 0), (2, 15)], "a turn that was not used is no job");
    assert_eq!(of(&scheduler, TrafficClass::Bronze).recent_jobs, 2);
}

/// Two long jobs with one place take turns, and each of them goes on where it was.
#[tokio::test]
async fn a_long_job_lets_others_in_between_its_steps() {
    let scheduler = Scheduler::new(Rules::new(1, true));
    let (stop, tasks) = (Arc::new(AtomicBool::new(false)), TaskGroup::new());
    let mut turn = scheduler.turn(&account(TrafficClass::Bronze), false).await.unwrap();
    let long = tokio::task::spawn_blocking({
        let stop = Arc::clone(&stop);
        move || {
            turn.begin(1);
            while !stop.load(Ordering::SeqCst) {
                turn.breathe().unwrap();
                turn.moved(1);
                std::thread::yield_now();
            }
        }
    });
    let others = scheduler.clone();
    let short = tasks.spawn("short jobs", async move {
        for class in [TrafficClass::Gold, TrafficClass::Silver, TrafficClass::Bronze] {
            others.turn(&account(class), false).await.unwrap().begin(0);
        }
    });
    within_a_minute(short).await.unwrap().unwrap();
    stop.store(true, Ordering::SeqCst);
    within_a_minute(long).await.unwrap();
    assert!(of(&scheduler, TrafficClass::Bronze).jobs >= 3, "each breath ends a job");
    assert!(scheduler.quiet_within(Duration::from_secs(60)).await);
}

#[tokio::test]
async fn a_long_job_ends_when_the_scheduler_is_closed() {
    let scheduler = Scheduler::new(Rules::new(1, true));
    let mut turn = scheduler.turn(&account(TrafficClass::Bronze), false).await.unwrap();
    let long = tokio::task::spawn_blocking(move || {
        turn.begin(0);
        while turn.breathe().is_ok() {
            std::thread::yield_now();
        }
    });
    scheduler.close();
    within_a_minute(long).await.unwrap();
    assert!(scheduler.quiet_within(Duration::from_secs(60)).await);
}

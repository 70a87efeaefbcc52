use super::*;
use crate::entropy::SeededEntropy;

struct Counter(std::sync::atomic::AtomicU64);

impl Worker for Counter {
    type Error = std::io::Error;
    fn name(&self) -> &'static str {
        "counter"
    }
    async fn run_once(&self) -> Result<Pass, Self::Error> {
        let before = self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        if before == 1 { Err(std::io::Error::other("as planned")) } else { Ok(Pass { changed: 1, ..Pass::default() }) }
    }
}

#[tokio::test]
async fn a_worker_runs_when_asked_and_a_failed_pass_does_not_end_it() {
    let group = TaskGroup::new();
    let entropy = Arc::new(SeededEntropy::new(1));
    let handle = start(&group, Counter(0.into()), Schedule { interval: None }, entropy);
    assert_eq!(handle.run_now().await, Ok(Pass { changed: 1, ..Pass::default() }));
    assert_eq!(handle.run_now().await, Err("as planned".to_owned()));
    assert_eq!(handle.status().last_error.as_deref(), Some("as planned"));
    assert!(handle.run_now().await.is_ok());
    assert_eq!((handle.status().passes, handle.status().last_error), (3, None));
    assert!(group.shutdown(Duration::from_secs(10)).await);
    assert!(handle.run_now().await.is_err());
}

struct Cautious;

impl Worker for Cautious {
    type Error = std::io::Error;
    fn name(&self) -> &'static str {
        "cautious"
    }
    async fn run_once(&self) -> Result<Pass, Self::Error> {
        Ok(Pass { changed: 1, ..Pass::default() })
    }
    async fn run_scheduled(&self) -> Result<Pass, Self::Error> {
        Ok(Pass { skipped: 1, ..Pass::held_back() })
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_can_hold_back_what_its_timer_starts_and_not_what_is_asked_for() {
    let group = TaskGroup::new();
    let schedule = Schedule { interval: Some(Duration::from_secs(60)) };
    let handle = start(&group, Cautious, schedule, Arc::new(SeededEntropy::new(1)));
    let mut status = handle.status.clone();
    let held_back = |status: &WorkerStatus| status.last_pass.is_some_and(|pass| pass.skipped == 1);
    let last_sweep = status.wait_for(held_back).await.unwrap().last_sweep;
    assert_eq!(last_sweep, None, "what was held back went through nothing");
    assert_eq!(handle.run_now().await, Ok(Pass { changed: 1, ..Pass::default() }));
    assert!(handle.status().last_sweep.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_worker_runs_by_itself_at_its_interval() {
    let group = TaskGroup::new();
    let entropy = Arc::new(SeededEntropy::new(1));
    let schedule = Schedule { interval: Some(Duration::from_secs(60)) };
    let handle = start(&group, Counter(0.into()), schedule, entropy);
    let mut status = handle.status.clone();
    status.wait_for(|status| status.passes == 3).await.unwrap();
}

struct Paced(Pace);

impl Worker for Paced {
    type Error = std::io::Error;
    fn name(&self) -> &'static str {
        "paced"
    }
    async fn run_once(&self) -> Result<Pass, Self::Error> {
        self.0.draw(10).await;
        Ok(Pass { examined: 10, more: true, ..Pass::default() })
    }
    fn pace(&self) -> Option<&Pace> {
        Some(&self.0)
    }
    fn holds_back(&self) -> Option<String> {
        Some("it has a reason".to_owned())
    }
}

fn paced(group: &TaskGroup) -> WorkerHandle {
    let schedule = Schedule { interval: Some(Duration::from_secs(60)) };
    start(group, Paced(Pace::new("rows")), schedule, Arc::new(SeededEntropy::new(1)))
}

#[tokio::test(start_paused = true)]
async fn a_paused_worker_runs_when_asked_and_not_by_itself_until_it_is_let_go_on() {
    let handle = paced(&TaskGroup::new());
    handle.configure(Settings { paused: true, pace_per_second: 0 });
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(handle.status().passes, 0);
    assert!(handle.run_now().await.is_ok());
    assert_eq!((handle.status().passes, handle.status().holds_back.as_deref()), (1, Some("it has a reason")));
    handle.configure(Settings { paused: false, pace_per_second: 10 });
    let mut status = handle.status.clone();
    status.wait_for(|status| status.passes > 10).await.unwrap();
    handle.configure(Settings { paused: true, pace_per_second: 10 });
    let (passes, at) = (handle.status().passes, handle.status().last_pass_at);
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(handle.status().passes <= passes + 1, "the pass that was under way ended, and no other began");
    assert!(at <= handle.status().last_pass_at);
}

#[tokio::test(start_paused = true)]
async fn the_pace_bounds_a_worker_and_can_be_changed_in_the_middle_of_a_pass() {
    let handle = paced(&TaskGroup::new());
    handle.configure(Settings { paused: true, pace_per_second: 1 });
    assert_eq!((handle.pace_unit(), handle.settings().pace_per_second), ("rows", 1));
    handle.run_now().await.unwrap();
    let start = Instant::now();
    handle.run_now().await.unwrap();
    assert!(start.elapsed() > Duration::from_secs(9), "ten rows were to be paid for");
    let slow = handle.run_now();
    tokio::pin!(slow);
    assert!(tokio::time::timeout(Duration::from_secs(1), &mut slow).await.is_err());
    handle.configure(Settings { paused: true, pace_per_second: 1_000_000 });
    let start = Instant::now();
    slow.await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_stop_does_not_wait_for_a_pass_that_waits_and_whoever_asked_is_told() {
    let group = TaskGroup::new();
    let handle = paced(&group);
    handle.configure(Settings { paused: true, pace_per_second: 1 });
    handle.run_now().await.unwrap();
    let waiting = tokio::join!(handle.run_now(), group.shutdown(Duration::from_secs(1)));
    assert_eq!(waiting, (Err("the worker has stopped".to_owned()), true));
}

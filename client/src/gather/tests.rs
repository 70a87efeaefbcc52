use std::collections::HashSet;

use tokio::sync::Semaphore;

use super::*;
use crate::error::{Call, Error, Service};

/// What was asked in one call.
type Asked = Vec<u32>;

/// Answers each number with its double; calls wait for permits.
#[derive(Debug, Clone)]
struct Doubling {
    calls: Arc<Mutex<Vec<Asked>>>,
    permits: Arc<Semaphore>,
    refuse_many: Option<fn() -> Status>,
}

impl Doubling {
    fn new(refuse_many: Option<fn() -> Status>) -> Self {
        Self { calls: Arc::default(), permits: Arc::new(Semaphore::new(0)), refuse_many }
    }

    async fn asked(&self, items: Asked) {
        self.calls.lock().unwrap().push(items);
        self.permits.acquire().await.unwrap().forget();
    }

    fn calls(&self) -> Vec<Asked> {
        self.calls.lock().unwrap().clone()
    }
}

fn double(item: u32) -> Result<u32, Status> {
    if item == 13 { Err(Status::failed_precondition("thirteen")) } else { Ok(2 * item) }
}

impl Carrier for Doubling {
    type Item = u32;
    type Answer = u32;
    const BYTES_MAX: u64 = 1_000;

    fn bytes(item: &u32) -> u64 {
        u64::from(*item)
    }

    fn within(&self) -> Duration {
        Duration::from_secs(10)
    }

    async fn one(&self, item: u32) -> Result<u32, Status> {
        self.asked(vec![item]).await;
        double(item)
    }

    async fn many(&self, items: Vec<u32>) -> Result<Outcomes<u32>, Status> {
        self.asked(items.clone()).await;
        match self.refuse_many {
            Some(refusal) => Err(refusal()),
            None => Ok(items.into_iter().map(double).collect()),
        }
    }
}

type Asking = tokio::task::JoinHandle<Result<u32, Status>>;

/// Lets everything that can go on do so.
async fn rest() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

async fn wait_until(holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.unwrap();
}

async fn ask_all(gatherer: &Gatherer<Doubling>, carrier: &Doubling, items: &[u32]) -> Vec<Asking> {
    let mut asking = Vec::new();
    for item in items {
        let (gatherer, carrier, item) = (gatherer.clone(), carrier.clone(), *item);
        asking.push(Handle::current().spawn(async move { gatherer.ask(carrier, item).await }));
        rest().await;
    }
    asking
}

async fn answers(asking: Vec<Asking>) -> Vec<Result<u32, tonic::Code>> {
    let mut answers = Vec::new();
    for asking in asking {
        answers.push(asking.await.unwrap().map_err(|status| status.code()));
    }
    answers
}

#[tokio::test]
async fn whoever_comes_while_others_are_under_way_travels_with_those_who_wait_too() {
    let (gatherer, carrier) = (Gatherer::default(), Doubling::new(None));
    let asking = ask_all(&gatherer, &carrier, &[1, 2, 3, 13, 5]).await;
    assert_eq!(carrier.calls(), [[1], [2]], "the others wait for an answer");
    carrier.permits.add_permits(1);
    rest().await;
    assert_eq!(carrier.calls()[2..], [[3, 13, 5]]);
    carrier.permits.add_permits(2);
    let refused = Err(tonic::Code::FailedPrecondition);
    assert_eq!(answers(asking).await, [Ok(2), Ok(4), Ok(6), refused, Ok(10)], "each has its own outcome");
    let asking = ask_all(&gatherer, &carrier, &[7]).await;
    assert_eq!(carrier.calls()[3..], [[7]], "nothing is under way any more");
    carrier.permits.add_permits(1);
    assert_eq!(answers(asking).await, [Ok(14)]);
}

#[tokio::test]
async fn a_call_holds_no_more_than_it_has_room_for() {
    let (gatherer, carrier) = (Gatherer::default(), Doubling::new(None));
    let large = [600, 300, 200, 2_000, 100];
    let small: Vec<_> = std::iter::repeat_n(0, BATCH_ITEMS_MAX + 1).collect();
    let asking = ask_all(&gatherer, &carrier, &[&[1, 2], &large[..], &small].concat()).await;
    carrier.permits.add_permits(1_000);
    answers(asking).await;
    let sizes: Vec<_> = carrier.calls().iter().map(Vec::len).collect();
    assert_eq!(carrier.calls()[2..5], [vec![600, 300], vec![200], vec![2_000]]);
    assert_eq!(sizes[5..], [BATCH_ITEMS_MAX, 2], "100 and all but two of the rest, then these");
}

#[tokio::test]
async fn what_a_group_is_refused_each_is_asked_for_alone() {
    let (gatherer, carrier) = (Gatherer::default(), Doubling::new(Some(|| Status::out_of_range("too much at once"))));
    let asking = ask_all(&gatherer, &carrier, &[1, 2, 3, 13, 5]).await;
    carrier.permits.add_permits(1_000);
    let refused = Err(tonic::Code::FailedPrecondition);
    assert_eq!(answers(asking).await, [Ok(2), Ok(4), Ok(6), refused, Ok(10)]);
    let calls: HashSet<_> = carrier.calls().into_iter().collect();
    assert_eq!(calls, [vec![1], vec![2], vec![3, 13, 5], vec![3], vec![13], vec![5]].into());
}

#[tokio::test]
async fn a_connection_that_breaks_has_broken_for_each_with_its_cause() {
    let broken = || Status::from_error(Box::new(std::io::Error::other("the cable is cut")));
    let (gatherer, carrier) = (Gatherer::default(), Doubling::new(Some(broken)));
    let asking = ask_all(&gatherer, &carrier, &[1, 2, 3, 4]).await;
    carrier.permits.add_permits(1_000);
    let call = Call { operation: "double".into(), service: Service::Chunk, endpoint: "http://a:1".into() };
    for (index, asking) in asking.into_iter().enumerate() {
        match asking.await.unwrap() {
            Ok(_double) => assert!(index < 2),
            Err(status) => {
                let error = Error::from_call(&call, status);
                assert!(matches!(error, Error::Broken { .. }) && error.outcome_unknown(), "{error:?}");
                let causes = std::iter::successors(std::error::Error::source(&error), |error| error.source());
                assert!(causes.map(ToString::to_string).any(|cause| cause.contains("the cable is cut")));
            }
        }
    }
    assert_eq!(carrier.calls().len(), 3, "nobody asks again by itself");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_does_not_come_keeps_nobody_for_ever_and_leaves_room_for_others() {
    let (gatherer, carrier) = (Gatherer::default(), Doubling::new(None));
    let asking = ask_all(&gatherer, &carrier, &[1, 2, 3, 4]).await;
    assert_eq!(answers(asking).await, [Err(tonic::Code::DeadlineExceeded); 4]);
    carrier.permits.add_permits(1_000);
    assert_eq!(answers(ask_all(&gatherer, &carrier, &[5, 6, 7]).await).await, [Ok(10), Ok(12), Ok(14)]);
}

#[tokio::test]
async fn whoever_has_gone_is_left_out_and_harms_nobody() {
    let (gatherer, carrier) = (Gatherer::default(), Doubling::new(None));
    let asking = ask_all(&gatherer, &carrier, &[1, 2, 3, 4]).await;
    for gone in [0, 2] {
        asking[gone].abort();
    }
    rest().await;
    carrier.permits.add_permits(1_000);
    let mut answered = Vec::new();
    for asking in asking {
        answered.push(asking.await.ok().map(Result::unwrap));
    }
    assert_eq!(answered, [None, Some(4), None, Some(8)]);
    assert_eq!(carrier.calls(), [[1], [2], [4]]);
}

#[tokio::test]
async fn the_end_of_a_runtime_that_carried_a_call_leaves_its_place_to_others() {
    let (gatherer, carrier) = (Gatherer::default(), Doubling::new(None));
    let other = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    for under_way in 1..=UNDER_WAY {
        let (gatherer, asking) = (gatherer.clone(), carrier.clone());
        drop(other.spawn(async move { gatherer.ask(asking, 1).await }));
        wait_until(|| carrier.calls().len() == under_way).await;
    }
    other.shutdown_background();
    wait_until(|| gatherer.lock().under_way == 0).await;
    carrier.permits.add_permits(1);
    assert_eq!(answers(ask_all(&gatherer, &carrier, &[8]).await).await, [Ok(16)]);
}

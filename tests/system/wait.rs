//! Waiting on conditions, never on time.

use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

/// Waits until `look` returns `Ok`, and returns what it found. After `deadline` the test fails and shows what was seen
/// last.
pub(crate) async fn wait_until<T, S: Debug, F>(what: &str, deadline: Duration, mut look: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, S>>,
{
    let mut last = None;
    let waiting = async {
        loop {
            match look().await {
                Ok(found) => return found,
                Err(seen) => last = Some(seen),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    match tokio::time::timeout(deadline, waiting).await {
        Ok(found) => found,
        Err(_late) => panic!("{what}: not within {deadline:?}; seen last: {last:?}"),
    }
}

//! The answers of one ListChunks call.
//!
//! While one page is sent the next is read. A listing that cannot be finished, or is not taken for too long, ends with
//! the reason: there is always a place left for it. Only a listing that went over every name says that it is complete.

use std::sync::Arc;

use proto::pb::ListChunksResponse;
use proto::status::to_status;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::convert;
use crate::error::ChunkError;
use crate::node::Node;
use crate::store::listing::Listing;

/// One message of the stream.
type Answer = Result<ListChunksResponse, Status>;
/// The stream of answers.
pub(crate) type ListStream = ReceiverStream<Answer>;

/// A page, and the reason for the end.
const PLACES: usize = 2;

/// Sends what a listing still has.
pub(crate) fn start(node: &Arc<Node>, listing: Listing, place: OwnedSemaphorePermit) -> ListStream {
    let (answers, stream) = mpsc::channel(PLACES);
    let pump = Arc::clone(node);
    node.tasks.spawn("list", async move {
        if let Err(error) = run(&pump, listing, &answers).await
            && answers.try_send(Err(to_status(&error))).is_err()
        {
            tracing::debug!("whoever asked for a listing has gone away");
        }
        drop(place);
    });
    ReceiverStream::new(stream)
}

async fn run(node: &Node, mut listing: Listing, answers: &mpsc::Sender<Answer>) -> Result<(), ChunkError> {
    let life_ends = Instant::now() + node.tuning.stream_life;
    loop {
        let stalls_at = Instant::now() + node.tuning.stream_stall;
        let stop = node.tasks.stop_signal();
        // Both places are waited for, and one is used: the other stays for the reason of the end.
        let mut places = tokio::select! {
            biased;
            () = stop.cancelled() => return Err(ChunkError::Draining),
            () = sleep_until(life_ends) => return Err(ChunkError::Stalled("it has lived for too long")),
            places = answers.reserve_many(PLACES) => match places {
                Ok(places) => places,
                Err(_gone_away) => return Ok(()),
            },
            () = sleep_until(stalls_at) => return Err(ChunkError::Stalled("it was not read for too long")),
        };
        let (rest, page) = node.store.next_page(listing).await?;
        listing = rest;
        let complete = page.complete;
        if let Some(place) = places.next() {
            place.send(Ok(convert::listed(page)));
        }
        if complete {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use proto::entropy::SeededEntropy;
    use proto::error::Reason;
    use proto::ids::NodeId;
    use proto::runtime::{ManualClock, TaskGroup};
    use proto::status::from_status;
    use tokio::sync::Semaphore;
    use tokio_stream::StreamExt as _;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::config::Tuning;
    use crate::identity::MemberCell;
    use crate::node::Front;
    use crate::store::testing::world::{World, place};
    use crate::time::NodeTime;

    fn node(world: &World) -> Arc<Node> {
        Arc::new(Node {
            id: NodeId::generate(1, &SeededEntropy::new(1)),
            membership: MemberCell::default(),
            time: Arc::new(NodeTime::new(Arc::new(ManualClock::at(1)))),
            store: Arc::clone(&world.store),
            tuning: Tuning::default(),
            paces: crate::pace::Paces::default(),
            tasks: TaskGroup::new(),
            draining: CancellationToken::new(),
            front: Front::closed(),
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_listing_that_nobody_takes_ends_with_the_reason_and_not_as_if_it_were_complete() {
        let world = World::new();
        for number in 0..1_000 {
            world.disk.make(&format!("{}.blob", place(number).chunk));
        }
        let (node, places) = (node(&world), Arc::new(Semaphore::new(1)));
        let listing = world.store.list(false).await.unwrap();
        let place = Arc::clone(&places).try_acquire_owned().unwrap();
        let mut stream = start(&node, listing, place);
        let _given_up = places.acquire().await.unwrap();
        assert!(!stream.next().await.unwrap().unwrap().complete);
        let cut = from_status(&stream.next().await.unwrap().unwrap_err());
        assert_eq!(cut.reason, Some(Reason::StreamStalled));
        assert!(stream.next().await.is_none());
    }
}

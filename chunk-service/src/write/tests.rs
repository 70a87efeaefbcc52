use std::collections::VecDeque;

use proto::rates::{BYTES_PER_SECOND_MIN, Pace};
use proto::runtime::{SystemClock, TaskGroup};
use proto::traffic::TrafficClass;

use super::*;
use crate::config::Tuning;
use crate::identity::MemberCell;
use crate::node::Front;
use crate::pace::Paces;
use crate::store::testing::world::{World, blob, pattern, place};
use crate::time::NodeTime;

/// Frames that are always there at once, so that nothing ever waits for them.
struct Eager {
    opening: Option<Opening>,
    frames: VecDeque<Frame>,
    /// Comes again and again when the frames are over; without it the stream ends.
    endless: Option<Bytes>,
    sent: u64,
}

impl FrameSource for Eager {
    async fn opening(&mut self) -> Result<Opening, SourceError> {
        self.opening.take().ok_or(SourceError::Broken)
    }

    async fn next(&mut self) -> Result<Option<Frame>, SourceError> {
        if let Some(frame) = self.frames.pop_front() {
            return Ok(Some(frame));
        }
        let Some(bytes) = self.endless.clone() else { return Ok(None) };
        let offset = self.sent;
        self.sent += bytes.len() as u64;
        Ok(Some(Frame { offset, bytes, crc32c: None, finish: None }))
    }
}

fn frame(offset: u64, bytes: &[u8], finish: Option<Finish>) -> Frame {
    Frame { offset, bytes: Bytes::copy_from_slice(bytes), crc32c: Some(crc32c(bytes)), finish }
}

fn opening(frame: Frame) -> Option<Opening> {
    Some(Opening { chunk: place(1).chunk, size_bytes: None, frame })
}

fn node(world: &World, tuning: Tuning) -> Arc<Node> {
    let time = NodeTime::new(Arc::new(SystemClock));
    time.set(1, Instant::now());
    let entropy = proto::entropy::SeededEntropy::new(1);
    Arc::new(Node {
        id: proto::ids::NodeId::generate(1, &entropy),
        membership: MemberCell::default(),
        time: Arc::new(time),
        store: Arc::clone(&world.store),
        tuning,
        paces: Paces::default(),
        tasks: TaskGroup::new(),
        draining: CancellationToken::new(),
        front: Front::closed(),
    })
}

fn grant(holds_for: Duration) -> WriteGrant {
    let (tenant, class) = ("posts".parse().unwrap(), TrafficClass::Silver);
    WriteGrant { place: place(1), tenant, class, pace: Pace::default(), max_bytes: CHUNK_BYTES_MAX, holds_for }
}

const LONG: Duration = Duration::from_secs(600);
const SHORT: Duration = Duration::from_millis(100);

async fn run_on(world: &World, tuning: Tuning, holds_for: Duration, source: Eager) -> Result<ChunkSums, ChunkError> {
    run(node(world, tuning), grant(holds_for), Pacer::none(), source, CancellationToken::new()).await
}

#[tokio::test]
async fn a_stream_that_always_has_a_message_is_cut_by_every_timer() {
    let endless = |bytes: &'static [u8]| Eager {
        opening: opening(frame(0, b"", None)),
        frames: VecDeque::new(),
        endless: Some(Bytes::from_static(bytes)),
        sent: 0,
    };
    let stalls = Tuning { stream_stall: SHORT, ..Tuning::default() };
    let dies = Tuning { stream_life: SHORT, ..Tuning::default() };
    for (what, tuning, holds_for, bytes) in [
        ("no progress", stalls, LONG, b"".as_slice()),
        ("life", dies, LONG, b"x"),
        ("capability", Tuning::default(), SHORT, b"x"),
    ] {
        let world = World::new();
        let cut = run_on(&world, tuning, holds_for, endless(bytes)).await;
        match (what, cut) {
            ("capability", Err(ChunkError::CapabilityExpired)) | (_, Err(ChunkError::Stalled(_))) => {}
            (what, other) => panic!("{what}: {other:?}"),
        }
        assert_eq!(world.store.close().await.unwrap(), 1, "{what}: what came is kept");
        assert!(world.store.is_idle(), "{what}");
    }
}

#[tokio::test]
async fn every_cut_of_a_stream_into_frames_gives_the_same_chunk() {
    // More than one batch.
    let bytes = pattern(700_000, 1);
    for size in [1_000, 65_536, 300_000, 700_000] {
        let world = World::new();
        let parts = bytes.chunks(size).enumerate();
        let mut frames: VecDeque<Frame> = parts.map(|(index, part)| frame((index * size) as u64, part, None)).collect();
        frames.push_back(frame(700_000, b"", Some(Finish { sha256: Some(Sha256::of(&bytes)) })));
        let first = frames.pop_front().unwrap();
        let source = Eager { opening: opening(first), frames, endless: None, sent: 0 };
        let sums = run_on(&world, Tuning::default(), LONG, source).await.unwrap();
        assert_eq!(sums.sha256, Sha256::of(&bytes));
        assert_eq!(world.disk.bytes(&blob(&place(1))), Some(bytes.clone()));
        assert!(world.store.is_idle());
    }
}

/// Time is virtual; what the disk takes, it does not count.
#[tokio::test(start_paused = true)]
async fn a_stream_is_slowed_down_to_its_tenant_s_rate_and_not_cut_for_it() {
    let (world, per_second) = (World::new(), usize::try_from(BYTES_PER_SECOND_MIN).unwrap());
    let bytes = pattern(4 * per_second, 1);
    let parts = bytes.chunks(per_second).enumerate();
    let mut frames: VecDeque<Frame> =
        parts.map(|(index, part)| frame((index * per_second) as u64, part, None)).collect();
    frames.push_back(frame(bytes.len() as u64, b"", Some(Finish { sha256: None })));
    let source = Eager { opening: opening(frames.pop_front().unwrap()), frames, endless: None, sent: 0 };
    let node = node(&world, Tuning { stream_stall: SHORT, ..Tuning::default() });
    let pace = Pace { bytes_per_second: std::num::NonZeroU64::new(BYTES_PER_SECOND_MIN), ..Pace::default() };
    let pacer = |node: &Node| node.paces.write(&"posts".parse().unwrap(), pace);
    let began = Instant::now();
    run(Arc::clone(&node), grant(LONG), pacer(&node).unwrap(), source, CancellationToken::new()).await.unwrap();
    assert_eq!(began.elapsed().as_secs(), 3, "a second's worth came at once");
    let open = pacer(&node).unwrap();
    assert!((0..7).all(|_| open.moved(BYTES_PER_SECOND_MIN).is_some()));
    let refused = pacer(&node).unwrap_err();
    assert!(
        matches!(refused, ChunkError::RateLimited { retry_after, .. } if retry_after.as_secs() == 2),
        "{refused:?}"
    );
    assert!(node.paces.write(&"likes".parse().unwrap(), pace).is_ok(), "another tenant's are not its");
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_what_it_sent() {
    let world = World::new();
    let gone = CancellationToken::new();
    gone.cancel();
    let source = Eager { opening: None, frames: VecDeque::new(), endless: None, sent: 0 };
    let node = node(&world, Tuning::default());
    assert!(run(Arc::clone(&node), grant(LONG), Pacer::none(), source, gone.clone()).await.is_err());
    assert!(world.store.is_idle());
}

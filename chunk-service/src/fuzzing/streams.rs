//! The frame machine over a real folder: any streams of one chunk, one after the other or taking each other over.
//!
//! After every event the store must say what the [model](super::model) says; a chunk that it calls complete must be in
//! the folder byte for byte, with its checksum file. In the end nothing is left: no file, no session, no held memory.
//! Time is virtual, so that waiting costs nothing; the file work is real.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use proto::capability::ChunkBinding;
use proto::checksum::ChunkSums;
use proto::entropy::SeededEntropy;
use proto::fuzzing::Choices;
use proto::ids::{BlobId, BlockId, ChunkId, NodeId};
use proto::limits::CHUNK_BYTES_MAX;
use proto::rates::Pace;
use proto::runtime::{SystemClock, TaskGroup};
use proto::traffic::TrafficClass;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::model::{Held, Model, Outcome, sums_of};
use super::script::{Ending, Event, Script, Scripts};
use crate::blocking::Blocking;
use crate::config::Tuning;
use crate::error::ChunkError;
use crate::identity::MemberCell;
use crate::node::{Front, Node, WriteGrant};
use crate::pace::{Pacer, Paces};
use crate::store::chk::Chk;
use crate::store::disk::FolderDisk;
use crate::store::durable::{blob_name, chk_name};
use crate::store::writing::WriteStatus;
use crate::store::{ChunkStore, Describe, Described, Ground};
use crate::time::NodeTime;
use crate::write::{self, Frame, FrameSource, Opening, SourceError};

const EVENTS_MAX: usize = 16;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().start_paused(true).build().expect("a runtime needs nothing that could be missing")
});

/// The metadata knows of the chunk's plan and of no receipt.
#[derive(Debug)]
struct Planned;

impl Describe for Planned {
    fn describe(&self, _chunk: ChunkId) -> BoxFuture<'_, Result<Described, ChunkError>> {
        std::future::ready(Ok(Described::Open)).boxed()
    }
}

/// Plays a script as a stream.
#[derive(Debug)]
struct Player {
    opening: Option<Opening>,
    frames: VecDeque<Frame>,
    ending: Ending,
    /// Fires when the stream falls silent.
    silent: CancellationToken,
}

impl Player {
    fn new(script: &Script, silent: CancellationToken) -> Self {
        let mut frames: VecDeque<Frame> = script.frames.iter().cloned().collect();
        let chunk = if script.foreign { ChunkId::NIL } else { place().chunk };
        let opening = frames.pop_front().map(|frame| Opening { chunk, size_bytes: script.announced, frame });
        Self { opening, frames, ending: script.ending, silent }
    }

    async fn end<T>(&self, ended: Result<T, SourceError>) -> Result<T, SourceError> {
        match self.ending {
            Ending::End => ended,
            Ending::Broken => Err(SourceError::Broken),
            Ending::Invalid => Err(SourceError::Invalid(ChunkError::field("frame", "is none"))),
            Ending::Silent => {
                self.silent.cancel();
                std::future::pending().await
            }
        }
    }
}

impl FrameSource for Player {
    async fn opening(&mut self) -> Result<Opening, SourceError> {
        match self.opening.take() {
            Some(opening) => Ok(opening),
            None => self.end(Err(SourceError::Broken)).await,
        }
    }

    async fn next(&mut self) -> Result<Option<Frame>, SourceError> {
        // Lets the stream look whether it is to stop, as a real one does now and then.
        tokio::task::yield_now().await;
        match self.frames.pop_front() {
            Some(frame) => Ok(Some(frame)),
            None => self.end(Ok(None)).await,
        }
    }
}

/// The only chunk.
fn place() -> ChunkBinding {
    let entropy = SeededEntropy::new(1);
    ChunkBinding {
        chunk: ChunkId::generate(1, &entropy),
        block: BlockId::generate(1, &entropy),
        blob: BlobId::generate(1, &entropy),
        shard_index: 0,
        shard_count: 1,
        generation: 1,
        epoch: 1,
        sequence: 1,
    }
}

type Ended = Option<Result<ChunkSums, ChunkError>>;

/// A stream that is silent.
struct Waiting {
    stream: JoinHandle<Ended>,
    gone: CancellationToken,
}

impl Waiting {
    async fn end(self) -> Result<ChunkSums, ChunkError> {
        self.stream.await.ok().flatten().expect("a stream does not panic")
    }
}

struct Harness<'a> {
    folder: &'a Path,
    node: Arc<Node>,
    permitted: u64,
    model: Model,
    waiting: Option<Waiting>,
}

fn node(folder: &Path) -> Arc<Node> {
    let tasks = TaskGroup::new();
    let tuning = Tuning { chunk_low_watermark: 0, ..Tuning::default() };
    let disk = Arc::new(FolderDisk::open_folder(folder).expect("the folder was just made"));
    let blocking = Blocking::new(tuning.rules(), tasks.broken_signal());
    let store = Arc::new(ChunkStore::new(Ground::without_journal(disk), Arc::new(Planned), blocking, &tuning, &tasks));
    let time = NodeTime::new(Arc::new(SystemClock));
    time.set(1, Instant::now());
    let id = NodeId::generate(1, &SeededEntropy::new(1));
    let draining = CancellationToken::new();
    Arc::new(Node {
        id,
        membership: MemberCell::default(),
        time: Arc::new(time),
        store,
        tuning,
        paces: Paces::default(),
        tasks,
        draining,
        front: Front::closed(),
    })
}

impl Harness<'_> {
    async fn happen(&mut self, event: Event) {
        match event {
            Event::Stream(script) => self.stream(&script).await,
            Event::Gone => {
                if let Some(waiting) = &self.waiting {
                    waiting.gone.cancel();
                }
                self.silence_ends().await;
            }
            Event::Wait => self.silence_ends().await,
            Event::Delete => {
                self.node.store.delete(place().chunk).await.expect("a delete takes the chunk over");
                self.taken_over().await;
                self.model.delete();
            }
            Event::Reap => {
                let ended = self.node.store.close().await.expect("only files of our own are removed");
                assert_eq!(ended, self.model.reap());
            }
        }
    }

    async fn silence_ends(&mut self) {
        let Some(waiting) = self.waiting.take() else { return };
        let expected = Outcome::Refused(ChunkError::Stalled(""));
        expected.check(&waiting.end().await);
        self.model.silence_ends();
    }

    async fn taken_over(&mut self) {
        let Some(waiting) = self.waiting.take() else { return };
        Outcome::Refused(ChunkError::TakenOver).check(&waiting.end().await);
    }

    async fn stream(&mut self, script: &Script) {
        let takes_over = self.model.takes_over(script);
        let expected = self.model.play(script);
        let (silent, gone) = (CancellationToken::new(), CancellationToken::new());
        let grant = WriteGrant {
            place: place(),
            tenant: "posts".parse().expect("a tenant id"),
            class: TrafficClass::Bronze,
            pace: Pace::default(),
            max_bytes: self.permitted,
            holds_for: std::time::Duration::MAX,
        };
        let run =
            write::run(Arc::clone(&self.node), grant, Pacer::none(), Player::new(script, silent.clone()), gone.clone());
        let mut stream = self.node.tasks.spawn("stream", run);
        let ended = tokio::select! {
            ended = &mut stream => Some(ended.ok().flatten().expect("a stream does not panic")),
            () = silent.cancelled(), if matches!(expected, Outcome::Open) => None,
        };
        if takes_over {
            self.taken_over().await;
        } else if script.frames.is_empty() && script.ending == Ending::Silent {
            // It took the time in which a stream that was silent already is cut, too.
            self.silence_ends().await;
        }
        match ended {
            Some(ended) => expected.check(&ended),
            None => self.waiting = Some(Waiting { stream, gone }),
        }
    }

    /// Compares what the store says, and what is in the folder, with the model.
    async fn check(&self) {
        let received = self.model.received().len() as u64;
        let Some(held) = self.model.held() else { return };
        let status = self.node.store.write_status(place()).await.expect("nothing is wrong with the disk");
        match held {
            Held::Nothing | Held::Parked(_) => assert_eq!(status, WriteStatus::Open(received)),
            Held::Complete(bytes) => {
                assert_eq!(status, WriteStatus::Complete(sums_of(bytes)));
                self.check_files(bytes);
            }
        }
    }

    fn check_files(&self, bytes: &[u8]) {
        let read = |name| std::fs::read(self.folder.join(name)).expect("a complete chunk has both files");
        let chk = Chk::parse(&read(chk_name(place().chunk))).expect("the checksum file of a complete chunk is good");
        assert_eq!(chk, Chk { binding: place(), sums: sums_of(bytes) });
        assert!(read(blob_name(place().chunk)) == bytes, "other bytes than were sent");
    }

    /// Nothing is left.
    async fn end(mut self) {
        self.happen(Event::Delete).await;
        self.check().await;
        assert!(self.node.store.is_idle(), "something is still held");
        let mut left = std::fs::read_dir(self.folder).expect("the folder is there");
        assert!(left.next().is_none(), "files are left");
    }
}

/// The first byte is how much may be written, in units of 4 KiB (0: as much as there may be); the others are events.
pub(super) fn run(input: &[u8]) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    RUNTIME.block_on(play(folder.path(), Choices::new(input)));
}

async fn play(folder: &Path, mut choices: Choices<'_>) {
    let permitted = match choices.byte() {
        0 => CHUNK_BYTES_MAX,
        units => u64::from(units) * 4096,
    };
    let mut scripts = Scripts::new(choices);
    let mut harness = Harness { folder, node: node(folder), permitted, model: Model::new(permitted), waiting: None };
    for _ in 0..EVENTS_MAX {
        let Some(event) = scripts.next(harness.model.received()) else { break };
        harness.happen(event).await;
        harness.check().await;
    }
    harness.end().await;
}

/// A whole chunk; one in two streams, the second of which takes the first over; an equal and an unequal repeat; a stream
/// that breaks, is gone on with, and ends with a digest; one that is cut by time; a frame that is too large.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    let whole = [8, 0x86, 1, 0, 0];
    let silent_then_taken_over = [0xc8, 0x04, 1, 0, 9, 0x86, 0, 9, 0];
    let unequal = [8, 0x46, 1, 0];
    let breaks = [0x48, 0x05, 4, 0, 0x24, 255, 255];
    let goes_on = [9, 0x86, 0, 1, 0];
    let too_large = [8, 0x24, 255, 255];
    vec![
        [&[0], &whole[..]].concat(),
        [&[0], &silent_then_taken_over[..]].concat(),
        [&[0], &whole[..], &whole, &unequal, &[2]].concat(),
        [&[0], &breaks[..], &goes_on].concat(),
        [&[0, 0xc8, 0x04, 1, 0, 1, 3], &too_large[..]].concat(),
        [&[1, 0xc8, 0x04, 1, 0, 0], &whole[..], &goes_on].concat(),
    ]
}

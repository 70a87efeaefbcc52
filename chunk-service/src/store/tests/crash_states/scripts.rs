//! Scripts of client operations on one chunk, and what the client and the metadata know at each instant of one.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, LazyLock};

use proto::capability::{ChunkBinding, ReadClaims};
use proto::checksum::ChunkSums;

use crate::error::ChunkError;
use crate::store::Described;
use crate::store::testing::crash_disk::CrashDisk;
use crate::store::testing::world::{ALL, Kind, Oracle, World, blob, chk, claims, pattern, place, sums};
use crate::store::writing::WriteStatus;

/// The chunk that every script is about.
pub(super) static PLACE: LazyLock<ChunkBinding> = LazyLock::new(|| place(1));
/// Frames of a put: with these, a content of two pieces takes two writes.
const FRAME: usize = 65_536;

/// What a writer may bring: 0, 1 and 2 pieces, and other bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Content {
    Empty,
    One,
    Two,
    Other,
}

impl Content {
    pub(super) const EACH: [Self; 4] = [Self::Empty, Self::One, Self::Two, Self::Other];

    fn made(self) -> &'static Made {
        static MADE: LazyLock<[Made; 4]> = LazyLock::new(|| {
            [pattern(0, 0), pattern(5, 1), pattern(65_540, 2), pattern(5, 3)].map(|bytes| Made {
                claims: claims(&bytes),
                sums: sums(&bytes),
                bytes,
            })
        });
        &MADE[self as usize]
    }

    pub(super) fn bytes(self) -> &'static [u8] {
        &self.made().bytes
    }

    pub(super) fn claims(self) -> ReadClaims {
        self.made().claims
    }

    pub(super) fn sums(self) -> &'static ChunkSums {
        &self.made().sums
    }

    pub(super) fn of(sums: &ChunkSums) -> Self {
        Self::EACH.into_iter().find(|content| content.sums() == sums).expect("nobody brought such bytes")
    }
}

/// A content with its sums.
struct Made {
    bytes: Vec<u8>,
    claims: ReadClaims,
    sums: ChunkSums,
}

/// How far a delete is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Delete {
    No,
    Asked,
    Done,
}

/// What is known of the chunk.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Known {
    /// A receipt was given for it.
    pub(super) promised: Option<Content>,
    /// It was committed.
    pub(super) sealed: Option<Content>,
    /// Writes of these were begun.
    pub(super) tried: BTreeSet<Content>,
    /// How many were.
    pub(super) writes: u8,
    pub(super) delete: Delete,
}

impl Known {
    const NOTHING: Self = Self { promised: None, sealed: None, tried: BTreeSet::new(), writes: 0, delete: Delete::No };

    pub(super) fn described(&self) -> Described {
        match (self.delete, self.sealed) {
            (Delete::Asked | Delete::Done, _) => Described::Unknown,
            (Delete::No, Some(content)) => Described::Sealed(*PLACE, content.claims()),
            (Delete::No, None) => Described::Open,
        }
    }

    /// A metadata service that knows this.
    pub(super) fn oracle(&self) -> Arc<Oracle> {
        let oracle = Arc::<Oracle>::default();
        oracle.set(PLACE.chunk, self.described());
        oracle
    }

    fn begin(&mut self, action: Action) {
        match action {
            Action::Put(content) | Action::Resume(content) | Action::Break(content) => {
                self.delete = Delete::No;
                self.writes += 1;
                self.tried.insert(content);
            }
            Action::Delete => {
                let tried = std::mem::take(&mut self.tried);
                *self = Self { delete: Delete::Asked, tried, writes: self.writes, ..Self::NOTHING };
            }
            Action::Read | Action::Status | Action::Settle => {}
        }
    }

    fn promise(&mut self, content: Content, commits: bool) {
        self.promised = Some(content);
        self.sealed = self.sealed.or(commits.then_some(content));
    }
}

/// What a client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Put(Content),
    /// A write that breaks off and is gone on with.
    Resume(Content),
    /// A write that breaks off.
    Break(Content),
    Delete,
    Read,
    Status,
    /// What the journal holds becomes durable where it belongs.
    Settle,
}

impl Action {
    const EACH: [Self; 11] = [
        Self::Put(Content::Empty),
        Self::Put(Content::One),
        Self::Put(Content::Two),
        Self::Put(Content::Other),
        Self::Resume(Content::One),
        Self::Resume(Content::Two),
        Self::Break(Content::One),
        Self::Delete,
        Self::Read,
        Self::Status,
        Self::Settle,
    ];
}

/// A disk, and what is known of it.
#[derive(Debug, Clone)]
pub(crate) struct Scene {
    pub(super) disk: CrashDisk,
    pub(super) known: Known,
}

/// Operations from a start.
pub(crate) struct Script {
    start: Scene,
    actions: Vec<Action>,
    /// Whether a receipt is followed by the commit at once, or later.
    commits: bool,
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { start, actions, commits } = self;
        write!(f, "{actions:?} (commits: {commits}) from {:?} with {:?}", start.known, start.disk.names())
    }
}

impl Script {
    /// Every script.
    pub(crate) fn all() -> Vec<Self> {
        let mut scripts = Vec::new();
        for start in starts() {
            for commits in [true, false] {
                for first in Action::EACH {
                    let mut add = |actions| scripts.push(Self { start: start.clone(), actions, commits });
                    add(vec![first]);
                    Action::EACH.into_iter().for_each(|second| add(vec![first, second]));
                }
            }
        }
        scripts
    }

    /// A small chunk comes and goes.
    pub(crate) fn put_and_delete() -> Self {
        let start = Scene { disk: CrashDisk::new(), known: Known::NOTHING };
        Self { start, actions: vec![Action::Put(Content::One), Action::Delete], commits: true }
    }

    /// What a client does when it comes back after a crash; also with a receipt in its hand it may write again first.
    pub(super) fn after(start: Scene) -> Self {
        let again = start.known.promised.or(start.known.tried.first().copied());
        let actions = match (start.known.delete, again) {
            (Delete::Asked | Delete::Done, _) => vec![Action::Delete],
            (Delete::No, Some(content)) => vec![Action::Read, Action::Put(content)],
            (Delete::No, None) => vec![Action::Status, Action::Put(Content::One)],
        };
        Self { start, actions, commits: true }
    }

    /// Runs it. Returns every instant of it, each on a disk of its own, with what was known then.
    pub(super) async fn play(&self, kind: Kind) -> Vec<Scene> {
        let (disk, mut known) = (self.start.disk.fork(), self.start.known.clone());
        disk.note_instants();
        let world = World::on(disk.clone(), known.oracle(), kind);
        let mut moments = vec![(0, known.clone())];
        for action in &self.actions {
            let before = disk.noted();
            known.begin(*action);
            world.oracle.set(PLACE.chunk, known.described());
            let begun = known.clone();
            act(&world, *action, &mut known, self.commits).await;
            world.oracle.set(PLACE.chunk, known.described());
            let after = disk.noted();
            moments.extend((before..after).map(|instant| (instant, begun.clone())));
            moments.push((after - 1, known.clone()));
        }
        let instants = disk.instants();
        moments.into_iter().map(|(instant, known)| Scene { disk: instants[instant].clone(), known }).collect()
    }
}

/// Nothing; a chunk that was committed, and one that was not, with a torn checksum file; half a chunk without one.
fn starts() -> Vec<Scene> {
    let nothing = Scene { disk: CrashDisk::new(), known: Known::NOTHING };
    let torn = |content, sealed| {
        let scene = stored(content, sealed);
        scene.disk.damage(&chk(&PLACE), |bytes| bytes.truncate(bytes.len() / 2));
        scene
    };
    let half = stored(Content::Two, false);
    half.disk.lose(&chk(&PLACE));
    half.disk.damage(&blob(&PLACE), |bytes| bytes.truncate(40_000));
    vec![
        nothing,
        torn(Content::Empty, true),
        torn(Content::One, true),
        torn(Content::Two, true),
        torn(Content::One, false),
        half,
    ]
}

fn stored(content: Content, sealed: bool) -> Scene {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let world = World::new();
    runtime.block_on(world.put(*PLACE, content.bytes())).unwrap();
    let mut known = Known { tried: BTreeSet::from([content]), writes: 1, ..Known::NOTHING };
    if sealed {
        known.promise(content, true);
    }
    Scene { disk: world.disk.fork(), known }
}

async fn act(world: &World, action: Action, known: &mut Known, commits: bool) {
    match action {
        Action::Put(content) => {
            let outcome = world.put_framed(*PLACE, content.bytes(), 0, FRAME).await;
            wrote(content, outcome, known, commits);
        }
        Action::Resume(content) => {
            let cut = content.bytes().len() * 2 / 3;
            world.put_part(*PLACE, 0, &content.bytes()[..cut]).await.unwrap();
            // A chunk that is complete is compared from its beginning, whatever was sent before.
            let from = if known.promised.is_some() || known.tried.len() > 1 { 0 } else { cut };
            match world.put_framed(*PLACE, content.bytes(), from, FRAME).await {
                Err(ChunkError::WriteOffsetMismatch { .. }) => {}
                outcome => wrote(content, outcome, known, commits),
            }
        }
        Action::Break(content) => world.put_part(*PLACE, 0, &content.bytes()[..2]).await.unwrap(),
        Action::Delete => {
            world.store.delete(PLACE.chunk).await.unwrap();
            *known = Known { delete: Delete::Done, writes: known.writes, ..Known::NOTHING };
        }
        Action::Settle => world.settle_journal().await,
        Action::Read => {
            let content = known.promised.or(known.tried.first().copied()).unwrap_or(Content::One);
            match world.get(*PLACE, content.bytes(), ALL).await {
                Ok(read) => assert!(read == content.bytes() && known.delete != Delete::Done),
                Err(error) => assert_eq!(known.promised, None, "{error:?}"),
            }
        }
        Action::Status => match world.store.write_status(*PLACE).await {
            Ok(WriteStatus::Complete(sums)) => {
                let content = Content::of(&sums);
                assert!(known.tried.contains(&content) && known.promised.is_none_or(|promised| promised == content));
                known.promise(content, commits);
            }
            Ok(WriteStatus::Open(_)) => assert_eq!(known.promised, None),
            Err(ChunkError::UploadOver) => assert_eq!(known.delete, Delete::Asked),
            Err(error) => panic!("{error:?}"),
        },
    }
}

fn wrote(content: Content, outcome: Result<ChunkSums, ChunkError>, known: &mut Known, commits: bool) {
    let others = known.promised.is_some_and(|promised| promised != content);
    match outcome {
        Ok(sums) => {
            assert!(!others && sums == *content.sums(), "other bytes took the place of a chunk");
            known.promise(content, commits);
        }
        Err(ChunkError::AlreadyExists(_)) => assert!(others || known.tried.len() > 1),
        Err(error) => panic!("{error:?}"),
    }
}

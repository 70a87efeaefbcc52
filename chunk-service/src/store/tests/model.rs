//! The store against a model of what it promised, under random operations, damage, full disks and crashes.
//!
//! Checked after every step: what was answered as durable reads back, unless its bytes were damaged on purpose; what is
//! read is what the metadata holds; other bytes never take the place of sealed ones; what was deleted stays so.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::testing::world::{ALL, World, blob, chk, pattern, place};
use crate::error::ChunkError;
use crate::store::reading::Range;
use crate::store::writing::WriteStatus;

/// Chunks, and contents that a writer may try for each.
const CHUNKS: u64 = 3;
const CONTENTS: [usize; 3] = [0, 5, 140_000];

#[derive(Debug, Clone)]
enum Step {
    Put { chunk: u64, content: usize, frame: usize },
    Part { chunk: u64, content: usize, length: prop::sample::Index },
    Resume { chunk: u64, content: usize },
    Seal { chunk: u64 },
    Get { chunk: u64, offset: prop::sample::Index, limit: u64 },
    Delete { chunk: u64 },
    Restart,
    Crash { choices: Vec<u8> },
    DamageChk { chunk: u64, at: prop::sample::Index, cut: bool },
    DamageBlob { chunk: u64, at: prop::sample::Index },
    DiskFull(bool),
    MetadataDown(bool),
}

fn any_step() -> impl Strategy<Value = Step> {
    let chunk = || 0..CHUNKS;
    let content = || 0..CONTENTS.len();
    let at = any::<prop::sample::Index>;
    prop_oneof![
        6 => (chunk(), content(), 1_000usize..100_000)
            .prop_map(|(chunk, content, frame)| Step::Put { chunk, content, frame }),
        3 => (chunk(), content(), at()).prop_map(|(chunk, content, length)| Step::Part { chunk, content, length }),
        3 => (chunk(), content()).prop_map(|(chunk, content)| Step::Resume { chunk, content }),
        3 => chunk().prop_map(|chunk| Step::Seal { chunk }),
        3 => (chunk(), at(), 1u64..100_000).prop_map(|(chunk, offset, limit)| Step::Get { chunk, offset, limit }),
        1 => chunk().prop_map(|chunk| Step::Delete { chunk }),
        2 => Just(Step::Restart),
        4 => proptest::collection::vec(any::<u8>(), 12).prop_map(|choices| Step::Crash { choices }),
        2 => (chunk(), at(), any::<bool>()).prop_map(|(chunk, at, cut)| Step::DamageChk { chunk, at, cut }),
        1 => (chunk(), at()).prop_map(|(chunk, at)| Step::DamageBlob { chunk, at }),
        1 => any::<bool>().prop_map(Step::DiskFull),
        1 => any::<bool>().prop_map(Step::MetadataDown),
    ]
}

/// What a chunk's writer and the metadata know of it.
#[derive(Debug, Default, Clone)]
struct Known {
    /// The content that was answered as durable.
    acked: Option<usize>,
    sealed: bool,
    /// The content and length of a write that broke off.
    part: Option<(usize, usize)>,
    /// Its files were changed behind the store's back.
    blob_damaged: bool,
    chk_damaged: bool,
}

struct Run {
    world: World,
    known: BTreeMap<u64, Known>,
    full: bool,
    down: bool,
}

fn bytes_of(chunk: u64, content: usize) -> Vec<u8> {
    pattern(CONTENTS[content], chunk * 10 + content as u64)
}

impl Run {
    fn new() -> Self {
        let known = (0..CHUNKS).map(|chunk| (chunk, Known::default())).collect();
        Self { world: World::new(), known, full: false, down: false }
    }

    fn known(&mut self, chunk: u64) -> &mut Known {
        self.known.get_mut(&chunk).unwrap()
    }

    async fn step(mut self, step: Step) -> Self {
        match step {
            Step::Put { chunk, content, frame } => {
                let outcome = self.world.put_framed(place(chunk), &bytes_of(chunk, content), 0, frame).await;
                self.wrote(chunk, content, outcome.map(drop));
            }
            Step::Part { chunk, content, length } => self.part(chunk, content, length).await,
            Step::Resume { chunk, content } => self.resume(chunk, content).await,
            Step::Seal { chunk } => self.seal(chunk),
            Step::Get { chunk, offset, limit } => self.get(chunk, offset, limit).await,
            Step::Delete { chunk } => self.delete(chunk).await,
            Step::Restart => {
                self.world = self.world.restart().await;
                self.known.values_mut().for_each(|known| known.part = None);
            }
            Step::Crash { choices } => {
                let mut choices = choices.into_iter().cycle();
                self.world = self.world.crash(&mut |below| usize::from(choices.next().unwrap()) % below).await;
                self.known.values_mut().for_each(Known::crashed);
            }
            Step::DamageChk { chunk, at, cut } => self.damage_chk(chunk, at, cut),
            Step::DamageBlob { chunk, at } => self.damage_blob(chunk, at),
            Step::DiskFull(full) => {
                self.full = full;
                self.world.disk.set_free(if full { 100 } else { u64::MAX });
            }
            Step::MetadataDown(down) => {
                self.down = down;
                self.world.oracle.set_unreachable(down);
            }
        }
        self.check().await;
        self
    }

    /// What a whole write may have come to.
    fn wrote(&mut self, chunk: u64, content: usize, outcome: Result<(), ChunkError>) {
        let (full, down) = (self.full, self.down);
        let known = self.known(chunk);
        let damaged = known.blob_damaged || known.chk_damaged;
        known.part = None;
        match outcome {
            Ok(()) => {
                let same = known.acked.is_none_or(|acked| acked == content);
                assert!(same || (damaged && !known.sealed), "other bytes took the place of chunk {chunk}");
                if !known.sealed {
                    *known = Known { acked: Some(content), ..Known::default() };
                }
                known.chk_damaged = false;
            }
            Err(ChunkError::AlreadyExists(_)) => assert!(known.acked.is_some_and(|acked| acked != content)),
            Err(ChunkError::OutOfSpace(_)) => {
                assert!(full);
                // A damaged pair of an open block has been cleared away by then.
                if damaged && !known.sealed {
                    *known = Known::default();
                }
            }
            Err(ChunkError::MetadataUnreachable(_)) => assert!(down),
            Err(ChunkError::Corrupt(_)) => assert!(known.sealed && known.blob_damaged),
            Err(other) => panic!("chunk {chunk}: {other:?}"),
        }
    }

    async fn part(&mut self, chunk: u64, content: usize, length: prop::sample::Index) {
        if self.known(chunk).acked.is_some() {
            return;
        }
        let length = length.index(CONTENTS[content] + 1);
        let outcome = self.world.put_part(place(chunk), 0, &bytes_of(chunk, content)[..length]).await;
        self.known(chunk).part = outcome.is_ok().then_some((content, length));
        match outcome {
            Ok(()) => {}
            Err(ChunkError::OutOfSpace(_)) => assert!(self.full),
            Err(ChunkError::MetadataUnreachable(_)) => assert!(self.down),
            Err(other) => panic!("chunk {chunk}: {other:?}"),
        }
    }

    async fn resume(&mut self, chunk: u64, content: usize) {
        let Some((begun, length)) = self.known(chunk).part else { return };
        if length > 0 && begun == content {
            let outcome = self.world.put_framed(place(chunk), &bytes_of(chunk, content), length, 50_000).await;
            self.wrote(chunk, content, outcome.map(drop));
        }
    }

    fn seal(&mut self, chunk: u64) {
        let known = self.known(chunk);
        // A writer commits only while nothing was damaged: else its receipt speaks of bytes that are gone.
        if let Some(content) = known.acked.filter(|_| !known.blob_damaged) {
            known.sealed = true;
            self.world.oracle.seal(place(chunk), &bytes_of(chunk, content));
        }
    }

    async fn get(&mut self, chunk: u64, offset: prop::sample::Index, limit: u64) {
        let Some(content) = self.known(chunk).acked else { return };
        let bytes = bytes_of(chunk, content);
        let from = offset.index(bytes.len() + 1);
        let to = from.saturating_add(usize::try_from(limit).unwrap()).min(bytes.len());
        let range = Range { offset: from as u64, limit: Some(limit) };
        match self.world.get(place(chunk), &bytes, range).await {
            Ok(read) => assert_eq!(read, &bytes[from..to]),
            Err(error) => assert!(self.known(chunk).blob_damaged, "chunk {chunk}: {error:?}"),
        }
    }

    async fn delete(&mut self, chunk: u64) {
        self.world.store.delete(place(chunk).chunk).await.unwrap();
        self.world.oracle.set(place(chunk).chunk, crate::store::Described::Open);
        let gone = std::mem::take(self.known(chunk));
        if let Some(content) = gone.acked {
            let read = self.world.get(place(chunk), &bytes_of(chunk, content), ALL).await;
            assert!(matches!(read, Err(ChunkError::Missing(_))), "{read:?}");
        }
    }

    fn damage_chk(&mut self, chunk: u64, at: prop::sample::Index, cut: bool) {
        let name = chk(&place(chunk));
        let Some(length) = self.world.disk.bytes(&name).map(|bytes| bytes.len()).filter(|length| *length > 0) else {
            return;
        };
        let at = at.index(length);
        self.world.disk.damage(&name, |bytes| if cut { bytes.truncate(at) } else { bytes[at] ^= 4 });
        self.known(chunk).chk_damaged = true;
    }

    fn damage_blob(&mut self, chunk: u64, at: prop::sample::Index) {
        let known = self.known(chunk);
        if let Some(content) = known.acked.filter(|content| CONTENTS[*content] > 0 && !known.blob_damaged) {
            known.blob_damaged = true;
            let at = at.index(CONTENTS[content]);
            if self.world.disk.bytes(&blob(&place(chunk))).is_some_and(|bytes| at < bytes.len()) {
                self.world.disk.damage(&blob(&place(chunk)), |bytes| bytes[at] ^= 4);
            }
        }
    }

    async fn check(&mut self) {
        for (chunk, known) in self.known.clone() {
            let Some(content) = known.acked else { continue };
            let bytes = bytes_of(chunk, content);
            match self.world.get(place(chunk), &bytes, ALL).await {
                Ok(read) => assert_eq!(read, bytes),
                Err(error) => assert!(known.blob_damaged, "chunk {chunk} was answered as durable: {error:?}"),
            }
        }
    }
}

impl Known {
    /// A crash forgets writes in progress, and may tear a checksum file, which is not synced by itself.
    fn crashed(&mut self) {
        self.part = None;
        self.chk_damaged |= self.acked.is_some();
    }
}

fn run(steps: Vec<Step>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut run = Run::new();
        for step in steps {
            run = run.step(step).await;
        }
        for chunk in 0..CHUNKS {
            if let (Some((_, length)), Ok(status)) =
                (run.known(chunk).part, run.world.store.write_status(place(chunk)).await)
            {
                assert_eq!(status, WriteStatus::Open(length as u64));
            }
        }
        run.world.restart().await;
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, max_shrink_iters: 2_000, ..ProptestConfig::default() })]
    #[test]
    fn the_store_keeps_what_it_promised(steps in proptest::collection::vec(any_step(), 1..30)) {
        run(steps);
    }
}

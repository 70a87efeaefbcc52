//! What must hold of a disk on which a fresh store starts.

use super::scripts::{Content, Delete, Known, PLACE, Scene};
use crate::error::ChunkError;
use crate::store::chk::Chk;
use crate::store::reading::Range;
use crate::store::testing::crash_disk::CrashDisk;
use crate::store::testing::world::{ALL, Kind, World, blob, chk, sums};
use crate::store::writing::WriteStatus;

/// What becomes of the bytes and names that were not synced when a promise was made.
#[derive(Debug, Clone, Copy)]
pub(super) enum Loss {
    /// They are lost.
    Everything,
    /// Each combination of them, one after the other.
    Each,
}

/// Where a crash may leave more than so many disks, an eighth of that is looked at.
const LOSSES_MAX: usize = 1_500;

/// Holds a store that starts on this disk to what is known.
pub(super) async fn holds(scene: &Scene, loss: Loss, kind: Kind) {
    let Scene { disk, known } = scene;
    let checker = Checker { disk, known, loss, kind };
    if known.writes <= 1 {
        // What only the journal makes durable may be torn until it was replayed.
        let replayed = if kind.journal_below > 0 { checker.start(known).disk } else { disk.clone() };
        vouches_for_nothing_else(&replayed);
    }
    match (known.delete, known.promised) {
        (Delete::Done, _) => {
            assert_eq!(disk.chunk_names(), Vec::<String>::new(), "I8: a delete that was answered stays");
            checker.uncommitted().await;
        }
        (Delete::Asked, _) => checker.deleting().await,
        (Delete::No, Some(content)) => {
            checker.committed(content).await;
            if known.sealed.is_none() {
                checker.uncommitted().await;
            }
        }
        (Delete::No, None) => checker.uncommitted().await,
    }
}

/// A checksum file that parses stands beside the very bytes that it vouches for, or beside none. (Once a write was given
/// up, its file may come back in the place of that of the next one; whoever finds the pair reads it back.)
fn vouches_for_nothing_else(disk: &CrashDisk) {
    if let (Some(text), Some(bytes)) = (disk.bytes(&chk(&PLACE)), disk.bytes(&blob(&PLACE)))
        && let Ok(found) = Chk::parse(&text)
    {
        assert!(found.sums == sums(&bytes), "a checksum file vouches for bytes that are not there");
    }
}

/// After a kill nothing is there of which `sha256sum -c` would complain: no checksum file without its bytes, none that
/// was cut off, except where a power cut left one before.
pub(super) fn sums_are_whole(disk: &CrashDisk) {
    let Some(text) = disk.bytes(&chk(&PLACE)) else { return };
    let torn_before = disk.without_unsynced().bytes(&chk(&PLACE)).is_some_and(|durable| Chk::parse(&durable).is_err());
    assert!(torn_before || Chk::parse(&text).is_ok(), "a kill left part of a checksum file");
    assert!(disk.bytes(&blob(&PLACE)).is_some(), "a kill left a checksum file without its bytes");
}

struct Checker<'a> {
    disk: &'a CrashDisk,
    known: &'a Known,
    loss: Loss,
    kind: Kind,
}

impl Checker<'_> {
    fn start(&self, known: &Known) -> World {
        World::on(self.disk.fork(), known.oracle(), self.kind)
    }

    /// The client has committed what it was promised, or does so now with the receipt that it holds.
    async fn committed(&self, content: Content) {
        let known = Known { sealed: Some(content), ..self.known.clone() };
        let world = self.start(&known);
        assert!(world.get(*PLACE, content.bytes(), ALL).await.unwrap() == content.bytes(), "I1: bytes are lost");
        if content == Content::Two {
            let read = world.get(*PLACE, content.bytes(), Range { offset: 65_530, limit: Some(8) }).await.unwrap();
            assert_eq!(read, &content.bytes()[65_530..65_538]);
        }
        for other in Content::EACH.into_iter().filter(|other| *other != content) {
            assert!(world.get(*PLACE, other.bytes(), ALL).await.is_err(), "I2: bytes that nobody asked for");
        }
        let other = if content == Content::Other { Content::One } else { Content::Other };
        let outcome = world.put(*PLACE, other.bytes()).await;
        assert!(matches!(outcome, Err(ChunkError::AlreadyExists(_))), "{outcome:?}");
        assert_eq!(world.store.write_status(*PLACE).await.unwrap(), WriteStatus::Complete(content.sums().clone()));
        assert_eq!(world.put(*PLACE, content.bytes()).await.unwrap(), *content.sums());
        self.survives(&world, content).await;
    }

    /// The client has not committed, and asks or tries again.
    async fn uncommitted(&self) {
        let known = Known { sealed: None, delete: Delete::No, ..self.known.clone() };
        let world = self.start(&known);
        match world.store.write_status(*PLACE).await.unwrap() {
            WriteStatus::Open(there) => {
                assert_eq!(there, 0);
                assert_eq!(self.known.promised, None, "I1: what a receipt was given for is taken for a left-over");
            }
            WriteStatus::Complete(sums) => self.promised_now(&world, Content::of(&sums)).await,
        }
        for content in [known.tried.first().copied().unwrap_or(Content::One), Content::Other] {
            let world = self.start(&known);
            match world.put(*PLACE, content.bytes()).await {
                Ok(sums) => {
                    assert_eq!(sums, *content.sums());
                    self.survives(&world, content).await;
                }
                Err(ChunkError::AlreadyExists(_)) => {
                    let status = world.store.write_status(*PLACE).await.unwrap();
                    let WriteStatus::Complete(sums) = status else { panic!("{status:?} is in the way") };
                    self.promised_now(&world, Content::of(&sums)).await;
                }
                Err(error) => panic!("a repeat does not settle it: {error:?}"),
            }
        }
    }

    /// A status is a receipt.
    async fn promised_now(&self, world: &World, content: Content) {
        assert!(self.known.tried.contains(&content), "nobody wrote this here");
        assert!(self.known.promised.is_none_or(|promised| promised == content), "I4: another answer");
        self.survives(world, content).await;
    }

    /// The delete was not answered: what is read is right, and a repeat settles it.
    async fn deleting(&self) {
        let world = self.start(self.known);
        for content in &self.known.tried {
            if let Ok(read) = world.get(*PLACE, content.bytes(), ALL).await {
                assert!(read == content.bytes(), "I2: wrong bytes");
            }
        }
        world.store.delete(PLACE.chunk).await.unwrap();
        for crashed in self.losses(&world) {
            assert_eq!(crashed.chunk_names(), Vec::<String>::new(), "I8: a delete that was answered stays");
        }
    }

    /// What was promised just now is there after another crash.
    async fn survives(&self, world: &World, content: Content) {
        for crashed in self.losses(world) {
            let known = Known { sealed: Some(content), ..self.known.clone() };
            let world = World::on(crashed, Known { delete: Delete::No, ..known }.oracle(), self.kind);
            let read = world.get(*PLACE, content.bytes(), ALL).await;
            assert!(read.is_ok_and(|read| read == content.bytes()), "I15: a receipt without durability");
        }
    }

    fn losses(&self, world: &World) -> Vec<CrashDisk> {
        match self.loss {
            Loss::Everything => vec![world.disk.without_unsynced()],
            Loss::Each => {
                let mut crashed = Vec::new();
                let see = |disk| crashed.push(disk);
                match world.disk.crashes_up_to(LOSSES_MAX) {
                    Some(_few) => world.disk.each_crash(see),
                    None => world.disk.some_crashes(LOSSES_MAX / 8, world.disk.fingerprint(), see),
                }
                crashed
            }
        }
    }
}

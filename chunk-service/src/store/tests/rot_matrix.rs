//! Damage of every kind, counted: each is noticed, and no read ever returns bytes that are not the chunk's (I2).
//!
//! Noticed means: a read is refused, or what it returns is right and the checksum file stands as it was before. A bad copy
//! stays in its place. Long form (every byte and bit; the short one takes one of 13), with its figures:
//! `MINI_TECTONIC_LONG=1 cargo test --release -p chunk-service --lib rot_matrix -- --nocapture`

use std::fmt;

use proto::capability::ChunkBinding;

use crate::error::ChunkError;
use crate::store::testing::crash_disk::CrashDisk;
use crate::store::testing::figures::{self, Context};
use crate::store::testing::mistakes::Mistake;
use crate::store::testing::world::{ALL, Kind, Oracle, World, blob, chk, pattern, place, sums};
use crate::store::writing::WriteStatus;

/// Sizes of the chunks: nothing, small ones, and such of several pieces.
const SIZES: [usize; 5] = [0, 1, 61, 65_537, 140_000];

/// What was done to files, and what became of it.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    chk: u64,
    blob: u64,
    exchanged: u64,
    healed: u64,
    refused: u64,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { chk, blob, exchanged, healed, refused } = self;
        let (planted, noticed) = (chk + blob + exchanged, healed + refused);
        write!(
            f,
            "bit rot: {planted} damages ({chk} of checksum files, {blob} of blobs, {exchanged} swapped or stale); "
        )?;
        write!(f, "{noticed} noticed ({healed} healed, {refused} refused); 0 wrong bytes served")
    }
}

/// A committed chunk on a disk on which nothing is wrong.
struct Sound {
    place: ChunkBinding,
    bytes: Vec<u8>,
    disk: CrashDisk,
    mistake: Option<Mistake>,
}

/// What a damage may come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Healed,
    Refused,
}

impl Sound {
    async fn new(size: usize, mistake: Option<Mistake>) -> Self {
        let (place, bytes, world) = (place(1), pattern(size, size as u64), World::with(mistake));
        world.put_sealed(place, &bytes).await;
        Self { place, bytes, disk: world.disk.fork(), mistake }
    }

    fn world(&self, disk: &CrashDisk) -> World {
        let oracle = std::sync::Arc::<Oracle>::default();
        oracle.seal(self.place, &self.bytes);
        World::on(disk.fork(), oracle, Kind::default().with(self.mistake))
    }

    /// Plants a damage and reads; the store must come to this.
    async fn meets(&self, expected: Fate, told: impl fmt::Debug, damage: impl FnOnce(&CrashDisk)) {
        let _context = Context((told, self.bytes.len()));
        let disk = self.disk.fork();
        damage(&disk);
        let (bad_blob, good_chk) = (disk.bytes(&blob(&self.place)), self.disk.bytes(&chk(&self.place)));
        let mut world = self.world(&disk);
        match world.get(self.place, &self.bytes, ALL).await {
            Ok(read) => {
                assert!(read == self.bytes, "I2: wrong bytes were served");
                assert_eq!(expected, Fate::Healed);
                world.settle().await;
                assert!(world.disk.bytes(&chk(&self.place)) == good_chk, "it was not healed");
            }
            Err(error) => {
                assert!(matches!(error, ChunkError::Corrupt(_) | ChunkError::Missing(_)), "{error:?}");
                assert_eq!(expected, Fate::Refused, "{error:?}");
            }
        }
        self.is_never_taken_for_whole(expected, &disk).await;
        assert!(world.disk.bytes(&blob(&self.place)) == bad_blob, "the bad copy is not where it was");
    }

    /// A writer who repeats or asks is told the same.
    async fn is_never_taken_for_whole(&self, expected: Fate, disk: &CrashDisk) {
        let world = self.world(disk);
        let before = disk.bytes(&blob(&self.place));
        let status = world.store.write_status(self.place).await;
        match (expected, &status) {
            (Fate::Healed, Ok(WriteStatus::Complete(_))) | (Fate::Refused, Err(ChunkError::Corrupt(_))) => {}
            (Fate::Refused, Err(ChunkError::Missing(_)) | Ok(WriteStatus::Open(0))) => assert_eq!(before, None),
            // A receipt speaks of what is there; whoever gets it compares it with what was to be there.
            (Fate::Refused, Ok(WriteStatus::Complete(told))) => assert!(*told == sums(&before.clone().unwrap())),
            _other => panic!("{status:?} for what should be {expected:?}"),
        }
        assert!(world.disk.bytes(&blob(&self.place)) == before, "the bad copy is not where it was");
    }
}

/// Runs the suite with this mistake in the store; panics when the store breaks a promise.
pub(crate) async fn run(long: bool, mistake: Option<Mistake>) -> Figures {
    let (mut figures, step) = (Figures::default(), if long { 1 } else { 13 });
    for size in SIZES {
        let sound = Sound::new(size, mistake).await;
        figures.chk += rot_chk(&sound, step).await;
        figures.healed = figures.chk;
        figures.blob += rot_blob(&sound, step, long).await;
    }
    let (healed, refused) = exchange(mistake).await;
    figures.exchanged = healed + refused;
    figures.healed += healed;
    figures.refused = figures.blob + refused;
    figures
}

/// Every byte changed, every length, and more than there was. Returns how many.
async fn rot_chk(sound: &Sound, step: usize) -> u64 {
    let name = chk(&sound.place);
    let length = sound.disk.bytes(&name).unwrap().len();
    let mut planted = 0;
    for at in (0..length).step_by(step) {
        for mask in [1, 0x20, 0xff] {
            sound.meets(Fate::Healed, ("chk byte", at, mask), |disk| disk.damage(&name, |text| text[at] ^= mask)).await;
        }
        sound.meets(Fate::Healed, ("chk cut", at), |disk| disk.damage(&name, |text| text.truncate(at))).await;
        planted += 4;
    }
    for more in [&b"\n"[..], b"\0", b"# more\n"] {
        sound.meets(Fate::Healed, ("chk longer", more), |disk| disk.damage(&name, |text| text.extend(more))).await;
    }
    sound.meets(Fate::Healed, "chk lost", |disk| disk.lose(&name)).await;
    planted + 4
}

/// Every bit of a small one, a sample of a large one; other lengths; lost. Returns how many.
async fn rot_blob(sound: &Sound, step: usize, long: bool) -> u64 {
    let (name, length) = (blob(&sound.place), sound.bytes.len());
    let step = if length > 100 { if long { 1_009 } else { 60_013 } } else { step };
    let mut planted = 0;
    for bit in (0..length * 8).step_by(step) {
        let flip = |bytes: &mut Vec<u8>| bytes[bit / 8] ^= 1 << (bit % 8);
        sound.meets(Fate::Refused, ("blob bit", bit), |disk| disk.damage(&name, flip)).await;
        planted += 1;
    }
    for other in [0, 1, 60, 62, 65_536, 65_537, 65_538, 139_999, 140_001].into_iter().filter(|other| *other != length) {
        let resize = |bytes: &mut Vec<u8>| bytes.resize(other, 0);
        sound.meets(Fate::Refused, ("blob length", other), |disk| disk.damage(&name, resize)).await;
        planted += 1;
    }
    sound.meets(Fate::Refused, "blob lost", |disk| disk.lose(&name)).await;
    planted + 1
}

/// Files of other chunks, and of an older generation of the same. Returns how many were healed and refused.
async fn exchange(mistake: Option<Mistake>) -> (u64, u64) {
    let (mut healed, mut refused) = (0, 0);
    for size in [1, 61, 70_000] {
        let sound = Sound::new(size, mistake).await;
        let (of_blob, of_chk) = (blob(&sound.place), chk(&sound.place));
        let older = ChunkBinding { generation: sound.place.generation - 1, ..sound.place };
        for (told, place) in [("another chunk's", place(2)), ("an older", older)] {
            for bytes in [pattern(size, 99), pattern(size + 1, 98)] {
                let world = World::new();
                world.put(place, &bytes).await.unwrap();
                let text = world.disk.bytes(&chk(&place)).unwrap();
                let put_chk = |disk: &CrashDisk| disk.damage(&of_chk, |old| old.clone_from(&text));
                let put_blob = |disk: &CrashDisk| disk.damage(&of_blob, |old| old.clone_from(&bytes));
                sound.meets(Fate::Healed, (told, "chk"), put_chk).await;
                sound.meets(Fate::Refused, (told, "blob"), put_blob).await;
                let put_both = |disk: &CrashDisk| {
                    put_chk(disk);
                    put_blob(disk);
                };
                sound.meets(Fate::Refused, (told, "pair"), put_both).await;
                healed += 1;
                refused += 2;
            }
        }
        // Its own checksum file, printed anew over other bytes: whoever compares the two only with each other is content.
        let (forged, world) = (pattern(size, 97), World::new());
        world.put(sound.place, &forged).await.unwrap();
        let text = world.disk.bytes(&of_chk).unwrap();
        let forge = |disk: &CrashDisk| {
            disk.damage(&of_chk, |old| old.clone_from(&text));
            disk.damage(&of_blob, |old| old.clone_from(&forged));
        };
        sound.meets(Fate::Refused, "a pair that agrees with itself", forge).await;
        refused += 1;
    }
    (healed, refused)
}

#[tokio::test]
async fn whatever_happens_to_the_files_no_wrong_byte_is_served() {
    let figures = run(figures::long(), None).await;
    figures::print(&figures);
    assert!(figures.chk > 100 && figures.blob > 30, "{figures}");
}

//! The journal over files that lose what was not synced, block by block.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use proptest::prelude::*;

use super::format::{BLOCK_BYTES, HEAD_BYTES};
use super::*;
use crate::entropy::SeededEntropy;

const BLOCK: usize = 4096;
const SHAPE: Shape = Shape { half_bytes: HALF_BYTES_MIN, growth_bytes: 16 * BLOCK_BYTES };

#[derive(Debug, Default)]
struct Content {
    cached: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<(usize, Vec<u8>)>,
    fail_write: bool,
    fail_sync: bool,
    /// The file cannot become longer.
    full: bool,
}

/// A half in memory. Clones are the same file.
#[derive(Debug, Clone, Default)]
struct MemoryHalf(Arc<Mutex<Content>>);

fn place(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    content.resize(content.len().max(end), 0);
    content[offset..end].copy_from_slice(bytes);
}

impl MemoryHalf {
    fn content(&self) -> MutexGuard<'_, Content> {
        self.0.lock().unwrap()
    }

    /// Keeps each block that was not synced, loses it, or leaves zeros, as `choose` says: it returns a number below its
    /// argument.
    fn crash(&self, choose: &mut dyn FnMut(usize) -> usize) {
        let mut content = self.content();
        for (offset, bytes) in std::mem::take(&mut content.pending) {
            for (index, block) in bytes.chunks(BLOCK).enumerate() {
                match choose(3) {
                    0 => {}
                    1 => place(&mut content.durable, offset + index * BLOCK, block),
                    _zeros => place(&mut content.durable, offset + index * BLOCK, &vec![0; block.len()]),
                }
            }
        }
        content.cached = content.durable.clone();
    }

    fn damage(&self, change: impl FnOnce(&mut Vec<u8>)) {
        let mut content = self.content();
        change(&mut content.cached);
        content.durable = content.cached.clone();
    }
}

impl HalfFile for MemoryHalf {
    fn size(&self) -> io::Result<u64> {
        Ok(self.content().cached.len() as u64)
    }

    fn read_at(&self, buffer: &mut Vec<u8>, length: usize, offset: u64) -> io::Result<()> {
        let offset = usize::try_from(offset).unwrap();
        let content = self.content();
        let bytes = content.cached.get(offset..offset + length).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.extend_from_slice(bytes);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let (mut content, offset) = (self.content(), usize::try_from(offset).unwrap());
        if std::mem::take(&mut content.fail_write) {
            place(&mut content.cached, offset, &bytes[..bytes.len() / 2]);
            content.pending.push((offset, bytes[..bytes.len() / 2].to_vec()));
            return Err(io::Error::other("as planned"));
        }
        if offset + bytes.len() > content.cached.len() && content.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        place(&mut content.cached, offset, bytes);
        content.pending.push((offset, bytes.to_vec()));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut content = self.content();
        if content.fail_sync {
            // As the system does: the pages stay in its cache, and are clean.
            content.pending.clear();
            return Err(io::Error::other("as planned"));
        }
        for (offset, bytes) in std::mem::take(&mut content.pending) {
            place(&mut content.durable, offset, &bytes);
        }
        Ok(())
    }
}

type Halves = [MemoryHalf; 2];

fn opened(halves: &Halves) -> Opened<MemoryHalf> {
    open(halves.clone(), SHAPE, &SeededEntropy::new(7)).unwrap()
}

fn replayed(halves: &Halves) -> (Vec<Brief>, Vec<Damage>) {
    let (opened, mut records) = (opened(halves), Vec::new());
    let take = |record: &[u8]| {
        records.push(record.to_vec());
        Ok::<(), io::Error>(())
    };
    opened.replay(take).unwrap();
    assert_eq!(opened.records(), records.len() as u64);
    (brief(&records), opened.damages().to_vec())
}

fn started(halves: &Halves) -> Journal<MemoryHalf> {
    opened(halves).begin().unwrap()
}

/// A record, short enough to be printed: its length and checksum.
type Brief = (usize, u32);

fn brief<R: AsRef<[u8]>>(records: &[R]) -> Vec<Brief> {
    records.iter().map(|record| (record.as_ref().len(), crc32c(record.as_ref()))).collect()
}

#[test]
fn records_come_back_in_order_until_their_generation_is_released() {
    let halves = Halves::default();
    let mut journal = started(&halves);
    journal.append(&[b"one".as_slice(), b""]).unwrap();
    assert!(journal.rotate().unwrap());
    journal.append(&[b"two".as_slice()]).unwrap();
    assert!(!journal.rotate().unwrap(), "the first half still counts");
    assert_eq!(replayed(&halves), (brief(&[b"one".as_slice(), b"", b"two"]), vec![]));
    journal.release(1);
    assert_eq!((journal.durably_released(), replayed(&halves).0.len()), (0, 3), "a release is durable with a group");
    journal.append(&[b"three".as_slice()]).unwrap();
    assert_eq!((journal.durably_released(), replayed(&halves).0), (1, brief(&[b"two".as_slice(), b"three"])));
    journal.release(2);
    assert!(journal.rotate().unwrap());
    journal.append(&[b"four".as_slice()]).unwrap();
    assert_eq!(replayed(&halves), (brief(&[b"four"]), vec![]));
}

#[test]
fn a_start_without_records_begins_a_new_generation_and_replays_nothing_twice() {
    let halves = Halves::default();
    let mut journal = started(&halves);
    journal.append(&[b"one".as_slice()]).unwrap();
    let mut journal = started(&halves);
    assert_eq!((journal.generation(), replayed(&halves)), (2, (vec![], vec![])));
    journal.append(&[b"two".as_slice()]).unwrap();
    journal.release(2);
    journal.append::<&[u8]>(&[]).unwrap();
    assert_eq!(replayed(&halves), (vec![], vec![]), "a clean end");
    assert_eq!(started(&halves).generation(), 3);
}

/// A folder that a service was started with by mistake was changed by that start.
#[test]
fn a_start_with_nothing_to_replay_writes_nothing() {
    let halves = Halves::default();
    let mut journal = started(&halves);
    for _start in 0..3 {
        let generation = journal.generation();
        journal.append(&[b"one".as_slice()]).unwrap();
        assert!(journal.rotate().unwrap());
        journal.release(generation);
        journal.append::<&[u8]>(&[]).unwrap();
        let before = halves.each_ref().map(|half| half.content().cached.clone());
        let mut again = started(&halves);
        assert!(halves.iter().zip(&before).all(|(half, before)| half.content().cached == *before));
        again.append(&[b"two".as_slice()]).unwrap();
        assert_eq!(replayed(&halves), (brief(&[b"two"]), vec![]));
        journal = started(&halves);
        assert_eq!(replayed(&halves), (vec![], vec![]));
    }
}

/// What a killed process wrote can be read by the next one, and is lost in a power cut all the same: a release that only
/// the cache knew was believed, so a record came back whose chunk had been deleted since.
#[test]
fn a_start_makes_durable_what_it_read() {
    let halves = Halves::default();
    let mut journal = started(&halves);
    journal.append(&[b"one".as_slice()]).unwrap();
    assert!(journal.rotate().unwrap());
    journal.release(1);
    halves[0].content().fail_sync = true;
    assert!(journal.append::<&[u8]>(&[]).is_err());
    halves[0].content().fail_sync = false;
    assert_eq!(replayed(&halves), (vec![], vec![]), "it is in the cache");
    let _again = started(&halves);
    halves.iter().for_each(|half| half.crash(&mut |_| 0));
    assert_eq!(replayed(&halves), (vec![], vec![]));
}

/// A record that only the cache held was brought to its place in part, before the journal was durable: a power cut then
/// took the record and left the part.
#[test]
fn what_was_read_is_durable_before_it_is_used_also_after_a_sync_that_failed() {
    let halves = Halves::default();
    let mut journal = started(&halves);
    journal.append(&[b"one".as_slice()]).unwrap();
    halves[1].content().fail_sync = true;
    assert!(journal.append(&[b"two".as_slice()]).is_err());
    halves[1].content().fail_sync = false;
    let opened = opened(&halves);
    assert_eq!(opened.records(), 2, "it is in the cache");
    opened.make_durable().unwrap();
    halves.iter().for_each(|half| half.crash(&mut |_| 0));
    assert_eq!(replayed(&halves), (brief(&[b"one", b"two"]), vec![]));
}

/// The records of a generation were damaged after they had been released, and the group that says so was not. The next
/// start took the generation for one without records and went on in it, and the start after that replayed nothing of it.
#[test]
fn a_generation_that_is_released_is_never_gone_on_with() {
    let halves = Halves::default();
    let mut journal = started(&halves);
    journal.append(&[b"one".as_slice()]).unwrap();
    journal.release(1);
    journal.append::<&[u8]>(&[]).unwrap();
    halves[1].damage(|content| content[BLOCK + HEAD_BYTES] ^= 1);
    let mut journal = started(&halves);
    journal.append(&[b"two".as_slice()]).unwrap();
    assert_eq!(replayed(&halves), (brief(&[b"two"]), vec![]));
}

/// Nothing was appended after the start that replayed them, so they were replayed again after the next, whatever had
/// happened to their chunks in between.
#[test]
fn a_start_says_what_it_replayed_even_if_the_newest_generation_is_empty() {
    let halves = Halves::default();
    let mut journal = started(&halves);
    journal.append(&[b"one".as_slice()]).unwrap();
    assert!(journal.rotate().unwrap());
    journal.append::<&[u8]>(&[]).unwrap();
    assert_eq!(replayed(&halves), (brief(&[b"one"]), vec![]));
    let _again = started(&halves);
    assert_eq!(replayed(&halves), (vec![], vec![]));
}

#[test]
fn a_full_half_says_so_and_keeps_room_for_the_release() {
    let halves = Halves::default();
    let mut journal = started(&halves);
    let record = vec![7; 256 * 1024];
    let fill = |journal: &mut Journal<_>| {
        while journal.append(&[&record]).is_ok() {}
        assert!(matches!(journal.append(&[&record]), Err(AppendError::Full)));
        while journal.append(&[b"small".as_slice()]).is_ok() {}
        assert!(journal.used_percent() >= 99);
    };
    fill(&mut journal);
    assert!(journal.rotate().unwrap());
    fill(&mut journal);
    assert!(!journal.rotate().unwrap());
    journal.release(1);
    assert!(journal.rotate().unwrap(), "the release has a block of its own");
    fill(&mut journal);
    assert!(halves.iter().all(|half| half.size().unwrap() == HALF_BYTES_MIN));
    assert!(matches!(journal.append(&[vec![0; GROUP_BYTES_MAX]]), Err(AppendError::TooLarge(_))));
}

#[test]
fn what_could_not_be_written_leaves_the_journal_usable_and_what_could_not_be_synced_does_not() {
    let halves = Halves::default();
    let mut journal = started(&halves);
    journal.append(&[b"one".as_slice()]).unwrap();
    halves[1].content().fail_write = true;
    assert!(matches!(journal.append(&[b"lost".as_slice()]), Err(AppendError::Write(_))));
    journal.append(&[b"two".as_slice()]).unwrap();
    assert_eq!(replayed(&halves), (brief(&[b"one".as_slice(), b"two"]), vec![]));
    halves[1].content().fail_sync = true;
    assert!(matches!(journal.append(&[b"unknown".as_slice()]), Err(AppendError::Sync(_))));
    halves[1].content().fail_sync = false;
    assert!(matches!(journal.append(&[b"refused".as_slice()]), Err(AppendError::Sync(_))), "it is never tried again");
}

/// A full disk must not keep out what makes room on it: deletes, which the journal has to hear of.
#[test]
fn on_a_full_disk_the_blocks_that_there_are_do() {
    let halves = Halves::default();
    let mut journal = started(&halves);
    halves.iter().for_each(|half| half.content().full = true);
    for generation in 1..10 {
        let mut groups = 0;
        while journal.append(&[b"forget it".as_slice()]).is_ok() {
            groups += 1;
        }
        assert!(groups >= 14, "{groups} groups in blocks that were taken at the start");
        assert!(matches!(journal.append(&[b"more".as_slice()]), Err(AppendError::Full)));
        journal.release(generation);
        assert!(journal.rotate().unwrap(), "there is a block for what was released");
    }
    let halves = Halves::default();
    halves.iter().for_each(|half| half.content().full = true);
    assert!(open(halves.clone(), SHAPE, &SeededEntropy::new(7)).is_err(), "not even a head");
}

/// Groups of one, two and many blocks in two generations; neither is released.
fn sample() -> (Halves, Vec<Brief>) {
    let halves = Halves::default();
    let mut journal = started(&halves);
    let records: Vec<Vec<u8>> =
        [3, 5_000, 20_000, 1, 5_001, 9].iter().map(|size| vec![u8::try_from(size % 251).unwrap(); *size]).collect();
    for (index, record) in records.iter().enumerate() {
        if index == 3 {
            assert!(journal.rotate().unwrap());
        }
        journal.append(&[record]).unwrap();
    }
    (halves, brief(&records))
}

#[test]
fn damage_before_the_last_group_is_reported_and_costs_only_its_own_group() {
    let (halves, records) = sample();
    // Where the groups of a half are, by their first blocks.
    let groups = [(1, 0, 1), (1, 1, 2), (1, 2, 4), (0, 3, 1), (0, 4, 2)];
    for (half, record, block) in groups {
        for byte in [0, 39, HEAD_BYTES - 1, HEAD_BYTES, HEAD_BYTES + 4] {
            let at = block * BLOCK + byte;
            let before = halves[half].content().cached[at];
            halves[half].damage(|content| content[at] ^= 0x10);
            let (found, damages) = replayed(&halves);
            assert_eq!(found, [&records[..record], &records[record + 1..]].concat(), "{half} {at}");
            assert_eq!(damages.len(), 1, "{half} {at}");
            assert!(damages[0].from <= at as u64 && at as u64 <= damages[0].to);
            halves[half].damage(|content| content[at] = before);
        }
    }
    assert_eq!(replayed(&halves), (records, vec![]));
}

#[test]
fn every_flipped_bit_of_the_last_group_makes_it_the_write_that_was_cut_off() {
    let (halves, records) = sample();
    let at = 4 * BLOCK;
    // Its head but for the zeros that nobody reads, and its only record.
    for bit in (0..(HEAD_BYTES + 4 + 9) * 8).filter(|bit| !(52 * 8..60 * 8).contains(bit)) {
        halves[0].damage(|content| content[at + bit / 8] ^= 1 << (bit % 8));
        assert_eq!(replayed(&halves), (records[..5].to_vec(), vec![]), "bit {bit}");
        halves[0].damage(|content| content[at + bit / 8] ^= 1 << (bit % 8));
    }
}

#[test]
fn a_lost_half_is_noticed() {
    let (halves, records) = sample();
    halves[1].damage(Vec::clear);
    let (found, damages) = replayed(&halves);
    assert_eq!(found, records[3..]);
    assert_eq!(damages, [Damage { generation: 1, from: BLOCK_BYTES, to: 20 }]);
}

/// A record is what a stranger wrote. One that looked like a group, at the place where a broken one is searched for the
/// next, must not become records of its own.
#[test]
fn a_record_that_imitates_a_group_is_not_taken_for_one() {
    let (halves, _records) = sample();
    let imitated = halves[0].content().cached[BLOCK..2 * BLOCK].to_vec();
    let victim = Halves::default();
    let mut journal = open(victim.clone(), SHAPE, &SeededEntropy::new(8)).unwrap().begin().unwrap();
    // What it imitates begins with the second block.
    let mut record = vec![0; BLOCK - HEAD_BYTES - 4];
    record.extend_from_slice(&imitated);
    journal.append(&[&record]).unwrap();
    victim[1].damage(|content| content[BLOCK] ^= 1);
    assert_eq!(replayed(&victim), (vec![], vec![]));
}

#[test]
fn files_that_are_no_halves_are_refused_and_interrupted_ones_are_made_again() {
    let halves = Halves::default();
    halves[0].damage(|content| content.extend_from_slice(b"torn"));
    assert_eq!(replayed(&halves), (vec![], vec![]));
    let (halves, _) = sample();
    halves[0].damage(|content| content[0] ^= 1);
    assert_eq!(replayed(&halves).0.len(), 6, "the other half knows the salt");
    for half in &halves {
        half.damage(|content| content[3] ^= 1);
    }
    assert!(matches!(open(halves.clone(), SHAPE, &SeededEntropy::new(1)), Err(OpenError::NoHead)));
    let newer = Halves::default();
    newer[1].damage(|content| {
        content.extend_from_slice(b"mtjrnl\0\x02salt-now");
        let crc = crc32c(content);
        content.extend_from_slice(&crc.to_be_bytes());
    });
    assert!(matches!(open(newer, SHAPE, &SeededEntropy::new(1)), Err(OpenError::TooNew { found: 2 })));
}

#[derive(Debug, Clone)]
enum Step {
    Append(Vec<usize>),
    Rotate,
    Release,
    /// In the middle of a group.
    CrashIn(Vec<usize>, Vec<u8>),
    Restart,
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(prop_oneof![0_usize..100, 3_900_usize..4_200, 10_000_usize..30_000], 0..4)
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => sizes().prop_map(Step::Append),
        2 => Just(Step::Rotate),
        2 => Just(Step::Release),
        2 => (sizes(), prop::collection::vec(any::<u8>(), 64)).prop_map(|(sizes, fates)| Step::CrashIn(sizes, fates)),
        1 => Just(Step::Restart),
    ]
}

/// What must come back: records, each with its generation.
#[derive(Debug, Default)]
struct Model {
    records: Vec<(u64, Vec<u8>)>,
    serial: u8,
}

impl Model {
    fn draw(&mut self, sizes: &[usize]) -> Vec<Vec<u8>> {
        self.serial = self.serial.wrapping_add(1);
        sizes.iter().map(|size| vec![self.serial; *size]).collect()
    }

    fn note(&mut self, generation: u64, records: Vec<Vec<u8>>) {
        self.records.extend(records.into_iter().map(|record| (generation, record)));
    }

    fn behind(&self, released: u64) -> Vec<Brief> {
        let records = self.records.iter().filter(|(generation, _)| *generation > released);
        brief(&records.map(|(_, record)| record).collect::<Vec<_>>())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Everything appended and not durably released comes back in order, whatever a crash does to the group in flight, which
    /// comes back whole or not at all; nothing else comes back, and nothing counts as damaged.
    #[test]
    fn what_was_appended_survives_every_crash_until_it_is_released(steps in prop::collection::vec(step(), 1..40)) {
        let halves = Halves::default();
        let (mut journal, mut model) = (started(&halves), Model::default());
        for step in steps {
            match step {
                Step::Append(sizes) => {
                    let records = model.draw(&sizes);
                    match journal.append(&records) {
                        Ok(()) => model.note(journal.generation(), records),
                        Err(AppendError::Full) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
                Step::Rotate => {
                    journal.rotate().unwrap();
                }
                Step::Release => journal.release(journal.generation().saturating_sub(1)),
                Step::CrashIn(sizes, fates) => {
                    let records = model.draw(&sizes);
                    let (before, with) = (journal.durably_released(), journal.released);
                    let half = &halves[usize::from(!journal.generation().is_multiple_of(2))];
                    half.content().fail_sync = true;
                    drop(journal.append(&records));
                    half.content().fail_sync = false;
                    let mut fates = fates.into_iter().cycle();
                    let mut choose = |below: usize| usize::from(fates.next().unwrap()) % below;
                    halves.iter().for_each(|half| half.crash(&mut choose));
                    let (found, damages) = replayed(&halves);
                    let (lost, kept) = (model.behind(before), [model.behind(with), brief(&records)].concat());
                    prop_assert!(found == lost || found == kept, "{found:?} is neither {lost:?} nor {kept:?}");
                    prop_assert_eq!(damages, vec![]);
                    journal = started(&halves);
                    model.records.clear();
                }
                Step::Restart => {
                    prop_assert_eq!(replayed(&halves), (model.behind(journal.durably_released()), vec![]));
                    journal = started(&halves);
                    model.records.clear();
                }
            }
        }
        prop_assert_eq!(replayed(&halves), (model.behind(journal.durably_released()), vec![]));
    }
}

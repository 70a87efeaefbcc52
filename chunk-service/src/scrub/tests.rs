use futures_util::FutureExt as _;
use proto::entropy::SeededEntropy;
use proto::runtime::worker::{Schedule, Settings};
use proto::runtime::{Clock as _, ManualClock, TaskGroup};

use super::control::ORDERED_MAX;
use super::visits::visit;
use super::*;
use crate::metadata_link::ScrubOrder;
use crate::store::testing::faulty_disk::Call;
use crate::store::testing::world::{World, blob, chk, pattern, place};
use crate::store::verify::Condition;

/// A scrub over a world's store.
struct Scrubbed {
    control: ScrubControl,
    clock: Arc<ManualClock>,
    inspector: Arc<Inspector>,
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn scrub(world: &World, pace: u64, interval: Option<Duration>) -> Scrubbed {
    let clock = Arc::new(ManualClock::at(1_764_000_000_000));
    let time = Arc::new(NodeTime::new(Arc::clone(&clock) as _));
    let inspector = Arc::new(Inspector { store: Arc::clone(&world.store), metadata: Arc::clone(&world.oracle) as _ });
    let settings = ScrubSettings { period: 14 * DAY, pace };
    let entropy = Arc::new(SeededEntropy::new(1));
    let control =
        ScrubControl::start(&TaskGroup::new(), Arc::clone(&inspector), time, settings, Schedule { interval }, entropy);
    Scrubbed { control, clock, inspector }
}

/// What an operator wants; the last run was asked for long ago.
fn order(paused: bool, pace_per_second: Option<u64>, run_count: u64) -> ScrubOrder {
    ScrubOrder { paused, pace_per_second, run_count, run_ms: None }
}

/// Far more than any test reads.
const FAST: u64 = 1 << 50;

/// Waits on paused time, so that it takes none, until a condition holds.
async fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..100_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what}: never");
}

#[tokio::test]
async fn everything_is_looked_at_and_what_is_sound_is_left_alone() {
    let world = World::new();
    for number in 0..7 {
        world.put_sealed(place(number), &pattern(1_000, number)).await;
    }
    let unfinished = place(100);
    world.put(unfinished, b"no receipt is known").await.unwrap();
    world.disk.damage(&blob(&unfinished), |content| content[0] ^= 1);
    let before = world.disk.names();
    let pass = scrub(&world, FAST, None).control.run().await.unwrap();
    assert_eq!(pass, Pass { examined: 7, ..Pass::default() }, "what is still written is nobody's damage");
    let after = world.disk.names().into_iter().filter(|name| name != "scrub.position").collect::<Vec<_>>();
    assert_eq!(after, before);
}

#[tokio::test]
async fn damage_of_every_kind_is_reported_left_in_place_and_taken_back_when_it_is_gone() {
    let world = World::new();
    let [flipped, lost, cut, one, other, stale, sound] = [1, 2, 3, 4, 5, 6, 7].map(place);
    for place in [flipped, lost, cut, one, other, stale, sound] {
        world.put_sealed(place, &pattern(1_000, place.sequence)).await;
    }
    world.oracle.seal(stale, &pattern(1_000, 999));
    world.oracle.seal(other, &pattern(1_000, 998));
    world.disk.damage(&blob(&other), |content| content.clone_from(&pattern(1_000, 998)));
    world.disk.swap(&blob(&one), &blob(&other));
    world.disk.swap(&chk(&one), &chk(&other));
    world.disk.damage(&blob(&flipped), |content| content[77] ^= 1);
    world.disk.damage(&blob(&cut), |content| content.truncate(10));
    world.disk.lose(&blob(&lost));
    let damaged = world.disk.bytes(&blob(&flipped));
    let scrubbed = scrub(&world, FAST, None);
    let pass = scrubbed.control.run().await.unwrap();
    assert_eq!(pass, Pass { examined: 7, failed: 6, ..Pass::default() });
    let conditions = [flipped, lost, cut, one, other, stale, sound].map(|place| world.oracle.damaged(place.chunk));
    let corrupt = Some(Condition::Corrupt);
    assert_eq!(conditions, [corrupt, Some(Condition::Missing), corrupt, corrupt, corrupt, corrupt, None]);
    assert_eq!(world.disk.bytes(&blob(&flipped)), damaged, "it stays as it is");

    world.disk.damage(&blob(&flipped), |content| content[77] ^= 1);
    world.disk.swap(&blob(&one), &blob(&other));
    world.disk.lose(&chk(&one));
    scrubbed.control.run().await.unwrap();
    assert_eq!(world.oracle.damaged(flipped.chunk), None, "the good bytes are back");
    assert_eq!(world.oracle.damaged(one.chunk), None, "also where only the checksum file had to be written");
    assert_eq!(world.oracle.damaged(cut.chunk), corrupt);
}

#[tokio::test]
async fn a_bad_checksum_file_is_written_again_and_is_no_damage() {
    let (world, place) = (World::new(), place(1));
    world.put_sealed(place, &pattern(1_000, 1)).await;
    let sound = world.disk.bytes(&chk(&place));
    world.disk.damage(&chk(&place), |content| content[40] ^= 1);
    let pass = scrub(&world, FAST, None).control.run().await.unwrap();
    assert_eq!(pass, Pass { examined: 1, changed: 1, ..Pass::default() });
    assert_eq!((world.disk.bytes(&chk(&place)), world.oracle.damaged(place.chunk)), (sound, None));
}

#[tokio::test]
async fn without_the_metadata_nothing_is_concluded_and_the_scrub_goes_on_where_it_was() {
    let mut world = World::new();
    for number in 0..6 {
        world.put_sealed(place(number), &pattern(1_000, number)).await;
    }
    let first = scrub(&world, FAST, None);
    assert!(first.control.run_a_pass().await.unwrap().more);
    world.oracle.set_unreachable(true);
    world.disk.lose(&blob(&place(5)));
    assert!(first.control.run_a_pass().await.is_err());
    first.control.keep_position().await;
    drop(first);
    world = world.restart().await;
    let second = scrub(&world, FAST, None);
    assert!(second.control.run_a_pass().await.is_err());
    assert!((0..6).all(|number| world.oracle.damaged(place(number).chunk).is_none()));
    world.oracle.set_unreachable(false);
    let mut examined = 2;
    loop {
        let pass = second.control.run_a_pass().await.unwrap();
        examined += pass.examined;
        if !pass.more {
            break;
        }
    }
    assert_eq!(examined, 6, "none is read twice, across a restart and a failure, and none is left out");
    let damaged = (0..6).filter(|number| world.oracle.damaged(place(*number).chunk).is_some()).collect::<Vec<_>>();
    assert_eq!(damaged, [5]);
}

#[tokio::test]
async fn a_chunk_that_is_deleted_meanwhile_is_no_damage() {
    let (world, place) = (World::new(), place(1));
    world.put_sealed(place, b"bytes").await;
    let inspector = scrub(&world, FAST, None).inspector;
    let claims = crate::store::testing::world::claims(b"bytes");
    world.oracle.set(place.chunk, crate::store::Described::Unknown);
    world.store.delete(place.chunk).await.unwrap();
    let finding = world.store.verify(place, claims, false).await.unwrap();
    assert_eq!(finding.condition, Condition::Missing);
    assert_eq!(inspector.conclude(place, claims, finding, false).await.unwrap(), Verdict::Gone);
    assert_eq!(world.oracle.damaged(place.chunk), None);
}

/// The clock is tokio's, and it is paused: it moves only when everybody waits for it.
#[tokio::test(start_paused = true)]
async fn the_scrub_reads_no_faster_than_its_pace_and_an_operator_changes_it_under_way() {
    let world = World::new();
    for number in 0..8 {
        world.put_sealed(place(number), &pattern(1_000_000, number)).await;
    }
    let scrubbed = scrub(&world, 1_000_000, None);
    let start = Instant::now();
    scrubbed.control.run().await.unwrap();
    let took = start.elapsed().as_secs_f64();
    assert!((6.9..=8.2).contains(&took), "8 MB at 1 MB a second, the last is paid by whoever comes next: {took}");
    scrubbed.control.obey(order(false, Some(100_000), 0));
    let start = Instant::now();
    scrubbed.control.run().await.unwrap();
    let took = start.elapsed().as_secs_f64();
    assert!((69.0..=82.0).contains(&took), "a tenth of that: {took}");
    scrubbed.control.obey(order(false, None, 0));
    let start = Instant::now();
    scrubbed.control.run().await.unwrap();
    assert!(start.elapsed().as_secs_f64() <= 8.2, "the order was taken back");
}

#[tokio::test(start_paused = true)]
async fn a_paused_scrub_stands_still_and_goes_on_where_it_was() {
    let world = World::new();
    for number in 0..8 {
        world.put_sealed(place(number), &pattern(1_000_000, number)).await;
    }
    let reads = || world.faults.made(Call::Read);
    let scrubbed = scrub(&world, 1_000_000, Some(Duration::from_secs(10)));
    until("the scrub begins", || scrubbed.control.report(0).status.passes > 0).await;
    scrubbed.control.obey(order(true, None, 0));
    tokio::time::sleep(Duration::from_secs(60)).await;
    let stopped_at = reads();
    tokio::time::sleep(DAY).await;
    assert_eq!(reads(), stopped_at);
    assert!(scrubbed.control.report(0).status.last_sweep.is_none());
    scrubbed.control.obey(order(false, None, 0));
    until("it has ended", || scrubbed.control.report(0).status.last_sweep.is_some()).await;
    let all = reads();
    tokio::time::sleep(DAY).await;
    assert_eq!(reads(), all, "the next one is due after the period");
    scrubbed.clock.advance(14 * DAY);
    until("it begins again", || reads() > all).await;
}

#[tokio::test(start_paused = true)]
async fn a_run_that_an_operator_asks_for_begins_at_once_and_once() {
    let world = World::new();
    world.put_sealed(place(1), b"bytes").await;
    let scrubbed = scrub(&world, FAST, None);
    let passes = || scrubbed.control.report(0).status.passes;
    scrubbed.control.obey(order(true, None, 7));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(passes(), 0, "nobody has asked yet");
    for _ in 0..3 {
        scrubbed.control.obey(order(true, None, 8));
        until("it runs, paused or not", || passes() == 1).await;
    }
    assert_eq!(scrubbed.control.report(0).settings, Settings { paused: true, pace_per_second: FAST });
}

#[tokio::test]
async fn damage_that_a_read_met_is_reported_without_waiting_for_the_scrub() {
    let (world, sound, bad) = (World::new(), place(1), place(2));
    world.put_sealed(sound, b"sound").await;
    world.put_sealed(bad, b"bytes").await;
    let Scrubbed { inspector, .. } = scrub(&world, FAST, None);
    world.disk.damage(&blob(&bad), |content| content[0] ^= 1);
    assert!(world.get(sound, b"sound", crate::store::testing::world::ALL).await.is_ok());
    assert!(world.get(bad, b"bytes", crate::store::testing::world::ALL).await.is_err());
    let reported = async {
        while world.oracle.damaged(bad.chunk).is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = visit_suspects(&inspector) => {}
        () = reported => {}
    }
    assert_eq!(world.oracle.damaged(bad.chunk), Some(Condition::Corrupt));
    assert_eq!(world.oracle.damaged(sound.chunk), None);
}

/// A restart in the middle of a sweep once let the rest of it go without any bound.
#[tokio::test(start_paused = true)]
async fn a_sweep_keeps_to_its_pace_after_a_restart() {
    let mut world = World::new();
    for number in 0..8 {
        world.put_sealed(place(number), &pattern(1_000_000, number)).await;
    }
    let first = scrub(&world, 1_000_000, None);
    assert!(first.control.run_a_pass().await.unwrap().more);
    first.control.keep_position().await;
    drop(first);
    world = world.restart().await;
    let (rest, start) = (scrub(&world, 1_000_000, None), Instant::now());
    while rest.control.run_a_pass().await.unwrap().more {}
    let took = start.elapsed().as_secs_f64();
    assert!((4.8..=6.2).contains(&took), "the other 6 MB: {took}");
}

/// A run that was asked for before a node's first heartbeat was never begun: the first number that a process heard only
/// told it where counting began.
#[tokio::test(start_paused = true)]
async fn a_run_that_was_asked_for_before_the_process_heard_of_it_is_made_unless_it_was() {
    let mut world = World::new();
    world.put_sealed(place(1), b"bytes").await;
    let asked = |ms: u64| ScrubOrder { run_ms: Some(ms), ..order(true, None, 7) };
    let first = scrub(&world, FAST, None);
    let now = first.clock.now_ms();
    first.control.obey(asked(now - 5_000));
    let status = || first.control.report(0).status;
    until("it runs", || status().last_sweep.is_some()).await;
    until("its place is free", || first.control.ordered.available_permits() == ORDERED_MAX).await;
    drop(first);
    for (asked_ms, passes) in [(now - 5_000, 0), (now, 0), (now + 1, 1)] {
        world = world.restart().await;
        let next = scrub(&world, FAST, None);
        next.control.obey(asked(asked_ms));
        until("it is looked into", || next.control.ordered.available_permits() == ORDERED_MAX).await;
        assert_eq!(next.control.report(0).status.passes, passes, "asked for at {asked_ms}, swept at {now}");
    }
}

/// A run that an operator asked for was forgotten when its first pass failed: the next sweep was due after the period.
#[tokio::test(start_paused = true)]
async fn a_run_that_fails_at_first_is_gone_on_with() {
    let world = World::new();
    world.put_sealed(place(1), b"bytes").await;
    let scrubbed = scrub(&world, FAST, Some(Duration::from_secs(10)));
    let status = || scrubbed.control.report(0).status;
    until("a first sweep", || status().last_sweep.is_some()).await;
    let reads = world.faults.made(Call::Read);
    world.oracle.set_unreachable(true);
    scrubbed.control.obey(order(false, None, 7));
    scrubbed.control.obey(order(false, None, 8));
    until("it fails", || status().last_error.is_some()).await;
    world.oracle.set_unreachable(false);
    until("everything is read again", || world.faults.made(Call::Read) > reads).await;
}

/// A stop cuts the scrub where it waits. A repair that was cut with it once gave up its chunk while the disk was at work on
/// the checksum file, and a delete could come in between.
#[tokio::test]
async fn a_repair_owns_its_chunk_until_it_has_ended() {
    let (mut world, place) = (World::new(), place(1));
    world.put_sealed(place, b"bytes").await;
    world.disk.lose(&chk(&place));
    let (inspector, claims) = (scrub(&world, FAST, None).inspector, crate::store::testing::world::claims(b"bytes"));
    let finding = world.store.verify(place, claims, false).await.unwrap();
    let (resume, synced) = (world.faults.pause(Call::SyncFolder), world.faults.made(Call::SyncFolder));
    let at_work = async {
        while world.faults.made(Call::SyncFolder) == synced {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        concluded = inspector.conclude(place, claims, finding, false) => panic!("it waits for the disk: {concluded:?}"),
        () = at_work => {}
    }
    assert!(!world.store.is_idle(), "it goes on");
    drop(resume);
    world.settle().await;
    assert!(world.store.is_idle() && world.disk.bytes(&chk(&place)).is_some());
}

/// A chunk that was once suspected and sound was never visited again, whatever became of it.
#[tokio::test]
async fn a_suspect_that_was_found_sound_is_visited_again_when_a_read_finds_it_bad() {
    let (world, place) = (World::new(), place(1));
    world.put_sealed(place, b"bytes").await;
    let (inspector, claims) = (scrub(&world, FAST, None).inspector, crate::store::testing::world::claims(b"bytes"));
    for sound in [true, false] {
        world.store.suspects().add(place, claims);
        assert!(world.store.suspects().next().now_or_never().is_some());
        visit(&inspector, place, claims).await;
        assert_eq!(world.oracle.damaged(place.chunk).is_none(), sound);
        world.disk.damage(&blob(&place), |content| content[0] ^= 1);
    }
    world.store.suspects().add(place, claims);
    assert!(world.store.suspects().next().now_or_never().is_none(), "that it is damaged has been told");
}

/// Each pass once cost two syncs, for a position that hardly moved.
#[tokio::test(start_paused = true)]
async fn the_position_is_kept_once_in_a_while_and_a_crash_costs_reading_a_little_again() {
    let mut world = World::new();
    for number in 0..32 {
        world.put_sealed(place(number), &pattern(10, number)).await;
    }
    let syncs = |world: &World| world.faults.made(Call::Sync) + world.faults.made(Call::SyncFolder);
    let (scrubbed, before) = (scrub(&world, FAST, None), syncs(&world));
    scrubbed.control.run().await.unwrap();
    assert_eq!(syncs(&world) - before, 2, "16 passes, and the position is kept at the end");

    assert!(scrubbed.control.run_a_pass().await.unwrap().more);
    assert_eq!(syncs(&world) - before, 2, "a sweep that has just begun");
    tokio::time::advance(KEEP_AFTER).await;
    assert!(scrubbed.control.run_a_pass().await.unwrap().more);
    assert_eq!(syncs(&world) - before, 4, "a minute later");
    assert!(scrubbed.control.run_a_pass().await.unwrap().more);
    drop(scrubbed);
    world = world.crash(&mut |_below| 0).await;
    let (rest, mut examined) = (scrub(&world, FAST, None), 0);
    loop {
        let pass = rest.control.run_a_pass().await.unwrap();
        examined += pass.examined;
        if !pass.more {
            break;
        }
    }
    assert_eq!(examined, 28, "two passes of two chunks were kept, the third is made again");
}

/// A run that an operator asked for while another was under way once sent that one back to the first chunk, and a pass of
/// the timer's that ended the sweep had the run begin a second one.
#[tokio::test(start_paused = true)]
async fn overlapping_runs_follow_each_other_and_the_timer_stands_back() {
    let world = World::new();
    for number in 0..8 {
        world.put_sealed(place(number), &pattern(1_000_000, number)).await;
    }
    let scrubbed = scrub(&world, 1_000_000, Some(Duration::from_millis(700)));
    let opened = world.faults.made(Call::Open);
    let (one, other) = tokio::join!(scrubbed.control.run(), scrubbed.control.run());
    for pass in [one.unwrap(), other.unwrap()] {
        assert_eq!(pass, Pass { examined: 8, ..Pass::default() });
    }
    assert_eq!(world.faults.made(Call::Open) - opened, 2 * 8 * 2 + 1, "each chunk's two files twice, and the position");
    for run_count in 7..20 {
        scrubbed.control.obey(order(false, None, run_count));
    }
    assert_eq!(scrubbed.control.ordered.available_permits(), 0, "one that runs, and one for all the others");
    until("they end", || scrubbed.control.ordered.available_permits() == ORDERED_MAX).await;
    assert_eq!(world.faults.made(Call::Open) - opened, 4 * 8 * 2 + 1);
}

//! The rules in simulated time: a disk with places for some jobs, and clients that ask for a job, wait, and ask again.

use proptest::prelude::*;

use super::*;

const MS: Duration = Duration::from_millis(1);

fn account(class: TrafficClass, tenant: &str) -> Account {
    Account { class, tenant: Some(tenant.parse().unwrap()) }
}

/// Clients of one account, each with one job at a time.
#[derive(Debug, Clone)]
struct Clients {
    account: Account,
    count: usize,
    takes: Duration,
    /// Between a job's end and the next request.
    pause: Duration,
}

fn clients(class: TrafficClass, tenant: &str, count: usize, takes: Duration, pause: Duration) -> Clients {
    Clients { account: account(class, tenant), count, takes, pause }
}

#[derive(Debug)]
struct Disk {
    rota: Rota,
    groups: Vec<Clients>,
    now: Duration,
    /// When a client asks for its next job.
    asks: BTreeMap<(Duration, u64), usize>,
    /// When a job ends.
    ends: BTreeMap<(Duration, Id), usize>,
    asked: HashMap<Id, usize>,
    order: u64,
    served: Vec<Duration>,
    longest_wait: Vec<Duration>,
    /// Asked after everything that happened.
    idle_while_somebody_waits: bool,
}

impl Disk {
    fn new(rules: Rules, groups: Vec<Clients>) -> Self {
        let mut disk = Self {
            rota: Rota::new(rules),
            now: Duration::ZERO,
            asks: BTreeMap::new(),
            ends: BTreeMap::new(),
            asked: HashMap::new(),
            order: 0,
            served: vec![Duration::ZERO; groups.len()],
            longest_wait: vec![Duration::ZERO; groups.len()],
            idle_while_somebody_waits: false,
            groups,
        };
        for group in 0..disk.groups.len() {
            for _client in 0..disk.groups[group].count {
                disk.asks_at(Duration::ZERO, group);
            }
        }
        disk
    }

    fn asks_at(&mut self, at: Duration, group: usize) {
        self.order += 1;
        self.asks.insert((at, self.order), group);
    }

    fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let next_ask = self.asks.keys().next().map(|(at, _)| *at);
            let next_end = self.ends.keys().next().map(|(at, _)| *at);
            let Some(at) = next_ask.into_iter().chain(next_end).min().filter(|at| *at <= end) else { break };
            self.now = at;
            if next_end == Some(at) {
                let ((_, id), group) = self.ends.pop_first().unwrap();
                let takes = self.groups[group].takes;
                self.rota.end(at, id, takes);
                self.served[group] += takes;
                self.asks_at(at + self.groups[group].pause, group);
            } else {
                let (_, group) = self.asks.pop_first().unwrap();
                let id = self.rota.request(at, &self.groups[group].account.clone(), false);
                self.asked.insert(id, group);
            }
            self.hand_out();
        }
        self.now = end;
    }

    fn hand_out(&mut self) {
        while let Some(Granted { id, waited, .. }) = self.rota.next(self.now) {
            let group = self.asked.remove(&id).unwrap();
            self.longest_wait[group] = self.longest_wait[group].max(waited);
            self.ends.insert((self.now + self.groups[group].takes, id), group);
        }
        let idle = self.rota.running() < self.rota.rules.places;
        self.idle_while_somebody_waits |= idle && self.rota.waiting() > 0;
    }

    /// Parts of the disk time that each group had from now on, in percent.
    fn shares_over(&mut self, time: Duration) -> Vec<f64> {
        let before = self.served.clone();
        self.run_for(time);
        let had: Vec<f64> = self.served.iter().zip(before).map(|(now, then)| (*now - then).as_secs_f64()).collect();
        let all: f64 = had.iter().sum();
        had.iter().map(|had| 100.0 * had / all).collect()
    }
}

fn near(found: &[f64], expected: &[f64], by: f64) -> bool {
    found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() <= by)
}

use TrafficClass::{Bronze, Gold, Silver};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn without_gold_no_place_is_free_while_somebody_waits(
        places in 1_usize..33,
        loads in prop::collection::vec((any::<bool>(), 0_u8..4, 1_usize..40, 1_u32..50, 0_u32..60), 1..6),
    ) {
        let groups = loads.into_iter().map(|(silver, tenant, count, takes, pause)| {
            let class = if silver { Silver } else { Bronze };
            clients(class, &format!("tenant-{tenant}"), count, takes * MS, pause * MS)
        });
        let mut disk = Disk::new(Rules::new(places, true), groups.collect());
        disk.run_for(Duration::from_secs(5));
        prop_assert!(!disk.idle_while_somebody_waits);
    }

    #[test]
    fn gold_within_its_share_waits_for_one_job_at_most(
        places in 8_usize..33,
        gold in 1_usize..3,
        gold_takes in 1_u32..5,
        lower in prop::collection::vec((1_usize..200, 1_u32..20), 1..4),
        class in prop_oneof![Just(Silver), Just(Bronze)],
    ) {
        let longest = lower.iter().map(|(_, takes)| *takes).max().unwrap() * MS;
        let mut groups = vec![clients(Gold, "gold", gold, gold_takes * MS, 2 * gold_takes * MS)];
        groups.extend(lower.into_iter().enumerate().map(|(number, (count, takes))| {
            clients(class, &format!("lower-{number}"), count, takes * MS, Duration::ZERO)
        }));
        let mut disk = Disk::new(Rules::new(places, true), groups);
        disk.run_for(Duration::from_secs(10));
        prop_assert!(disk.longest_wait[0] <= longest, "{:?} behind jobs of {longest:?}", disk.longest_wait[0]);
        prop_assert!(disk.served[1..].iter().sum::<Duration>() > Duration::ZERO);
    }

    #[test]
    fn classes_that_all_want_everything_have_their_shares_of_disk_time(
        places in 1_usize..17,
        takes in [5_u32..30, 5..30, 5..30],
    ) {
        let want = |class, takes: u32| clients(class, "posts", 2 * places, takes * MS, Duration::ZERO);
        let groups = vec![want(Gold, takes[0]), want(Silver, takes[1]), want(Bronze, takes[2])];
        let mut disk = Disk::new(Rules::new(places, true), groups);
        disk.run_for(Duration::from_secs(5));
        let shares = disk.shares_over(Duration::from_secs(20));
        prop_assert!(near(&shares, &[60.0, 30.0, 10.0], 3.0), "{shares:?}");
        let want = |class, takes: u32| clients(class, "posts", 2 * places, takes * MS, Duration::ZERO);
        let mut disk = Disk::new(Rules::new(places, true), vec![want(Silver, takes[0]), want(Bronze, takes[1])]);
        let shares = disk.shares_over(Duration::from_secs(20));
        prop_assert!(near(&shares, &[75.0, 25.0], 3.0), "{shares:?}");
    }

    #[test]
    fn nobody_starves_however_much_gold_there_is(
        places in 1_usize..33,
        gold in 1_usize..300,
        takes in [4_u32..30, 4..30],
        class in prop_oneof![Just(Silver), Just(Bronze)],
    ) {
        let flood = clients(Gold, "gold", places + gold, takes[0] * MS, Duration::ZERO);
        let one = clients(class, "lower", 1, takes[1] * MS, Duration::ZERO);
        let mut disk = Disk::new(Rules::new(places, true), vec![flood, one]);
        disk.run_for(Duration::from_secs(2));
        let before = disk.served[1];
        disk.run_for(Duration::from_secs(4));
        // Its share, or all that one client with one job at a time can have.
        let weight = f64::from(u32::try_from(disk.rota.rules.weight(class)).unwrap());
        let share = 4.0 * f64::from(u32::try_from(places).unwrap()) * weight / (60.0 + weight);
        let at_most = 4.0 * f64::from(takes[1]) / f64::from(takes[0] + takes[1]);
        let had = (disk.served[1] - before).as_secs_f64();
        prop_assert!(had >= 0.5 * share.min(at_most), "{had} s of {share} s and {at_most} s");
        // Gold's disk time until bronze is owed a turn, and its turn: a job of gold's to end, and its own.
        let bound = 600 * MS / u32::try_from(places).unwrap() + 200 * MS + takes[0] * 12 * MS;
        let waited = disk.longest_wait[1];
        prop_assert!(waited <= bound, "{waited:?} of {bound:?}");
        prop_assert!(disk.served[1] > Duration::ZERO);
    }

    #[test]
    fn tenants_of_a_class_have_the_same_disk_time_whatever_they_ask_for(
        places in 1_usize..9,
        class in prop_oneof![Just(Gold), Just(Silver), Just(Bronze)],
        takes in [4_u32..30, 4..30],
        crowd in 1_usize..100,
    ) {
        let modest = clients(class, "modest", 2 * places, takes[0] * MS, Duration::ZERO);
        let greedy = clients(class, "greedy", 2 * places + crowd, takes[1] * MS, Duration::ZERO);
        let mut disk = Disk::new(Rules::new(places, true), vec![modest, greedy]);
        disk.run_for(Duration::from_secs(2));
        let shares = disk.shares_over(Duration::from_secs(10));
        prop_assert!(near(&shares, &[50.0, 50.0], 3.0), "{shares:?}");
    }

    #[test]
    fn requests_that_are_taken_back_leave_nothing_behind(
        places in 1_usize..5,
        steps in prop::collection::vec((0_u8..4, 0_usize..3, 0_u8..3, any::<prop::sample::Index>()), 1..200),
    ) {
        let mut rota = Rota::new(Rules::new(places, true));
        let (mut waiting, mut running, mut now) = (Vec::new(), Vec::new(), Duration::ZERO);
        for (what, class, tenant, which) in steps {
            now += MS;
            match what {
                0 | 1 => {
                    let account = account(TrafficClass::ALL[class], &format!("tenant-{tenant}"));
                    waiting.push((rota.request(now, &account, what == 1 && tenant == 0), account));
                }
                2 if !waiting.is_empty() => {
                    let (id, account) = waiting.swap_remove(which.index(waiting.len()));
                    rota.cancel(id, &account);
                    rota.cancel(id, &account);
                }
                _ if !running.is_empty() => {
                    rota.end(now, running.swap_remove(which.index(running.len())), MS);
                }
                _ => {}
            }
            while let Some(granted) = rota.next(now) {
                let place = waiting.iter().position(|(id, _)| *id == granted.id);
                prop_assert!(place.is_some(), "what was taken back has no turn");
                waiting.swap_remove(place.unwrap());
                running.push(granted.id);
            }
            prop_assert_eq!((rota.waiting(), rota.running()), (waiting.len(), running.len()));
            prop_assert!(running.len() <= places);
            prop_assert!(!running.is_empty() || waiting.is_empty(), "the disk does not stand still");
        }
        rota.clear();
        running.into_iter().for_each(|id| rota.end(now, id, MS));
        prop_assert_eq!((rota.waiting(), rota.running(), rota.gold.len()), (0, 0, 0));
    }
}

/// A class that asks for little all the time must not come to be owed for all that it never wanted.
#[test]
fn who_asked_for_little_for_long_has_no_more_than_its_share_then() {
    for (modest, greedy, expected) in [(Gold, Bronze, 600.0 / 7.0), (Bronze, Gold, 100.0 / 7.0)] {
        let trickle = clients(modest, "modest", 1, MS, 50 * MS);
        let flood = clients(greedy, "greedy", 40, 5 * MS, Duration::ZERO);
        let mut disk = Disk::new(Rules::new(8, true), vec![trickle, flood]);
        disk.run_for(Duration::from_secs(60));
        disk.groups[0].pause = Duration::ZERO;
        (0..40).for_each(|_client| disk.asks_at(disk.now, 0));
        disk.run_for(Duration::from_secs(2));
        let shares = disk.shares_over(Duration::from_secs(10));
        assert!(near(&shares[..1], &[expected], 3.0), "{modest:?}: {shares:?}");
    }
}

#[test]
fn with_nobody_else_bronze_has_every_place() {
    let bronze = clients(Bronze, "posts", 64, 3 * MS, Duration::ZERO);
    let mut disk = Disk::new(Rules::new(32, true), vec![bronze]);
    disk.run_for(Duration::from_secs(3));
    assert_eq!(disk.served[0], 32 * Duration::from_secs(3));
}

#[test]
fn a_share_that_is_not_used_goes_to_the_tenant_s_own_first_and_is_not_saved_up() {
    let bronze = |tenant| clients(Bronze, tenant, 8, 5 * MS, Duration::ZERO);
    let gold = clients(Gold, "lender", 1, MS, 200 * MS);
    let mut disk = Disk::new(Rules::new(2, true), vec![bronze("lender"), bronze("other"), gold]);
    disk.run_for(Duration::from_secs(1));
    let shares = disk.shares_over(Duration::from_secs(20));
    assert!(shares[0] > 4.0 * shares[1], "{shares:?}: gold's weight is six times bronze's");
    disk.groups[2].pause = Duration::from_secs(3600);
    disk.run_for(Duration::from_secs(3));
    let shares = disk.shares_over(Duration::from_secs(20));
    assert!(near(&shares, &[50.0, 50.0, 0.0], 3.0), "{shares:?}: who is no gold any more lends nothing");
}

#[test]
fn no_lower_job_begins_while_a_gold_one_is_old_unless_its_class_is_owed() {
    let mut rota = Rota::new(Rules::new(8, true));
    let (gold, bronze) = (account(Gold, "gold"), account(Bronze, "bronze"));
    let old = rota.request(Duration::ZERO, &gold, false);
    assert_eq!(rota.next(Duration::ZERO).unwrap().id, old);
    let young = rota.request(50 * MS, &bronze, false);
    assert_eq!(rota.next(50 * MS).unwrap().id, young, "the gold job is not old yet");
    rota.end(51 * MS, young, MS);
    rota.request(51 * MS, &bronze, false);
    assert_eq!(rota.next(51 * MS), None);
    rota.end(52 * MS, old, 52 * MS);
    assert!(rota.next(52 * MS).is_some(), "it has ended");
}

#[test]
fn while_gold_is_about_few_lower_jobs_run_at_once() {
    let mut rota = Rota::new(Rules::new(32, true));
    let (gold, bronze) = (account(Gold, "gold"), account(Bronze, "bronze"));
    let id = rota.request(Duration::ZERO, &gold, false);
    assert!(rota.next(Duration::ZERO).is_some());
    rota.end(MS, id, MS);
    for _ in 0..40 {
        rota.request(MS, &bronze, false);
    }
    let begun = |rota: &mut Rota, now| std::iter::from_fn(|| rota.next(now)).count();
    assert_eq!(begun(&mut rota, 999 * MS), 4);
    assert_eq!(begun(&mut rota, 1_002 * MS), 28, "gold has been away for long enough");
}

#[test]
fn what_others_wait_for_comes_first_and_with_the_scheduler_off_whoever_came_first() {
    for fair in [true, false] {
        let mut rota = Rota::new(Rules::new(1, fair));
        let bronze = account(Bronze, "bronze");
        let first = rota.request(Duration::ZERO, &bronze, false);
        let urgent = rota.request(Duration::ZERO, &bronze, true);
        let gold = rota.request(Duration::ZERO, &account(Gold, "gold"), false);
        let mut order = Vec::new();
        while let Some(granted) = rota.next(MS) {
            order.push(granted.id);
            rota.end(MS, granted.id, MS);
        }
        assert_eq!(order, if fair { [urgent, gold, first] } else { [first, urgent, gold] });
    }
}

#[test]
fn idle_tenants_are_forgotten() {
    let mut rota = Rota::new(Rules::new(1, true));
    for number in 0..10_000 {
        let now = 100 * number * MS;
        let id = rota.request(now, &account(Bronze, &format!("tenant-{number}")), false);
        assert!(rota.next(now).is_some());
        rota.end(now, id, MS);
    }
    assert!(rota.class(Bronze).groups.len() < 100);
}

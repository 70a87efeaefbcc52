//! Whose turn it is: the rules, without threads and without a clock. Time comes in with every call.
//!
//! **Shares.** Every class has a weight. What it has spent is counted in disk time over weight, so the class that has spent
//! least is the one that has had least of its share, and goes first: a weighted round robin whose rounds are measured
//! in disk time instead of jobs. Within a class the same goes for its tenants, with equal weights. Whoever comes back
//! after a rest begins where the others are: a share that was not used is not saved up.
//!
//! A job is charged with what jobs of its class usually take when it begins, and with what it really took when it ends;
//! otherwise a burst would be over before any of it had been counted.
//!
//! **Gold's protections.** A class is *owed* when it is behind gold by more than [`Rules::owed_max`] of disk time. As long
//! as it is not,
//! 1. its jobs cede their turn to a gold one that waits: in time for them means before the class is owed;
//! 2. no more than [`Rules::lower_in_flight`] jobs of lower classes run while gold is about, that is until
//!    [`Rules::gold_lingers`] after its last job;
//! 3. none begins while a gold one, waiting or running, is older than [`Rules::gold_waits_max`].
//!
//! A class that is owed has its turns, whatever gold wants: gold that takes more than its share is protected no longer, and
//! nobody starves.
//!
//! **Lending.** What a class leaves goes to those who wait, in proportion to their weights, and is used as their own class:
//! the lower of the two. A tenant's own comes first: its group in a lower class counts for as much more as those of its
//! groups in higher classes that were busy lately and are not now.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use proto::ids::TenantId;
use proto::traffic::TrafficClass;

/// Names a request; later ones have greater numbers.
pub(super) type Id = u64;

/// On whose account a job goes; without a tenant it is the services' own work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    /// How urgent it is.
    pub(crate) class: TrafficClass,
    /// Whose it is.
    pub(crate) tenant: Option<TenantId>,
}

impl Account {
    /// The services' own work.
    pub(crate) fn own() -> Self {
        Self { class: TrafficClass::Bronze, tenant: None }
    }
}

/// What decides between requests.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// Jobs at once.
    pub(crate) places: usize,
    /// `false`: first come, first served.
    pub(crate) fair: bool,
    /// Of gold, silver and bronze.
    pub(crate) weights: [u64; 3],
    /// Jobs of lower classes at once while gold is about.
    pub(crate) lower_in_flight: usize,
    /// How long gold is about after its last job.
    pub(crate) gold_lingers: Duration,
    /// Age of a gold job from which on no lower one begins.
    pub(crate) gold_waits_max: Duration,
    /// Disk time by which a class may be behind gold.
    pub(crate) owed_max: Duration,
}

impl Rules {
    /// The rules for so many jobs at once.
    pub(crate) fn new(places: usize, fair: bool) -> Self {
        Self {
            places,
            fair,
            weights: [60, 30, 10],
            lower_in_flight: (places / 8).max(1),
            gold_lingers: Duration::from_secs(1),
            gold_waits_max: Duration::from_millis(50),
            owed_max: Duration::from_millis(100),
        }
    }

    fn weight(&self, class: TrafficClass) -> u64 {
        self.weights.get(class.index()).copied().unwrap_or(1).max(1)
    }

    /// Disk time over a weight.
    fn virtual_time(time: Duration, weight: u64) -> u64 {
        u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).saturating_mul(VIRTUAL) / weight.max(1)
    }
}

/// Virtual time is counted finely enough for the largest weight.
const VIRTUAL: u64 = 100;
/// What a job is thought to take before any has ended.
const FIRST_ESTIMATE: Duration = Duration::from_millis(1);
/// From how long on a class without jobs is at rest.
const REST: Duration = Duration::from_millis(100);
/// Groups that are kept before idle ones are looked for.
const GROUPS_KEPT: usize = 16;

/// A request whose turn has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Granted {
    pub(super) id: Id,
    pub(super) account: Account,
    pub(super) waited: Duration,
}

#[derive(Debug)]
struct Request {
    id: Id,
    arrived: Duration,
}

/// The requests of one tenant in one class.
#[derive(Debug, Default)]
struct Group {
    spent: u64,
    waiting: VecDeque<Request>,
    running: usize,
    seen: Duration,
}

impl Group {
    fn is_busy(&self) -> bool {
        self.running > 0 || !self.waiting.is_empty()
    }
}

#[derive(Debug)]
struct Class {
    spent: u64,
    waiting: usize,
    running: usize,
    seen: Option<Duration>,
    estimate: Duration,
    groups: BTreeMap<Option<TenantId>, Group>,
    /// What the busy group that has spent least has spent; never goes back.
    clock: u64,
    kept_after_sweep: usize,
}

impl Default for Class {
    fn default() -> Self {
        Self {
            spent: 0,
            waiting: 0,
            running: 0,
            seen: None,
            estimate: FIRST_ESTIMATE,
            groups: BTreeMap::new(),
            clock: 0,
            kept_after_sweep: 0,
        }
    }
}

impl Class {
    fn is_busy(&self) -> bool {
        self.running > 0 || self.waiting > 0
    }

    fn push(&mut self, tenant: &Option<TenantId>, request: Request, now: Duration, kept_for: Duration) {
        if !self.groups.contains_key(tenant) {
            self.forget_idle(now, kept_for);
        }
        let clock = self.clock;
        let group = self.groups.entry(tenant.clone()).or_default();
        if !group.is_busy() {
            group.spent = group.spent.max(clock);
        }
        group.seen = now;
        group.waiting.push_back(request);
        self.waiting += 1;
        self.seen = Some(now);
    }

    /// Groups that have been idle for long enough go, when they have become many.
    fn forget_idle(&mut self, now: Duration, kept_for: Duration) {
        if self.groups.len() >= 2 * self.kept_after_sweep + GROUPS_KEPT {
            self.groups.retain(|_tenant, group| group.is_busy() || now.saturating_sub(group.seen) < kept_for);
            self.kept_after_sweep = self.groups.len();
        }
    }

    fn move_clock(&mut self) {
        let least = self.groups.values().filter(|group| group.is_busy()).map(|group| group.spent).min();
        self.clock = self.clock.max(least.unwrap_or(0));
    }

    /// The tenant that has spent least of those that wait; the one that has waited longest, when several have.
    fn next_tenant(&self) -> Option<Option<TenantId>> {
        let waiting = self.groups.iter().filter_map(|(tenant, group)| Some((group, group.waiting.front()?.id, tenant)));
        waiting.min_by_key(|(group, id, _tenant)| (group.spent, *id)).map(|(_, _, tenant)| tenant.clone())
    }
}

/// A job that runs.
#[derive(Debug)]
struct Running {
    account: Account,
    to_class: u64,
    to_group: u64,
}

#[derive(Debug)]
struct Urgent {
    request: Request,
    account: Account,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Rota {
    rules: Rules,
    classes: [Class; 3],
    /// Served before all others: what others may be waiting for, of whatever class.
    urgent: VecDeque<Urgent>,
    running: HashMap<Id, Running>,
    /// Gold requests that wait or run, and when they came.
    gold: BTreeMap<Id, Duration>,
    /// What the busy class that has spent least has spent; never goes back.
    clock: u64,
    next_id: Id,
}

impl Rota {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            rules,
            classes: <[Class; 3]>::default(),
            urgent: VecDeque::new(),
            running: HashMap::new(),
            gold: BTreeMap::new(),
            clock: 0,
            next_id: 0,
        }
    }

    fn class(&self, class: TrafficClass) -> &Class {
        let [gold, silver, bronze] = &self.classes;
        match class {
            TrafficClass::Gold => gold,
            TrafficClass::Silver => silver,
            TrafficClass::Bronze => bronze,
        }
    }

    fn class_mut(&mut self, class: TrafficClass) -> &mut Class {
        let [gold, silver, bronze] = &mut self.classes;
        match class {
            TrafficClass::Gold => gold,
            TrafficClass::Silver => silver,
            TrafficClass::Bronze => bronze,
        }
    }

    /// Jobs that run.
    pub(super) fn running(&self) -> usize {
        self.running.len()
    }

    /// Requests that wait.
    pub(super) fn waiting(&self) -> usize {
        self.urgent.len() + self.classes.iter().map(|class| class.waiting).sum::<usize>()
    }

    /// Requests of a class that wait.
    pub(super) fn waiting_of(&self, class: TrafficClass) -> usize {
        let urgent = self.urgent.iter().filter(|urgent| urgent.account.class == class).count();
        self.class(class).waiting + urgent
    }

    /// Takes a request in.
    pub(super) fn request(&mut self, now: Duration, account: &Account, urgent: bool) -> Id {
        let id = self.next_id;
        self.next_id += 1;
        let request = Request { id, arrived: now };
        if urgent {
            self.urgent.push_back(Urgent { request, account: account.clone() });
            return id;
        }
        if account.class == TrafficClass::Gold {
            self.gold.insert(id, now);
        }
        self.arrive(now, account);
        let kept_for = self.rules.gold_lingers;
        self.class_mut(account.class).push(&account.tenant, request, now, kept_for);
        id
    }

    /// A class that comes back after a rest begins where the others are. Between two jobs of one client there is no rest:
    /// else who asks for one job at a time would lose what it is owed each time. More than that is never kept.
    fn arrive(&mut self, now: Duration, account: &Account) {
        let clock = self.clock;
        let owed = Rules::virtual_time(self.rules.owed_max, self.rules.weight(account.class));
        let class = self.class_mut(account.class);
        let rested = class.seen.is_none_or(|seen| now.saturating_sub(seen) >= REST);
        if !class.is_busy() {
            class.spent = class.spent.max(if rested { clock } else { clock.saturating_sub(owed) });
        }
    }

    /// Takes back a request that waits. Of one that does not, nothing changes.
    pub(super) fn cancel(&mut self, id: Id, account: &Account) {
        self.urgent.retain(|urgent| urgent.request.id != id);
        let class = self.class_mut(account.class);
        let Some(group) = class.groups.get_mut(&account.tenant) else { return };
        let before = group.waiting.len();
        group.waiting.retain(|request| request.id != id);
        if group.waiting.len() < before {
            class.waiting -= 1;
            self.gold.remove(&id);
        }
    }

    /// Takes back all that wait.
    pub(super) fn clear(&mut self) {
        self.urgent.clear();
        for class in &mut self.classes {
            class.groups.values_mut().for_each(|group| group.waiting.clear());
            class.waiting = 0;
        }
        let running = &self.running;
        self.gold.retain(|id, _arrived| running.contains_key(id));
    }

    /// Whose turn it is now, if it is anybody's; that job counts as running from now on.
    pub(super) fn next(&mut self, now: Duration) -> Option<Granted> {
        if self.running.len() >= self.rules.places {
            return None;
        }
        let account = if self.rules.fair { self.next_account(now) } else { self.oldest() };
        let front = account.as_ref().and_then(|account| self.front(account));
        let urgent = self.urgent.front().map(|urgent| urgent.request.id);
        let urgent_first = match (urgent, front) {
            (Some(urgent), Some(front)) => self.rules.fair || urgent < front,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if urgent_first {
            let Urgent { request, account } = self.urgent.pop_front()?;
            self.arrive(now, &account);
            return Some(self.begin(now, request, account));
        }
        let account = account?;
        let class = self.class_mut(account.class);
        let request = class.groups.get_mut(&account.tenant)?.waiting.pop_front()?;
        class.waiting -= 1;
        Some(self.begin(now, request, account))
    }

    /// The request of an account that has waited longest.
    fn front(&self, account: &Account) -> Option<Id> {
        Some(self.class(account.class).groups.get(&account.tenant)?.waiting.front()?.id)
    }

    /// The class whose turn it is, and within it the tenant.
    fn next_account(&self, now: Duration) -> Option<Account> {
        let mut order = TrafficClass::ALL;
        // Stable: of equals the more urgent goes first.
        order.sort_by_key(|class| self.class(*class).spent);
        let class = order.into_iter().find(|class| self.class(*class).waiting > 0 && self.may_begin(now, *class))?;
        Some(Account { class, tenant: self.class(class).next_tenant()? })
    }

    /// Whether gold lets a job of this class begin now.
    fn may_begin(&self, now: Duration, class: TrafficClass) -> bool {
        let gold = self.class(TrafficClass::Gold);
        if class == TrafficClass::Gold || self.is_owed(class) {
            return true;
        }
        let cedes = gold.waiting > 0;
        let lingers = gold.seen.is_some_and(|seen| now.saturating_sub(seen) < self.rules.gold_lingers);
        let about = gold.is_busy() || lingers;
        let lower = self.class(TrafficClass::Silver).running + self.class(TrafficClass::Bronze).running;
        let capped = about && lower >= self.rules.lower_in_flight;
        let oldest = self.gold.values().next();
        let held_up = oldest.is_some_and(|arrived| now.saturating_sub(*arrived) > self.rules.gold_waits_max);
        !cedes && !capped && !held_up
    }

    /// Whether this class would be too far behind gold if gold had one more turn before it.
    fn is_owed(&self, class: TrafficClass) -> bool {
        let gold = self.class(TrafficClass::Gold);
        if !gold.is_busy() {
            return false;
        }
        let one_more = Rules::virtual_time(gold.estimate, self.rules.weight(TrafficClass::Gold));
        let behind = gold.spent.saturating_add(one_more).saturating_sub(self.class(class).spent);
        behind > Rules::virtual_time(self.rules.owed_max, self.rules.weight(class))
    }

    /// Whoever has waited longest, whatever the class.
    fn oldest(&self) -> Option<Account> {
        let of_class = |class: TrafficClass| {
            let groups = self.class(class).groups.iter();
            groups.filter_map(move |(tenant, group)| {
                Some((group.waiting.front()?.id, Account { class, tenant: tenant.clone() }))
            })
        };
        let waiting = TrafficClass::ALL.into_iter().flat_map(of_class);
        waiting.min_by_key(|(id, _account)| *id).map(|(_id, account)| account)
    }

    fn begin(&mut self, now: Duration, request: Request, account: Account) -> Granted {
        let estimate = self.class(account.class).estimate;
        let (to_class, to_group) = self.price(now, &account, estimate);
        let class = self.class_mut(account.class);
        class.running += 1;
        class.seen = Some(now);
        class.spent = class.spent.saturating_add(to_class);
        let group = class.groups.entry(account.tenant.clone()).or_default();
        group.running += 1;
        group.seen = now;
        group.spent = group.spent.saturating_add(to_group);
        let granted = Granted { id: request.id, account: account.clone(), waited: now.saturating_sub(request.arrived) };
        self.running.insert(request.id, Running { account, to_class, to_group });
        self.move_clocks(granted.account.class);
        granted
    }

    /// Ends a job that took so long.
    pub(super) fn end(&mut self, now: Duration, id: Id, took: Duration) {
        let Some(Running { account, to_class, to_group }) = self.running.remove(&id) else { return };
        self.gold.remove(&id);
        let (class_price, group_price) = self.price(now, &account, took);
        let class = self.class_mut(account.class);
        class.running -= 1;
        class.seen = Some(now);
        class.spent = class.spent.saturating_sub(to_class).saturating_add(class_price);
        class.estimate = (class.estimate * 7 + took) / 8;
        if let Some(group) = class.groups.get_mut(&account.tenant) {
            group.running -= 1;
            group.seen = now;
            group.spent = group.spent.saturating_sub(to_group).saturating_add(group_price);
        }
        self.move_clocks(account.class);
    }

    /// What disk time costs the class and the tenant's group.
    fn price(&self, now: Duration, account: &Account, time: Duration) -> (u64, u64) {
        let weight = self.rules.weight(account.class);
        let to_group = Rules::virtual_time(time, weight.saturating_add(self.lent(now, account)));
        (Rules::virtual_time(time, weight), to_group)
    }

    /// The weights of a tenant's groups in higher classes that were busy lately and are not now.
    fn lent(&self, now: Duration, account: &Account) -> u64 {
        if account.tenant.is_none() {
            return 0;
        }
        let higher = TrafficClass::ALL.into_iter().take(account.class.index());
        let lends = |class: &TrafficClass| {
            let group = self.class(*class).groups.get(&account.tenant);
            group.is_some_and(|group| !group.is_busy() && now.saturating_sub(group.seen) < self.rules.gold_lingers)
        };
        higher.filter(lends).map(|class| self.rules.weight(class)).sum()
    }

    fn move_clocks(&mut self, class: TrafficClass) {
        self.class_mut(class).move_clock();
        let least = self.classes.iter().filter(|class| class.is_busy()).map(|class| class.spent).min();
        self.clock = self.clock.max(least.unwrap_or(0));
    }
}

#[cfg(test)]
mod tests;

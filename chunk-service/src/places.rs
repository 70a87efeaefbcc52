//! Places: how many calls of a kind may be under way, in all and of each tenant, and how many bytes they may hold (I17).
//!
//! Whoever finds none is refused before it costs anything, and told to come back. No tenant gets more than its part, so that
//! it takes places from itself before it takes them from others; and one place in four is gold's alone, because those who
//! are not urgent may keep theirs for long.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use proto::ids::TenantId;
use proto::traffic::TrafficClass;

use crate::error::ChunkError;
use crate::fairness::Account;

/// Share that is gold's alone: one in so many.
const GOLD_SHARE: u64 = 4;

/// How much there is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Of what, as `reads`.
    pub(crate) of_what: &'static str,
    /// Calls at once.
    pub(crate) count: u64,
    /// Calls of one tenant at once.
    pub(crate) count_per_tenant: u64,
    /// Bytes that all of them hold together; one tenant's hold half of it at most.
    pub(crate) bytes: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sum {
    count: u64,
    bytes: u64,
}

impl Sum {
    /// With one call more that holds so much.
    fn with(self, bytes: u64) -> Self {
        Self { count: self.count.saturating_add(1), bytes: self.bytes.saturating_add(bytes) }
    }

    fn without(self, bytes: u64) -> Self {
        Self { count: self.count.saturating_sub(1), bytes: self.bytes.saturating_sub(bytes) }
    }
}

#[derive(Debug, Default)]
struct Taken {
    all: Sum,
    of_tenants: HashMap<Option<TenantId>, Sum>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Places {
    bounds: Bounds,
    taken: Mutex<Taken>,
}

/// The place of one call, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    tenant: Option<TenantId>,
    bytes: u64,
}

/// A place that several parts of a call have, until all of them are done or one gives it back.
#[derive(Debug, Clone)]
pub(crate) struct SharedPlace(Arc<Mutex<Option<Place>>>);

impl SharedPlace {
    /// Of this call.
    pub(crate) fn new(place: Place) -> Self {
        Self(Arc::new(Mutex::new(Some(place))))
    }

    /// Gives it back, whoever still has it.
    pub(crate) fn give_back(&self) {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

impl Places {
    /// All of them free.
    pub(crate) fn new(bounds: Bounds) -> Arc<Self> {
        Arc::new(Self { bounds, taken: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place for a call that holds so many bytes at most.
    ///
    /// # Errors
    /// [`ChunkError::Overloaded`].
    pub(crate) fn take(self: &Arc<Self>, account: &Account, bytes: u64) -> Result<Place, ChunkError> {
        let mut taken = self.lock();
        let all = taken.all.with(bytes);
        let own = taken.of_tenants.get(&account.tenant).copied().unwrap_or_default().with(bytes);
        if !self.fits(account.class, all, own) {
            return Err(ChunkError::Overloaded(self.bounds.of_what));
        }
        taken.all = all;
        taken.of_tenants.insert(account.tenant.clone(), own);
        Ok(Place { places: Arc::clone(self), tenant: account.tenant.clone(), bytes })
    }

    /// Calls that have one.
    pub(crate) fn count(&self) -> u64 {
        self.lock().all.count
    }

    fn fits(&self, class: TrafficClass, all: Sum, own: Sum) -> bool {
        let Bounds { count, count_per_tenant, bytes, .. } = self.bounds;
        let open_to = |most: u64| match class {
            TrafficClass::Gold => most,
            TrafficClass::Silver | TrafficClass::Bronze => most - most / GOLD_SHARE,
        };
        let one_of_all = all.count <= open_to(count) && all.bytes <= open_to(bytes);
        one_of_all && own.count <= count_per_tenant && own.bytes <= bytes / 2
    }

    /// Whether nobody has one.
    #[cfg(test)]
    fn is_free(&self) -> bool {
        let taken = self.lock();
        taken.all == Sum::default() && taken.of_tenants.is_empty()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        taken.all = taken.all.without(self.bytes);
        let own = taken.of_tenants.get(&self.tenant).copied().unwrap_or_default().without(self.bytes);
        if own.count == 0 {
            taken.of_tenants.remove(&self.tenant);
        } else {
            taken.of_tenants.insert(self.tenant.clone(), own);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { of_what: "reads", count: 8, count_per_tenant: 5, bytes: 800 };

    fn account(tenant: &str, class: TrafficClass) -> Account {
        Account { class, tenant: Some(tenant.parse().unwrap()) }
    }

    fn taken(places: &Arc<Places>, tenant: &str, class: TrafficClass, bytes: u64) -> Vec<Place> {
        (0..20).map_while(|_| places.take(&account(tenant, class), bytes).ok()).collect()
    }

    #[test]
    fn a_tenant_gets_its_part_and_gold_finds_places_where_others_find_none() {
        use TrafficClass::{Bronze, Gold, Silver};
        let places = Places::new(BOUNDS);
        let first = taken(&places, "first", Bronze, 1);
        let second = taken(&places, "second", Silver, 1);
        let gold = taken(&places, "gold", Gold, 1);
        assert_eq!([first.len(), second.len(), gold.len()], [5, 1, 2]);
        drop(first);
        assert_eq!(taken(&places, "second", Silver, 1).len(), 3, "six in all");
        drop((second, gold));
        assert!(places.is_free());
    }

    #[test]
    fn a_shared_place_is_free_when_the_last_has_dropped_it_or_one_gave_it_back() {
        let places = Places::new(BOUNDS);
        let take = || SharedPlace::new(places.take(&account("first", TrafficClass::Gold), 1).unwrap());
        let (first, second) = (take(), take());
        let (of_first, of_second) = (first.clone(), second.clone());
        drop(first);
        second.give_back();
        assert_eq!(places.count(), 1);
        drop((of_first, of_second));
        assert!(places.is_free());
    }

    #[test]
    fn bytes_are_bounded_like_places() {
        use TrafficClass::{Bronze, Gold, Silver};
        let places = Places::new(BOUNDS);
        let first = taken(&places, "first", Bronze, 150);
        let second = taken(&places, "second", Silver, 150);
        let gold = taken(&places, "gold", Gold, 100);
        assert_eq!([first.len(), second.len(), gold.len()], [2, 2, 2]);
        assert!(places.take(&account("first", Gold), 101).is_err(), "a tenant holds half of it at most");
        drop((first, second, gold));
        assert!(places.is_free());
    }
}

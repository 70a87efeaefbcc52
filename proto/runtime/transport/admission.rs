//! Who gets a place: connections are counted, in all and by the address that they come from.
//!
//! An address cannot take every place, and a few addresses cannot either: the last quarter of the places is kept for
//! addresses that hold few. A strength of this is that nobody needs to be told apart: a connection that was let in is
//! never closed for another one. Its limit is that it knows addresses, not people.
//!
//! IPv6 hands out whole networks, so a /64 counts as one address.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::process::{Resource, getrlimit};

use super::limits::TransportLimits;
use crate::limits::WATCHES_PER_ADDRESS;
use crate::pb;

/// One place in so many is kept for addresses that hold few.
const KEPT_PLACES: usize = 4;
/// One in so many of what an address may hold, and of the places kept, is few.
const FEW: usize = 16;
/// One in so many of the process's descriptors may be a connection of one listener: files and the engine need the rest.
const DESCRIPTORS: u64 = 4;

/// The door of one listener: its limits, who is inside, and what happened at it so far.
#[derive(Debug)]
pub struct Gate {
    limits: TransportLimits,
    connections_max: usize,
    open: Mutex<Open>,
    pub(super) counters: Counters,
}

#[derive(Debug, Default)]
struct Open {
    total: usize,
    by_address: HashMap<IpAddr, usize>,
    watches: HashMap<IpAddr, usize>,
}

/// Events at a gate since the start.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) accepted: AtomicU64,
    pub(super) refused_full: AtomicU64,
    pub(super) refused_address: AtomicU64,
    pub(super) failed_handshakes: AtomicU64,
    pub(super) silent: AtomicU64,
    pub(super) accept_errors: AtomicU64,
}

impl Counters {
    pub(super) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// What a gate counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ConnectionCounts {
    /// Connections that are open now.
    pub open: usize,
    /// Connections let in since the start.
    pub accepted: u64,
    /// Refused because every place was taken.
    pub refused_full: u64,
    /// Refused because their address held too many.
    pub refused_address: u64,
    /// Closed because their TLS handshake failed or did not end in time.
    pub failed_handshakes: u64,
    /// Closed because no request came in time.
    pub silent: u64,
    /// Failures of the system to hand out a connection, most often for want of descriptors.
    pub accept_errors: u64,
}

impl From<ConnectionCounts> for pb::ConnectionCounts {
    fn from(counts: ConnectionCounts) -> Self {
        Self {
            open_count: counts.open as u64,
            accepted_count: counts.accepted,
            refused_full_count: counts.refused_full,
            refused_address_count: counts.refused_address,
            failed_handshake_count: counts.failed_handshakes,
            silent_count: counts.silent,
            accept_error_count: counts.accept_errors,
        }
    }
}

impl From<pb::ConnectionCounts> for ConnectionCounts {
    fn from(counts: pb::ConnectionCounts) -> Self {
        Self {
            open: usize::try_from(counts.open_count).unwrap_or(usize::MAX),
            accepted: counts.accepted_count,
            refused_full: counts.refused_full_count,
            refused_address: counts.refused_address_count,
            failed_handshakes: counts.failed_handshake_count,
            silent: counts.silent_count,
            accept_errors: counts.accept_error_count,
        }
    }
}

/// Why a connection is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Every place is taken.
    Full,
    /// The address holds as many as it may at the moment.
    Address,
}

/// A connection's place; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    gate: Arc<Gate>,
    address: IpAddr,
}

impl Gate {
    /// A gate with nobody inside.
    pub fn new(limits: TransportLimits) -> Arc<Self> {
        let connections_max = affordable(limits.connections_max);
        if connections_max < limits.connections_max {
            tracing::warn!(connections_max, "the limit of open files permits no more connections than this");
        }
        Arc::new(Self { limits, connections_max, open: Mutex::default(), counters: Counters::default() })
    }

    /// What it was set to.
    pub fn limits(&self) -> &TransportLimits {
        &self.limits
    }

    /// What happened so far.
    pub fn counts(&self) -> ConnectionCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ConnectionCounts {
            open: self.open().total,
            accepted: read(&self.counters.accepted),
            refused_full: read(&self.counters.refused_full),
            refused_address: read(&self.counters.refused_address),
            failed_handshakes: read(&self.counters.failed_handshakes),
            silent: read(&self.counters.silent),
            accept_errors: read(&self.counters.accept_errors),
        }
    }

    pub(super) fn admit(self: &Arc<Self>, peer: IpAddr) -> Result<Place, Refusal> {
        let address = counted_as(peer);
        let admitted = self.take_place(address);
        Counters::count(match admitted {
            Ok(()) => &self.counters.accepted,
            Err(Refusal::Full) => &self.counters.refused_full,
            Err(Refusal::Address) => &self.counters.refused_address,
        });
        admitted.map(|()| Place { gate: Arc::clone(self), address })
    }

    /// A place for a stream that needs no credential; `None` when the address has as many open as it may.
    pub(super) fn admit_watch(self: Arc<Self>, peer: IpAddr) -> Option<Watching> {
        let address = counted_as(peer);
        let mut open = self.open();
        let held = open.watches.entry(address).or_default();
        if *held >= WATCHES_PER_ADDRESS {
            return None;
        }
        *held += 1;
        drop(open);
        Some(Watching { gate: self, address })
    }

    fn take_place(&self, address: IpAddr) -> Result<(), Refusal> {
        let mut open = self.open();
        if open.total >= self.connections_max {
            return Err(Refusal::Full);
        }
        let may_hold = self.may_hold(open.total);
        let held = open.by_address.entry(address).or_default();
        // An entry of 0 cannot stay behind: every address may hold one.
        if *held >= may_hold {
            return Err(Refusal::Address);
        }
        *held += 1;
        open.total += 1;
        Ok(())
    }

    /// What one address may hold while so many places are taken.
    fn may_hold(&self, taken: usize) -> usize {
        let kept = self.connections_max / KEPT_PLACES;
        if taken < self.connections_max - kept {
            self.limits.connections_per_address
        } else {
            (self.limits.connections_per_address.min(kept) / FEW).max(1)
        }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.gate.open();
        open.total -= 1;
        give_back(&mut open.by_address, self.address);
    }
}

/// The place of a stream that needs no credential; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Watching {
    gate: Arc<Gate>,
    address: IpAddr,
}

impl Drop for Watching {
    fn drop(&mut self) {
        give_back(&mut self.gate.open().watches, self.address);
    }
}

fn give_back(places: &mut HashMap<IpAddr, usize>, address: IpAddr) {
    if let Entry::Occupied(mut held) = places.entry(address) {
        *held.get_mut() -= 1;
        if *held.get() == 0 {
            held.remove();
        }
    }
}

/// As many connections as are wanted, or as the process has descriptors for.
fn affordable(wanted: usize) -> usize {
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let affordable = usize::try_from(descriptors / DESCRIPTORS).unwrap_or(usize::MAX);
    wanted.min(affordable.max(1))
}

/// An IPv4 address behind either protocol is the same; of an IPv6 address the network counts.
fn counted_as(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        v4 @ IpAddr::V4(_) => v4,
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(connections_max: usize, connections_per_address: usize) -> Arc<Gate> {
        Gate::new(TransportLimits { connections_max, connections_per_address, ..TransportLimits::default() })
    }

    fn address(number: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, number])
    }

    #[test]
    fn an_address_holds_so_many_and_its_places_come_back() {
        let gate = gate(100, 2);
        let places: Vec<_> = (0..2).map(|_| gate.admit(address(1)).unwrap()).collect();
        assert_eq!(gate.admit(address(1)).unwrap_err(), Refusal::Address);
        let _other = gate.admit(address(2)).unwrap();
        drop(places);
        let _again = gate.admit(address(1)).unwrap();
        let expected = ConnectionCounts { open: 2, accepted: 4, refused_address: 1, ..ConnectionCounts::default() };
        assert_eq!(gate.counts(), expected);
        assert_eq!(gate.open().by_address.len(), 2);
    }

    /// Four addresses with their full share each once took every place of a listener, and nobody else came in.
    #[test]
    fn the_last_places_are_for_addresses_that_hold_few() {
        let gate = gate(16, 16);
        let greedy: Vec<_> = (0..12).map(|_| gate.admit(address(1)).unwrap()).collect();
        assert_eq!(gate.admit(address(1)).unwrap_err(), Refusal::Address);
        let modest: Vec<_> = (2..6).map(|number| gate.admit(address(number)).unwrap()).collect();
        assert_eq!(gate.admit(address(7)).unwrap_err(), Refusal::Full);
        assert_eq!(gate.counts().open, 16);
        drop((greedy, modest));
        assert_eq!(gate.counts().open, 0);
        assert!(gate.open().by_address.is_empty());
    }

    /// With few descriptors there are few places, of which one address once took all that were kept for others.
    #[test]
    fn of_few_kept_places_few_are_few() {
        let gate = gate(128, 1_200);
        let greedy: Vec<_> = (0..96).map(|_| gate.admit(address(1)).unwrap()).collect();
        let modest = [gate.admit(address(2)), gate.admit(address(2))].map(Result::unwrap);
        assert_eq!(gate.admit(address(2)).unwrap_err(), Refusal::Address);
        drop((greedy, modest));
    }

    #[test]
    fn an_address_has_so_many_streams_without_a_credential_and_their_places_come_back() {
        let gate = gate(100, 100);
        let watch = |number| Arc::clone(&gate).admit_watch(address(number));
        let watches: Vec<_> = (0..WATCHES_PER_ADDRESS).map(|_| watch(1).unwrap()).collect();
        assert!(watch(1).is_none() && watch(2).is_some());
        drop(watches);
        assert!(watch(1).is_some());
        assert!(gate.open().watches.is_empty());
    }

    #[test]
    fn a_network_of_ipv6_and_both_spellings_of_an_ipv4_address_count_as_one() {
        let same = |a: &str, b: &str| counted_as(a.parse().unwrap()) == counted_as(b.parse().unwrap());
        assert!(same("10.0.0.1", "::ffff:10.0.0.1"));
        assert!(same("2001:db8::1", "2001:db8::ffff:0:0:2"));
        assert!(!same("2001:db8::1", "2001:db8:0:1::1"));
        assert!(!same("10.0.0.1", "10.0.0.2"));
    }

    #[test]
    fn there_are_never_more_connections_than_descriptors_for_them() {
        let descriptors = getrlimit(Resource::Nofile).current.map_or(usize::MAX, |now| usize::try_from(now).unwrap());
        assert!(gate(usize::MAX, 1).connections_max <= descriptors);
        assert_eq!(gate(3, 1).connections_max, 3);
    }
}

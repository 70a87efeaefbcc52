//! Who works on which chunk, and the writes that wait for their writer to come back.
//!
//! One call at a time owns a chunk: it holds the chunk's [`Claim`]. A later write or delete asks the owner to stop and
//! waits for the claim; the latest of several that wait wins, the others are told that they were overtaken. A write
//! whose stream broke leaves its [`OpenWrite`] in the claim, where the next stream finds it, until the reaper takes it
//! away. All of this is memory: a restart forgets it, and the chunk begins anew (see `leftover`).
//!
//! Bounded (I17): open writes, in all and of each tenant, by a [`Ticket`] that each of them holds.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use proto::ids::{ChunkId, TenantId};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::open_write::OpenWrite;
use crate::error::ChunkError;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A write without a stream, and since when.
#[derive(Debug)]
struct Parked {
    write: OpenWrite,
    since: Instant,
}

/// What is known of a chunk's owner without being it.
#[derive(Debug, Default)]
struct Owner {
    /// Asks it to stop.
    stop: CancellationToken,
    /// Bytes received so far, while it is a stream that writes a file.
    received: Option<u64>,
    /// The last call that asked for the chunk.
    latest: u64,
}

#[derive(Debug, Default)]
struct Slot {
    parked: Arc<AsyncMutex<Option<Parked>>>,
    owner: Mutex<Owner>,
}

/// A slot, and how many own it or wait for it.
#[derive(Debug, Default)]
struct Entry {
    slot: Arc<Slot>,
    users: usize,
}

type Slots = Mutex<HashMap<ChunkId, Entry>>;

/// Keeps a slot in the table while somebody owns it or waits for it; the last one out removes an empty one.
#[derive(Debug)]
struct SlotRef {
    slots: Arc<Slots>,
    chunk: ChunkId,
    slot: Arc<Slot>,
}

impl Drop for SlotRef {
    fn drop(&mut self) {
        let mut slots = lock(&self.slots);
        let Some(entry) = slots.get_mut(&self.chunk) else { return };
        entry.users -= 1;
        if entry.users == 0 && self.slot.parked.try_lock().is_ok_and(|parked| parked.is_none()) {
            slots.remove(&self.chunk);
        }
    }
}

/// Ownership of a chunk.
#[derive(Debug)]
pub(crate) struct Claim {
    // Dropped before the slot, which looks whether something is parked.
    parked: OwnedMutexGuard<Option<Parked>>,
    stop: CancellationToken,
    slot: SlotRef,
}

/// Why a call wants a chunk.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Purpose {
    /// To write from this offset.
    WriteFrom(u64),
    /// To remove it.
    Delete,
}

/// What a look at a chunk found.
#[derive(Debug)]
pub(crate) enum Look {
    /// A stream is writing it and has so many bytes.
    Receiving(u64),
    /// Nobody was; now the caller owns it.
    Claimed(Claim),
}

/// The table of owners and parked writes.
#[derive(Debug)]
pub(crate) struct Sessions {
    slots: Arc<Slots>,
    bound: Arc<Bound>,
}

impl Sessions {
    pub(crate) fn new(max: usize, max_per_tenant: usize) -> Self {
        let bound = Bound { max, max_per_tenant, open: Mutex::default() };
        Self { slots: Arc::default(), bound: Arc::new(bound) }
    }

    fn slot(&self, chunk: ChunkId) -> SlotRef {
        let mut slots = lock(&self.slots);
        let entry = slots.entry(chunk).or_default();
        entry.users += 1;
        SlotRef { slots: Arc::clone(&self.slots), chunk, slot: Arc::clone(&entry.slot) }
    }

    /// Takes a chunk over from its owner, if it has one.
    ///
    /// # Errors
    /// [`ChunkError::WriteOffsetMismatch`] when a stream is writing and this one would not go on where it is, which
    /// leaves that stream alone; [`ChunkError::TakenOver`] when a later call wants the chunk, or the owner does not
    /// give it up within `patience`.
    pub(crate) async fn claim(
        &self,
        chunk: ChunkId,
        purpose: Purpose,
        patience: Duration,
    ) -> Result<Claim, ChunkError> {
        let slot = self.slot(chunk);
        let mine = slot.slot.arrive(purpose)?;
        let parked = slot.wait(patience).await?;
        let stop = slot.slot.enter(mine).ok_or(ChunkError::TakenOver)?;
        Ok(Claim { parked, stop, slot })
    }

    /// Looks how far a chunk is, without disturbing a stream that writes it.
    ///
    /// # Errors
    /// [`ChunkError::TakenOver`] when its owner is busy with something else for longer than `patience`.
    pub(crate) async fn look(&self, chunk: ChunkId, patience: Duration) -> Result<Look, ChunkError> {
        let slot = self.slot(chunk);
        if let Some(received) = lock(&slot.slot.owner).received {
            return Ok(Look::Receiving(received));
        }
        let parked = slot.wait(patience).await?;
        let stop = lock(&slot.slot.owner).renew();
        Ok(Look::Claimed(Claim { parked, stop, slot }))
    }

    /// The chunks whose writers have not come back for `kept`, owned, so that nobody takes them up meanwhile.
    pub(crate) fn forsaken(&self, kept: Duration) -> Vec<Claim> {
        let slots: Vec<ChunkId> = lock(&self.slots).keys().copied().collect();
        slots.into_iter().filter_map(|chunk| self.claim_forsaken(chunk, kept)).collect()
    }

    fn claim_forsaken(&self, chunk: ChunkId, kept: Duration) -> Option<Claim> {
        let slot = self.slot(chunk);
        let parked = Arc::clone(&slot.slot.parked).try_lock_owned().ok()?;
        parked.as_ref().filter(|parked| parked.since.elapsed() >= kept)?;
        let stop = lock(&slot.slot.owner).renew();
        Some(Claim { parked, stop, slot })
    }

    /// A place for one more open write.
    ///
    /// # Errors
    /// [`ChunkError::Overloaded`].
    pub(crate) fn admit(&self, tenant: &TenantId) -> Result<Ticket, ChunkError> {
        Bound::admit(&self.bound, tenant)
    }

    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn is_empty(&self) -> bool {
        lock(&self.slots).is_empty() && lock(&self.bound.open).is_empty()
    }
}

impl SlotRef {
    async fn wait(&self, patience: Duration) -> Result<OwnedMutexGuard<Option<Parked>>, ChunkError> {
        let free = Arc::clone(&self.slot.parked).lock_owned();
        tokio::time::timeout(patience, free).await.map_err(|_elapsed| ChunkError::TakenOver)
    }
}

impl Slot {
    /// Asks the owner to stop, unless that would be of no use. Returns this call's number.
    fn arrive(&self, purpose: Purpose) -> Result<u64, ChunkError> {
        let mut owner = lock(&self.owner);
        match (purpose, owner.received) {
            (Purpose::WriteFrom(offset), Some(persisted)) if offset != 0 && offset != persisted => {
                return Err(ChunkError::WriteOffsetMismatch { persisted });
            }
            (Purpose::WriteFrom(_) | Purpose::Delete, _) => {}
        }
        owner.latest += 1;
        owner.stop.cancel();
        Ok(owner.latest)
    }

    /// Becomes the owner, unless a later call wants to be.
    fn enter(&self, mine: u64) -> Option<CancellationToken> {
        let mut owner = lock(&self.owner);
        (owner.latest == mine).then(|| owner.renew())
    }
}

impl Owner {
    fn renew(&mut self) -> CancellationToken {
        self.received = None;
        self.stop = CancellationToken::new();
        self.stop.clone()
    }
}

impl Claim {
    /// The chunk.
    pub(crate) fn chunk(&self) -> ChunkId {
        self.slot.chunk
    }

    /// Fires when another call wants the chunk.
    pub(crate) fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// The write that waits here, if any.
    pub(crate) fn take(&mut self) -> Option<OpenWrite> {
        self.parked.take().map(|parked| parked.write)
    }

    /// How far the write is that waits here, if any.
    pub(crate) fn parked_at(&self) -> Option<u64> {
        self.parked.as_ref().map(|parked| parked.write.received())
    }

    /// Leaves a write for the next stream.
    pub(crate) fn park(mut self, write: OpenWrite) {
        *self.parked = Some(Parked { write, since: Instant::now() });
    }

    /// Tells others how many bytes a stream has received; `None` when it no longer receives.
    pub(crate) fn set_received(&self, received: Option<u64>) {
        lock(&self.slot.slot.owner).received = received;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.set_received(None);
    }
}

/// How many writes may be open.
#[derive(Debug)]
struct Bound {
    max: usize,
    max_per_tenant: usize,
    open: Mutex<HashMap<TenantId, usize>>,
}

/// The place of one open write.
#[derive(Debug)]
pub(crate) struct Ticket {
    bound: Arc<Bound>,
    tenant: TenantId,
}

impl Bound {
    fn admit(this: &Arc<Self>, tenant: &TenantId) -> Result<Ticket, ChunkError> {
        let mut open = lock(&this.open);
        let mine = open.get(tenant).copied().unwrap_or(0);
        if mine >= this.max_per_tenant || open.values().sum::<usize>() >= this.max {
            return Err(ChunkError::Overloaded("open writes"));
        }
        open.insert(tenant.clone(), mine + 1);
        Ok(Ticket { bound: Arc::clone(this), tenant: tenant.clone() })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut open = lock(&self.bound.open);
        match open.get_mut(&self.tenant) {
            Some(count) if *count > 1 => *count -= 1,
            Some(_) | None => {
                open.remove(&self.tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests;

//! What waits in the queue, asked in bounded lots.
//!
//! The queue's order is that of time, so nothing can be looked up in it by what it is about; and it may hold more than
//! fits into memory. So questions are gathered, at most [`HELD_MAX`], and one walk over the queue answers all of them.
//! The answer is of now: whoever gets a no looks again at what was in question before it counts.

use std::collections::HashSet;

use super::Check;
use super::rows::Walk;
use crate::error::MetadataError;
use crate::store::keys::{self, Garbage};

/// What a check keeps at once of anything that grows with what is stored: about 20 MiB of the largest.
pub(super) const HELD_MAX: usize = 65_536;

/// Things of one kind that have to be looked at together, at most so many.
#[derive(Debug)]
pub(super) struct Held<T> {
    things: Vec<T>,
    most: usize,
}

impl<T> Held<T> {
    pub(super) fn at_most(most: usize) -> Self {
        Self { things: Vec::new(), most }
    }

    /// Adds one. When they are as many as may be held, they are handed back and have to be looked at.
    pub(super) fn add(&mut self, thing: T) -> Option<Vec<T>> {
        self.things.push(thing);
        (self.things.len() >= self.most).then(|| self.take())
    }

    /// What is left.
    pub(super) fn take(&mut self) -> Vec<T> {
        std::mem::take(&mut self.things)
    }
}

impl Check {
    /// Leaves of these what is not in the queue.
    pub(super) async fn drop_queued<T>(
        &self,
        things: &mut Vec<T>,
        what: impl Fn(&T) -> Garbage + Send,
    ) -> Result<(), MetadataError> {
        let mut asked: HashSet<Garbage> = things.iter().map(&what).collect();
        let mut walk = Walk::over(keys::GARBAGE);
        while !asked.is_empty()
            && let Some(rows) = walk.next(self.engine()).await?
        {
            for (_due, garbage) in rows.iter().filter_map(|row| keys::garbage_of(&row.0)) {
                asked.remove(&garbage);
            }
        }
        things.retain(|thing| asked.contains(&what(thing)));
        Ok(())
    }
}

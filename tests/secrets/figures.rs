//! What a run did and found.

use std::collections::BTreeMap;
use std::fmt;

use crate::places::{Found, Kind};

/// See the module of the program.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    sessions: usize,
    secrets: usize,
    forms: usize,
    places: BTreeMap<Kind, (usize, usize)>,
    hits: usize,
    planted: usize,
    planted_found: usize,
}

impl Figures {
    /// A session was searched.
    pub(crate) fn add(&mut self, found: Found) {
        self.sessions += 1;
        self.secrets += found.secrets;
        self.forms += found.forms;
        for (kind, (count, bytes)) in found.places {
            let sum = self.places.entry(kind).or_default();
            *sum = (sum.0 + count, sum.1 + bytes);
        }
        self.hits += found.hits.len();
    }

    /// So many were hidden, and so many found.
    pub(crate) fn planted(&mut self, (planted, found): (usize, usize)) {
        (self.planted, self.planted_found) = (planted, found);
    }

    /// Nothing came out, something of every kind was searched, and everything hidden was found.
    pub(crate) fn is_sound(&self) -> bool {
        let searched = Kind::ALL.iter().all(|kind| self.places.get(kind).is_some_and(|(_count, bytes)| *bytes > 0));
        self.hits == 0 && self.planted == self.planted_found && (searched || self.sessions == 0)
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} sessions, {} secrets in {} forms, searched for in", self.sessions, self.secrets, self.forms)?;
        let (mut all, mut all_bytes) = (0, 0);
        for (kind, (count, bytes)) in &self.places {
            writeln!(f, "  {:13} {count:6} places, {bytes:11} bytes", kind.name())?;
            (all, all_bytes) = (all + count, all_bytes + bytes);
        }
        writeln!(f, "  {:13} {all:6} places, {all_bytes:11} bytes", "all")?;
        writeln!(f, "planted: {}, of which found: {}", self.planted, self.planted_found)?;
        write!(f, "hits: {}", self.hits)
    }
}

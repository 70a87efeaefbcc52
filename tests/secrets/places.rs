//! What came out of a session, and the search through it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use aho_corasick::AhoCorasick;
use anyhow::{Context as _, Result};

use crate::vault::Vault;

/// Where something came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Logs of services.
    Log,
    /// Standard output and standard error of commands.
    Output,
    /// Answers to calls: headers, trailers and messages.
    Answer,
    /// Command lines of processes.
    CommandLine,
    /// What processes inherited.
    Environment,
    /// Files of the audit log.
    Audit,
    /// Other files.
    File,
}

impl Kind {
    /// All of them.
    pub(crate) const ALL: [Self; 7] =
        [Self::Log, Self::Output, Self::Answer, Self::CommandLine, Self::Environment, Self::Audit, Self::File];

    /// For people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Log => "logs",
            Self::Output => "output",
            Self::Answer => "answers",
            Self::CommandLine => "command lines",
            Self::Environment => "environments",
            Self::Audit => "audit log",
            Self::File => "other files",
        }
    }
}

/// One thing that came out.
#[derive(Debug)]
pub(crate) struct Place {
    kind: Kind,
    what: String,
    bytes: Vec<u8>,
}

/// Everything that came out.
#[derive(Debug, Default)]
pub(crate) struct Places(Vec<Place>);

/// The name of a place, for later.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PlaceNumber(usize);

/// A secret where none may be.
#[derive(Debug)]
pub(crate) struct Hit {
    what: String,
    form: &'static str,
    place: String,
    at: usize,
}

impl fmt::Display for Hit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}, in {} at byte {}", self.what, self.form, self.place, self.at)
    }
}

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Secrets that were looked for.
    pub(crate) secrets: usize,
    /// All forms of them.
    pub(crate) forms: usize,
    /// Places by kind, and their bytes.
    pub(crate) places: BTreeMap<Kind, (usize, usize)>,
    /// Secrets where none may be.
    pub(crate) hits: Vec<Hit>,
}

impl Places {
    /// Keeps what came out.
    pub(crate) fn add(&mut self, kind: Kind, what: impl Into<String>, bytes: Vec<u8>) -> PlaceNumber {
        self.0.push(Place { kind, what: what.into(), bytes });
        PlaceNumber(self.0.len() - 1)
    }

    /// Takes out what the place is for: this secret, as it is. In any other form, or in part, it may not be there either.
    pub(crate) fn may_show(&mut self, place: PlaceNumber, secret: &[u8]) -> Result<()> {
        let searcher = AhoCorasick::new([secret]).context("prepare the search")?;
        if let Some(place) = self.0.get_mut(place.0).filter(|_place| !secret.is_empty()) {
            place.bytes = searcher.replace_all_bytes(&place.bytes, &[b"[taken out]"]);
        }
        Ok(())
    }

    /// Looks for everything everywhere. Each secret counts once in each place.
    pub(crate) fn search(&self, vault: &Vault) -> Result<Found> {
        let mut patterns: BTreeMap<Vec<u8>, (&str, &str, &'static str)> = BTreeMap::new();
        for (text, secret) in vault.iter() {
            for (form, bytes) in secret.forms() {
                patterns.entry(bytes).or_insert((text, &secret.what, form));
            }
        }
        let (needles, owners): (Vec<_>, Vec<_>) = patterns.into_iter().unzip();
        let searcher = AhoCorasick::new(&needles).context("prepare the search")?;
        let mut found = Found { secrets: vault.iter().count(), forms: needles.len(), ..Found::default() };
        for place in &self.0 {
            let (count, bytes) = found.places.entry(place.kind).or_default();
            (*count, *bytes) = (*count + 1, *bytes + place.bytes.len());
            let mut seen = BTreeSet::new();
            for hit in searcher.find_overlapping_iter(&place.bytes) {
                let Some((text, what, form)) = owners.get(hit.pattern().as_usize()) else { continue };
                if seen.insert(*text) {
                    let (what, place) = ((*what).to_owned(), place.what.clone());
                    found.hits.push(Hit { what, form, place, at: hit.start() });
                }
            }
        }
        Ok(found)
    }

    /// Whether these words are in a place of this kind.
    pub(crate) fn have(&self, kind: Kind, words: &str) -> bool {
        let within = |bytes: &[u8]| bytes.windows(words.len()).any(|window| window == words.as_bytes());
        self.0.iter().any(|place| place.kind == kind && within(&place.bytes))
    }

    /// The bytes of one.
    pub(crate) fn bytes(&self, place: PlaceNumber) -> &[u8] {
        self.0.get(place.0).map_or(&[], |place| &place.bytes)
    }
}

//! How much of what `mixed` does.

use std::str::FromStr;

use super::chance::{self, Purpose};
use super::phase::Kind;

/// Kinds of operations, each with its weight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mix(Vec<(Kind, u64)>);

/// What can be in a mix.
const KINDS: [Kind; 4] = [Kind::Put, Kind::Get, Kind::Stat, Kind::Delete];

impl Mix {
    /// What the operation of this number is.
    pub(super) fn kind(&self, seed: u64, number: u64) -> Kind {
        let draw = chance::draw(seed, number, Purpose::Kind);
        *chance::pick(&self.0, draw).expect("a mix has a kind of some weight")
    }
}

impl FromStr for Mix {
    type Err = String;

    /// Reads `get:45,stat:30,put:15,delete:10`.
    fn from_str(text: &str) -> Result<Self, String> {
        let weights: Vec<_> = text.split(',').map(weighted).collect::<Result<_, _>>()?;
        if weights.iter().all(|(_kind, weight)| *weight == 0) {
            return Err("some weight must be more than 0".to_owned());
        }
        Ok(Self(weights))
    }
}

fn weighted(text: &str) -> Result<(Kind, u64), String> {
    let form = || "must be KIND:WEIGHT,...; kinds are put, get, stat and delete".to_owned();
    let (word, weight) = text.split_once(':').ok_or_else(form)?;
    let kind = KINDS.into_iter().find(|kind| kind.word() == word).ok_or_else(form)?;
    let weight: u32 = weight.parse().map_err(|_not_a_number| form())?;
    Ok((kind, weight.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_come_in_their_shares() {
        let mix: Mix = "get:45,stat:30,put:15,delete:10".parse().unwrap();
        let share = |wanted| (0..10_000).filter(|number| mix.kind(7, *number) == wanted).count();
        for (kind, expected) in [(Kind::Get, 4500), (Kind::Stat, 3000), (Kind::Put, 1500), (Kind::Delete, 1000)] {
            assert!(share(kind).abs_diff(expected) < 200, "{kind:?}");
        }
        let only: Mix = "put:1,get:0".parse().unwrap();
        assert!((0..100).all(|number| only.kind(7, number) == Kind::Put));
    }

    #[test]
    fn other_words_are_refused() {
        for bad in ["", "get", "get:", "get:x", "list:1", "ping:1", "get:1,", "get:0,put:0", "get:-1"] {
            assert!(bad.parse::<Mix>().is_err(), "{bad}");
        }
    }
}

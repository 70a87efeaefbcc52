//! How large objects are: one size, sizes between two bounds, or some sizes with their shares.
//!
//! The size of an object follows from the seed and the object's number, so that a run can be repeated and a reader knows
//! what to expect.

use std::fmt;
use std::str::FromStr;

use indicatif::HumanBytes;

use super::chance::{self, Purpose};
use crate::cli::units::parse_size;

/// How large objects are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sizes {
    /// All alike.
    One(u64),
    /// Between two bounds, both included; each doubling is as likely as the next (log-uniform).
    Between(u64, u64),
    /// Sizes, each with its weight.
    Weighted(Vec<(u64, u64)>),
}

impl Sizes {
    /// The size of an object, in bytes.
    pub(super) fn of(&self, seed: u64, number: u64) -> u64 {
        let draw = chance::draw(seed, number, Purpose::Size);
        match self {
            Self::One(size) => *size,
            Self::Between(least, most) => between(*least, *most, chance::fraction(draw)),
            Self::Weighted(sizes) => *chance::pick(sizes, draw).expect("a distribution has a size of some weight"),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a size need not be exact to more than 53 bits")]
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it lies between two sizes")]
fn between(least: u64, most: u64, fraction: f64) -> u64 {
    let (low, high) = ((least as f64).ln(), (most as f64).ln());
    let size = (low + (high - low) * fraction).exp().round();
    (size as u64).clamp(least, most)
}

impl FromStr for Sizes {
    type Err = String;

    /// Reads `4KiB`, `1KiB-1MiB`, `4KiB:70,64KiB:20,1MiB:10`.
    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains(':') {
            return text.split(',').map(weighted).collect::<Result<Vec<_>, _>>().and_then(of_some_weight);
        }
        let Some((least, most)) = text.split_once('-') else { return parse_size(text).map(Self::One) };
        let (least, most) = (parse_size(least)?, parse_size(most)?);
        if least == 0 || least > most {
            return Err("must be LEAST-MOST, both more than 0".to_owned());
        }
        Ok(Self::Between(least, most))
    }
}

fn weighted(text: &str) -> Result<(u64, u64), String> {
    let (size, weight) = text.split_once(':').ok_or("must be SIZE:WEIGHT,SIZE:WEIGHT,...")?;
    let weight: u32 = weight.parse().map_err(|_not_a_number| format!("'{weight}' is not a weight"))?;
    Ok((parse_size(size)?, weight.into()))
}

fn of_some_weight(sizes: Vec<(u64, u64)>) -> Result<Sizes, String> {
    if sizes.iter().all(|(_size, weight)| *weight == 0) {
        return Err("some weight must be more than 0".to_owned());
    }
    Ok(Sizes::Weighted(sizes))
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(size) => write!(f, "{}", HumanBytes(*size)),
            Self::Between(least, most) => write!(f, "{} to {}", HumanBytes(*least), HumanBytes(*most)),
            Self::Weighted(sizes) => {
                let parts: Vec<_> =
                    sizes.iter().map(|(size, weight)| format!("{}:{weight}", HumanBytes(*size))).collect();
                f.write_str(&parts.join(","))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1024;

    fn sizes(text: &str) -> Sizes {
        text.parse().unwrap()
    }

    #[test]
    fn the_three_forms_are_read_and_others_are_not() {
        assert_eq!(sizes("4KiB"), Sizes::One(4 * KIB));
        assert_eq!(sizes("0"), Sizes::One(0));
        assert_eq!(sizes("1KiB-1MiB"), Sizes::Between(KIB, KIB * KIB));
        assert_eq!(sizes("4KiB:70,64KiB:0"), Sizes::Weighted(vec![(4 * KIB, 70), (64 * KIB, 0)]));
        for bad in ["", "x", "0-4KiB", "8KiB-4KiB", "4KiB-", "4KiB:x", "4KiB:0", "4KiB:1,", "4KiB:-1", "4KiB:1,8KiB"] {
            assert!(bad.parse::<Sizes>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_object_has_the_same_size_each_time_and_another_seed_gives_others() {
        let sizes = sizes("1KiB-1MiB");
        let all = |seed| (0..100).map(|number| sizes.of(seed, number)).collect::<Vec<_>>();
        assert_eq!(all(1), all(1));
        assert_ne!(all(1), all(2));
    }

    #[test]
    fn each_doubling_between_two_bounds_is_as_likely_as_the_next() {
        let sizes = sizes("1KiB-1MiB");
        let mut doublings = [0_u32; 10];
        for number in 0..10_000 {
            let size = sizes.of(7, number);
            assert!((KIB..=KIB * KIB).contains(&size), "{size}");
            doublings[(size / KIB).ilog2().min(9) as usize] += 1;
        }
        assert!(doublings.iter().all(|count| (850..1150).contains(count)), "{doublings:?}");
    }

    #[test]
    fn weighted_sizes_come_in_their_shares() {
        let sizes = sizes("4KiB:70,64KiB:20,1MiB:10,9:0");
        let share = |wanted| (0..10_000).filter(|number| sizes.of(7, *number) == wanted).count();
        for (size, share, expected) in
            [(4 * KIB, share(4 * KIB), 7_000), (64 * KIB, share(64 * KIB), 2_000), (KIB * KIB, share(KIB * KIB), 1_000)]
        {
            assert!(share.abs_diff(expected) < 200, "{share} of {size}");
        }
        assert_eq!(share(9), 0);
    }
}

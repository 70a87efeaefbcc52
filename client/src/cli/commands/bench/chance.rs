//! Chance that can be repeated: a draw follows from the seed, the object's number and what it is drawn for.

/// What a draw is for, so that draws for one thing say nothing about those for another.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    /// How large an object is.
    Size,
    /// What is done next.
    Kind,
    /// Which object it is done to.
    Object,
    /// The order of all objects.
    Order,
}

/// The draw. Two rounds of SplitMix64's mixing, which spreads numbers that lie side by side over all 64 bits.
pub(super) fn draw(seed: u64, number: u64, purpose: Purpose) -> u64 {
    let purpose = match purpose {
        Purpose::Size => 1,
        Purpose::Kind => 2,
        Purpose::Object => 3,
        Purpose::Order => 4,
    };
    mixed(mixed(seed.wrapping_add(purpose << 56)) ^ number)
}

fn mixed(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The draw as a number from 0 to 1, without 1.
#[expect(clippy::cast_precision_loss, reason = "53 bits are exact")]
pub(super) fn fraction(draw: u64) -> f64 {
    (draw >> 11) as f64 / (1_u64 << 53) as f64
}

/// One of `count`, from 0; 0 when there is none.
pub(super) fn below(draw: u64, count: usize) -> usize {
    let count = u64::try_from(count).unwrap_or(u64::MAX).max(1);
    usize::try_from(draw % count).unwrap_or(0)
}

/// One of some things with weights. `None` when nothing has a weight.
pub(super) fn pick<T>(weighted: &[(T, u64)], draw: u64) -> Option<&T> {
    let total: u64 = weighted.iter().map(|(_thing, weight)| weight).sum();
    let mut left = draw.checked_rem(total)?;
    for (thing, weight) in weighted {
        match left.checked_sub(*weight) {
            Some(rest) => left = rest,
            None => return Some(thing),
        }
    }
    None
}

/// Brings things into an order that the seed gives (Fisher and Yates).
pub(super) fn shuffle<T>(things: &mut [T], seed: u64) {
    for last in (1..things.len()).rev() {
        let number = u64::try_from(last).unwrap_or(u64::MAX);
        things.swap(last, below(draw(seed, number, Purpose::Order), last + 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shuffle_keeps_everything_and_repeats_itself() {
        let shuffled = |seed| {
            let mut things: Vec<u32> = (0..1000).collect();
            shuffle(&mut things, seed);
            things
        };
        assert_eq!(shuffled(1), shuffled(1));
        assert_ne!(shuffled(1), shuffled(2));
        let mut sorted = shuffled(1);
        sorted.sort_unstable();
        assert_eq!(sorted, (0..1000).collect::<Vec<_>>());
        let in_place = shuffled(1).iter().zip(0..).filter(|(found, place)| *found == place).count();
        assert!(in_place < 20, "{in_place} things were left where they were");
    }

    #[test]
    fn what_has_no_weight_is_never_picked() {
        let weighted = [("a", 0), ("b", 3), ("c", 0), ("d", 1), ("e", 0)];
        let picked = |draw| *pick(&weighted, draw).unwrap();
        assert_eq!((0..8).map(picked).collect::<String>(), "bbbdbbbd");
        assert_eq!(pick(&[("a", 0)], 7), None);
        assert_eq!(pick::<u8>(&[], 7), None);
    }

    #[test]
    fn fractions_lie_between_0_and_1() {
        assert_eq!(fraction(0).to_bits(), 0_f64.to_bits());
        assert!(fraction(u64::MAX) < 1.0);
    }
}

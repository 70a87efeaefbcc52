//! Choices that a seed repeats.

use proto::entropy::{Entropy as _, SeededEntropy};

/// Draws numbers. The same seed draws the same ones.
#[derive(Debug)]
pub(crate) struct Dice(SeededEntropy);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(SeededEntropy::new(seed))
    }

    /// Any number.
    pub(crate) fn number(&self) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// A number below this one, which is not 0.
    pub(crate) fn below(&self, bound: usize) -> usize {
        let bound = u64::try_from(bound).expect("a usize fits");
        usize::try_from(self.number() % bound).expect("it is below a usize")
    }

    /// A number from 1 to this one, small ones as likely as large ones: each power of two has the same chance.
    pub(crate) fn up_to_by_magnitude(&self, most: usize) -> usize {
        let magnitudes = usize::BITS - most.leading_zeros();
        let bits = self.below(magnitudes.try_into().expect("a small number"));
        (1 + self.below(2 << bits)).min(most)
    }

    /// A number up to this one: any, or rather a small one.
    pub(crate) fn up_to(&self, most: usize) -> usize {
        if self.percent(50) { self.below(most) } else { self.up_to_by_magnitude(most) }
    }

    /// True in this many cases of a hundred.
    pub(crate) fn percent(&self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of these.
    pub(crate) fn pick<'a, T>(&self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }
}

/// The bytes of a file with this seed: any two seeds differ, and so do any two places.
pub(crate) fn content(seed: u64, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    SeededEntropy::new(seed).fill(&mut bytes);
    bytes
}

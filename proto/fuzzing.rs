//! Entry points for the fuzzer: each takes any bytes and asserts what must hold of them.
//!
//! Not a part of the contract: hidden, and compiled for tests and under the feature `fuzzing` only. The services have a
//! module like this one each. `tests/fuzz/run` runs all targets with coverage; plain `cargo test` replays the committed
//! corpus, one folder per target in `tests/fuzz/corpus`.
//!
//! A corpus holds seeds, which [`Target::seeds`] makes with the real encoders, and inputs that once broke something. A
//! test compares the committed seeds with those of today; `MINI_TECTONIC_FUZZ_SEEDS=write cargo test fuzzing` writes
//! them anew.

mod corpus;
mod journal;
mod signed;
mod text;

pub use self::corpus::check_corpus;

/// Something to fuzz.
#[derive(Debug)]
pub struct Target {
    /// Its name, and its corpus'.
    pub name: &'static str,
    /// Takes one input; panics when something does not hold.
    pub run: fn(&[u8]),
    /// Inputs to begin with, in the order in which they are numbered.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// The targets of this crate.
pub const TARGETS: &[Target] = &[
    Target { name: "capability", run: signed::capability, seeds: signed::capability_seeds },
    Target { name: "journal", run: journal::run, seeds: journal::seeds },
    Target { name: "receipt", run: signed::receipt, seeds: signed::receipt_seeds },
    Target { name: "token", run: text::token, seeds: text::token_seeds },
];

/// Takes choices from an input, one by one. An input that is over gives zeros.
#[derive(Debug, Clone, Copy)]
pub struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    /// All that is in these bytes.
    pub fn new(input: &'a [u8]) -> Self {
        Self(input)
    }

    /// The next bytes, filled up with zeros.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let (now, later) = self.0.split_at(N.min(self.0.len()));
        self.0 = later;
        let mut bytes = [0; N];
        bytes.iter_mut().zip(now).for_each(|(to, from)| *to = *from);
        bytes
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        let [byte] = self.bytes();
        byte
    }

    /// Everything behind the choices so far.
    pub fn rest(self) -> &'a [u8] {
        self.0
    }

    /// Whether the input is over.
    pub fn is_over(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_target_takes_its_corpus() {
        super::check_corpus(super::TARGETS);
    }
}

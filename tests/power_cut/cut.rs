//! What a power cut leaves of what was not synced.

use std::fmt;

use crate::dice::Dice;

/// What becomes of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Data {
    /// None of them is on the disk.
    None,
    /// All are.
    All,
    /// Each write is or is not, whatever became of those before it.
    Some,
    /// So does each part of this size of each write.
    Torn { unit: usize },
}

/// What becomes of changes of names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Names {
    /// None of them is on the disk.
    None,
    /// All are.
    All,
    /// Those before some moment are, as a journal has it.
    Earlier,
    /// Each is or is not.
    Some,
}

/// A cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cut {
    pub(crate) data: Data,
    pub(crate) names: Names,
}

impl Cut {
    /// Keeps only what was synced.
    #[cfg(test)]
    pub(crate) const HARD: Self = Self { data: Data::None, names: Names::None };

    pub(crate) fn draw(dice: &Dice) -> Self {
        let data = [Data::None, Data::All, Data::Some, Data::Torn { unit: 512 }, Data::Torn { unit: 4096 }];
        let names = [Names::None, Names::All, Names::Earlier, Names::Some];
        Self { data: *dice.pick(&data), names: *dice.pick(&names) }
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unsynced bytes: {:?}, unsynced names: {:?}", self.data, self.names)
    }
}

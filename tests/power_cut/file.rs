//! A file: what its readers see, what is on the disk, and what lies between the two.

use std::collections::BTreeSet;

use crate::cut::Data;
use crate::dice::Dice;

/// What happened to a file since its last sync.
#[derive(Debug, Clone)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Resize(usize),
}

impl Change {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes } => {
                let end = offset + bytes.len();
                to.resize(to.len().max(end), 0);
                to[*offset..end].copy_from_slice(bytes);
            }
            Self::Resize(size) => to.resize(*size, 0),
        }
    }

    /// What becomes of the part of a file that begins at `start`.
    fn apply_to_unit(&self, unit: &mut [u8], start: usize) {
        let end = start + unit.len();
        match self {
            Self::Write { offset, bytes } => {
                let (from, to) = ((*offset).max(start), (offset + bytes.len()).min(end));
                if from < to {
                    unit[from - start..to - start].copy_from_slice(&bytes[from - offset..to - offset]);
                }
            }
            Self::Resize(size) => unit[(*size).clamp(start, end) - start..].fill(0),
        }
    }
}

/// A file.
#[derive(Debug, Clone, Default)]
pub(crate) struct FileImage {
    cached: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
}

impl FileImage {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.cached
    }

    pub(crate) fn write(&mut self, offset: usize, bytes: &[u8]) {
        self.change(Change::Write { offset, bytes: bytes.to_vec() });
    }

    pub(crate) fn resize(&mut self, size: usize) {
        self.change(Change::Resize(size));
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.cached);
        self.pending.push(change);
    }

    pub(crate) fn sync(&mut self) {
        for change in self.pending.drain(..) {
            change.apply(&mut self.durable);
        }
    }

    /// Loses what was not synced, as far as `data` says; the rest is on the disk then.
    pub(crate) fn cut(&mut self, data: Data, dice: &Dice) {
        match data {
            Data::None => {}
            Data::All => self.sync(),
            Data::Some => {
                let kept: Vec<_> = self.pending.drain(..).filter(|_change| dice.percent(50)).collect();
                self.pending = kept;
                self.sync();
            }
            Data::Torn { unit } => self.durable = self.torn(unit, dice),
        }
        self.pending.clear();
        self.cached.clone_from(&self.durable);
    }

    /// Each unit of the file, and its size, as they were at some moment since the last sync, which need not be the same
    /// moment: the system writes back pages as it likes, and a disk writes sectors.
    fn torn(&self, unit: usize, dice: &Dice) -> Vec<u8> {
        let moments = self.pending.len() + 1;
        let mut file = self.durable.clone();
        for change in &self.pending[..dice.below(moments)] {
            match change {
                Change::Write { offset, bytes } => file.resize(file.len().max(offset + bytes.len()), 0),
                Change::Resize(size) => file.resize(*size, 0),
            }
        }
        for start in self.touched_units(unit) {
            let mut bytes = vec![0; unit];
            let durable = self.durable.get(start..).unwrap_or_default();
            let length = durable.len().min(unit);
            bytes[..length].copy_from_slice(&durable[..length]);
            for change in &self.pending[..dice.below(moments)] {
                change.apply_to_unit(&mut bytes, start);
            }
            let end = (start + unit).min(file.len());
            if start < end {
                file[start..end].copy_from_slice(&bytes[..end - start]);
            }
        }
        file
    }

    /// Where the units begin that anything was written to.
    fn touched_units(&self, unit: usize) -> BTreeSet<usize> {
        let units = |change: &Change| match change {
            Change::Write { offset, bytes } => offset / unit..(offset + bytes.len()).div_ceil(unit),
            Change::Resize(_) => 0..0,
        };
        self.pending.iter().flat_map(units).map(|index| index * unit).collect()
    }
}

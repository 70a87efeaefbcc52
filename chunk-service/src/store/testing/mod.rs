//! Disks for tests: one that fails on demand, one that loses what was not synced, one that is used wrongly, and a world
//! around a store.

pub(crate) mod crash_disk;
pub(crate) mod faulty_disk;
pub(crate) mod figures;
pub(crate) mod mistakes;
pub(crate) mod world;

//! Background work.

pub mod board;
pub mod garbage;
mod jumps;
pub mod orphans;
mod place;
pub mod uploads;

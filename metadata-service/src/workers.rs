//! Background work.

pub mod garbage;
mod jumps;
mod place;
pub mod uploads;

//! Background work.

pub mod board;
pub mod garbage;
mod jumps;
mod place;
pub mod uploads;

//! Background work.

mod jumps;
pub mod uploads;

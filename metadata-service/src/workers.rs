//! Background work.

pub mod board;
pub mod garbage;
#[cfg(test)]
mod gc_safety;
pub mod orphans;
mod place;
pub mod uploads;

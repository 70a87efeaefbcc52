//! Background work.

pub mod uploads;

//! The store as a whole: damage, faults, crashes.

mod bit_rot;
mod crashes;
mod faults;
mod model;
mod writes;

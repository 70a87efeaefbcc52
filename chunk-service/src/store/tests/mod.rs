//! The store as a whole: damage, faults, crashes, and whether these suites would see a mistake.

mod bit_rot;
mod classes;
mod crash_states;
mod crashes;
mod fault_matrix;
mod faults;
mod group_sync;
mod model;
mod rot_matrix;
mod seeded;
mod write_back;
mod writes;

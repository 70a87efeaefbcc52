//! What suites that kill the services share: the processes under test, and what is random about a run.

pub mod random;
pub mod services;

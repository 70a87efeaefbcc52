//! What the suites print, and how they are told to run in their long form.

use std::fmt;

/// Prints a suite's figures; `cargo test` shows them with `--nocapture`.
#[expect(clippy::print_stdout, reason = "the figures are what a suite is run for")]
pub(crate) fn print(figures: impl fmt::Display) {
    println!("{figures}");
}

/// The number that an environment variable has, if it is set.
pub(crate) fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} must be a number")))
}

//! What a suite has seen, as its last lines tell it, and whether its short or its long form runs.

use std::fmt;

/// Whether the long forms of the suites are wanted: `MINI_TECTONIC_LONG=1`.
pub(crate) fn long() -> bool {
    std::env::var_os("MINI_TECTONIC_LONG").is_some_and(|value| value == "1")
}

/// Prints a suite's figures; `cargo test` shows them with `--nocapture`.
#[expect(clippy::print_stdout, reason = "the figures are what a suite is run for")]
pub(crate) fn print(figures: impl fmt::Display) {
    println!("{figures}");
}

/// Tells, when a check fails while it lives, what was being checked.
#[derive(Debug)]
pub(crate) struct Context<T: fmt::Debug>(pub(crate) T);

impl<T: fmt::Debug> Drop for Context<T> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            print(format_args!("this happened with {:?}", self.0));
        }
    }
}

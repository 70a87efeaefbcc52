//! Nobody can tell what is shipped to die: its binary does not even know the word.

use regex::bytes::Regex;

/// The variable that arms a failpoint.
const VARIABLE: &str = "MINI_TECTONIC_FAILPOINT";

#[test]
fn failpoints_are_in_the_binary_exactly_when_it_was_built_with_them() {
    let binary = std::fs::read(env!("CARGO_BIN_EXE_mini-tectonic-rs")).unwrap();
    assert_eq!(Regex::new(VARIABLE).unwrap().is_match(&binary), cfg!(feature = "failpoints"));
}

//! Bytes as hex digits in lower case, the only form that is written and taken.
//!
//! A page of a listing holds a thousand SHA-256s: written by `{:02x}` for each byte they were a sixth of the time that the
//! metadata service spent on it.

use std::fmt;

use data_encoding::{Encoding, HEXLOWER};

static DIGITS: Encoding = HEXLOWER;

/// The digits of these bytes, for [`fmt::Display`] of what is no secret.
pub fn display(bytes: &[u8]) -> impl fmt::Display + '_ {
    DIGITS.encode_display(bytes)
}

/// Appends the digits of these bytes. There is no copy of them elsewhere, so it is for secrets too, where `text` has the room.
pub fn append(bytes: &[u8], text: &mut String) {
    DIGITS.encode_append(bytes, text);
}

/// Fills `bytes` from a text. Returns whether it was that many bytes' digits, in lower case, and nothing else; when not,
/// what is in `bytes` means nothing.
#[must_use]
pub fn fill(bytes: &mut [u8], text: &str) -> bool {
    text.len() == 2 * bytes.len() && DIGITS.decode_mut(text.as_bytes(), bytes) == Ok(bytes.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_not_the_digits_of_so_many_bytes_is_not_taken() {
        for text in ["", "0", "00f", "00ff0", "00ff00", "00Ff", "0xff", "00 f", "00\u{e9}", "+0ff", "00fg"] {
            assert!(!fill(&mut [0; 2], text), "{text}");
        }
        assert!(fill(&mut [], ""));
    }

    proptest! {
        #[test]
        fn bytes_are_read_as_they_were_written(bytes: Vec<u8>) {
            let mut text = String::new();
            append(&bytes, &mut text);
            let one_by_one: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            prop_assert_eq!(&text, &one_by_one);
            prop_assert_eq!(display(&bytes).to_string(), one_by_one);
            let mut read = vec![0; bytes.len()];
            prop_assert!(fill(&mut read, &text));
            prop_assert_eq!(read, bytes);
        }
    }
}

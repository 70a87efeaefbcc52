//! How sizes, times, ranges and labels are written on the command line and shown to people.

use bytesize::ByteSize;
use indicatif::HumanBytes;
use mini_tectonic_client::ByteRange;

/// Reads `4096`, `4KiB`, `1.5GiB`, `64MB`.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let size: ByteSize = text.parse()?;
    Ok(size.as_u64())
}

/// Reads `A-B` (both included, as in HTTP) or `A-` (to the end).
pub(crate) fn parse_range(text: &str) -> Result<ByteRange, String> {
    let form = || "must be A-B (both bytes included) or A-, counted from 0".to_owned();
    let (first, last) = text.split_once('-').ok_or_else(form)?;
    let offset: u64 = first.parse().map_err(|_not_a_number| form())?;
    if last.is_empty() {
        return Ok(ByteRange { offset, limit: None });
    }
    let last: u64 = last.parse().map_err(|_not_a_number| form())?;
    let before_last = last.checked_sub(offset).ok_or("must not end before it begins")?;
    let limit = before_last.checked_add(1).ok_or("is longer than any blob")?;
    Ok(ByteRange { offset, limit: Some(limit) })
}

/// Reads `KEY=VALUE`.
pub(crate) fn parse_label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        Some(_) | None => Err("must be KEY=VALUE".to_owned()),
    }
}

/// A size for people: `64.00 MiB (67108864)`, or plainly when it is small.
pub(crate) fn size_in_full(bytes: u64) -> String {
    if bytes < 1024 { format!("{bytes} B") } else { format!("{} ({bytes} bytes)", HumanBytes(bytes)) }
}

/// Blobs and their bytes for people: `1 blob, 64.00 MiB (67108864 bytes)`.
pub(crate) fn blobs_in_full(blobs: u64, bytes: u64) -> String {
    let noun = if blobs == 1 { "blob" } else { "blobs" };
    format!("{blobs} {noun}, {}", size_in_full(bytes))
}

/// A time for people: RFC 3339 in whole seconds.
pub(crate) fn time_in_seconds(time: Option<&prost_types::Timestamp>) -> String {
    time.map_or_else(|| "-".to_owned(), |time| prost_types::Timestamp { seconds: time.seconds, nanos: 0 }.to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_read_in_the_units_people_write() {
        for (text, size) in [("0", 0), ("4096", 4096), ("4KiB", 4096), ("4 KB", 4000), ("1.5GiB", 1_610_612_736)] {
            assert_eq!(parse_size(text), Ok(size), "{text}");
        }
        for bad in ["", "KiB", "-1", "1.2.3", "4XiB"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ranges_are_inclusive_and_may_be_open() {
        let range = |text| parse_range(text).map(|range| (range.offset, range.limit));
        assert_eq!(range("0-0"), Ok((0, Some(1))));
        assert_eq!(range("5-9"), Ok((5, Some(5))));
        assert_eq!(range("7-"), Ok((7, None)));
        for bad in ["", "-", "-5", "9-5", "a-b", "1", "0-18446744073709551615", "1-2-3"] {
            assert!(range(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn labels_need_a_key() {
        assert_eq!(parse_label("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert!(parse_label("=b").is_err() && parse_label("ab").is_err());
    }

    proptest! {
        #[test]
        fn every_range_reads_as_it_was_written(offset in 0..u64::MAX / 2, length in 1..u64::MAX / 2) {
            let read = parse_range(&format!("{offset}-{}", offset + length - 1)).unwrap();
            prop_assert_eq!((read.offset, read.limit), (offset, Some(length)));
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            prop_assert!(text.contains('-') || parse_range(&text).is_err());
        }
    }
}

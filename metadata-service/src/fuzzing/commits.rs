//! What the engine's journal holds: groups of commits.

use bytes::Bytes;

use crate::store::feed::Writes;
use crate::store::sled::record::{Record, encode, parse};

/// What was read is written as the same.
pub(super) fn run(input: &[u8]) {
    if let Some(Record { first, last, writes }) = parse(input) {
        assert_eq!(encode(first, last, &writes), input, "a record changed");
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let value = |bytes: &'static [u8]| Some(Bytes::from_static(bytes));
    let one = Writes::from([(b"usage/posts".to_vec(), value(b"row"))]);
    let mut more = one.clone();
    more.extend([(b"blob/posts/1".to_vec(), value(b"")), (b"upload/posts/1".to_vec(), None)]);
    vec![encode(1, 1, &one), encode(7, 9, &more)]
}

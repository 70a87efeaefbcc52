//! Page tokens: only what a listing made is taken, and only by that listing.

use proto::entropy::SeededEntropy;
use proto::fuzzing::Choices;
use proto::secret::SecretKey;

use crate::page_token::Listing;

const LISTING: Listing<'static> = Listing { tenant: "posts", method: "ListBlobs", filter: "a/" };

fn secret() -> SecretKey {
    SecretKey::generate(&SeededEntropy::new(1))
}

/// The secret of a service that has made no token yet. Those made below are no forgeries: the fuzzer sees what is compared
/// with them, and once sent one as a stranger's.
fn unused_secret() -> SecretKey {
    SecretKey::generate(&SeededEntropy::new(3))
}

/// With an even first byte the others are a token as a stranger would send it. With an odd one they are a place, what
/// is put there, and the key to make a good token of.
pub(super) fn run(input: &[u8]) {
    let mut choices = Choices::new(input);
    if choices.byte().is_multiple_of(2) {
        let text = String::from_utf8_lossy(choices.rest());
        let taken = LISTING.verify(&unused_secret(), &text);
        assert!(text.is_empty() || taken.is_err(), "nobody made it");
        return;
    }
    let (at, to) = (usize::from(u16::from_be_bytes(choices.bytes())), choices.byte());
    let key = choices.rest();
    let text = LISTING.sign(&secret(), Some(key));
    // Longer ones are made of no key that there is.
    assert!(text.len() > 4096 || LISTING.verify(&secret(), &text).is_ok_and(|taken| taken.as_deref() == Some(key)));
    for other in [Listing { tenant: "pests", ..LISTING }, Listing { method: "List", ..LISTING }] {
        assert!(other.verify(&secret(), &text).is_err(), "another listing made it");
    }
    let changed = text.char_indices().map(|(index, letter)| if index == at { char::from(to) } else { letter });
    let changed: String = changed.collect();
    assert!(changed == text || LISTING.verify(&secret(), &changed).is_err(), "a letter was changed");
}

/// A token of another secret, and keys to make tokens of.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    let foreign = LISTING.sign(&SecretKey::generate(&SeededEntropy::new(2)), Some(b"key"));
    vec![[&[0], foreign.as_bytes()].concat(), [&[1, 0, 3, b'-'][..], b"name/posts/a"].concat(), vec![1]]
}

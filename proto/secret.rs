//! Secret keys and keyed sums.
//!
//! Every key is derived from the cluster secret by HMAC-SHA256 under a label, so nothing has to be stored per node or
//! token, and a repeated request for one gives the same bytes. (Invariant I18: a secret is never printed.)

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use zeroize::Zeroizing;

use crate::entropy::Entropy;
use crate::hex;

/// Bytes of a secret and of a keyed sum.
pub const SECRET_BYTES: usize = 32;

/// A 256-bit key. Wiped when dropped; `Debug` shows nothing; there is no `Display` and no `==`.
#[derive(Clone)]
pub struct SecretKey(Zeroizing<[u8; SECRET_BYTES]>);

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl SecretKey {
    /// Draws a new key.
    pub fn generate(entropy: &dyn Entropy) -> Self {
        let mut bytes = Zeroizing::new([0; SECRET_BYTES]);
        entropy.fill(bytes.as_mut());
        Self(bytes)
    }

    /// Takes a key that was kept or received.
    ///
    /// Returns `None` when the length is not [`SECRET_BYTES`].
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(|bytes| Self(Zeroizing::new(bytes)))
    }

    /// Takes a key that was written by [`SecretKey::expose_hex`].
    ///
    /// Returns `None` when the text is anything else.
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = Zeroizing::new([0; SECRET_BYTES]);
        hex::fill(bytes.as_mut(), text).then_some(Self(bytes))
    }

    /// Appends the key as hex digits: for the file that keeps it and the token that is handed over, never for a log. `text`
    /// is wiped by whoever has it, and has the room already, or its bytes stay behind elsewhere.
    pub fn expose_hex(&self, text: &mut String) {
        hex::append(self.expose(), text);
    }

    /// The key itself: for the file that keeps it and the answer that hands it over, never for a log.
    pub fn expose(&self) -> &[u8; SECRET_BYTES] {
        &self.0
    }

    /// HMAC-SHA256 of the parts under this key. Each part is preceded by its length as eight bytes, so that no two
    /// lists of parts sum up alike.
    pub fn sum(&self, label: &str, parts: &[&[u8]]) -> [u8; SECRET_BYTES] {
        self.mac(label, parts).finalize().into_bytes().into()
    }

    /// Whether `claimed` is [`SecretKey::sum`] of the parts, in a time that does not depend on where they differ.
    pub fn verifies(&self, label: &str, parts: &[&[u8]], claimed: &[u8]) -> bool {
        self.mac(label, parts).verify_slice(claimed).is_ok()
    }

    /// A key for one purpose.
    pub fn derive(&self, label: &str, parts: &[&[u8]]) -> Self {
        Self(Zeroizing::new(self.sum(label, parts)))
    }

    fn mac(&self, label: &str, parts: &[&[u8]]) -> Hmac<sha2::Sha256> {
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(self.0.as_ref()).expect("HMAC takes a key of any length");
        for part in std::iter::once(label.as_bytes()).chain(parts.iter().copied()) {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::SeededEntropy;

    #[test]
    fn debug_shows_nothing_of_a_secret() {
        let key = SecretKey::generate(&SeededEntropy::new(1));
        assert_eq!(format!("{key:?}"), "[redacted]");
    }

    #[test]
    fn a_key_is_read_from_its_digits_and_from_nothing_else() {
        let key = SecretKey::generate(&SeededEntropy::new(1));
        let mut text = String::new();
        key.expose_hex(&mut text);
        assert_eq!(SecretKey::from_hex(&text).unwrap().expose(), key.expose());
        assert!(SecretKey::from_hex(&text[2..]).is_none() && SecretKey::from_hex(&text.to_uppercase()).is_none());
    }

    #[test]
    fn moving_a_byte_between_parts_changes_the_sum() {
        let key = SecretKey::generate(&SeededEntropy::new(1));
        assert_ne!(key.sum("l", &[b"ab", b"c"]), key.sum("l", &[b"a", b"bc"]));
        assert_ne!(key.sum("l", &[b"ab"]), key.sum("la", &[b"b"]));
        let sum = key.sum("l", &[b"ab"]);
        assert!(key.verifies("l", &[b"ab"], &sum) && !key.verifies("m", &[b"ab"], &sum));
        assert!(!key.verifies("l", &[b"ab"], &sum[..31]));
    }
}

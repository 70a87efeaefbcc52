//! Page tokens: where a listing goes on, opaque to callers.
//!
//! base64url of the last key of the page before, followed by a keyed sum over tenant, method, filter and that key. So a
//! token works for the listing that made it and for no other, and nobody can make one.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proto::limits::{PAGE_SIZE, PAGE_SIZE_MAX};
use proto::secret::{SECRET_BYTES, SecretKey};

use crate::error::MetadataError;

const LABEL: &str = "mini-tectonic page token v1";
/// Longest text that is looked at: an escaped display name of all zeros, its tenant, its blob and the sum, in base64.
const TEXT_BYTES_MAX: usize = 4096;

/// Which listing a token belongs to.
#[derive(Debug, Clone, Copy)]
pub struct Listing<'a> {
    /// The tenant; empty for the operator's listings.
    pub tenant: &'a str,
    /// The method.
    pub method: &'static str,
    /// What it lists.
    pub filter: &'a str,
}

impl Listing<'_> {
    fn parts<'b>(&'b self, last_key: &'b [u8]) -> [&'b [u8]; 4] {
        let tenant = if seeded!(PageTokensShared) { "" } else { self.tenant };
        [tenant.as_bytes(), self.method.as_bytes(), self.filter.as_bytes(), last_key]
    }

    /// The token that goes on behind a key; empty for none.
    pub fn sign(&self, secret: &SecretKey, last_key: Option<&[u8]>) -> String {
        let Some(last_key) = last_key else { return String::new() };
        let sum = secret.sum(LABEL, &self.parts(last_key));
        URL_SAFE_NO_PAD.encode([last_key, sum.as_slice()].concat())
    }

    /// The key behind which to go on; `None` for the first page.
    ///
    /// # Errors
    /// [`MetadataError::Field`] for a token that this listing did not make.
    pub fn verify(&self, secret: &SecretKey, text: &str) -> Result<Option<Vec<u8>>, MetadataError> {
        if text.is_empty() {
            return Ok(None);
        }
        let refused = || MetadataError::field("page_token", "is not the next_page_token of this listing");
        let signed = if text.len() <= TEXT_BYTES_MAX { URL_SAFE_NO_PAD.decode(text).ok() } else { None };
        let signed = signed.ok_or_else(refused)?;
        let (last_key, sum) = signed.split_last_chunk::<SECRET_BYTES>().ok_or_else(refused)?;
        let good = secret.verifies(LABEL, &self.parts(last_key), sum);
        good.then(|| Some(last_key.to_vec())).ok_or_else(refused)
    }
}

/// Number of entries of a page: the default for 0, and never more than the largest page.
///
/// # Errors
/// [`MetadataError::Field`] for a negative number.
pub fn page_size(asked: i32) -> Result<usize, MetadataError> {
    let asked =
        usize::try_from(asked).map_err(|_negative| MetadataError::field("page_size", "must not be negative"))?;
    Ok(if asked == 0 { PAGE_SIZE } else { asked.min(PAGE_SIZE_MAX) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proto::entropy::SeededEntropy;

    use super::*;

    const LISTING: Listing<'static> = Listing { tenant: "posts", method: "ListBlobs", filter: "a/" };

    #[test]
    fn a_token_works_for_its_listing_only() {
        let secret = SecretKey::generate(&SeededEntropy::new(1));
        let text = LISTING.sign(&secret, Some(b"key"));
        assert_eq!(LISTING.verify(&secret, &text).unwrap().as_deref(), Some(b"key".as_slice()));
        let others = [
            Listing { tenant: "images", ..LISTING },
            Listing { method: "ListTenants", ..LISTING },
            Listing { filter: "a", ..LISTING },
        ];
        for other in others {
            assert!(other.verify(&secret, &text).is_err(), "{other:?}");
        }
        assert!(LISTING.verify(&SecretKey::generate(&SeededEntropy::new(2)), &text).is_err());
        assert!(LISTING.sign(&secret, None).is_empty() && LISTING.verify(&secret, "").unwrap().is_none());
    }

    #[test]
    fn every_changed_character_is_noticed() {
        let secret = SecretKey::generate(&SeededEntropy::new(1));
        let text = LISTING.sign(&secret, Some(b"keys"));
        for at in 0..text.len() {
            for to in ["A", "b", "-", "="] {
                let mut changed = text.clone();
                changed.replace_range(at..=at, to);
                assert!(changed == text || LISTING.verify(&secret, &changed).is_err(), "{to} at {at}");
            }
        }
    }

    #[test]
    fn the_longest_key_fits_into_a_token() {
        let secret = SecretKey::generate(&SeededEntropy::new(1));
        let tenant = "a".repeat(63).parse().unwrap();
        let blob = proto::ids::BlobId::generate(1, &SeededEntropy::new(1));
        let key = crate::store::keys::name(&tenant, &"\0".repeat(proto::limits::DISPLAY_NAME_BYTES_MAX), blob);
        let text = LISTING.sign(&secret, Some(&key));
        assert_eq!(LISTING.verify(&secret, &text).unwrap(), Some(key));
    }

    #[test]
    fn page_sizes_are_bounded() {
        assert_eq!((page_size(0).unwrap(), page_size(7).unwrap(), page_size(i32::MAX).unwrap()), (100, 7, 1000));
        assert!(page_size(-1).is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics_and_none_is_taken(text in ".{1,90}") {
            let secret = SecretKey::generate(&SeededEntropy::new(1));
            prop_assert!(LISTING.verify(&secret, &text).is_err());
        }
    }
}

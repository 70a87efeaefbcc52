//! Typed ids. Each parses in one form, prints in that form, and never converts into another kind.

use std::fmt;
use std::str::FromStr;

use uuid::{Builder, Uuid};

use crate::entropy::Entropy;

/// An id that is not in its one accepted form.
///
/// The text is not repeated: it may be long, and may come from a stranger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not a UUID in canonical lower case, such as `0190b5c4-7e5a-7cc3-98c4-dc0c0c07398f`.
    #[error("must be a UUID in canonical lower case, such as 0190b5c4-7e5a-7cc3-98c4-dc0c0c07398f")]
    NotAUuid,
    /// Not the 16 bytes of a UUID.
    #[error("must be the 16 bytes of a UUID")]
    NotSixteenBytes,
    /// Not a tenant id.
    #[error("must be 3 to 63 of a-z, 0-9 and '-', beginning with a letter")]
    NotATenantId,
}

/// Parses the canonical lower-case form and nothing else: no braces, no URN, no upper case.
fn parse_canonical(text: &str) -> Result<Uuid, IdError> {
    let uuid = Uuid::try_parse(text).map_err(|_malformed| IdError::NotAUuid)?;
    let mut buffer = Uuid::encode_buffer();
    if uuid.hyphenated().encode_lower(&mut buffer) == text { Ok(uuid) } else { Err(IdError::NotAUuid) }
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// The id of nothing: all bits 0.
            pub const NIL: Self = Self(Uuid::nil());

            /// Draws a UUIDv7: ids drawn later sort later, up to the millisecond.
            pub fn generate(now_ms: u64, entropy: &dyn Entropy) -> Self {
                let mut random = [0; 10];
                entropy.fill(&mut random);
                Self(Builder::from_unix_timestamp_millis(now_ms, &random).into_uuid())
            }

            /// When it was drawn, in milliseconds since 1970, by the clock of whoever drew it; `None` when it is no UUIDv7.
            pub fn drawn_ms(&self) -> Option<u64> {
                let (seconds, nanos) = self.0.get_timestamp().filter(|_| self.0.get_version_num() == 7)?.to_unix();
                seconds.checked_mul(1_000)?.checked_add(u64::from(nanos) / 1_000_000)
            }

            /// The 16 bytes, in the order in which the text shows them.
            pub fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                parse_canonical(text).map(Self)
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = IdError;
            fn try_from(bytes: &[u8]) -> Result<Self, IdError> {
                let bytes: [u8; 16] = bytes.try_into().map_err(|_length| IdError::NotSixteenBytes)?;
                Ok(Self(Uuid::from_bytes(bytes)))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }
    };
}

uuid_id! {
    /// A blob, and the upload that writes it.
    BlobId
}
uuid_id! {
    /// A block of a blob.
    BlockId
}
uuid_id! {
    /// One file on one chunk service. Never used again.
    ChunkId
}
uuid_id! {
    /// A chunk service.
    NodeId
}
uuid_id! {
    /// All that one metadata service governs.
    ClusterId
}

/// A tenant: 3 to 63 of `[a-z0-9-]`, beginning with a letter.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantId(String);

impl TenantId {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TenantId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let fits = (3..=63).contains(&text.len())
            && text.starts_with(|first: char| first.is_ascii_lowercase())
            && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        if fits { Ok(Self(text.to_owned())) } else { Err(IdError::NotATenantId) }
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::entropy::SeededEntropy;

    #[test]
    fn only_the_canonical_form_of_a_uuid_is_an_id() {
        let text = "0190b5c4-7e5a-7cc3-98c4-dc0c0c07398f";
        assert_eq!(text.parse::<BlobId>().unwrap().to_string(), text);
        for bad in [
            "",
            "0190B5C4-7E5A-7CC3-98C4-DC0C0C07398F",
            "{0190b5c4-7e5a-7cc3-98c4-dc0c0c07398f}",
            "urn:uuid:0190b5c4-7e5a-7cc3-98c4-dc0c0c07398f",
            "0190b5c47e5a7cc398c4dc0c0c07398f",
            "../0190b5c4-7e5a-7cc3-98c4-dc0c0c07398f",
            "0190b5c4-7e5a-7cc3-98c4-dc0c0c07398f\0",
            &"0".repeat(10_240),
        ] {
            assert_eq!(bad.parse::<BlobId>(), Err(IdError::NotAUuid), "{bad:?}");
        }
    }

    #[test]
    fn an_id_tells_when_it_was_drawn() {
        let drawn = BlobId::generate(1_700_000_000_123, &SeededEntropy::new(7));
        assert_eq!(drawn.drawn_ms(), Some(1_700_000_000_123));
        let of_another_kind: BlobId = "0190b5c4-7e5a-4cc3-98c4-dc0c0c07398f".parse().unwrap();
        assert_eq!((of_another_kind.drawn_ms(), BlobId::NIL.drawn_ms()), (None, None));
    }

    #[test]
    fn ids_drawn_later_sort_later() {
        let entropy = SeededEntropy::new(7);
        let early = BlobId::generate(1_700_000_000_000, &entropy);
        let late = BlobId::generate(1_700_000_000_001, &entropy);
        assert!(early < late && early.to_string() < late.to_string());
    }

    #[test]
    fn tenant_ids_keep_to_their_alphabet_and_length() {
        for good in ["abc", "a-1", "posts", &"a".repeat(63)] {
            assert!(good.parse::<TenantId>().is_ok(), "{good}");
        }
        for bad in ["", "ab", "1ab", "-ab", "Abc", "a_b", "a/b", "a\0b", "äbc", &"a".repeat(64)] {
            assert_eq!(bad.parse::<TenantId>(), Err(IdError::NotATenantId), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_and_what_parses_prints_the_same(text in ".{0,80}") {
            if let Ok(id) = text.parse::<ChunkId>() { prop_assert_eq!(id.to_string(), text.clone()); }
            if let Ok(id) = text.parse::<TenantId>() { prop_assert_eq!(id.to_string(), text); }
        }
    }
}

//! Tokens: the long-lived credentials of the admin, tenants, joining nodes and nodes.
//!
//! One text form: `<kind>1.<key id>.<secret>.<crc>`, all hex in lower case: 8 bytes of key id, 32 bytes of secret, and the CRC-32C
//! of everything before the last dot, so that a mistyped or truncated token is told from a wrong one. A tenant's token
//! begins with `mt1`. The digit is the format's version: that of a later one is refused by its number.

use std::fmt;
use std::str::FromStr;

use zeroize::Zeroizing;

use crate::checksum::{Sha256, crc32c};
use crate::entropy::Entropy;
use crate::hex;
use crate::secret::SecretKey;

/// Whose token it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TokenKind {
    /// The operator's.
    Admin,
    /// One tenant's.
    Tenant,
    /// Lets one node join.
    Join,
    /// One node's.
    Node,
}

impl TokenKind {
    fn prefix(self) -> &'static str {
        match self {
            Self::Admin => "ma1",
            Self::Tenant => "mt1",
            Self::Join => "mj1",
            Self::Node => "mn1",
        }
    }

    fn from_prefix(prefix: &str) -> Option<Self> {
        [Self::Admin, Self::Tenant, Self::Join, Self::Node].into_iter().find(|kind| kind.prefix() == prefix)
    }
}

/// Names a token without its secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenKeyId([u8; 8]);

impl TokenKeyId {
    /// Draws a new one.
    pub fn generate(entropy: &dyn Entropy) -> Self {
        let mut bytes = [0; 8];
        entropy.fill(&mut bytes);
        Self(bytes)
    }

    /// The 8 bytes.
    pub fn as_bytes(&self) -> &[u8; 8] {
        &self.0
    }
}

impl TryFrom<&[u8]> for TokenKeyId {
    type Error = TokenError;
    fn try_from(bytes: &[u8]) -> Result<Self, TokenError> {
        bytes.try_into().map(Self).map_err(|_length| TokenError::Malformed)
    }
}

/// As [`Display`](fmt::Display) writes it: 16 hex digits in lower case.
impl FromStr for TokenKeyId {
    type Err = TokenError;
    fn from_str(text: &str) -> Result<Self, TokenError> {
        let mut bytes = [0; 8];
        hex::fill(&mut bytes, text).then_some(Self(bytes)).ok_or(TokenError::Malformed)
    }
}

impl fmt::Display for TokenKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex::display(&self.0).fmt(f)
    }
}

impl fmt::Debug for TokenKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is not taken for a token. Says nothing of what is in it but its version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is not one, or was damaged on its way.
    #[error("not a token, or a damaged one")]
    Malformed,
    /// Made by a later version of this program.
    #[error(
        "a token of format version {found}, but this program knows versions up to {}; use a newer program",
        Self::KNOWN
    )]
    TooNew {
        /// Its version.
        found: u32,
    },
}

impl TokenError {
    /// The latest version that is known here: the digit in every kind's prefix.
    pub const KNOWN: u32 = 1;
}

/// A later version may have anything behind its prefix.
fn refuse_newer(text: &str) -> Result<(), TokenError> {
    let prefix = text.split_once('.').map_or(text, |(prefix, _rest)| prefix);
    let version = ["ma", "mt", "mj", "mn"].into_iter().find_map(|kind| prefix.strip_prefix(kind));
    match version.and_then(|digits| digits.parse().ok()) {
        Some(found) if found > TokenError::KNOWN => Err(TokenError::TooNew { found }),
        Some(_) | None => Ok(()),
    }
}

/// A token. `Debug` shows its kind and key id only.
#[derive(Clone)]
pub struct Token {
    /// Whose it is.
    pub kind: TokenKind,
    /// Its name.
    pub key_id: TokenKeyId,
    secret: SecretKey,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} token {} [redacted]", self.kind, self.key_id)
    }
}

impl Token {
    /// Puts a token together.
    pub fn new(kind: TokenKind, key_id: TokenKeyId, secret: SecretKey) -> Self {
        Self { kind, key_id, secret }
    }

    /// Draws a token.
    pub fn generate(kind: TokenKind, entropy: &dyn Entropy) -> Self {
        Self::new(kind, TokenKeyId::generate(entropy), SecretKey::generate(entropy))
    }

    /// What is stored of a token: enough to recognise it, not enough to use it.
    pub fn secret_sha256(&self) -> Sha256 {
        Sha256::of(self.secret.expose())
    }

    /// Whether the stored sum is this token's, in a time that does not depend on where they differ.
    pub fn matches(&self, stored: &Sha256) -> bool {
        use subtle::ConstantTimeEq as _;
        self.secret_sha256().as_bytes().ct_eq(stored.as_bytes()).into()
    }

    /// The text that its holder keeps and sends. Never for a log.
    pub fn expose(&self) -> Zeroizing<String> {
        use fmt::Write as _;
        let mut text = Zeroizing::new(String::with_capacity(96));
        text.push_str(self.kind.prefix());
        let written = write!(text, ".{}.", self.key_id);
        debug_assert!(written.is_ok(), "writing to a string cannot fail");
        self.secret.expose_hex(&mut text);
        let crc = crc32c(text.as_bytes());
        let written = write!(text, ".{crc:08x}");
        debug_assert!(written.is_ok(), "writing to a string cannot fail");
        text
    }
}

impl FromStr for Token {
    type Err = TokenError;
    fn from_str(text: &str) -> Result<Self, TokenError> {
        refuse_newer(text)?;
        let (before, crc) = text.rsplit_once('.').ok_or(TokenError::Malformed)?;
        if format!("{:08x}", crc32c(before.as_bytes())) != crc {
            return Err(TokenError::Malformed);
        }
        let mut parts = before.split('.');
        let (Some(prefix), Some(key_id), Some(secret), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(TokenError::Malformed);
        };
        let kind = TokenKind::from_prefix(prefix).ok_or(TokenError::Malformed)?;
        let key_id = key_id.parse()?;
        let secret = SecretKey::from_hex(secret).ok_or(TokenError::Malformed)?;
        Ok(Self { kind, key_id, secret })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::entropy::SeededEntropy;

    #[test]
    fn a_token_reads_as_it_was_printed_and_debug_hides_it() {
        let entropy = SeededEntropy::new(11);
        for kind in [TokenKind::Admin, TokenKind::Tenant, TokenKind::Join, TokenKind::Node] {
            let token = Token::generate(kind, &entropy);
            let text = token.expose();
            let read: Token = text.parse().unwrap();
            assert_eq!((read.kind, read.key_id), (kind, token.key_id));
            assert!(read.matches(&token.secret_sha256()));
            assert!(text.starts_with(kind.prefix()));
            let secret = text.split('.').nth(2).unwrap();
            assert!(!format!("{token:?}").contains(secret));
        }
    }

    #[test]
    fn every_changed_or_missing_character_is_noticed() {
        let text = Token::generate(TokenKind::Tenant, &SeededEntropy::new(12)).expose();
        for at in 0..text.len() {
            let mut changed = text.as_bytes().to_vec();
            changed[at] ^= 1;
            assert!(String::from_utf8(changed).unwrap().parse::<Token>().is_err(), "at {at}");
            assert!(text[..at].parse::<Token>().is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_token_of_a_later_version_is_told_from_a_damaged_one_without_its_secret() {
        for text in ["ma2.anything", "mt12", "mj2.0", "mn4000000000.x"] {
            let refused = text.parse::<Token>().unwrap_err();
            assert!(matches!(refused, TokenError::TooNew { .. }), "{text}");
            let said = refused.to_string();
            assert!(said.contains("versions up to 1; use a newer program") && !said.contains("anything"), "{said}");
        }
        for text in ["ma0.x", "ma1.x", "mx2.x", "2", "ma", "ma2x.y", ""] {
            assert_eq!(text.parse::<Token>().unwrap_err(), TokenError::Malformed, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,120}") {
            prop_assert!(text.parse::<Token>().is_err());
        }
    }
}

//! Tokens of all kinds: enough to recognise one, not enough to use it (I18).

use std::fmt;

use proto::checksum::Sha256;
use proto::ids::{NodeId, TenantId};
use proto::token::TokenKeyId;

use super::Record;

/// Whose a token is, and what it is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// The operator.
    Admin,
    /// A tenant.
    Tenant(TenantId),
    /// Whoever joins with it first: that node, once one has.
    Join(Option<NodeId>),
    /// A node.
    Node(NodeId),
}

/// One thing that a tenant's token can be good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Reading blobs.
    Read,
    /// Writing blobs.
    Write,
    /// Deleting and restoring blobs.
    Delete,
    /// Listing blobs.
    List,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 4] = [Self::Read, Self::Write, Self::Delete, Self::List];

    const fn bit(self) -> u32 {
        match self {
            Self::Read => 1,
            Self::Write => 2,
            Self::Delete => 4,
            Self::List => 8,
        }
    }

    /// Its name for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Delete => "delete",
            Self::List => "list",
        }
    }
}

/// A set of scopes. `Display` names them: `read, list`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scopes(u32);

impl Scopes {
    /// None.
    pub const NONE: Self = Self(0);
    /// Only [`Scope::Read`].
    pub const READ: Self = Self(Scope::Read.bit());
    /// Only [`Scope::Write`].
    pub const WRITE: Self = Self(Scope::Write.bit());
    /// Only [`Scope::Delete`].
    pub const DELETE: Self = Self(Scope::Delete.bit());
    /// Only [`Scope::List`].
    pub const LIST: Self = Self(Scope::List.bit());
    /// All of them.
    pub const ALL: Self = Self(Self::READ.0 | Self::WRITE.0 | Self::DELETE.0 | Self::LIST.0);

    /// Those of this set that `held` lacks.
    #[must_use]
    pub fn missing_in(self, held: Self) -> Self {
        Self(self.0 & !held.0)
    }

    /// Whether there is none in it.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The scopes in it.
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |scope| self.0 & scope.bit() != 0)
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | scope.bit()))
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for scope in self.iter() {
            write!(f, "{separator}{}", scope.as_str())?;
            separator = ", ";
        }
        Ok(())
    }
}

/// A token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRecord {
    /// Whose it is.
    pub holder: Holder,
    /// SHA-256 of its secret.
    pub secret_sha256: Sha256,
    /// What it is good for; means something for a tenant's only.
    pub scopes: Scopes,
    /// When it was made; `None` for one that was made before this was kept.
    pub create_ms: Option<u64>,
    /// From when on it is not valid any more; `None` for one without an end.
    pub expire_ms: Option<u64>,
    /// The token that took its place; an admin's only.
    pub successor: Option<TokenKeyId>,
}

impl TokenRecord {
    /// A token that is good for everything its holder may do, without an end.
    pub fn new(holder: Holder, secret_sha256: Sha256) -> Self {
        Self { holder, secret_sha256, scopes: Scopes::ALL, create_ms: None, expire_ms: None, successor: None }
    }

    /// Whether its time is over.
    pub fn is_expired(&self, now_ms: u64) -> bool {
        self.expire_ms.is_some_and(|expire_ms| expire_ms <= now_ms)
    }
}

/// Layout of [`TokenRecord`]. Rows of the first version have nothing behind `node`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TokenRaw {
    #[prost(bytes = "vec", tag = "1")]
    secret_sha256: Vec<u8>,
    #[prost(uint32, tag = "2")]
    kind: u32,
    #[prost(string, tag = "3")]
    tenant: String,
    #[prost(bytes = "vec", tag = "4")]
    node: Vec<u8>,
    #[prost(uint32, optional, tag = "5")]
    scopes: Option<u32>,
    #[prost(uint64, optional, tag = "6")]
    create_ms: Option<u64>,
    #[prost(uint64, optional, tag = "7")]
    expire_ms: Option<u64>,
    #[prost(bytes = "vec", optional, tag = "8")]
    successor: Option<Vec<u8>>,
}

impl Record for TokenRecord {
    type Raw = TokenRaw;
    const NAME: &'static str = "token";

    fn to_raw(&self) -> TokenRaw {
        let raw = TokenRaw {
            secret_sha256: self.secret_sha256.as_bytes().to_vec(),
            scopes: Some(self.scopes.0),
            create_ms: self.create_ms,
            expire_ms: self.expire_ms,
            successor: self.successor.map(|token| token.as_bytes().to_vec()),
            ..TokenRaw::default()
        };
        match &self.holder {
            Holder::Admin => TokenRaw { kind: 1, ..raw },
            Holder::Tenant(tenant) => TokenRaw { kind: 2, tenant: tenant.to_string(), ..raw },
            Holder::Join(node) => {
                let node = node.map(|node| node.as_bytes().to_vec()).unwrap_or_default();
                TokenRaw { kind: 3, node, ..raw }
            }
            Holder::Node(node) => TokenRaw { kind: 4, node: node.as_bytes().to_vec(), ..raw },
        }
    }

    fn from_raw(raw: TokenRaw) -> Option<Self> {
        let node = || NodeId::try_from(raw.node.as_slice()).ok();
        let holder = match raw.kind {
            1 => Holder::Admin,
            2 => Holder::Tenant(raw.tenant.parse().ok()?),
            3 if raw.node.is_empty() => Holder::Join(None),
            3 => Holder::Join(Some(node()?)),
            4 => Holder::Node(node()?),
            _ => return None,
        };
        // A scope that is not known here could be a bound that is not known here.
        let scopes = Scopes(raw.scopes.unwrap_or(Scopes::ALL.0));
        if !scopes.missing_in(Scopes::ALL).is_empty() {
            return None;
        }
        Some(Self {
            holder,
            secret_sha256: Sha256::try_from(raw.secret_sha256.as_slice()).ok()?,
            scopes,
            create_ms: raw.create_ms,
            expire_ms: raw.expire_ms,
            successor: raw.successor.as_deref().map(TokenKeyId::try_from).transpose().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{decode, encode};
    use super::*;

    #[test]
    fn a_row_of_the_first_version_is_good_for_everything_and_for_ever() {
        let raw = TokenRaw { secret_sha256: vec![7; 32], kind: 1, ..TokenRaw::default() };
        let read = TokenRecord::from_raw(raw).unwrap();
        assert_eq!(read, TokenRecord::new(Holder::Admin, Sha256::try_from([7; 32].as_slice()).unwrap()));
        assert!(!read.is_expired(u64::MAX));
    }

    #[test]
    fn scopes_are_kept_and_unknown_ones_are_refused() {
        let record = TokenRecord::new(Holder::Admin, Sha256::of(b"s"));
        for scopes in [Scopes::NONE, Scopes::LIST, Scopes::ALL] {
            let record = TokenRecord { scopes, expire_ms: Some(7), ..record.clone() };
            assert_eq!(decode::<TokenRecord>(&encode(&record)).unwrap(), record);
        }
        assert_eq!(TokenRecord::from_raw(TokenRaw { scopes: Some(16), ..record.to_raw() }), None);
        assert_eq!([Scope::List, Scope::Read].into_iter().collect::<Scopes>().to_string(), "read, list");
        assert_eq!(Scopes::ALL.missing_in(Scopes::READ).to_string(), "write, delete, list");
    }

    #[test]
    fn a_token_ends_at_its_moment_and_not_before() {
        let record = TokenRecord { expire_ms: Some(7), ..TokenRecord::new(Holder::Admin, Sha256::of(b"s")) };
        assert!(!record.is_expired(6) && record.is_expired(7));
    }
}

//! Who may ask the metadata service, and with what.

use proto::checksum::crc32c;
use proto::pb;
use proto::token::TokenKind;

use super::site::Site;
use super::spec::{Expected, denied, scopes_missing, unauthenticated};

pub(super) const SCOPES: [&str; 4] = ["read", "write", "delete", "list"];

/// Whom a method is for, as its proto says.
#[derive(Debug, Clone, Copy)]
pub(super) enum Access {
    Admin,
    /// With these scopes.
    Tenant(&'static [&'static str]),
    AdminOrTenant(&'static [&'static str]),
    Join,
    Node,
}

/// Who asks, if the credential is a good one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Who {
    Admin,
    /// The tenant whose objects the cells are about, by a token with these scopes.
    Owner(Vec<&'static str>),
    /// Another tenant.
    Stranger,
    /// By a join token that the other node has used.
    Join,
    Node,
    OtherNode,
}

/// A credential, and what it is worth.
pub(super) struct Credential {
    pub(super) name: String,
    pub(super) authorization: Vec<String>,
    /// Who it is, or how every call with it is refused.
    pub(super) worth: Result<Who, Expected>,
}

impl Credential {
    fn good(name: &str, token: &str, who: Who) -> Self {
        Self { name: name.to_owned(), authorization: vec![format!("Bearer {token}")], worth: Ok(who) }
    }

    fn bad(name: &str, authorization: Vec<String>, refusal: Expected) -> Self {
        Self { name: name.to_owned(), authorization, worth: Err(refusal) }
    }
}

fn invalid() -> Expected {
    unauthenticated("TOKEN_INVALID", "the token is not valid here")
}

/// A token that differs from this one as `change` says, with a checksum that is right.
fn forged(token: &str, change: impl FnOnce(&str) -> String) -> String {
    let (body, _crc) = token.rsplit_once('.').unwrap();
    let body = change(body);
    format!("{body}.{:08x}", crc32c(body.as_bytes()))
}

fn last_digit_flipped(body: &str) -> String {
    let (rest, last) = body.split_at(body.len() - 1);
    let digit = u8::from_str_radix(last, 16).unwrap();
    format!("{rest}{:x}", digit ^ 1)
}

/// Everybody who may do something.
fn good(site: &Site) -> Vec<Credential> {
    let keys = &site.keys;
    let mut good = vec![
        Credential::good("the admin token", &keys.admin, Who::Admin),
        Credential::good("a tenant's token", &site.owner.token, Who::Owner(SCOPES.to_vec())),
        Credential::good("another tenant's token", &site.stranger.token, Who::Stranger),
        Credential::good("a join token", &keys.join, Who::Join),
        Credential::good("a node's token", &keys.node, Who::Node),
        Credential::good("another node's token", &keys.other_node, Who::OtherNode),
    ];
    for (scope, token) in &keys.scoped {
        let word = match scope {
            pb::TokenScope::Read => "read",
            pb::TokenScope::Write => "write",
            pb::TokenScope::Delete => "delete",
            pb::TokenScope::List => "list",
            pb::TokenScope::Unspecified => panic!("no token has no scope"),
        };
        good.push(Credential::good(&format!("a tenant's token to {word}"), token, Who::Owner(vec![word])));
    }
    good
}

fn unknown(site: &Site) -> Vec<Credential> {
    let (keys, own) = (&site.keys, &site.owner.token);
    let bearer = |token: &str| vec![format!("Bearer {token}")];
    let mut bad = vec![
        ("a revoked token", bearer(&keys.revoked)),
        ("a deleted tenant's token", bearer(&keys.of_deleted_tenant)),
        ("a token with a flipped bit", bearer(&forged(own, last_digit_flipped))),
        ("a token of another kind", bearer(&forged(own, |body| body.replacen("mt1", "ma1", 1)))),
        ("the admin's as a tenant's", bearer(&forged(&keys.admin, |body| body.replacen("ma1", "mt1", 1)))),
        ("a token in upper case", bearer(&own.to_uppercase())),
        ("a token with a blank before it", bearer(&format!(" {own}"))),
        ("a token with more behind it", bearer(&format!("{own}0"))),
        ("a token without its end", bearer(&own[..own.len() - 1])),
        ("a token without a scheme", vec![own.clone()]),
        ("a token by another scheme", vec![format!("Basic {own}")]),
        ("a scheme alone", vec!["Bearer".to_owned()]),
        ("no text", vec![String::new()]),
        ("two tokens", [bearer(own), bearer(own)].concat()),
        ("a tenant's token and the admin's", [bearer(own), bearer(&keys.admin)].concat()),
        ("two tokens in one value", vec![format!("Bearer {own}, Bearer {}", keys.admin)]),
        ("a capability to read", bearer(&site.owner.location.capability)),
        ("a capability to write", bearer(&site.owner.upload.blocks[0].chunks[0].capability)),
    ];
    for (name, kind) in [
        ("an unknown admin token", TokenKind::Admin),
        ("an unknown tenant's token", TokenKind::Tenant),
        ("an unknown join token", TokenKind::Join),
        ("an unknown node's token", TokenKind::Node),
    ] {
        bad.push((name, bearer(&Site::unknown(kind))));
    }
    bad.into_iter().map(|(name, values)| Credential::bad(name, values, invalid())).collect()
}

/// Every credential of the matrix.
pub(super) fn credentials(site: &Site) -> Vec<Credential> {
    let missing = "the call carries no token; send the metadata 'authorization: Bearer <token>'";
    let mut all = good(site);
    all.extend(unknown(site));
    all.push(Credential::bad("none", Vec::new(), unauthenticated("TOKEN_MISSING", missing)));
    let keys = &site.keys;
    for (name, token) in [
        ("an expired token", &keys.expired),
        ("an expired admin token", &keys.expired_admin),
        ("an expired join token", &keys.expired_join),
    ] {
        let expired = unauthenticated("TOKEN_EXPIRED", "the token has expired");
        all.push(Credential::bad(name, vec![format!("Bearer {token}")], expired));
    }
    all
}

impl Access {
    /// How this caller is refused; `None` when the method is for them.
    pub(super) fn refusal(self, who: &Who) -> Option<Expected> {
        let (fits, need) = match self {
            Self::Admin => (matches!(who, Who::Admin), "it needs the admin token"),
            Self::Tenant(_) => (matches!(who, Who::Owner(_) | Who::Stranger), "it needs a tenant's token"),
            Self::AdminOrTenant(_) => (
                matches!(who, Who::Admin | Who::Owner(_) | Who::Stranger),
                "it needs the admin token or the tenant's own",
            ),
            Self::Join => (matches!(who, Who::Join), "it needs a join token"),
            Self::Node => (matches!(who, Who::Node | Who::OtherNode), "it needs a node's token"),
        };
        if !fits {
            return Some(denied(need));
        }
        let (Self::Tenant(needed) | Self::AdminOrTenant(needed), Who::Owner(held)) = (self, who) else { return None };
        let missing: Vec<_> = needed.iter().copied().filter(|scope| !held.contains(scope)).collect();
        if missing.is_empty() { None } else { Some(scopes_missing(&missing.join(", "))) }
    }
}

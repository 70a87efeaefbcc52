//! Who calls: the credential is read, looked up and held against what the method needs, before a byte of the body is.
//!
//! [`ACCESS`] names every method; one that it does not name is not served. All tokens are rows of one layer, found by
//! key id and recognised by a hash (I18), so a token that was rotated away or whose tenant is gone is unknown at once.
//! Whether one has expired is told only to whoever holds it: its secret is compared first.

use std::net::SocketAddr;

use proto::error::{Kind, Reason};
use proto::ids::{NodeId, TenantId};
use proto::token::{Token, TokenKeyId, TokenKind};

use crate::audit::{Decision, Event};
use crate::error::MetadataError;
use crate::service::Service;
use crate::store::keys;
use crate::store::records::{Holder, Scopes, TokenRecord};
use crate::store::rows::load;

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// The operator.
    Admin,
    /// A tenant.
    Tenant(TenantId),
    /// Someone who may join as a node, by this token.
    Join(TokenKeyId),
    /// A node.
    Node(NodeId),
    /// Whoever it is, while authentication is off: a tenant that the request names.
    Anyone,
}

/// Who calls, and what the credential allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Who.
    pub principal: Principal,
    /// The credential's name; `None` while authentication is off.
    pub key_id: Option<TokenKeyId>,
    /// What it is good for; means something for a tenant only.
    pub scopes: Scopes,
    /// When it ends, if it does.
    pub expire_ms: Option<u64>,
}

impl Caller {
    /// Whether it is a tenant.
    pub fn is_tenant(&self) -> bool {
        matches!(self.principal, Principal::Tenant(_))
    }
}

/// Whom a method is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// The operator.
    Admin,
    /// A tenant, by a token with these scopes.
    Tenant(Scopes),
    /// The operator, and each tenant for itself, by a token with these scopes.
    AdminOrTenant(Scopes),
    /// Whoever holds a join token.
    Join,
    /// A node.
    Node,
}

/// Every method and whom it is for.
pub const ACCESS: &[(&str, Access)] = &[
    ("/minitectonic.v1.MetadataService/RegisterTenant", Access::Admin),
    ("/minitectonic.v1.MetadataService/GetTenant", Access::AdminOrTenant(Scopes::NONE)),
    ("/minitectonic.v1.MetadataService/ListTenants", Access::Admin),
    ("/minitectonic.v1.MetadataService/UpdateTenant", Access::Admin),
    ("/minitectonic.v1.MetadataService/DeleteTenant", Access::Admin),
    ("/minitectonic.v1.MetadataService/RotateTenantToken", Access::AdminOrTenant(Scopes::ALL)),
    ("/minitectonic.v1.MetadataService/CreateTenantToken", Access::AdminOrTenant(Scopes::ALL)),
    ("/minitectonic.v1.MetadataService/ListTenantTokens", Access::AdminOrTenant(Scopes::ALL)),
    ("/minitectonic.v1.MetadataService/RevokeTenantToken", Access::AdminOrTenant(Scopes::ALL)),
    ("/minitectonic.v1.MetadataService/StartUpload", Access::Tenant(Scopes::WRITE)),
    ("/minitectonic.v1.MetadataService/AllocateBlocks", Access::Tenant(Scopes::WRITE)),
    ("/minitectonic.v1.MetadataService/CommitUpload", Access::Tenant(Scopes::WRITE)),
    ("/minitectonic.v1.MetadataService/AbortUpload", Access::Tenant(Scopes::WRITE)),
    ("/minitectonic.v1.MetadataService/GetUpload", Access::Tenant(Scopes::WRITE)),
    ("/minitectonic.v1.MetadataService/GetBlob", Access::Tenant(Scopes::READ)),
    ("/minitectonic.v1.MetadataService/GetBlobLayout", Access::Tenant(Scopes::READ)),
    ("/minitectonic.v1.MetadataService/ListBlobs", Access::Tenant(Scopes::LIST)),
    ("/minitectonic.v1.MetadataService/DeleteBlob", Access::Tenant(Scopes::DELETE)),
    ("/minitectonic.v1.MetadataService/UndeleteBlob", Access::Tenant(Scopes::DELETE)),
    ("/minitectonic.v1.ClusterService/RegisterNode", Access::Join),
    ("/minitectonic.v1.ClusterService/Heartbeat", Access::Node),
    ("/minitectonic.v1.ClusterService/ListNodes", Access::Admin),
    ("/minitectonic.v1.ClusterService/DescribeChunk", Access::Node),
    ("/minitectonic.v1.ClusterService/ListNodeChunks", Access::Node),
    ("/minitectonic.v1.ClusterService/ReportChunks", Access::Node),
    ("/minitectonic.v1.ClusterService/GetClusterStatus", Access::Admin),
    ("/minitectonic.v1.ClusterService/ListDamagedChunks", Access::Admin),
    ("/minitectonic.v1.ClusterService/ListWorkers", Access::Admin),
    ("/minitectonic.v1.ClusterService/UpdateWorker", Access::Admin),
    ("/minitectonic.v1.ClusterService/RunWorker", Access::Admin),
    ("/minitectonic.v1.ClusterService/CheckCluster", Access::Admin),
    ("/minitectonic.v1.ClusterService/ExportMetadata", Access::Admin),
    ("/minitectonic.v1.ClusterService/EndRestore", Access::Admin),
    ("/minitectonic.v1.ClusterService/RotateAdminToken", Access::Admin),
    ("/minitectonic.v1.ClusterService/CreateJoinToken", Access::Admin),
];

/// A method and whom it is for; `None` for one that is not served.
pub fn access_of(path: &str) -> Option<(&'static str, Access)> {
    ACCESS.iter().find(|(name, _)| *name == path).copied()
}

impl Access {
    /// Refuses whom the method is not for, and a tenant's token that lacks a scope.
    ///
    /// # Errors
    /// [`MetadataError::ScopeMissing`], [`MetadataError::TokenScopes`].
    pub fn check(self, caller: &Caller) -> Result<(), MetadataError> {
        let principal = &caller.principal;
        let (fits, need) = match self {
            Self::Admin => (matches!(principal, Principal::Admin), "it needs the admin token"),
            Self::Tenant(_) => {
                (matches!(principal, Principal::Tenant(_) | Principal::Anyone), "it needs a tenant's token")
            }
            Self::AdminOrTenant(_) => (
                matches!(principal, Principal::Admin | Principal::Tenant(_)),
                "it needs the admin token or the tenant's own",
            ),
            Self::Join => (matches!(principal, Principal::Join(_)), "it needs a join token"),
            Self::Node => (matches!(principal, Principal::Node(_)), "it needs a node's token"),
        };
        if fits { self.check_scopes(caller) } else { Err(MetadataError::ScopeMissing(need)) }
    }

    fn check_scopes(self, caller: &Caller) -> Result<(), MetadataError> {
        let (Self::Tenant(needed) | Self::AdminOrTenant(needed)) = self else { return Ok(()) };
        match caller.principal {
            Principal::Tenant(_) => {
                let missing = needed.missing_in(caller.scopes);
                if missing.is_empty() { Ok(()) } else { Err(MetadataError::TokenScopes(missing)) }
            }
            Principal::Admin | Principal::Join(_) | Principal::Node(_) | Principal::Anyone => Ok(()),
        }
    }
}

/// The token of the values of `authorization`: exactly one, `Bearer` and the token.
///
/// # Errors
/// [`MetadataError::TokenMissing`] or [`MetadataError::TokenInvalid`].
pub fn bearer<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Result<Token, MetadataError> {
    let mut values = values.into_iter();
    let value = values.next().ok_or(MetadataError::TokenMissing)?;
    if values.next().is_some() {
        return Err(MetadataError::TokenInvalid);
    }
    let text = std::str::from_utf8(value).ok().and_then(|text| text.split_once(' '));
    let (scheme, token) = text.ok_or(MetadataError::TokenInvalid)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(MetadataError::TokenInvalid);
    }
    token.parse().map_err(|_not_a_token| MetadataError::TokenInvalid)
}

/// A call that was not let in.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// Which method.
    pub method: &'static str,
    /// The credential that it showed.
    pub key_id: Option<TokenKeyId>,
    /// Why.
    pub reason: Reason,
    /// Where it came from.
    pub peer: Option<SocketAddr>,
    /// As the answer names it.
    pub request_id: Option<String>,
}

/// Recognises tokens.
#[derive(Debug, Clone)]
pub struct Authenticator {
    service: Service,
}

impl Authenticator {
    /// By this service's rows.
    pub fn new(service: Service) -> Self {
        Self { service }
    }

    /// Puts a refusal on record; see [`audit`](crate::audit).
    pub async fn refused(&self, refusal: &Refusal) {
        let event = || Event {
            actor: "",
            key_id: refusal.key_id,
            tenant: String::new(),
            method: refusal.method,
            object: String::new(),
            decision: Decision::Refused,
            reason: refusal.reason.as_str(),
            peer: refusal.peer,
            request_id: refusal.request_id.clone().unwrap_or_default(),
        };
        let of_credential = matches!(refusal.reason.kind(), Kind::Unauthenticated | Kind::PermissionDenied);
        if of_credential {
            self.service.audit().refused(event).await;
        }
    }

    /// Who may make the call: whoever has the token for it. While authentication is off, the operator's calls are
    /// everybody's and so are those of each tenant that a request names; nodes keep to their tokens, which say which
    /// they are.
    ///
    /// # Errors
    /// As [`bearer`], [`Self::caller`] and [`Access::check`].
    pub async fn admit(&self, access: Access, token: Result<Token, MetadataError>) -> Result<Caller, MetadataError> {
        let unasked = match access {
            Access::Admin | Access::AdminOrTenant(_) => Some(Principal::Admin),
            Access::Tenant(_) => Some(Principal::Anyone),
            Access::Join | Access::Node => None,
        };
        if let Some(principal) = unasked.filter(|_principal| self.service.tuning().insecure_no_auth) {
            return Ok(Caller { principal, key_id: None, scopes: Scopes::ALL, expire_ms: None });
        }
        let caller = self.caller(&token?).await?;
        access.check(&caller)?;
        Ok(caller)
    }

    /// Whose token it is, and what it allows now, by this service's clock.
    ///
    /// # Errors
    /// [`MetadataError::TokenInvalid`] for an unknown one, and for a known one of another kind than it says;
    /// [`MetadataError::TokenExpired`] for one that was good.
    pub async fn caller(&self, token: &Token) -> Result<Caller, MetadataError> {
        let record = load(self.service.engine(), &keys::token(token.key_id)).await;
        let record: Option<TokenRecord> = self.service.watch(record.map_err(MetadataError::from))?;
        let record = record.filter(|record| token.matches(&record.secret_sha256)).ok_or(MetadataError::TokenInvalid)?;
        let expired = record.is_expired(self.service.now_ms());
        let TokenRecord { scopes, expire_ms, .. } = record;
        let principal = principal(record.holder, token)?;
        if expired {
            return Err(MetadataError::TokenExpired);
        }
        Ok(Caller { principal, key_id: Some(token.key_id), scopes, expire_ms })
    }
}

fn principal(holder: Holder, token: &Token) -> Result<Principal, MetadataError> {
    match (holder, token.kind) {
        (Holder::Admin, TokenKind::Admin) => Ok(Principal::Admin),
        (Holder::Tenant(tenant), TokenKind::Tenant) => Ok(Principal::Tenant(tenant)),
        (Holder::Join(_), TokenKind::Join) => Ok(Principal::Join(token.key_id)),
        (Holder::Node(node), TokenKind::Node) => Ok(Principal::Node(node)),
        (Holder::Admin | Holder::Tenant(_) | Holder::Join(_) | Holder::Node(_), _other_kind) => {
            Err(MetadataError::TokenInvalid)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proto::entropy::SeededEntropy;
    use proto::error::Classify as _;

    use super::*;

    #[test]
    fn every_method_of_both_services_names_whom_it_is_for() {
        let served = |path: &&&str| !path.starts_with("/minitectonic.v1.ChunkService/");
        let methods: BTreeSet<&str> = proto::METHOD_PATHS.iter().filter(served).copied().collect();
        let named: BTreeSet<&str> = ACCESS.iter().map(|(path, _)| *path).collect();
        assert_eq!(methods, named);
        assert_eq!(named.len(), ACCESS.len());
    }

    #[test]
    fn a_token_without_a_scope_is_refused_by_the_name_of_what_is_missing() {
        let caller = |principal, scopes| Caller { principal, key_id: None, scopes, expire_ms: None };
        let tenant = || Principal::Tenant("posts".parse().unwrap());
        for needed in [Scopes::READ, Scopes::WRITE, Scopes::DELETE, Scopes::LIST] {
            for held in [Scopes::READ, Scopes::WRITE, Scopes::DELETE, Scopes::LIST] {
                let checked = Access::Tenant(needed).check(&caller(tenant(), held));
                if held == needed {
                    assert!(checked.is_ok());
                } else {
                    let refused = checked.unwrap_err();
                    assert_eq!(refused.reason(), Reason::ScopeMissing);
                    assert!(refused.to_string().ends_with(&format!("the scope {needed}")), "{refused}");
                }
            }
        }
        let all = Access::AdminOrTenant(Scopes::ALL);
        assert!(all.check(&caller(Principal::Admin, Scopes::NONE)).is_ok(), "the admin's has no scopes");
        assert!(matches!(
            all.check(&caller(tenant(), Scopes::READ)),
            Err(MetadataError::TokenScopes(missing)) if missing.to_string() == "write, delete, list"
        ));
    }

    #[test]
    fn only_one_well_formed_bearer_token_is_read() {
        let token = Token::generate(TokenKind::Admin, &SeededEntropy::new(1));
        let good = format!("Bearer {}", *token.expose());
        let lower = format!("bearer {}", *token.expose());
        assert_eq!(bearer([good.as_bytes()]).unwrap().key_id, token.key_id);
        assert_eq!(bearer([lower.as_bytes()]).unwrap().key_id, token.key_id);
        assert!(matches!(bearer([]), Err(MetadataError::TokenMissing)));
        assert!(matches!(bearer([good.as_bytes(), good.as_bytes()]), Err(MetadataError::TokenInvalid)));
        let text = token.expose();
        for bad in ["", "Bearer", "Bearer ", "Basic x", &text, &format!("Bearer  {}", *text), &format!("{good} ")] {
            assert!(matches!(bearer([bad.as_bytes()]), Err(MetadataError::TokenInvalid)), "{bad:?}");
        }
        assert!(matches!(bearer([[0xff, 0xfe].as_slice()]), Err(MetadataError::TokenInvalid)));
    }
}

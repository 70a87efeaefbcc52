//! Who calls: the credential is read, looked up and held against what the method needs, before a byte of the body is.
//!
//! [`ACCESS`] names every method; one that it does not name is not served. All tokens are rows of one layer, found by
//! key id and recognised by a hash (I18), so a token that was rotated away or whose tenant is gone is unknown at once.
//! Whether one has expired is told only to whoever holds it: its secret is compared first.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU64;
use std::sync::Arc;

use proto::error::{Classify as _, Kind, Reason};
use proto::ids::{NodeId, TenantId};
use proto::runtime::buckets::{Buckets, NotYet};
use proto::token::{Token, TokenKeyId, TokenKind};

use crate::audit::{Decision, Event};
use crate::error::MetadataError;
use crate::service::Service;
use crate::store::keys;
use crate::store::records::{Holder, Scopes, TenantRecord, TokenRecord};
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
    ("/minitectonic.v1.MetadataService/StartUploads", Access::Tenant(Scopes::WRITE)),
    ("/minitectonic.v1.MetadataService/CommitUploads", Access::Tenant(Scopes::WRITE)),
    ("/minitectonic.v1.MetadataService/GetBlob", Access::Tenant(Scopes::READ)),
    ("/minitectonic.v1.MetadataService/GetBlobLayout", Access::Tenant(Scopes::READ)),
    ("/minitectonic.v1.MetadataService/GetBlobLayouts", Access::Tenant(Scopes::READ)),
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
    ("/minitectonic.v1.ClusterService/RotateNodeKeys", Access::Admin),
];

/// A method and whom it is for; `None` for one that is not served.
pub fn access_of(path: &str) -> Option<(&'static str, Access)> {
    ACCESS.iter().find(|(name, _)| *name == path).copied()
}

impl Access {
    /// Whether services call it, and nobody else.
    fn is_for_services(self) -> bool {
        matches!(self, Self::Join | Self::Node)
    }

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

/// Calls a second from one address, without a valid token, that are answered with the reason and put on record. Of a flood
/// of them all others only cost what it takes to see that.
const FAILURES_PER_SECOND: NonZeroU64 = NonZeroU64::new(1_000).expect("it is not 0");

/// Recognises tokens.
#[derive(Debug, Clone)]
pub struct Authenticator {
    service: Service,
    /// Calls of tenants that have a rate.
    requests: Arc<Buckets<TenantId>>,
    /// Calls without a valid token.
    failures: Arc<Buckets<IpAddr>>,
}

impl Authenticator {
    /// By this service's rows.
    pub fn new(service: Service) -> Self {
        Self { service, requests: Arc::default(), failures: Arc::default() }
    }

    /// Counts a call without a valid token against the address that it comes from. Whoever has one is never asked: many
    /// may be behind one address.
    ///
    /// # Errors
    /// [`MetadataError::TooManyRefusals`], in place of the real reason and of its line on record.
    pub fn count_failure(&self, error: &MetadataError, peer: Option<SocketAddr>) -> Result<(), MetadataError> {
        let unknown = matches!(error.reason().kind(), Kind::Unauthenticated);
        let Some(address) = peer.filter(|_| unknown).map(|peer| network_of(peer.ip())) else { return Ok(()) };
        let counted = self.failures.take(&address, FAILURES_PER_SECOND, 1);
        counted.map_err(|NotYet(retry_after)| MetadataError::TooManyRefusals { retry_after })
    }

    /// Counts a call against the rate of the tenant that it names, while authentication is off: with it the token has said
    /// whose call it is, and it was counted before. A name that cannot be one is refused later.
    ///
    /// # Errors
    /// [`MetadataError::RateLimited`], and when the tenant's row cannot be read.
    pub async fn count_named(&self, caller: &Caller, named: &str) -> Result<(), MetadataError> {
        match (&caller.principal, named.parse()) {
            (Principal::Anyone, Ok(tenant)) => self.count_request(&tenant).await,
            _ => Ok(()),
        }
    }

    /// Counts a call of a tenant's against its rate.
    ///
    /// # Errors
    /// [`MetadataError::RateLimited`], and when its row cannot be read.
    async fn count_request(&self, tenant: &TenantId) -> Result<(), MetadataError> {
        let Some(per_second) = self.rate_of(tenant).await? else { return Ok(()) };
        let counted = self.requests.take(tenant, per_second, 1);
        counted.map_err(|NotYet(retry_after)| MetadataError::RateLimited { per_second, retry_after })
    }

    /// Counts the items of a batch, by the tenants that they name. A batch is let in as one call, which was counted already
    /// for who is known by a token, and is here for who is not; the calls after it wait for what the other items took.
    ///
    /// # Errors
    /// As [`Self::count_named`].
    pub async fn count_items<'a>(
        &self,
        caller: &Caller,
        mut named: impl Iterator<Item = &'a str> + Send,
    ) -> Result<(), MetadataError> {
        self.count_named(caller, named.next().unwrap_or_default()).await?;
        let mut counts: HashMap<TenantId, u64> = HashMap::new();
        match &caller.principal {
            Principal::Tenant(tenant) => drop(counts.insert(tenant.clone(), named.count() as u64)),
            Principal::Anyone => {
                named.filter_map(|named| named.parse().ok()).for_each(|tenant| *counts.entry(tenant).or_default() += 1)
            }
            Principal::Admin | Principal::Join(_) | Principal::Node(_) => {}
        }
        for (tenant, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
            if let Some(per_second) = self.rate_of(&tenant).await? {
                self.requests.draw(&tenant, per_second, count);
            }
        }
        Ok(())
    }

    async fn rate_of(&self, tenant: &TenantId) -> Result<Option<NonZeroU64>, MetadataError> {
        let row = load::<TenantRecord>(self.service.engine(), &keys::tenant(tenant)).await;
        let row = self.service.watch(row.map_err(MetadataError::from))?;
        Ok(row.and_then(|row| row.rates.requests_per_second))
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
    /// they are. `certified` is whether the connection came with a certificate that was verified: with mutual TLS a
    /// node's token alone, wherever it was read, is of no use.
    ///
    /// # Errors
    /// [`MetadataError::CertificateMissing`]; as [`bearer`], [`Self::caller`] and [`Access::check`];
    /// [`MetadataError::RateLimited`].
    pub async fn admit(
        &self,
        access: Access,
        token: Result<Token, MetadataError>,
        certified: bool,
    ) -> Result<Caller, MetadataError> {
        if access.is_for_services() && self.service.front().tls.is_mutual() && !certified {
            return Err(MetadataError::CertificateMissing);
        }
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
        if let Principal::Tenant(tenant) = &caller.principal {
            self.count_request(tenant).await?;
        }
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

/// What one customer of a network has: an address, or with IPv6 everything behind its first half.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
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

    use super::*;
    use crate::service::testing;
    use crate::store::memory::MemoryEngine;
    use proto::entropy::SeededEntropy;
    use proto::runtime::ManualClock;

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

    #[tokio::test(start_paused = true)]
    async fn of_a_flood_of_bad_tokens_most_are_only_counted_by_the_network_that_they_come_from() {
        let clock = Arc::new(ManualClock::at(1_700_000_000_000));
        let authenticator = Authenticator::new(testing::service(Arc::new(MemoryEngine::new()), clock));
        let from = |address: &str| Some(SocketAddr::new(address.parse().unwrap(), 1));
        let fails = |address: &str| authenticator.count_failure(&MetadataError::TokenInvalid, from(address));
        let admitted = (0..3_000).filter(|_| fails("127.0.0.2").is_ok()).count();
        assert_eq!(admitted, 1_000);
        assert!(
            matches!(fails("127.0.0.2"), Err(MetadataError::TooManyRefusals { retry_after }) if !retry_after.is_zero())
        );
        assert!(fails("127.0.0.3").is_ok());
        let lacks_a_scope = MetadataError::TokenScopes(Scopes::READ);
        assert!(authenticator.count_failure(&lacks_a_scope, from("127.0.0.2")).is_ok(), "its token is good");
        let of_one_network = (0..3_000_u32).filter(|host| fails(&format!("2001:db8::{host:x}")).is_ok()).count();
        assert_eq!((of_one_network, fails("2001:db8:0:1::1").is_ok()), (1_000, true));
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

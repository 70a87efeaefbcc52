//! Who calls: the credential is read, looked up and held against what the method needs, before a byte of the body is.
//!
//! [`ACCESS`] names every method; one that it does not name is not served. All tokens are rows of one layer, found by
//! key id and recognised by a hash (I18), so a token that was rotated away or whose tenant is gone is unknown at once.

use proto::ids::{NodeId, TenantId};
use proto::token::{Token, TokenKeyId, TokenKind};

use crate::error::MetadataError;
use crate::service::Service;
use crate::store::keys;
use crate::store::records::{Holder, TokenRecord};
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
}

/// Whom a method is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// The operator.
    Admin,
    /// A tenant.
    Tenant,
    /// The operator, and each tenant for itself.
    AdminOrTenant,
    /// Whoever holds a join token.
    Join,
    /// A node.
    Node,
}

/// Every method and whom it is for.
pub const ACCESS: &[(&str, Access)] = &[
    ("/minitectonic.v1.MetadataService/RegisterTenant", Access::Admin),
    ("/minitectonic.v1.MetadataService/GetTenant", Access::AdminOrTenant),
    ("/minitectonic.v1.MetadataService/ListTenants", Access::Admin),
    ("/minitectonic.v1.MetadataService/UpdateTenant", Access::Admin),
    ("/minitectonic.v1.MetadataService/DeleteTenant", Access::Admin),
    ("/minitectonic.v1.MetadataService/RotateTenantToken", Access::AdminOrTenant),
    ("/minitectonic.v1.MetadataService/StartUpload", Access::Tenant),
    ("/minitectonic.v1.MetadataService/AllocateBlocks", Access::Tenant),
    ("/minitectonic.v1.MetadataService/CommitUpload", Access::Tenant),
    ("/minitectonic.v1.MetadataService/AbortUpload", Access::Tenant),
    ("/minitectonic.v1.MetadataService/GetUpload", Access::Tenant),
    ("/minitectonic.v1.MetadataService/GetBlob", Access::Tenant),
    ("/minitectonic.v1.MetadataService/GetBlobLayout", Access::Tenant),
    ("/minitectonic.v1.MetadataService/ListBlobs", Access::Tenant),
    ("/minitectonic.v1.MetadataService/DeleteBlob", Access::Tenant),
    ("/minitectonic.v1.MetadataService/UndeleteBlob", Access::Tenant),
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
];

/// Whom a method is for; `None` for one that is not served.
pub fn access_of(path: &str) -> Option<Access> {
    ACCESS.iter().find(|(name, _)| *name == path).map(|(_, access)| *access)
}

impl Access {
    /// Refuses whom the method is not for.
    ///
    /// # Errors
    /// [`MetadataError::ScopeMissing`].
    pub fn check(self, principal: &Principal) -> Result<(), MetadataError> {
        let (fits, need) = match self {
            Self::Admin => (matches!(principal, Principal::Admin), "it needs the admin token"),
            Self::Tenant => (matches!(principal, Principal::Tenant(_)), "it needs a tenant's token"),
            Self::AdminOrTenant => (
                matches!(principal, Principal::Admin | Principal::Tenant(_)),
                "it needs the admin token or the tenant's own",
            ),
            Self::Join => (matches!(principal, Principal::Join(_)), "it needs a join token"),
            Self::Node => (matches!(principal, Principal::Node(_)), "it needs a node's token"),
        };
        if fits { Ok(()) } else { Err(MetadataError::ScopeMissing(need)) }
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

    /// Whose token it is.
    ///
    /// # Errors
    /// [`MetadataError::TokenInvalid`] for an unknown one, and for a known one of another kind than it says.
    pub async fn principal(&self, token: &Token) -> Result<Principal, MetadataError> {
        let record = load(self.service.engine(), &keys::token(token.key_id)).await;
        let record: Option<TokenRecord> = self.service.watch(record.map_err(MetadataError::from))?;
        let record = record.filter(|record| token.matches(&record.secret_sha256)).ok_or(MetadataError::TokenInvalid)?;
        match (record.holder, token.kind) {
            (Holder::Admin, TokenKind::Admin) => Ok(Principal::Admin),
            (Holder::Tenant(tenant), TokenKind::Tenant) => Ok(Principal::Tenant(tenant)),
            (Holder::Join(_), TokenKind::Join) => Ok(Principal::Join(token.key_id)),
            (Holder::Node(node), TokenKind::Node) => Ok(Principal::Node(node)),
            (Holder::Admin | Holder::Tenant(_) | Holder::Join(_) | Holder::Node(_), _other_kind) => {
                Err(MetadataError::TokenInvalid)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proto::entropy::SeededEntropy;

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

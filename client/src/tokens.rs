//! Tokens: making, listing and ending them.

use std::fmt;
use std::time::Duration;

use proto::ids::{NodeId, TenantId};
use proto::pb;
use zeroize::Zeroizing;

use crate::call::new_request_id;
use crate::client::Client;
use crate::error::Error;

/// A token just made, with what the service says of it. `Debug` hides the token.
#[derive(Clone)]
pub struct Created<T> {
    /// The token. The service keeps only a hash of it and does not show it again.
    pub token: Zeroizing<String>,
    /// What it is.
    pub about: T,
}

impl<T: fmt::Debug> fmt::Debug for Created<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Created").field("token", &"[redacted]").field("about", &self.about).finish()
    }
}

/// What a rotation of the admin token did besides making one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdminRotation {
    /// When the token before ends.
    pub previous_expire_time: prost_types::Timestamp,
    /// Whether the metadata service's own file `admin.token` holds the new token now.
    pub file_written: bool,
}

fn span(time: Duration) -> prost_types::Duration {
    // A time too long for the wire is too long for the service as well, which says so.
    prost_types::Duration::try_from(time).unwrap_or(prost_types::Duration { seconds: i64::MAX, nanos: 0 })
}

fn text_of(tenant: Option<&TenantId>) -> String {
    tenant.map(TenantId::to_string).unwrap_or_default()
}

impl Client {
    /// Makes one more token for a tenant. No scopes means all; no time to live means as long as the token that makes it,
    /// which is for ever for the admin's. Needs the admin token, or one of the tenant's own with all scopes, which may
    /// leave the tenant out.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn create_tenant_token(
        &self,
        tenant: Option<&TenantId>,
        scopes: &[pb::TokenScope],
        ttl: Option<Duration>,
    ) -> Result<Created<pb::TenantToken>, Error> {
        let operation = "make a token";
        let message = pb::CreateTenantTokenRequest {
            tenant_id: text_of(tenant),
            request_id: new_request_id(),
            scopes: scopes.iter().map(|scope| (*scope).into()).collect(),
            ttl: ttl.map(span),
        };
        let create = |mut service: pb::metadata_service_client::MetadataServiceClient<_>, message| async move {
            service.create_tenant_token(message).await
        };
        let pb::CreateTenantTokenResponse { token, tenant_token } = self.metadata(operation, message, create).await?;
        let token = Zeroizing::new(token);
        let about = tenant_token.ok_or_else(|| self.malformed(operation, "no description of the token"))?;
        Ok(Created { token, about })
    }

    /// Lists a tenant's tokens, without their secrets; who may, see [`Client::create_tenant_token`].
    ///
    /// # Errors
    /// [`Error`].
    pub async fn list_tenant_tokens(&self, tenant: Option<&TenantId>) -> Result<Vec<pb::TenantToken>, Error> {
        let message = pb::ListTenantTokensRequest { tenant_id: text_of(tenant) };
        let list = |mut service: pb::metadata_service_client::MetadataServiceClient<_>, message| async move {
            service.list_tenant_tokens(message).await
        };
        Ok(self.metadata("list tokens", message, list).await?.tenant_tokens)
    }

    /// Ends a tenant's token at once; who may, see [`Client::create_tenant_token`].
    ///
    /// # Errors
    /// [`Error`]; its reason is `FieldInvalid` when the tenant has no such token.
    pub async fn revoke_tenant_token(&self, tenant: Option<&TenantId>, key_id: &str) -> Result<(), Error> {
        let message = pb::RevokeTenantTokenRequest {
            tenant_id: text_of(tenant),
            request_id: new_request_id(),
            key_id: key_id.to_owned(),
        };
        let revoke = |mut service: pb::metadata_service_client::MetadataServiceClient<_>, message| async move {
            service.revoke_tenant_token(message).await
        };
        let answer = self.metadata(format!("end token {key_id}"), message, revoke).await;
        answer.map(|pb::RevokeTenantTokenResponse {}| ())
    }

    /// Offers a node, or every node, the next key for its capabilities and receipts; nodes take it with their heartbeats.
    /// A repeat before that changes nothing. Needs the admin token.
    ///
    /// # Errors
    /// [`Error`]; its reason is `FieldInvalid` for an unknown node, `QuotaExceeded` when too many keys are still good.
    pub async fn rotate_node_keys(&self, node: Option<NodeId>) -> Result<Vec<pb::NodeKeyOffer>, Error> {
        let message = pb::RotateNodeKeysRequest { node_id: node.map(|node| node.to_string()).unwrap_or_default() };
        let rotate = |message| async move { self.peers().metadata().cluster_client().rotate_node_keys(message).await };
        Ok(self.repeated("rotate the nodes' keys", message, rotate).await?.offers)
    }

    /// Makes the next admin token; the one in use stays valid for the overlap, or an hour when that is not said. With an
    /// overlap of 0 an answer that is lost on its way cannot be asked for again. Needs the admin token.
    ///
    /// # Errors
    /// [`Error`]; its reason is `ScopeMissing` for a token that was rotated before.
    pub async fn rotate_admin_token(&self, overlap: Option<Duration>) -> Result<Created<AdminRotation>, Error> {
        let operation = "make the next admin token";
        let message = pb::RotateAdminTokenRequest { request_id: new_request_id(), overlap: overlap.map(span) };
        let rotate =
            |message| async move { self.peers().metadata().cluster_client().rotate_admin_token(message).await };
        let answer = self.repeated(operation, message, rotate).await?;
        let token = Zeroizing::new(answer.token);
        let previous = answer.previous_expire_time;
        let previous_expire_time = previous.ok_or_else(|| self.malformed(operation, "no end of the one before"))?;
        Ok(Created { token, about: AdminRotation { previous_expire_time, file_written: answer.file_written } })
    }

    /// Makes a token by which one chunk service can join, within a day when no time is said; it comes with when it ends.
    /// Needs the admin token.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn create_join_token(&self, ttl: Option<Duration>) -> Result<Created<prost_types::Timestamp>, Error> {
        let operation = "make a join token";
        let message = pb::CreateJoinTokenRequest { request_id: new_request_id(), ttl: ttl.map(span) };
        let create = |message| async move { self.peers().metadata().cluster_client().create_join_token(message).await };
        let answer = self.repeated(operation, message, create).await?;
        let token = Zeroizing::new(answer.token);
        let about = answer.expire_time.ok_or_else(|| self.malformed(operation, "no end"))?;
        Ok(Created { token, about })
    }
}

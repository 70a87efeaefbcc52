//! Tenants: registering, listing, changing.

use futures_util::Stream;
use proto::ids::TenantId;
use proto::pb;
use zeroize::Zeroizing;

use crate::client::Client;
use crate::error::Error;

/// A tenant just registered, with its first token.
#[derive(Clone)]
pub struct RegisteredTenant {
    /// The tenant.
    pub tenant: pb::Tenant,
    /// Its token. The service keeps only a hash of it and does not show it again.
    pub token: Zeroizing<String>,
}

impl std::fmt::Debug for RegisteredTenant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegisteredTenant").field("tenant", &self.tenant).field("token", &"[redacted]").finish()
    }
}

impl Client {
    /// Registers a tenant; a quota without bounds is unlimited. Needs the admin token.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn register_tenant(&self, tenant: &TenantId, quota: pb::Quota) -> Result<RegisteredTenant, Error> {
        todo!()
    }

    /// Returns a tenant with its usage: for the admin token the one named, for a tenant's token that tenant.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn get_tenant(&self, tenant: Option<&TenantId>) -> Result<pb::Tenant, Error> {
        todo!()
    }

    /// Lists the tenants in the order of their ids, page by page as the stream is read. Needs the admin token.
    pub fn list_tenants(&self) -> impl Stream<Item = Result<pb::Tenant, Error>> + Send + 'static {
        futures_util::stream::empty()
    }

    /// Changes a tenant: a quota that is given replaces the whole quota, a class that is not `Unspecified` the class.
    /// Needs the admin token.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn update_tenant(
        &self,
        tenant: &TenantId,
        quota: Option<pb::Quota>,
        class: pb::TrafficClass,
    ) -> Result<pb::Tenant, Error> {
        todo!()
    }

    /// Removes a tenant that holds no blob and no open upload. Needs the admin token.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn delete_tenant(&self, tenant: &TenantId) -> Result<(), Error> {
        todo!()
    }

    /// Makes a new token for a tenant; the one before it stays valid, older ones end. With a tenant's own token the
    /// tenant need not be named.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn rotate_tenant_token(&self, tenant: Option<&TenantId>) -> Result<Zeroizing<String>, Error> {
        todo!()
    }
}

//! Tenants: registering, listing, changing.

use std::fmt;

use futures_util::Stream;
use proto::ids::TenantId;
use proto::pb;
use proto::pb::metadata_service_client::MetadataServiceClient;
use tonic::transport::Channel;
use zeroize::Zeroizing;

use crate::call::new_request_id;
use crate::client::Client;
use crate::error::Error;
use crate::pages::entries;

/// A tenant just registered, with its first token.
#[derive(Clone)]
pub struct RegisteredTenant {
    /// The tenant.
    pub tenant: pb::Tenant,
    /// Its token. The service keeps only a hash of it and does not show it again.
    pub token: Zeroizing<String>,
}

impl fmt::Debug for RegisteredTenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegisteredTenant").field("tenant", &self.tenant).field("token", &"[redacted]").finish()
    }
}

/// What is to change about a tenant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TenantChange {
    /// Replaces the whole quota.
    pub quota: Option<pb::Quota>,
    /// Replaces the class, unless it is `Unspecified`.
    pub class: pb::TrafficClass,
    /// Replaces all rates.
    pub rates: Option<pb::Rates>,
}

impl Client {
    /// Registers a tenant; a quota without bounds is unlimited. Needs the admin token.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn register_tenant(&self, tenant: &TenantId, quota: pb::Quota) -> Result<RegisteredTenant, Error> {
        self.register_tenant_with(tenant, quota, pb::Rates::default()).await
    }

    /// As [`Client::register_tenant`], with rates that bound how fast it may go.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn register_tenant_with(
        &self,
        tenant: &TenantId,
        quota: pb::Quota,
        rates: pb::Rates,
    ) -> Result<RegisteredTenant, Error> {
        let operation = format!("register tenant {tenant}");
        let message = pb::RegisterTenantRequest {
            tenant_id: tenant.to_string(),
            request_id: new_request_id(),
            quota: Some(quota),
            traffic_class: pb::TrafficClass::Unspecified.into(),
            rates: Some(rates),
        };
        let answer = self
            .metadata(&operation, message, |mut service, message| async move { service.register_tenant(message).await })
            .await?;
        let token = Zeroizing::new(answer.token);
        let tenant = answer.tenant.ok_or_else(|| self.malformed(operation, NO_TENANT))?;
        Ok(RegisteredTenant { tenant, token })
    }

    /// Returns a tenant with its usage: for the admin token the one named, for a tenant's token that tenant.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn get_tenant(&self, tenant: Option<&TenantId>) -> Result<pb::Tenant, Error> {
        let operation = tenant.map_or_else(|| "get the token's tenant".to_owned(), |id| format!("get tenant {id}"));
        let message = pb::GetTenantRequest { tenant_id: text_of(tenant) };
        let answer = self
            .metadata(&operation, message, |mut service, message| async move { service.get_tenant(message).await })
            .await?;
        answer.tenant.ok_or_else(|| self.malformed(operation, NO_TENANT))
    }

    /// Lists the tenants in the order of their ids, page by page as the stream is read. Needs the admin token.
    pub fn list_tenants(&self) -> impl Stream<Item = Result<pb::Tenant, Error>> + Send + 'static {
        let client = self.clone();
        let fetch = move |page_token| {
            let client = client.clone();
            async move {
                let message = pb::ListTenantsRequest { page_size: 0, page_token };
                let method = |mut service: MetadataServiceClient<Channel>, message| async move {
                    service.list_tenants(message).await
                };
                let answer = client.metadata("list tenants", message, method).await?;
                Ok((answer.tenants, answer.next_page_token))
            }
        };
        entries(fetch, Ok)
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
        self.change_tenant(tenant, TenantChange { quota, class, ..TenantChange::default() }).await
    }

    /// Changes a tenant. Needs the admin token.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn change_tenant(&self, tenant: &TenantId, change: TenantChange) -> Result<pb::Tenant, Error> {
        let TenantChange { quota, class, rates } = change;
        let operation = format!("update tenant {tenant}");
        let message = pb::UpdateTenantRequest {
            tenant_id: tenant.to_string(),
            request_id: new_request_id(),
            quota,
            traffic_class: class.into(),
            rates,
        };
        let answer = self
            .metadata(&operation, message, |mut service, message| async move { service.update_tenant(message).await })
            .await?;
        answer.tenant.ok_or_else(|| self.malformed(operation, NO_TENANT))
    }

    /// Removes a tenant that holds no blob and no open upload. Needs the admin token.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn delete_tenant(&self, tenant: &TenantId) -> Result<(), Error> {
        let operation = format!("delete tenant {tenant}");
        let message = pb::DeleteTenantRequest { tenant_id: tenant.to_string(), request_id: new_request_id() };
        self.metadata(operation, message, |mut service, message| async move { service.delete_tenant(message).await })
            .await
            .map(|pb::DeleteTenantResponse {}| ())
    }

    /// Makes a new token for a tenant; the one before it stays valid, older ones end. With a tenant's own token the
    /// tenant need not be named.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn rotate_tenant_token(&self, tenant: Option<&TenantId>) -> Result<Zeroizing<String>, Error> {
        let message = pb::RotateTenantTokenRequest { tenant_id: text_of(tenant), request_id: new_request_id() };
        let answer = self
            .metadata("make a new token", message, |mut service, message| async move {
                service.rotate_tenant_token(message).await
            })
            .await?;
        Ok(Zeroizing::new(answer.token))
    }
}

const NO_TENANT: &str = "no tenant";

/// An id on the wire; empty stands for the token's own tenant.
fn text_of(tenant: Option<&TenantId>) -> String {
    tenant.map(TenantId::to_string).unwrap_or_default()
}

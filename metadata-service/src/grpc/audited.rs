//! Which calls go on record, and with what weight: see [`audit`](crate::audit).

use proto::pb;
use proto::status::to_status;
use tonic::{Request, Status};

use super::command;
use super::convert::Call;
use crate::audit::{Audit, Decision, Event};
use crate::auth::{Caller, Principal};
use crate::error::MetadataError;

/// How much depends on the line of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weight {
    /// Without the line there is no call.
    Needed,
    /// The line may fail.
    Wanted,
    /// As [`Weight::Wanted`], and a tenant's own call needs none.
    OfAdmin,
}

/// What a call is about.
#[derive(Debug)]
pub(super) struct About<'a> {
    weight: Weight,
    tenant: &'a str,
    object: &'a str,
    request_id: &'a str,
}

/// A message whose calls go on record.
pub(super) trait Audited {
    const METHOD: &'static str;

    fn about(&self) -> About<'_>;
}

macro_rules! audited {
    ($($service:literal $message:ty: $weight:expr, $tenant:expr, $object:expr, $request_id:expr;)*) => { $(
        impl Audited for $message {
            const METHOD: &'static str = concat!("/minitectonic.v1.", $service);

            fn about(&self) -> About<'_> {
                fn text<'a, M>(message: &'a M, of: fn(&'a M) -> &'a str) -> &'a str {
                    of(message)
                }
                let weight: fn(&Self) -> Weight = $weight;
                About {
                    weight: weight(self),
                    tenant: text(self, $tenant),
                    object: text(self, $object),
                    request_id: text(self, $request_id),
                }
            }
        }
    )*
        /// Every method that goes on record.
        #[cfg(test)]
        const METHODS: &[&str] = &[$(<$message>::METHOD),*];
    };
}

const NEEDED: Weight = Weight::Needed;

audited! {
    "MetadataService/RegisterTenant" pb::RegisterTenantRequest: |_| NEEDED, |m| &m.tenant_id, |_| "", |m| &m.request_id;
    "MetadataService/GetTenant" pb::GetTenantRequest: |_| Weight::OfAdmin, |m| &m.tenant_id, |_| "", |_| "";
    "MetadataService/ListTenants" pb::ListTenantsRequest: |_| Weight::Wanted, |_| "", |_| "", |_| "";
    "MetadataService/UpdateTenant" pb::UpdateTenantRequest: |_| NEEDED, |m| &m.tenant_id, |_| "", |m| &m.request_id;
    "MetadataService/DeleteTenant" pb::DeleteTenantRequest: |_| NEEDED, |m| &m.tenant_id, |_| "", |m| &m.request_id;
    "MetadataService/RotateTenantToken" pb::RotateTenantTokenRequest: |_| NEEDED, |m| &m.tenant_id, |_| "", |m| &m.request_id;
    "MetadataService/CreateTenantToken" pb::CreateTenantTokenRequest: |_| NEEDED, |m| &m.tenant_id, |_| "", |m| &m.request_id;
    "MetadataService/ListTenantTokens" pb::ListTenantTokensRequest: |_| Weight::Wanted, |m| &m.tenant_id, |_| "", |_| "";
    "MetadataService/RevokeTenantToken" pb::RevokeTenantTokenRequest: |_| NEEDED, |m| &m.tenant_id, |m| &m.key_id, |m| &m.request_id;
    "MetadataService/DeleteBlob" pb::DeleteBlobRequest: |_| Weight::Wanted, |m| &m.tenant_id, |m| &m.blob_id, |m| &m.request_id;
    "MetadataService/UndeleteBlob" pb::UndeleteBlobRequest: |_| Weight::Wanted, |m| &m.tenant_id, |m| &m.blob_id, |m| &m.request_id;
    "ClusterService/RegisterNode" pb::RegisterNodeRequest: |_| Weight::Wanted, |_| "", |m| &m.node_id, |_| "";
    "ClusterService/ListNodes" pb::ListNodesRequest: |_| Weight::Wanted, |_| "", |_| "", |_| "";
    "ClusterService/GetClusterStatus" pb::GetClusterStatusRequest: |_| Weight::Wanted, |_| "", |_| "", |_| "";
    "ClusterService/ListDamagedChunks" pb::ListDamagedChunksRequest: |_| Weight::Wanted, |_| "", |_| "", |_| "";
    "ClusterService/ListWorkers" pb::ListWorkersRequest: |_| Weight::Wanted, |_| "", |_| "", |_| "";
    "ClusterService/UpdateWorker" pb::UpdateWorkerRequest: |_| NEEDED, |_| "", |m| &m.name, |_| "";
    "ClusterService/RunWorker" pb::RunWorkerRequest: |_| NEEDED, |_| "", |m| &m.name, |_| "";
    "ClusterService/CheckCluster" pb::CheckClusterRequest: |m| if m.repair { NEEDED } else { Weight::Wanted }, |_| "", |_| "", |_| "";
    "ClusterService/ExportMetadata" pb::ExportMetadataRequest: |_| NEEDED, |_| "", |_| "", |_| "";
    "ClusterService/EndRestore" pb::EndRestoreRequest: |_| NEEDED, |_| "", |_| "", |_| "";
    "ClusterService/RotateAdminToken" pb::RotateAdminTokenRequest: |_| NEEDED, |_| "", |_| "", |m| &m.request_id;
    "ClusterService/RotateNodeKeys" pb::RotateNodeKeysRequest: |_| NEEDED, |_| "", |m| &m.node_id, |_| "";
    "ClusterService/CreateJoinToken" pb::CreateJoinTokenRequest: |_| NEEDED, |_| "", |_| "", |m| &m.request_id;
}

/// A request as the command it stands for, once it is on record.
pub(super) async fn command_on_record<T, C>(audit: &Audit, request: Request<T>) -> Result<C, Status>
where
    T: Audited,
    C: TryFrom<Call<T>, Error = MetadataError>,
{
    if let Some((event, weight)) = event_of(&request) {
        match weight {
            Weight::Needed => audit.record(event).await.map_err(|error| to_status(&MetadataError::Audit(error)))?,
            Weight::Wanted | Weight::OfAdmin => audit.note(event).await,
        }
    }
    command(request)
}

fn event_of<T: Audited>(request: &Request<T>) -> Option<(Event, Weight)> {
    let caller = request.extensions().get::<Caller>()?;
    let About { weight, tenant, object, request_id } = request.get_ref().about();
    let (actor, own) = match &caller.principal {
        Principal::Admin => ("admin", ""),
        Principal::Tenant(own) => ("tenant", own.as_str()),
        Principal::Join(_) => ("join", ""),
        Principal::Node(_) => ("node", ""),
        Principal::Anyone => ("anyone", ""),
    };
    if weight == Weight::OfAdmin && actor == "tenant" {
        return None;
    }
    let event = Event {
        actor,
        key_id: caller.key_id,
        tenant: if tenant.is_empty() { own } else { tenant }.to_owned(),
        method: T::METHOD,
        object: object.to_owned(),
        decision: Decision::Allowed,
        reason: "",
        peer: request.remote_addr(),
        request_id: request_id.to_owned(),
    };
    Some((event, weight))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::METHODS;
    use crate::auth::{ACCESS, Access};

    #[test]
    fn every_call_of_the_operator_and_every_delete_restore_and_joining_goes_on_record() {
        let also = ["DeleteBlob", "UndeleteBlob", "RegisterNode"];
        let expected = ACCESS.iter().filter(|(path, access)| {
            matches!(access, Access::Admin | Access::AdminOrTenant(_)) || also.iter().any(|name| path.ends_with(name))
        });
        let expected: BTreeSet<&str> = expected.map(|(path, _)| *path).collect();
        assert_eq!(METHODS.iter().copied().collect::<BTreeSet<_>>(), expected);
    }
}

//! Requests into commands that are valid by construction: bad ids, missing fields and numbers out of bounds end here.

mod cluster;
mod fields;
mod tenants;
mod tokens;
mod uploads;

pub(super) use self::cluster::{
    HeartbeatOf, IncludeSecrets, ListDamagedChunks, ListNodeChunks, ListNodes, NodeOrAll, ReportChunks,
};
pub(super) use self::tenants::ListTenants;
pub(super) use self::tokens::RotateTenantToken;
pub(super) use self::uploads::ListBlobs;
use crate::auth::Caller;

/// A request and who sent it.
#[derive(Debug)]
pub(super) struct Call<T> {
    pub(super) caller: Caller,
    pub(super) message: T,
}

#[cfg(test)]
mod tests;

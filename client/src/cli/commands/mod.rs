//! The commands, one file each.

mod bench;
mod certs;
mod completions;
mod delete;
mod delete_tenant;
mod demo;
mod export;
mod fsck;
mod get;
mod import;
mod list_blobs;
mod list_tenants;
mod put;
mod register_tenant;
mod rotate_token;
mod serve;
mod stat;
mod status;
mod token;
mod undelete;
mod update_tenant;
mod workers;

use clap::Subcommand;

use super::context::Context;
use super::failure::Failure;

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    RegisterTenant(register_tenant::RegisterTenant),
    ListTenants(list_tenants::ListTenants),
    UpdateTenant(update_tenant::UpdateTenant),
    DeleteTenant(delete_tenant::DeleteTenant),
    RotateToken(rotate_token::RotateToken),
    Token(token::Token),
    Put(put::Put),
    Get(get::Get),
    ListBlobs(list_blobs::ListBlobs),
    Stat(stat::Stat),
    Delete(delete::Delete),
    Undelete(undelete::Undelete),
    Status(status::Status),
    Workers(workers::Workers),
    Export(export::Export),
    Import(import::Import),
    Fsck(fsck::Fsck),
    Serve(Box<serve::Serve>),
    Certs(certs::Certs),
    Demo(demo::Demo),
    Bench(bench::Bench),
    Completions(completions::Completions),
}

impl Command {
    /// Does it.
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        match self {
            Self::RegisterTenant(command) => command.run(context).await,
            Self::ListTenants(command) => command.run(context).await,
            Self::UpdateTenant(command) => command.run(context).await,
            Self::DeleteTenant(command) => command.run(context).await,
            Self::RotateToken(command) => command.run(context).await,
            Self::Token(command) => Box::pin(command.run(context)).await,
            Self::Put(command) => command.run(context).await,
            Self::Get(command) => command.run(context).await,
            Self::ListBlobs(command) => command.run(context).await,
            Self::Stat(command) => command.run(context).await,
            Self::Delete(command) => command.run(context).await,
            Self::Undelete(command) => command.run(context).await,
            Self::Status(command) => command.run(context).await,
            Self::Workers(command) => command.run(context).await,
            Self::Export(command) => Box::pin(command.run(context)).await,
            Self::Import(command) => Box::pin(command.run(context)).await,
            Self::Fsck(command) => Box::pin(command.run(context)).await,
            Self::Certs(command) => command.run(context),
            Self::Serve(command) => Box::pin(command.run(context)).await,
            Self::Demo(command) => Box::pin(command.run(context)).await,
            Self::Bench(command) => Box::pin(command.run(context)).await,
            Self::Completions(command) => command.run(context),
        }
    }
}

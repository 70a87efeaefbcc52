//! `token`: makes, lists, ends and rotates tokens.
//!
//! For tenants' tokens the admin's credential is taken where there is one, since it is bound by no scope and no end; else
//! the tenant's own. Rotation is the tenant's own business first, as with `rotate-token`.

mod create;

use std::time::Duration;

use clap::{Args, Subcommand};
use proto::pb;

use super::register_tenant::keep_token;
use super::rotate_token::RotateToken;
use crate::cli::args::TenantArg;
use crate::cli::context::Context;
use crate::cli::credentials::{Holder, Secret};
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::{Align, Table, escape};
use crate::cli::units::time_in_seconds;
use crate::cli::views::{AdminRotationView, NodeKeyOfferView, TenantTokenView, scope_names};
use proto::ids::TenantId;

/// Make, list, end and rotate tokens: a tenant's with fewer rights or an end, the admin's, and those for joining
#[derive(Debug, Args)]
pub(crate) struct Token {
    #[command(subcommand)]
    action: Action,
}

/// What to do.
#[derive(Debug, Subcommand)]
enum Action {
    Create(create::Create),
    /// List a tenant's tokens, without their secrets
    List(TenantArg),
    /// End a token of a tenant at once
    Revoke(Revoke),
    /// Make the next main token of a tenant, the next admin token, or the nodes' next keys; those before stay valid for a while
    Rotate(Rotate),
}

/// Which token.
#[derive(Debug, Args)]
struct Revoke {
    #[command(flatten)]
    tenant: TenantArg,
    /// The token's key id, as 'token list' shows it: the second part of the token.
    #[arg(value_name = "KEYID")]
    key_id: String,
}

/// Whose token.
#[derive(Debug, Args)]
struct Rotate {
    /// The tenant. The token before stays valid until the next rotation.
    #[arg(short = 't', long = "tenant", value_name = "TENANT", required_unless_present_any = ["admin", "nodes"])]
    tenant: Option<TenantId>,
    /// The admin token. The one before stays valid for the overlap.
    #[arg(long, conflicts_with = "tenant")]
    admin: bool,
    /// The keys of all chunk services, with which capabilities and receipts are signed. Nothing in flight fails.
    #[arg(long, conflicts_with_all = ["tenant", "admin"])]
    nodes: bool,
    /// How long the admin token before stays valid: 1h unless said otherwise, at most 7d, 0s to end it at once.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, requires = "admin")]
    overlap: Option<Duration>,
}

impl Token {
    /// Runs the command.
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        match self.action {
            Action::Create(create) => create.run(context).await,
            Action::List(TenantArg { tenant }) => list(context, &tenant).await,
            Action::Revoke(Revoke { tenant, key_id }) => revoke(context, &tenant.tenant, &key_id).await,
            Action::Rotate(rotate) => rotate.run(context).await,
        }
    }
}

async fn list(context: &Context, tenant: &TenantId) -> Result<(), Failure> {
    let session = context.admin_or_tenant(tenant)?;
    let tokens = session.client.list_tenant_tokens(Some(tenant)).await;
    let tokens = tokens.map_err(|error| session.failed("token list", &error))?;
    if context.out.json() {
        return tokens.iter().try_for_each(|token| context.out.object(&TenantTokenView::from(token)));
    }
    let rows: Vec<_> = tokens.iter().map(row).collect();
    Table::new(&context.out, HEADINGS).page(&rows)
}

const HEADINGS: [(&str, Align); 5] = [
    ("KEY ID", Align::Left),
    ("SCOPES", Align::Left),
    ("CREATED", Align::Left),
    ("EXPIRES", Align::Left),
    ("KIND", Align::Left),
];

fn row(token: &pb::TenantToken) -> [String; 5] {
    [
        escape(&token.key_id),
        scope_names(token).join(","),
        time_in_seconds(token.create_time.as_ref()),
        token.expire_time.as_ref().map_or_else(|| "never".to_owned(), |end| time_in_seconds(Some(end))),
        if token.main { "main" } else { "more" }.to_owned(),
    ]
}

async fn revoke(context: &Context, tenant: &TenantId, key_id: &str) -> Result<(), Failure> {
    let session = context.admin_or_tenant(tenant)?;
    let revoked = session.client.revoke_tenant_token(Some(tenant), key_id).await;
    revoked.map_err(|error| session.failed("token revoke", &error))?;
    if context.saved_token(tenant).is_some_and(|saved| key_id_of(&saved) == Some(key_id)) {
        context.warn(&format!(
            "it was the one that is kept for later calls; 'mini-tectonic-rs token create -t {tenant} --save' keeps another"
        ));
    }
    Ok(())
}

fn key_id_of(token: &Secret) -> Option<&str> {
    token.expose().split('.').nth(1)
}

impl Rotate {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        match self.tenant {
            Some(tenant) => RotateToken { tenant: TenantArg { tenant } }.run(context).await,
            None if self.nodes => rotate_nodes(context).await,
            None => rotate_admin(context, self.overlap).await,
        }
    }
}

async fn rotate_nodes(context: &Context) -> Result<(), Failure> {
    let session = context.admin(None)?;
    let offers = session.client.rotate_node_keys(None).await;
    let offers = offers.map_err(|error| session.failed("token rotate", &error))?;
    if context.out.json() {
        return offers.iter().try_for_each(|offer| context.out.object(&NodeKeyOfferView::from(offer)));
    }
    context.note("Each node takes its next key with its next heartbeats; 'mini-tectonic-rs status --json' shows when.");
    Ok(())
}

async fn rotate_admin(context: &Context, overlap: Option<Duration>) -> Result<(), Failure> {
    let session = context.admin(None)?;
    // Asked before, since the token in use may end with the rotation.
    let cluster_id = session.cluster_id().await;
    let rotated = session.client.rotate_admin_token(overlap).await;
    let rotated = rotated.map_err(|error| session.failed("token rotate", &error))?;
    keep_token(context, cluster_id, Holder::Admin, rotated.token.as_str().into());
    let end = time_in_seconds(Some(&rotated.about.previous_expire_time));
    context.note(&format!("The token before is valid until {end}."));
    if !rotated.about.file_written {
        context.warn("the service's own admin.token was not written: it was not there, or held another token");
    }
    if context.out.json() { context.out.object(&AdminRotationView::from(&rotated.about)) } else { Ok(()) }
}

/// A refusal of the command line, where clap cannot say it.
fn usage(message: &str) -> Failure {
    Failure::new(Exit::Usage, message)
}

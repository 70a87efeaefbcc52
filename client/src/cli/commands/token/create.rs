//! `token create`: one more token for a tenant, or one by which a chunk service can join.
//!
//! The token goes to standard output, or into a file that only its owner can read, or into the credentials file: to one of
//! them, so that it lies nowhere by accident.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use proto::ids::TenantId;
use proto::pb;
use proto::runtime::folder;
use zeroize::Zeroizing;

use super::usage;
use crate::cli::context::Context;
use crate::cli::credentials::{Credential, Holder};
use crate::cli::failure::Failure;
use crate::cli::units::time_in_seconds;
use crate::cli::views::{CreatedTokenView, JoinTokenView, TenantTokenView, scope_names};

/// Make one more token for a tenant, or one by which a chunk service can join
#[derive(Debug, Args)]
pub(super) struct Create {
    /// The tenant that it is for.
    #[arg(short = 't', long = "tenant", value_name = "TENANT", required_unless_present = "join")]
    tenant: Option<TenantId>,
    /// A token by which one chunk service can join, once (admin).
    #[arg(long, conflicts_with_all = ["tenant", "scopes", "save"])]
    join: bool,
    /// What it is good for, for example read,list; everything when not given.
    #[arg(long = "scope", value_name = "SCOPE", value_enum, value_delimiter = ',')]
    scopes: Vec<Scope>,
    /// After which time it ends, for example 30d; a tenant's never unless said, a join token after 1d.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    expires: Option<Duration>,
    /// Keep it in the credentials file, for later calls for this tenant, instead of showing it.
    #[arg(long)]
    save: bool,
    /// Write it into a file that only you can read, instead of showing it.
    #[arg(short, long, value_name = "PATH", conflicts_with = "save")]
    output: Option<PathBuf>,
}

/// What a token is good for.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Scope {
    /// Reading blobs.
    Read,
    /// Writing blobs.
    Write,
    /// Deleting and restoring blobs.
    Delete,
    /// Listing blobs.
    List,
}

impl From<Scope> for pb::TokenScope {
    fn from(scope: Scope) -> Self {
        match scope {
            Scope::Read => Self::Read,
            Scope::Write => Self::Write,
            Scope::Delete => Self::Delete,
            Scope::List => Self::List,
        }
    }
}

impl Create {
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        match (&self.tenant, self.join) {
            (None, true) => self.join_token(context).await,
            (Some(tenant), false) => self.tenant_token(context, tenant).await,
            (None, false) | (Some(_), true) => Err(usage("give either --tenant or --join")),
        }
    }

    async fn join_token(&self, context: &Context) -> Result<(), Failure> {
        let session = context.admin(None)?;
        let made = session.client.create_join_token(self.expires).await;
        let made = made.map_err(|error| session.failed("token create", &error))?;
        self.put_away(&made.token)?;
        context.note(&format!("One chunk service can join with it until {}.", time_in_seconds(Some(&made.about))));
        let shown = self.output.is_none().then_some(made.token.as_str());
        if context.out.json() {
            return context.out.object(&JoinTokenView::new(&made.about, shown));
        }
        shown.map_or(Ok(()), |token| context.out.line(token))
    }

    async fn tenant_token(&self, context: &Context, tenant: &TenantId) -> Result<(), Failure> {
        let session = context.admin_or_tenant(tenant)?;
        let scopes: Vec<pb::TokenScope> = self.scopes.iter().map(|scope| (*scope).into()).collect();
        let made = session.client.create_tenant_token(Some(tenant), &scopes, self.expires).await;
        let made = made.map_err(|error| session.failed("token create", &error))?;
        self.put_away(&made.token)?;
        if self.save {
            let credential = Credential { token: made.token.as_str().into(), cluster_id: session.cluster_id().await };
            context.credentials()?.save(context.endpoint(), Holder::Tenant(tenant), credential)?;
        }
        context.note(&in_words(&made.about));
        let shown = (!self.save && self.output.is_none()).then_some(made.token.as_str());
        if context.out.json() {
            let token = TenantTokenView::from(&made.about);
            return context.out.object(&CreatedTokenView { token: shown, about: token });
        }
        context.out.line(shown.unwrap_or(&made.about.key_id))
    }

    fn put_away(&self, token: &str) -> Result<(), Failure> {
        let Some(path) = &self.output else { return Ok(()) };
        let line = Zeroizing::new(format!("{token}\n"));
        folder::publish(Path::new(path), line.as_bytes())
            .map_err(|error| Failure::local(format_args!("the token was made, but cannot be written"), &error))
    }
}

fn in_words(token: &pb::TenantToken) -> String {
    let end =
        token.expire_time.as_ref().map_or_else(String::new, |end| format!(" until {}", time_in_seconds(Some(end))));
    format!("Token {} is good for {}{end}; it is shown only this once.", token.key_id, scope_names(token).join(", "))
}

//! What every command works with: the endpoint, the credentials, and where to write.
//!
//! A command says for whom it calls ([`Context::tenant`], [`Context::admin`]) and gets a [`Session`]: a client with that
//! credential, which also puts errors into words.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mini_tectonic_client::{Client, ClientConfig, Error, TrafficClass};
use proto::error::Reason;
use proto::ids::TenantId;
use proto::runtime::folder;
use proto::runtime::tls::NetworkOptions;

use super::args::Global;
use super::class::ClassArg;
use super::credentials::{Credential, Credentials, Holder, Secret};
use super::failure::{Exit, Failure, Scene};
use super::output::Output;

/// Holds the token to use.
pub(crate) const TOKEN_VARIABLE: &str = "MINI_TECTONIC_TOKEN";

/// Everything that is given from outside.
#[derive(Clone)]
pub(crate) struct Context {
    /// Standard output.
    pub(crate) out: Output,
    endpoint: String,
    network: NetworkOptions,
    given: Option<Secret>,
    credentials: Option<Credentials>,
    quiet: bool,
    verbose: u8,
    /// Those that have been made so far.
    clients: Arc<Mutex<Vec<Client>>>,
}

impl Context {
    /// What the flags and the environment say.
    pub(crate) fn new(global: &Global) -> Result<Self, Failure> {
        let context = Self {
            out: Output::standard(global.json),
            endpoint: normalised(&global.endpoint)?,
            network: NetworkOptions { tls_ca: global.tls_ca.clone(), insecure_plaintext: global.insecure_plaintext },
            given: given_token(global)?,
            credentials: None,
            quiet: global.quiet,
            verbose: global.verbose,
            clients: Arc::default(),
        };
        Ok(context)
    }

    /// The same, but for another endpoint with its own credentials file, and writing elsewhere.
    pub(crate) fn elsewhere(&self, endpoint: &str, credentials: Credentials, out: Output) -> Result<Self, Failure> {
        let endpoint = normalised(endpoint)?;
        Ok(Self { out, endpoint, given: None, credentials: Some(credentials), ..self.clone() })
    }

    /// The metadata service's address, in the one form under which credentials are kept.
    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// How to deal with other machines.
    pub(crate) fn network(&self) -> &NetworkOptions {
        &self.network
    }

    /// Whether only errors and warnings are wanted on standard error.
    pub(crate) fn quiet(&self) -> bool {
        self.quiet
    }

    /// How much is wanted in the log.
    pub(crate) fn verbose(&self) -> u8 {
        self.verbose
    }

    /// Whether a person can be asked.
    pub(crate) fn can_ask(&self) -> bool {
        io::stdin().is_terminal() && io::stderr().is_terminal()
    }

    /// Tells a person something by the way.
    pub(crate) fn note(&self, text: &str) {
        if !self.quiet {
            say(text);
        }
    }

    /// Tells what went wrong without ending the command.
    pub(crate) fn warn(&self, text: &str) {
        say(&format!("warning: {text}"));
    }

    /// Waits, at most this long, until uploads that failed have been given up at the service too.
    pub(crate) async fn settle(&self, within: Duration) {
        let clients = std::mem::take(&mut *self.clients.lock().unwrap_or_else(PoisonError::into_inner));
        for client in clients {
            client.settle(within).await;
        }
    }

    /// The credentials file.
    pub(crate) fn credentials(&self) -> Result<Credentials, Failure> {
        self.credentials.clone().map_or_else(Credentials::of_the_user, Ok)
    }

    /// A session for a tenant's own blobs.
    pub(crate) fn tenant<'a>(&'a self, tenant: &'a TenantId) -> Result<Session<'a>, Failure> {
        self.tenant_at(tenant, ClassArg::default())
    }

    /// The same, for transfers of this class.
    pub(crate) fn tenant_at<'a>(&'a self, tenant: &'a TenantId, class: ClassArg) -> Result<Session<'a>, Failure> {
        let found = self.find(Holder::Tenant(tenant))?.ok_or_else(|| {
            let message = format!("there is no credential for tenant {tenant} at {}", self.endpoint);
            Failure::new(Exit::NotAuthorised, message).hint(format!(
                "'mini-tectonic-rs register-tenant -t {tenant}' makes the tenant and keeps its token; one that was made \
                 elsewhere needs its token by --token-file or MINI_TECTONIC_TOKEN"
            ))
        })?;
        self.session_at(found, Some(tenant), class)
    }

    /// A session for what only the operator may do, with a tenant when it is about one.
    pub(crate) fn admin<'a>(&'a self, tenant: Option<&'a TenantId>) -> Result<Session<'a>, Failure> {
        let found = self.find(Holder::Admin)?.ok_or_else(|| {
            let message = format!("there is no admin credential for {}", self.endpoint);
            Failure::new(Exit::NotAuthorised, message).hint(
                "'mini-tectonic-rs serve' keeps one for its own endpoint; for another one give \
                 --token-file STORAGE/admin.token, from the storage folder of the metadata service",
            )
        })?;
        self.session(found, tenant)
    }

    /// A session for looking at a tenant: with its own credential, else with the admin's.
    pub(crate) fn tenant_or_admin<'a>(&'a self, tenant: &'a TenantId) -> Result<Session<'a>, Failure> {
        match (self.find(Holder::Tenant(tenant))?, self.find(Holder::Admin)?) {
            (Some(found), _) | (None, Some(found)) => self.session(found, Some(tenant)),
            (None, None) => self.tenant(tenant),
        }
    }

    /// A session for a tenant's tokens: with the admin's credential, else with the tenant's own.
    pub(crate) fn admin_or_tenant<'a>(&'a self, tenant: &'a TenantId) -> Result<Session<'a>, Failure> {
        match self.find(Holder::Admin)? {
            Some(found) => self.session(found, Some(tenant)),
            None => self.tenant(tenant),
        }
    }

    /// The token of a tenant that the credentials file keeps for this endpoint.
    pub(crate) fn saved_token(&self, tenant: &TenantId) -> Option<Secret> {
        let found = self.credentials().and_then(|file| file.find(&self.endpoint, Holder::Tenant(tenant)));
        found.ok().flatten().map(|credential| credential.token)
    }

    fn find(&self, holder: Holder<'_>) -> Result<Option<Credential>, Failure> {
        if let Some(token) = &self.given {
            return Ok(Some(Credential { token: token.clone(), cluster_id: String::new() }));
        }
        let file = self.credentials()?;
        file.find(&self.endpoint, holder)
    }

    fn session<'a>(&'a self, credential: Credential, tenant: Option<&'a TenantId>) -> Result<Session<'a>, Failure> {
        self.session_at(credential, tenant, ClassArg::default())
    }

    fn session_at<'a>(
        &'a self,
        credential: Credential,
        tenant: Option<&'a TenantId>,
        class: ClassArg,
    ) -> Result<Session<'a>, Failure> {
        let mut config = ClientConfig::new(&self.endpoint).with_token(credential.token.expose());
        config.tenant = tenant.cloned();
        config.traffic_class = class.class.map(TrafficClass::from);
        config.tls_ca.clone_from(&self.network.tls_ca);
        config.insecure_plaintext = self.network.insecure_plaintext;
        let client = Client::new(config).map_err(|error| self.scene("connecting", tenant).failed(&error))?;
        self.clients.lock().unwrap_or_else(PoisonError::into_inner).push(client.clone());
        Ok(Session { client, context: self, tenant, cluster_id: credential.cluster_id })
    }

    fn scene<'a>(&'a self, action: &'a str, tenant: Option<&'a TenantId>) -> Scene<'a> {
        Scene { action, tenant }
    }

    /// Says what may be wrong with a token that the service does not know.
    fn about_token(&self, cluster_id: &str) -> String {
        if self.given.is_some() {
            return "the token given is not one of this service's; check --token, --token-file or MINI_TECTONIC_TOKEN"
                .to_owned();
        }
        let current = self.find(Holder::Admin).ok().flatten().map(|admin| admin.cluster_id).unwrap_or_default();
        let another = !cluster_id.is_empty() && !current.is_empty() && cluster_id != current;
        if another {
            format!(
                "this endpoint is now another cluster: the saved token is of {cluster_id}, the service at {} is {current}; \
                 register the tenant anew, or start the service with the storage folder it had",
                self.endpoint
            )
        } else {
            "the saved token is not, or no longer, one of this service's; if the service was started on a new storage \
             folder, register the tenant anew"
                .to_owned()
        }
    }
}

/// A client with one holder's credential.
pub(crate) struct Session<'a> {
    /// The client.
    pub(crate) client: Client,
    context: &'a Context,
    tenant: Option<&'a TenantId>,
    cluster_id: String,
}

impl Session<'_> {
    /// The cluster that the credential is good for, asked of the service where that is not known; empty when it does
    /// not say.
    pub(crate) async fn cluster_id(&self) -> String {
        if !self.cluster_id.is_empty() {
            return self.cluster_id.clone();
        }
        self.client.cluster_status().await.map(|status| status.cluster_id).unwrap_or_default()
    }

    /// Puts an error of this session's client into words.
    pub(crate) fn failed(&self, action: &str, error: &Error) -> Failure {
        let failure = self.context.scene(action, self.tenant).failed(error);
        match error.reason() {
            Some(Reason::TokenInvalid) => failure.hint(self.context.about_token(&self.cluster_id)),
            Some(Reason::TokenExpired) => failure.hint(EXPIRED),
            Some(_) | None => failure,
        }
    }
}

const EXPIRED: &str = "'mini-tectonic-rs token create -t TENANT --save' makes a tenant another one, with the admin's \
                       credential or a valid token of all scopes; 'token rotate --admin' showed the next admin token, and \
                       --reissue-admin-token makes one where that is lost";

/// Writes a line on standard error. Nobody is left to tell when that fails.
pub(crate) fn say(text: &str) {
    writeln!(io::stderr().lock(), "{text}").ok();
}

fn normalised(endpoint: &str) -> Result<String, Failure> {
    let client = Client::new(ClientConfig::new(endpoint)).map_err(|error| {
        Failure::new(Exit::Usage, format!("--endpoint {endpoint}: {}", proto::status::chain(&error)))
    })?;
    Ok(client.endpoint().to_owned())
}

/// The token that flags or the environment give, flags first.
fn given_token(global: &Global) -> Result<Option<Secret>, Failure> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(token) = &global.token {
        return Ok(Some(token.clone()));
    }
    if let Some(path) = &global.token_file {
        return read_token(path).map(Some);
    }
    if let Some(token) = variable(TOKEN_VARIABLE) {
        let not_text = |_bytes| Failure::new(Exit::Usage, "MINI_TECTONIC_TOKEN is not text");
        return token.into_string().map_err(not_text).map(|token| Some(Secret::from(token.trim())));
    }
    variable("MINI_TECTONIC_TOKEN_FILE").map(|path| read_token(Path::new(&path))).transpose()
}

/// The token in a file that nobody else can read.
pub(crate) fn read_token(path: &Path) -> Result<Secret, Failure> {
    let what = format_args!("cannot use the token in {}", path.display()).to_string();
    let read = folder::read_secret(path).map_err(|error| Failure::local(&what, &error))?;
    let bytes = read.ok_or_else(|| Failure::local(&what, &io::Error::from(io::ErrorKind::NotFound)))?;
    match std::str::from_utf8(&bytes).unwrap_or_default().trim() {
        "" => Err(Failure::new(Exit::Other, format!("there is no token in {}", path.display()))),
        token => Ok(Secret::from(token)),
    }
}

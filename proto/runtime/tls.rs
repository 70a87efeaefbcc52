//! TLS of a service: its certificate and key, whom it trusts, and their renewal while it runs.
//!
//! The files are read at the start, after SIGHUP, and whenever a look at them (every [`POLL`]) finds other bytes. New ones
//! hold for new connections, in both directions; connections that are open go on with what they began with. Files that
//! cannot be used change nothing: the old ones stay in use, the log and the cluster's status say so, and every look
//! tries again. At a start they are an error.

mod options;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_util::sync::CancellationToken;
use x509_cert::Certificate;
use x509_cert::der::Decode as _;
use zeroize::Zeroizing;

use self::options::{Identity, Paths};
pub use self::options::{NetworkOptions, TlsOptions};
use super::clock::{Clock, millis};
use crate::checksum::{Sha256, Sha256Hasher};
use crate::status::chain;
use crate::tls::{
    ALPN, Dialer, TlsError, Trust, authorities, certified_key, provider, read, read_private, with_versions,
};

/// How often the files are looked at.
pub const POLL: Duration = Duration::from_secs(30);
/// A certificate that ends within this time needs an operator.
pub const EXPIRY_WARNING: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// See the module. Without a certificate it encrypts nothing, and still knows whom to trust.
#[derive(Debug)]
pub struct Tls {
    paths: Paths,
    clock: Arc<dyn Clock>,
    dialer: Dialer,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    in_use: InUse,
    /// Why the files as they are now are not in use.
    problem: Option<String>,
}

/// What listeners work with.
#[derive(Debug, Default)]
struct InUse {
    server: Option<Arc<ServerConfig>>,
    expire_ms: Option<u64>,
    seen: Option<Sha256>,
}

/// What came of a look at the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    /// They are what they were.
    Unchanged,
    /// They are others, and in use.
    Renewed,
    /// They are others and cannot be used.
    Failed,
}

impl Tls {
    /// Reads the files that the settings name.
    ///
    /// # Errors
    /// [`TlsError`]: a file cannot be used, others can read the key, the certificate has expired, or a flag lacks its
    /// counterpart.
    pub fn open(tls: &TlsOptions, network: &NetworkOptions, clock: Arc<dyn Clock>) -> Result<Arc<Self>, TlsError> {
        let paths = Paths::new(tls, network)?;
        let (in_use, trust) = Files::read(&paths)?.load(&paths, clock.now_ms())?;
        let state = Mutex::new(State { in_use, problem: None });
        Ok(Arc::new(Self { paths, clock, dialer: Dialer::new(trust), state }))
    }

    /// None, and the machine's own authorities for who dials out.
    pub fn off(clock: Arc<dyn Clock>) -> Arc<Self> {
        let state = Mutex::new(State { in_use: InUse::default(), problem: None });
        Arc::new(Self { paths: Paths::default(), clock, dialer: Dialer::new(Trust::system()), state })
    }

    /// Whether the listener speaks TLS.
    pub fn is_on(&self) -> bool {
        self.paths.identity.is_some()
    }

    /// How URLs of the listener begin.
    pub fn scheme(&self) -> &'static str {
        if self.is_on() { "https" } else { "http" }
    }

    /// Whether calls between services need a certificate on both sides.
    pub fn is_mutual(&self) -> bool {
        self.paths.client_authorities.is_some()
    }

    /// Opens the service's own connections to others.
    pub fn dialer(&self) -> Dialer {
        self.dialer.clone()
    }

    /// What a new connection is greeted with; `None` when it is not encrypted.
    pub(crate) fn server(&self) -> Option<Arc<ServerConfig>> {
        self.state().in_use.server.clone()
    }

    /// What needs an operator, in words.
    pub fn warnings(&self) -> Vec<String> {
        let state = self.state();
        let left = state.in_use.expire_ms.map(|expire_ms| expire_ms.saturating_sub(self.clock.now_ms()));
        let expiry = left.filter(|left| *left <= millis(EXPIRY_WARNING)).map(|left| match left {
            0 => "the certificate has expired: nobody can connect. Replace it".to_owned(),
            left => {
                let left = crate::tls::in_words(Duration::from_millis(left));
                format!("the certificate expires in {left}; replace it")
            }
        });
        let problem = state.problem.as_ref().map(|why| {
            format!("the certificate files were changed and cannot be used, so the former ones stay in use: {why}")
        });
        problem.into_iter().chain(expiry).collect()
    }

    /// Looks at the files and uses them if they are others. Blocks.
    pub fn reload(&self) -> Reload {
        let loaded = Files::read(&self.paths).and_then(|files| {
            if self.state().in_use.seen == Some(files.sum()) {
                return Ok(None);
            }
            files.load(&self.paths, self.clock.now_ms()).map(Some)
        });
        let mut state = self.state();
        match loaded {
            Ok(None) => {
                state.problem = None;
                Reload::Unchanged
            }
            Ok(Some((in_use, trust))) => {
                *state = State { in_use, problem: None };
                self.dialer.trust(trust);
                tracing::info!("new certificate files are in use, for new connections");
                Reload::Renewed
            }
            Err(error) => {
                let problem = chain(&error);
                // The files are looked at often; the same trouble is told once.
                if state.problem.as_ref() != Some(&problem) {
                    tracing::error!(%problem, "the certificate files cannot be used; the former ones stay in use");
                }
                state.problem = Some(problem);
                Reload::Failed
            }
        }
    }

    /// Looks at the files at every `poll` and SIGHUP, until `stop` fires.
    pub async fn follow(self: Arc<Self>, poll: Duration, stop: CancellationToken) {
        let mut hangup = signal(SignalKind::hangup())
            .inspect_err(|error| tracing::warn!(%error, "SIGHUP will not have the certificates read again"))
            .ok();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = hung_up(hangup.as_mut()) => tracing::info!("asked to read the certificates again"),
                () = tokio::time::sleep(poll), if !self.paths.is_empty() => {}
            }
            if self.paths.is_empty() {
                tracing::info!("there are none: this service has no TLS");
                continue;
            }
            let this = Arc::clone(&self);
            if let Err(error) = tokio::task::spawn_blocking(move || this.reload()).await {
                tracing::error!(%error, "the certificates could not be looked at");
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn hung_up(signal: Option<&mut tokio::signal::unix::Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}

/// The content of the files, before anything is made of it.
struct Files {
    certificate: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
    client_authorities: Vec<u8>,
    authorities: Vec<u8>,
}

impl Files {
    fn read(paths: &Paths) -> Result<Self, TlsError> {
        let optional = |path: Option<&std::path::PathBuf>| path.map_or_else(|| Ok(Vec::new()), |path| read(path));
        let identity = paths.identity.as_ref();
        Ok(Self {
            certificate: optional(identity.map(|identity| &identity.certificate))?,
            key: identity.map_or_else(|| Ok(Zeroizing::default()), |identity| read_private(&identity.key))?,
            client_authorities: optional(paths.client_authorities.as_ref())?,
            authorities: optional(paths.authorities.as_ref())?,
        })
    }

    fn sum(&self) -> Sha256 {
        let mut hasher = Sha256Hasher::default();
        for part in [&self.certificate, &*self.key, &self.client_authorities, &self.authorities] {
            hasher.update(&(part.len() as u64).to_be_bytes());
            hasher.update(part);
        }
        hasher.finish()
    }

    fn load(&self, paths: &Paths, now_ms: u64) -> Result<(InUse, Trust), TlsError> {
        let (mut server, mut expire_ms, mut shown) = (None, None, None);
        if let Some(Identity { certificate, key }) = &paths.identity {
            let identity = certified_key((certificate, &self.certificate), (key, &self.key))?;
            expire_ms = expiry(&identity);
            refuse_expired(certificate, expire_ms, now_ms)?;
            server = Some(Arc::new(self.server_config(paths, &identity)?));
            shown = Some(identity);
        }
        let trust = match &paths.authorities {
            Some(path) => Trust::authorities(authorities(path, &self.authorities)?),
            None => Trust::system(),
        };
        Ok((InUse { server, expire_ms, seen: Some(self.sum()) }, trust.with_identity(shown)))
    }

    fn server_config(&self, paths: &Paths, identity: &Arc<CertifiedKey>) -> Result<ServerConfig, TlsError> {
        let builder = with_versions(ServerConfig::builder_with_provider(provider()));
        let builder = match &paths.client_authorities {
            Some(path) => {
                let roots = Arc::new(authorities(path, &self.client_authorities)?);
                // Tenants have none; the calls of services ask for it.
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider()).allow_unauthenticated();
                builder.with_client_cert_verifier(verifier.build().expect("there are authorities, and no revocations"))
            }
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(identity))));
        config.alpn_protocols = vec![ALPN.to_vec()];
        // Who was let in once proves who it is again.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }
}

fn refuse_expired(path: &std::path::Path, expire_ms: Option<u64>, now_ms: u64) -> Result<(), TlsError> {
    match expire_ms.filter(|expire_ms| *expire_ms <= now_ms) {
        Some(expire_ms) => {
            let ago = crate::tls::in_words(Duration::from_millis(now_ms - expire_ms));
            Err(TlsError::Expired { path: path.to_path_buf(), ago })
        }
        None => Ok(()),
    }
}

/// When a certificate ends; `None` when that cannot be read, which is no reason not to use it.
fn expiry(identity: &CertifiedKey) -> Option<u64> {
    let certificate = Certificate::from_der(identity.cert.first()?).ok()?;
    Some(millis(certificate.tbs_certificate().validity().not_after.to_unix_duration()))
}

#[cfg(test)]
mod tests;

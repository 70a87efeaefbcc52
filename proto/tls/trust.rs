//! Whom a client believes, and what it shows of itself.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::{ALPN, TlsError, authorities, client_builder, read};

/// Whom a client believes, and what it shows of itself.
#[derive(Debug, Default)]
pub struct Trust {
    /// The machine's own when absent.
    authorities: Option<Arc<RootCertStore>>,
    identity: Option<Arc<CertifiedKey>>,
    /// Made when it is first needed: who dials nothing encrypted does not read the machine's list.
    config: OnceLock<Arc<ClientConfig>>,
}

impl Trust {
    /// The authorities of this machine, which its operator can add to and which are renewed with the system. A list
    /// that is built into the program would be neither.
    pub fn system() -> Self {
        Self::default()
    }

    /// These and no others.
    pub fn authorities(roots: RootCertStore) -> Self {
        Self { authorities: Some(Arc::new(roots)), ..Self::default() }
    }

    /// Those in a file, or the machine's when there is none.
    ///
    /// # Errors
    /// [`TlsError`] when the file cannot be used.
    pub fn from_file(path: Option<&Path>) -> Result<Self, TlsError> {
        match path {
            Some(path) => Ok(Self::authorities(authorities(path, &read(path)?)?)),
            None => Ok(Self::system()),
        }
    }

    /// Shows this certificate to whoever asks for one.
    #[must_use]
    pub fn with_identity(self, identity: Option<Arc<CertifiedKey>>) -> Self {
        Self { identity, ..self }
    }

    /// How to open a connection. Reads the machine's authorities the first time, if they are the ones.
    ///
    /// # Errors
    /// [`TlsError::NoSystemAuthorities`].
    pub(super) fn config(&self) -> Result<Arc<ClientConfig>, TlsError> {
        if let Some(config) = self.config.get() {
            return Ok(Arc::clone(config));
        }
        let roots = self.authorities.clone().map_or_else(of_the_system, Ok)?;
        Ok(Arc::clone(self.config.get_or_init(|| Arc::new(client_config(roots, self.identity.clone())))))
    }
}

fn client_config(roots: Arc<RootCertStore>, identity: Option<Arc<CertifiedKey>>) -> ClientConfig {
    let builder = client_builder().with_root_certificates(roots);
    let mut config = match identity {
        Some(identity) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config
}

/// One odd certificate among many is no reason to believe nobody.
fn of_the_system() -> Result<Arc<RootCertStore>, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (_added, _ignored) = roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map_or_else(|| "it is empty".to_owned(), ToString::to_string);
        return Err(TlsError::NoSystemAuthorities(why));
    }
    Ok(Arc::new(roots))
}

//! The flags, and the files that they name.

use std::path::PathBuf;

use crate::tls::TlsError;

/// A listener's TLS, as flags.
#[derive(clap::Args, Debug, Clone, Default, PartialEq, Eq)]
#[group(id = "tls_options")]
#[command(next_help_heading = "TLS")]
pub struct TlsOptions {
    /// Speak TLS with the files of this folder, as 'mini-tectonic-rs certs' makes it: server.pem and server.key, and
    /// ca.pem both as --tls-client-ca and --tls-ca. The flags for single files go first
    #[arg(long, env = "MINI_TECTONIC_TLS_DIR", value_name = "FOLDER")]
    pub tls_dir: Option<PathBuf>,
    /// Speak TLS with this certificate (PEM, its chain behind it); also shown to other services
    #[arg(long, env = "MINI_TECTONIC_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// The certificate's private key (PEM), which nobody else may be able to read
    #[arg(long, env = "MINI_TECTONIC_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// Take calls that services make of each other only with a certificate of these authorities (PEM)
    #[arg(long, env = "MINI_TECTONIC_TLS_CLIENT_CA", value_name = "FILE")]
    pub tls_client_ca: Option<PathBuf>,
}

impl TlsOptions {
    /// Whether a listener with them speaks TLS.
    pub fn is_on(&self) -> bool {
        self.tls_dir.is_some() || self.tls_cert.is_some() || self.tls_key.is_some()
    }
}

/// How a program deals with other machines, as flags.
#[derive(clap::Args, Debug, Clone, Default, PartialEq, Eq)]
#[group(id = "network_options")]
#[command(next_help_heading = "TLS")]
pub struct NetworkOptions {
    /// Believe these authorities (PEM) when connecting to https:// endpoints, instead of this machine's own
    #[arg(long, env = "MINI_TECTONIC_TLS_CA", value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,
    /// Listen where other machines reach it, and send them tokens, although nothing is encrypted
    #[arg(long, env = "MINI_TECTONIC_INSECURE_PLAINTEXT")]
    pub insecure_plaintext: bool,
}

/// A certificate and its key.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

/// The files that the flags stand for.
#[derive(Debug, Default)]
pub(super) struct Paths {
    pub(super) identity: Option<Identity>,
    pub(super) client_authorities: Option<PathBuf>,
    pub(super) authorities: Option<PathBuf>,
}

impl Paths {
    pub(super) fn new(tls: &TlsOptions, network: &NetworkOptions) -> Result<Self, TlsError> {
        let inside = |name: &str| tls.tls_dir.as_ref().map(|folder| folder.join(name));
        let certificate = tls.tls_cert.clone().or_else(|| inside("server.pem"));
        let key = tls.tls_key.clone().or_else(|| inside("server.key"));
        let identity = match (certificate, key) {
            (Some(certificate), Some(key)) => Some(Identity { certificate, key }),
            (None, None) => None,
            (Some(_), None) => return Err(TlsError::Incomplete("--tls-cert needs --tls-key beside it")),
            (None, Some(_)) => return Err(TlsError::Incomplete("--tls-key needs --tls-cert beside it")),
        };
        let client_authorities = tls.tls_client_ca.clone().or_else(|| inside("ca.pem"));
        if client_authorities.is_some() && identity.is_none() {
            return Err(TlsError::Incomplete("--tls-client-ca needs --tls-cert and --tls-key beside it"));
        }
        let authorities = network.tls_ca.clone().or_else(|| inside("ca.pem"));
        Ok(Self { identity, client_authorities, authorities })
    }

    /// Whether there is nothing to read.
    pub(super) fn is_empty(&self) -> bool {
        self.identity.is_none() && self.authorities.is_none()
    }
}

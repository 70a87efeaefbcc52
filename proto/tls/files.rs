//! Certificates, keys and authorities from PEM files.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::pki_types::pem::{Error as PemError, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{Error as RustlsError, RootCertStore};
use zeroize::Zeroizing;

use super::provider;

/// No such file is longer; a system's bundle of authorities has some 250 KiB.
const BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A private key that others can read is none.
    #[error("others can read the private key in {path} (mode {mode:04o}); 'chmod 600 {path}' ends that", path = path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// Something else is in the file.
    #[error("{} holds no {what} in PEM form", path.display())]
    NotThere {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// It cannot be used as what it is.
    #[error("{} cannot be used", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: RustlsError,
    },
    /// The certificate is another key's.
    #[error("the private key in {} is not that of the certificate in {}", key.display(), certificate.display())]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// The certificate is of no use any more.
    #[error("the certificate in {} has expired, {ago} ago; replace it ('mini-tectonic-rs certs --renew' renews one that it made)", path.display())]
    Expired {
        /// The certificate's file.
        path: PathBuf,
        /// How long ago.
        ago: String,
    },
    /// Flags that belong together.
    #[error("{0}")]
    Incomplete(&'static str),
    /// The machine trusts nobody.
    #[error("this machine's own list of authorities cannot be used ({0}); name a file with --tls-ca")]
    NoSystemAuthorities(String),
}

impl TlsError {
    fn unusable(path: &Path) -> impl FnOnce(RustlsError) -> Self {
        move |source| Self::Unusable { path: path.to_path_buf(), source }
    }
}

/// Reads a file of certificates.
///
/// # Errors
/// [`TlsError::Read`], also for a file of more than 4 MiB.
pub fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    File::open(path).and_then(|file| read_all(&file)).map_err(failed(path))
}

/// Reads a file with a private key, which nobody but its owner may be able to read.
///
/// # Errors
/// [`TlsError::Exposed`], [`TlsError::Read`].
pub fn read_private(path: &Path) -> Result<Zeroizing<Vec<u8>>, TlsError> {
    let file = File::open(path).map_err(failed(path))?;
    let mode = file.metadata().map_err(failed(path))?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(TlsError::Exposed { path: path.to_path_buf(), mode });
    }
    read_all(&file).map(Zeroizing::new).map_err(failed(path))
}

fn read_all(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > BYTES_MAX { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
}

fn failed(path: &Path) -> impl Fn(io::Error) -> TlsError {
    move |source| TlsError::Read { path: path.to_path_buf(), source }
}

/// The certificates in `pem`, the first one's own first.
fn chain(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let missing = || TlsError::NotThere { path: path.to_path_buf(), what: "certificate" };
    let certificates: Result<Vec<_>, PemError> = CertificateDer::pem_slice_iter(pem).collect();
    certificates.ok().filter(|certificates| !certificates.is_empty()).ok_or_else(missing)
}

/// The authorities in a file's content.
///
/// # Errors
/// [`TlsError::NotThere`], [`TlsError::Unusable`].
pub fn authorities(path: &Path, pem: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in chain(path, pem)? {
        roots.add(certificate).map_err(TlsError::unusable(path))?;
    }
    Ok(roots)
}

/// A certificate with its chain, and the key that belongs to it, from two files' contents.
///
/// # Errors
/// [`TlsError::NotThere`], [`TlsError::Unusable`], [`TlsError::Mismatch`].
pub fn certified_key(certificate: (&Path, &[u8]), key: (&Path, &[u8])) -> Result<Arc<CertifiedKey>, TlsError> {
    let chain = chain(certificate.0, certificate.1)?;
    let missing = |_error| TlsError::NotThere { path: key.0.to_path_buf(), what: "private key" };
    let private = PrivateKeyDer::from_pem_slice(key.1).map_err(missing)?;
    let signing = provider().key_provider.load_private_key(private).map_err(TlsError::unusable(key.0))?;
    let certified = CertifiedKey::new(chain, signing);
    match certified.keys_match() {
        Ok(()) => Ok(Arc::new(certified)),
        Err(RustlsError::InconsistentKeys(_)) => {
            Err(TlsError::Mismatch { certificate: certificate.0.to_path_buf(), key: key.0.to_path_buf() })
        }
        Err(other) => Err(TlsError::unusable(certificate.0)(other)),
    }
}

//! An authority for one machine or one team, and the certificates that it gives out: for development and tests.
//!
//! The authority's name is made of its key, so that two of them are never taken for each other, and so that the key alone
//! is enough to go on with.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData as _,
};
use time::OffsetDateTime;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
use zeroize::Zeroizing;

use crate::checksum::Sha256;

/// Clocks differ: what is given out is valid from a little earlier on.
const EARLIER_SECONDS: i64 = 60 * 60;
/// The authority's own certificate lasts for ten years.
const AUTHORITY_SECONDS: i64 = 10 * 365 * 24 * 60 * 60;

/// Why no certificate was made.
#[derive(Debug, thiserror::Error)]
pub enum DevelopmentError {
    /// The names or times cannot be in one.
    #[error("no certificate can be made of this")]
    Certificate(#[from] rcgen::Error),
    /// Neither a name nor an address.
    #[error("'{0}' is neither the name of a host nor an address")]
    Host(String),
    /// A time out of range.
    #[error("the time is out of range")]
    Time(#[from] time::error::ComponentRange),
    /// What should be a key is none.
    #[error("it holds no private key that this program made")]
    NotAKey,
}

/// A certificate and its key, in PEM.
#[derive(Debug)]
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    /// The private key.
    pub key: Zeroizing<String>,
}

/// See the module.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl Authority {
    /// A new one.
    ///
    /// # Errors
    /// [`DevelopmentError`] when the system has no random bits or the time is out of range.
    pub fn generate(now_ms: u64) -> Result<Self, DevelopmentError> {
        Self::of(KeyPair::generate()?, now_ms)
    }

    /// The one with this key, in PEM.
    ///
    /// # Errors
    /// [`DevelopmentError::NotAKey`].
    pub fn from_key(pem: &[u8], now_ms: u64) -> Result<Self, DevelopmentError> {
        let key = PrivatePkcs8KeyDer::from_pem_slice(pem).map_err(|_not_one| DevelopmentError::NotAKey)?;
        Self::of(KeyPair::try_from(&key).map_err(|_other_kind| DevelopmentError::NotAKey)?, now_ms)
    }

    fn of(key: KeyPair, now_ms: u64) -> Result<Self, DevelopmentError> {
        let fingerprint = Sha256::of(&key.subject_public_key_info()).to_string();
        let mut params = CertificateParams::default();
        let short = fingerprint.get(..8).unwrap_or_default();
        params.distinguished_name = named(&format!("MiniTectonic development authority {short}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let now = seconds(now_ms);
        params.not_before = OffsetDateTime::from_unix_timestamp(now - EARLIER_SECONDS)?;
        params.not_after = OffsetDateTime::from_unix_timestamp(now + AUTHORITY_SECONDS)?;
        let certificate = pem("CERTIFICATE", params.self_signed(&key)?.der());
        Ok(Self { issuer: Issuer::new(params, key), certificate })
    }

    /// Its certificate, in PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Its key, in PEM.
    pub fn key(&self) -> Zeroizing<String> {
        Zeroizing::new(pem("PRIVATE KEY", self.issuer.key().serialized_der()))
    }

    /// A certificate with a new key for these names and addresses, for services and for those who call them, valid from
    /// an hour before `from_ms` to `until_ms`.
    ///
    /// # Errors
    /// [`DevelopmentError`].
    pub fn issue(&self, hosts: &[String], from_ms: u64, until_ms: u64) -> Result<Issued, DevelopmentError> {
        let name = |host: &String| ServerName::try_from(host.strip_prefix("*.").unwrap_or(host).to_owned()).is_ok();
        if let Some(host) = hosts.iter().find(|host| !name(host)) {
            return Err(DevelopmentError::Host(host.clone()));
        }
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(hosts)?;
        params.distinguished_name = named("MiniTectonic development service");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.not_before = OffsetDateTime::from_unix_timestamp(seconds(from_ms) - EARLIER_SECONDS)?;
        params.not_after = OffsetDateTime::from_unix_timestamp(seconds(until_ms))?;
        let certificate = pem("CERTIFICATE", params.signed_by(&key, &self.issuer)?.der());
        Ok(Issued { certificate, key: Zeroizing::new(pem("PRIVATE KEY", key.serialized_der())) })
    }
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn seconds(ms: u64) -> i64 {
    i64::try_from(ms / 1000).unwrap_or(i64::MAX / 2)
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = Zeroizing::new(STANDARD.encode(der));
    let mut pem = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.push_str(std::str::from_utf8(line).expect("base64 is ASCII"));
        pem.push('\n');
    }
    pem.push_str(&format!("-----END {label}-----\n"));
    pem
}

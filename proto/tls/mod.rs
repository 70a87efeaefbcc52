//! TLS as every program of ours speaks it: version 1.3, HTTP/2 inside, by rustls with ring; and what may go without it.
//!
//! [`exposure`] has the rules: which addresses are listened on, and to whom a secret is sent. [`Dialer`] opens every
//! connection of every client of ours, encrypted or not; [`Trust`] says whom it believes and what it shows of itself.
//! Nothing is resumed: each connection proves anew whom it leads to.

#[cfg(any(test, feature = "development-ca"))]
pub mod development;
mod dial;
pub mod exposure;
mod files;
mod trust;

use std::sync::{Arc, OnceLock};

use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{ClientConfig, ConfigBuilder, ConfigSide, SupportedProtocolVersion, WantsVerifier};

#[cfg(feature = "runtime")]
pub(crate) use self::dial::in_words;
pub use self::dial::{DialError, Dialer, WANTS_TLS};
pub use self::files::{TlsError, authorities, certified_key, read, read_private};
pub use self::trust::Trust;

/// The one protocol inside.
pub const ALPN: &[u8] = b"h2";
/// The versions that are spoken.
const VERSIONS: &[&SupportedProtocolVersion] = &[&TLS13];

/// The one implementation of cryptography.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(ring::default_provider())))
}

fn client_builder() -> ConfigBuilder<ClientConfig, WantsVerifier> {
    with_versions(ClientConfig::builder_with_provider(provider()))
}

/// A configuration that speaks nothing but our version.
pub(crate) fn with_versions<S: ConfigSide>(
    builder: ConfigBuilder<S, tokio_rustls::rustls::WantsVersions>,
) -> ConfigBuilder<S, WantsVerifier> {
    builder.with_protocol_versions(VERSIONS).expect("ring has cipher suites of TLS 1.3")
}

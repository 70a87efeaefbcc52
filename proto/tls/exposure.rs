//! What may go unencrypted or unasked: the rules of every listener and every client, in one place.
//!
//! This machine's own addresses are free. Beyond them a listener needs TLS, or an operator who says that it does not;
//! and authentication, in any case. A secret goes to another machine over TLS, or because somebody says so.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use tonic::codegen::http::Uri;

/// A listener before it listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listening {
    /// Where.
    pub address: SocketAddr,
    /// Whether it speaks TLS.
    pub tls: bool,
    /// Whether calls need tokens.
    pub auth: bool,
    /// `--insecure-plaintext`.
    pub insecure_plaintext: bool,
}

/// A listener that must not be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Others would be let in without being asked who they are.
    #[error(
        "refusing to listen on {0} with --insecure-no-auth: without authentication only a loopback address is served"
    )]
    NoAuth(SocketAddr),
    /// Others could read along.
    #[error(
        "refusing to listen on {0}: tokens and data would travel unencrypted. Give --tls-cert and --tls-key (or --tls-dir, \
         which 'mini-tectonic-rs certs' fills for a development machine), listen on a loopback address, or accept it with \
         --insecure-plaintext"
    )]
    Plaintext(SocketAddr),
}

/// What an operator is told of, at the start and in the cluster's status, for as long as it is so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Warning {
    /// Nobody is asked for a token.
    NoAuth,
    /// The listener can be reached from other machines, unencrypted.
    Plaintext(SocketAddr),
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAuth => f.write_str(
                "authentication is off (--insecure-no-auth): whoever reaches the metadata service's address may read, \
                 change and delete everything",
            ),
            Self::Plaintext(address) => write!(
                f,
                "{address} can be reached from other machines and nothing is encrypted (--insecure-plaintext): tokens \
                 and data can be read on the way"
            ),
        }
    }
}

impl Listening {
    /// Whether it may be, and what there is to warn about.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn judge(self) -> Result<Vec<Warning>, Refused> {
        let Self { address, tls, auth, insecure_plaintext } = self;
        let network = !is_loopback(address.ip());
        if network && !auth {
            return Err(Refused::NoAuth(address));
        }
        if network && !tls && !insecure_plaintext {
            return Err(Refused::Plaintext(address));
        }
        let no_auth = (!auth).then_some(Warning::NoAuth);
        let plaintext = (network && !tls).then_some(Warning::Plaintext(address));
        Ok(no_auth.into_iter().chain(plaintext).collect())
    }
}

/// A secret must not be sent there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0} is another machine's and unencrypted, so no token is sent there; use https://, or accept it with \
     --insecure-plaintext"
)]
pub struct Unencrypted(String);

/// Whether a token or a capability may be sent to an endpoint.
///
/// # Errors
/// [`Unencrypted`].
pub fn may_send_secrets(endpoint: &str, insecure_plaintext: bool) -> Result<(), Unencrypted> {
    let encrypted_or_here = endpoint
        .parse::<Uri>()
        .is_ok_and(|uri| uri.scheme_str() == Some("https") || uri.host().is_some_and(is_this_machine));
    if insecure_plaintext || encrypted_or_here { Ok(()) } else { Err(Unencrypted(endpoint.to_owned())) }
}

fn is_this_machine(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    address.map_or_else(|_name| host.eq_ignore_ascii_case("localhost"), is_loopback)
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listener_is_judged_by_address_tls_authentication_and_what_was_accepted() {
        let loopback = ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"];
        let network = ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "[fe80::1]:1", "[::ffff:10.0.0.1]:1"];
        let addresses = loopback.map(|text| (text, true)).into_iter().chain(network.map(|text| (text, false)));
        for ((text, local), tls, auth, accepted) in addresses.flat_map(|address| {
            let flags = [false, true];
            flags.into_iter().flat_map(move |tls| {
                flags.into_iter().flat_map(move |auth| flags.map(|accepted| (address, tls, auth, accepted)))
            })
        }) {
            let address = text.parse().unwrap();
            let expected = match (local, tls, auth, accepted) {
                (false, _, false, _) => Err(Refused::NoAuth(address)),
                (false, false, true, false) => Err(Refused::Plaintext(address)),
                (false, false, true, true) => Ok(vec![Warning::Plaintext(address)]),
                (true, _, false, _) => Ok(vec![Warning::NoAuth]),
                (true, _, true, _) | (false, true, true, _) => Ok(Vec::new()),
            };
            let listening = Listening { address, tls, auth, insecure_plaintext: accepted };
            assert_eq!(listening.judge(), expected, "{listening:?}");
        }
    }

    #[test]
    fn a_secret_leaves_this_machine_encrypted_or_because_somebody_said_so() {
        for (endpoint, free) in [
            ("http://127.0.0.1:1", true),
            ("http://127.8.0.1:1", true),
            ("http://[::1]:1", true),
            ("http://localhost:1", true),
            ("http://LOCALHOST:1", true),
            ("https://example.org:1", true),
            ("http://example.org:1", false),
            ("http://localhost.example.org:1", false),
            ("http://127.0.0.1.example.org:1", false),
            ("http://10.0.0.1:1", false),
            ("http://0.0.0.0:1", false),
            ("http://[fe80::1]:1", false),
            ("nonsense", false),
        ] {
            assert_eq!(may_send_secrets(endpoint, false).is_ok(), free, "{endpoint}");
            assert!(may_send_secrets(endpoint, true).is_ok());
        }
    }
}

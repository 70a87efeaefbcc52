//! `certs`: an authority for one development machine, and one certificate of it for the services and for those between
//! them.
//!
//! The authority comes first and stays; a certificate can be made from it again and again. A folder that holds an
//! authority is not touched without `--renew`, and with it only the certificate changes: who trusts `ca.pem` goes on
//! trusting. The certificate is written before its key, so that a service that looks in between finds a pair that does
//! not fit, keeps the one it has, and finds the whole at its next look.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use proto::runtime::clock::{Clock as _, SystemClock, millis};
use proto::runtime::folder;
use proto::tls::development::{Authority, DevelopmentError};
use proto::tls::read_private;

use crate::cli::context::Context;
use crate::cli::failure::{Exit, Failure};

/// Make a development authority, and a certificate of it for the services of this machine
///
/// Writes ca.pem, ca.key, server.pem and server.key (keys with mode 0600) into the folder, for 'serve --tls-dir FOLDER'
/// and '--tls-ca FOLDER/ca.pem'. For development: whoever has ca.key can be whoever they like to those who trust ca.pem.
#[derive(Debug, Args)]
pub(crate) struct Certs {
    /// The folder; made if it is not there.
    #[arg(long, value_name = "FOLDER", default_value = "certs")]
    out: PathBuf,
    /// A name or an address under which the services are reached, besides localhost, 127.0.0.1 and ::1; may be repeated.
    #[arg(long = "host", value_name = "NAME|IP")]
    hosts: Vec<String>,
    /// How long the certificate is valid.
    #[arg(long, value_name = "TIME", default_value = "365d", value_parser = humantime::parse_duration)]
    valid: Duration,
    /// Make the certificate anew, with the authority that is there.
    #[arg(long)]
    renew: bool,
}

/// Names that are always in the certificate.
const ALWAYS: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
const AUTHORITY: &str = "ca.pem";
const AUTHORITY_KEY: &str = "ca.key";
const CERTIFICATE: &str = "server.pem";
const KEY: &str = "server.key";

impl Certs {
    /// Runs the command.
    pub(crate) fn run(self, context: &Context) -> Result<(), Failure> {
        let now_ms = SystemClock.now_ms();
        let authority = if self.renew { self.known(now_ms)? } else { self.fresh(now_ms)? };
        let mut hosts: Vec<String> = ALWAYS.map(str::to_owned).into();
        hosts.extend(self.hosts.iter().filter(|host| !ALWAYS.contains(&host.as_str())).cloned());
        let issued = authority.issue(&hosts, now_ms, now_ms.saturating_add(millis(self.valid)));
        let issued = issued.map_err(|error| cannot_make(&error))?;
        write(&self.out.join(CERTIFICATE), issued.certificate.as_bytes())?;
        write(&self.out.join(KEY), issued.key.as_bytes())?;
        let folder = self.out.display();
        let names = hosts.join(", ");
        context.note(&format!(
            "{folder}/{CERTIFICATE} is valid for {} days, for {names}\n\
             services: mini-tectonic-rs serve --tls-dir {folder}\n\
             clients:  --endpoint https://127.0.0.1:50051 --tls-ca {folder}/{AUTHORITY}",
            self.valid.as_secs() / (24 * 60 * 60)
        ));
        Ok(())
    }

    /// A new authority, where none is yet.
    fn fresh(&self, now_ms: u64) -> Result<Authority, Failure> {
        for name in [AUTHORITY, AUTHORITY_KEY, CERTIFICATE, KEY] {
            let path = self.out.join(name);
            let there = path.try_exists();
            if there.map_err(|error| Failure::local(format_args!("cannot look at {}", path.display()), &error))? {
                let message = format!("{} is there already; nothing was changed", path.display());
                return Err(Failure::new(Exit::Other, message)
                    .hint("'--renew' makes a new certificate with the same authority; '--out' takes another folder"));
            }
        }
        let authority = Authority::generate(now_ms).map_err(|error| cannot_make(&error))?;
        let made = folder::create(&self.out);
        made.map_err(|error| Failure::local(format_args!("cannot make {}", self.out.display()), &error))?;
        write(&self.out.join(AUTHORITY_KEY), authority.key().as_bytes())?;
        write(&self.out.join(AUTHORITY), authority.certificate().as_bytes())?;
        Ok(authority)
    }

    /// The authority that is there.
    fn known(&self, now_ms: u64) -> Result<Authority, Failure> {
        let path = self.out.join(AUTHORITY_KEY);
        let key = read_private(&path).map_err(|error| {
            Failure::local("there is no authority to renew with", &error).hint("without '--renew' a new one is made")
        })?;
        let unusable =
            |error: &DevelopmentError| Failure::local(format_args!("{} cannot be used", path.display()), error);
        Authority::from_key(&key, now_ms).map_err(|error| unusable(&error))
    }
}

fn cannot_make(error: &DevelopmentError) -> Failure {
    Failure::local("cannot make a certificate", error)
        .hint("'--host' takes a name such as db.example.org, or an address")
}

fn write(path: &Path, pem: &[u8]) -> Result<(), Failure> {
    folder::publish(path, pem).map_err(|error| Failure::local(format_args!("cannot write {}", path.display()), &error))
}

//! The command line: global flags, and the arguments that several commands share. Each command's own are in its file.

use std::path::PathBuf;

use clap::builder::FalseyValueParser;
use clap::{Args, Parser};
use proto::ids::{BlobId, TenantId};

use super::commands::Command;
use super::credentials::Secret;

/// Stores blobs in MiniTectonic and gets them back, verified.
///
/// Data goes to standard output, everything else to standard error.
#[derive(Debug, Parser)]
#[command(name = "mini-tectonic-rs", version, propagate_version = true, max_term_width = 110)]
#[command(after_long_help = AFTER_HELP)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const AFTER_HELP: &str = "\
Exit codes:
  0  done
  1  failed: a local file, or anything not listed here
  2  bad argument
  3  no such tenant or blob
  4  no credential, or not the right one
  5  over the quota, or too many calls
  6  not reachable, timed out, or out of disk space
  7  stored bytes are damaged or missing

Credentials, the first that is given: --token, --token-file, MINI_TECTONIC_TOKEN, MINI_TECTONIC_TOKEN_FILE, and then \
the credentials file: $MINI_TECTONIC_CREDENTIALS, or mini-tectonic-rs/credentials.toml in ~/.config. 'serve' keeps the \
admin's token there, 'register-tenant' the tenant's.

NO_COLOR turns colours off.";

/// Flags of every command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// The metadata service.
    #[arg(long, global = true, value_name = "URL", env = "MINI_TECTONIC_ENDPOINT")]
    #[arg(default_value = "http://127.0.0.1:50051")]
    pub(crate) endpoint: String,
    /// The token to use. Others on this machine can see it: prefer --token-file [env: MINI_TECTONIC_TOKEN]
    #[arg(long, global = true, value_name = "TOKEN", value_parser = |text: &str| Ok::<_, String>(Secret::from(text)))]
    pub(crate) token: Option<Secret>,
    /// The file that holds the token to use [env: MINI_TECTONIC_TOKEN_FILE]
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) token_file: Option<PathBuf>,
    /// Believe these authorities (PEM) at https:// endpoints instead of this machine's own.
    #[arg(long, global = true, value_name = "FILE", env = "MINI_TECTONIC_TLS_CA")]
    pub(crate) tls_ca: Option<PathBuf>,
    /// Send tokens to other machines although nothing is encrypted; 'serve' listens where they reach it.
    #[arg(long, global = true, env = "MINI_TECTONIC_INSECURE_PLAINTEXT", value_parser = FalseyValueParser::new())]
    pub(crate) insecure_plaintext: bool,
    /// Print JSON, one object per line.
    #[arg(long, global = true, env = "MINI_TECTONIC_JSON", value_parser = FalseyValueParser::new())]
    pub(crate) json: bool,
    /// No progress bar and no notes, only errors and warnings.
    #[arg(short, long, global = true, env = "MINI_TECTONIC_QUIET", value_parser = FalseyValueParser::new())]
    pub(crate) quiet: bool,
    /// Log to standard error; twice, log more. RUST_LOG has the last word.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// `-t`.
#[derive(Debug, Args)]
pub(crate) struct TenantArg {
    /// The tenant: 3 to 63 of a-z, 0-9 and '-', beginning with a letter.
    #[arg(short = 't', long = "tenant", value_name = "TENANT")]
    pub(crate) tenant: TenantId,
}

/// `-b`.
#[derive(Debug, Args)]
pub(crate) struct BlobArg {
    /// The blob's id, as 'put' printed it.
    #[arg(short = 'b', long = "blob", value_name = "ID")]
    pub(crate) blob: BlobId,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn no_two_flags_of_a_command_clash() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_flags_may_stand_on_either_side_of_the_command() {
        for line in [["x", "--json", "list-tenants"], ["x", "list-tenants", "--json"]] {
            assert!(Cli::try_parse_from(line).unwrap().global.json);
        }
    }
}

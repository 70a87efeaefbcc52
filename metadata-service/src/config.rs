//! Settings. Types only: [`Tuning`] knows its flags, and whoever has a command line flattens it.

use std::path::PathBuf;
use std::time::Duration;

use proto::limits;
use proto::runtime::clock::millis;
use proto::runtime::journal::HALF_BYTES_MIN;
use proto::runtime::tls::{NetworkOptions, TlsOptions};
use proto::runtime::transport::TransportLimits;

use crate::error::StartError;

/// How one metadata service is set up.
#[derive(Debug, Clone)]
pub struct Config {
    /// The storage folder; the service's own data are in `metadata/` below it.
    pub storage: PathBuf,
    /// How long calls may go on after the stop signal.
    pub drain: Duration,
    /// How the listener is encrypted.
    pub tls: TlsOptions,
    /// How it deals with other machines.
    pub network: NetworkOptions,
    /// What strangers are granted.
    pub transport: TransportLimits,
    /// Everything that seldom changes.
    pub tuning: Tuning,
}

impl Config {
    /// How long calls may go on after the stop signal, unless said otherwise.
    pub const DRAIN: Duration = Duration::from_secs(10);

    /// Defaults for everything but the folder.
    pub fn new(storage: impl Into<PathBuf>) -> Self {
        Self {
            storage: storage.into(),
            drain: Self::DRAIN,
            tls: TlsOptions::default(),
            network: NetworkOptions::default(),
            transport: TransportLimits::default(),
            tuning: Tuning::default(),
        }
    }

    /// Refuses settings with which nothing would work, before anything is made.
    ///
    /// # Errors
    /// [`StartError::Setting`] with the first one that is wrong.
    pub(crate) fn check(&self) -> Result<(), StartError> {
        self.tuning.check()?;
        self.transport.check().map_err(StartError::Setting)
    }
}

/// Constants of the metadata service that operators and tests may set. Durations are written like `15m` or `1h`, sizes
/// like `64MiB`.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
#[group(id = "metadata_tuning")]
#[command(next_help_heading = "Metadata tuning")]
pub struct Tuning {
    /// Size of every block but the last, for blobs of a known size
    #[arg(long, env = "MINI_TECTONIC_BLOCK_BYTES", value_name = "SIZE", value_parser = parse_bytes, default_value = "64MiB")]
    pub block_bytes: u64,
    /// The same for blobs of an unknown size: clients keep that much until they hold the receipt
    #[arg(long, env = "MINI_TECTONIC_BLOCK_BYTES_UNKNOWN_SIZE", value_name = "SIZE", value_parser = parse_bytes, default_value = "8MiB")]
    pub block_bytes_unknown_size: u64,
    /// How long a capability is valid
    #[arg(long, env = "MINI_TECTONIC_CAPABILITY_LIFE", value_name = "TIME", value_parser = humantime::parse_duration, default_value = "15m")]
    pub capability_life: Duration,
    /// Lease of an upload; every AllocateBlocks renews it
    #[arg(long, env = "MINI_TECTONIC_UPLOAD_LEASE", value_name = "TIME", value_parser = humantime::parse_duration, default_value = "1h")]
    pub upload_lease: Duration,
    /// Longest upload, however often its lease is renewed
    #[arg(long, env = "MINI_TECTONIC_UPLOAD_LIFE_MAX", value_name = "TIME", value_parser = humantime::parse_duration, default_value = "7d")]
    pub upload_life_max: Duration,
    /// How long a deleted blob is kept
    #[arg(long, env = "MINI_TECTONIC_RETENTION", value_name = "TIME", value_parser = humantime::parse_duration, default_value = "1d")]
    pub retention: Duration,
    /// How long garbage of any kind is kept at least; longer than a capability lives
    #[arg(long, env = "MINI_TECTONIC_GARBAGE_GRACE", value_name = "TIME", value_parser = humantime::parse_duration, default_value = "1h")]
    pub garbage_grace: Duration,
    /// How often uploads whose lease ran out are looked for
    #[arg(long, env = "MINI_TECTONIC_SWEEP_INTERVAL", value_name = "TIME", value_parser = humantime::parse_duration, default_value = "10m")]
    pub sweep_interval: Duration,
    /// How often chunks are looked for that nothing refers to
    #[arg(long, env = "MINI_TECTONIC_ORPHAN_SWEEP_INTERVAL", value_name = "TIME", value_parser = humantime::parse_duration, default_value = "6h")]
    pub orphan_sweep_interval: Duration,
    /// How long a request_id is remembered
    #[arg(long, env = "MINI_TECTONIC_REQUEST_ID_REMEMBERED", value_name = "TIME", value_parser = humantime::parse_duration, default_value = "1d")]
    pub request_id_remembered: Duration,
    /// How often nodes are told to send a heartbeat
    #[arg(long, env = "MINI_TECTONIC_HEARTBEAT_INTERVAL", value_name = "TIME", value_parser = humantime::parse_duration, default_value = "5s")]
    pub heartbeat_interval: Duration,
    /// Without a heartbeat for this long a node counts as lost
    #[arg(long, env = "MINI_TECTONIC_NODE_LOST_AFTER", value_name = "TIME", value_parser = humantime::parse_duration, default_value = "30s")]
    pub node_lost_after: Duration,
    /// After so long a node gets a new key for its capabilities and receipts; 0s for never
    #[arg(long, env = "MINI_TECTONIC_NODE_KEY_LIFE", value_name = "TIME", value_parser = humantime::parse_duration, default_value = "30d")]
    pub node_key_life: Duration,
    /// With less free space than this on the metadata's disk no upload is started
    #[arg(long, env = "MINI_TECTONIC_METADATA_LOW_WATERMARK", value_name = "SIZE", value_parser = parse_bytes, default_value = "128MiB")]
    pub metadata_low_watermark: u64,
    /// Greatest size of each of the two files of the metadata's journal, at least 5MiB; what a start may have to go over again
    #[arg(long, env = "MINI_TECTONIC_METADATA_JOURNAL_SIZE", value_name = "SIZE", value_parser = parse_bytes, default_value = "16MiB")]
    pub metadata_journal_size: u64,
    /// How much memory commits take before they go from the journal into the database, in bulk; four times as much at most
    #[arg(long, env = "MINI_TECTONIC_METADATA_CHECKPOINT", value_name = "SIZE", value_parser = parse_bytes, default_value = "4MiB")]
    pub metadata_checkpoint: u64,
    /// Memory for the metadata engine's cache
    #[arg(long, env = "MINI_TECTONIC_METADATA_CACHE", value_name = "SIZE", value_parser = parse_bytes, default_value = "24MiB")]
    pub metadata_cache: u64,
    /// Write a fresh join token at this start: for one more node, or one whose folder was lost
    #[arg(long, env = "MINI_TECTONIC_REISSUE_JOIN_TOKEN")]
    pub reissue_join_token: bool,
    /// Take calls of the operator and of tenants without tokens: whoever reaches the address may do everything. Loopback only
    #[arg(long, env = "MINI_TECTONIC_INSECURE_NO_AUTH")]
    pub insecure_no_auth: bool,
    /// Write a fresh admin token at this start and end the one before: for one that was lost or became known
    #[arg(long, env = "MINI_TECTONIC_REISSUE_ADMIN_TOKEN")]
    pub reissue_admin_token: bool,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            block_bytes: limits::BLOCK_BYTES,
            block_bytes_unknown_size: limits::BLOCK_BYTES_UNKNOWN_SIZE,
            capability_life: limits::CAPABILITY_LIFE,
            upload_lease: limits::UPLOAD_LEASE,
            upload_life_max: limits::UPLOAD_LIFE_MAX,
            retention: limits::UNDELETE_RETENTION,
            garbage_grace: limits::GARBAGE_GRACE,
            sweep_interval: limits::SWEEP_INTERVAL,
            orphan_sweep_interval: limits::ORPHAN_SWEEP_INTERVAL,
            request_id_remembered: limits::REQUEST_ID_REMEMBERED,
            heartbeat_interval: limits::HEARTBEAT_INTERVAL,
            node_lost_after: limits::NODE_LOST_AFTER,
            node_key_life: limits::NODE_KEY_LIFE,
            metadata_low_watermark: 128 * limits::MIB,
            metadata_journal_size: 16 * limits::MIB,
            metadata_checkpoint: 4 * limits::MIB,
            metadata_cache: 24 * limits::MIB,
            reissue_join_token: false,
            insecure_no_auth: false,
            reissue_admin_token: false,
        }
    }
}

impl Tuning {
    /// Refuses settings that would make promises false.
    ///
    /// # Errors
    /// [`StartError::Setting`] with the first one that is wrong.
    pub fn check(&self) -> Result<(), StartError> {
        let block_fits = |bytes: u64| (1..=limits::CHUNK_BYTES_MAX).contains(&bytes);
        let rules = [
            (
                block_fits(self.block_bytes) && block_fits(self.block_bytes_unknown_size),
                "a block must have at least 1 byte and fit into a chunk of 1 GiB",
            ),
            (
                self.garbage_grace >= self.capability_life + limits::CLOCK_TOLERANCE,
                "--garbage-grace must be at least --capability-life and 30s more: a reader must not lose its chunk",
            ),
            (self.upload_lease <= self.upload_life_max, "--upload-lease must not be longer than --upload-life-max"),
            (!self.upload_lease.is_zero() && !self.capability_life.is_zero(), "a lease or a life of 0 permits nothing"),
            (
                self.metadata_journal_size >= HALF_BYTES_MIN,
                "--metadata-journal-size must be at least 5MiB: a file holds at least two of the largest groups of commits",
            ),
            (self.node_lost_after > self.heartbeat_interval, "--node-lost-after must be longer than a heartbeat"),
            (
                [self.sweep_interval, self.orphan_sweep_interval, self.heartbeat_interval].iter().all(|i| !i.is_zero()),
                "an interval must not be 0",
            ),
        ];
        rules.into_iter().try_for_each(|(holds, rule)| if holds { Ok(()) } else { Err(StartError::Setting(rule)) })
    }

    /// Block size for blobs of a known or an unknown size.
    pub fn block_bytes_for(&self, declared_bytes: Option<u64>) -> u64 {
        if declared_bytes.is_some() { self.block_bytes } else { self.block_bytes_unknown_size }
    }

    /// When what becomes garbage now may be collected.
    pub fn garbage_due_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_add(millis(self.garbage_grace))
    }

    /// When a blob that is deleted now may be collected.
    pub fn deleted_due_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_add(millis(self.retention.max(self.garbage_grace)))
    }
}

/// Reads a size: bytes, or with a unit of 1,024 (`KiB`, `MiB`, `GiB`) or 1,000 (`KB`, `MB`, `GB`).
///
/// # Errors
/// A sentence for the person at the command line.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        _ => return Err("must be a number of bytes, such as 65536, 64KiB or 8MiB".to_owned()),
    };
    let number: u64 = number.parse().map_err(|error| format!("must begin with a whole number: {error}"))?;
    number.checked_mul(factor).ok_or_else(|| "is too large".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        tuning: Tuning,
    }

    #[test]
    fn the_flags_defaults_are_those_of_the_contract() {
        assert_eq!(Line::parse_from(["x"]).tuning, Tuning::default());
        assert!(Tuning::default().check().is_ok());
    }

    #[test]
    fn durations_and_sizes_are_read_as_people_write_them() {
        let line =
            Line::parse_from(["x", "--upload-lease", "90s", "--block-bytes", "1MiB", "--metadata-cache", "5 MB"]);
        assert_eq!(line.tuning.upload_lease, Duration::from_secs(90));
        assert_eq!((line.tuning.block_bytes, line.tuning.metadata_cache), (1 << 20, 5_000_000));
        for bad in ["", "MiB", "1.5MiB", "-1", "9 parsecs", "99999999999GiB"] {
            assert!(parse_bytes(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn settings_that_break_a_promise_are_refused() {
        let good = Tuning::default();
        let broken = [
            Tuning { block_bytes: 0, ..good.clone() },
            Tuning { block_bytes_unknown_size: limits::CHUNK_BYTES_MAX + 1, ..good.clone() },
            Tuning { garbage_grace: Duration::from_secs(60), ..good.clone() },
            Tuning { upload_lease: Duration::from_secs(8 * 24 * 3600), ..good.clone() },
            Tuning { node_lost_after: Duration::from_secs(1), ..good.clone() },
            Tuning { sweep_interval: Duration::ZERO, ..good.clone() },
            Tuning { metadata_journal_size: HALF_BYTES_MIN - 1, ..good.clone() },
        ];
        for tuning in broken {
            assert!(matches!(tuning.check(), Err(StartError::Setting(_))), "{tuning:?}");
        }
    }
}

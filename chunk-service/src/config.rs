//! What an operator may set.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use proto::limits;
use proto::runtime::journal::{GROWTH_BYTES, HALF_BYTES_MIN, Shape};
use proto::runtime::tls::{NetworkOptions, TlsOptions};
use proto::runtime::transport::TransportLimits;
use proto::tls::exposure::may_send_secrets;
use tonic::transport::Uri;

use crate::error::ChunkError;
use crate::fairness::Rules;
use crate::store::journal::{self, Use};

/// How long a stop waits for calls in flight, unless told otherwise.
pub const DRAIN: Duration = Duration::from_secs(10);
/// The metadata service on one host.
pub const METADATA_ENDPOINT: &str = "http://127.0.0.1:50051";

/// Everything that a chunk service is told from outside.
#[derive(Debug, Clone)]
pub struct Config {
    /// The folder whose subfolder `chunks` this service owns.
    pub storage: PathBuf,
    /// The metadata service's URL.
    pub metadata: String,
    /// Where the join token is; `join.token` in the storage folder when absent.
    pub join_token_file: Option<PathBuf>,
    /// The URL under which clients reach this service; derived from the listener's address when absent.
    pub advertise: Option<String>,
    /// What fails together with this node: a host, a rack. Empty means the node itself.
    pub failure_domain: String,
    /// How long a stop waits for calls in flight.
    pub drain: Duration,
    /// How the listener is encrypted.
    pub tls: TlsOptions,
    /// How it deals with other machines.
    pub network: NetworkOptions,
    /// What strangers are granted.
    pub transport: TransportLimits,
    /// The constants.
    pub tuning: Tuning,
}

impl Config {
    /// The defaults of one host, over this storage folder.
    pub fn new(storage: impl Into<PathBuf>) -> Self {
        Self {
            storage: storage.into(),
            metadata: METADATA_ENDPOINT.to_owned(),
            join_token_file: None,
            advertise: None,
            failure_domain: String::new(),
            drain: DRAIN,
            tls: TlsOptions::default(),
            network: NetworkOptions::default(),
            transport: TransportLimits::default(),
            tuning: Tuning::default(),
        }
    }

    /// Refuses what could never work, before anything is made or asked.
    pub(crate) fn check(&self) -> Result<(), ChunkError> {
        self.tuning.check()?;
        let refuse =
            |problem: &str| ChunkError::Setting { what: "the limits of connections", problem: problem.to_owned() };
        self.transport.check().map_err(refuse)?;
        check_url("--metadata", &self.metadata)?;
        may_send_secrets(&self.metadata, self.network.insecure_plaintext)
            .map_err(|error| ChunkError::Setting { what: "--metadata", problem: error.to_string() })?;
        let Some(advertise) = &self.advertise else { return Ok(()) };
        check_url("--advertise", advertise)?;
        if self.tls.is_on() && advertise.starts_with("http://") {
            let problem = format!("{advertise} must begin with https://: the service speaks TLS");
            return Err(ChunkError::Setting { what: "--advertise", problem });
        }
        Ok(())
    }

    pub(crate) fn chunks_folder(&self) -> PathBuf {
        self.storage.join("chunks")
    }

    pub(crate) fn join_token_path(&self) -> PathBuf {
        self.join_token_file.clone().unwrap_or_else(|| self.storage.join("join.token"))
    }
}

/// Whether something is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// It is.
    On,
    /// It is not.
    Off,
}

/// Threads for the disk should end after this time without work. A burst needs many, and a quiet load would never let one of
/// them rest for longer, since they take turns; a new one costs some 50 us.
pub const DISK_THREADS_KEPT: Duration = Duration::from_millis(100);

/// Constants of the chunk service that operators and tests may set. Durations are written like `15s` or `1h`, sizes
/// like `256KiB` or plain bytes.
#[derive(clap::Args, Debug, Clone, PartialEq, Eq)]
#[group(id = "chunk_tuning")]
#[command(next_help_heading = "Chunk tuning")]
pub struct Tuning {
    /// Frame size of reads: 1 byte to 1 MiB; whole 64 KiB pieces are cheapest. Less while many read, so that all frames
    /// together stay small
    #[arg(long, env = "MINI_TECTONIC_READ_FRAME_SIZE", value_name = "SIZE", default_value = "512KiB", value_parser = size)]
    pub read_frame_size: u64,
    /// How long an open write is kept after its stream broke, for the writer to go on
    #[arg(long, env = "MINI_TECTONIC_WRITE_SESSION_KEPT", value_name = "DURATION", default_value = "60s", value_parser = duration)]
    pub write_session_kept: Duration,
    /// Open writes at once
    #[arg(long, env = "MINI_TECTONIC_WRITE_SESSIONS_MAX", value_name = "COUNT", default_value_t = 1024)]
    pub write_sessions_max: usize,
    /// Open writes of one tenant at once
    #[arg(long, env = "MINI_TECTONIC_WRITE_SESSIONS_PER_TENANT", value_name = "COUNT", default_value_t = 256)]
    pub write_sessions_per_tenant: usize,
    /// Bytes of all writes together that are received and not yet handed to the disk
    #[arg(long, env = "MINI_TECTONIC_WRITE_BUFFERS", value_name = "SIZE", default_value = "64MiB", value_parser = size)]
    pub write_buffers: u64,
    /// ReadChunk streams at once
    #[arg(long, env = "MINI_TECTONIC_READ_STREAMS_MAX", value_name = "COUNT", default_value_t = 512)]
    pub read_streams_max: usize,
    /// ReadChunk streams of one tenant at once
    #[arg(long, env = "MINI_TECTONIC_READ_STREAMS_PER_TENANT", value_name = "COUNT", default_value_t = 256)]
    pub read_streams_per_tenant: usize,
    /// Bytes of all ReadChunk streams together that may be read and not yet sent
    #[arg(long, env = "MINI_TECTONIC_READ_BUFFERS", value_name = "SIZE", default_value = "256MiB", value_parser = size)]
    pub read_buffers: u64,
    /// Free space of the disk below which no chunk is taken; reads and deletes go on
    #[arg(long, env = "MINI_TECTONIC_CHUNK_LOW_WATERMARK", value_name = "SIZE", default_value = "256MiB", value_parser = size)]
    pub chunk_low_watermark: u64,
    /// A stream that makes no progress for this long is cut
    #[arg(long, env = "MINI_TECTONIC_STREAM_STALL", value_name = "DURATION", default_value = "15s", value_parser = duration)]
    pub stream_stall: Duration,
    /// A stream is cut after this long whatever its progress; clients go on where it ended
    #[arg(long, env = "MINI_TECTONIC_STREAM_LIFE", value_name = "DURATION", default_value = "1h", value_parser = duration)]
    pub stream_life: Duration,
    /// How file operations take turns: 'on' by class of traffic and tenant; 'off' in the order of their arrival
    #[arg(long, env = "MINI_TECTONIC_SCHEDULER", value_name = "MODE", default_value = "on")]
    pub scheduler: Mode,
    /// Bytes of a silver or bronze chunk that may wait for the disk at most: a sync of gold's carries them along. 0 for any
    #[arg(long, env = "MINI_TECTONIC_UNSYNCED_MAX", value_name = "SIZE", default_value = "8MiB", value_parser = size)]
    pub unsynced_max: u64,
    /// The same of all silver and bronze chunks together; while there are more, each is synced batch by batch. 0 for any
    #[arg(long, env = "MINI_TECTONIC_UNSYNCED_MAX_OF_ALL", value_name = "SIZE", default_value = "64MiB", value_parser = size)]
    pub unsynced_max_of_all: u64,
    /// Chunks of at least this size, said beforehand, are written past the page cache, where the file system can do that. 0
    /// for none
    #[arg(long, env = "MINI_TECTONIC_DIRECT_FROM", value_name = "SIZE", default_value = "16MiB", value_parser = size)]
    pub direct_from: u64,
    /// Chunks of at most this size are acknowledged from the journal: one sync for many of them. 0 for none, at most 256KiB
    #[arg(long, env = "MINI_TECTONIC_JOURNAL_BELOW", value_name = "SIZE", default_value = "64KiB", value_parser = size)]
    pub journal_below: u64,
    /// Greatest size of each of the journal's two files, at least 5MiB; what a start may have to go over again
    #[arg(long, env = "MINI_TECTONIC_JOURNAL_SIZE", value_name = "SIZE", default_value = "32MiB", value_parser = size)]
    pub journal_size: u64,
    /// How often the files of chunks in the journal are made durable, however few they are
    #[arg(long, env = "MINI_TECTONIC_JOURNAL_SETTLED", value_name = "DURATION", default_value = "5s", value_parser = duration)]
    pub journal_settled: Duration,
    /// File operations at once
    #[arg(long, env = "MINI_TECTONIC_DISK_THREADS", value_name = "COUNT", default_value_t = 32)]
    pub disk_threads: usize,
    /// Without a heartbeat for this long no chunk is taken
    #[arg(long, env = "MINI_TECTONIC_HEARTBEAT_LOST_FOR_WRITES", value_name = "DURATION", default_value = "10min", value_parser = duration)]
    pub heartbeat_lost_for_writes: Duration,
    /// Join the cluster once more at this start, under the same id: after metadata were imported without secrets. Needs a
    /// join token; the chunks stay
    #[arg(long, env = "MINI_TECTONIC_REJOIN")]
    pub rejoin: bool,
    /// Within which every chunk is read and verified once, whether anybody asks for it or not
    #[arg(long, env = "MINI_TECTONIC_SCRUB_PERIOD", value_name = "DURATION", default_value = "14days", value_parser = duration)]
    pub scrub_period: Duration,
    /// Bytes per second at which that is done, unless an operator says otherwise; 0 for twice as fast as the period needs
    #[arg(long, env = "MINI_TECTONIC_SCRUB_PACE", value_name = "SIZE", default_value = "0", value_parser = size)]
    pub scrub_pace: u64,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            read_frame_size: limits::READ_FRAME_BYTES,
            write_session_kept: limits::WRITE_SESSION_KEPT,
            write_sessions_max: 1024,
            write_sessions_per_tenant: 256,
            write_buffers: 64 * limits::MIB,
            read_streams_max: 512,
            read_streams_per_tenant: 256,
            read_buffers: 256 * limits::MIB,
            chunk_low_watermark: 256 * limits::MIB,
            stream_stall: limits::STREAM_STALL,
            stream_life: limits::STREAM_LIFE_MAX,
            scheduler: Mode::On,
            unsynced_max: 8 * limits::MIB,
            unsynced_max_of_all: 64 * limits::MIB,
            direct_from: 16 * limits::MIB,
            journal_below: 64 * limits::KIB,
            journal_size: 32 * limits::MIB,
            journal_settled: Duration::from_secs(5),
            disk_threads: 32,
            heartbeat_lost_for_writes: limits::HEARTBEAT_LOST_FOR_WRITES,
            rejoin: false,
            scrub_period: limits::SCRUB_PERIOD,
            scrub_pace: 0,
        }
    }
}

impl Tuning {
    /// How file operations take turns.
    pub(crate) fn rules(&self) -> Rules {
        Rules::new(self.disk_threads, self.scheduler == Mode::On)
    }

    /// From which size on chunks are written past the page cache, if any are.
    pub(crate) fn written_directly(&self) -> Option<u64> {
        Some(self.direct_from).filter(|from| *from > 0)
    }

    /// What goes through the journal, and how large that is.
    pub(crate) fn journal(&self) -> Use {
        let shape = Shape { half_bytes: self.journal_size, growth_bytes: GROWTH_BYTES };
        Use { below: self.journal_below, shape }
    }

    /// Refuses values with which nothing would work.
    pub(crate) fn check(&self) -> Result<(), ChunkError> {
        let refuse = |what, problem: &str| Err(ChunkError::Setting { what, problem: problem.to_owned() });
        if self.read_frame_size == 0 || self.read_frame_size > limits::FRAME_BYTES_MAX {
            return refuse("--read-frame-size", "must be 1 byte to 1 MiB");
        }
        if self.write_buffers < 4 * limits::MIB || self.write_buffers > 1024 * 1024 * limits::MIB {
            return refuse("--write-buffers", "must be 4 MiB to 1 TiB");
        }
        if self.read_buffers < 8 * limits::MIB || self.read_buffers > 1024 * 1024 * limits::MIB {
            return refuse("--read-buffers", "must be 8 MiB to 1 TiB");
        }
        if self.journal_below > journal::CHUNK_BYTES_MAX {
            return refuse("--journal-below", "must be at most 256 KiB");
        }
        if self.journal_size < HALF_BYTES_MIN || self.journal_size > 1024 * limits::MIB {
            return refuse("--journal-size", "must be 5 MiB to 1 GiB");
        }
        if self.disk_threads == 0 || self.disk_threads > 512 {
            return refuse("--disk-threads", "must be 1 to 512");
        }
        let year = Duration::from_secs(365 * 24 * 60 * 60);
        let durations = [
            ("--write-session-kept", self.write_session_kept),
            ("--stream-stall", self.stream_stall),
            ("--stream-life", self.stream_life),
            ("--heartbeat-lost-for-writes", self.heartbeat_lost_for_writes),
            ("--scrub-period", self.scrub_period),
            ("--journal-settled", self.journal_settled),
        ];
        match durations.into_iter().find(|(_, duration)| duration.is_zero() || *duration > year) {
            Some((what, _)) => refuse(what, "must be more than nothing and at most a year"),
            None => Ok(()),
        }
    }
}

/// `http://host:port` or `https://host:port` and nothing more: there is no path to go to.
fn check_url(what: &'static str, url: &str) -> Result<(), ChunkError> {
    let usable = url.parse::<Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.port().is_some()
            && uri.path() == "/"
            && uri.query().is_none()
    });
    if usable && url.len() <= limits::ENDPOINT_BYTES_MAX {
        return Ok(());
    }
    Err(ChunkError::Setting { what, problem: format!("{url:?} is not like http://127.0.0.1:50051") })
}

/// Reads a size such as `256KiB`, `1.5GiB` or `4096`.
fn size(text: &str) -> Result<u64, String> {
    text.parse::<ByteSize>().map(|size| size.as_u64())
}

/// Reads a duration such as `15s`, `1h 30min` or `500ms`.
fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        tuning: Tuning,
    }

    fn parse(flags: &[&str]) -> Result<Tuning, clap::Error> {
        Flags::try_parse_from(std::iter::once(&"x").chain(flags)).map(|flags| flags.tuning)
    }

    #[test]
    fn flags_and_code_agree_on_the_defaults() {
        assert_eq!(parse(&[]).unwrap(), Tuning::default());
        assert!(Tuning::default().check().is_ok());
    }

    #[test]
    fn durations_and_sizes_are_written_as_people_write_them() {
        let tuning = parse(&["--stream-stall", "500ms", "--chunk-low-watermark", "1MiB"]).unwrap();
        assert_eq!((tuning.stream_stall, tuning.chunk_low_watermark), (Duration::from_millis(500), limits::MIB));
        assert!(parse(&["--stream-stall", "soon"]).is_err());
        assert!(parse(&["--chunk-low-watermark", "-1"]).is_err());
    }

    /// A service told to find the metadata service at `nonsense` once waited for it for ever.
    #[test]
    fn only_http_and_https_with_a_port_are_addresses_of_a_service() {
        for good in ["http://127.0.0.1:50051", "http://[::1]:1", "https://meta.example:80/"] {
            assert!(Config { metadata: good.to_owned(), ..Config::new("x") }.check().is_ok(), "{good}");
        }
        for bad in
            ["", "nonsense", "127.0.0.1:50051", "ftp://a:1", "https://a", "http://a", "https://a:1/b", "http://a:1?b"]
        {
            assert!(Config { metadata: bad.to_owned(), ..Config::new("x") }.check().is_err(), "{bad}");
            assert!(Config { advertise: Some(bad.to_owned()), ..Config::new("x") }.check().is_err(), "{bad}");
        }
    }

    #[test]
    fn settings_with_which_nothing_would_work_are_refused() {
        for tuning in [
            Tuning { read_frame_size: 0, ..Tuning::default() },
            Tuning { read_frame_size: limits::FRAME_BYTES_MAX + 1, ..Tuning::default() },
            Tuning { disk_threads: 0, ..Tuning::default() },
            Tuning { journal_below: 256 * limits::KIB + 1, ..Tuning::default() },
            Tuning { journal_size: 4 * limits::MIB, ..Tuning::default() },
            Tuning { write_buffers: 0, ..Tuning::default() },
            Tuning { read_buffers: 0, ..Tuning::default() },
            Tuning { stream_stall: Duration::ZERO, ..Tuning::default() },
            Tuning { stream_life: Duration::MAX, ..Tuning::default() },
        ] {
            assert!(tuning.check().is_err(), "{tuning:?}");
        }
    }
}

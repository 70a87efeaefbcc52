//! The processes under test: how they are started, told where to die, killed, and found to be ready.
//!
//! They listen where they always did: ports are chosen once, below those that the system gives to outgoing connections,
//! so that no client that dials a dead service can come to sit on its port.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::time::Instant;

use crate::random::Random;

/// No process takes longer to be ready, or to die, however busy the machine is.
const DEADLINE: Duration = Duration::from_secs(60);
const SIGKILL: i32 = 9;

/// Settings under which everything that takes its time happens within a run: leases end, garbage is due.
const METADATA_FLAGS: [&str; 15] = [
    "--block-bytes=64KiB",
    "--block-bytes-unknown-size=32KiB",
    "--sweep-interval=500ms",
    "--capability-life=15s",
    "--garbage-grace=45s",
    "--retention=0s",
    "--heartbeat-interval=200ms",
    "--metadata-low-watermark=16MiB",
    "--request-id-remembered=2m",
    "--drain=1s",
    "--node-lost-after=30s",
    "--upload-life-max=2m",
    "--node-key-life=1s",
    "--metadata-cache=16MiB",
    "--metadata-checkpoint=64KiB",
];
/// Chunks on both sides of the journal's bound and of the page cache's, and files that it settles while somebody looks.
const CHUNK_FLAGS: [&str; 5] = [
    "--write-session-kept=500ms",
    "--chunk-low-watermark=16MiB",
    "--direct-from=96KiB",
    "--journal-below=16KiB",
    "--journal-settled=300ms",
];

/// Which process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// `metadata-service`.
    Metadata,
    /// `chunk-service`.
    Chunk,
    /// `mini-tectonic-rs serve`: both in one.
    Serve,
}

/// Where to die.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failpoint {
    /// A name of `proto::runtime::failpoint::NAMES`.
    pub name: &'static str,
    /// The how-manieth time.
    pub count: u64,
}

/// Where everything of one storage folder is.
#[derive(Debug, Clone)]
pub struct Place {
    binaries: PathBuf,
    /// The storage folder.
    pub storage: PathBuf,
    metadata_port: u16,
    chunk_port: u16,
    upload_lease: Duration,
}

impl Place {
    /// A storage folder that is not there yet.
    pub fn new(binaries: &Path, storage: PathBuf, random: &mut Random) -> Result<Self> {
        let (metadata_port, chunk_port) = (free_port(random)?, free_port(random)?);
        let (binaries, upload_lease) = (binaries.to_path_buf(), Duration::from_secs(10));
        Ok(Self { binaries, storage, metadata_port, chunk_port, upload_lease })
    }

    /// With another lease of uploads than 10 s.
    #[must_use]
    pub fn with_upload_lease(self, upload_lease: Duration) -> Self {
        Self { upload_lease, ..self }
    }

    /// Where clients dial.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.metadata_port)
    }

    /// The operator's token.
    pub fn admin_token(&self) -> Result<String> {
        std::fs::read_to_string(self.storage.join("admin.token")).context("read the admin token")
    }

    /// Starts a process, told where to die, if anywhere.
    pub fn start(&self, role: Role, failpoint: Option<Failpoint>, flags: &[&str]) -> Result<Process> {
        let (program, name) = match role {
            Role::Metadata => ("metadata-service", "metadata"),
            Role::Chunk => ("chunk-service", "chunk"),
            Role::Serve => ("mini-tectonic-rs", "serve"),
        };
        let mut command = Command::new(self.binaries.join(program));
        let (metadata, chunk) = (format!("127.0.0.1:{}", self.metadata_port), format!("127.0.0.1:{}", self.chunk_port));
        match role {
            Role::Metadata => command.args(["--listen", &metadata]).args(METADATA_FLAGS),
            Role::Chunk => command.args(["--listen", &chunk, "--metadata", &self.endpoint()]).args(CHUNK_FLAGS),
            Role::Serve => command
                .args(["serve", "--metadata-listen", &metadata, "--chunk-listen", &chunk])
                .args(METADATA_FLAGS)
                .args(CHUNK_FLAGS),
        };
        if role != Role::Chunk {
            command.arg(format!("--upload-lease={}ms", self.upload_lease.as_millis()));
        }
        command.args(flags).arg("--storage").arg(&self.storage);
        command.env("MINI_TECTONIC_CREDENTIALS", self.storage.with_extension("credentials.toml"));
        arm(&mut command, failpoint);
        let log = self.storage.with_extension(format!("{name}.log"));
        Process::spawn(command, role, log)
    }

    /// Runs a command of `mini-tectonic-rs` as the operator, told where to die, if anywhere. Returns how it ended.
    pub fn operate(&self, arguments: &[&OsStr], failpoint: Option<Failpoint>) -> Result<ExitStatus> {
        let mut command = Command::new(self.binaries.join("mini-tectonic-rs"));
        command.args(arguments).arg("--quiet").env("MINI_TECTONIC_ENDPOINT", self.endpoint());
        command.env("MINI_TECTONIC_TOKEN_FILE", self.storage.join("admin.token"));
        arm(&mut command, failpoint);
        command.status().with_context(|| format!("run {command:?}"))
    }

    /// Removes the folder.
    pub fn remove(&self) -> Result<()> {
        std::fs::remove_dir_all(&self.storage).context("remove a storage folder")
    }
}

fn arm(command: &mut Command, failpoint: Option<Failpoint>) {
    if let Some(Failpoint { name, count }) = failpoint {
        command.env("MINI_TECTONIC_FAILPOINT", format!("{name}:{count}"));
    }
}

/// Whether a process was killed.
pub fn is_killed(status: ExitStatus) -> bool {
    status.signal() == Some(SIGKILL)
}

/// A port that nobody listens on, and that no outgoing connection is given.
pub fn free_port(random: &mut Random) -> Result<u16> {
    for _attempt in 0..1000 {
        let port = u16::try_from(10_000 + random.below(20_000))?;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port was found")
}

/// A running process. Dropped, it is killed.
#[derive(Debug)]
pub struct Process {
    child: Child,
    role: Role,
    log: PathBuf,
    started: Instant,
    /// Until it is ready.
    announces: Option<Receiver<Instant>>,
}

impl Process {
    fn spawn(mut command: Command, role: Role, log: PathBuf) -> Result<Self> {
        let log_file = File::options().create(true).append(true).open(&log).context("open a log file")?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log_file);
        let started = Instant::now();
        let mut child = command.spawn().with_context(|| format!("start {command:?}"))?;
        let stdout = child.stdout.take().context("its standard output is piped")?;
        let (sender, announces) = sync_channel(1);
        std::thread::spawn(move || {
            let mut lines = BufReader::new(stdout);
            let mut line = String::new();
            if lines.read_line(&mut line).is_ok() && line.starts_with("ready ") && line.ends_with('\n') {
                sender.send(Instant::now()).ok();
            }
            // Keeps the pipe open, as a supervisor would.
            lines.read_to_end(&mut Vec::new()).ok();
        });
        Ok(Self { child, role, log, started, announces: Some(announces) })
    }

    /// Which it is.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Waits until it is ready, and returns how long that took; `None` when that is known already.
    ///
    /// # Errors
    /// When it ends before, or takes too long.
    pub fn ready(&mut self) -> Result<Option<Duration>> {
        let Some(announces) = self.announces.take() else { return Ok(None) };
        match announces.recv_timeout(DEADLINE) {
            Ok(at) => Ok(Some(at.duration_since(self.started))),
            Err(RecvTimeoutError::Timeout) => bail!("{:?} is not ready after {DEADLINE:?}", self.role),
            Err(RecvTimeoutError::Disconnected) => {
                let status = self.child.wait()?;
                bail!("{:?} ended with {status} before it was ready:\n{}", self.role, self.last_words())
            }
        }
    }

    /// Whether it has killed itself.
    ///
    /// # Errors
    /// When it ended in any other way.
    pub fn has_died(&mut self) -> Result<bool> {
        match self.child.try_wait()? {
            Some(status) if is_killed(status) => Ok(true),
            Some(status) => bail!("{:?} ended with {status}:\n{}", self.role, self.last_words()),
            None => Ok(false),
        }
    }

    /// The end of its log.
    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(10).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// Kills it with SIGKILL and waits for its end.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop).context("wait for a process that was killed")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails only for one that has ended and been waited for.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

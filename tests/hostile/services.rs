//! The processes: two services, and the hostile one. All end with the one that started them.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use mini_tectonic_client::{Client, ClientConfig, pb};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::attack::{Attack, SMALL_UPLOAD_BYTES, SMALL_UPLOADS};

/// No process takes longer to be ready, and no attack to end, however busy the machine is.
const DEADLINE: Duration = Duration::from_secs(300);
/// The hostile process's lower priority.
const NICENESS: &str = "10";
/// What is deleted goes soon, so that no disk is filled; an open write is not kept for as long as a run.
const METADATA_FLAGS: [&str; 5] =
    ["--listen=127.0.0.1:0", "--sweep-interval=500ms", "--capability-life=5m", "--garbage-grace=6m", "--retention=0s"];
/// As `deploy/systemd/mini-tectonic.env` has them; each counts where its allocator does.
const ALLOCATORS: [(&str, &str); 2] =
    [("MALLOC_ARENA_MAX", "2"), ("_RJEM_MALLOC_CONF", "narenas:2,dirty_decay_ms:1000,muzzy_decay_ms:0")];
const CHUNK_FLAGS: [&str; 2] = ["--listen=127.0.0.1:0", "--write-session-kept=5s"];

/// The limits that take time, and the one that takes a crowd.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    /// Connections from one address, if not as many as are shipped.
    per_address: Option<u32>,
    /// For a connection's first request.
    pub(crate) first_request: Duration,
    /// For a request of one message that makes no progress.
    pub(crate) request_stall: Duration,
    /// For a request of one message to be whole.
    pub(crate) request_within: Duration,
    /// For a stream that makes no progress.
    pub(crate) stream_stall: Duration,
    /// For an answer that the client does not take.
    pub(crate) answer_taken: Duration,
    /// Between two bytes of whoever is slow.
    pub(crate) drip: Duration,
}

impl Times {
    /// Those that are shipped, for the long form; for the short one such that each is reached soon.
    pub(crate) fn new(long: bool) -> Self {
        let seconds = Duration::from_secs;
        if long {
            let drip = seconds(1);
            let (request_within, stall) = (seconds(60), seconds(15));
            let (first_request, per_address, answer_taken) = (seconds(10), None, seconds(30));
            let (request_stall, stream_stall) = (stall, stall);
            Self { per_address, first_request, request_stall, request_within, stream_stall, answer_taken, drip }
        } else {
            let (short, drip) = (seconds(2), Duration::from_millis(200));
            let (first_request, request_stall, request_within, stream_stall) = (short, short, short, short);
            let (per_address, answer_taken) = (Some(300), seconds(5));
            Self { per_address, first_request, request_stall, request_within, stream_stall, answer_taken, drip }
        }
    }

    fn flags(self, stream: bool) -> Vec<String> {
        let flag = |name: &str, time: Duration| format!("--{name}={}ms", time.as_millis());
        let mut flags = vec![
            flag("first-request-within", self.first_request),
            flag("request-stall", self.request_stall),
            flag("request-within", self.request_within),
            flag("answer-taken-within", self.answer_taken),
        ];
        flags.extend(self.per_address.map(|count| format!("--connections-per-address={count}")));
        flags.extend(stream.then(|| flag("stream-stall", self.stream_stall)));
        flags
    }
}

/// How services are started.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting<'a> {
    /// Folder of the binaries.
    pub(crate) binaries: &'a Path,
    /// Where everything goes.
    pub(crate) folder: &'a Path,
    /// With the limits that are shipped.
    pub(crate) long: bool,
    /// Descriptors that each service may have, if not as many as this process.
    pub(crate) descriptors: Option<u32>,
}

/// A service.
#[derive(Debug)]
pub(crate) struct Service {
    child: Child,
    log: PathBuf,
    /// Its process.
    pub(crate) pid: u32,
    /// Where it listens.
    pub(crate) address: SocketAddr,
}

impl Service {
    async fn start(setting: Setting<'_>, name: &str, flags: Vec<OsString>) -> Result<Self> {
        let mut command = with_descriptors(setting.descriptors);
        command.arg(setting.binaries.join(format!("{name}-service"))).args(flags).envs(ALLOCATORS);
        let log = setting.folder.join(format!("{name}.log"));
        let log_file = std::fs::File::options().create(true).append(true).open(&log).context("open a log file")?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log_file).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("start {command:?}"))?;
        let (stdout, pid) = (child.stdout.take().context("its standard output is piped")?, child.id().unwrap_or(0));
        let mut lines = BufReader::new(stdout).lines();
        let line = tokio::time::timeout(DEADLINE, lines.next_line()).await.context("it is not ready in time")??;
        match line.as_deref().and_then(|line| line.split_once("=http://")) {
            Some((_ready, address)) => Ok(Self { child, log, pid, address: address.parse()? }),
            None => bail!("the {name} service ended:\n{}", std::fs::read_to_string(&log).unwrap_or_default()),
        }
    }

    /// Refuses one that has ended, or has panicked.
    fn check(&mut self) -> Result<()> {
        let log = std::fs::read_to_string(&self.log).context("read a log")?;
        let ended = self.child.try_wait()?;
        ensure!(ended.is_none(), "a service ended ({ended:?}):\n{}", last_lines(&log));
        let panic = log.lines().find(|line| line.contains("panicked"));
        ensure!(panic.is_none(), "a service panicked: {panic:?}\n{}", last_lines(&log));
        Ok(())
    }
}

fn last_lines(log: &str) -> String {
    let lines: Vec<&str> = log.lines().rev().take(20).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}

/// A command with a limit of descriptors that its process cannot raise.
fn with_descriptors(descriptors: Option<u32>) -> Command {
    let mut command = Command::new("sh");
    let limit = descriptors.map_or_else(String::new, |count| format!("ulimit -n {count} && "));
    command.args(["-c", &format!("{limit}exec \"$@\""), "sh"]);
    command
}

/// A metadata service and a chunk service with three tenants: one in good order, one hostile, one with a small quota.
#[derive(Debug)]
pub(crate) struct Services {
    /// The metadata service.
    pub(crate) metadata: Service,
    /// The chunk service.
    pub(crate) chunk: Service,
    folder: PathBuf,
    few_descriptors: bool,
    operator: Client,
}

impl Services {
    /// Starts them over a new storage folder.
    pub(crate) async fn start(setting: Setting<'_>) -> Result<Self> {
        let (storage, times) = (setting.folder.join("storage"), Times::new(setting.long));
        let mut flags: Vec<OsString> = METADATA_FLAGS.map(OsString::from).into();
        flags.extend(times.flags(false).into_iter().map(OsString::from));
        flags.extend([OsString::from("--storage"), storage.clone().into_os_string()]);
        let metadata = Service::start(setting, "metadata", flags).await?;
        let endpoint = format!("http://{}", metadata.address);
        let mut flags: Vec<OsString> = CHUNK_FLAGS.map(OsString::from).into();
        flags.extend(times.flags(true).into_iter().map(OsString::from));
        flags.extend([OsString::from("--storage"), storage.clone().into_os_string()]);
        flags.extend([OsString::from("--metadata"), OsString::from(&endpoint)]);
        let chunk = Service::start(setting, "chunk", flags).await?;
        let token = std::fs::read_to_string(storage.join("admin.token")).context("read the admin token")?;
        let operator = Client::new(ClientConfig::new(&endpoint).with_token(token))?;
        let (folder, few_descriptors) = (setting.folder.to_path_buf(), setting.descriptors.is_some());
        let services = Self { metadata, chunk, folder, few_descriptors, operator };
        let small = pb::Quota { max_bytes: Some(SMALL_UPLOADS as u64 * SMALL_UPLOAD_BYTES), ..Default::default() };
        for (tenant, quota) in [("honest", pb::Quota::default()), ("mallory", pb::Quota::default()), ("small", small)] {
            services.register(tenant, quota).await?;
        }
        Ok(services)
    }

    async fn register(&self, tenant: &str, quota: pb::Quota) -> Result<()> {
        let registered = self.operator.register_tenant(&tenant.parse()?, quota).await?;
        Ok(std::fs::File::create_new(self.token_file(tenant))
            .and_then(|mut file| std::io::Write::write_all(&mut file, registered.token.as_bytes()))?)
    }

    fn token_file(&self, tenant: &str) -> PathBuf {
        self.folder.join(format!("{tenant}.token"))
    }

    /// A client in good order.
    pub(crate) fn client(&self) -> Result<Client> {
        let token = std::fs::read_to_string(self.token_file("honest")).context("read a token")?;
        Ok(Client::new(ClientConfig::new(format!("http://{}", self.metadata.address)).with_token(token))?)
    }

    /// The folder of the chunks' files.
    pub(crate) fn chunks(&self) -> PathBuf {
        self.folder.join("storage/chunks")
    }

    /// Refuses a service that has ended or panicked.
    pub(crate) fn check(&mut self) -> Result<()> {
        self.metadata.check()?;
        self.chunk.check()
    }

    /// Starts the hostile process.
    pub(crate) async fn attacker(&self, lasts: Duration, long: bool) -> Result<Attacker> {
        let mut command = Command::new("nice");
        command.args(["-n", NICENESS]).arg(std::env::current_exe().context("find this program")?).arg("attack");
        command.args(["--metadata", &self.metadata.address.to_string(), "--chunk", &self.chunk.address.to_string()]);
        command.arg("--storage").arg(self.folder.join("storage"));
        command.arg("--token-file").arg(self.token_file("mallory"));
        command.arg("--small-token-file").arg(self.token_file("small"));
        command.args(["--lasts-ms", &lasts.as_millis().to_string()]).args(long.then_some("--long"));
        command.args(self.few_descriptors.then_some("--few-descriptors"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().context("start the hostile process")?;
        let stdin = child.stdin.take().context("its standard input is piped")?;
        let lines = BufReader::new(child.stdout.take().context("its standard output is piped")?).lines();
        let mut attacker = Attacker { _child: child, stdin, lines };
        attacker.answer().await?.map_err(anyhow::Error::msg)?;
        Ok(attacker)
    }
}

/// The hostile process.
#[derive(Debug)]
pub(crate) struct Attacker {
    _child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Attacker {
    /// Has it run an attack. Returns what it saw, or what was wrong about that.
    pub(crate) async fn run(&mut self, attack: Attack) -> Result<Result<String, String>> {
        self.stdin.write_all(format!("{}\n", attack.name()).as_bytes()).await?;
        self.answer().await
    }

    async fn answer(&mut self) -> Result<Result<String, String>> {
        let line =
            tokio::time::timeout(DEADLINE, self.lines.next_line()).await.context("the attack does not end")??;
        let line = line.context("the hostile process ended")?;
        Ok(match line.split_once(' ') {
            Some(("+", seen)) => Ok(seen.to_owned()),
            _ => Err(line),
        })
    }
}

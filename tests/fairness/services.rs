//! The processes: two services, and load generators beside them. All end with the one that started them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use mini_tectonic_client::{Client, ClientConfig, pb};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::figures::Outcome;
use crate::load::Kind;

/// No process takes longer to be ready, however busy the machine is.
const DEADLINE: Duration = Duration::from_secs(120);
/// What bronze's load generators leave the processor to everybody else by.
const NICENESS: &str = "19";
/// What is deleted goes soon, so that no disk is filled; and what the nodes say is fresh.
const METADATA_FLAGS: [&str; 6] = [
    "--listen=127.0.0.1:0",
    "--heartbeat-interval=100ms",
    "--sweep-interval=500ms",
    "--capability-life=15s",
    "--garbage-grace=45s",
    "--retention=0s",
];

/// A metadata service and a chunk service with a gold and a bronze tenant.
#[derive(Debug)]
pub(crate) struct Services {
    processes: Vec<Child>,
    endpoint: String,
    operator: Client,
}

impl Services {
    /// Starts them over a new storage folder.
    pub(crate) async fn start(binaries: &Path, folder: &Path, scheduler: &str) -> Result<Self> {
        let storage = folder.join("storage");
        let mut metadata = Command::new(binaries.join("metadata-service"));
        metadata.args(METADATA_FLAGS).arg("--storage").arg(&storage);
        let (metadata, endpoint) = ready(metadata, folder, "metadata").await?;
        let mut chunk = Command::new(binaries.join("chunk-service"));
        chunk.args(["--listen=127.0.0.1:0", "--metadata", &endpoint, "--scheduler", scheduler]);
        chunk.arg("--storage").arg(&storage);
        let (chunk, _endpoint) = ready(chunk, folder, "chunk").await?;
        let token = std::fs::read_to_string(storage.join("admin.token")).context("read the admin token")?;
        let operator = Client::new(ClientConfig::new(&endpoint).with_token(token))?;
        let services = Self { processes: vec![chunk, metadata], endpoint, operator };
        for (tenant, class) in [("gold", pb::TrafficClass::Gold), ("bronze", pb::TrafficClass::Bronze)] {
            services.register(folder, tenant, class).await?;
        }
        Ok(services)
    }

    async fn register(&self, folder: &Path, tenant: &str, class: pb::TrafficClass) -> Result<()> {
        let id = tenant.parse()?;
        let registered = self.operator.register_tenant(&id, pb::Quota::default()).await?;
        self.operator.update_tenant(&id, None, class).await?;
        Ok(std::fs::File::create_new(token_file(folder, tenant))
            .and_then(|mut file| std::io::Write::write_all(&mut file, registered.token.as_bytes()))?)
    }

    /// Starts a load generator.
    pub(crate) fn load(&self, folder: &Path, kind: Kind, warm_up: Duration, lasts: Duration) -> Result<LoadProcess> {
        let program = std::env::current_exe().context("find this program")?;
        let mut command = Command::new("nice");
        command.args(["-n", if kind.tenant() == "bronze" { NICENESS } else { "0" }]).arg(program);
        command.args(["load", "--kind", kind.word(), "--endpoint", &self.endpoint]);
        let files: [(&str, OsString); 2] =
            [("--token-file", token_file(folder, kind.tenant()).into()), ("--scratch", folder.into())];
        files.into_iter().for_each(|(flag, value)| {
            command.arg(flag).arg(value);
        });
        command.args(["--warm-up-ms", &warm_up.as_millis().to_string()]);
        command.args(["--lasts-ms", &lasts.as_millis().to_string()]);
        let mut child = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().context("start a load")?;
        let stdout = child.stdout.take().context("its standard output is piped")?;
        Ok(LoadProcess { kind, child, lines: BufReader::new(stdout).lines() })
    }

    /// What the chunk service has done for each class, as of a heartbeat that was not there before.
    pub(crate) async fn class_loads(&self) -> Result<Vec<pb::ClassLoad>> {
        let before = self.node().await?.last_heartbeat_time;
        let fresh = async {
            loop {
                let node = self.node().await?;
                if node.last_heartbeat_time != before {
                    return Ok(node.class_loads);
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(DEADLINE, fresh).await.context("the chunk service is silent")?
    }

    async fn node(&self) -> Result<pb::Node> {
        self.operator.cluster_status().await?.nodes.into_iter().next().context("there is a chunk service")
    }

    /// Ends them.
    pub(crate) async fn stop(mut self) {
        for process in &mut self.processes {
            // One that has ended already is what is wanted.
            process.kill().await.ok();
        }
    }
}

fn token_file(folder: &Path, tenant: &str) -> PathBuf {
    folder.join(format!("{tenant}.token"))
}

/// Starts a service and waits until it says where it is.
async fn ready(mut command: Command, folder: &Path, name: &str) -> Result<(Child, String)> {
    let log = folder.join(format!("{name}.log"));
    let log_file = std::fs::File::options().create(true).append(true).open(&log).context("open a log file")?;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log_file).kill_on_drop(true);
    let mut child = command.spawn().with_context(|| format!("start {command:?}"))?;
    let stdout = child.stdout.take().context("its standard output is piped")?;
    let mut lines = BufReader::new(stdout).lines();
    let line = tokio::time::timeout(DEADLINE, lines.next_line()).await.context("it is not ready in time")??;
    match line.as_deref().and_then(|line| line.split_once('=')) {
        Some((_ready, endpoint)) => Ok((child, endpoint.to_owned())),
        None => bail!("the {name} service ended:\n{}", std::fs::read_to_string(&log).unwrap_or_default()),
    }
}

/// A load generator that runs.
#[derive(Debug)]
pub(crate) struct LoadProcess {
    kind: Kind,
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl LoadProcess {
    async fn line(&mut self) -> Result<String> {
        self.lines.next_line().await?.with_context(|| format!("{} ended early", self.kind.word()))
    }

    /// Waits until everything it needs is there.
    pub(crate) async fn begun(&mut self) -> Result<()> {
        self.line().await.map(drop)
    }

    /// What came of it.
    pub(crate) async fn outcome(mut self) -> Result<Outcome> {
        let line = self.line().await?;
        let status = self.child.wait().await?;
        if !status.success() {
            bail!("{} ended with {status}", self.kind.word());
        }
        Outcome::parse(self.kind, &line).with_context(|| format!("{line:?} are no figures"))
    }
}

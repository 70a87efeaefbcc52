//! Services that are started for the benchmark, in a fresh folder, with a tenant of their own.
//!
//! As two processes where their programs lie beside this one, so that what each takes from the machine is told apart;
//! else inside this process. Nothing outside the folder is touched, and the folder goes with the stage.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use mini_tectonic_client::{Client, ClientConfig};
use proto::ids::TenantId;
use proto::pb;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use super::process::Process;
use crate::cli::context::{Context, TOKEN_VARIABLE, read_token};
use crate::cli::credentials::{Credential, Credentials, Holder};
use crate::cli::failure::{Exit, Failure};
use crate::cli::services::{self, Options, Services};

/// No service takes longer to be ready, however busy the machine is.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Nor to stop, once it was asked to.
const STOPPED_WITHIN: Duration = Duration::from_secs(30);

/// The services and their folder.
#[derive(Debug)]
pub(super) struct Stage {
    // Before the folder, so that they are dropped first.
    running: Running,
    endpoint: String,
    tenant: TenantId,
    folder: TempDir,
}

#[derive(Debug)]
enum Running {
    Apart(Box<Apart>),
    Inside(Box<Services>),
}

/// The services as two processes.
#[derive(Debug)]
struct Apart {
    chunk: Service,
    metadata: Service,
}

/// A service as a process of its own. Ends when this is dropped.
#[derive(Debug)]
struct Service {
    name: &'static str,
    child: Child,
    endpoint: String,
}

impl Stage {
    /// Starts both services in a new folder within this one, by default the one for temporary files.
    pub(super) async fn start(context: &Context, within: Option<&Path>) -> Result<Self, Failure> {
        let mut builder = tempfile::Builder::new();
        let builder = builder.prefix("mini-tectonic-bench-");
        let folder = match within {
            Some(within) => builder.tempdir_in(within),
            None => builder.tempdir(),
        };
        let folder = folder.map_err(|error| Failure::local("cannot make a folder for the services", &error))?;
        let running = match programs() {
            Some([metadata, chunk]) => Running::start_apart(&metadata, &chunk, folder.path()).await?,
            None => {
                context.note("metadata-service and chunk-service are not beside this program: they run within it");
                let options = Options::on_free_ports(storage_in(folder.path()));
                Running::Inside(Box::new(services::start(options, CancellationToken::new()).await?))
            }
        };
        let endpoint = running.endpoint();
        let tenant = "bench".parse().map_err(|error| Failure::local("the tenant's id", &error))?;
        let stage = Self { running, endpoint, tenant, folder };
        stage.register().await?;
        Ok(stage)
    }

    async fn register(&self) -> Result<(), Failure> {
        let path = storage_in(self.folder.path()).join("admin.token");
        let token = read_token(&path)?;
        let failed = |error: mini_tectonic_client::Error| Failure::local("cannot register a tenant", &error);
        let admin = Client::new(ClientConfig::new(&self.endpoint).with_token(token.expose())).map_err(failed)?;
        // As many uploads may be open as there can be operations at once.
        let quota = pb::Quota { max_open_uploads: Some(u64::from(u16::MAX)), ..pb::Quota::default() };
        let registered = admin.register_tenant(&self.tenant, quota).await.map_err(failed)?;
        let credential = Credential { token: registered.token.as_str().into(), cluster_id: String::new() };
        self.credentials().save(&self.endpoint, Holder::Tenant(&self.tenant), credential)
    }

    fn credentials(&self) -> Credentials {
        Credentials::at(self.folder.path().join("credentials.toml"))
    }

    /// What the benchmark sees that is run in here.
    pub(super) fn context(&self, outside: &Context) -> Result<Context, Failure> {
        outside.elsewhere(&self.endpoint, self.credentials(), outside.out.clone())
    }

    /// Whose objects these are.
    pub(super) fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    /// The services that are processes of their own.
    pub(super) fn processes(&self) -> Vec<Process> {
        match &self.running {
            Running::Apart(apart) => [&apart.metadata, &apart.chunk].into_iter().filter_map(Service::process).collect(),
            Running::Inside(_) => Vec::new(),
        }
    }

    /// Stops the services, and removes the folder.
    pub(super) async fn stop(self) -> Result<(), Failure> {
        match self.running {
            Running::Apart(apart) => {
                let Apart { chunk, metadata } = *apart;
                chunk.stop().await?;
                metadata.stop().await
            }
            Running::Inside(services) => {
                services.shutdown().await;
                Ok(())
            }
        }
    }
}

impl Running {
    async fn start_apart(metadata: &Path, chunk: &Path, folder: &Path) -> Result<Self, Failure> {
        let storage = storage_in(folder);
        let command = |program: &Path| {
            let mut command = Command::new(program);
            command.arg("--storage").arg(&storage).args(["--listen", "127.0.0.1:0"]);
            // They have no use for it.
            command.env_remove(TOKEN_VARIABLE);
            command
        };
        let metadata = Service::start("metadata-service", command(metadata), folder).await?;
        let mut chunk = command(chunk);
        chunk.args(["--metadata", &metadata.endpoint]);
        let chunk = Service::start("chunk-service", chunk, folder).await?;
        Ok(Self::Apart(Box::new(Apart { chunk, metadata })))
    }

    fn endpoint(&self) -> String {
        match self {
            Self::Apart(apart) => apart.metadata.endpoint.clone(),
            Self::Inside(services) => services.endpoint(),
        }
    }
}

impl Service {
    /// Starts it and waits for its ready line. Its log goes to a file in the folder.
    async fn start(name: &'static str, mut command: Command, folder: &Path) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| Failure::local(format_args!("cannot start {name}"), &error);
        let log = folder.join(format!("{name}.log"));
        let log_file = std::fs::File::options().write(true).create_new(true).open(&log).map_err(failed)?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log_file).kill_on_drop(true);
        let mut child = command.spawn().map_err(failed)?;
        let stdout = child.stdout.take().expect("its standard output is piped");
        let mut lines = BufReader::new(stdout).lines();
        let line = tokio::time::timeout(READY_WITHIN, lines.next_line()).await.ok().and_then(Result::ok).flatten();
        let endpoint = line.as_deref().and_then(|line| line.strip_prefix("ready ")?.split_once('='));
        match endpoint {
            Some((_service, endpoint)) => Ok(Self { name, child, endpoint: endpoint.trim().to_owned() }),
            None => {
                let said = std::fs::read_to_string(&log).unwrap_or_default();
                Err(Failure::new(Exit::Other, format!("{name} did not start:\n{}", said.trim_end())))
            }
        }
    }

    fn process(&self) -> Option<Process> {
        self.child.id().map(|pid| Process { name: self.name.to_owned(), pid })
    }

    /// Asks it to stop and waits until it has.
    async fn stop(mut self) -> Result<(), Failure> {
        let pid = self.child.id().and_then(|pid| rustix::process::Pid::from_raw(pid.try_into().ok()?));
        let asked = pid.map(|pid| rustix::process::kill_process(pid, rustix::process::Signal::TERM));
        let ended = tokio::time::timeout(STOPPED_WITHIN, self.child.wait()).await;
        match (asked, ended) {
            (Some(Ok(())), Ok(Ok(status))) if status.success() => Ok(()),
            (_, ended) => Err(Failure::new(Exit::Other, format!("{} did not stop as it should: {ended:?}", self.name))),
        }
    }
}

fn storage_in(folder: &Path) -> PathBuf {
    folder.join("storage")
}

/// The services' programs, where they lie beside this one.
fn programs() -> Option<[PathBuf; 2]> {
    let folder = std::env::current_exe().ok()?.parent()?.to_path_buf();
    let programs = ["metadata-service", "chunk-service"].map(|name| folder.join(name));
    programs.iter().all(|program| program.is_file()).then_some(programs)
}

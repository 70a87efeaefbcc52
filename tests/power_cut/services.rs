//! The real program, over the mounted disk.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::machine::Machine;

/// No start takes longer, however busy the machine is.
const DEADLINE: Duration = Duration::from_secs(60);

/// Both services in one process.
#[derive(Debug)]
pub(crate) struct Services {
    child: Child,
    log: PathBuf,
    line: Receiver<String>,
}

/// What came first.
#[derive(Debug)]
pub(crate) enum Started {
    /// They are ready at this endpoint.
    Ready { endpoint: String },
    /// The power went.
    Cut,
}

impl Services {
    /// Starts them over a folder. Their own files, if any, go into `home`, which is on an ordinary disk.
    pub(crate) fn spawn(storage: &Path, home: &Path) -> Result<Self> {
        let log = home.join("serve.log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_mini-tectonic-rs"));
        for (name, _value) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("MINI_")) {
            command.env_remove(name);
        }
        command.env("HOME", home).env("TMPDIR", home).env_remove("XDG_CONFIG_HOME").env_remove("RUST_LOG");
        command.env("MINI_TECTONIC_CREDENTIALS", home.join("credentials.toml")).current_dir(home);
        command.args(["serve", "--metadata-listen", "127.0.0.1:0", "--chunk-listen", "127.0.0.1:0"]);
        command.args(["--direct-from", "96KiB", "--storage"]);
        let log_file = File::options().create(true).write(true).truncate(true).open(&log)?;
        command.arg(storage).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log_file);
        let mut child = command.spawn().context("the program does not start")?;
        let stdout = child.stdout.take().context("it is piped")?;
        let (sender, line) = sync_channel(1);
        std::thread::spawn(move || {
            let mut reader = BufReader::new(stdout);
            let mut line = String::new();
            if reader.read_line(&mut line).is_ok() && !line.is_empty() {
                sender.send(line).ok();
            }
            // Keeps the pipe open, as a supervisor would.
            reader.read_to_end(&mut Vec::new()).ok();
        });
        Ok(Self { child, log, line })
    }

    /// Waits until they are ready or the power goes.
    pub(crate) fn started(&self, machine: &Machine) -> Result<Started> {
        let began = Instant::now();
        loop {
            match self.line.try_recv() {
                Ok(line) => {
                    let endpoint = line.split(' ').find_map(|word| word.strip_prefix("metadata="));
                    let endpoint = endpoint.with_context(|| format!("no endpoint in {line:?}"))?.to_owned();
                    return Ok(Started::Ready { endpoint });
                }
                Err(_) if machine.failing() => return Ok(Started::Cut),
                Err(TryRecvError::Disconnected) => bail!("it does not start:\n{}", self.log_text()),
                Err(TryRecvError::Empty) if began.elapsed() > DEADLINE => {
                    bail!("it is not ready after {DEADLINE:?}:\n{}", self.log_text())
                }
                Err(TryRecvError::Empty) => std::thread::park_timeout(Duration::from_millis(1)),
            }
        }
    }

    /// What they have logged.
    pub(crate) fn log_text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Ends them together with the power of their disk: no step of theirs comes between the two.
    pub(crate) fn kill(mut self, machine: &Machine) -> Result<()> {
        machine.fail_now();
        self.child.kill()?;
        machine.off();
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        // Fails only for one that has ended and been waited for.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

//! The stage of one session: a user's home folder, a storage folder, the services over it, and everything that comes out.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use kill_loop::random::Random;
use kill_loop::services::free_port;
use rustix::process::{Pid, Signal, kill_process};
use tokio::runtime::Runtime;
use tokio::time::Instant;

use crate::places::{Kind, PlaceNumber, Places};
use crate::tracks::{Track, Watcher};
use crate::vault::Vault;

/// No process takes longer to be ready, or a command to end, however busy the machine is.
pub(crate) const DEADLINE: Duration = Duration::from_secs(120);

/// How the services are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// `serve`, without TLS; its log is text.
    Together,
    /// Two processes that show each other certificates; their logs are JSON.
    Apart,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) shape: Shape,
    pub(crate) home: PathBuf,
    pub(crate) endpoint: String,
    pub(crate) vault: Vault,
    pub(crate) places: Places,
    pub(crate) random: Random,
    pub(crate) runtime: Runtime,
    binaries: PathBuf,
    ports: [u16; 2],
    services: Vec<Service>,
    /// Flags of chunk services that have joined: they come and go with the others, since blobs may lie on them.
    guests: Vec<Vec<String>>,
    watcher: Watcher,
    /// Tokens in the variables of commands, by process.
    given: BTreeMap<u32, Vec<String>>,
    /// What tenants store.
    pub(crate) contents: Vec<String>,
    /// Of names that are made.
    count: u64,
}

/// A service that runs. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        // Fails only for one that has ended and been waited for.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// How a command ended, and where what it said is kept.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: PlaceNumber,
    pub(crate) err: PlaceNumber,
}

/// A command to be.
#[derive(Debug, Default)]
pub(crate) struct Line<'a> {
    pub(crate) arguments: Vec<String>,
    pub(crate) variables: Vec<(&'a str, &'a str)>,
}

/// A command of words without spaces.
pub(crate) fn line(words: &str) -> Line<'static> {
    Line { arguments: words.split_whitespace().map(str::to_owned).collect(), variables: Vec::new() }
}

impl<'a> Line<'a> {
    /// With the token in a variable.
    pub(crate) fn with(mut self, name: &'a str, value: &'a str) -> Self {
        self.variables.push((name, value));
        self
    }

    /// As the operator, with the token in the storage folder.
    pub(crate) fn admin(mut self) -> Self {
        self.arguments.extend(["--token-file".to_owned(), "storage/admin.token".to_owned()]);
        self
    }
}

impl Site {
    /// Starts the services over a new folder.
    pub(crate) fn start(shape: Shape, binaries: &Path, home: &Path, seed: u64) -> Result<Self> {
        std::fs::create_dir(home)?;
        let mut random = Random::new(seed);
        let (metadata_port, chunk_port) = (free_port(&mut random)?, free_port(&mut random)?);
        let scheme = if shape == Shape::Together { "http" } else { "https" };
        let mut site = Self {
            shape,
            home: home.to_path_buf(),
            endpoint: format!("{scheme}://127.0.0.1:{}", metadata_port),
            vault: Vault::default(),
            places: Places::default(),
            random,
            runtime: Runtime::new()?,
            binaries: binaries.to_path_buf(),
            ports: [metadata_port, chunk_port],
            services: Vec::new(),
            guests: Vec::new(),
            watcher: Watcher::start(binaries),
            given: BTreeMap::new(),
            contents: Vec::new(),
            count: 0,
        };
        site.expect(0, &line("certs"))?;
        site.launch()?;
        site.learn()?;
        Ok(site)
    }

    /// Starts what is to run, over what is in the folder.
    pub(crate) fn launch(&mut self) -> Result<()> {
        let [metadata, chunk] = self.ports.map(|port| format!("127.0.0.1:{port}"));
        let started = match self.shape {
            Shape::Together => {
                let flags = ["serve", "--metadata-listen", &metadata, "--chunk-listen", &chunk, "--storage", "storage"];
                vec![self.service("mini-tectonic-rs", &flags, "serve.log")?]
            }
            Shape::Apart => {
                let common = ["--storage", "storage", "--tls-dir", "certs", "--log-format", "json", "--listen"];
                let flags = [&common[..], &[&metadata]].concat();
                let metadata = self.service("metadata-service", &flags, "metadata.log")?;
                let endpoint = self.endpoint.clone();
                let flags = [&common[..], &[&chunk, "--metadata", &endpoint]].concat();
                vec![metadata, self.service("chunk-service", &flags, "chunk.log")?]
            }
        };
        self.services = started;
        for flags in self.guests.clone() {
            let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
            let guest = self.service("chunk-service", &flags, "joining.log")?;
            self.services.push(guest);
        }
        Ok(())
    }

    /// Takes a chunk service that has joined.
    pub(crate) fn take(&mut self, guest: Service, flags: &[&str]) {
        self.services.push(guest);
        self.guests.push(flags.iter().map(|flag| (*flag).to_owned()).collect());
    }

    /// Starts a service, and waits until it is ready.
    pub(crate) fn service(&mut self, program: &str, flags: &[&str], log: &str) -> Result<Service> {
        match self.try_service(program, flags, log)? {
            Some(service) => Ok(service),
            None => bail!("{program} {flags:?} did not start:\n{}", self.end_of(log)),
        }
    }

    /// Starts a service, and waits until it is ready or has ended: `None`.
    pub(crate) fn try_service(&mut self, program: &str, flags: &[&str], log: &str) -> Result<Option<Service>> {
        let log = File::options().create(true).append(true).mode(0o600).open(self.path(log))?;
        let mut command = self.command(program);
        command.args(flags).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut service = Service(command.spawn().with_context(|| format!("start {program}"))?);
        self.given.insert(service.0.id(), Vec::new());
        self.watcher.look_at(service.0.id());
        let stdout = service.0.stdout.take().context("its standard output is piped")?;
        let (sender, ready) = sync_channel(1);
        std::thread::spawn(move || {
            let mut lines = BufReader::new(stdout);
            let mut line = String::new();
            let is_ready = lines.read_line(&mut line).is_ok() && line.starts_with("ready ");
            sender.send(is_ready).ok();
            // Keeps the pipe open, as a supervisor would.
            lines.read_to_end(&mut Vec::new()).ok();
        });
        let is_ready = ready.recv_timeout(DEADLINE).context("it is neither ready nor has it ended")?;
        Ok(is_ready.then_some(service))
    }

    fn end_of(&self, log: &str) -> String {
        last_lines(&std::fs::read_to_string(self.path(log)).unwrap_or_default())
    }

    /// Kills the services, and waits for their end.
    pub(crate) fn kill(&mut self) {
        self.services.clear();
    }

    /// Sends a signal to each service.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        self.services.iter().try_for_each(|service| Ok(kill_process(Pid::from_child(&service.0), signal)?))
    }

    /// Whether all run that were started.
    pub(crate) fn check(&mut self) -> Result<()> {
        for service in &mut self.services {
            let ended = service.0.try_wait()?;
            ensure!(ended.is_none(), "a service ended: {ended:?}");
        }
        Ok(())
    }

    /// A program in the user's surroundings and in no others, and as talkative as can be.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.binaries.join(program));
        for (name, _value) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("MINI_TECTONIC_") {
                command.env_remove(name);
            }
        }
        command
            .env("RUST_LOG", "trace")
            .env("HOME", &self.home)
            .env("TMPDIR", &self.home)
            .env_remove("XDG_CONFIG_HOME");
        command.env("MINI_TECTONIC_ENDPOINT", &self.endpoint).env("RUST_BACKTRACE", "1");
        command.env("MINI_TECTONIC_CREDENTIALS", self.path("credentials.toml"));
        if self.shape == Shape::Apart {
            command.env("MINI_TECTONIC_TLS_CA", self.path("certs/ca.pem"));
        }
        command.current_dir(&self.home);
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&mut self, line: &Line<'_>) -> Result<Ended> {
        let mut command = self.command("mini-tectonic-rs");
        command.args(&line.arguments).envs(line.variables.iter().copied());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().context("start a command")?;
        let values = line.variables.iter().map(|(_name, value)| (*value).to_owned());
        self.given.insert(child.id(), values.collect());
        self.watcher.look_at(child.id());
        let pid = Pid::from_child(&child);
        let (sender, ended) = sync_channel(1);
        std::thread::spawn(move || sender.send(child.wait_with_output()).ok());
        let Ok(output) = ended.recv_timeout(DEADLINE) else {
            kill_process(pid, Signal::KILL)?;
            bail!("{:?} does not end", line.arguments);
        };
        let (output, words) = (output?, line.arguments.join(" "));
        let out = self.places.add(Kind::Output, format!("standard output of '{words}'"), output.stdout);
        let err = self.places.add(Kind::Output, format!("standard error of '{words}'"), output.stderr);
        Ok(Ended { code: output.status.code(), out, err })
    }

    /// Runs a command that must end with this code.
    pub(crate) fn expect(&mut self, code: i32, line: &Line<'_>) -> Result<Ended> {
        let ended = self.run(line)?;
        let said = String::from_utf8_lossy(self.places.bytes(ended.err));
        let said = last_lines(&said);
        ensure!(ended.code == Some(code), "{:?} ended with {:?}:\n{said}", line.arguments, ended.code);
        Ok(ended)
    }

    /// The text on a command's standard output.
    pub(crate) fn text(&self, ended: &Ended) -> String {
        String::from_utf8_lossy(self.places.bytes(ended.out)).trim().to_owned()
    }

    /// Takes the token that a command has shown, whose purpose that is: on standard output alone, or in its line on
    /// standard error.
    pub(crate) fn shown(&mut self, what: &str, ended: &Ended) -> Result<String> {
        let said = String::from_utf8_lossy(self.places.bytes(ended.err)).into_owned();
        let (place, token) = match said.lines().find_map(|line| line.strip_prefix("token: ")) {
            Some(token) => (ended.err, token.to_owned()),
            None => (ended.out, self.text(ended)),
        };
        ensure!(token.split('.').count() == 4, "no token was shown");
        self.vault.token(what, &token);
        self.places.may_show(place, token.as_bytes())?;
        Ok(token)
    }

    /// A name that was not there before.
    pub(crate) fn fresh(&mut self, what: &str) -> String {
        self.count += 1;
        format!("{what}{}", self.count)
    }

    /// Hex digits that nobody has seen.
    pub(crate) fn digits(&mut self, count: usize) -> String {
        let mut digits = String::new();
        while digits.len() < count {
            digits.push_str(&format!("{:016x}", self.random.draw()));
        }
        digits.truncate(count);
        digits
    }

    /// A path in the home folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.join(name)
    }

    /// Writes a file that only its owner can read.
    pub(crate) fn write(&self, name: &str, content: &[u8]) -> Result<()> {
        let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(self.path(name));
        Ok(file.and_then(|mut file| file.write_all(content))?)
    }

    /// Takes up the secrets in all files that are there to keep some.
    pub(crate) fn learn(&mut self) -> Result<()> {
        for path in files(&self.home)? {
            let name = path.strip_prefix(&self.home)?.to_string_lossy().into_owned();
            if keeps_secrets(&name)
                && let Ok(content) = std::fs::read_to_string(&path)
            {
                self.vault.learn_file(&name, &content);
            }
        }
        Ok(())
    }

    /// Waits until something holds.
    pub(crate) fn wait(&mut self, what: &str, mut holds: impl FnMut(&mut Self) -> Result<bool>) -> Result<()> {
        let began = Instant::now();
        while !holds(self)? {
            ensure!(began.elapsed() < DEADLINE, "waited too long until {what}");
            std::thread::park_timeout(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Ends it: every file and every process that was seen becomes a place. Returns also how many services were seen that
    /// a command started.
    pub(crate) fn end(mut self) -> Result<(Vault, Places, usize)> {
        self.kill();
        self.learn()?;
        let mut others = 0;
        for (pid, Track { program, command_line, environment, parent: _ }) in self.watcher.stop()? {
            let name = format!("{program} (process {pid})");
            self.places.add(Kind::CommandLine, format!("the command line of {name}"), command_line);
            let place = self.places.add(Kind::Environment, format!("the environment of {name}"), environment);
            match self.given.get(&pid) {
                Some(tokens) => tokens.iter().try_for_each(|token| self.places.may_show(place, token.as_bytes()))?,
                None => others += usize::from(program.ends_with("-service")),
            }
        }
        for path in files(&self.home)? {
            let name = path.strip_prefix(&self.home)?.to_string_lossy().into_owned();
            if !is_searched(&path)? {
                continue;
            }
            let place = self.places.add(kind_of(&name), format!("the file {name}"), std::fs::read(&path)?);
            if name.ends_with(".content") || (is_private(&path)? && name.contains("chunks/")) {
                self.contents.iter().try_for_each(|content| self.places.may_show(place, content.as_bytes()))?;
            }
        }
        Ok((self.vault, self.places, others))
    }
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().rev().take(10).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}

/// Whether no secret may be in a file: its purpose is another, or others can read it.
pub(crate) fn is_searched(path: &Path) -> Result<bool> {
    Ok(!(keeps_secrets(&path.to_string_lossy()) && is_private(path)?))
}

fn is_private(path: &Path) -> Result<bool> {
    Ok(std::fs::metadata(path)?.permissions().mode() & 0o077 == 0)
}

/// Files whose purpose is to keep secrets; and each as it is being written, which a kill may leave.
fn keeps_secrets(name: &str) -> bool {
    let name = name.strip_suffix(".tmp").unwrap_or(name);
    let extension = Path::new(name).extension().unwrap_or_default().to_string_lossy();
    matches!(&*extension, "key" | "token" | "secrets") || name.ends_with("credentials.toml")
}

fn kind_of(name: &str) -> Kind {
    match name {
        name if name.ends_with(".log") && name.contains("audit") => Kind::Audit,
        name if name.ends_with(".log") => Kind::Log,
        _ => Kind::File,
    }
}

/// All regular files in a folder.
pub(crate) fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let (entry, path) = entry.map(|entry| (entry.file_type(), entry.path()))?;
        match entry? {
            kind if kind.is_dir() => found.extend(files(&path)?),
            kind if kind.is_file() => found.push(path),
            _ => {}
        }
    }
    Ok(found)
}

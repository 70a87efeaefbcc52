//! Runs the real program, and real services under it, each in folders of its own.
//!
//! Every wait is for a condition and has a deadline; every process that is started is killed when its handle is dropped.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use tempfile::TempDir;

/// No step of a test takes longer, however busy the machine is.
const DEADLINE: Duration = Duration::from_secs(120);

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Ended {
    /// Standard output as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.stdout.clone()).expect("the output is text")
    }

    /// Standard output without its line end, of a command that must have succeeded.
    #[track_caller]
    pub(crate) fn ok(&self) -> String {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        self.text().trim_end().to_owned()
    }

    /// The one JSON object on standard output, of a command that must have succeeded.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.ok()).expect("the output is one JSON object")
    }

    /// Asserts how it failed, that nothing came out, and that the message says all of this.
    #[track_caller]
    pub(crate) fn failed(&self, code: i32, says: &[&str]) {
        assert_eq!(self.code, Some(code), "{}", self.stderr);
        assert!(self.stderr.starts_with("error: "), "{}", self.stderr);
        for words in says {
            assert!(self.stderr.contains(words), "{words:?} is not in: {}", self.stderr);
        }
    }
}

/// A user's surroundings: a home folder, a credentials file, an endpoint.
#[derive(Debug)]
pub(crate) struct User {
    pub(crate) home: TempDir,
    pub(crate) endpoint: String,
}

impl User {
    /// A new user of this endpoint.
    pub(crate) fn of(endpoint: &str) -> Self {
        Self { home: tempfile::tempdir().expect("a temporary folder"), endpoint: endpoint.to_owned() }
    }

    /// A path in the home folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Writes a file in the home folder.
    pub(crate) fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.path(name);
        write(&path, content);
        path
    }

    /// The credentials file.
    pub(crate) fn credentials(&self) -> PathBuf {
        self.path("credentials.toml")
    }

    /// The program in these surroundings and in no others.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mini-tectonic-rs"));
        for (name, _value) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("MINI_TECTONIC_") || name == "RUST_LOG" {
                command.env_remove(name);
            }
        }
        command.env("HOME", self.home.path()).env_remove("XDG_CONFIG_HOME");
        command.env("TMPDIR", self.home.path());
        command.env("MINI_TECTONIC_CREDENTIALS", self.credentials()).env("MINI_TECTONIC_ENDPOINT", &self.endpoint);
        command.current_dir(self.home.path());
        command
    }

    /// Runs the program to its end.
    pub(crate) fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Ended {
        let mut command = self.command();
        command.args(arguments);
        run_to_end(command, Vec::new())
    }

    /// Runs a line of words that hold no spaces.
    pub(crate) fn line(&self, line: &str) -> Ended {
        self.run(line.split_whitespace())
    }

    /// Stores a file under a tenant and returns the blob's id.
    #[track_caller]
    pub(crate) fn put(&self, tenant: &str, path: &Path) -> String {
        self.run([OsStr::new("put"), "-t".as_ref(), tenant.as_ref(), "-f".as_ref(), path.as_ref()]).ok()
    }
}

/// Runs a command to its end, with this on standard input.
pub(crate) fn run_to_end(mut command: Command, input: Vec<u8>) -> Ended {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    let pid = pid_of(&child);
    let mut stdin = child.stdin.take().expect("its standard input is piped");
    // A program that fails early does not read its input; that is no failure of the test.
    let feeder = std::thread::spawn(move || stdin.write_all(&input).ok());
    let (sender, ended) = sync_channel(1);
    std::thread::spawn(move || sender.send(child.wait_with_output()).ok());
    let Ok(output) = ended.recv_timeout(DEADLINE) else {
        rustix::process::kill_process(pid, Signal::KILL).expect("a process of ours can be killed");
        unreachable!("{command:?} did not end in time");
    };
    feeder.join().expect("the feeder does not panic");
    let output = output.expect("its output can be read");
    Ended {
        code: output.status.code(),
        stdout: output.stdout,
        stderr: String::from_utf8(output.stderr).expect("messages are text"),
    }
}

/// A process that runs until it is told to stop.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Self {
        Self { child: command.spawn().expect("the program starts") }
    }

    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    pub(crate) fn signal(&self, signal: Signal) {
        rustix::process::kill_process(pid_of(&self.child), signal).expect("a process of ours can be signalled");
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let child = &mut self.child;
        wait_until("the process has ended", || child.try_wait().expect("a child can be waited for"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Fails only for one that has ended and been waited for.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_child(child)
}

/// Asks again and again until there is an answer.
#[track_caller]
pub(crate) fn wait_until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(began.elapsed() < DEADLINE, "waited too long until {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// `serve` over a storage folder.
#[derive(Debug)]
pub(crate) struct Serve {
    pub(crate) process: Running,
    pub(crate) metadata: String,
    pub(crate) chunk: String,
    pub(crate) storage: PathBuf,
}

impl Serve {
    /// Starts it on free ports and waits until it is ready.
    pub(crate) fn start(user: &User, storage: &Path) -> Self {
        Self::start_with(user, storage, &["--metadata-listen", "127.0.0.1:0", "--chunk-listen", "127.0.0.1:0"])
    }

    /// Starts it with these flags and waits until it is ready. Its log is the user's `serve.log`.
    pub(crate) fn start_with(user: &User, storage: &Path, flags: &[&str]) -> Self {
        let log = user.path("serve.log");
        let mut command = user.command();
        command.arg("serve").arg("--storage").arg(storage).args(flags);
        let log_file = File::options().create(true).append(true).open(&log).expect("a log file");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log_file);
        let mut process = Running::start(command);
        let line = first_line(&mut process, &log);
        let mut words = line.split(' ');
        let mut field = |name: &str| words.next().and_then(|word| word.strip_prefix(name)).map(str::to_owned);
        assert!(field("ready").is_some_and(|rest| rest.is_empty()), "{line}");
        let metadata = field("metadata=").expect("the line names the metadata service");
        let chunk = field("chunk=").expect("the line names the chunk service");
        Self { process, metadata, chunk, storage: storage.to_path_buf() }
    }

    /// Ends it as a supervisor does.
    #[track_caller]
    pub(crate) fn stop(mut self) {
        self.process.signal(Signal::TERM);
        assert!(self.process.wait().success(), "it ends in order");
    }

    /// Paths in the folder of chunks with this extension, in order.
    pub(crate) fn chunk_files(&self, extension: &str) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.storage.join("chunks")).expect("the folder of chunks");
        let paths = entries.map(|entry| entry.expect("an entry of it").path());
        let mut paths: Vec<_> = paths.filter(|path| path.extension() == Some(extension.as_ref())).collect();
        paths.sort();
        paths
    }
}

fn first_line(process: &mut Running, log: &Path) -> String {
    let stdout = process.child().stdout.take().expect("its standard output is piped");
    let (sender, line) = sync_channel(1);
    std::thread::spawn(move || {
        let mut reader = BufReader::new(stdout);
        let mut line = String::new();
        let read = reader.read_line(&mut line);
        sender.send(read.map(|_length| line)).ok();
        // Keeps the pipe open, as a supervisor would.
        reader.read_to_end(&mut Vec::new()).ok();
    });
    let line = line.recv_timeout(DEADLINE).expect("a line comes in time").expect("it can be read");
    assert!(line.ends_with('\n'), "it ended before it was ready: {}", std::fs::read_to_string(log).unwrap_or_default());
    line.trim_end().to_owned()
}

/// A user with services of their own and the tenant `posts`.
pub(crate) fn user_with_services() -> (User, Serve) {
    user_with(&[])
}

/// As [`user_with_services`], started with these flags too.
pub(crate) fn user_with(flags: &[&str]) -> (User, Serve) {
    let mut user = User::of("http://127.0.0.1:1");
    let storage = user.path("storage");
    let free_ports = ["--metadata-listen", "127.0.0.1:0", "--chunk-listen", "127.0.0.1:0"];
    let serve = Serve::start_with(&user, &storage, &[&free_ports, flags].concat());
    user.endpoint.clone_from(&serve.metadata);
    user.line("register-tenant -t posts").ok();
    (user, serve)
}

/// Writes a file, which nobody else can read where it was not there before.
pub(crate) fn write(path: &Path, content: &[u8]) {
    let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(content)).expect("a file can be written");
}

/// Bytes of which no stretch repeats soon.
pub(crate) fn bytes(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_be_bytes()
    };
    std::iter::repeat_with(next).flatten().take(length).collect()
}

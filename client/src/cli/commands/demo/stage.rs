//! Where the demo plays: numbered steps on standard output, and commands that are run as they are shown.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command as Process;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use clap::Parser as _;
use indicatif::HumanBytes;

use crate::cli::args::Cli;
use crate::cli::context::{Context, TOKEN_VARIABLE};
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::Output;
use crate::cli::sandbox::Sandbox;

/// The narrator, and the surroundings of the commands that it runs.
pub(super) struct Stage<'a> {
    out: &'a Output,
    inside: Context,
    printed: Arc<Mutex<Vec<u8>>>,
    steps: u32,
}

impl<'a> Stage<'a> {
    /// Commands will see the sandbox's services and credentials; what they print is shown indented.
    pub(super) fn new(outside: &'a Context, sandbox: &Sandbox) -> Result<Self, Failure> {
        let (captured, printed) = Output::captured();
        let inside = sandbox.context(outside, captured)?;
        Ok(Self { out: &outside.out, inside, printed, steps: 0 })
    }

    /// Begins the next step.
    pub(super) fn step(&mut self, what: &str) -> Result<(), Failure> {
        self.steps += 1;
        self.out.line(&format!("\n{}. {what}", self.steps))
    }

    /// Shows lines that belong to the step.
    pub(super) fn shown(&self, text: &str) -> Result<(), Failure> {
        text.lines().try_for_each(|line| self.out.line(&format!("   {line}")))
    }

    /// Shows how long it took, and how fast so many bytes went.
    pub(super) fn took(&self, began: Instant, bytes: Option<u64>) -> Result<(), Failure> {
        let seconds = began.elapsed().as_secs_f64();
        let rate = match bytes {
            Some(bytes) if bytes > 0 => format!(", {}/s", HumanBytes(per_second(bytes, seconds))),
            Some(_) | None => String::new(),
        };
        self.shown(&format!("({seconds:.2} s{rate})"))
    }

    /// Shows a command, runs it as if it had been typed, shows what it printed, and returns that.
    pub(super) async fn run(&self, arguments: &[&str]) -> Result<String, Failure> {
        let typed: Vec<_> = arguments.iter().map(|argument| quoted(argument)).collect();
        self.shown(&format!("$ mini-tectonic-rs {}", typed.join(" ")))?;
        let words = std::iter::once("mini-tectonic-rs").chain(arguments.iter().copied());
        let cli = Cli::try_parse_from(words).map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
        // Boxed, since this command runs inside another one of the same type.
        let outcome = Box::pin(cli.command.run(&self.inside)).await;
        let printed = std::mem::take(&mut *self.printed.lock().unwrap_or_else(PoisonError::into_inner));
        let printed = String::from_utf8_lossy(&printed).into_owned();
        self.shown(&printed)?;
        outcome.map(|()| printed)
    }

    /// Lists the folder of chunks and lets `sha256sum` check it.
    pub(super) fn show_chunks(&self, folder: &Path) -> Result<(), Failure> {
        self.shown(&format!("$ cd {} && wc -c *.blob *.chk && sha256sum -c *.chk", quoted(&folder.to_string_lossy())))?;
        let files = chunk_files(folder)
            .map_err(|error| Failure::local(format_args!("cannot read {}", folder.display()), &error))?;
        for (name, size_bytes) in &files {
            self.shown(&format!("{size_bytes:>12} {}", name.display()))?;
        }
        let checksums = files.iter().map(|(name, _size)| name).filter(|name| is_checksum_file(name));
        let mut check = Process::new("sha256sum");
        check.arg("-c").args(checksums).current_dir(folder).env_remove(TOKEN_VARIABLE);
        match check.output() {
            Ok(checked) if checked.status.success() => self.shown(&String::from_utf8_lossy(&checked.stdout)),
            Ok(checked) => {
                let said = String::from_utf8_lossy(&checked.stderr).into_owned();
                Err(Failure::new(Exit::DataLoss, format!("sha256sum does not agree: {}", said.trim_end())))
            }
            Err(error) => self.shown(&format!("(sha256sum cannot be run here: {error})")),
        }
    }
}

/// Names and sizes of chunks and their checksum files, in order.
fn chunk_files(folder: &Path) -> io::Result<Vec<(PathBuf, u64)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = PathBuf::from(entry.file_name());
        if is_checksum_file(&name) || name.extension().is_some_and(|extension| extension == "blob") {
            files.push((name, entry.metadata()?.len()));
        }
    }
    files.sort();
    Ok(files)
}

fn is_checksum_file(name: &Path) -> bool {
    name.extension().is_some_and(|extension| extension == "chk")
}

fn per_second(bytes: u64, seconds: f64) -> u64 {
    let micros = std::time::Duration::from_secs_f64(seconds).as_micros().max(1);
    u64::try_from(u128::from(bytes) * 1_000_000 / micros).unwrap_or(u64::MAX)
}

/// The word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:+,@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_shown_as_a_shell_takes_them() {
        assert_eq!(quoted("/tmp/a-b.c"), "/tmp/a-b.c");
        assert_eq!(quoted("it's $HOME"), r"'it'\''s $HOME'");
        assert_eq!(quoted(""), "''");
    }
}

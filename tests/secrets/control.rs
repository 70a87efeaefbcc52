//! That the search finds what it looks for: a secret of the session planted in each place and form where none may be.
//!
//! What is planted here is looked for as everything else is, and must all be found.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use crate::places::{Kind, Places};
use crate::tracks::Watcher;
use crate::vault::Vault;

/// A token that no run gives out.
const TOKEN: &str = "mt1.0011223344556677.8f3a5c7e9b1d2f4a6c8e0b2d4f6a8c0e1a3b5c7d9e0f2a4b6c8d0e2f4a6b8c0d.a1b2c3d4";

/// Plants, searches, and returns how many plants there were, and how many were found.
pub(crate) fn run(folder: &Path) -> Result<(usize, usize)> {
    let (mut vault, mut places) = (Vault::default(), Places::default());
    vault.token("a planted token", TOKEN);
    for (form, text) in written() {
        let log = format!("{{\"level\":\"TRACE\",\"fields\":{{\"request\":{text}}}}}\n");
        places.add(Kind::Log, format!("a log with a token {form}"), log.into_bytes());
    }
    places.add(Kind::File, "a file that others can read", open_file(&folder.join("planted.token"))?);
    let (command_line, environment) = process(folder)?;
    places.add(Kind::CommandLine, "a command line", command_line);
    places.add(Kind::Environment, "an environment", environment);
    let planted = written().len() + 3;
    let found = places.search(&vault)?;
    // And nothing is found where it may be, or where nothing is.
    let mut innocent = Places::default();
    let shown = innocent.add(Kind::Output, "where it is shown", TOKEN.as_bytes().to_vec());
    innocent.may_show(shown, TOKEN.as_bytes())?;
    innocent.add(Kind::Log, "a log without it", b"token mt1.0011223344556677 [redacted]".to_vec());
    Ok((planted, found.hits.len().saturating_sub(innocent.search(&vault)?.hits.len())))
}

/// The token, and parts of it, as they may come to be in a log.
fn written() -> [(&'static str, String); 9] {
    let secret = TOKEN.split('.').nth(2).unwrap_or_default();
    let pairs = (0..secret.len()).step_by(2).filter_map(|at| u8::from_str_radix(secret.get(at..at + 2)?, 16).ok());
    let bytes: Vec<u8> = pairs.collect();
    let header = format!("authorization: Bearer {TOKEN}");
    [
        ("as it is", format!("\"{TOKEN}\"")),
        ("that was cut", format!("{:?}", TOKEN.get(..TOKEN.len() / 2 + 10).unwrap_or_default())),
        ("in upper case", secret.to_uppercase()),
        ("as a list", format!("{bytes:?}")),
        ("as a list of its characters", format!("{:?}", TOKEN.as_bytes())),
        ("in base64", STANDARD.encode(TOKEN)),
        ("in base64 behind something", STANDARD.encode(header)),
        ("in base64url, its bytes", URL_SAFE_NO_PAD.encode([b"x".as_slice(), &bytes].concat())),
        ("escaped", format!("{:?}", bytes::Bytes::from(bytes.clone()))),
    ]
}

/// As the session's files are taken up: one that keeps secrets, but not to itself.
fn open_file(path: &Path) -> Result<Vec<u8>> {
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(TOKEN.as_bytes())?;
    let (read, is_taken) = (std::fs::read(path)?, crate::site::is_searched(path)?);
    anyhow::ensure!(!is_taken, "a private file of secrets would be searched");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o640))?;
    anyhow::ensure!(crate::site::is_searched(path)?, "a file of secrets that others can read would not be searched");
    Ok(read)
}

/// A process with the token on its command line and in its environment, as the watcher sees it.
fn process(folder: &Path) -> Result<(Vec<u8>, Vec<u8>)> {
    let program = folder.join("planted-program");
    std::fs::copy("/bin/sh", &program)?;
    let watcher = Watcher::start(folder);
    let mut command = Command::new(&program);
    command.args(["-c", "read line", TOKEN]).env("PLANTED", TOKEN).stdin(Stdio::piped());
    let mut child = command.spawn().context("start a process")?;
    watcher.wait_for(child.id());
    drop(child.stdin.take());
    child.wait()?;
    let track = watcher.stop()?.remove(&child.id()).context("the watcher saw the process")?;
    Ok((track.command_line, track.environment))
}

//! The command line transcript of the README, run as it stands there, so that it cannot rot.
//!
//! Each `$` line runs in one shell, in a fresh folder, beside a real `serve`; what it prints must be what the README
//! shows, but for ids, times and addresses, which differ from run to run.

use std::path::Path;
use std::process::Command;

use regex::Regex;

#[expect(dead_code, reason = "the other test binaries use the rest of it")]
mod common;

const MARK: &str = "@@@";

/// The pairs of command and expected output of the block that follows the marker.
fn transcript(readme: &str) -> Vec<(String, String)> {
    let (_before, rest) = readme.split_once("<!-- transcript: cli -->\n```console\n").expect("the README has it");
    let (block, _after) = rest.split_once("```").expect("the block ends");
    let mut pairs: Vec<(String, String)> = Vec::new();
    for line in block.lines() {
        match (line.strip_prefix("$ "), pairs.last_mut()) {
            (Some(command), _) => pairs.push((command.to_owned(), String::new())),
            (None, Some((_, expected))) => expected.push_str(&format!("{line}\n")),
            (None, None) => unreachable!("the transcript begins with a command, not with {line}"),
        }
    }
    pairs
}

/// Replaces what differs from run to run by a name for it.
fn normal(text: &str) -> String {
    let patterns = [
        ("[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}", "<id>"),
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "<time>"),
        (r"127\.0\.0\.1:\d+", "<address>"),
        ("request id:? [0-9a-f]{16}", "<request id>"),
    ];
    let replace = |text: String, (pattern, name): (&str, &str)| {
        Regex::new(pattern).expect("a good pattern").replace_all(&text, name).into_owned()
    };
    patterns.into_iter().fold(text.trim().to_owned(), replace)
}

#[test]
fn the_transcript_of_the_readme_is_true() {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let pairs = transcript(&std::fs::read_to_string(readme).unwrap());
    assert!(pairs.len() >= 10, "the README shows the whole job");

    let user = common::User::of("http://127.0.0.1:1");
    // The transcript looks into ./storage.
    let serve = common::Serve::start(&user, &user.path("storage"));
    let commands: Vec<String> = pairs.iter().map(|(command, _)| format!("{command}\necho '{MARK}'")).collect();
    let tool = Path::new(env!("CARGO_BIN_EXE_mini-tectonic-rs")).parent().unwrap();
    let output = Command::new("bash")
        .arg("-c")
        .arg(format!("exec 2>&1\n{}", commands.join("\n")))
        .current_dir(user.home.path())
        .env("PATH", format!("{}:{}", tool.display(), std::env::var("PATH").unwrap()))
        .env("MINI_TECTONIC_ENDPOINT", &serve.metadata)
        .env("MINI_TECTONIC_CREDENTIALS", user.credentials())
        .output()
        .unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let parts: Vec<&str> = printed.split(&format!("{MARK}\n")).collect();
    assert_eq!(parts.len(), pairs.len() + 1, "{printed}");
    for ((command, expected), actual) in pairs.iter().zip(parts) {
        assert_eq!(normal(actual), normal(expected), "after: {command}");
    }
}

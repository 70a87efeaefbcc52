//! Services over files of secrets that are damaged, or that others can read: what they say of them.

use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context as _, Result, ensure};

use crate::site::{Site, files};

const KEYS: [&str; 4] = ["metadata/cluster.key", "chunks/node.key", "admin.token", "certs/server.key"];

/// Without these nothing can start. The others are asked for by some starts, or still hold what will do. Nothing starts
/// over one that is open.
const NEEDED: [&str; 2] = ["metadata/cluster.key", "chunks/node.key"];

/// Starts services over copies of what the session left, each with one file of secrets spoiled in one way.
pub(crate) fn starts(site: &mut Site) -> Result<()> {
    site.kill();
    for key in KEYS {
        for (way, spoil) in SPOILS {
            let folder = site.fresh("damaged");
            copy(site, "storage", &folder)?;
            copy(site, "certs", &format!("{folder}/certs"))?;
            let path = site.path(&format!("{folder}/{key}"));
            let content = std::fs::read_to_string(&path).with_context(|| format!("read {key}"))?;
            site.write(&format!("{folder}/{key}"), spoil(&content).as_bytes())?;
            if way == "open" {
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644))?;
            }
            let tls = format!("{folder}/certs");
            let mut flags = vec!["serve", "--storage", &folder, "--metadata-listen", "127.0.0.1:0"];
            flags.extend(["--chunk-listen", "127.0.0.1:0", "--tls-dir", &tls, "-vv"]);
            let log = format!("{}-{way}.log", key.replace('/', "-"));
            let started = site.try_service("mini-tectonic-rs", &flags, &log)?.is_some();
            ensure!(!(started && (way == "open" || NEEDED.contains(&key))), "it started over {key}, {way}");
            // It was made open on purpose; what is looked for is what is said of it.
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        }
    }
    Ok(())
}

type Spoil = fn(&str) -> String;

/// Cut, longer, with one character more in the middle, with something of its own before, and open to others.
const SPOILS: [(&str, Spoil); 5] = [
    ("cut", |content| content.get(..content.len().saturating_sub(20)).unwrap_or_default().to_owned()),
    ("longer", |content| format!("{content}{content}")),
    ("changed", |content| {
        let (before, behind) = content.split_at(content.len() / 2);
        format!("{before}x{behind}")
    }),
    ("preceded", |content| format!("something {content}")),
    ("open", str::to_owned),
];

fn copy(site: &Site, from: &str, to: &str) -> Result<()> {
    let source = site.path(from);
    for path in files(&source)? {
        let target = site.path(to).join(path.strip_prefix(&source)?);
        std::fs::create_dir_all(target.parent().context("a folder")?)?;
        std::fs::copy(&path, &target)?;
    }
    Ok(())
}

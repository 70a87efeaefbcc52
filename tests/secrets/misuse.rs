//! Credentials where they do no good: wrong, damaged, misplaced. Each is a secret that somebody may have mistyped.

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Result, ensure};
use proto::METHOD_PATHS;
use proto::checksum::crc32c;
use proto::pb;

use crate::session::tenant;
use crate::site::{Site, line};

/// A token in good order that nobody gave out.
pub(crate) fn forged(site: &mut Site, prefix: &str) -> String {
    let covered = format!("{prefix}.{}.{}", site.digits(16), site.digits(64));
    let token = format!("{covered}.{:08x}", crc32c(covered.as_bytes()));
    site.vault.token("a token that nobody gave out", &token);
    token
}

/// By the command line: in files and variables, and in a credentials file that is damaged.
pub(crate) fn wrong_tokens(site: &mut Site) -> Result<()> {
    let (tenant, token) = tenant(site)?;
    let cut = token.get(..token.len() - 3).unwrap_or_default().to_owned();
    let mistyped = token.replacen('.', ":", 3);
    let wrong =
        [forged(site, "mt1"), forged(site, "ma1"), forged(site, "mt9"), cut, mistyped, format!("{token}\n{token}")];
    for wrong in &wrong {
        let words = format!("list-blobs -t {tenant} -vv");
        let ended = site.run(&line(&words).with("MINI_TECTONIC_TOKEN", wrong))?;
        ensure!(matches!(ended.code, Some(2 | 4)), "a wrong token ended with {:?}", ended.code);
        site.write("wrong.token", wrong.as_bytes())?;
        let ended = site.run(&line(&format!("{words} --token-file wrong.token")))?;
        ensure!(matches!(ended.code, Some(2 | 4)), "a wrong token's file ended with {:?}", ended.code);
    }
    for (word, code) in [("--help", 0), ("put --no-such-flag", 2), ("list-blobs -t", 2), ("bench --help", 0)] {
        site.expect(code, &line(word).with("MINI_TECTONIC_TOKEN", &token))?;
    }
    let kept = std::fs::read_to_string(site.path("credentials.toml"))?;
    for damaged in [kept.replacen("token = \"", "token = ", 1), kept.replacen('[', "", 1), format!("{kept}\n{token}")] {
        site.write("damaged-credentials.toml", damaged.as_bytes())?;
        let damaged = line(&format!("list-blobs -t {tenant} -vv"));
        site.expect(1, &damaged.with("MINI_TECTONIC_CREDENTIALS", "damaged-credentials.toml"))?;
    }
    for (file, variable) in
        [("credentials.toml", "MINI_TECTONIC_CREDENTIALS"), ("wrong.token", "MINI_TECTONIC_TOKEN_FILE")]
    {
        let set_mode = |site: &Site, mode| set_permissions(site.path(file), Permissions::from_mode(mode));
        set_mode(site, 0o644)?;
        let ended = site.expect(1, &line(&format!("list-blobs -t {tenant} -vv")).with(variable, file))?;
        set_mode(site, 0o600)?;
        let said = String::from_utf8_lossy(site.places.bytes(ended.err)).into_owned();
        ensure!(said.contains("(mode 0644); 'chmod 600 "), "a file that others can read is not told of: {said}");
    }
    Ok(())
}

/// Every method of both services, with every kind of credential that is none there.
pub(crate) fn wrong_calls(site: &mut Site) -> Result<()> {
    let (_tenant, token) = tenant(site)?;
    let layout = pb::GetClusterStatusRequest {};
    let admin = std::fs::read_to_string(site.path("storage/admin.token"))?;
    let nodes =
        site.ask("/minitectonic.v1.ClusterService/ListNodes", admin.trim(), &pb::ListNodesRequest::default())?;
    let nodes: pb::ListNodesResponse = nodes.message()?;
    site.ask("/minitectonic.v1.ClusterService/GetClusterStatus", admin.trim(), &layout)?;
    let metadata = site.endpoint.clone();
    let chunk = nodes.nodes.first().map(|node| node.endpoint.clone()).unwrap_or_default();
    let basic = site.digits(32);
    site.vault.content("a password", &basic);
    let wrong = ["ma1", "mt1", "mj1", "mn1"].map(|kind| format!("Bearer {}", forged(site, kind)));
    let cut = format!("Bearer {}", token.get(..token.len() - 1).unwrap_or_default());
    let good = format!("Bearer {token}");
    let alone = wrong.iter().chain([&cut]).map(|value| vec![value.as_str()]);
    let basic = format!("Basic {basic}");
    let odd = [vec![good.as_str(), &wrong[0]], vec![basic.as_str()], vec![token.as_str()]];
    let values: Vec<Vec<&str>> = alone.chain(odd).collect();
    for path in METHOD_PATHS {
        let endpoint = if path.contains("ChunkService") { &chunk } else { &metadata };
        for value in &values {
            let answer = site.call(endpoint, path, value, &())?;
            ensure!(!answer.reason.is_empty(), "{path} took a credential that is none");
        }
    }
    Ok(())
}

//! What is done in a session, in steps that need each other as little as can be, so that any order will do.

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;

use crate::site::{Shape, Site, line};
use crate::{misuse, transfers};

/// One thing that is done.
pub(crate) type Step = fn(&mut Site) -> Result<()>;

/// Every step, by name.
pub(crate) const STEPS: [(&str, Step); 13] = [
    ("tenants", tenants),
    ("tokens", tokens),
    ("tokens that end", tokens_that_end),
    ("blobs", transfers::blobs),
    ("capabilities", transfers::capabilities),
    ("admin token", admin_token),
    ("nodes", nodes),
    ("operation", operation),
    ("exports", exports),
    ("wrong tokens", misuse::wrong_tokens),
    ("wrong calls", misuse::wrong_calls),
    ("benchmark", benchmark),
    ("signals", signals),
];

/// Registers a tenant. Returns its name and token.
pub(crate) fn tenant(site: &mut Site) -> Result<(String, String)> {
    let tenant = site.fresh("tenant");
    let made = site.expect(0, &line(&format!("register-tenant -t {tenant}")).admin())?;
    let token = site.shown("a tenant's first token", &made)?;
    Ok((tenant, token))
}

fn tenants(site: &mut Site) -> Result<()> {
    let (tenant, _token) = tenant(site)?;
    let other = site.fresh("tenant");
    site.expect(0, &line(&format!("register-tenant -q -t {other} --max-bytes 1MiB --json")).admin())?;
    site.expect(1, &line(&format!("register-tenant -t {other} --max-bytes 2MiB")).admin())?;
    site.expect(0, &line(&format!("update-tenant -t {other} --class gold")).admin())?;
    for words in
        ["list-tenants", "list-tenants --json", "status", "status --json", "status --classes", "status --damaged"]
    {
        site.expect(0, &line(words).admin())?;
    }
    for words in
        [format!("stat -t {tenant}"), format!("stat -t {tenant} --json -vv"), format!("token list -t {tenant}")]
    {
        site.expect(0, &line(&words))?;
    }
    site.expect(0, &line(&format!("delete-tenant -t {other}")).admin())?;
    site.expect(4, &line(&format!("list-blobs -t {other}"))).map(drop)
}

fn tokens(site: &mut Site) -> Result<()> {
    let (tenant, first) = tenant(site)?;
    let made = site.expect(0, &line(&format!("token create -t {tenant} --scope read,list --expires 30d")))?;
    let limited = site.shown("a limited token", &made)?;
    let list = format!("list-blobs -t {tenant}");
    site.expect(0, &line(&list).with("MINI_TECTONIC_TOKEN", &limited))?;
    site.write("in.content", b"some bytes")?;
    let put = line(&format!("put -t {tenant} -f in.content")).with("MINI_TECTONIC_TOKEN", &limited);
    site.expect(4, &put)?;
    site.expect(4, &line(&format!("token create -t {tenant}")).with("MINI_TECTONIC_TOKEN", &limited))?;
    let file = site.fresh("written");
    site.expect(0, &line(&format!("token create -t {tenant} -o {file}.token")))?;
    site.expect(0, &line(&format!("token create -t {tenant} --save --json")))?;
    site.learn()?;
    let made = site.expect(0, &line(&format!("rotate-token -t {tenant} -vv")))?;
    site.shown("a rotated token", &made)?;
    site.expect(0, &line(&format!("token rotate -q -t {tenant} --json")))?;
    site.learn()?;
    // Two rotations on, the first one is none any more.
    site.expect(4, &line(&list).with("MINI_TECTONIC_TOKEN", &first))?;
    let key_id = limited.split('.').nth(1).context("a key id")?.to_owned();
    site.expect(0, &line(&format!("token list -t {tenant} --json")))?;
    site.expect(0, &line(&format!("token revoke -t {tenant} {key_id}")))?;
    site.expect(4, &line(&list).with("MINI_TECTONIC_TOKEN", &limited)).map(drop)
}

fn tokens_that_end(site: &mut Site) -> Result<()> {
    let (tenant, _token) = tenant(site)?;
    let made = site.expect(0, &line(&format!("token create -t {tenant} --expires 1s")))?;
    let brief = site.shown("a token that ends", &made)?;
    site.wait("a token ends", |site| {
        let listed = site.run(&line(&format!("list-blobs -t {tenant} -vv")).with("MINI_TECTONIC_TOKEN", &brief))?;
        Ok(String::from_utf8_lossy(site.places.bytes(listed.err)).contains("TOKEN_EXPIRED"))
    })
}

fn admin_token(site: &mut Site) -> Result<()> {
    let before = std::fs::read_to_string(site.path("storage/admin.token"))?.trim().to_owned();
    let rotated = site.expect(0, &line("token rotate --admin --overlap 1h -vv").admin())?;
    let next = site.shown("the next admin token", &rotated)?;
    for token in [&before, &next] {
        site.expect(0, &line("list-tenants").with("MINI_TECTONIC_TOKEN", token))?;
    }
    // Only the latest makes another; one that made one gets the same again when it asks in vain.
    site.expect(4, &line("token rotate --admin").with("MINI_TECTONIC_TOKEN", &before))?;
    let rotated = site.expect(0, &line("token rotate --admin --overlap 0s --json").admin());
    site.learn()?;
    let rotated = rotated?;
    let said = String::from_utf8_lossy(site.places.bytes(rotated.err)).into_owned();
    let last = said.lines().find_map(|line| line.strip_prefix("token: ")).context("the token is shown")?;
    site.vault.token("the last admin token", last);
    site.places.may_show(rotated.err, last.as_bytes())?;
    site.expect(4, &line("list-tenants").with("MINI_TECTONIC_TOKEN", &next)).map(drop)
}

fn nodes(site: &mut Site) -> Result<()> {
    site.expect(0, &line("token rotate --nodes").admin())?;
    site.expect(0, &line("token rotate --nodes --json -vv").admin())?;
    site.learn()?;
    let made = site.expect(0, &line("token create --join --expires 1h").admin())?;
    let join = site.shown("a join token", &made)?;
    site.expect(0, &line("token create --join -o other.token --json").admin())?;
    site.learn()?;
    let folder = site.fresh("node");
    let endpoint = site.endpoint.clone();
    let mut flags = vec!["--storage", &folder, "--listen", "127.0.0.1:0", "--metadata", &endpoint];
    if site.shape == Shape::Apart {
        flags.extend(["--tls-dir", "certs"]);
    }
    // One that was cut short, one that was never given out, and one that is good.
    let cut = join.get(..join.len() - 9).unwrap_or_default().to_owned();
    let forged = misuse::forged(site, "mj1");
    for (wrong, token) in [(true, cut), (true, forged), (false, join.clone())] {
        site.write("tried.token", token.as_bytes())?;
        let flags = [&flags[..], &["--join-token-file", "tried.token"]].concat();
        let joined = site.try_service("chunk-service", &flags, "joining.log")?;
        ensure!(joined.is_none() == wrong, "a node joined with a token that is none, or did not with one that is");
        if let Some(guest) = joined {
            site.take(guest, &flags);
        }
        site.learn()?;
    }
    // Another node comes too late for it.
    let late = site.fresh("node");
    let flags: Vec<&str> = flags.iter().map(|flag| if *flag == folder { late.as_str() } else { flag }).collect();
    let flags = [&flags[..], &["--join-token-file", "tried.token"]].concat();
    ensure!(site.try_service("chunk-service", &flags, "joining.log")?.is_none(), "a join token served twice");
    site.expect(0, &line("status --json -vv").admin()).map(drop)
}

fn operation(site: &mut Site) -> Result<()> {
    let worker =
        ["workers", "workers --json", "workers pause orphans", "workers resume orphans", "workers run garbage"];
    for words in worker.into_iter().chain(["fsck", "fsck --quick --json", "certs --renew", "fsck --repair -vv"]) {
        let line = line(words);
        let line = if words.starts_with("certs") { line } else { line.admin() };
        let ended = site.run(&line)?;
        ensure!(matches!(ended.code, Some(0 | 1 | 6)), "'{words}' ended with {:?}", ended.code);
    }
    site.learn()
}

fn exports(site: &mut Site) -> Result<()> {
    let name = site.fresh("export");
    site.expect(0, &line(&format!("export -o {name}.plain")).admin())?;
    site.expect(0, &line(&format!("export --include-secrets --json -vv -o {name}.secrets")).admin())?;
    site.expect(0, &line(&format!("import --storage {name}.without {name}.plain -vv")))?;
    site.expect(0, &line(&format!("import --storage {name}.with {name}.secrets --json -vv")))?;
    site.learn()?;
    let whole = std::fs::read(site.path(&format!("{name}.secrets")))?;
    let middle = whole.len() / 2;
    let cut = whole.get(..middle).unwrap_or_default().to_vec();
    let changed: Vec<u8> = whole.iter().enumerate().map(|(at, byte)| byte ^ u8::from(at == middle)).collect();
    for damaged in [cut, changed] {
        site.write(&format!("{name}.damaged.secrets"), &damaged)?;
        site.expect(1, &line(&format!("import --storage {name}.damaged {name}.damaged.secrets -vv")))?;
    }
    site.expect(4, &line("export -o -").with("MINI_TECTONIC_TOKEN_FILE", "none-of-ours.token"))
        .or_else(|_| site.expect(1, &line("export -o -").with("MINI_TECTONIC_TOKEN_FILE", "none-of-ours.token")))?;
    Ok(())
}

/// The services that `bench --spawn` started inherited the token that it had been given in a variable, for which they have
/// no use: it stood in their environment for as long as they ran. So did what `demo` starts.
fn benchmark(site: &mut Site) -> Result<()> {
    let token = misuse::forged(site, "mt1");
    site.expect(0, &line("bench --spawn --count 8 --size 1KiB --json").with("MINI_TECTONIC_TOKEN", &token))?;
    site.expect(0, &line("demo -vv").with("MINI_TECTONIC_TOKEN", &token)).map(drop)
}

/// Certificates are read again, and a service that is killed comes back over what it had.
fn signals(site: &mut Site) -> Result<()> {
    site.signal(Signal::HUP)?;
    site.check()?;
    site.kill();
    site.launch()?;
    site.check()
}

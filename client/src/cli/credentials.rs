//! The credentials file: tokens by endpoint and tenant, the admin's apart, each with the cluster it is good for.
//!
//! ```toml
//! version = 1
//!
//! [endpoints."http://127.0.0.1:50051".admin]
//! token = "ma1..."
//! cluster_id = "0190b5c4-7e5a-7cc3-98c4-dc0c0c07398f"
//!
//! [endpoints."http://127.0.0.1:50051".tenants.posts]
//! token = "mt1..."
//! cluster_id = "0190b5c4-7e5a-7cc3-98c4-dc0c0c07398f"
//! ```
//!
//! I18: the file is 0600 in a folder of 0700, and a [`Secret`] prints as `[redacted]`.
//!
//! Order of a change: take the lock on the `.lock` file beside it, read, change, write a temporary file, sync, rename.
//! Two processes never lose each other's entries; a crash leaves the old file or the new one. A file that cannot be
//! read as one is never overwritten.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use proto::ids::TenantId;
use proto::runtime::folder;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::failure::{Exit, Failure};

/// Names the file outright.
pub(crate) const FILE_VARIABLE: &str = "MINI_TECTONIC_CREDENTIALS";
/// The version that this program writes.
const VERSION: u32 = 1;

/// A token's text. `Debug` hides it; it is wiped from memory when dropped.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Secret(Zeroizing<String>);

impl Secret {
    /// The text. Never for a log.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(Zeroizing::new(text.to_owned()))
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

/// A token and the cluster that it is good for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Credential {
    /// The token.
    pub(crate) token: Secret,
    /// The cluster; empty when it was not known.
    #[serde(default)]
    pub(crate) cluster_id: String,
}

/// What is known of one endpoint.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Endpoint {
    #[serde(skip_serializing_if = "Option::is_none")]
    admin: Option<Credential>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    tenants: BTreeMap<String, Credential>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Content {
    version: u32,
    #[serde(default)]
    endpoints: BTreeMap<String, Endpoint>,
}

/// As much of any version's content as tells which it is.
#[derive(Debug, Deserialize)]
struct Version {
    version: u32,
}

impl Default for Content {
    fn default() -> Self {
        Self { version: VERSION, endpoints: BTreeMap::new() }
    }
}

/// Whose token of an endpoint is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holder<'a> {
    /// The operator.
    Admin,
    /// A tenant.
    Tenant(&'a TenantId),
}

/// The file, which need not be there yet.
#[derive(Debug, Clone)]
pub(crate) struct Credentials {
    path: PathBuf,
}

impl Credentials {
    /// The file at this path.
    pub(crate) fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// The file that the environment names: `$MINI_TECTONIC_CREDENTIALS`, or the one in the user's configuration folder.
    ///
    /// # Errors
    /// When neither it nor a home folder is known.
    pub(crate) fn of_the_user() -> Result<Self, Failure> {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let configuration = || {
            let named = set("XDG_CONFIG_HOME").filter(|path| path.is_absolute());
            named.or_else(|| set("HOME").map(|home| home.join(".config")))
        };
        let path = set(FILE_VARIABLE)
            .or_else(|| configuration().map(|folder| folder.join("mini-tectonic-rs").join("credentials.toml")));
        path.map(Self::at).ok_or_else(|| {
            Failure::new(Exit::Other, "there is no place for credentials: neither HOME nor XDG_CONFIG_HOME is set")
                .hint(format!("name a file with {FILE_VARIABLE}, or give the token with --token-file"))
        })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The credential of this holder at this endpoint.
    ///
    /// # Errors
    /// When the file cannot be read, or not as one of ours.
    pub(crate) fn find(&self, endpoint: &str, holder: Holder<'_>) -> Result<Option<Credential>, Failure> {
        let content = self.read()?;
        Ok(spellings(endpoint).iter().find_map(|spelling| content.find(spelling, holder)).cloned())
    }

    /// Keeps a credential, in place of the one before.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub(crate) fn save(&self, endpoint: &str, holder: Holder<'_>, credential: Credential) -> Result<(), Failure> {
        self.change(|content| {
            // One that was kept for the same cluster under another spelling would be found again when this one is old.
            let same = |spelling: &&String| {
                let known = content.find(spelling, holder);
                known.is_some_and(|known| !known.cluster_id.is_empty() && known.cluster_id == credential.cluster_id)
            };
            let all = spellings(endpoint);
            let kept = all.iter().find(same).map_or(endpoint, String::as_str).to_owned();
            let known = content.endpoints.entry(kept).or_default();
            match holder {
                Holder::Admin => known.admin = Some(credential),
                Holder::Tenant(tenant) => {
                    known.tenants.insert(tenant.as_str().to_owned(), credential);
                }
            }
        })
    }

    /// Forgets a tenant's credential.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub(crate) fn forget(&self, endpoint: &str, tenant: &TenantId) -> Result<(), Failure> {
        self.change(|content| {
            let holder = Holder::Tenant(tenant);
            let kept = spellings(endpoint).into_iter().find(|spelling| content.find(spelling, holder).is_some());
            if let Some(known) = kept.and_then(|spelling| content.endpoints.get_mut(&spelling)) {
                known.tenants.remove(tenant.as_str());
            }
        })
    }

    fn change(&self, change: impl FnOnce(&mut Content)) -> Result<(), Failure> {
        let failed = |error: &(dyn std::error::Error + 'static)| {
            Failure::local(format_args!("cannot change {}", self.path.display()), error)
        };
        if let Some(parent) = self.path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            folder::create(parent).map_err(|error| failed(&error))?;
        }
        let lock = self.path.with_added_extension("lock");
        let mut options = OpenOptions::new();
        let lock = options.write(true).create(true).truncate(false).mode(0o600).open(lock);
        let lock = lock.and_then(|lock| lock.lock().map(|()| lock)).map_err(|error| failed(&error))?;
        let mut content = self.read()?;
        change(&mut content);
        let text = toml::to_string(&content).map_err(|error| failed(&error))?;
        folder::publish(&self.target(), Zeroizing::new(text).as_bytes()).map_err(|error| failed(&error))?;
        drop(lock);
        Ok(())
    }

    /// The file itself where the path is a symbolic link, so that a rename does not replace the link.
    fn target(&self) -> PathBuf {
        std::fs::canonicalize(&self.path).unwrap_or_else(|_not_there_yet| self.path.clone())
    }

    fn read(&self) -> Result<Content, Failure> {
        let read = folder::read_secret(&self.path)
            .map_err(|error| Failure::local(format_args!("cannot use {}", self.path.display()), &error))?;
        let Some(bytes) = read else { return Ok(Content::default()) };
        let text = std::str::from_utf8(&bytes).map_err(|_not_text| self.damaged("it is not text"))?;
        let damaged = |error| self.damaged(&where_it_stopped(text, &error));
        // Behind its version a later one may have anything.
        let Version { version: found } = toml::from_str(text).map_err(damaged)?;
        if found > VERSION {
            let path = self.path.display();
            let newer = format!("{path} has format version {found}, but this program knows versions up to {VERSION}");
            return Err(
                Failure::new(Exit::Other, newer).hint("use a newer program, or --token-file; it was not changed")
            );
        }
        toml::from_str(text).map_err(damaged)
    }

    fn damaged(&self, why: &str) -> Failure {
        Failure::new(Exit::Other, format!("{} is not a credentials file: {why}", self.path.display()))
            .hint("correct it, or move it away and use --token-file; it was not changed")
    }
}

impl Content {
    fn find(&self, endpoint: &str, holder: Holder<'_>) -> Option<&Credential> {
        let known = self.endpoints.get(endpoint)?;
        match holder {
            Holder::Admin => known.admin.as_ref(),
            Holder::Tenant(tenant) => known.tenants.get(tenant.as_str()),
        }
    }
}

/// An endpoint, and the other names by which this machine knows the same port of itself. What is kept under one is never
/// sent to another machine by that.
fn spellings(endpoint: &str) -> Vec<String> {
    const LOOPBACK: [&str; 3] = ["127.0.0.1", "localhost", "[::1]"];
    let parts = endpoint.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once(':')?)));
    let mut all = vec![endpoint.to_owned()];
    if let Some((scheme, (host, port))) = parts.filter(|(_scheme, (host, _port))| LOOPBACK.contains(host)) {
        let others = LOOPBACK.iter().filter(|other| **other != host);
        all.extend(others.map(|other| format!("{scheme}://{other}:{port}")));
    }
    all
}

/// The line alone: the parser's own message may quote what it found there, and that may be a token.
fn where_it_stopped(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    format!("line {} cannot be understood", before.matches('\n').count() + 1)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn credential(token: &str) -> Credential {
        Credential { token: token.into(), cluster_id: "c".to_owned() }
    }

    fn found(file: &Credentials, endpoint: &str, holder: Holder<'_>) -> Option<String> {
        file.find(endpoint, holder).unwrap().map(|found| found.token.expose().to_owned())
    }

    #[test]
    fn tokens_are_kept_by_endpoint_and_holder_in_a_private_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = Credentials::at(folder.path().join("made/credentials.toml"));
        let (posts, likes): (TenantId, TenantId) = ("posts".parse().unwrap(), "likes".parse().unwrap());
        assert_eq!(found(&file, "http://a:1", Holder::Admin), None);
        file.save("http://a:1", Holder::Admin, credential("admin")).unwrap();
        file.save("http://a:1", Holder::Tenant(&posts), credential("one")).unwrap();
        file.save("http://b:1", Holder::Tenant(&posts), credential("two")).unwrap();
        assert_eq!(found(&file, "http://a:1", Holder::Admin).as_deref(), Some("admin"));
        assert_eq!(found(&file, "http://a:1", Holder::Tenant(&posts)).as_deref(), Some("one"));
        assert_eq!(found(&file, "http://a:1", Holder::Tenant(&likes)), None);
        file.forget("http://a:1", &posts).unwrap();
        assert_eq!(found(&file, "http://a:1", Holder::Tenant(&posts)), None);
        assert_eq!(found(&file, "http://b:1", Holder::Tenant(&posts)).as_deref(), Some("two"));
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(file.path()), mode(file.path().parent().unwrap())), (0o600, 0o700));
    }

    /// The token of `http://127.0.0.1:50051` was not found for `http://localhost:50051`.
    #[test]
    fn a_token_is_found_under_every_name_of_this_machine_for_the_same_port_and_under_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let file = Credentials::at(folder.path().join("credentials.toml"));
        let (tenant, other): (TenantId, TenantId) = ("posts".parse().unwrap(), "likes".parse().unwrap());
        let (posts, likes) = (Holder::Tenant(&tenant), Holder::Tenant(&other));
        file.save("http://127.0.0.1:7", posts, credential("one")).unwrap();
        file.save("http://example.org:7", likes, credential("far")).unwrap();
        for same in ["http://127.0.0.1:7", "http://localhost:7", "http://[::1]:7"] {
            assert_eq!(found(&file, same, posts).as_deref(), Some("one"), "{same}");
            assert_eq!(found(&file, same, likes), None, "{same}");
        }
        for other in ["https://localhost:7", "http://localhost:8", "http://example.org:7", "http://127.0.0.2:7"] {
            assert_eq!(found(&file, other, posts), None, "{other}");
        }
        // A new one takes its place under whatever name, and goes under whatever name.
        file.save("http://localhost:7", posts, credential("two")).unwrap();
        assert_eq!(found(&file, "http://127.0.0.1:7", posts).as_deref(), Some("two"));
        let another = Credential { cluster_id: "d".to_owned(), ..credential("three") };
        file.save("http://[::1]:7", posts, another).unwrap();
        assert_eq!(found(&file, "http://127.0.0.1:7", posts).as_deref(), Some("two"), "of another cluster");
        assert_eq!(found(&file, "http://[::1]:7", posts).as_deref(), Some("three"));
        file.forget("http://[::1]:7", &tenant).unwrap();
        file.forget("http://localhost:7", &tenant).unwrap();
        assert_eq!(found(&file, "http://127.0.0.1:7", posts), None);
    }

    #[test]
    fn a_damaged_file_is_named_without_its_tokens_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = Credentials::at(folder.path().join("credentials.toml"));
        for damaged in [
            "version = 1\ntoken = \"secret",
            "version = 1\n[endpoints]\na = \"secret\"",
            "\0",
            "endpoints = 3\nversion = 1",
        ] {
            folder::publish(file.path(), damaged.as_bytes()).unwrap();
            let failure = file.save("http://a:1", Holder::Admin, credential("new")).unwrap_err();
            let text = failure.to_string();
            assert!(text.contains("is not a credentials file") && !text.contains("secret"), "{text}");
            assert_eq!(std::fs::read_to_string(file.path()).unwrap(), damaged);
        }
    }

    #[test]
    fn a_file_of_a_later_version_is_refused_by_that_name_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = Credentials::at(folder.path().join("credentials.toml"));
        let later = "version = 2\nendpoints = \"elsewhere\"\n";
        folder::publish(file.path(), later.as_bytes()).unwrap();
        let failure = file.save("http://a:1", Holder::Admin, credential("new")).unwrap_err().to_string();
        assert!(failure.contains("format version 2, but this program knows versions up to 1"), "{failure}");
        assert_eq!(std::fs::read_to_string(file.path()).unwrap(), later);
    }

    #[test]
    fn many_writers_lose_no_entry() {
        let folder = tempfile::tempdir().unwrap();
        let file = Credentials::at(folder.path().join("credentials.toml"));
        std::thread::scope(|scope| {
            for writer in 0..8 {
                let file = &file;
                scope.spawn(move || {
                    file.save(&format!("http://h:{writer}"), Holder::Admin, credential("token")).unwrap();
                });
            }
        });
        for writer in 0..8 {
            assert!(found(&file, &format!("http://h:{writer}"), Holder::Admin).is_some());
        }
    }

    #[test]
    fn debug_hides_tokens() {
        assert!(!format!("{:?}", credential("secret")).contains("secret"));
    }
}

//! Registers a tenant, stores a file, reads it back, and compares.
//!
//! With `mini-tectonic-rs serve` running:
//!
//! ```sh
//! cargo run -p mini-tectonic-client --example roundtrip -- http://127.0.0.1:50051 storage/admin.token my-tenant FILE
//! ```

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use mini_tectonic_client::{Client, ClientConfig, DownloadOptions, Sha256, Sink, Source, TenantId, UploadOptions, pb};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [endpoint, admin_token_file, tenant, file] = arguments.as_slice() else {
        anyhow::bail!("usage: roundtrip ENDPOINT ADMIN_TOKEN_FILE TENANT FILE");
    };
    let said = roundtrip(endpoint, Path::new(admin_token_file), tenant.parse()?, PathBuf::from(file)).await?;
    writeln!(std::io::stdout(), "{said}").context("write to standard output")
}

async fn roundtrip(endpoint: &str, admin_token_file: &Path, tenant: TenantId, file: PathBuf) -> anyhow::Result<String> {
    // Tenants are registered with the admin token ...
    let admin_token = std::fs::read_to_string(admin_token_file).context("read the admin token")?;
    let admin = Client::new(ClientConfig::new(endpoint).with_token(admin_token))?;
    let registered = admin.register_tenant(&tenant, pb::Quota::default()).await?;

    // ... and their blobs are stored and read with the tenant's own.
    let client = Client::new(ClientConfig::new(endpoint).with_token(registered.token.as_str()))?;
    let options = UploadOptions { display_name: file.display().to_string(), ..UploadOptions::default() };
    let blob = client.upload(Source::File(file.clone()), options).await?;

    let folder = tempfile::tempdir().context("make a temporary folder")?;
    let copy = folder.path().join("copy");
    client.download(blob.blob_id, DownloadOptions::default(), Sink::File(copy.clone())).await?;
    ensure!(sha256_of(&copy)? == sha256_of(&file)?, "the copy differs");
    Ok(format!("{} has {} bytes and came back the same", blob.blob_id, blob.size_bytes))
}

fn sha256_of(path: &Path) -> anyhow::Result<Sha256> {
    let mut bytes = Vec::new();
    std::fs::File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)).context("read a file")?;
    Ok(Sha256::of(&bytes))
}

//! `put`: stores files and prints their ids, one per line in the order given; stops at the first that fails.

mod many;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use clap::Args;
use mini_tectonic_client::{Blob, Source, UploadOptions};

use crate::cli::args::TenantArg;
use crate::cli::class::ClassArg;
use crate::cli::context::{Context, Session};
use crate::cli::failure::{Exit, Failure};
use crate::cli::progress::Bar;
use crate::cli::units::parse_label;
use crate::cli::views::BlobView;

/// Store files, and print the id of each
#[derive(Debug, Args)]
pub(crate) struct Put {
    #[command(flatten)]
    tenant: TenantArg,
    /// The file to store; '-' for standard input. May be given several times.
    #[arg(short, long = "file", value_name = "PATH", required = true)]
    file: Vec<PathBuf>,
    /// The blob's display name; the file's own name when not given. For one file only.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// The blob's media type, for example image/png.
    #[arg(long, value_name = "TYPE", default_value = "", hide_default_value = true)]
    content_type: String,
    /// A label to put on the blob. May be given several times.
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_label)]
    label: Vec<(String, String)>,
    #[command(flatten)]
    class: ClassArg,
}

impl Put {
    /// Runs the command.
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        if self.name.is_some() && self.file.len() > 1 {
            return Err(Failure::new(Exit::Usage, "--name is for one file, but several are given"));
        }
        let labels = self.labels()?;
        let session = context.tenant_at(&self.tenant.tenant, self.class)?;
        if let [path] = self.file.as_slice() {
            let blob = self.put(context, &session, path, labels).await?;
            return print(context, &blob);
        }
        let options = UploadOptions { content_type: self.content_type.clone(), labels, ..UploadOptions::default() };
        many::put_all(&self, context, &session, &options).await
    }

    fn display_name(&self, path: &Path) -> String {
        self.name.clone().unwrap_or_else(|| display_name(path))
    }

    fn labels(&self) -> Result<BTreeMap<String, String>, Failure> {
        let labels: BTreeMap<_, _> = self.label.iter().cloned().collect();
        if labels.len() == self.label.len() {
            Ok(labels)
        } else {
            Err(Failure::new(Exit::Usage, "--label: the same key is given twice"))
        }
    }

    async fn put(
        &self,
        context: &Context,
        session: &Session<'_>,
        path: &Path,
        labels: BTreeMap<String, String>,
    ) -> Result<Blob, Failure> {
        let source = open(path)?;
        let bar = Bar::start(context, &spoken(path));
        let options = UploadOptions {
            display_name: self.display_name(path),
            content_type: self.content_type.clone(),
            labels,
            progress: Some(bar.callback()),
        };
        let stored = session.client.upload(source, options).await;
        stored.map_err(|error| session.failed(&format!("put of {}", spoken(path)), &error))
    }
}

fn is_standard(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Finds out what is wrong with a path before the service hears of it.
fn open(path: &Path) -> Result<Source, Failure> {
    let failed = |error: io::Error| Failure::local(format_args!("cannot read {}", path.display()), &error);
    if is_standard(path) {
        // The descriptor itself, past the small buffer of `Stdin`.
        let stdin = io::stdin().as_fd().try_clone_to_owned().map_err(failed)?;
        return Ok(Source::Reader(Box::new(File::from(stdin))));
    }
    if std::fs::metadata(path).map_err(failed)?.is_dir() {
        return Err(Failure::new(Exit::Other, format!("{} is a folder; put takes files", path.display())));
    }
    Ok(Source::File(path.to_path_buf()))
}

fn spoken(path: &Path) -> std::borrow::Cow<'_, str> {
    if is_standard(path) { "standard input".into() } else { path.to_string_lossy() }
}

fn display_name(path: &Path) -> String {
    let name = if is_standard(path) { None } else { path.file_name() };
    name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn print(context: &Context, blob: &Blob) -> Result<(), Failure> {
    if context.out.json() {
        context.out.object(&BlobView::from(blob))
    } else {
        context.out.line(&blob.blob_id.to_string())
    }
}

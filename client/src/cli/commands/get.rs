//! `get`: brings a blob, or a range of it, to a file or to standard output. Every byte was verified before it is written.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use clap::Args;
use mini_tectonic_client::{ByteRange, DownloadOptions, Reason, Sink};

use crate::cli::args::{BlobArg, TenantArg};
use crate::cli::class::ClassArg;
use crate::cli::context::{Context, Session};
use crate::cli::failure::{Exit, Failure};
use crate::cli::progress::Bar;
use crate::cli::units::parse_range;
use crate::cli::views::BlobView;

/// Get a blob's bytes back, verified
#[derive(Debug, Args)]
pub(crate) struct Get {
    #[command(flatten)]
    tenant: TenantArg,
    #[command(flatten)]
    blob: BlobArg,
    /// Where to; '-' or nothing for standard output. A file appears only once everything has been verified.
    #[arg(short, long, value_name = "PATH")]
    output: Option<PathBuf>,
    /// Only these bytes, counted from 0, both included, as in HTTP: '0-99'; '100-' goes to the end.
    #[arg(long, value_name = "A-B", value_parser = parse_range)]
    range: Option<ByteRange>,
    #[command(flatten)]
    class: ClassArg,
}

impl Get {
    /// Runs the command.
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let session = context.tenant_at(&self.tenant.tenant, self.class)?;
        self.refuse_range_behind_the_end(&session).await?;
        let target = self.output.as_deref().filter(|path| path.as_os_str() != "-");
        let sink = target.map_or_else(standard_output, open)?;
        let bar = Bar::start(context, &target.map_or_else(|| "get".into(), Path::to_string_lossy));
        let options = DownloadOptions { range: self.range.unwrap_or_default(), progress: Some(bar.callback()) };
        let got = session.client.download(self.blob.blob, options, sink).await;
        drop(bar);
        let got = got.map_err(|error| session.failed("get", &error))?;
        if target.is_some() && context.out.json() { context.out.object(&BlobView::from(&got.blob)) } else { Ok(()) }
    }
}

impl Get {
    /// As HTTP has it, a range begins with one of the blob's bytes. For the library one that begins where the blob ends is
    /// empty, so that a reader may go on until there is nothing more.
    async fn refuse_range_behind_the_end(&self, session: &Session<'_>) -> Result<(), Failure> {
        let Some(ByteRange { offset, .. }) = self.range else { return Ok(()) };
        let blob = session.client.get_blob(self.blob.blob).await.map_err(|error| session.failed("get", &error))?;
        if offset < blob.size_bytes {
            return Ok(());
        }
        let (id, reason) = (self.blob.blob, Reason::ReadOffsetOutOfRange.as_str());
        let size = blob.size_bytes;
        let message =
            format!("get failed: blob {id} has {size} bytes, but the range begins with byte {offset} ({reason})");
        Err(Failure::new(Exit::Other, message).hint("bytes are counted from 0"))
    }
}

/// The descriptor itself: the buffer of `Stdout` looks for line ends, which bytes do not have.
fn standard_output() -> Result<Sink, Failure> {
    let stdout = io::stdout().as_fd().try_clone_to_owned()?;
    Ok(Sink::Writer(Box::new(File::from(stdout))))
}

/// A file is replaced as a whole at the end; a device or a pipe is written to.
fn open(path: &Path) -> Result<Sink, Failure> {
    let failed = |error: io::Error| Failure::local(format_args!("cannot write {}", path.display()), &error);
    match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => {
            Err(Failure::new(Exit::Other, format!("cannot write {}: it is a folder", path.display())))
        }
        // The file behind a symbolic link is meant, not the link.
        Ok(found) if found.is_file() => Ok(Sink::File(std::fs::canonicalize(path).map_err(failed)?)),
        Ok(_device_or_pipe) => Ok(Sink::File(path.to_path_buf())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Sink::File(path.to_path_buf())),
        Err(error) => Err(failed(error)),
    }
}

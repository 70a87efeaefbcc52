//! One kind of load: a process of its own, so that it can be given a lower priority.
//!
//! It prints `begun` once it is under way and, at its end, one line with what came of it: operations, bytes, and the
//! times of an operation in microseconds.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum};
use mini_tectonic_client::{Blob, BlobId, Client, ClientConfig, DownloadOptions, Sink, Source, UploadOptions};
use tokio::task::JoinSet;
use tokio::time::Instant;

const SMALL_BYTES: usize = 4096;
const LARGE_BYTES: usize = 64 * 1024 * 1024;
/// Small blobs that are read in turn.
const SMALL_BLOBS: usize = 64;
/// Large operations at once.
const LARGE_AT_ONCE: usize = 2;
/// Between two small operations.
const PAUSE: Duration = Duration::from_millis(5);

/// What is done all the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Reads of 4 KiB, one after the other.
    GoldReads,
    /// Durable writes of 4 KiB, one after the other.
    GoldWrites,
    /// Puts of 64 MiB, two at once; each blob is deleted again.
    BronzePuts,
    /// Gets of 64 MiB, two at once.
    BronzeGets,
}

impl Kind {
    /// Its word on the command line.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::GoldReads => "gold-reads",
            Self::GoldWrites => "gold-writes",
            Self::BronzePuts => "bronze-puts",
            Self::BronzeGets => "bronze-gets",
        }
    }

    /// Whose load it is.
    pub(crate) fn tenant(self) -> &'static str {
        match self {
            Self::GoldReads | Self::GoldWrites => "gold",
            Self::BronzePuts | Self::BronzeGets => "bronze",
        }
    }

    fn bytes(self) -> usize {
        match self {
            Self::GoldReads | Self::GoldWrites => SMALL_BYTES,
            Self::BronzePuts | Self::BronzeGets => LARGE_BYTES,
        }
    }

    fn at_once(self) -> usize {
        match self {
            Self::GoldReads | Self::GoldWrites => 1,
            Self::BronzePuts | Self::BronzeGets => LARGE_AT_ONCE,
        }
    }

    /// Blobs that must be there.
    fn prepared(self) -> usize {
        match self {
            Self::GoldReads => SMALL_BLOBS,
            Self::BronzeGets => LARGE_AT_ONCE,
            Self::GoldWrites | Self::BronzePuts => 0,
        }
    }
}

/// Makes one kind of load
#[derive(Debug, Args)]
pub(crate) struct Load {
    /// What to do
    #[arg(long)]
    kind: Kind,
    /// URL of the metadata service
    #[arg(long)]
    endpoint: String,
    /// File with the tenant's token
    #[arg(long)]
    token_file: PathBuf,
    /// A folder for what is put
    #[arg(long)]
    scratch: PathBuf,
    /// Milliseconds before anything is measured
    #[arg(long)]
    warm_up_ms: u64,
    /// Milliseconds that are measured
    #[arg(long)]
    lasts_ms: u64,
}

impl Load {
    /// Runs it.
    pub(crate) async fn run(&self) -> Result<()> {
        let token = std::fs::read_to_string(&self.token_file).context("read the token")?;
        let client = Client::new(ClientConfig::new(&self.endpoint).with_token(token))?;
        let source = self.source()?;
        let mut blobs = Vec::new();
        for _ in 0..self.kind.prepared() {
            blobs.push(put(&client, &source).await?);
        }
        writeln!(std::io::stdout(), "begun")?;
        let from = Instant::now() + Duration::from_millis(self.warm_up_ms);
        let job = Arc::new(Job { kind: self.kind, client, source, blobs });
        let until = from + Duration::from_millis(self.lasts_ms);
        let mut clients = JoinSet::new();
        for number in 0..self.kind.at_once() {
            clients.spawn(Arc::clone(&job).repeat(number, from, until));
        }
        let mut times = Vec::new();
        while let Some(done) = clients.join_next().await {
            times.extend(done??);
        }
        say(&mut times, self.kind.bytes())
    }

    /// A file to put, of bytes that no disk can make smaller.
    fn source(&self) -> Result<PathBuf> {
        let path = self.scratch.join(self.kind.word());
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut word = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_be_bytes()
        };
        let bytes: Vec<u8> = std::iter::repeat_with(&mut word).take(self.kind.bytes() / 8).flatten().collect();
        let mut file = std::fs::File::options().write(true).create(true).truncate(true).open(&path)?;
        file.write_all(&bytes)?;
        Ok(path)
    }
}

async fn put(client: &Client, source: &Path) -> Result<Blob> {
    Ok(client.upload(Source::File(source.to_path_buf()), UploadOptions::default()).await?)
}

struct Job {
    kind: Kind,
    client: Client,
    source: PathBuf,
    blobs: Vec<Blob>,
}

impl Job {
    /// Times of the operations that ended between two instants.
    async fn repeat(self: Arc<Self>, number: usize, from: Instant, until: Instant) -> Result<Vec<Duration>> {
        let (mut times, mut serial) = (Vec::new(), number);
        while Instant::now() < until {
            let began = Instant::now();
            let blob = self.once(serial).await?;
            let ended = Instant::now();
            if ended >= from && ended < until {
                times.push(ended - began);
            }
            match (self.kind, blob) {
                (Kind::BronzePuts, Some(blob)) => self.client.delete_blob(blob.blob_id).await?,
                (Kind::BronzePuts | Kind::BronzeGets, _) => {}
                (Kind::GoldReads | Kind::GoldWrites, _) => tokio::time::sleep(PAUSE).await,
            }
            serial += 1;
        }
        Ok(times)
    }

    /// One operation; a put returns its blob.
    async fn once(&self, serial: usize) -> Result<Option<Blob>> {
        match self.kind {
            Kind::GoldWrites | Kind::BronzePuts => return put(&self.client, &self.source).await.map(Some),
            Kind::GoldReads => {
                let (_blob, bytes) = self.client.read(self.blob(serial)?, self.kind.bytes() as u64).await?;
                ensure!(bytes.len() == self.kind.bytes(), "a read ended early");
            }
            Kind::BronzeGets => {
                let sink = Sink::Writer(Box::new(std::io::sink()));
                let read = self.client.download(self.blob(serial)?, DownloadOptions::default(), sink).await?;
                ensure!(read.bytes == self.kind.bytes() as u64, "a read ended early");
            }
        }
        Ok(None)
    }

    fn blob(&self, serial: usize) -> Result<BlobId> {
        self.blobs.get(serial % self.blobs.len().max(1)).map(|blob| blob.blob_id).context("a blob to read")
    }
}

fn say(times: &mut [Duration], bytes: usize) -> Result<()> {
    times.sort_unstable();
    let at = |of_100: usize| times.get((times.len() * of_100).div_ceil(100).saturating_sub(1));
    let us = |time: Option<&Duration>| time.map_or(0, Duration::as_micros);
    let (count, moved) = (times.len(), times.len() * bytes);
    let line = format!("{count} {moved} {} {} {}", us(at(50)), us(at(99)), us(times.last()));
    Ok(writeln!(std::io::stdout(), "{line}")?)
}

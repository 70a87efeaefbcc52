//! The hostile side: one process with a low priority that runs the attacks it is told to, one after the other.
//!
//! It reads names of attacks from its standard input and prints one line for each when it is over: `+` and what was seen,
//! or `-` and what was wrong. An attack checks for itself that it was answered as it has to be.

mod batches;
mod call;
mod capabilities;
mod connections;
mod http2;
mod messages;
mod streams;
mod tenants;
mod wire;

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use clap::{Args, ValueEnum};
use futures_util::future::LocalBoxFuture;
use mini_tectonic_client::{BlobId, Client, ClientConfig, Source, UploadOptions};
use proto::pb;
use proto::pb::metadata_service_client::MetadataServiceClient;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tonic::Request;
use tonic::transport::Channel;

pub(crate) use self::tenants::{SMALL_UPLOAD_BYTES, SMALL_UPLOADS};
use crate::services::Times;

/// Bytes of the blob that the hostile tenant reads: more than all buffers on its way hold.
const BLOB_BYTES: usize = 16 << 20;

/// One entry of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Attack {
    SilentConnections,
    HalfSaid,
    HalfTls,
    IdleStreams,
    RapidResets,
    MadeResets,
    Continuations,
    HeaderBomb,
    Pings,
    Settings,
    EmptyFrames,
    SmallFrames,
    SlowRequests,
    SlowUploads,
    NeverReads,
    DeafReaders,
    UntakenBatches,
    OddBatches,
    LongPrefix,
    Compressed,
    WrongFrames,
    WrongSizes,
    OddMessages,
    OddIds,
    Pages,
    Capabilities,
    TwoCredentials,
    RacingUploads,
    QuotaEdge,
    Unauthenticated,
}

impl Attack {
    /// Its name in the table and on the command line.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Runs it. Returns what was seen.
    fn run(self, target: &Target) -> LocalBoxFuture<'_, Result<String>> {
        match self {
            Self::SilentConnections => Box::pin(connections::silent(target)),
            Self::HalfSaid => Box::pin(connections::half_said(target)),
            Self::HalfTls => Box::pin(connections::half_tls(target)),
            Self::IdleStreams => Box::pin(connections::idle_streams(target)),
            Self::RapidResets => Box::pin(http2::rapid_resets(target)),
            Self::MadeResets => Box::pin(http2::made_resets(target)),
            Self::Continuations => Box::pin(http2::continuations(target)),
            Self::HeaderBomb => Box::pin(http2::header_bomb(target)),
            Self::Pings => Box::pin(http2::pings(target)),
            Self::Settings => Box::pin(http2::settings(target)),
            Self::EmptyFrames => Box::pin(http2::empty_frames(target)),
            Self::SmallFrames => Box::pin(streams::small_frames(target)),
            Self::SlowRequests => Box::pin(connections::slow_requests(target)),
            Self::SlowUploads => Box::pin(streams::slow_uploads(target)),
            Self::NeverReads => Box::pin(streams::never_reads(target)),
            Self::DeafReaders => Box::pin(http2::deaf(target)),
            Self::UntakenBatches => Box::pin(batches::untaken(target)),
            Self::OddBatches => Box::pin(batches::odd(target)),
            Self::LongPrefix => Box::pin(messages::long_prefix(target)),
            Self::Compressed => Box::pin(messages::compressed(target)),
            Self::WrongFrames => Box::pin(streams::wrong_frames(target)),
            Self::WrongSizes => Box::pin(streams::wrong_sizes(target)),
            Self::OddMessages => Box::pin(messages::odd(target)),
            Self::OddIds => Box::pin(messages::odd_ids(target)),
            Self::Pages => Box::pin(messages::pages(target)),
            Self::Capabilities => Box::pin(capabilities::altered(target)),
            Self::TwoCredentials => Box::pin(capabilities::two_credentials(target)),
            Self::RacingUploads => Box::pin(streams::racing_uploads(target)),
            Self::QuotaEdge => Box::pin(tenants::quota_edge(target)),
            Self::Unauthenticated => Box::pin(tenants::unauthenticated(target)),
        }
    }
}

/// Runs the attacks that are named on standard input
#[derive(Debug, Args)]
pub(crate) struct Hostile {
    /// Address of the metadata service
    #[arg(long)]
    metadata: SocketAddr,
    /// Address of the chunk service
    #[arg(long)]
    chunk: SocketAddr,
    /// The services' storage folder: forged capabilities are signed with the node's own key, which no stranger has
    #[arg(long)]
    storage: PathBuf,
    /// File with the hostile tenant's token
    #[arg(long)]
    token_file: PathBuf,
    /// File with the token of a tenant whose quota is small
    #[arg(long)]
    small_token_file: PathBuf,
    /// How long an attack goes on
    #[arg(long)]
    lasts_ms: u64,
    /// With everything that the long form has
    #[arg(long)]
    long: bool,
    /// The services have few descriptors, and so few places for connections
    #[arg(long)]
    few_descriptors: bool,
}

impl Hostile {
    /// Runs attacks until nobody names one more.
    pub(crate) async fn run(&self) -> Result<()> {
        proto::runtime::process::prepare();
        let target = self.target().await?;
        writeln!(std::io::stdout(), "+ ready")?;
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        while let Some(name) = lines.next_line().await? {
            let Ok(attack) = Attack::from_str(&name, false) else { bail!("{name:?} is no attack") };
            match attack.run(&target).await {
                Ok(seen) => writeln!(std::io::stdout(), "+ {seen}")?,
                Err(error) => writeln!(std::io::stdout(), "- {}", format!("{error:#}").replace('\n', " "))?,
            }
        }
        Ok(())
    }

    async fn target(&self) -> Result<Target> {
        let read = |path| anyhow::Ok(std::fs::read_to_string(path).context("read a token")?.trim().to_owned());
        let token: String = read(&self.token_file)?;
        let client = Client::new(ClientConfig::new(format!("http://{}", self.metadata)).with_token(&token))?;
        let source = Source::Reader(Box::new(std::io::Cursor::new(vec![7; BLOB_BYTES])));
        let blob = client.upload(source, UploadOptions::default()).await?.blob_id;
        Ok(Target {
            metadata: self.metadata,
            chunk: self.chunk,
            storage: self.storage.clone(),
            token,
            small_token: read(&self.small_token_file)?,
            blob,
            client,
            lasts: Duration::from_millis(self.lasts_ms),
            long: self.long,
            few_descriptors: self.few_descriptors,
            times: Times::new(self.long),
        })
    }
}

/// What is attacked, and what the attacker has: a tenant's token, like everybody.
#[derive(Debug)]
pub(crate) struct Target {
    metadata: SocketAddr,
    chunk: SocketAddr,
    storage: PathBuf,
    token: String,
    small_token: String,
    /// A blob of that tenant.
    blob: BlobId,
    /// The same tenant as a client in good order.
    client: Client,
    lasts: Duration,
    long: bool,
    few_descriptors: bool,
    times: Times,
}

impl Target {
    /// Both services in turn.
    fn either(&self, turn: usize) -> SocketAddr {
        if turn.is_multiple_of(2) { self.chunk } else { self.metadata }
    }

    fn metadata_channel(&self, number: usize) -> Result<Channel> {
        call::channel(wire::address(number), self.metadata)
    }

    fn chunk_channel(&self, number: usize) -> Result<Channel> {
        call::channel(wire::address(number), self.chunk)
    }

    /// Begins an upload of one block, and returns where its chunk goes.
    async fn plan_write(&self, size_bytes: u64) -> Result<Plan> {
        let message = pb::StartUploadRequest { size_bytes: Some(size_bytes), ..Default::default() };
        let mut service = MetadataServiceClient::new(self.metadata_channel(0)?);
        let started = service.start_upload(bearing(message, &self.token)).await?.into_inner();
        let upload = started.upload.context("an upload")?;
        let block = started.blocks.into_iter().next().context("a block")?;
        let chunk = block.chunks.into_iter().next().context("a chunk")?;
        Ok(Plan { blob: upload.blob_id, chunk: chunk.chunk_id, capability: chunk.capability, size_bytes })
    }

    /// A chunk of our blob, and what permits to read it.
    async fn plan_read(&self) -> Result<Plan> {
        self.plan_read_of(self.blob).await
    }

    /// The same of any blob of ours.
    async fn plan_read_of(&self, blob: BlobId) -> Result<Plan> {
        let message = pb::GetBlobLayoutRequest { blob_id: blob.to_string(), ..Default::default() };
        let mut service = MetadataServiceClient::new(self.metadata_channel(0)?);
        let layout = service.get_blob_layout(bearing(message, &self.token)).await?.into_inner();
        let block = layout.blocks.into_iter().next().context("a block")?;
        let chunk = block.chunks.into_iter().next().context("a chunk")?;
        let blob = blob.to_string();
        Ok(Plan { blob, chunk: chunk.chunk_id, capability: chunk.capability, size_bytes: chunk.size_bytes })
    }

    /// Gives an upload up.
    async fn abort(&self, plan: &Plan) -> Result<()> {
        let message = pb::AbortUploadRequest { blob_id: plan.blob.clone(), ..Default::default() };
        let mut service = MetadataServiceClient::new(self.metadata_channel(0)?);
        service.abort_upload(bearing(message, &self.token)).await?;
        Ok(())
    }
}

/// What is needed to write or read a chunk.
#[derive(Debug, Clone)]
struct Plan {
    blob: String,
    chunk: String,
    capability: String,
    size_bytes: u64,
}

/// A request with a credential.
fn bearing<T>(message: T, credential: &str) -> Request<T> {
    let mut request = Request::new(message);
    // What is no header at all goes as none.
    if let Ok(value) = format!("Bearer {credential}").parse() {
        request.metadata_mut().insert("authorization", value);
    }
    request
}

/// Bytes that are different everywhere.
pub(crate) fn pattern(size: usize) -> Bytes {
    let mut bytes = vec![0; size];
    proto::entropy::Entropy::fill(&proto::entropy::SeededEntropy::new(size as u64), &mut bytes);
    bytes.into()
}

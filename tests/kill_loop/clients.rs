//! The load: clients that put, read, list and delete all the time, and note in the ledger what they do.
//!
//! Half of them are patient: their calls go on across a restart, as the client library does by default. The others take
//! the first failure for an answer. Each touches blobs of its own only, told by a prefix of their names, so that it knows
//! what it must find.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures_util::TryStreamExt as _;
use mini_tectonic_client::{
    Blob, Category, Client, ClientConfig, DownloadOptions, Error, ListOptions, RetryPolicy, Sink, Source,
    UploadOptions, pb,
};
use proto::pb::metadata_service_client::MetadataServiceClient;
use tonic::transport::Channel;
use tonic::{Code, Request};

use crate::content::Content;
use crate::ledger::{Held, Ledger, Violation};
use crate::random::Random;

/// Clients at once.
pub(crate) const CLIENTS: u64 = 16;
/// With more blobs than this a client deletes rather than puts.
const HELD_MAX: usize = 24;
/// Pause after a failure, so that an impatient client does not spin.
const PAUSE: Duration = Duration::from_millis(10);

/// What all clients share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Where to dial.
    pub(crate) endpoint: String,
    /// The tenant's token.
    pub(crate) token: String,
    /// The oracle.
    pub(crate) ledger: Ledger,
    /// Metadata processes so far.
    pub(crate) life: AtomicU64,
    /// Nothing new is begun once it is set.
    pub(crate) stop: AtomicBool,
    /// For files to put.
    pub(crate) scratch: PathBuf,
}

impl Shared {
    /// A client of the tenant.
    pub(crate) fn client(&self, retry: RetryPolicy) -> Result<Client> {
        Ok(Client::new(ClientConfig::new(&self.endpoint).with_token(&self.token).with_retry(retry))?)
    }

    fn life(&self) -> u64 {
        self.life.load(Ordering::SeqCst)
    }
}

/// Goes on for as long as a restart may take, and notices soon that it is over.
pub(crate) fn patient() -> RetryPolicy {
    let (first_contact, unreachable) = (Duration::from_secs(60), Duration::from_secs(60));
    let (pause_min, pause_max) = (Duration::from_millis(5), Duration::from_millis(50));
    RetryPolicy { first_contact, unreachable, repeats_max: 10_000, pause_min, pause_max }
}

/// One client.
#[derive(Debug)]
pub(crate) struct Worker {
    shared: Arc<Shared>,
    client: Client,
    prefix: String,
    serial: u64,
    random: Random,
}

impl Worker {
    /// The client of this number.
    pub(crate) fn new(shared: &Arc<Shared>, number: u64, seed: u64) -> Result<Self> {
        let retry = if number.is_multiple_of(2) { patient() } else { RetryPolicy::never() };
        Ok(Self {
            shared: Arc::clone(shared),
            client: shared.client(retry)?,
            prefix: format!("c{number:02}-"),
            serial: 0,
            random: Random::new(seed ^ number.rotate_left(32)),
        })
    }

    /// Works until it is told to stop, and waits until what it gave up is given up at the service too.
    pub(crate) async fn run(mut self) -> Self {
        while !self.shared.stop.load(Ordering::SeqCst) {
            let failed = self.step().await.is_err();
            if failed {
                tokio::time::sleep(PAUSE).await;
            }
        }
        self.client.settle(Duration::from_secs(5)).await;
        self
    }

    /// One operation. An error is one that a kill explains; any other is noted as a violation.
    async fn step(&mut self) -> Result<()> {
        let held = self.shared.ledger.held(&self.prefix);
        let full = held.len() > HELD_MAX;
        let blob = self.random.pick(&held).cloned();
        match (self.random.below(100), blob) {
            (0..40, _) if !full => self.put_file().await,
            (40..65, _) if !full => self.put_stream().await,
            (65..70, _) if !full => self.abandon().await,
            (70..72, _) => self.forsake().await,
            (72..80, Some(blob)) => self.read(&blob).await,
            (80..85, _) => self.list(&held).await,
            (_, Some(blob)) => self.delete(&blob).await,
            (_, None) => self.put_stream().await,
        }
    }

    fn next_blob(&mut self) -> (String, Content) {
        self.serial += 1;
        let size = match self.random.below(100) {
            0..10 => 0,
            10..25 => self.random.below(100),
            25..75 => self.random.below(32 * 1024),
            75..95 => self.random.below(256 * 1024),
            95..99 => self.random.below(1024 * 1024),
            _ => self.random.below(4 * 1024 * 1024),
        };
        let content = Content { size, seed: self.random.draw() };
        (format!("{}{:08}-{size}", self.prefix, self.serial), content)
    }

    /// A file: its size is known.
    async fn put_file(&mut self) -> Result<()> {
        let (name, content) = self.next_blob();
        let path = self.shared.scratch.join(&name);
        let mut file = std::fs::File::options().write(true).create_new(true).open(&path)?;
        std::io::copy(&mut content.reader(), &mut file)?;
        let outcome = self.put(&name, content, Source::File(path.clone())).await;
        std::fs::remove_file(path)?;
        outcome
    }

    /// A stream: its size is not known, and it can be read only once.
    async fn put_stream(&mut self) -> Result<()> {
        let (name, content) = self.next_blob();
        self.put(&name, content, Source::Reader(Box::new(content.reader()))).await
    }

    async fn put(&self, name: &str, content: Content, source: Source) -> Result<()> {
        let ledger = &self.shared.ledger;
        ledger.begin_put(name, content);
        let options = UploadOptions { display_name: name.to_owned(), ..UploadOptions::default() };
        match self.client.upload(source, options).await {
            Ok(blob) => {
                if blob.size_bytes != content.size {
                    ledger.violated(Violation::Partial, format!("{name} was acknowledged as {blob:?}"));
                }
                ledger.stored(name, blob.blob_id);
                Ok(())
            }
            Err(error) => {
                let unsettled = matches!(error, Error::Unsettled { .. });
                if unsettled {
                    ledger.put_unknown(name, self.shared.life())
                } else {
                    ledger.refused(name)
                }
                self.explained(&format!("put {name}"), error)
            }
        }
    }

    /// A put that its caller gives up half-way.
    async fn abandon(&mut self) -> Result<()> {
        let (name, content) = self.next_blob();
        let ledger = &self.shared.ledger;
        ledger.begin_put(&name, content);
        let options = UploadOptions { display_name: name.clone(), ..UploadOptions::default() };
        let patience = Duration::from_micros(self.random.below(30_000));
        let upload = self.client.upload(Source::Reader(Box::new(content.reader())), options);
        match tokio::time::timeout(patience, upload).await {
            Ok(Ok(blob)) => ledger.stored(&name, blob.blob_id),
            Ok(Err(_)) | Err(_) => ledger.put_unknown(&name, self.shared.life()),
        }
        Ok(())
    }

    /// An upload whose writer is never heard of again: its lease must end it.
    async fn forsake(&mut self) -> Result<()> {
        let message = pb::StartUploadRequest {
            display_name: format!("{}forsaken", self.prefix),
            size_bytes: Some(self.random.below(200_000)),
            ..Default::default()
        };
        self.service().await?.start_upload(self.authorized(message)?).await?;
        Ok(())
    }

    /// Reads a blob that must be there, and compares every byte.
    pub(crate) async fn read(&self, blob: &Held) -> Result<()> {
        read_back(&self.shared.ledger, &self.client, blob).await.or_else(|error| self.explained("read", error))
    }

    /// Every blob of this client that was stored before must be listed.
    async fn list(&self, held: &[Held]) -> Result<()> {
        let options = ListOptions { prefix: self.prefix.clone(), page_size: 10, ..ListOptions::default() };
        let listing: Result<Vec<Blob>, Error> = self.client.list_blobs(options).try_collect().await;
        let listing = match listing {
            Ok(listing) => listing,
            Err(error) => return self.explained("list", error),
        };
        for missing in held.iter().filter(|held| !listing.iter().any(|blob| blob.blob_id == held.blob)) {
            self.shared.ledger.violated(Violation::Lost, format!("{} is not listed", missing.name));
        }
        Ok(())
    }

    /// Deletes a blob, and now and then restores it.
    async fn delete(&mut self, blob: &Held) -> Result<()> {
        let restored = self.random.below(4) == 0;
        let ledger = &self.shared.ledger;
        ledger.begin_delete(&blob.name);
        match self.client.delete_blob(blob.blob).await {
            Ok(()) => {
                ledger.deleted(&blob.name);
                if restored { self.undelete(blob).await } else { Ok(()) }
            }
            Err(error) => {
                ledger.delete_unknown(&blob.name, self.shared.life());
                self.explained(&format!("delete {}", blob.name), error)
            }
        }
    }

    /// Long before it may be collected.
    async fn undelete(&self, blob: &Held) -> Result<()> {
        let mut service = self.service().await?;
        let ledger = &self.shared.ledger;
        ledger.begin_undelete(blob);
        let message = pb::UndeleteBlobRequest { blob_id: blob.blob.to_string(), ..Default::default() };
        match service.undelete_blob(self.authorized(message)?).await {
            Ok(_) => ledger.undeleted(&blob.name),
            Err(status) => {
                ledger.put_unknown(&blob.name, self.shared.life());
                if matches!(status.code(), Code::NotFound | Code::FailedPrecondition) {
                    ledger.violated(Violation::Lost, format!("{} cannot be restored: {status:?}", blob.name));
                }
            }
        }
        Ok(())
    }

    /// For calls that the client library does not make like this.
    async fn service(&self) -> Result<MetadataServiceClient<Channel>> {
        Ok(MetadataServiceClient::connect(self.shared.endpoint.clone()).await?)
    }

    fn authorized<M>(&self, message: M) -> Result<Request<M>> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", format!("Bearer {}", self.shared.token).parse()?);
        Ok(request)
    }

    /// A service that was killed is unavailable; nothing else may happen.
    fn explained(&self, what: &str, error: Error) -> Result<()> {
        if error.category() != Category::Unavailable {
            self.shared.ledger.violated(Violation::Other, format!("{what}: {error:?}"));
        }
        Err(error).context("a service was killed")
    }
}

/// Downloads a blob and compares it. What the services answer wrongly is noted; what they do not answer is returned.
pub(crate) async fn read_back(ledger: &Ledger, client: &Client, blob: &Held) -> Result<(), Error> {
    let (comparison, compared) = blob.content.comparison();
    let outcome = client.download(blob.blob, DownloadOptions::default(), Sink::Writer(Box::new(comparison))).await;
    if compared.is_wrong() || (outcome.is_ok() && !compared.is_whole()) {
        ledger.violated(Violation::Partial, format!("{} has other bytes: {outcome:?}", blob.name));
    }
    match outcome {
        Ok(_) => {
            ledger.read();
            Ok(())
        }
        Err(error) if error.category() == Category::NotFound || error.category() == Category::DataLoss => {
            ledger.violated(Violation::Lost, format!("{} cannot be read: {error:?}", blob.name));
            Ok(())
        }
        Err(error) => Err(error),
    }
}

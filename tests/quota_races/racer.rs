//! The load: clients that want more than there is, and do to their uploads and blobs whatever changes a quota's use.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use kill_loop::random::Random;
use mini_tectonic_client::{BlobId, Category, Client, ClientConfig, Error, RetryPolicy, Source, UploadOptions, pb};
use proto::checksum::Sha256;
use proto::error::Reason;
use proto::pb::metadata_service_client::MetadataServiceClient;
use proto::status::from_status;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use crate::figures::{Figures, Outcome};

/// Clients at once.
pub(crate) const RACERS: u64 = 64;
/// What they put.
pub(crate) const SIZES: [u64; 6] = [0, 1, 999, 20_000, 40_000, 60_000];
/// Pause after a failure, so that nobody spins while a service is away.
const PAUSE: Duration = Duration::from_millis(10);

/// What all share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) endpoint: String,
    pub(crate) token: String,
    pub(crate) figures: Figures,
    /// Nothing new is begun once it is set.
    pub(crate) stop: AtomicBool,
    /// Files of [`SIZES`], named by them.
    pub(crate) files: PathBuf,
}

impl Shared {
    /// A client of the tenant.
    pub(crate) fn client(&self, retry: RetryPolicy) -> Result<Client> {
        Ok(Client::new(ClientConfig::new(&self.endpoint).with_token(&self.token).with_retry(retry))?)
    }

    /// The same calls without a library, for what it does not do.
    pub(crate) fn caller(&self) -> Result<Caller> {
        let service = MetadataServiceClient::new(Endpoint::from_shared(self.endpoint.clone())?.connect_lazy());
        Ok(Caller { service, authorization: format!("Bearer {}", self.token).parse()? })
    }
}

/// Goes on for as long as a restart may take.
pub(crate) fn patient() -> RetryPolicy {
    let (first_contact, unreachable) = (Duration::from_secs(60), Duration::from_secs(60));
    let (pause_min, pause_max) = (Duration::from_millis(5), Duration::from_millis(50));
    RetryPolicy { first_contact, unreachable, repeats_max: 10_000, pause_min, pause_max }
}

/// Makes single calls.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    service: MetadataServiceClient<Channel>,
    authorization: MetadataValue<Ascii>,
}

impl Caller {
    fn request<M>(&self, message: M) -> Request<M> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", self.authorization.clone());
        request
    }

    /// Starts an upload; returns its id.
    pub(crate) async fn start(&self, name: String, size_bytes: Option<u64>) -> Result<String, Status> {
        let message = pb::StartUploadRequest { display_name: name, size_bytes, ..Default::default() };
        let answer = self.service.clone().start_upload(self.request(message)).await?.into_inner();
        Ok(answer.upload.map(|upload| upload.blob_id).unwrap_or_default())
    }

    async fn allocate(&self, blob_id: String, first_block_index: u64) -> Result<(), Status> {
        let message = pb::AllocateBlocksRequest { blob_id, first_block_index, block_count: 8, ..Default::default() };
        self.service.clone().allocate_blocks(self.request(message)).await.map(drop)
    }

    async fn commit_nothing(&self, blob_id: String) -> Result<(), Status> {
        let sha256 = Sha256::of(b"").to_string();
        let message = pb::CommitUploadRequest { blob_id, size_bytes: 0, sha256, ..Default::default() };
        self.service.clone().commit_upload(self.request(message)).await.map(drop)
    }

    /// Gives an upload up.
    pub(crate) async fn abort(&self, blob_id: String) -> Result<(), Status> {
        let message = pb::AbortUploadRequest { blob_id, ..Default::default() };
        self.service.clone().abort_upload(self.request(message)).await.map(drop)
    }
}

/// One client. Half of them go on across a restart, the others take the first failure for an answer.
#[derive(Debug)]
pub(crate) struct Racer {
    shared: Arc<Shared>,
    client: Client,
    caller: Caller,
    random: Random,
    prefix: String,
    stored: Vec<BlobId>,
    deleted: Vec<BlobId>,
}

impl Racer {
    pub(crate) fn new(shared: &Arc<Shared>, number: u64, seed: u64) -> Result<Self> {
        let retry = if number.is_multiple_of(2) { patient() } else { RetryPolicy::never() };
        Ok(Self {
            shared: Arc::clone(shared),
            client: shared.client(retry)?,
            caller: shared.caller()?,
            random: Random::new(seed ^ number.rotate_left(32)),
            prefix: format!("racer {number:02}"),
            stored: Vec::new(),
            deleted: Vec::new(),
        })
    }

    /// What its blobs are called.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Is told what it has stored, also where it got no answer.
    pub(crate) fn told(&mut self, stored: Vec<BlobId>) {
        self.stored = stored;
    }

    /// Works until it is told to stop, and waits until what it gave up is given up at the service too.
    pub(crate) async fn run(mut self) -> Self {
        while !self.shared.stop.load(Ordering::SeqCst) {
            match self.step().await {
                Outcome::Away => tokio::time::sleep(PAUSE).await,
                // Makes room, so that there is something to race for.
                Outcome::Refused => drop(self.delete().await),
                Outcome::Done | Outcome::TooLate => {}
            }
        }
        self.client.settle(Duration::from_secs(5)).await;
        self
    }

    async fn step(&mut self) -> Outcome {
        match self.random.below(100) {
            0..30 => self.put_file().await,
            30..42 => self.put_stream().await,
            42..52 => self.start_and_abort().await,
            52..55 => self.start_and_leave().await,
            55..63 => self.allocate_and_abort().await,
            63..73 => self.commit_and_abort_at_once().await,
            73..90 => self.delete().await,
            _ => self.undelete().await,
        }
    }

    fn size(&mut self) -> u64 {
        self.random.pick(&SIZES).copied().unwrap_or_default()
    }

    async fn put_file(&mut self) -> Outcome {
        let size = self.size();
        let path = self.shared.files.join(size.to_string());
        self.put("put, known size", Source::File(path)).await
    }

    async fn put_stream(&mut self) -> Outcome {
        let bytes = std::io::Read::take(std::io::repeat(7), self.size());
        self.put("put, unknown size", Source::Reader(Box::new(bytes))).await
    }

    async fn put(&mut self, what: &'static str, source: Source) -> Outcome {
        let options = UploadOptions { display_name: self.prefix.clone(), ..UploadOptions::default() };
        let put = self.client.upload(source, options).await.map(|blob| self.stored.push(blob.blob_id));
        self.settled(what, put)
    }

    async fn start_and_abort(&mut self) -> Outcome {
        let size = self.size();
        let uploaded = async {
            let upload = self.caller.start(self.prefix.clone(), Some(size)).await?;
            self.caller.abort(upload).await
        };
        let uploaded = uploaded.await;
        self.answered("start, abort", uploaded)
    }

    /// Its lease must end it.
    async fn start_and_leave(&mut self) -> Outcome {
        let size = self.size();
        let started = self.caller.start(self.prefix.clone(), Some(size)).await.map(drop);
        self.answered("start, expire", started)
    }

    async fn allocate_and_abort(&mut self) -> Outcome {
        let upload = match self.caller.start(self.prefix.clone(), None).await {
            Ok(upload) => upload,
            Err(status) => return self.answered("start, allocate, abort", Err(status)),
        };
        let more = self.caller.allocate(upload.clone(), 1).await;
        let ended = self.caller.abort(upload).await;
        self.answered("start, allocate, abort", more.and(ended))
    }

    /// Of the two, one wins.
    async fn commit_and_abort_at_once(&mut self) -> Outcome {
        let upload = match self.caller.start(self.prefix.clone(), Some(0)).await {
            Ok(upload) => upload,
            Err(status) => return self.answered("commit or abort", Err(status)),
        };
        let both = tokio::join!(self.caller.commit_nothing(upload.clone()), self.caller.abort(upload.clone()));
        if both.0.is_ok() {
            self.stored.extend(upload.parse::<BlobId>());
        }
        self.answered("commit or abort", both.0.or(both.1))
    }

    async fn delete(&mut self) -> Outcome {
        let Some(blob) = self.take_one(|racer| &mut racer.stored) else { return self.put_file().await };
        let deleted = self.client.delete_blob(blob).await.map(|()| self.deleted.push(blob));
        self.settled("delete", deleted)
    }

    async fn undelete(&mut self) -> Outcome {
        let Some(blob) = self.take_one(|racer| &mut racer.deleted) else { return self.start_and_abort().await };
        let restored = self.client.undelete_blob(blob).await.map(|_blob| self.stored.push(blob));
        self.settled("undelete", restored)
    }

    fn take_one(&mut self, of: impl Fn(&mut Self) -> &mut Vec<BlobId>) -> Option<BlobId> {
        let drawn = self.random.draw();
        let blobs = of(self);
        let index = usize::try_from(drawn.checked_rem(blobs.len() as u64)?).ok()?;
        Some(blobs.swap_remove(index))
    }

    fn settled(&self, what: &'static str, result: Result<(), Error>) -> Outcome {
        let outcome = result.map_or_else(|error| outcome_of(&error).ok_or(error.to_string()), |()| Ok(Outcome::Done));
        self.count(what, outcome)
    }

    fn answered(&self, what: &'static str, result: Result<(), Status>) -> Outcome {
        let outcome =
            result.map_or_else(|status| outcome_of_status(&status).ok_or(status.to_string()), |()| Ok(Outcome::Done));
        self.count(what, outcome)
    }

    fn count(&self, what: &'static str, outcome: Result<Outcome, String>) -> Outcome {
        match outcome {
            Ok(outcome) => self.shared.figures.operation(what, outcome),
            Err(ref words) => self.shared.figures.other(format!("{what}: {words}")),
        }
        outcome.unwrap_or(Outcome::Away)
    }
}

/// What a failure means; nothing when it may not happen.
fn outcome_of(error: &Error) -> Option<Outcome> {
    match (error.reason(), error.category()) {
        (None, Category::QuotaOrRate) => Some(Outcome::Refused),
        (None, Category::Unavailable) => Some(Outcome::Away),
        (Some(reason), category) => outcome_of_reason(reason, category == Category::Unavailable),
        (None, _) => None,
    }
}

/// As [`outcome_of`].
pub(crate) fn outcome_of_status(status: &Status) -> Option<Outcome> {
    let error = from_status(status);
    match error.reason {
        Some(reason) => outcome_of_reason(reason, error.code == Code::Unavailable),
        // Made up by the transport.
        None if matches!(error.code, Code::Unavailable | Code::Unknown | Code::Cancelled) => Some(Outcome::Away),
        None => None,
    }
}

fn outcome_of_reason(reason: Reason, unavailable: bool) -> Option<Outcome> {
    let too_late = [Reason::UploadExpired, Reason::UploadCommitted, Reason::UploadNotFound, Reason::BlobNotFound];
    if reason == Reason::QuotaExceeded {
        Some(Outcome::Refused)
    } else if too_late.contains(&reason) || reason == Reason::BlobCollected {
        Some(Outcome::TooLate)
    } else {
        unavailable.then_some(Outcome::Away)
    }
}

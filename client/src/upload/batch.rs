//! Many small blobs at once: their calls travel together, and each has an outcome of its own.
//!
//! Three calls for up to 128 blobs: StartUploads, WriteChunks, CommitUploads. A blob that does not get through with the
//! others goes on alone, as a stream, under the upload that it has; a commit whose answer is open is asked for alone, too.
//! So a batch promises what as many single uploads do.

use bytes::Bytes;
use futures_util::future::join_all;
use prost::Message as _;
use proto::error::Reason;
use proto::limits::{BATCH_ITEMS_MAX, METADATA_REQUEST_BYTES_MAX, SMALL_BLOB_BYTES};
use proto::pb;
use proto::status::item_status;

use super::input::{Input, Kept};
use super::session::{Session, start_operation, start_request};
use super::small::{Pending, Small, write_all};
use super::{Source, UploadOptions};
use crate::blob::Blob;
use crate::client::Client;
use crate::error::Error;
use crate::gather::WRITES_BYTES_MAX;
use crate::progress::Meter;

/// Bytes of the requests of one StartUploads; the rest is for what surrounds them.
const START_BYTES_MAX: usize = METADATA_REQUEST_BYTES_MAX / 2;

/// A blob of a batch, before anything was sent.
struct Planned {
    small: Small,
    request: pb::StartUploadRequest,
}

/// One that has an upload.
struct Started {
    session: Session,
    plans: Vec<pb::BlockPlan>,
    small: Small,
    /// Should it have to begin anew.
    options: UploadOptions,
}

type Outcome = Result<Blob, Error>;

impl Client {
    /// Stores many blobs, and returns what became of each, in their order, as [`Client::upload`] does for one. Blobs of at
    /// most 64 KiB share calls; larger ones are stored one after the other. What they report of their progress is nothing.
    ///
    /// # Errors
    /// [`Error`], when not even the uploads could be started: the blobs from there on are not stored, and those before it
    /// are. Batches of no more than 128 small blobs of at most 960 KiB together are all or nothing in this.
    pub async fn upload_batch(&self, blobs: Vec<(Bytes, UploadOptions)>) -> Result<Vec<Outcome>, Error> {
        let mut outcomes = Vec::with_capacity(blobs.len());
        let mut together = Together::default();
        for (content, options) in blobs {
            if content.len() as u64 > SMALL_BLOB_BYTES {
                outcomes.extend(self.upload_together(std::mem::take(&mut together)).await?);
                outcomes.push(self.upload(Source::Bytes(content), options).await);
                continue;
            }
            let request = start_request(self, Some(content.len() as u64), options);
            let planned = Planned { small: Small::of(content), request };
            if !together.takes(&planned) {
                outcomes.extend(self.upload_together(std::mem::take(&mut together)).await?);
            }
            together.push(planned);
        }
        outcomes.extend(self.upload_together(together).await?);
        Ok(outcomes)
    }

    async fn upload_together(&self, Together { planned, .. }: Together) -> Result<Vec<Outcome>, Error> {
        if planned.is_empty() {
            return Ok(Vec::new());
        }
        let mut started = Vec::with_capacity(planned.len());
        let mut refused = Vec::new();
        for (index, upload) in self.start_all(planned).await?.into_iter().enumerate() {
            match upload {
                Ok(upload) => started.push((index, upload)),
                Err(error) => refused.push((index, Err(error))),
            }
        }
        let mut outcomes = self.finish_all(started).await;
        outcomes.extend(refused);
        outcomes.sort_by_key(|(index, _)| *index);
        Ok(outcomes.into_iter().map(|(_, outcome)| outcome).collect())
    }

    async fn start_all(&self, planned: Vec<Planned>) -> Result<Vec<Result<Started, Error>>, Error> {
        let operation = format!("start {} uploads", planned.len());
        let uploads = planned.iter().map(|planned| planned.request.clone()).collect();
        let message = pb::StartUploadsRequest { uploads };
        let answer = self
            .metadata(&operation, message, |mut service, message| async move { service.start_uploads(message).await })
            .await?;
        if answer.results.len() != planned.len() {
            return Err(self.malformed(operation, "another number of results than of uploads"));
        }
        let started = planned.into_iter().zip(answer.results).map(|(Planned { small, request }, result)| {
            let operation = start_operation(&request);
            let (session, plans) = match result.outcome {
                Some(pb::start_uploads_result::Outcome::Answer(answer)) => Session::opened(self, &operation, answer),
                Some(pb::start_uploads_result::Outcome::Error(error)) => Err(self.item_error(operation, &error)),
                None => Err(self.malformed(operation, "no outcome")),
            }?;
            Ok(Started { session, plans, small, options: options_of(request) })
        });
        Ok(started.collect())
    }

    /// Writes and commits; what cannot be written with the others goes on alone.
    async fn finish_all(&self, started: Vec<(usize, Started)>) -> Vec<(usize, Outcome)> {
        let pending: Vec<_> = started
            .iter()
            .map(|(_, Started { session, plans, small, .. })| Pending { session, plans, small })
            .collect();
        let written = write_all(&pending).await;
        let (mut whole, mut alone) = (Vec::new(), Vec::new());
        for ((index, upload), receipts) in started.into_iter().zip(written) {
            match receipts {
                Some(receipts) => whole.push((index, upload, receipts)),
                None => alone.push(async move { (index, upload.go_on().await) }),
            }
        }
        let (mut outcomes, others) = futures_util::join!(self.commit_all(whole), join_all(alone));
        outcomes.extend(others);
        outcomes
    }

    async fn commit_all(&self, written: Vec<(usize, Started, Vec<Bytes>)>) -> Vec<(usize, Outcome)> {
        let commit = |(_, upload, receipts): &(usize, Started, Vec<Bytes>)| {
            upload.session.commit_request(upload.small.whole, receipts.clone())
        };
        let message = pb::CommitUploadsRequest { uploads: written.iter().map(commit).collect() };
        if message.uploads.is_empty() {
            return Vec::new();
        }
        let operation = format!("commit {} uploads", message.uploads.len());
        let answer = self
            .metadata(operation, message, |mut service, message| async move { service.commit_uploads(message).await })
            .await;
        // What was not heard may have been done.
        let lost = answer.as_ref().err().is_some_and(Error::outcome_unknown);
        let results = answer.map(|answer| answer.results).unwrap_or_default();
        let results = results.into_iter().map(|result| result.outcome).chain(std::iter::repeat(None));
        let ends = written.into_iter().zip(results).map(|((index, upload, receipts), outcome)| async move {
            (index, upload.end(receipts, outcome, lost).await)
        });
        join_all(ends).await
    }

    fn item_error(&self, operation: impl Into<String>, error: &pb::ItemError) -> Error {
        Error::from_call(&self.peers().metadata().call(operation), item_status(error))
    }
}

impl Started {
    /// Sends it as a stream, and commits it alone.
    async fn go_on(self) -> Outcome {
        let client = self.session.handle.client.clone();
        let input = Input::Kept(Kept::memory(self.small.content()));
        client.send(self.session, self.plans, input, Meter::new(None, None)).await
    }

    /// What an outcome of its commit means; one that may change, or did not come, is asked for alone.
    async fn end(
        self,
        receipts: Vec<Bytes>,
        outcome: Option<pb::commit_uploads_result::Outcome>,
        lost: bool,
    ) -> Outcome {
        let answer = match outcome {
            Some(pb::commit_uploads_result::Outcome::Answer(answer)) => Ok(answer),
            Some(pb::commit_uploads_result::Outcome::Error(error)) => {
                Err(self.session.handle.client.item_error(self.session.commit_operation(), &error))
            }
            None if lost => return self.session.commit_again(self.small.whole, receipts).await,
            None => return self.session.commit(self.small.whole, receipts).await,
        };
        match answer {
            // A crash of the service may take a plan with it that was given out just before.
            Err(error) if error.reason() == Some(Reason::UploadNotFound) => {
                let (client, source) = (self.session.handle.client.clone(), Source::Bytes(self.small.content()));
                client.upload(source, self.options).await
            }
            Err(error) if error.retryable() => self.session.commit(self.small.whole, receipts).await,
            answer => self.session.committed(answer).await,
        }
    }
}

fn options_of(request: pb::StartUploadRequest) -> UploadOptions {
    let pb::StartUploadRequest { display_name, content_type, labels, .. } = request;
    UploadOptions { display_name, content_type, labels: labels.into_iter().collect(), progress: None }
}

/// Blobs that fit into the same calls.
#[derive(Default)]
struct Together {
    planned: Vec<Planned>,
    content_bytes: u64,
    request_bytes: usize,
}

impl Together {
    fn takes(&self, planned: &Planned) -> bool {
        self.planned.len() < BATCH_ITEMS_MAX
            && self.content_bytes + planned.small.whole.size_bytes <= WRITES_BYTES_MAX
            && self.request_bytes + planned.request.encoded_len() <= START_BYTES_MAX
    }

    fn push(&mut self, planned: Planned) {
        self.content_bytes += planned.small.whole.size_bytes;
        self.request_bytes += planned.request.encoded_len();
        self.planned.push(planned);
    }
}

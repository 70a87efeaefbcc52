//! Batches: many calls in one, each with an outcome of its own.
//!
//! All items of a batch are under way at once, so the engine makes what they write durable together. A batch is refused as
//! a whole only for what is no item's matter. Its tenant's rate counts every item.

use std::future::Future;

use futures_util::future::join_all;
use proto::limits::BATCH_ITEMS_MAX;
use proto::pb;
use proto::status::to_item_error;
use tonic::{Request, Response, Status};

use super::answers::FromAnswer;
use super::convert::Call;
use super::metadata::Named;
use super::{Answer, called, refused};
use crate::auth::{Authenticator, Caller};
use crate::error::MetadataError;

/// A request that holds those of many calls.
pub(super) trait Batch {
    /// One of them.
    type Item: Named + Sync;
    /// What they are called in the request.
    const FIELD: &'static str;
    /// All of them.
    fn items(self) -> Vec<Self::Item>;
}

/// The response to such a request.
pub(super) trait Outcomes {
    /// The answer to one item.
    type Answer;
    /// Puts the outcomes together, in the items' order.
    fn of(outcomes: Vec<Result<Self::Answer, pb::ItemError>>) -> Self;
}

macro_rules! batch {
    ($request:ident { $items:ident: $item:ident }, $response:ident { $result:ident, $module:ident: $answer:ident }) => {
        impl Batch for pb::$request {
            type Item = pb::$item;
            const FIELD: &'static str = stringify!($items);
            fn items(self) -> Vec<Self::Item> {
                self.$items
            }
        }

        impl Outcomes for pb::$response {
            type Answer = pb::$answer;
            fn of(outcomes: Vec<Result<Self::Answer, pb::ItemError>>) -> Self {
                let result = |outcome: Result<_, _>| {
                    let outcome = outcome.map_or_else(pb::$module::Outcome::Error, pb::$module::Outcome::Answer);
                    pb::$result { outcome: Some(outcome) }
                };
                Self { results: outcomes.into_iter().map(result).collect() }
            }
        }
    };
}

batch!(
    StartUploadsRequest { uploads: StartUploadRequest },
    StartUploadsResponse { StartUploadsResult, start_uploads_result: StartUploadResponse }
);
batch!(
    CommitUploadsRequest { uploads: CommitUploadRequest },
    CommitUploadsResponse { CommitUploadsResult, commit_uploads_result: CommitUploadResponse }
);
batch!(
    GetBlobLayoutsRequest { blobs: GetBlobLayoutRequest },
    GetBlobLayoutsResponse { GetBlobLayoutsResult, get_blob_layouts_result: GetBlobLayoutResponse }
);

/// Answers every item of a batch as `call` answers the command that it stands for.
pub(super) async fn each<B: Batch, C, A, F, R>(
    authenticator: &Authenticator,
    request: Request<B>,
    call: impl Fn(C) -> F,
) -> Answer<R>
where
    C: TryFrom<Call<B::Item>, Error = MetadataError>,
    F: Future<Output = Result<A, MetadataError>>,
    R: Outcomes,
    R::Answer: FromAnswer<A>,
{
    let (caller, message) = called(request)?;
    let items = admitted(authenticator, &caller, message).await?;
    let outcomes = join_all(items.into_iter().map(|message| {
        let call = C::try_from(Call { caller: caller.clone(), message }).map(&call);
        async move { call?.await.map(R::Answer::from_answer) }
    }));
    let outcomes = outcomes.await.into_iter().map(|outcome| outcome.map_err(|error| to_item_error(&error)));
    Ok(Response::new(R::of(outcomes.collect())))
}

async fn admitted<B: Batch>(authenticator: &Authenticator, caller: &Caller, batch: B) -> Result<Vec<B::Item>, Status> {
    let items = batch.items();
    if items.is_empty() || items.len() > BATCH_ITEMS_MAX {
        let problem = format!("must be 1 to {BATCH_ITEMS_MAX} items, not {}", items.len());
        return Err(refused(MetadataError::field(B::FIELD, problem)));
    }
    authenticator.count_items(caller, items.iter().map(Named::tenant_id)).await.map_err(refused)?;
    Ok(items)
}

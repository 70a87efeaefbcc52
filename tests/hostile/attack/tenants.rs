//! What a tenant, or somebody who is none, can ask of the metadata service.

use anyhow::{Result, ensure};
use futures_util::future::{join_all, try_join_all};
use proto::error::Reason;
use proto::pb;
use proto::pb::metadata_service_client::MetadataServiceClient;
use tokio::time::Instant;
use tonic::Code;

use super::call::Answer;
use super::wire::ADDRESSES;
use super::{Target, bearing};

/// Bytes of each upload; the small tenant's quota has room for [`SMALL_UPLOADS`] of them.
pub(crate) const SMALL_UPLOAD_BYTES: u64 = 256 * 1024;
/// See [`SMALL_UPLOAD_BYTES`].
pub(crate) const SMALL_UPLOADS: usize = 4;

/// Uploads that all together are more than the quota, begun at the same time, and given up again.
pub(super) async fn quota_edge(target: &Target) -> Result<String> {
    const AT_ONCE: usize = 32;
    let ends = Instant::now() + target.lasts;
    let (mut rounds, mut refused) = (0, 0);
    while rounds == 0 || Instant::now() < ends {
        let outcomes = join_all((0..AT_ONCE).map(async |number| {
            let message = pb::StartUploadRequest { size_bytes: Some(SMALL_UPLOAD_BYTES), ..Default::default() };
            let mut service = MetadataServiceClient::new(target.metadata_channel(number)?);
            anyhow::Ok(service.start_upload(bearing(message, &target.small_token)).await)
        }))
        .await;
        let mut begun = Vec::new();
        for outcome in outcomes {
            match outcome? {
                Ok(started) => begun.extend(started.into_inner().upload.map(|upload| upload.blob_id)),
                Err(status) => {
                    Answer::of(&status).expect("beyond the quota", &[Reason::QuotaExceeded, Reason::RateLimited])?;
                    refused += 1;
                }
            }
        }
        ensure!(begun.len() <= SMALL_UPLOADS, "{} uploads were begun where {SMALL_UPLOADS} have room", begun.len());
        ensure!(!begun.is_empty(), "none was begun although there is room");
        try_join_all(begun.into_iter().map(async |blob_id| {
            let message = pb::AbortUploadRequest { blob_id, ..Default::default() };
            MetadataServiceClient::new(target.metadata_channel(0)?)
                .abort_upload(bearing(message, &target.small_token))
                .await?;
            anyhow::Ok(())
        }))
        .await?;
        rounds += 1;
    }
    Ok(format!("{rounds} rounds of {AT_ONCE}, {refused} refused; never more than {SMALL_UPLOADS} at once"))
}

/// Calls without a token, or with one that nobody gave out, as fast as they go.
pub(super) async fn unauthenticated(target: &Target) -> Result<String> {
    const AT_ONCE: usize = 4;
    let ends = Instant::now() + target.lasts;
    let each = (0..usize::from(ADDRESSES) * AT_ONCE).map(async |number| {
        let mut service = MetadataServiceClient::new(target.metadata_channel(number)?);
        let mut times = 0_u64;
        while Instant::now() < ends {
            let message = pb::ListBlobsRequest::default();
            let request = match times % 3 {
                0 => tonic::Request::new(message),
                1 => bearing(message, "mt1.0123456789abcdef.nonsense"),
                _ => bearing(message, &target.token.replace('.', "..")),
            };
            let answer = Answer::of_outcome(&service.list_blobs(request).await);
            ensure!(answer.code != Code::Ok, "a stranger was let in");
            let reasons = [Reason::TokenMissing, Reason::TokenInvalid, Reason::RateLimited, Reason::Overloaded];
            answer.expect("a stranger", &reasons)?;
            times += 1;
        }
        Ok(times)
    });
    let times: u64 = try_join_all(each).await?.into_iter().sum();
    Ok(format!("{times} calls, each refused with its reason"))
}

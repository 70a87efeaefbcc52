//! Whoever holds what can be seen against the quota.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures_util::TryStreamExt as _;
use mini_tectonic_client::{Blob, CheckEvent, Client, ListOptions, RetryPolicy, pb};
use tokio::time::Instant;

use crate::edge::Held;
use crate::figures::Outcome;
use crate::racer::{Caller, Shared, outcome_of_status, patient};

/// However busy the machine is, what is under way ends within this time.
const DEADLINE: Duration = Duration::from_secs(120);
/// So many looks at the usage for one check of the cluster.
const LOOKS_PER_CHECK: u64 = 50;
/// Pause where a service is away.
const PAUSE: Duration = Duration::from_millis(2);

/// Looks at the usage as fast as it is answered, and now and then has the cluster check itself, until it is told to stop.
pub(crate) async fn watch(shared: Arc<Shared>, operator: Client, quota: pb::Quota, at_first: Held) -> Result<()> {
    let client = shared.client(RetryPolicy::never())?;
    let (most, mut last) = (Held::most(&quota), at_first);
    for look in 1_u64.. {
        if shared.stop.load(Ordering::SeqCst) {
            break;
        }
        let Some(usage) = client.get_tenant(None).await.ok().and_then(|tenant| tenant.usage) else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let held = Held::of(&usage);
        // What is beyond a bound that was lowered may only shrink.
        shared.figures.looked(held.over(most.max(last)), || format!("{usage:?} with {quota:?} after {last:?}"));
        last = held;
        if look.is_multiple_of(LOOKS_PER_CHECK) {
            // A check that a death cuts off says nothing.
            if let Ok(differences) = differences(&operator).await {
                shared.figures.checked(differences);
            }
        }
    }
    Ok(())
}

/// What the cluster's own check finds that concerns rows.
pub(crate) async fn differences(operator: &Client) -> Result<Vec<String>> {
    let message = pb::CheckClusterRequest { repair: false, skip_bytes: true };
    let mut events = operator.check_cluster(message).await?;
    let mut found = Vec::new();
    while let Some(event) = events.try_next().await? {
        if let CheckEvent::Finding(finding) = event {
            found.extend(concerns_rows(finding.kind()).then(|| format!("{:?}: {}", finding.kind(), finding.detail)));
        }
    }
    Ok(found)
}

fn concerns_rows(kind: pb::FindingKind) -> bool {
    use pb::FindingKind::{DataLost, RecordCorrupt, RowInconsistent, RowOrphaned, UsageWrong};
    [DataLost, RecordCorrupt, RowInconsistent, RowOrphaned, UsageWrong].contains(&kind)
}

/// Judges when nothing is under way.
#[derive(Debug)]
pub(crate) struct Judge {
    shared: Arc<Shared>,
    client: Client,
    caller: Caller,
}

impl Judge {
    pub(crate) fn new(shared: &Arc<Shared>) -> Result<Self> {
        Ok(Self { shared: Arc::clone(shared), client: shared.client(patient())?, caller: shared.caller()? })
    }

    /// What the tenant holds.
    pub(crate) async fn usage(&self) -> Result<pb::Usage> {
        self.client.get_tenant(None).await.context("ask for the usage")?.usage.context("a tenant has a usage")
    }

    /// Holds the usage against the list of blobs, which it returns, and against the cluster's own check.
    pub(crate) async fn compare(&self, operator: &Client) -> Result<Vec<Blob>> {
        let (blobs, usage) = self.at_rest().await?;
        let bytes: u64 = blobs.iter().map(|blob| blob.size_bytes).sum();
        let mut differences = differences(operator).await?;
        if (usage.used_blobs, usage.used_bytes) != (blobs.len() as u64, bytes) {
            differences.push(format!("{usage:?}, but there are {} blobs of {bytes} bytes", blobs.len()));
        }
        self.shared.figures.checked(differences);
        Ok(blobs)
    }

    /// The blobs and the usage of one moment: leases end by themselves.
    async fn at_rest(&self) -> Result<(Vec<Blob>, pb::Usage)> {
        let began = Instant::now();
        loop {
            let before = self.usage().await?;
            let options = ListOptions { page_size: 1000, ..ListOptions::default() };
            let blobs = self.client.list_blobs(options).try_collect().await.context("list the blobs")?;
            if self.usage().await? == before {
                return Ok((blobs, before));
            }
            ensure!(began.elapsed() < DEADLINE, "the usage never comes to rest");
        }
    }

    /// Asks for exactly what is left, and for a byte more.
    pub(crate) async fn verdicts(&self, quota: &pb::Quota) -> Result<()> {
        let left = Held::most(quota).over(Held::of(&self.usage().await?)).0[0];
        let largest = left.min(quota.max_blob_bytes.unwrap_or(u64::MAX)).min(1 << 30);
        for size in [0, largest, largest.saturating_add(1)] {
            self.verdict(quota, size).await?;
        }
        Ok(())
    }

    async fn verdict(&self, quota: &pb::Quota, size: u64) -> Result<()> {
        let before = self.usage().await?;
        let answer = self.caller.start("verdict".to_owned(), Some(size)).await;
        let after = self.usage().await?;
        let granted = match &answer {
            Ok(_upload) => true,
            Err(status) if outcome_of_status(status) == Some(Outcome::Refused) => false,
            Err(status) => {
                self.shared.figures.other(format!("a start at rest: {status}"));
                return Ok(());
            }
        };
        if let Ok(upload) = answer {
            self.caller.abort(upload).await?;
        }
        let expected = fits(quota, &before, size);
        // A lease that ended meanwhile made room.
        let grown = u64::from(granted);
        if after.reserved_blobs == before.reserved_blobs + grown {
            let wrong =
                (granted != expected).then(|| format!("{size} bytes with {quota:?} over {before:?}: {granted}"));
            self.shared.figures.judged(wrong);
        }
        Ok(())
    }
}

/// Whether one more upload of this size is within the quota.
fn fits(quota: &pb::Quota, usage: &pb::Usage, size: u64) -> bool {
    let Held([bytes, blobs, uploads]) = Held::of(usage);
    let wanted = Held([bytes.saturating_add(size), blobs + 1, uploads + 1]);
    wanted.over(Held::most(quota)) == Held([0; 3]) && quota.max_blob_bytes.is_none_or(|most| size <= most)
}

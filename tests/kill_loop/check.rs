//! What must hold once the services are ready again and nothing is under way.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _};
use mini_tectonic_client::{Blob, Client, ListOptions, pb};
use tokio::time::Instant;

use crate::clients::{Shared, patient, read_back};
use crate::ledger::{Held, Violation};

/// Downloads at once.
const READS: usize = 16;
/// However busy the machine is, what is under way ends within this time.
const DEADLINE: Duration = Duration::from_secs(120);

/// Looks at the services as a client does.
#[derive(Debug)]
pub(crate) struct Checker {
    shared: Arc<Shared>,
    client: Client,
    /// Blobs that were read back at least once.
    read: HashSet<String>,
    /// How far the rotating sample has come.
    read_to: String,
}

impl Checker {
    /// Of this tenant.
    pub(crate) fn new(shared: &Arc<Shared>) -> Result<Self> {
        Ok(Self {
            shared: Arc::clone(shared),
            client: shared.client(patient())?,
            read: HashSet::new(),
            read_to: String::new(),
        })
    }

    /// Holds both listings and the usage against the ledger.
    pub(crate) async fn compare(&self) -> Result<()> {
        let ledger = &self.shared.ledger;
        let (by_id, by_name, usage) = self.look().await?;
        ledger.judge(&by_id, self.shared.life.load(Ordering::SeqCst));
        let sorted = |mut blobs: Vec<Blob>| {
            blobs.sort_by_key(|blob| blob.blob_id);
            blobs
        };
        let bytes: u64 = by_id.iter().map(|blob| blob.size_bytes).sum();
        if (usage.used_blobs, usage.used_bytes) != (by_id.len() as u64, bytes) {
            let there = by_id.len();
            ledger.violated(Violation::Other, format!("{usage:?}, but there are {there} blobs of {bytes} bytes"));
        }
        if sorted(by_id) != sorted(by_name) {
            ledger.violated(Violation::Other, "the listing by name differs from the one by id");
        }
        Ok(())
    }

    /// The listings and the usage of one moment: a commit whose caller has gone may still come in between.
    async fn look(&self) -> Result<(Vec<Blob>, Vec<Blob>, pb::Usage)> {
        let began = Instant::now();
        loop {
            let before = self.usage().await?;
            let by_id = self.list("").await?;
            let by_name = self.list("c").await?;
            if self.usage().await? == before {
                return Ok((by_id, by_name, before));
            }
            ensure!(began.elapsed() < DEADLINE, "the usage never comes to rest");
        }
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Blob>> {
        let options = ListOptions { prefix: prefix.to_owned(), page_size: 1000, ..ListOptions::default() };
        self.client.list_blobs(options).try_collect().await.context("list the blobs")
    }

    async fn usage(&self) -> Result<pb::Usage> {
        let tenant = self.client.get_tenant(None).await.context("ask for the usage")?;
        let usage = tenant.usage.context("a tenant has a usage")?;
        // What is released by itself as time passes is looked at in the end.
        Ok(pb::Usage { reserved_bytes: 0, reserved_blobs: 0, retained_bytes: 0, retained_blobs: 0, ..usage })
    }

    /// Reads back every blob that has not been read yet, and some of the others, by turns.
    pub(crate) async fn read_some(&mut self, older: usize) -> Result<()> {
        let all = self.shared.ledger.held("c");
        let (read, fresh): (Vec<Held>, Vec<Held>) = all.into_iter().partition(|held| self.read.contains(&held.name));
        let behind = read.iter().filter(|held| held.name > self.read_to);
        let sample: Vec<Held> = behind.chain(&read).take(older.min(read.len())).cloned().collect();
        self.read_to = sample.last().map(|held| held.name.clone()).unwrap_or_default();
        self.read.extend(fresh.iter().map(|held| held.name.clone()));
        self.read_back(fresh.into_iter().chain(sample).collect()).await
    }

    /// Reads back every blob.
    pub(crate) async fn read_all(&self) -> Result<()> {
        self.read_back(self.shared.ledger.held("c")).await
    }

    async fn read_back(&self, blobs: Vec<Held>) -> Result<()> {
        let reads = futures_util::stream::iter(blobs).map(|held| async move {
            read_back(&self.shared.ledger, &self.client, &held).await.with_context(|| format!("read {}", held.name))
        });
        reads.buffer_unordered(READS).try_collect::<()>().await
    }

    /// Waits until nothing is reserved by uploads that nobody will end.
    pub(crate) async fn nothing_stays_reserved(&self) -> Result<()> {
        let began = Instant::now();
        loop {
            let tenant = self.client.get_tenant(None).await.context("ask for the usage")?;
            let usage = tenant.usage.context("a tenant has a usage")?;
            if (usage.reserved_bytes, usage.reserved_blobs) == (0, 0) {
                return Ok(());
            }
            if began.elapsed() > DEADLINE {
                self.shared.ledger.violated(Violation::Other, format!("reserved for ever: {usage:?}"));
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

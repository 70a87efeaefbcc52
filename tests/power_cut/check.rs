//! The check after a start: what is shown must be what was acknowledged, and perhaps what nobody knows of.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::StreamExt as _;
use mini_tectonic_client::{Blob, BlobId, Category, Client};

use crate::clients::{list_all, read_back};
use crate::ledger::{Entry, Fate, Ledger, Violations, number_of};

const READERS: usize = 8;

/// What the check found, in figures and in words.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) violations: Violations,
    pub(crate) words: Vec<String>,
}

impl Findings {
    fn note(&mut self, count: impl FnOnce(&mut Violations) -> &mut u64, words: String) {
        *count(&mut self.violations) += 1;
        self.words.push(words);
    }

    /// What failed for clients although the power was on.
    pub(crate) fn failures(&mut self, failures: Vec<String>) {
        for words in failures {
            self.note(|violations| &mut violations.broken, words);
        }
    }

    /// The services fail.
    pub(crate) fn broken(words: String) -> Self {
        let mut findings = Self::default();
        findings.note(|violations| &mut violations.broken, words);
        findings
    }
}

/// Compares what is shown with the ledger, reads everything back, and settles what was not known.
pub(crate) async fn check(client: &Client, ledger: &Arc<Ledger>) -> Findings {
    let shown = match list_all(client).await {
        Ok(shown) => shown,
        Err(words) => return Findings::broken(words),
    };
    let mut findings = Findings::default();
    check_usage(client, &shown, &mut findings).await;
    let mut by_number: BTreeMap<u64, &Blob> = BTreeMap::new();
    let known: BTreeMap<u64, Entry> = ledger.entries().clone();
    for blob in &shown {
        let number = number_of(blob).filter(|number| known.contains_key(number));
        match number.map(|number| by_number.insert(number, blob)) {
            Some(None) => {}
            Some(Some(_)) => findings.note(|found| &mut found.phantom, format!("twice: {blob:?}")),
            None => findings.note(|found| &mut found.phantom, format!("nobody put {blob:?}")),
        }
    }
    for entry in known.values() {
        judge(entry, by_number.get(&entry.number).map(|blob| blob.blob_id), ledger, &mut findings);
    }
    let gone = known.values().filter_map(|entry| match entry.fate {
        Fate::Deleting(blob) if !by_number.contains_key(&entry.number) => Some(blob),
        Fate::Putting | Fate::Stored(_) | Fate::Deleting(_) | Fate::Gone => None,
    });
    check_gone(client, gone.collect(), &mut findings).await;
    let readable = by_number.iter().filter_map(|(number, blob)| Some((*known.get(number)?, blob.blob_id)));
    check_bytes(client, readable.collect(), &mut findings).await;
    findings
}

fn judge(entry: &Entry, shown: Option<BlobId>, ledger: &Ledger, findings: &mut Findings) {
    match (entry.fate, shown) {
        (Fate::Stored(blob), Some(shown)) if blob == shown => {}
        (Fate::Stored(_), _) => {
            findings.note(|found| &mut found.lost, format!("lost: {entry:?}, shown: {shown:?}"));
            ledger.settle(entry.number, Fate::Gone);
        }
        (Fate::Gone, None) => {}
        (Fate::Gone, Some(shown)) => {
            findings.note(|found| &mut found.undead, format!("back from the dead: {entry:?} as {shown}"));
        }
        (Fate::Putting | Fate::Deleting(_), Some(shown)) => ledger.settle(entry.number, Fate::Stored(shown)),
        (Fate::Putting | Fate::Deleting(_), None) => ledger.settle(entry.number, Fate::Gone),
    }
}

async fn check_usage(client: &Client, shown: &[Blob], findings: &mut Findings) {
    let sum = (shown.iter().map(|blob| blob.size_bytes).sum::<u64>(), shown.len() as u64);
    match client.get_tenant(None).await {
        Ok(tenant) => {
            let usage = tenant.usage.unwrap_or_default();
            let told = (usage.used_bytes, usage.used_blobs);
            if told != sum {
                findings.note(|found| &mut found.usage, format!("usage {told:?}, but {sum:?} is shown"));
            }
        }
        Err(error) => findings.note(|found| &mut found.broken, format!("get tenant: {error:?}")),
    }
}

async fn check_gone(client: &Client, gone: Vec<BlobId>, findings: &mut Findings) {
    for blob in gone {
        match client.get_blob(blob).await {
            Err(error) if error.category() == Category::NotFound => {}
            answer => findings.note(|found| &mut found.undead, format!("not listed, but: {answer:?}")),
        }
    }
}

async fn check_bytes(client: &Client, blobs: Vec<(Entry, BlobId)>, findings: &mut Findings) {
    let reads = futures_util::stream::iter(blobs).map(|(entry, blob)| read_back(client, blob, entry));
    let failed = reads.buffer_unordered(READERS).filter_map(async |read| read.err());
    for words in failed.collect::<Vec<_>>().await {
        findings.note(|found| &mut found.partial, words);
    }
}

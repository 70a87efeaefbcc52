//! Chunk services as models: they can be away, refuse, lose answers, and delete late and once more.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use futures_util::{StreamExt as _, stream};
use proto::capability::{ChunkBinding, ReadClaims};
use proto::checksum::Sha256;
use proto::ids::{ChunkId, NodeId};
use proto::runtime::{Clock as _, ManualClock};
use tokio_util::sync::CancellationToken;

use super::model::{At, Model, Planned};
use super::world::Dice;
use crate::nodes::chunks::{ChecksumFile, ChunkFiles, ChunkPage, ChunkPages, NodeError, Verdict};
use crate::nodes::{ChunkNodes, Condemned, Deletion};

/// Few, so that much happens between two pages.
const FILES_PER_PAGE: usize = 16;

/// A page and its last chunk; `None` behind the last page.
type Page = Option<(ChunkPage, ChunkId)>;

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct ModelNodes {
    pub(super) model: Arc<Mutex<Model>>,
    clock: Arc<ManualClock>,
    dice: Dice,
    mood: Arc<Mutex<Mood>>,
}

#[derive(Debug, Default)]
struct Mood {
    away: BTreeSet<NodeId>,
    /// Nothing goes wrong any more.
    calm: bool,
    /// Deletes whose caller has given up, but that are still on their way.
    travelling: Vec<At>,
    /// The asking process dies with this many more calls.
    dies_after: Option<(u64, CancellationToken)>,
}

impl ModelNodes {
    pub(super) fn new(model: Arc<Mutex<Model>>, clock: Arc<ManualClock>, dice: Dice) -> Self {
        Self { model, clock, dice, mood: Arc::default() }
    }

    fn mood(&self) -> MutexGuard<'_, Mood> {
        self.mood.lock().unwrap()
    }

    /// Goes away, or comes back.
    pub(super) fn toggle(&self, node: NodeId) {
        let mut mood = self.mood();
        if !mood.away.remove(&node) {
            mood.away.insert(node);
        }
    }

    pub(super) fn is_away(&self, node: NodeId) -> bool {
        self.mood().away.contains(&node)
    }

    /// The process that asks dies with one of the next calls; the token fires then.
    pub(super) fn die_after(&self, calls: u64) -> CancellationToken {
        let died = CancellationToken::new();
        self.mood().dies_after = Some((calls, died.clone()));
        died
    }

    pub(super) fn live_on(&self) {
        self.mood().dies_after = None;
    }

    /// Some deletes that are on their way arrive; half of them will once more.
    pub(super) fn deliver(&self) {
        let travelling = std::mem::take(&mut self.mood().travelling);
        for at in travelling {
            if self.dice.one_in(2) {
                self.mood().travelling.push(at);
            }
            self.delete_now(at);
        }
    }

    /// All deletes that are on their way arrive, for the last time.
    pub(super) fn deliver_all(&self) {
        let travelling = std::mem::take(&mut self.mood().travelling);
        travelling.into_iter().for_each(|at| self.delete_now(at));
    }

    /// Everything works from now on, and what is on its way arrives.
    pub(super) fn calm(&self) {
        let mut mood = self.mood();
        mood.calm = true;
        mood.away.clear();
        drop(mood);
        self.deliver_all();
    }

    fn delete_now(&self, at: At) {
        self.model.lock().unwrap().delete(at, self.clock.now_ms());
    }

    /// Whether the asking process dies with this call.
    fn dies(&self) -> bool {
        let mut mood = self.mood();
        match &mut mood.dies_after {
            Some((0, died)) => {
                died.cancel();
                true
            }
            Some((calls, _)) => {
                *calls -= 1;
                false
            }
            None => false,
        }
    }

    /// The next files of a node behind one, as they are now; at times the list breaks off.
    async fn page(&self, node: NodeId, behind: Option<ChunkId>, with_checksum_files: bool) -> Result<Page, NodeError> {
        for _turn in 0..self.dice.below(4) {
            tokio::task::yield_now().await;
        }
        if self.dies() {
            std::future::pending::<()>().await;
        }
        if self.is_away(node) || (!self.mood().calm && self.dice.one_in(40)) {
            return Err(NodeError::Unavailable("the model says so".to_owned()));
        }
        let model = self.model.lock().unwrap();
        let of_node = model.files.iter().filter(|at| at.0 == node && behind.is_none_or(|behind| at.1 > behind));
        let file = |at: &At| {
            let planned = model.planned(*at);
            let told = planned.filter(|_planned| with_checksum_files).map(|planned| checksum_file(at.1, planned));
            ChunkFiles { chunk: at.1, data_bytes: Some(1), has_checksum_file: planned.is_some(), checksum_file: told }
        };
        let chunks: Vec<_> = of_node.take(FILES_PER_PAGE).map(file).collect();
        let last = chunks.last().map(|files| files.chunk);
        Ok(last.map(|last| (ChunkPage { chunks, foreign_names: Vec::new() }, last)))
    }

    fn answer(&self, at: At) -> Deletion {
        let unavailable = || Deletion::Unavailable("the model says so".to_owned());
        if self.is_away(at.0) {
            return unavailable();
        }
        match self.dice.below(20) {
            _ if self.mood().calm => {}
            0 => return Deletion::Refused("the model says so".to_owned()),
            1 => return unavailable(),
            2 => {
                self.mood().travelling.push(at);
                return unavailable();
            }
            3 => {
                self.delete_now(at);
                self.mood().travelling.push(at);
                return unavailable();
            }
            _ => {}
        }
        self.delete_now(at);
        Deletion::Gone
    }
}

#[async_trait]
impl ChunkNodes for ModelNodes {
    async fn delete(&self, chunk: &Condemned) -> Deletion {
        let at = (chunk.node, chunk.binding.chunk);
        for _turn in 0..self.dice.below(4) {
            tokio::task::yield_now().await;
        }
        if self.dies() {
            if self.dice.one_in(2) {
                self.delete_now(at);
            }
            std::future::pending::<()>().await;
        }
        self.answer(at)
    }

    async fn verify(&self, _: NodeId, _: ChunkBinding, _: ReadClaims, _repair: bool) -> Result<Verdict, NodeError> {
        Err(NodeError::Unavailable("the model has no bytes".to_owned()))
    }

    fn list(&self, node: NodeId, with_checksum_files: bool) -> ChunkPages {
        let nodes = self.clone();
        let pages = stream::try_unfold(None, move |behind| {
            let nodes = nodes.clone();
            async move {
                let page = nodes.page(node, behind, with_checksum_files).await?;
                Ok(page.map(|(page, last)| (page, Some(last))))
            }
        });
        pages.boxed()
    }
}

fn checksum_file(chunk: ChunkId, (epoch, sequence): Planned) -> ChecksumFile {
    let binding = ChunkBinding { chunk, epoch, sequence, ..ChunkBinding::none() };
    ChecksumFile { binding, size_bytes: 1, sha256: Sha256::of(b"a block") }
}

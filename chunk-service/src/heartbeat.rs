//! Heartbeats: the node says that it lives, and is told the time.
//!
//! At the interval that the metadata service asks for; after a failure sooner, so that a metadata service that was
//! restarted knows its nodes again at once; and as soon as a fault of the disk ends writes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use proto::failpoint;
use proto::limits::HEARTBEAT_INTERVAL;
use tokio::time::Instant;

use crate::identity::{KeyOrder, NodeFile};
use crate::metadata_link::{Answered, Figures, LinkError, MetadataLink, Presence};
use crate::node::Node;
use crate::scrub::ScrubControl;

/// Pause after a heartbeat that could not be delivered.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(300);
/// Bounds of what the metadata service may ask for.
const INTERVAL_MIN: Duration = Duration::from_millis(10);
const INTERVAL_MAX: Duration = Duration::from_secs(60);

/// What became of a heartbeat.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Beat {
    /// The metadata service knows the node.
    Answered,
    /// It did not answer, or not with an answer.
    Unanswered,
    /// It answered that it does not take this node, and why.
    Refused(String),
}

/// Sends a node's heartbeats.
#[derive(Debug)]
pub(crate) struct Heartbeat {
    node: Arc<Node>,
    link: Arc<MetadataLink>,
    presence: Presence,
    /// Where `node.key` is.
    folder: PathBuf,
    interval: Duration,
    failing: bool,
    scrub: Option<ScrubControl>,
}

impl Heartbeat {
    pub(crate) fn new(node: Arc<Node>, link: Arc<MetadataLink>, presence: Presence, folder: PathBuf) -> Self {
        Self { node, link, presence, folder, interval: HEARTBEAT_INTERVAL, failing: false, scrub: None }
    }

    /// Tells of the scrub, and has it do as an operator says.
    pub(crate) fn with_scrub(self, scrub: ScrubControl) -> Self {
        Self { scrub: Some(scrub), ..self }
    }

    /// Sends one heartbeat.
    pub(crate) async fn beat(&mut self) -> Beat {
        match self.send().await {
            Ok(()) => {
                if std::mem::take(&mut self.failing) {
                    tracing::info!("the metadata service answers again");
                }
                Beat::Answered
            }
            Err(LinkError::Refused(status)) => {
                let why = LinkError::Refused(status).text();
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::error!(%why, "the metadata service refuses this node; is it another cluster's?");
                }
                Beat::Refused(why)
            }
            Err(error) => {
                let why = error.text();
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(%why, "a heartbeat failed; more are tried");
                }
                Beat::Unanswered
            }
        }
    }

    async fn send(&mut self) -> Result<(), LinkError> {
        let space = self.node.store.space().await.map_err(|error| {
            tracing::warn!(error = %proto::status::chain(&error), "the free space cannot be told");
            LinkError::Nonsense("the node cannot tell its free space")
        })?;
        let loads = self.node.store.blocking().scheduler().loads();
        let sent = Instant::now();
        let reason = self.node.store.latch().reason();
        let work = self.scrub.as_ref().map(|scrub| scrub.report(self.node.time.now().now_ms));
        let member = self.node.membership.get();
        let figures = Figures {
            loads: loads.into(),
            key_ids: member.iter().flat_map(|member| member.key_ids().collect::<Vec<_>>()).collect(),
            connections: self.node.front.gate.counts(),
            warnings: self.node.front.warnings(),
        };
        let Answered { pulse, scrub: order, keys } =
            self.link.heartbeat(&self.presence, space, reason, work.as_ref(), figures).await?;
        self.node.time.set(pulse.server_ms, sent);
        if let (Some(scrub), Some(order)) = (&self.scrub, order) {
            scrub.obey(order);
        }
        self.obey_keys(&keys).await;
        self.interval = pulse.interval.unwrap_or(HEARTBEAT_INTERVAL).clamp(INTERVAL_MIN, INTERVAL_MAX);
        Ok(())
    }

    /// Holds other keys from now on, if told to. When they cannot be written down the node goes on with those it has, and is
    /// told again with the next answer.
    async fn obey_keys(&self, order: &KeyOrder) {
        let changed = self.node.membership.get().and_then(|member| member.obeying(order));
        let Some(changed) = changed else { return };
        let file = NodeFile { node: self.node.id, membership: Some(changed.clone()) };
        let folder = self.folder.clone();
        // The next heartbeat waits for it: a busy disk must not make the node a lost one.
        let written = self.node.store.blocking().run_urgent(move || file.write(&folder)).await;
        match written.and_then(|written| written) {
            Ok(()) => {
                failpoint!("rotate_key.kept");
                tracing::info!(keys = ?changed.key_ids().collect::<Vec<_>>(), "the node's keys were replaced");
                self.node.membership.set(changed);
            }
            Err(error) => {
                tracing::warn!(error = %proto::status::chain(&error), "the node's next key cannot be written down");
            }
        }
    }

    /// Sends heartbeats until the node stops.
    pub(crate) async fn run(mut self) {
        let stop = self.node.tasks.stop_signal();
        let mut faults = self.node.store.latch().watch();
        loop {
            let pause = if self.failing { PAUSE_AFTER_FAILURE } else { self.interval };
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                Ok(()) = faults.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
            // The other side may hang for longer than a stop waits.
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _beat = self.beat() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proto::entropy::{OsEntropy, SeededEntropy};
    use proto::ids::NodeId;
    use proto::runtime::tls::Tls;
    use proto::runtime::transport;
    use proto::runtime::{ManualClock, TaskGroup};
    use proto::token::{Token, TokenKind};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::config::Tuning;
    use crate::identity::MemberCell;
    use crate::node::Front;
    use crate::store::testing::world::World;
    use crate::time::NodeTime;

    /// A node whose metadata service hung once could not stop in time, and left its folder locked.
    #[tokio::test]
    async fn a_stop_does_not_wait_for_the_answer_to_a_heartbeat() {
        let (world, id) = (World::new(), NodeId::generate(1, &SeededEntropy::new(1)));
        let tls = Tls::off(Arc::new(ManualClock::at(1)));
        let node = Arc::new(Node {
            id,
            membership: MemberCell::default(),
            time: Arc::new(NodeTime::new(Arc::new(ManualClock::at(1)))),
            store: Arc::clone(&world.store),
            tuning: Tuning::default(),
            paces: crate::pace::Paces::default(),
            tasks: TaskGroup::new(),
            draining: CancellationToken::new(),
            front: Front::closed(),
        });
        let silent = transport::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let endpoint = format!("http://{}", silent.local_addr().unwrap());
        let link = MetadataLink::new(&endpoint, tls.dialer()).unwrap();
        link.set_member(id, Token::generate(TokenKind::Node, &OsEntropy));
        let presence = Presence { node: id, endpoint, failure_domain: String::new() };
        let mut heartbeat = Heartbeat::new(Arc::clone(&node), Arc::new(link), presence, PathBuf::new());
        heartbeat.interval = INTERVAL_MIN;
        node.tasks.spawn("heartbeat", heartbeat.run());
        let _unanswered = silent.accept().await.unwrap();
        assert!(node.tasks.shutdown(Duration::from_secs(1)).await);
    }
}

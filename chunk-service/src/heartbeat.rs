//! Heartbeats: the node says that it lives, and is told the time.
//!
//! At the interval that the metadata service asks for; after a failure sooner, so that a metadata service that was
//! restarted knows its nodes again at once; and as soon as a fault of the disk ends writes.

use std::sync::Arc;
use std::time::Duration;

use proto::limits::HEARTBEAT_INTERVAL;
use tokio::time::Instant;

use crate::metadata_link::{LinkError, MetadataLink, Presence};
use crate::node::Node;

/// Pause after a heartbeat that could not be delivered.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(300);
/// Bounds of what the metadata service may ask for.
const INTERVAL_MIN: Duration = Duration::from_millis(10);
const INTERVAL_MAX: Duration = Duration::from_secs(60);

/// Sends a node's heartbeats.
#[derive(Debug)]
pub(crate) struct Heartbeat {
    node: Arc<Node>,
    link: Arc<MetadataLink>,
    presence: Presence,
    interval: Duration,
    failing: bool,
}

impl Heartbeat {
    pub(crate) fn new(node: Arc<Node>, link: Arc<MetadataLink>, presence: Presence) -> Self {
        Self { node, link, presence, interval: HEARTBEAT_INTERVAL, failing: false }
    }

    /// Sends one heartbeat. Returns whether it was answered.
    pub(crate) async fn beat(&mut self) -> bool {
        match self.send().await {
            Ok(()) => {
                if std::mem::take(&mut self.failing) {
                    tracing::info!("the metadata service answers again");
                }
                true
            }
            Err(why) => {
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(%why, "a heartbeat failed; more are tried");
                }
                false
            }
        }
    }

    async fn send(&mut self) -> Result<(), String> {
        let space = self.node.store.space().await.map_err(|error| proto::status::chain(&error))?;
        let sent = Instant::now();
        let reason = self.node.store.latch().reason();
        let pulse = self.link.heartbeat(&self.presence, space, reason).await;
        let pulse = pulse.map_err(|error: LinkError| error.text())?;
        self.node.time.set(pulse.server_ms, sent);
        self.interval = pulse.interval.unwrap_or(HEARTBEAT_INTERVAL).clamp(INTERVAL_MIN, INTERVAL_MAX);
        Ok(())
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
            self.beat().await;
        }
    }
}

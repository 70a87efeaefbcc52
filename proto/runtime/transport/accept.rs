//! The accept loop. It lets in whom the gate admits, closes everybody else at once, and outlives a process without
//! descriptors: what the system cannot hand out now it may a moment later, so a failure is followed by a pause that
//! doubles, and never by the end of the loop.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::admission::{Counters, Gate, Place};
use super::connection::Connection;
use crate::runtime::tls::Tls;

const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// What can happen a thousand times a second is logged once in this time.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// A listener that is closed when this is dropped.
pub(super) struct Acceptor {
    listener: TcpListener,
    gate: Arc<Gate>,
    tls: Arc<Tls>,
    stop: CancellationToken,
    pause: Duration,
    refusals: Rarely,
    failures: Rarely,
}

impl Acceptor {
    /// `stop` ends those connections that are still silent.
    pub(super) fn new(listener: TcpListener, gate: Arc<Gate>, tls: Arc<Tls>, stop: CancellationToken) -> Self {
        let (refusals, failures) = (Rarely::default(), Rarely::default());
        Self { listener, gate, tls, stop, pause: FIRST_PAUSE, refusals, failures }
    }

    /// The next connection that is let in. No connection is lost when this is dropped.
    pub(super) async fn next(&mut self) -> Connection {
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    self.pause = FIRST_PAUSE;
                    match self.gate.admit(peer.ip()) {
                        Ok(place) => return self.welcome(stream, place),
                        Err(refusal) => {
                            self.refusals.log(|times| {
                                tracing::warn!(%peer, ?refusal, times, "a connection was refused: there are too many");
                            });
                            turn_away(stream, peer);
                        }
                    }
                }
                Err(error) => self.recover(error).await,
            }
        }
    }

    fn welcome(&self, stream: TcpStream, place: Place) -> Connection {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection keeps its delay");
        }
        Connection::new(stream, place, Arc::clone(&self.gate), self.tls.server(), self.stop.clone())
    }

    async fn recover(&mut self, error: io::Error) {
        if broke_before_its_turn(error.kind()) {
            return;
        }
        Counters::count(&self.gate.counters.accept_errors);
        self.failures.log(|times| tracing::warn!(%error, times, "no connection can be accepted for the moment"));
        sleep(self.pause).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }
}

/// The peer has given up already: the next one may be accepted at once.
fn broke_before_its_turn(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, Interrupted, TimedOut};
    matches!(kind, BrokenPipe | ConnectionAborted | ConnectionReset | Interrupted | TimedOut)
}

/// Closes a connection so that nothing of it stays behind, not even the minute in which its port is remembered.
fn turn_away(stream: TcpStream, peer: SocketAddr) {
    if let Err(error) = stream.set_zero_linger() {
        tracing::debug!(%error, %peer, "a refused connection is closed slowly");
    }
}

/// A message that is written at most once in a while, with how often it was due since.
#[derive(Debug, Default)]
struct Rarely {
    silent_until: Option<Instant>,
    times: u64,
}

impl Rarely {
    fn log(&mut self, write: impl FnOnce(u64)) {
        self.times += 1;
        let now = Instant::now();
        if self.silent_until.is_none_or(|until| now >= until) {
            write(std::mem::take(&mut self.times));
            self.silent_until = Some(now + LOG_INTERVAL);
        }
    }
}

#[cfg(test)]
mod tests;

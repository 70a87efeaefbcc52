//! A connection that has to say what it wants.
//!
//! Until its first request has come whole, a connection lives for [`first_request_within`] and no longer, and not beyond
//! the listener's stop: whoever connects and says nothing, or half of something, holds a place for seconds. After that
//! HTTP/2's keepalive proves that the peer lives, and an idle connection is kept: its owner has shown that it speaks the
//! protocol, and its place is one of a bounded number that its address has.
//!
//! The time is watched in reads and in writes: who sends but never reads must not stop the watch.
//!
//! With TLS its handshake is the first part of the connection, in the connection's own task, and has a time of its own
//! ([`handshake_within`]). Whatever fails in it (half a handshake, plain text, noise, a certificate of nobody known)
//! closes this connection and no other, with a line in the debug log and a count.
//!
//! [`first_request_within`]: super::TransportLimits::first_request_within
//! [`handshake_within`]: super::TransportLimits::handshake_within

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::rustls::ServerConfig;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::{Connected, TcpConnectInfo};

use super::admission::{Counters, Gate, Place};
use super::chatter::Chatter;
use super::untaken::{Answers, Patrol};
use super::wire::{ClientCertificate, Wire};

/// An accepted connection.
pub(super) struct Connection {
    wire: Wire,
    info: ConnectionInfo,
    watch: Watch,
    chatter: Chatter,
    patrol: Patrol,
    /// Given back when the connection is closed.
    _place: Place,
}

/// What a request knows about the connection that it came on.
#[derive(Debug, Clone)]
pub(super) struct ConnectionInfo {
    pub(super) tcp: TcpConnectInfo,
    pub(super) gate: Arc<Gate>,
    /// What the other side showed of itself, once it has.
    pub(super) certificate: Arc<OnceLock<ClientCertificate>>,
    requested: Arc<AtomicBool>,
    pub(super) answers: Arc<Answers>,
}

enum Watch {
    /// No request has come yet; the future ends when there is no more waiting for it.
    Waiting(Pin<Box<dyn Future<Output = Overdue> + Send>>),
    /// It waited long enough.
    Over(Overdue),
    /// A request came.
    Done,
}

#[derive(Debug, Clone, Copy)]
enum Overdue {
    Silent,
    Stopped,
    Untaken,
}

impl Overdue {
    fn error(self) -> io::Error {
        match self {
            Self::Silent => io::Error::new(io::ErrorKind::TimedOut, "no request came in time"),
            Self::Untaken => io::Error::new(io::ErrorKind::TimedOut, "an answer was not taken in time"),
            Self::Stopped => io::Error::new(io::ErrorKind::ConnectionAborted, "the service stops"),
        }
    }
}

impl ConnectionInfo {
    /// From now on the connection may stay.
    pub(super) fn mark_requested(&self) {
        self.requested.store(true, Ordering::Relaxed);
    }
}

impl Connection {
    /// With `tls` the connection begins with a handshake.
    pub(super) fn new(
        stream: TcpStream,
        place: Place,
        gate: Arc<Gate>,
        tls: Option<Arc<ServerConfig>>,
        stop: CancellationToken,
    ) -> Self {
        let patience = tokio::time::sleep(gate.limits().first_request_within);
        let overdue = Box::pin(async move {
            tokio::select! {
                () = patience => Overdue::Silent,
                () = stop.cancelled() => Overdue::Stopped,
            }
        });
        let (tcp, certificate) = (stream.connect_info(), Arc::<OnceLock<_>>::default());
        let wire = match tls {
            None => Wire::Plain(stream),
            Some(tls) => Wire::greet(stream, tls, Arc::clone(&gate), Arc::clone(&certificate)),
        };
        let info = ConnectionInfo { tcp, gate, certificate, requested: Arc::default(), answers: Arc::default() };
        let patrol = Patrol::new(Arc::clone(&info.answers), info.gate.limits().answer_taken_within);
        Self { wire, info, watch: Watch::Waiting(overdue), chatter: Chatter::default(), patrol, _place: place }
    }

    /// For the requests that come on it.
    pub(super) fn info(&self) -> ConnectionInfo {
        self.info.clone()
    }

    /// Fails when the first request is overdue, or the client does not take an answer.
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.patrol.poll(cx).is_ready() {
            self.watch = Watch::Over(Overdue::Untaken);
        }
        let overdue = match &mut self.watch {
            Watch::Done => return Ok(()),
            Watch::Over(overdue) => return Err(overdue.error()),
            Watch::Waiting(_) if self.info.requested.load(Ordering::Relaxed) => {
                self.watch = Watch::Done;
                return Ok(());
            }
            Watch::Waiting(overdue) => match overdue.as_mut().poll(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(overdue) => overdue,
            },
        };
        if matches!(overdue, Overdue::Silent) {
            Counters::count(&self.info.gate.counters.silent);
        }
        self.watch = Watch::Over(overdue);
        Err(overdue.error())
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("info", &self.info).finish_non_exhaustive()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.wire).poll_read(cx, buf))?;
        Poll::Ready(self.chatter.hear(buf.filled().get(before..).unwrap_or_default()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.wire).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.wire).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.wire.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_shutdown(cx)
    }
}

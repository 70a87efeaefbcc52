//! What a connection is made of: a socket, a socket in its TLS handshake, or TLS.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::server::TlsStream;

use super::admission::{Counters, Gate};
use crate::checksum::Sha256;

/// The certificate of the other side, which an authority of `--tls-client-ca` vouches for. Among the extensions of each
/// request of such a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientCertificate {
    /// SHA-256 of the certificate.
    pub fingerprint: Sha256,
}

type Greeting = Pin<Box<dyn Future<Output = io::Result<TlsStream<TcpStream>>> + Send>>;

/// See the module.
pub(super) enum Wire {
    /// Not encrypted.
    Plain(TcpStream),
    /// In its handshake, which goes on with each read and write.
    Greeting(Greeting),
    /// Encrypted.
    Secure(Box<TlsStream<TcpStream>>),
    /// The handshake failed.
    Closed,
}

impl Wire {
    /// A connection that begins with a handshake.
    pub(super) fn greet(
        stream: TcpStream,
        tls: Arc<ServerConfig>,
        gate: Arc<Gate>,
        certificate: Arc<OnceLock<ClientCertificate>>,
    ) -> Self {
        Self::Greeting(Box::pin(async move {
            let peer = stream.peer_addr();
            let accepting = TlsAcceptor::from(tls).accept(stream);
            let late = |_elapsed| io::Error::new(io::ErrorKind::TimedOut, "the handshake did not end in time");
            let accepted = tokio::time::timeout(gate.limits().handshake_within, accepting).await.map_err(late);
            match accepted.flatten() {
                Ok(stream) => {
                    if let Some(shown) = certificate_of(&stream) {
                        certificate.get_or_init(|| shown);
                    }
                    Ok(stream)
                }
                Err(error) => {
                    Counters::count(&gate.counters.failed_handshakes);
                    tracing::debug!(peer = ?peer.ok(), %error, "a TLS handshake failed");
                    Err(error)
                }
            }
        }))
    }

    /// The stream that bytes go over, once there is one.
    fn poll_stream(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Pin<&mut dyn Duplex>>> {
        if let Self::Greeting(greeting) = self {
            *self = match ready!(greeting.as_mut().poll(cx)) {
                Ok(stream) => Self::Secure(Box::new(stream)),
                Err(error) => {
                    *self = Self::Closed;
                    return Poll::Ready(Err(error));
                }
            };
        }
        Poll::Ready(match self {
            Self::Plain(stream) => Ok(Pin::new(stream)),
            Self::Secure(stream) => Ok(Pin::new(stream.as_mut())),
            Self::Greeting(_) | Self::Closed => Err(io::ErrorKind::NotConnected.into()),
        })
    }
}

/// The first certificate is the peer's own; rustls has verified it.
fn certificate_of(stream: &TlsStream<TcpStream>) -> Option<ClientCertificate> {
    let (_socket, session) = stream.get_ref();
    let own = session.peer_certificates()?.first()?;
    Some(ClientCertificate { fingerprint: Sha256::of(own) })
}

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_stream(cx))?.poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_stream(cx))?.poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_stream(cx))?.poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_stream(cx))?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Who has not been greeted is not waved off.
        if matches!(*self, Self::Greeting(_) | Self::Closed) {
            *self = Self::Closed;
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_stream(cx))?.poll_shutdown(cx)
    }
}

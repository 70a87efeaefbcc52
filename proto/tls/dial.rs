//! Opening connections: TCP, and TLS on it for `https://`.
//!
//! What goes wrong is told in words that say what to do: the wrong scheme, a certificate that expired, is another host's
//! or comes from nobody known. None of these passes by itself, so none is worth another try.

use std::fmt::Debug;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::{ServerName, UnixTime};
use tokio_rustls::rustls::{CertificateError, Error as RustlsError, InvalidMessage};
use tonic::codegen::http::Uri;

use super::{TlsError, Trust};

/// What a connection without TLS ends with when the other side speaks it. HTTP/2 keeps of an error its words alone, so
/// these are how it is recognised.
pub const WANTS_TLS: &str = "the port speaks TLS; write its endpoint with https://";
/// The first byte of TLS's answer to whom it does not understand.
const ALERT: u8 = 0x15;
const DAY: u64 = 24 * 60 * 60;
const HOUR: u64 = 60 * 60;

/// Why no connection came about.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// Not even an unencrypted one.
    #[error("cannot connect")]
    Tcp(#[source] io::Error),
    /// The endpoint is none.
    #[error("the endpoint names no host")]
    NoHost,
    /// Nobody is believed.
    #[error(transparent)]
    Trust(#[from] TlsError),
    /// The certificate is too old.
    #[error("its certificate expired {0} ago")]
    Expired(String),
    /// The certificate is too new.
    #[error("its certificate is not valid yet")]
    NotYetValid,
    /// The certificate is for somebody else.
    #[error("its certificate is for {names} and not for {host}")]
    WrongHost {
        /// Who was meant.
        host: String,
        /// Who it is.
        names: String,
    },
    /// Nobody who is believed vouches for the certificate.
    #[error("its certificate comes from an authority that is not trusted here")]
    UnknownAuthority,
    /// Something else is spoken there.
    #[error("the port does not speak TLS; write its endpoint with http://")]
    NotTls,
    /// Anything else.
    #[error("TLS failed: {0}")]
    Tls(RustlsError),
}

impl DialError {
    /// What to do about it.
    pub fn advice(&self) -> Option<&'static str> {
        match self {
            Self::Expired(_) => {
                Some("let the operator renew it: 'mini-tectonic-rs certs --renew' if it was made by 'certs'")
            }
            Self::NotYetValid => Some("compare this machine's clock with the service's"),
            Self::WrongHost { .. } => Some(
                "use a name that the certificate has, or have it made anew for this one: 'certs --renew --host NAME'",
            ),
            Self::UnknownAuthority => {
                Some("name the authority's certificate with --tls-ca (certs/ca.pem, if 'certs' made it)")
            }
            Self::NotTls => Some("or start the service with --tls-cert and --tls-key"),
            Self::Tcp(_) | Self::NoHost | Self::Trust(_) | Self::Tls(_) => None,
        }
    }

    /// Whether trying again can help.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Tcp(_))
    }

    fn of_handshake(error: io::Error, host: &str) -> Self {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<RustlsError>());
        match inner {
            Some(RustlsError::InvalidCertificate(problem)) => Self::of_certificate(problem, host),
            Some(RustlsError::InvalidMessage(InvalidMessage::InvalidContentType)) => Self::NotTls,
            Some(other) => Self::Tls(other.clone()),
            None => Self::Tcp(error),
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "rustls may add kinds, which are then told in its words")]
    fn of_certificate(problem: &CertificateError, host: &str) -> Self {
        match problem {
            CertificateError::ExpiredContext { time, not_after } => Self::Expired(between(*not_after, *time)),
            CertificateError::Expired => Self::Expired("some time".to_owned()),
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Self::NotYetValid,
            CertificateError::NotValidForName => Self::wrong_host(host, &[]),
            CertificateError::NotValidForNameContext { presented, .. } => Self::wrong_host(host, presented),
            // An authority of the same name with another key is another authority.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::UnknownAuthority,
            other => Self::Tls(RustlsError::InvalidCertificate(other.clone())),
        }
    }

    /// The names come as `DnsName("localhost")` and `IpAddress(127.0.0.1)`.
    fn wrong_host(host: &str, presented: &[String]) -> Self {
        let plain = |name: &String| {
            let inner = name.split_once('(').map_or(name.as_str(), |(_kind, rest)| rest.trim_end_matches(')'));
            inner.trim_matches('"').to_owned()
        };
        let names = if presented.is_empty() {
            "other names".to_owned()
        } else {
            presented.iter().map(plain).collect::<Vec<_>>().join(", ")
        };
        Self::WrongHost { host: host.to_owned(), names }
    }
}

fn between(earlier: UnixTime, later: UnixTime) -> String {
    in_words(Duration::from_secs(later.as_secs().saturating_sub(earlier.as_secs())))
}

/// A length of time as people say it.
pub(crate) fn in_words(time: Duration) -> String {
    match time.as_secs() {
        seconds if seconds >= 2 * DAY => format!("{} days", seconds / DAY),
        seconds if seconds >= 2 * HOUR => format!("{} hours", seconds / HOUR),
        seconds => format!("{} minutes", seconds / 60),
    }
}

/// Opens connections. Clones share whom they trust, also after [`Dialer::trust`].
#[derive(Debug, Clone)]
pub struct Dialer {
    trust: Arc<RwLock<Arc<Trust>>>,
}

impl Dialer {
    /// A dialer that believes these.
    pub fn new(trust: Trust) -> Self {
        Self { trust: Arc::new(RwLock::new(Arc::new(trust))) }
    }

    /// From now on others are believed, or something else is shown; connections that are open stay.
    pub fn trust(&self, trust: Trust) {
        *self.trust.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(trust);
    }

    fn trusted(&self) -> Arc<Trust> {
        Arc::clone(&self.trust.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A connection, whatever it is made of.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}
type BoxedStream = Box<dyn Stream>;

async fn dial(uri: Uri, trust: Arc<Trust>) -> Result<BoxedStream, DialError> {
    let host = uri.host().ok_or(DialError::NoHost)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let encrypted = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if encrypted { 443 } else { 80 });
    let stream = TcpStream::connect((host, port)).await.map_err(DialError::Tcp)?;
    stream.set_nodelay(true).map_err(DialError::Tcp)?;
    if !encrypted {
        return Ok(Box::new(Plain { stream, silent: true }));
    }
    let config = trust.config()?;
    let name = host.parse::<IpAddr>().map(ServerName::from);
    let name = name.or_else(|_name| ServerName::try_from(host.to_owned())).map_err(|_neither| DialError::NoHost)?;
    match TlsConnector::from(config).connect(name, stream).await {
        Ok(stream) => Ok(Box::new(stream)),
        Err(error) => Err(DialError::of_handshake(error, host)),
    }
}

impl tower::Service<Uri> for Dialer {
    type Response = TokioIo<Connected>;
    type Error = DialError;
    type Future = Pin<Box<dyn Future<Output = Result<TokioIo<Connected>, DialError>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let trust = self.trusted();
        Box::pin(async move { dial(uri, trust).await.map(|stream| TokioIo::new(Connected(stream))) })
    }
}

/// A connection that is open.
pub struct Connected(BoxedStream);

impl Debug for Connected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connected")
    }
}

impl AsyncRead for Connected {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connected {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// A connection without TLS, whose first byte tells whether the other side wanted it: a frame of HTTP/2 that begins with
/// this byte would be longer than any that we accept.
struct Plain {
    stream: TcpStream,
    /// Nothing has come yet.
    silent: bool,
}

impl Plain {
    /// Whoever closes on us may have said why before: what has come is looked at before the failure to write is told.
    fn explain(&mut self, cx: &mut Context<'_>, error: io::Error) -> Poll<io::Error> {
        let mut first = [0];
        let mut first = ReadBuf::new(&mut first);
        // A connection that takes nothing any more is always readable, or will be.
        let peeked = if self.silent { ready!(self.stream.poll_peek(cx, &mut first)).is_ok() } else { false };
        Poll::Ready(if peeked && first.filled() == [ALERT] { wants_tls() } else { error })
    }
}

fn wants_tls() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, WANTS_TLS)
}

impl AsyncRead for Plain {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if self.silent
            && let Some(first) = buf.filled().get(before)
        {
            if *first == ALERT {
                return Poll::Ready(Err(wants_tls()));
            }
            self.silent = false;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Plain {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match ready!(Pin::new(&mut self.stream).poll_write(cx, buf)) {
            Ok(written) => Poll::Ready(Ok(written)),
            Err(error) => self.explain(cx, error).map(Err),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)) {
            Ok(written) => Poll::Ready(Ok(written)),
            Err(error) => self.explain(cx, error).map(Err),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

//! Calls whose bodies are any bytes at all, and what is answered.

use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http_body::{Body as _, Frame};
use proto::error::Reason;
use proto::limits::HTTP2_STREAM_WINDOW_BYTES;
use proto::status::from_status;
use tokio::sync::mpsc;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tower::ServiceExt as _;

/// Nothing is waited for longer than this.
pub(crate) const DEADLINE: Duration = Duration::from_secs(90);

/// A connection from one of our addresses.
pub(crate) fn channel(from: IpAddr, to: SocketAddr) -> Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{to}"))?
        .local_address(Some(from))
        .initial_stream_window_size(HTTP2_STREAM_WINDOW_BYTES)
        .http2_max_header_list_size(64 * 1024);
    Ok(endpoint.connect_lazy())
}

/// A body of what is sent to it.
struct Sent(mpsc::Receiver<Bytes>);

impl http_body::Body for Sent {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.0.poll_recv(cx).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// A body and the way in for its bytes; it ends when that is dropped.
pub(crate) fn body() -> (mpsc::Sender<Bytes>, Body) {
    let (sender, receiver) = mpsc::channel(16);
    (sender, Body::new(Sent(receiver)))
}

/// A message behind its prefix.
pub(crate) fn prefixed(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&[0], length.as_slice(), message].concat().into()
}

/// A call to be.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// On which connection.
    pub(crate) channel: Channel,
    /// `/package.Service/Method`.
    pub(crate) path: &'static str,
    /// Names and values, in their order, beside those that every call has.
    pub(crate) headers: Vec<(&'static str, String)>,
}

impl Call {
    /// A call with a credential.
    pub(crate) fn new(channel: &Channel, path: &'static str, credential: &str) -> Self {
        Self { channel: channel.clone(), path, headers: vec![("authorization", format!("Bearer {credential}"))] }
    }

    /// Sends bytes that are the whole body, and returns what is answered.
    pub(crate) async fn send(&self, bytes: Bytes) -> Result<Answer> {
        let (sender, body) = body();
        sender.send(bytes).await?;
        drop(sender);
        self.send_body(body).await
    }

    /// Sends bytes and then nothing more, without an end.
    pub(crate) async fn send_unended(&self, bytes: Bytes) -> Result<Answer> {
        let (sender, body) = body();
        sender.send(bytes).await?;
        let answer = self.send_body(body).await;
        drop(sender);
        answer
    }

    /// Sends a body, and returns what is answered.
    pub(crate) async fn send_body(&self, body: Body) -> Result<Answer> {
        tokio::time::timeout(DEADLINE, self.answered(body)).await.context("no answer came")?
    }

    /// The same, however long it takes.
    pub(crate) async fn answered(&self, body: Body) -> Result<Answer> {
        let mut request = http::Request::post(format!("http://x{}", self.path))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        let response = self.channel.clone().oneshot(request.body(body)?).await?;
        let (head, mut body) = response.into_parts();
        if let Some(status) = Status::from_header_map(&head.headers) {
            return Ok(Answer::of(&status));
        }
        ensure!(head.status == http::StatusCode::OK, "the answer is {}", head.status);
        while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            let trailers = frame.map_err(|status| anyhow::anyhow!("the answer broke: {status}"))?.into_trailers();
            if let Some(status) = trailers.ok().as_ref().and_then(Status::from_header_map) {
                return Ok(Answer::of(&status));
            }
        }
        anyhow::bail!("the answer has no status")
    }
}

/// What a service answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The code.
    pub(crate) code: Code,
    /// The reason, which every refusal of ours has.
    pub(crate) reason: Option<Reason>,
}

impl Answer {
    /// What a status says.
    pub(crate) fn of(status: &Status) -> Self {
        Self { code: status.code(), reason: from_status(status).reason }
    }

    /// What an outcome says.
    pub(crate) fn of_outcome<T>(outcome: &Result<tonic::Response<T>, Status>) -> Self {
        match outcome {
            Ok(_) => Self { code: Code::Ok, reason: None },
            Err(status) => Self::of(status),
        }
    }

    /// Whether it was turned away unheard: whoever asks without end uses up its own rate and places.
    pub(crate) fn is_turned_away(&self) -> bool {
        matches!(self.reason, Some(Reason::Overloaded | Reason::RateLimited))
    }

    /// Refuses any answer but a refusal for one of these reasons.
    pub(crate) fn expect(&self, what: impl std::fmt::Debug, reasons: &[Reason]) -> Result<()> {
        ensure!(self.reason.is_some_and(|reason| reasons.contains(&reason)), "{what:?}: {self:?}, not {reasons:?}");
        Ok(())
    }
}

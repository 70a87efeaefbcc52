//! Calls as any client makes them, with everything that is answered kept as it came: headers, trailers, messages.

use std::pin::Pin;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use http_body::Body as _;
use prost::Message;
use proto::status::from_status;
use proto::tls::{Dialer, Trust};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{HeaderMap, Request};
use tonic::transport::{Channel, Endpoint};
use tower::ServiceExt as _;

use crate::places::{Kind, PlaceNumber};
use crate::site::{DEADLINE, Shape, Site};

/// What a call was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Why it was refused: the reason's name, empty for a call that was not.
    pub(crate) reason: String,
    message: Vec<u8>,
    /// Where it is kept.
    pub(crate) place: PlaceNumber,
}

impl Answer {
    /// The message of a call that must have succeeded.
    pub(crate) fn message<M: Message + Default>(&self) -> Result<M> {
        ensure!(self.reason.is_empty(), "a call was refused: {}", self.reason);
        Ok(M::decode(self.message.as_slice())?)
    }
}

struct Raw {
    status: Status,
    message: Vec<u8>,
    everything: Vec<u8>,
}

impl Site {
    /// A connection to an endpoint.
    fn channel(&self, endpoint: &str) -> Result<Channel> {
        let authorities = (self.shape == Shape::Apart).then(|| self.path("certs/ca.pem"));
        let dialer = Dialer::new(Trust::from_file(authorities.as_deref())?);
        let _in_runtime = self.runtime.enter();
        Ok(Endpoint::from_shared(endpoint.to_owned())?.connect_with_connector_lazy(dialer))
    }

    /// Calls a method with these values of `authorization`, and keeps the answer.
    pub(crate) fn call(
        &mut self,
        endpoint: &str,
        path: &str,
        authorization: &[&str],
        message: &impl Message,
    ) -> Result<Answer> {
        let channel = self.channel(endpoint)?;
        let call = exchange(channel, path, authorization, message.encode_to_vec());
        let Raw { status, message, everything } =
            self.runtime.block_on(async { tokio::time::timeout(DEADLINE, call).await }).context("no answer came")??;
        let reason = match (status.code(), from_status(&status).reason) {
            (tonic::Code::Ok, _) => String::new(),
            (_, Some(reason)) => format!("{reason:?}"),
            (code, None) => format!("{code:?}"),
        };
        let place = self.places.add(Kind::Answer, format!("the answer of {path} ({reason})"), everything);
        Ok(Answer { reason, message, place })
    }

    /// The same with a token that is good, at the metadata service.
    pub(crate) fn ask(&mut self, path: &str, token: &str, message: &impl Message) -> Result<Answer> {
        let endpoint = self.endpoint.clone();
        self.call(&endpoint, path, &[&format!("Bearer {token}")], message)
    }
}

async fn exchange(channel: Channel, path: &str, authorization: &[&str], message: Vec<u8>) -> Result<Raw> {
    let length = u32::try_from(message.len())?.to_be_bytes();
    let body = Bytes::from([&[0], length.as_slice(), &message].concat());
    let mut request = Request::post(format!("http://x{path}"));
    for (name, value) in [("content-type", "application/grpc"), ("te", "trailers")] {
        request = request.header(name, value);
    }
    for value in authorization {
        request = request.header("authorization", *value);
    }
    let request = request.body(Body::new(Whole(Some(body))))?;
    let response = channel.oneshot(request).await?;
    let (head, mut body) = response.into_parts();
    let mut everything = text_of(&head.headers);
    let (mut status, mut answer) = (Status::from_header_map(&head.headers), Vec::new());
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        match frame.map_err(|broke| anyhow::anyhow!("the answer broke: {broke}"))?.into_data() {
            Ok(data) => answer.extend_from_slice(&data),
            Err(frame) => {
                let Ok(trailers) = frame.into_trailers() else { continue };
                everything.extend(text_of(&trailers));
                status = status.or_else(|| Status::from_header_map(&trailers));
            }
        }
    }
    let Some(status) = status else { bail!("the answer of {path} has no status") };
    // As a client prints it, and its details as they are, beside the base64 of the header.
    everything.extend(format!("{status:?} {status}").into_bytes());
    everything.extend_from_slice(status.details());
    everything.extend_from_slice(&answer);
    // The first message alone: streams are looked at as a whole above.
    let length = answer.get(1..5).map_or(0, |length| length.iter().fold(0, |sum, byte| sum * 256 + usize::from(*byte)));
    let message = answer.get(5..5 + length).unwrap_or_default().to_vec();
    Ok(Raw { status, message, everything })
}

fn text_of(headers: &HeaderMap) -> Vec<u8> {
    let lines = headers.iter().map(|(name, value)| [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\n"].concat());
    lines.flatten().collect()
}

/// A body of these bytes.
struct Whole(Option<Bytes>);

impl http_body::Body for Whole {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Status>>> {
        std::task::Poll::Ready(self.0.take().map(|bytes| Ok(http_body::Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }
}

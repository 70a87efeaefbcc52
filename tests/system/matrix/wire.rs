//! Any method, called with any bytes and any metadata, and all that comes back.

use bytes::{Buf as _, BufMut as _, Bytes};
use prost::Message as _;
use proto::pb;
use proto::status::item_status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Request, Status};
use tonic_types::StatusExt as _;

/// Messages as they are on the wire.
#[derive(Debug, Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// A refusal as it travels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) code: tonic::Code,
    pub(super) message: String,
    pub(super) details: Vec<u8>,
    pub(super) request_id: String,
    /// Names of the other metadata, and how long each one's value is.
    pub(super) others: Vec<(String, usize)>,
}

/// What came back: all messages, or the refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) answer: Result<Vec<Bytes>, Refused>,
}

fn refused(status: &Status) -> Refused {
    let request_id = status.get_details_request_info().map(|info| info.request_id).unwrap_or_default();
    let headers = status.metadata().clone().into_headers();
    let mut others: Vec<_> =
        headers.iter().map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().len())).collect();
    others.sort();
    let (message, details) = (status.message().to_owned(), status.details().to_vec());
    Refused { code: status.code(), message, details, request_id, others }
}

impl Outcome {
    /// Bytes that were compared.
    pub(super) fn size(&self) -> usize {
        match &self.answer {
            Ok(messages) => messages.iter().map(Bytes::len).sum(),
            Err(refused) => refused.message.len() + refused.details.len(),
        }
    }

    /// The same with the id that was asked for, and that of the request, blanked out.
    pub(super) fn without(&self, id: &str) -> Self {
        let answer = match &self.answer {
            Ok(messages) => Ok(messages.iter().map(|message| blanked(message, id).into()).collect()),
            Err(refused) => Err(Refused {
                details: blanked(&blanked(&refused.details, id), &refused.request_id),
                message: refused.message.replace(id, &"_".repeat(id.len())),
                request_id: "_".repeat(refused.request_id.len()),
                ..refused.clone()
            }),
        };
        Self { answer }
    }
}

fn blanked(bytes: &[u8], text: &str) -> Vec<u8> {
    let mut blanked = bytes.to_vec();
    let starts: Vec<_> = bytes.windows(text.len().max(1)).enumerate().collect();
    for (at, _) in starts.into_iter().filter(|(_, found)| *found == text.as_bytes()) {
        blanked[at..at + text.len()].fill(b'_');
    }
    blanked
}

/// What the response of any batch is like.
#[derive(Clone, PartialEq, prost::Message)]
struct Batch {
    #[prost(message, repeated, tag = "1")]
    results: Vec<Item>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Item {
    #[prost(message, optional, tag = "2")]
    error: Option<pb::ItemError>,
}

/// Of a batch of one item, what came of the item: it must be what a call about it alone would have been answered.
fn item_of(path: &str, messages: Vec<Bytes>) -> Result<Vec<Bytes>, Refused> {
    let batches = ["/StartUploads", "/CommitUploads", "/GetBlobLayouts", "/WriteChunks", "/ReadChunks"];
    if batches.iter().any(|batch| path.ends_with(batch)) {
        let batch = Batch::decode(messages.concat().as_slice()).unwrap();
        let [item] = batch.results.as_slice() else { panic!("{path} answered {batch:?}") };
        if let Some(error) = &item.error {
            return Err(refused(&item_status(error)));
        }
    }
    Ok(messages)
}

/// Calls a method with one message; on the wire all four kinds of methods look alike.
pub(super) async fn call(channel: Channel, path: &'static str, authorization: &[String], message: &[u8]) -> Outcome {
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.unwrap();
    let mut request = Request::new(tokio_stream::once(Bytes::copy_from_slice(message)));
    for value in authorization {
        request.metadata_mut().append("authorization", value.parse().unwrap());
    }
    let mut messages = Vec::new();
    let mut stream = match grpc.streaming(request, PathAndQuery::from_static(path), Raw).await {
        Ok(answer) => answer.into_inner(),
        Err(status) => return Outcome { answer: Err(refused(&status)) },
    };
    loop {
        match stream.message().await {
            Ok(Some(message)) => messages.push(message),
            Ok(None) => return Outcome { answer: item_of(path, messages) },
            Err(status) => return Outcome { answer: Err(refused(&status)) },
        }
    }
}

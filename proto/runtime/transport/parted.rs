//! The messages of a stream, each in two parts: its head, then its bytes.
//!
//! tonic (0.14, `codec/decode.rs`) asks for the room of a whole message once it has read the message's head, beside
//! what it holds of the message by then. HTTP/2 frames are as large as a message here and bring all of it at once, so
//! that a message took twice its bytes and more of the allocator, for as long as any of them waited for the disk: 108
//! of the 162 MiB that a chunk service had in use with 64 puts of 64 MiB at once, by the allocator's own profile. When
//! the head comes alone, the room is that of the message, and nothing is moved.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;

/// A byte that says whether it is compressed, and its length (gRPC over HTTP/2, "Length-Prefixed-Message").
const HEAD_BYTES: usize = 5;

/// A body that no longer comes as the network had it.
pub(super) struct Parted {
    body: Body,
    /// What came and is still to be handed out.
    waiting: Bytes,
    cutter: Cutter,
}

/// Knows where in a stream of messages it is.
#[derive(Debug, Default)]
struct Cutter {
    /// What was seen of a head.
    head: Vec<u8>,
    /// Bytes of the message that are still to come.
    left: u64,
}

impl Cutter {
    /// Takes what belongs together from the front.
    fn cut(&mut self, waiting: &mut Bytes) -> Bytes {
        if self.left > 0 {
            let part = waiting.split_to(usize::try_from(self.left).unwrap_or(usize::MAX).min(waiting.len()));
            self.left -= part.len() as u64;
            return part;
        }
        let part = waiting.split_to(HEAD_BYTES.saturating_sub(self.head.len()).min(waiting.len()));
        self.head.extend_from_slice(&part);
        if let [_compressed, length @ ..] = self.head.as_slice()
            && let Ok(length) = length.try_into()
        {
            self.left = u32::from_be_bytes(length).into();
            self.head.clear();
        }
        part
    }
}

impl Parted {
    /// Parts these messages.
    pub(super) fn new(body: Body) -> Self {
        Self { body, waiting: Bytes::new(), cutter: Cutter::default() }
    }
}

impl http_body::Body for Parted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if this.waiting.is_empty() {
            let frame = match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                end => return Poll::Ready(end),
            };
            this.waiting = match frame.into_data() {
                Ok(data) if !data.is_empty() => data,
                Ok(nothing) => return Poll::Ready(Some(Ok(Frame::data(nothing)))),
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            };
        }
        Poll::Ready(Some(Ok(Frame::data(this.cutter.cut(&mut this.waiting)))))
    }

    fn is_end_stream(&self) -> bool {
        self.waiting.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let waiting = self.waiting.len() as u64;
        let behind = self.body.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(behind.lower().saturating_add(waiting));
        if let Some(upper) = behind.upper().and_then(|upper| upper.checked_add(waiting)) {
            hint.set_upper(upper);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;
    use tokio::sync::mpsc;
    use tonic::Streaming;
    use tonic::codec::Codec as _;
    use tonic_prost::ProstCodec;

    use super::super::request::tests::Sent;
    use super::*;
    use crate::limits::FRAME_BYTES;
    use crate::pb::{ChunkData, WriteChunkRequest};

    fn message(length: usize) -> Vec<u8> {
        let mut message = vec![0];
        message.extend(u32::try_from(length).unwrap().to_be_bytes());
        message.resize(HEAD_BYTES + length, 7);
        message
    }

    fn parts(frames: &[&[u8]]) -> Vec<usize> {
        let mut cutter = Cutter::default();
        let mut lengths = Vec::new();
        for frame in frames {
            let mut waiting = Bytes::copy_from_slice(frame);
            while !waiting.is_empty() {
                lengths.push(cutter.cut(&mut waiting).len());
            }
        }
        lengths
    }

    #[test]
    fn a_message_comes_as_its_head_and_its_bytes() {
        let both = [message(300), message(0), message(7)].concat();
        assert_eq!(parts(&[&both]), [5, 300, 5, 5, 7]);
        assert_eq!(parts(&[&both[..3], &both[3..100], &both[100..312], &both[312..]]), [3, 2, 95, 205, 5, 2, 3, 7]);
    }

    /// A node once held more than twice what it had received and not yet written.
    #[tokio::test]
    async fn what_was_received_takes_no_more_memory_than_its_message() {
        let content = Bytes::from(vec![7; usize::try_from(FRAME_BYTES).unwrap()]);
        let data = ChunkData { content: content.clone(), ..ChunkData::default() };
        let encoded = WriteChunkRequest { data: Some(data), ..WriteChunkRequest::default() }.encode_to_vec();
        let mut frame = message(encoded.len());
        frame.splice(HEAD_BYTES.., encoded);
        let (sender, receiver) = mpsc::channel(3);
        for _ in 0..3 {
            sender.send(Bytes::from(frame.clone())).await.unwrap();
        }
        drop(sender);
        let decoder = ProstCodec::<(), WriteChunkRequest>::default().decoder();
        let mut stream = Streaming::new_request(decoder, Parted::new(Body::new(Sent(receiver))), None, None);
        let mut received = Vec::new();
        while let Some(message) = stream.message().await.unwrap() {
            received.push(message.data.unwrap().content);
        }
        drop(stream);
        assert_eq!(received, [content.clone(), content.clone(), content]);
        for bytes in received {
            let (length, room) = (bytes.len(), bytes.try_into_mut().unwrap().capacity());
            assert!(room < length + length / 8, "{room} for {length}");
        }
    }

    proptest! {
        #[test]
        fn nothing_is_lost_added_or_moved(
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..12),
        ) {
            let (mut cutter, mut seen) = (Cutter::default(), Vec::new());
            for frame in &frames {
                let mut waiting = Bytes::copy_from_slice(frame);
                while !waiting.is_empty() {
                    let part = cutter.cut(&mut waiting);
                    prop_assert!(!part.is_empty());
                    seen.extend_from_slice(&part);
                }
            }
            prop_assert_eq!(seen, frames.concat());
        }
    }
}

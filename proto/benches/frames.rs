//! What a frame costs on its way: prost and gRPC's framing of a message, without HTTP/2 and sockets.

use std::convert::Infallible;
use std::hint::black_box;
use std::pin::pin;

use bytes::Bytes;
use criterion::{Criterion, Throughput};
use mini_tectonic_proto::checksum::crc32c;
use mini_tectonic_proto::codec::RoomyCodec;
use mini_tectonic_proto::entropy::{Entropy as _, SeededEntropy};
use mini_tectonic_proto::{limits, pb};
use tokio_stream::StreamExt as _;
use tonic::Streaming;
use tonic::codec::{Codec as _, EncodeBody};
use tonic::codegen::Body;

type FrameCodec = RoomyCodec<pb::WriteChunkRequest, pb::WriteChunkRequest>;

/// Messages of a stream.
const MESSAGES: u64 = 16;

fn message(size: u64) -> pb::WriteChunkRequest {
    let mut content = vec![0; usize::try_from(size).expect("a frame fits into memory")];
    SeededEntropy::new(1).fill(&mut content);
    let data = pb::ChunkData { crc32c: Some(crc32c(&content)), content: content.into() };
    pb::WriteChunkRequest { data: Some(data), ..pb::WriteChunkRequest::default() }
}

/// The pieces of a body that carries the message so many times.
async fn encode(message: &pb::WriteChunkRequest) -> Vec<Bytes> {
    let messages = (0..MESSAGES).map(|_| Ok(message.clone())).collect::<Vec<_>>();
    let encoder = FrameCodec::default().encoder();
    let mut body = pin!(EncodeBody::new_client(encoder, tokio_stream::iter(messages), None, None));
    let mut pieces = Vec::new();
    while let Some(frame) = std::future::poll_fn(|context| body.as_mut().poll_frame(context)).await {
        let piece = frame.expect("messages of memory can be encoded").into_data();
        pieces.push(piece.expect("a client's body has no trailers"));
    }
    pieces
}

/// A body of pieces that are there.
#[derive(Debug)]
struct Pieces(std::vec::IntoIter<Bytes>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        std::task::Poll::Ready(self.0.next().map(|piece| Ok(http_body::Frame::data(piece))))
    }
}

async fn decode(pieces: Vec<Bytes>) -> u64 {
    let decoder = FrameCodec::default().decoder();
    let body = Pieces(pieces.into_iter());
    let mut messages = Streaming::new_request(decoder, body, None, Some(limits::CHUNK_MESSAGE_BYTES_MAX));
    let mut count = 0;
    while let Some(message) = messages.next().await {
        black_box(message.expect("what was encoded can be decoded"));
        count += 1;
    }
    count
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime needs memory alone");
    for (name, size) in [("4 KiB", 4 * limits::KIB), ("256 KiB", limits::FRAME_BYTES)] {
        let message = message(size);
        let pieces = runtime.block_on(encode(&message));
        assert_eq!(runtime.block_on(decode(pieces.clone())), MESSAGES);
        let mut group = criterion.benchmark_group("frames");
        group.throughput(Throughput::Bytes(size * MESSAGES));
        group.bench_function(format!("encode/{name}"), |bencher| {
            bencher.iter(|| runtime.block_on(encode(black_box(&message))));
        });
        group.bench_function(format!("decode/{name}"), |bencher| {
            bencher.iter(|| runtime.block_on(decode(black_box(pieces.clone()))));
        });
        group.finish();
    }
    criterion.final_summary();
}

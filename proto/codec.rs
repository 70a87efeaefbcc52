//! The codec of every stub: prost's, with room for a message made at once.
//!
//! tonic's own lets its buffer grow while a message is written into it. The sum of a frame comes behind its bytes, and for
//! those last few bytes the buffer doubled: a frame on its way was copied once more and held twice its size.

use std::marker::PhantomData;

use prost::Message;
use tonic::Status;
use tonic::codec::{Codec, EncodeBuf, Encoder};
use tonic_prost::{ProstCodec, ProstDecoder};

/// Encodes `T` and decodes `U`.
#[derive(Debug, Clone)]
pub struct RoomyCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for RoomyCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for RoomyCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = RoomyEncoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        RoomyEncoder(ProstCodec::<T, U>::default().encoder())
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::default()
    }
}

/// Encodes `T`.
#[derive(Debug, Clone)]
pub struct RoomyEncoder<T>(tonic_prost::ProstEncoder<T>);

impl<T: Message> Encoder for RoomyEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, item: T, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(item.encoded_len());
        self.0.encode(item, buffer)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use bytes::Bytes;
    use tonic::codec::EncodeBody;
    use tonic::codegen::Body as _;

    use super::*;
    use crate::limits::FRAME_BYTES;
    use crate::pb;

    /// The bytes of a body that carries this message.
    async fn encoded(message: pb::ReadChunkResponse) -> Bytes {
        let encoder = RoomyCodec::<_, ()>::default().encoder();
        let mut body = pin!(EncodeBody::new_client(encoder, tokio_stream::once(Ok(message)), None, None));
        let frame = std::future::poll_fn(|context| body.as_mut().poll_frame(context)).await;
        frame.unwrap().unwrap().into_data().unwrap()
    }

    #[tokio::test]
    async fn a_frame_on_its_way_holds_its_size_and_not_twice_that() {
        let content = Bytes::from(vec![7; usize::try_from(FRAME_BYTES).unwrap()]);
        let data = pb::ChunkData { content, crc32c: Some(7) };
        let message = pb::ReadChunkResponse { read_offset: 7, data: Some(data), ..Default::default() };
        let bytes = encoded(message.clone()).await;
        let (length, buffer) = (bytes.len(), bytes.try_into_mut().unwrap());
        assert_eq!(pb::ReadChunkResponse::decode(&buffer[5..]).unwrap(), message);
        assert!(buffer.capacity() <= length + length / 8, "{length} bytes in {}", buffer.capacity());
    }
}

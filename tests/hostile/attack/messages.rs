//! Messages that are none, and fields that no client of ours would fill in like that.

use anyhow::{Result, ensure};
use bytes::Bytes;
use futures_util::future::try_join_all;
use prost::Message;
use proto::error::Reason;
use proto::limits::PAGE_SIZE_MAX;
use proto::pb;
use proto::pb::chunk_service_client::ChunkServiceClient;
use proto::pb::metadata_service_client::MetadataServiceClient;
use tokio::time::Instant;
use tonic::Code;

use super::call::{Answer, Call, prefixed};
use super::{Target, bearing};

const GET_BLOB: &str = "/minitectonic.v1.MetadataService/GetBlob";
const LIST_BLOBS: &str = "/minitectonic.v1.MetadataService/ListBlobs";
const GET_CHUNK: &str = "/minitectonic.v1.ChunkService/GetChunk";
const WRITE_CHUNK: &str = "/minitectonic.v1.ChunkService/WriteChunk";

/// A call to each kind of method: one message or many, either service.
async fn calls(target: &Target) -> Result<[Call; 3]> {
    let (read, write) = (target.plan_read().await?, target.plan_write(1 << 20).await?);
    target.abort(&write).await?;
    Ok([
        Call::new(&target.metadata_channel(0)?, GET_BLOB, &target.token),
        Call::new(&target.chunk_channel(1)?, GET_CHUNK, &read.capability),
        Call::new(&target.chunk_channel(2)?, WRITE_CHUNK, &write.capability),
    ])
}

/// Repeats something until the time is over, and counts how often.
async fn repeated(target: &Target, once: impl AsyncFn() -> Result<usize>) -> Result<usize> {
    let ends = Instant::now() + target.lasts;
    let mut times = once().await?;
    while Instant::now() < ends {
        times += once().await?;
    }
    Ok(times)
}

/// Prefixes that announce more than anybody takes, with a few bytes behind them.
pub(super) async fn long_prefix(target: &Target) -> Result<String> {
    let calls = calls(target).await?;
    let times = repeated(target, async || {
        let each = calls.iter().flat_map(|call| [0xffff_ffff_u32, 64 << 20, 2 << 20].map(|length| (call, length)));
        let each = each.map(async |(call, length)| {
            let said = [&[0], length.to_be_bytes().as_slice(), b"and no more"].concat();
            let (began, answer) = (Instant::now(), call.send_unended(said.into()).await?);
            answer.expect((call.path, length), &[Reason::FieldInvalid, Reason::FrameTooLarge])?;
            anyhow::Ok(began.elapsed())
        });
        Ok(try_join_all(each).await?.len())
    })
    .await?;
    Ok(format!("{times} calls, each refused with its reason"))
}

/// Messages that say that they are compressed, with and without a name for how.
pub(super) async fn compressed(target: &Target) -> Result<String> {
    let calls = calls(target).await?;
    let times = repeated(target, async || {
        let mut times = 0;
        for encoding in [None, Some("gzip"), Some("zstd"), Some("none of these")] {
            for call in &calls {
                let mut call = call.clone();
                call.headers.extend(encoding.map(|encoding| ("grpc-encoding", encoding.to_owned())));
                let answer = call.send(Bytes::from_static(b"\x01\0\0\0\x04abcd")).await?;
                // For an encoding by name the protocol has a code of its own.
                let unknown = encoding.is_some() && answer.code == Code::Unimplemented;
                ensure!(
                    unknown || answer.reason == Some(Reason::FieldInvalid),
                    "{} {encoding:?}: {answer:?}",
                    call.path
                );
                times += 1;
            }
        }
        Ok(times)
    })
    .await?;
    Ok(format!("{times} calls, each refused with its reason"))
}

/// Groups within groups, as deep as is said: fields of a number that no message of ours has.
fn nested(depth: usize) -> Vec<u8> {
    let (opened, closed) = ([0xfb, 0x3e], [0xfc, 0x3e]);
    [opened.repeat(depth), closed.repeat(depth)].concat()
}

/// Deep nesting, bad UTF-8, wrong types, cut messages: refused. Unknown fields: as the protocol has it, ignored.
pub(super) async fn odd(target: &Target) -> Result<String> {
    let calls = calls(target).await?;
    let times = repeated(target, async || {
        let cases: [(&str, Vec<u8>); 6] = [
            ("nesting", nested(10_000)),
            ("bad UTF-8", vec![0x0a, 2, 0xc3, 0x28]),
            ("a number for a text", vec![0x08, 1]),
            ("a length beyond the end", vec![0x0a, 0xff, 0xff, 0x03]),
            ("an endless number", vec![0xff; 32]),
            ("field number 0", vec![0x02, 0]),
        ];
        for (what, message) in &cases {
            for call in &calls {
                let answer = call.send(prefixed(message)).await?;
                answer.expect((call.path, what), &[Reason::FieldInvalid])?;
            }
        }
        let known = pb::GetBlobRequest { blob_id: target.blob.to_string(), ..Default::default() }.encode_to_vec();
        // Field 1000, of 100 KiB.
        let unknown = [&[0xc2, 0x3e, 0x80, 0xa0, 0x06], vec![7; 100 << 10].as_slice()].concat();
        let [call, ..] = &calls;
        let answer = call.send(prefixed(&[unknown, known].concat())).await?;
        ensure!(answer.code == Code::Ok, "an unknown field: {answer:?}");
        Ok(cases.len() * calls.len() + 1)
    })
    .await?;
    Ok(format!("{times} calls; each refused with its reason, but for unknown fields"))
}

/// Texts that are almost ids, or nothing like one.
fn almost_ids(id: &str) -> Vec<String> {
    vec![
        "../../../../etc/passwd".to_owned(),
        format!("../{id}"),
        format!("{id}/../{id}"),
        format!("{id}\0"),
        "\0".to_owned(),
        format!("{{{id}}}"),
        format!("urn:uuid:{id}"),
        id.to_ascii_uppercase(),
        id.replace('-', ""),
        format!(" {id}"),
        format!("{id}\n"),
        String::new(),
        "a".repeat(10 << 10),
        "\u{202e}\u{1f4a9}".to_owned(),
    ]
}

/// Ids with `../`, NUL, braces, in URN form, in upper case, of 10 KiB: none of them is an id.
pub(super) async fn odd_ids(target: &Target) -> Result<String> {
    const INVALID: &[Reason] = &[Reason::FieldInvalid];
    let read = target.plan_read().await?;
    let mut metadata = MetadataServiceClient::new(target.metadata_channel(0)?);
    let mut chunks = ChunkServiceClient::new(target.chunk_channel(1)?);
    let ends = Instant::now() + target.lasts;
    let mut times = 0;
    while times == 0 || Instant::now() < ends {
        for id in almost_ids(&target.blob.to_string()) {
            let blob_id = id.clone();
            let message = pb::GetBlobRequest { blob_id, ..Default::default() };
            Answer::of_outcome(&metadata.get_blob(bearing(message, &target.token)).await).expect(&id, INVALID)?;
            let blob_id = id.clone();
            let message = pb::DeleteBlobRequest { blob_id, ..Default::default() };
            Answer::of_outcome(&metadata.delete_blob(bearing(message, &target.token)).await).expect(&id, INVALID)?;
            times += 2;
        }
        for chunk_id in almost_ids(&read.chunk) {
            let message = pb::GetChunkRequest { chunk_id: chunk_id.clone() };
            let answer = Answer::of_outcome(&chunks.get_chunk(bearing(message, &read.capability)).await);
            answer.expect(&chunk_id, INVALID)?;
            let message = pb::ReadChunkRequest { chunk_id: chunk_id.clone(), ..Default::default() };
            let answer = Answer::of_outcome(&chunks.read_chunk(bearing(message, &read.capability)).await);
            answer.expect(&chunk_id, INVALID)?;
            times += 2;
        }
    }
    Ok(format!("{times} calls, each refused with its reason"))
}

/// Pages of 0, -1, 2^31 and as many as there are numbers, and tokens that nobody gave out.
pub(super) async fn pages(target: &Target) -> Result<String> {
    let mut service = MetadataServiceClient::new(target.metadata_channel(0)?);
    let call = Call::new(&target.metadata_channel(1)?, LIST_BLOBS, &target.token);
    let forged = ["a", "AAAA", "====", "../..", &"A".repeat(43), &"A".repeat(100), &"A".repeat(100_000), "\0"];
    let ends = Instant::now() + target.lasts;
    let mut times = 0;
    while times == 0 || Instant::now() < ends {
        for (page_size, good) in [(0, true), (-1, false), (i32::MIN, false), (i32::MAX, true)] {
            let message = pb::ListBlobsRequest { page_size, ..Default::default() };
            match service.list_blobs(bearing(message, &target.token)).await {
                Ok(page) => {
                    let count = page.into_inner().blobs.len();
                    ensure!(good && (1..=PAGE_SIZE_MAX).contains(&count), "{page_size}: {count} blobs");
                }
                Err(status) => {
                    ensure!(!good, "{page_size}: {status}");
                    Answer::of(&status).expect(page_size, &[Reason::FieldInvalid])?;
                }
            }
        }
        // 2^31, which is a negative number to whoever reads 32 bits.
        let answer = call.send(prefixed(&[0x10, 0x80, 0x80, 0x80, 0x80, 0x08])).await?;
        answer.expect("2^31", &[Reason::FieldInvalid])?;
        for page_token in forged {
            let message = pb::ListBlobsRequest { page_token: page_token.to_owned(), ..Default::default() };
            let answer = Answer::of_outcome(&service.list_blobs(bearing(message, &target.token)).await);
            answer.expect(page_token, &[Reason::FieldInvalid])?;
        }
        times += 5 + forged.len();
    }
    Ok(format!("{times} calls"))
}

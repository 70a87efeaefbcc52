//! Blobs there and back: by the command line, and by calls that see capabilities and receipts.

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proto::checksum::Sha256;
use proto::pb;

use crate::session::tenant;
use crate::site::{Site, line};

/// Puts, gets, lists, deletes, restores, with bytes that are a canary.
pub(crate) fn blobs(site: &mut Site) -> Result<()> {
    let (tenant, token) = tenant(site)?;
    let content = canary(site);
    site.write("canary.content", content.as_bytes())?;
    let put =
        site.expect(0, &line(&format!("put -t {tenant} -f canary.content --name secret-plans --label a=b -vv")))?;
    let id = site.text(&put);
    let got = site.expect(0, &line(&format!("get -t {tenant} -b {id}")))?;
    site.places.may_show(got.out, content.as_bytes())?;
    let got = site
        .expect(0, &line(&format!("get -t {tenant} -b {id} --range 0-40 -vv")).with("MINI_TECTONIC_TOKEN", &token))?;
    site.places.may_show(got.out, content.get(..=40).unwrap_or_default().as_bytes())?;
    for words in ["stat", "delete -y", "get", "undelete", "get -o got.content"] {
        let ended = site.run(&line(&format!("{words} -t {tenant} -b {id} -vv")))?;
        ensure!(ended.code == Some(if words == "get" { 3 } else { 0 }), "'{words}' ended with {:?}", ended.code);
    }
    let listed = site.expect(0, &line(&format!("list-blobs -t {tenant} --json")))?;
    ensure!(site.text(&listed).contains("secret-plans"), "the blob is listed");
    site.expect(0, &line(&format!("list-blobs -t {tenant} --deleted -vv"))).map(drop)
}

/// Bytes that nobody else has.
fn canary(site: &mut Site) -> String {
    let content = format!("canary {} of the content", site.digits(64));
    site.vault.content("a blob's bytes", &content);
    site.contents.push(content.clone());
    content
}

const METADATA: &str = "/minitectonic.v1.MetadataService";
const CHUNKS: &str = "/minitectonic.v1.ChunkService";

/// The whole way of a blob by single calls, and everything that is permitted on it tried again where it is not.
pub(crate) fn capabilities(site: &mut Site) -> Result<()> {
    let (_tenant, token) = tenant(site)?;
    let content = canary(site);
    let size_bytes = content.len() as u64;
    let start = pb::StartUploadRequest { size_bytes: Some(size_bytes), ..Default::default() };
    let answer = site.ask(&format!("{METADATA}/StartUpload"), &token, &start)?;
    let started: pb::StartUploadResponse = answer.message()?;
    let plan = started.blocks.first().and_then(|block| block.chunks.first()).context("a plan")?.clone();
    site.vault.signed("a capability to write", &plan.capability);
    site.places.may_show(answer.place, plan.capability.as_bytes())?;
    let write = pb::WriteChunkRequest {
        spec: Some(pb::WriteChunkSpec { chunk_id: plan.chunk_id.clone(), ..Default::default() }),
        data: Some(pb::ChunkData { content: content.clone().into(), ..Default::default() }),
        finish_write: true,
        ..Default::default()
    };
    misuse_of(site, &plan.endpoint, "WriteChunk", &plan.capability, &write)?;
    let bearer = format!("Bearer {}", plan.capability);
    let answer = site.call(&plan.endpoint, &format!("{CHUNKS}/WriteChunk"), &[&bearer], &write)?;
    let written: pb::WriteChunkResponse = answer.message()?;
    let receipt = URL_SAFE_NO_PAD.encode(&written.receipt);
    site.vault.signed("a receipt", &receipt);
    site.places.may_show(answer.place, &written.receipt)?;
    let blob_id = started.upload.context("an upload")?.blob_id;
    commit(site, &token, &blob_id, &content, &receipt)?;
    let request = pb::GetBlobLayoutRequest { blob_id, ..Default::default() };
    let answer = site.ask(&format!("{METADATA}/GetBlobLayout"), &token, &request)?;
    let layout: pb::GetBlobLayoutResponse = answer.message()?;
    let place = layout.blocks.first().and_then(|block| block.chunks.first()).context("a place")?.clone();
    site.vault.signed("a capability to read", &place.capability);
    site.places.may_show(answer.place, place.capability.as_bytes())?;
    let read = pb::ReadChunkRequest { chunk_id: place.chunk_id, ..Default::default() };
    misuse_of(site, &place.endpoint, "ReadChunk", &place.capability, &read)?;
    let bearer = format!("Bearer {}", place.capability);
    let answer = site.call(&place.endpoint, &format!("{CHUNKS}/ReadChunk"), &[&bearer], &read)?;
    site.places.may_show(answer.place, content.as_bytes())?;
    ensure!(answer.reason.is_empty(), "a read was refused: {}", answer.reason);
    Ok(())
}

/// With a receipt that was changed, and then with the good one.
fn commit(site: &mut Site, token: &str, blob_id: &str, content: &str, receipt: &str) -> Result<()> {
    for (receipt, reason) in [(flipped(receipt), "ReceiptInvalid"), (receipt.to_owned(), "")] {
        let commit = pb::CommitUploadRequest {
            blob_id: blob_id.to_owned(),
            size_bytes: content.len() as u64,
            sha256: Sha256::of(content.as_bytes()).to_string(),
            receipts: vec![URL_SAFE_NO_PAD.decode(receipt)?.into()],
            ..Default::default()
        };
        let answer = site.ask(&format!("{METADATA}/CommitUpload"), token, &commit)?;
        ensure!(answer.reason == reason, "a commit ended with {:?}, not {reason:?}", answer.reason);
    }
    Ok(())
}

/// A capability with one character changed, one for another call, and one in the place of a token.
fn misuse_of(
    site: &mut Site,
    endpoint: &str,
    method: &str,
    capability: &str,
    message: &impl prost::Message,
) -> Result<()> {
    let other = if method == "WriteChunk" { "ReadChunk" } else { "DeleteChunk" };
    for (method, credential) in [(method, flipped(capability)), (other, capability.to_owned())] {
        let bearer = format!("Bearer {credential}");
        let answer = site.call(endpoint, &format!("{CHUNKS}/{method}"), &[&bearer], message)?;
        ensure!(!answer.reason.is_empty(), "{method} took a capability that is none for it");
    }
    let answer = site.ask(&format!("{METADATA}/ListBlobs"), capability, &pb::ListBlobsRequest::default())?;
    ensure!(answer.reason == "TokenInvalid", "a capability in a token's place: {:?}", answer.reason);
    Ok(())
}

/// The last character but one is another.
fn flipped(text: &str) -> String {
    let at = text.len().saturating_sub(2);
    let change = |(index, character)| match (index == at, character) {
        (true, 'A') => 'B',
        (true, _) => 'A',
        (false, character) => character,
    };
    text.chars().enumerate().map(change).collect()
}

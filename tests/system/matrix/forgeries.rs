//! Every credential and signed statement in all the ways in which it can be a little wrong (I10, I5): each bit flipped, of
//! its text and of its bytes, cut off at each place, made longer, in other letters and in other spellings of base64. Each is
//! refused, so that no two texts are the same credential; the real one is taken before and after.
//!
//! All forgeries are held against the checks themselves; over the wire goes every eighth, or with
//! `MINI_TECTONIC_MATRIX=full` every one:
//!
//! ```text
//! MINI_TECTONIC_MATRIX=full cargo test -p mini-tectonic-proto --test system forgeries -- --nocapture
//! ```

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use bytes::Bytes;
use prost::Message as _;
use proto::capability::{self, NodeKey, Permit};
use proto::checksum::{Sha256, crc32c};
use proto::pb;
use proto::receipt::{self, Receipt};
use proto::runtime::clock::Clock as _;
use proto::status::from_status;
use proto::token::Token;
use tonic::transport::Channel;

use super::capabilities::of;
use super::site::Site;
use super::wire::{self, Outcome};

/// Calls on one connection: one on which very many are refused unread is closed.
const CALLS_PER_CONNECTION: usize = 50;
/// Of so many forgeries one goes over the wire in the short form.
const SHARE: usize = 8;

fn flipped(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    (0..bytes.len() * 8).map(|bit| {
        let mut flipped = bytes.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        flipped
    })
}

/// Other texts that look like this one, as far as a header can hold them.
fn other_texts(text: &str) -> BTreeSet<String> {
    let mut others: BTreeSet<String> =
        flipped(text.as_bytes()).filter_map(|bytes| String::from_utf8(bytes).ok()).collect();
    others.extend((0..text.len()).map(|end| text[..end].to_owned()));
    others.extend((1..text.len()).map(|begin| text[begin..].to_owned()));
    let behind = ["A", "0", "=", "==", ".", " ", "\t", ",", "%20", "AAAA"].map(|more| format!("{text}{more}"));
    let before = ["A", " ", "=", "Bearer "].map(|more| format!("{more}{text}"));
    others.extend(behind.into_iter().chain(before));
    for at in 0..text.len() {
        let (begin, end) = text.split_at(at);
        others.insert(format!("{begin}{}{}", end[..1].to_uppercase(), &end[1..]));
        others.insert(format!("{begin}{}{}", end[..1].to_lowercase(), &end[1..]));
    }
    others.extend([text.to_uppercase(), text.to_lowercase()]);
    others.retain(|other| {
        other != text && other.parse::<tonic::metadata::MetadataValue<tonic::metadata::Ascii>>().is_ok()
    });
    others
}

/// Texts of base64 besides: of bytes with one bit flipped, and other spellings of the same bytes.
fn other_base64(text: &str) -> BTreeSet<String> {
    let bytes = URL_SAFE_NO_PAD.decode(text).unwrap();
    let mut others = other_texts(text);
    others.extend(flipped(&bytes).map(|bytes| URL_SAFE_NO_PAD.encode(bytes)));
    others.extend([URL_SAFE.encode(&bytes), STANDARD.encode(&bytes), STANDARD_NO_PAD.encode(&bytes)]);
    // The last character has bits to spare, unless the length is a multiple of three.
    let alphabet = (b'A'..=b'Z').chain(b'a'..=b'z').chain(b'0'..=b'9').chain([b'-', b'_']).map(char::from);
    others.extend(alphabet.map(|last| format!("{}{last}", &text[..text.len() - 1])));
    others.remove(text);
    others
}

/// Tokens with a right checksum besides, of which one bit of the key id or the secret is flipped.
fn other_tokens(text: &str) -> BTreeSet<String> {
    let mut others = other_texts(text);
    let (body, _crc) = text.rsplit_once('.').unwrap();
    for (at, digit) in body.char_indices().filter(|(at, digit)| *at > 3 && digit.is_ascii_hexdigit()) {
        for bit in 0..4 {
            let digit = digit.to_digit(16).unwrap() ^ (1 << bit);
            let body = format!("{}{digit:x}{}", &body[..at], &body[at + 1..]);
            others.insert(format!("{body}.{:08x}", crc32c(body.as_bytes())));
        }
    }
    others
}

fn other_bytes(bytes: &[u8]) -> BTreeSet<Vec<u8>> {
    let cut = (0..bytes.len()).flat_map(|at| [bytes[..at].to_vec(), bytes[at + 1..].to_vec()]);
    let longer = [[bytes, &[0]].concat(), [&[0], bytes].concat(), [bytes, bytes].concat()];
    let others = flipped(bytes).chain(cut).chain(longer);
    others.filter(|other| other != bytes).collect()
}

/// Calls one method, over few connections.
struct Caller<'a> {
    site: &'a Site,
    path: &'static str,
    channel: Channel,
    calls: usize,
}

impl<'a> Caller<'a> {
    async fn new(site: &'a Site, method: &str) -> Self {
        let path = proto::METHOD_PATHS.iter().copied().find(|path| path.ends_with(method)).unwrap();
        Self { site, path, channel: site.connect(path).await, calls: 0 }
    }

    async fn call(&mut self, credential: &str, message: &[u8]) -> Outcome {
        self.calls += 1;
        if self.calls.is_multiple_of(CALLS_PER_CONNECTION) {
            self.channel = self.site.connect(self.path).await;
        }
        wire::call(self.channel.clone(), self.path, &[format!("Bearer {credential}")], message).await
    }

    /// The real credential is taken, its forgeries are not.
    async fn refuses(&mut self, good: &str, message: &[u8], forgeries: &[&String], reason: &str) -> usize {
        assert!(self.call(good, message).await.answer.is_ok(), "{}", self.path);
        for forgery in forgeries {
            let outcome = self.call(forgery, message).await;
            expect_refusal(&outcome, reason, &format!("{} with {forgery:?}", self.path));
        }
        assert!(self.call(good, message).await.answer.is_ok(), "{}", self.path);
        forgeries.len()
    }
}

fn expect_refusal(outcome: &Outcome, reason: &str, what: &str) {
    let Err(refused) = &outcome.answer else { panic!("{what} is taken") };
    let status = tonic::Status::with_details(refused.code, "", refused.details.clone().into());
    let found = from_status(&status).reason.map(proto::error::Reason::as_str);
    assert_eq!(found, Some(reason), "{what}: {refused:?}");
}

/// How many forgeries of something there are, and how many of them were sent.
#[derive(Default)]
struct Figures {
    kinds: Vec<String>,
    checked: usize,
    sent: usize,
}

impl Figures {
    fn add(&mut self, kind: &str, checked: usize, sent: usize) {
        self.kinds.push(format!("{kind} {checked}"));
        self.checked += checked;
        self.sent += sent;
    }
}

fn some<T>(forgeries: &BTreeSet<T>) -> Vec<&T> {
    let share = if std::env::var_os("MINI_TECTONIC_MATRIX").is_some() { 1 } else { SHARE };
    forgeries.iter().step_by(share).collect()
}

async fn capabilities(site: &Site, figures: &mut Figures) {
    let (location, planned) = (&site.owner.location, &site.owner.upload.blocks[0].chunks[0]);
    let Permit::Read(claims) = site.read(&location.capability).permit else { panic!("a layout permits to read") };
    let (read, open) = (location.chunk_id.clone(), planned.chunk_id.clone());
    let delete = pb::DeleteChunkRequest { chunk_id: open.clone() }.encode_to_vec();
    let verify = pb::VerifyChunkRequest { chunk_id: read.clone(), repair: false }.encode_to_vec();
    let list = pb::ListChunksRequest::default().encode_to_vec();
    for (method, capability, message) in [
        (
            "/QueryWriteStatus",
            planned.capability.clone(),
            pb::QueryWriteStatusRequest { chunk_id: open }.encode_to_vec(),
        ),
        ("/GetChunk", location.capability.clone(), pb::GetChunkRequest { chunk_id: read }.encode_to_vec()),
        ("/DeleteChunk", of(site, &planned.capability, Permit::Delete), delete),
        ("/VerifyChunk", of(site, &location.capability, Permit::Verify(claims)), verify),
        ("/ListChunks", of(site, &location.capability, Permit::List), list),
    ] {
        let forgeries = other_base64(&capability);
        let (keys, now_ms) = (std::slice::from_ref(&site.node_key), site.clock.now_ms());
        let check = |text: &str| capability::verify(text, keys, site.cluster_id, site.node, now_ms, 0);
        assert!(check(&capability).is_ok() && forgeries.iter().all(|forgery| check(forgery).is_err()), "{method}");
        let mut caller = Caller::new(site, method).await;
        let sent = caller.refuses(&capability, &message, &some(&forgeries), "CAPABILITY_INVALID").await;
        figures.add(&format!("capability of {}", &method[1..]), forgeries.len(), sent);
    }
}

async fn tokens(site: &Site, figures: &mut Figures) {
    let chunk = pb::DescribeChunkRequest { chunk_id: site.owner.location.chunk_id.clone() };
    let node = pb::RegisterNodeRequest {
        node_id: site.other_node.to_string(),
        endpoint: super::site::ENDPOINT.to_owned(),
        ..Default::default()
    };
    for (kind, method, token, message) in [
        ("tenant's token", "/ListBlobs", &site.owner.token, Vec::new()),
        ("admin token", "/ListTenants", &site.keys.admin, Vec::new()),
        ("node's token", "/DescribeChunk", &site.keys.node, chunk.encode_to_vec()),
        ("join token", "/RegisterNode", &site.keys.join, node.encode_to_vec()),
    ] {
        let forgeries = other_tokens(token);
        let real: Token = token.parse().unwrap();
        let is_real = |text: &str| {
            text.parse().is_ok_and(|read: Token| {
                (read.kind, read.key_id) == (real.kind, real.key_id) && read.matches(&real.secret_sha256())
            })
        };
        assert!(is_real(token) && !forgeries.iter().any(|forgery| is_real(forgery)), "{kind}");
        let sent = Caller::new(site, method).await.refuses(token, &message, &some(&forgeries), "TOKEN_INVALID").await;
        figures.add(kind, forgeries.len(), sent);
    }
}

async fn page_tokens(site: &Site, figures: &mut Figures) {
    let page = |page_token: &str| pb::ListBlobsRequest { page_token: page_token.to_owned(), ..Default::default() };
    let mut forgeries = other_base64(&site.owner.page_token);
    // That of the first page.
    forgeries.remove("");
    let (mut caller, token) = (Caller::new(site, "/ListBlobs").await, &site.owner.token);
    assert!(caller.call(token, &page(&site.owner.page_token).encode_to_vec()).await.answer.is_ok());
    for forgery in &forgeries {
        let outcome = caller.call(token, &page(forgery).encode_to_vec()).await;
        expect_refusal(&outcome, "FIELD_INVALID", forgery);
    }
    figures.add("page token", forgeries.len(), forgeries.len());
}

async fn receipts(site: &Site, figures: &mut Figures) {
    let upload = &site.stranger.upload;
    let binding = site.read(&upload.blocks[0].chunks[0].capability).binding;
    let receipt = Receipt {
        cluster: site.cluster_id,
        node: site.node,
        blob: binding.blob,
        chunk: binding.chunk,
        block: binding.block,
        generation: binding.generation,
        size_bytes: 100,
        sha256: Sha256::of(b"bytes"),
        pieces_sha256: Sha256::of(b"pieces"),
    };
    let good = receipt::sign(&receipt, &site.node_key);
    let forgeries = other_bytes(&good);
    let NodeKey { key_id, .. } = site.node_key;
    let key_of = |node, key| (node == site.node && key == key_id).then(|| site.node_key.clone());
    assert!(receipt::verify(&good, key_of).is_ok());
    assert!(forgeries.iter().all(|forgery| receipt::verify(forgery, key_of).is_err()));

    let commit = |receipt: &[u8]| {
        let receipts = vec![Bytes::copy_from_slice(receipt)];
        let (blob_id, sha256) = (binding.blob.to_string(), Sha256::of(b"bytes").to_string());
        pb::CommitUploadRequest { blob_id, sha256, size_bytes: 100, receipts, ..Default::default() }.encode_to_vec()
    };
    let (mut caller, sent) = (Caller::new(site, "/CommitUpload").await, some(&forgeries));
    for forgery in &sent {
        let outcome = caller.call(&site.stranger.token, &commit(forgery)).await;
        expect_refusal(&outcome, "RECEIPT_INVALID", &format!("{forgery:?}"));
    }
    assert!(caller.call(&site.stranger.token, &commit(&good)).await.answer.is_ok(), "the real one makes a blob");
    figures.add("receipt", forgeries.len(), sent.len());
}

#[expect(clippy::print_stdout, reason = "the suite's figures")]
#[tokio::test(flavor = "multi_thread")]
async fn every_flipped_bit_and_every_other_spelling_of_a_credential_is_refused() {
    let site = Box::pin(Site::new()).await;
    let mut figures = Figures::default();
    capabilities(&site, &mut figures).await;
    tokens(&site, &mut figures).await;
    page_tokens(&site, &mut figures).await;
    receipts(&site, &mut figures).await;
    let Figures { kinds, checked, sent } = figures;
    println!("forgeries: {checked} checked, {sent} of them over the wire, 100 % refused; {}", kinds.join(", "));
    assert!(checked > 20_000 && sent > 2_500, "every kind is tried");
}

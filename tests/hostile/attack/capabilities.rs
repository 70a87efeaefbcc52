//! Capabilities that were changed, or are of another time, tenant, node, chunk or operation.
//!
//! Those that only the cluster could have signed are signed here with the node's own key: what is shown is that a
//! capability in good order is refused where it does not belong.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use futures_util::future::try_join_all;
use proto::capability::{Capability, NodeKey, Permit, sign, verify};
use proto::entropy::{Entropy as _, OsEntropy};
use proto::error::Reason;
use proto::ids::{ChunkId, ClusterId, NodeId};
use proto::pb;
use proto::pb::chunk_service_client::ChunkServiceClient;
use proto::runtime::clock::{Clock as _, SystemClock};
use proto::secret::SecretKey;
use tokio::time::Instant;
use tonic::transport::Channel;

use super::call::{Answer, Call, prefixed};
use super::{Plan, Target, bearing};

const HOUR_MS: u64 = 60 * 60 * 1_000;
const REFUSED: &[Reason] = &[Reason::CapabilityInvalid];

/// What a node knows of itself: its folder's `node.key`.
struct Node {
    id: NodeId,
    cluster: ClusterId,
    key: NodeKey,
}

impl Node {
    fn read(storage: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(storage.join("chunks/node.key")).context("read the node's key")?;
        let line = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).context("a line of node.key");
        let (key_id, hex) = line("key=")?.split_once(':').context("a key")?;
        let digits = |at: usize| u8::from_str_radix(hex.get(at..at + 2).unwrap_or_default(), 16);
        let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(digits).collect::<Result<_, _>>()?;
        let key = NodeKey { key_id: key_id.parse()?, secret: SecretKey::from_slice(&bytes).context("32 bytes")? };
        Ok(Self { id: line("node=")?.parse()?, cluster: line("cluster=")?.parse()?, key })
    }

    fn sign(&self, capability: &Capability) -> String {
        sign(capability, &self.key, [9; 8])
    }
}

/// What is answered to a call for one chunk's description.
async fn get(channel: &Channel, chunk: &str, capability: &str) -> Answer {
    let message = pb::GetChunkRequest { chunk_id: chunk.to_owned() };
    Answer::of_outcome(&ChunkServiceClient::new(channel.clone()).get_chunk(bearing(message, capability)).await)
}

/// Flipped bits, of which a sample, and capabilities that are good for something else.
pub(super) async fn altered(target: &Target) -> Result<String> {
    let node = Node::read(&target.storage)?;
    let plan = target.plan_read().await?;
    let now_ms = SystemClock.now_ms();
    let keys = std::slice::from_ref(&node.key);
    let good = verify(&plan.capability, keys, node.cluster, node.id, now_ms, HOUR_MS)?;
    let channel = target.chunk_channel(0)?;
    ensure!(get(&channel, &plan.chunk, &node.sign(&good)).await.reason.is_none(), "what is good is refused");
    let ends = Instant::now() + target.lasts;
    let mut times = 0;
    while times == 0 || Instant::now() < ends {
        foreign(&channel, &plan, &node, &good, now_ms).await?;
        try_join_all((0..64).map(async |_| {
            let flipped = flip_one(&plan.capability);
            get(&channel, &plan.chunk, &flipped).await.expect(flipped, REFUSED)
        }))
        .await?;
        times += 74;
    }
    Ok(format!("{times} calls, each refused with its reason"))
}

/// The text with another letter somewhere that is not at its end, where a letter has bits that mean nothing.
fn flip_one(text: &str) -> String {
    let mut random = [0; 4];
    OsEntropy.fill(&mut random);
    let [a, b, c, _] = random;
    let at = usize::from(u16::from_be_bytes([a, b])) % text.len().saturating_sub(1).max(1);
    let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut bytes = text.as_bytes().to_vec();
    if let Some(byte) = bytes.get_mut(at) {
        let other = letters.iter().cycle().skip(usize::from(c)).find(|letter| *letter != byte);
        *byte = other.copied().unwrap_or(b'!');
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn foreign(channel: &Channel, plan: &Plan, node: &Node, good: &Capability, now_ms: u64) -> Result<()> {
    let (early, late) = (now_ms + HOUR_MS, now_ms - HOUR_MS);
    let of = |capability: Capability| node.sign(&capability);
    let mut binding = good.binding;
    binding.chunk = ChunkId::generate(now_ms, &OsEntropy);
    let other_key = NodeKey { key_id: node.key.key_id, secret: SecretKey::generate(&OsEntropy) };
    let cases = [
        ("of a later time", of(Capability { not_before_ms: early, expire_ms: early, ..good.clone() })),
        ("of another node", of(Capability { node: NodeId::generate(now_ms, &OsEntropy), ..good.clone() })),
        ("of another cluster", of(Capability { cluster: ClusterId::generate(now_ms, &OsEntropy), ..good.clone() })),
        ("of another chunk", of(Capability { binding, ..good.clone() })),
        ("for writing", of(Capability { permit: Permit::Write { max_bytes: 1 << 20 }, ..good.clone() })),
        ("for deleting", of(Capability { permit: Permit::Delete, ..good.clone() })),
        ("under another key", sign(good, &other_key, [9; 8])),
        ("cut", plan.capability.chars().take(100).collect()),
        ("of 10 KiB", "A".repeat(7 << 10)),
    ];
    for (what, capability) in cases {
        get(channel, &plan.chunk, &capability).await.expect(what, REFUSED)?;
    }
    let expired = of(Capability { not_before_ms: late, expire_ms: late, ..good.clone() });
    get(channel, &plan.chunk, &expired).await.expect("of an earlier time", &[Reason::CapabilityExpired])?;
    Ok(())
}

/// Calls with two credentials, which may both be good, and with ones of another scheme.
pub(super) async fn two_credentials(target: &Target) -> Result<String> {
    let plan = target.plan_read().await?;
    let chunk = prost::Message::encode_to_vec(&pb::GetChunkRequest { chunk_id: plan.chunk.clone() });
    let blob = pb::GetBlobRequest { blob_id: target.blob.to_string(), ..Default::default() };
    let blob = prost::Message::encode_to_vec(&blob);
    let metadata = Call::new(&target.metadata_channel(0)?, "/minitectonic.v1.MetadataService/GetBlob", &target.token);
    let chunks = Call::new(&target.chunk_channel(1)?, "/minitectonic.v1.ChunkService/GetChunk", &plan.capability);
    let ends = Instant::now() + target.lasts;
    let (mut times, mut turned_away) = ([0_u64; 2], 0);
    while times.contains(&0) || Instant::now() < ends {
        for (times, (call, message)) in times.iter_mut().zip([(&metadata, &blob), (&chunks, &chunk)]) {
            let (own, message) = (call.headers.clone(), prefixed(message));
            for other in
                ["Bearer x".to_owned(), "Basic eDp5".to_owned(), own.iter().map(|(_, value)| &**value).collect()]
            {
                let both = [own.clone(), vec![("authorization", other)]].concat();
                for headers in [both.clone(), both.into_iter().rev().collect()] {
                    let answer = Call { headers, ..call.clone() }.send(message.clone()).await?;
                    if answer.is_turned_away() {
                        turned_away += 1;
                        continue;
                    }
                    let refused = [Reason::TokenInvalid, Reason::CapabilityInvalid, Reason::TokenMissing];
                    answer.expect(call.path, &refused)?;
                    *times += 1;
                }
            }
        }
    }
    let times: u64 = times.iter().sum();
    Ok(format!("{times} calls, each refused with its reason, and {turned_away} turned away"))
}

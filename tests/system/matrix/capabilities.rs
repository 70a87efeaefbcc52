//! Capabilities as the metadata service would have signed them, and as it never would.

use proto::capability::{self, Capability, NodeKey, Permit, ReadClaims};
use proto::checksum::Sha256;
use proto::entropy::OsEntropy;
use proto::ids::{ClusterId, NodeId};
use proto::runtime::clock::Clock as _;
use proto::secret::SecretKey;

use super::site::Site;

const MINUTE_MS: u64 = 60_000;

/// The same chunk, another operation.
pub(super) fn of(site: &Site, text: &str, permit: Permit) -> String {
    changed(site, text, |capability| capability.permit = permit)
}

fn changed(site: &Site, text: &str, change: impl FnOnce(&mut Capability)) -> String {
    let mut capability = site.read(text);
    change(&mut capability);
    capability::sign(&capability, &site.node_key, [7; 8])
}

fn resigned(site: &Site, text: &str, key: &NodeKey) -> String {
    capability::sign(&site.read(text), key, [7; 8])
}

fn claims() -> ReadClaims {
    ReadClaims { size_bytes: 100, sha256: Sha256::of(b"x"), pieces_sha256: Sha256::of(b"y") }
}

/// One permission for each operation.
pub(super) fn permits() -> [(&'static str, Permit); 5] {
    [
        ("a capability to write", Permit::Write { max_bytes: 100 }),
        ("a capability to read", Permit::Read(claims())),
        ("a capability to delete", Permit::Delete),
        ("a capability to verify", Permit::Verify(claims())),
        ("a capability to list", Permit::List),
    ]
}

/// What differs from a good capability in one way, and must not be told from any other that is wrong.
pub(super) fn invalid(site: &Site, good: &str) -> Vec<(String, String)> {
    let now_ms = site.clock.now_ms();
    let permit = std::mem::discriminant(&site.read(good).permit);
    let others = permits().into_iter().filter(|(_, other)| std::mem::discriminant(other) != permit);
    let mut all: Vec<(String, String)> =
        others.map(|(name, permit)| (format!("{name} instead"), of(site, good, permit))).collect();
    let NodeKey { key_id, secret } = site.node_key.clone();
    let another = NodeKey { key_id, secret: SecretKey::generate(&OsEntropy) };
    let (flipped, padded) = (last_bit_flipped(good), format!("{good}="));
    for (name, text) in [
        ("another node's", changed(site, good, |capability| capability.node = NodeId::generate(1, &OsEntropy))),
        (
            "another cluster's",
            changed(site, good, |capability| capability.cluster = ClusterId::generate(1, &OsEntropy)),
        ),
        ("one that begins in ten minutes", changed(site, good, |it| it.not_before_ms = now_ms + 10 * MINUTE_MS)),
        ("one under another secret", resigned(site, good, &another)),
        ("one under another key id", resigned(site, good, &NodeKey { key_id: key_id + 1, secret })),
        ("one with a flipped bit", flipped),
        ("one with padding", padded),
        ("one with a blank behind it", format!("{good} ")),
        ("one with a blank before it", format!(" {good}")),
        ("one in upper case", good.to_uppercase()),
        ("one without its end", good[..good.len() - 1].to_owned()),
        ("nonsense", "nonsense".to_owned()),
        ("nothing", String::new()),
        ("5,000 letters", "A".repeat(5_000)),
    ] {
        all.push((name.to_owned(), text));
    }
    all
}

/// A good one, whose time is over.
pub(super) fn expired(site: &Site, good: &str) -> String {
    let now_ms = site.clock.now_ms();
    changed(site, good, |capability| {
        (capability.not_before_ms, capability.expire_ms) = (now_ms - 10 * MINUTE_MS, now_ms - MINUTE_MS);
    })
}

/// The text of other bytes: its last character stands for fewer bits than it could, so another one is taken.
fn last_bit_flipped(good: &str) -> String {
    let (at, last) = good.char_indices().next_back().unwrap();
    let other = if last == 'A' { 'Q' } else { 'A' };
    format!("{}{other}", &good[..at])
}

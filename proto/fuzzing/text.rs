//! Tokens, ids and digests as text: whatever is taken prints as the same text.

use std::fmt::Display;
use std::str::FromStr;

use super::Choices;
use crate::checksum::{Sha256, crc32c};
use crate::entropy::SeededEntropy;
use crate::ids::{BlobId, BlockId, ChunkId, ClusterId, NodeId, TenantId};
use crate::token::{Token, TokenKind};

fn prints_the_same<T: FromStr + Display>(text: &str) {
    if let Ok(parsed) = text.parse::<T>() {
        assert_eq!(parsed.to_string(), text);
    }
}

/// Fuzzes every parser of short texts. With an odd first byte the text is given the sum that a token ends with.
pub(super) fn token(input: &[u8]) {
    let mut choices = Choices::new(input);
    let sealed = choices.byte() % 2 == 1;
    let Ok(text) = std::str::from_utf8(choices.rest()) else { return };
    let text = if sealed { format!("{text}.{:08x}", crc32c(text.as_bytes())) } else { text.to_owned() };
    if let Ok(token) = text.parse::<Token>() {
        assert_eq!(token.expose().as_str(), text);
    }
    if let Ok(id) = text.parse::<BlobId>() {
        // Any 16 bytes are an id, also those that were drawn at no moment.
        assert_eq!(id.drawn_ms().is_some(), id.as_bytes().get(6).is_some_and(|version| version >> 4 == 7));
    }
    prints_the_same::<BlobId>(&text);
    prints_the_same::<BlockId>(&text);
    prints_the_same::<ChunkId>(&text);
    prints_the_same::<ClusterId>(&text);
    prints_the_same::<NodeId>(&text);
    prints_the_same::<TenantId>(&text);
    prints_the_same::<Sha256>(&text);
}

/// A token of each kind with its sum and without, a tenant id, a UUID and a digest.
pub(super) fn token_seeds() -> Vec<Vec<u8>> {
    let entropy = SeededEntropy::new(1);
    let mut seeds = Vec::new();
    for kind in [TokenKind::Admin, TokenKind::Tenant, TokenKind::Join, TokenKind::Node] {
        let token = Token::generate(kind, &entropy).expose();
        seeds.push([&[0], token.as_bytes()].concat());
        let (unsealed, _sum) = token.rsplit_once('.').expect("a token has a sum");
        seeds.push([&[1], unsealed.as_bytes()].concat());
    }
    let others = ["posts".to_owned(), BlobId::generate(1, &entropy).to_string(), Sha256::of(b"a").to_string()];
    seeds.extend(others.iter().map(|text| [&[0], text.as_bytes()].concat()));
    seeds
}

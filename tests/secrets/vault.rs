//! The secrets of a session, and every form in which one could come out.
//!
//! A secret has parts that say as much as the whole: of a token its secret half, and of that each half, so that a token
//! which was cut short is found too; of a capability or receipt the sum that signs it; of a key its bytes. Each part is
//! looked for as it is, as hex, as base64 and base64url at each of the three places where it may begin in a longer text,
//! and as lists of bytes as `Debug` and JSON print them.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use proto::secret::SECRET_BYTES;

/// No part is shorter: what is shorter comes about by chance.
const PART_BYTES_MIN: usize = 16;

/// What is known to be secret: the text of each, and what it is.
#[derive(Debug, Default)]
pub(crate) struct Vault(BTreeMap<String, Secret>);

/// One secret.
#[derive(Debug)]
pub(crate) struct Secret {
    /// What it is, for people.
    pub(crate) what: String,
    parts: Vec<Vec<u8>>,
}

impl Vault {
    /// A token, or a text that was given in the place of one.
    pub(crate) fn token(&mut self, what: &str, token: &str) {
        let mut parts = vec![token.as_bytes().to_vec()];
        if let Some(secret) = token.split('.').nth(2).and_then(from_hex) {
            let (first, second) = secret.split_at(secret.len() / 2);
            parts.extend([secret.clone(), first.to_vec(), second.to_vec()]);
        }
        self.insert(what, token, parts);
    }

    /// A capability or a receipt.
    pub(crate) fn signed(&mut self, what: &str, text: &str) {
        let mut parts = vec![text.as_bytes().to_vec()];
        if let Ok(signed) = URL_SAFE_NO_PAD.decode(text)
            && let Some(at) = signed.len().checked_sub(SECRET_BYTES)
        {
            let (_body, sum) = signed.split_at(at);
            let (first, second) = sum.split_at(SECRET_BYTES / 2);
            parts.extend([sum.to_vec(), first.to_vec(), second.to_vec()]);
        }
        self.insert(what, text, parts);
    }

    /// A key in hex.
    pub(crate) fn key(&mut self, what: &str, hex: &str) {
        self.insert(what, hex, from_hex(hex).into_iter().collect());
    }

    /// A private key in PEM: its bytes, and of these the number that is secret. What follows it is public.
    pub(crate) fn pem(&mut self, what: &str, pem: &str) {
        const LENGTH_OF_SECRET: [u8; 2] = [0x04, 0x20];
        let lines: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
        let Ok(key) = STANDARD.decode(lines) else { return };
        let at = key.windows(2).position(|window| window == LENGTH_OF_SECRET);
        let secret = at.and_then(|at| key.get(at + 2..at + 2 + SECRET_BYTES)).unwrap_or_default().to_vec();
        let (first, second) = secret.split_at(secret.len() / 2);
        self.insert(what, pem, vec![key.clone(), secret.clone(), first.to_vec(), second.to_vec()]);
    }

    /// A tenant's bytes.
    pub(crate) fn content(&mut self, what: &str, text: &str) {
        self.insert(what, text, vec![text.as_bytes().to_vec()]);
    }

    fn insert(&mut self, what: &str, text: &str, parts: Vec<Vec<u8>>) {
        let parts = parts.into_iter().filter(|part| part.len() >= PART_BYTES_MIN).collect();
        self.0.entry(text.to_owned()).or_insert_with(|| Secret { what: what.to_owned(), parts });
    }

    /// Takes up everything that a file of secrets holds, as its name says.
    pub(crate) fn learn_file(&mut self, name: &str, content: &str) {
        if content.contains("PRIVATE KEY") {
            self.pem(name, content);
        }
        for word in content.split(|character: char| character.is_whitespace() || "\"=:".contains(character)) {
            if word.len() == 2 * SECRET_BYTES && from_hex(word).is_some() {
                self.key(&format!("key in {name}"), word);
            } else if ["ma1.", "mt1.", "mj1.", "mn1."].iter().any(|kind| word.starts_with(kind)) {
                self.token(&format!("token in {name}"), word);
            }
        }
    }

    /// The texts and the secrets.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Secret)> {
        self.0.iter().map(|(text, secret)| (text.as_str(), secret))
    }
}

impl Secret {
    /// Everything to look for, and what it is a form of.
    pub(crate) fn forms(&self) -> Vec<(&'static str, Vec<u8>)> {
        self.parts.iter().flat_map(|part| forms_of(part)).collect()
    }
}

fn forms_of(part: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let list = |between: &str| part.iter().map(u8::to_string).collect::<Vec<_>>().join(between).into_bytes();
    let escaped = format!("{:?}", Bytes::copy_from_slice(part));
    let escaped = escaped.trim_start_matches("b\"").trim_end_matches('"').as_bytes().to_vec();
    let mut forms = vec![
        ("as it is", part.to_vec()),
        ("in hex", hex(part).into_bytes()),
        ("in upper case hex", hex(part).to_uppercase().into_bytes()),
        ("as a list", list(", ")),
        ("as a JSON list", list(",")),
        ("escaped", escaped),
    ];
    for before in 0..3 {
        let padded = [vec![0; before], part.to_vec()].concat();
        for (name, encoded) in
            [("in base64", STANDARD_NO_PAD.encode(&padded)), ("in base64url", URL_SAFE_NO_PAD.encode(&padded))]
        {
            // The digits at the edges hold bits of what stands beside the part.
            let begin = (before * 8).div_ceil(6);
            let end = padded.len() * 8 / 6;
            forms.push((name, encoded.get(begin..end).unwrap_or_default().as_bytes().to_vec()));
        }
    }
    forms
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    text.bytes().all(|byte| byte.is_ascii_hexdigit()).then_some(())?;
    (0..text.len()).step_by(2).map(digits).collect()
}

//! `cluster.key`: the secret from which every key and token of the cluster is derived.
//!
//! ```text
//! mini-tectonic cluster key v1
//! key=<64 hex digits>
//! end crc32c=1a2b3c4d
//! ```
//! The sum covers every byte before its line. The first folders held the 32 bytes alone; such a file is read as well, and
//! left as it is.

use std::path::Path;

use proto::checksum::crc32c;
use proto::runtime::folder;
use proto::secret::SecretKey;
use zeroize::Zeroizing;

use crate::error::StartError;

const FIRST_WORDS: &str = "mini-tectonic cluster key v";
const VERSION: u32 = 1;

/// Reads the file; `None` when it is not there.
pub(super) fn read(path: &Path) -> Result<Option<SecretKey>, StartError> {
    let Some(bytes) = folder::read_secret(path)? else { return Ok(None) };
    if let Some(secret) = SecretKey::from_slice(&bytes) {
        return Ok(Some(secret));
    }
    let text = std::str::from_utf8(&bytes).unwrap_or_default();
    let found = text.lines().next().and_then(|line| line.strip_prefix(FIRST_WORDS)?.parse().ok());
    if let Some(found) = found.filter(|found| *found > VERSION) {
        let path = path.to_path_buf();
        return Err(StartError::TooNew { path, what: "format version", found, known: VERSION });
    }
    match parse(text) {
        Some(secret) => Ok(Some(secret)),
        None => {
            Err(StartError::Inconsistent { path: path.to_path_buf(), problem: "is damaged; restore it from a backup" })
        }
    }
}

/// Writes the file, durably.
pub(super) fn write(path: &Path, secret: &SecretKey) -> Result<(), StartError> {
    Ok(folder::publish(path, print(secret).as_bytes())?)
}

fn print(secret: &SecretKey) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(256));
    text.push_str(&format!("{FIRST_WORDS}{VERSION}\nkey="));
    secret.expose_hex(&mut text);
    text.push('\n');
    let crc = crc32c(text.as_bytes());
    text.push_str(&format!("end crc32c={crc:08x}\n"));
    text
}

/// Taken only if printing what was read gives the same bytes.
fn parse(text: &str) -> Option<SecretKey> {
    let secret = SecretKey::from_hex(text.lines().nth(1)?.strip_prefix("key=")?)?;
    (print(&secret).as_str() == text).then_some(secret)
}

#[cfg(test)]
mod tests {
    use proto::entropy::SeededEntropy;

    use super::*;

    #[test]
    fn a_key_is_read_back_as_text_and_as_the_first_folders_held_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cluster.key");
        assert!(read(&path).unwrap().is_none());
        let secret = SecretKey::generate(&SeededEntropy::new(1));
        write(&path, &secret).unwrap();
        assert_eq!(read(&path).unwrap().unwrap().expose(), secret.expose());
        folder::publish(&path, secret.expose()).unwrap();
        assert_eq!(read(&path).unwrap().unwrap().expose(), secret.expose());
    }

    #[test]
    fn every_truncation_and_flipped_bit_is_refused_and_a_newer_version_is_named() {
        let text = print(&SecretKey::generate(&SeededEntropy::new(1)));
        for at in 0..text.len() {
            assert!(parse(&text[..at]).is_none(), "cut at {at}");
            for bit in 0..7 {
                let mut bytes = text.as_bytes().to_vec();
                bytes[at] ^= 1 << bit;
                assert!(parse(std::str::from_utf8(&bytes).unwrap()).is_none(), "bit {bit} of byte {at}");
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cluster.key");
        folder::publish(&path, text.replace("key v1", "key v2").as_bytes()).unwrap();
        let refused = read(&path).unwrap_err();
        assert!(refused.to_string().contains("format version 2, but this program knows versions up to 1"), "{refused}");
    }
}

//! Who this node is: `node.key` and `IDENTITY` in its data folder.
//!
//! Order of a first start: `node.key` with the id alone; RegisterNode; `node.key` with cluster, keys and token; IDENTITY
//! last. Each file appears by temporary file and rename. So a crash at any point leaves a folder that the next start
//! finishes under the same id: the join token stays bound to it.
//!
//! ```text
//! mini-tectonic node key v1
//! node=0190b5c4-7e5a-7cc3-98c4-dc0c0c07398f
//! cluster=0190b5c4-7e5a-7cc3-98c4-dc0c0c073990
//! key=1:<64 hex digits>
//! token=mn1.<...>
//! end crc32c=1a2b3c4d
//! ```
//! Before the node has joined the file ends after its second line. `key=` may come more than once, the one to sign with
//! first. The sum covers every byte before its line.
//!
//! Keys are replaced while the node runs, as the metadata service says: the file is durable before a key is used, or named
//! to anybody, and a key that is to be forgotten is gone from it before it is gone from memory.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use proto::capability::NodeKey;
use proto::checksum::crc32c;
use proto::ids::{ClusterId, NodeId};
use proto::runtime::folder::{self, Identity};
use proto::secret::SecretKey;
use proto::token::{Token, TokenKind};
use zeroize::Zeroizing;

use crate::error::ChunkError;

const FILE: &str = "node.key";
const FIRST_WORDS: &str = "mini-tectonic node key v";
const VERSION: u32 = 1;
const ROLE: &str = "chunks";

/// What a node is given when it joins.
#[derive(Debug, Clone)]
pub(crate) struct Membership {
    /// The cluster.
    pub(crate) cluster: ClusterId,
    /// The keys, the one to sign with first; at least one.
    pub(crate) keys: Vec<NodeKey>,
    /// The credential for the metadata service.
    pub(crate) token: Token,
}

/// A node's membership as its calls see it: set once it has joined, and again with each change of its keys.
#[derive(Debug, Default)]
pub(crate) struct MemberCell(RwLock<Option<Arc<Membership>>>);

impl MemberCell {
    /// The membership; `None` before the node has joined.
    pub(crate) fn get(&self) -> Option<Arc<Membership>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes over what is durable.
    pub(crate) fn set(&self, membership: Membership) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(membership));
    }
}

/// Which keys a node is to hold.
#[derive(Debug, Clone)]
pub(crate) struct KeyOrder {
    /// Their numbers, the one to sign with first; empty for no order.
    pub(crate) hold: Vec<u32>,
    /// Those that the node did not name.
    pub(crate) given: Vec<NodeKey>,
}

/// A node's id, and its membership once it has joined.
#[derive(Debug, Clone)]
pub(crate) struct NodeFile {
    /// The node.
    pub(crate) node: NodeId,
    /// Absent before it has joined.
    pub(crate) membership: Option<Membership>,
}

impl NodeFile {
    /// Reads `node.key` and IDENTITY; `None` for a folder that holds neither.
    ///
    /// # Errors
    /// When either is damaged, belongs to something else, or IDENTITY is there without a complete `node.key`: then the
    /// keys are lost, and only a backup of that file helps.
    pub(crate) fn read(folder: &Path) -> Result<Option<Self>, ChunkError> {
        let path = folder.join(FILE);
        let damaged = |problem| ChunkError::NodeKey { path: path.clone(), problem };
        let identity = Identity::read(folder, ROLE)?;
        let file = match folder::read_secret(&path)? {
            Some(bytes) => {
                refuse_newer(&path, &bytes)?;
                Some(Self::parse(&bytes).ok_or_else(|| damaged("it is damaged; restore it from a backup"))?)
            }
            None => None,
        };
        match (&identity, &file) {
            (Some(_), None | Some(Self { membership: None, .. })) => {
                Err(damaged("IDENTITY is there, but not the node's keys; restore the file from a backup"))
            }
            (Some(identity), Some(Self { node, membership: Some(membership) })) => {
                identity.expect(folder, &identity_of(*node, membership))?;
                Ok(file)
            }
            (None, _) => Ok(file),
        }
    }

    /// Writes `node.key`, durably.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn write(&self, folder: &Path) -> Result<(), ChunkError> {
        Ok(folder::publish(&folder.join(FILE), self.print().as_bytes())?)
    }

    /// Writes IDENTITY: the first start is done.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn seal(folder: &Path, node: NodeId, membership: &Membership) -> Result<(), ChunkError> {
        Ok(identity_of(node, membership).write(folder)?)
    }

    /// Makes a folder whose first start is done one of the latest version.
    ///
    /// # Errors
    /// When IDENTITY cannot be read or written.
    pub(crate) fn upgrade(folder: &Path) -> Result<(), ChunkError> {
        Ok(Identity::read(folder, ROLE)?.map_or(Ok(()), |identity| identity.upgrade(folder))?)
    }

    /// Whether the folder's first start is done.
    ///
    /// # Errors
    /// When IDENTITY cannot be read.
    pub(crate) fn is_sealed(folder: &Path) -> Result<bool, ChunkError> {
        Ok(Identity::read(folder, ROLE)?.is_some())
    }

    /// The file's text.
    pub(crate) fn print(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(1024));
        let line = |text: &mut String, arguments: std::fmt::Arguments<'_>| {
            let written = text.write_fmt(arguments);
            debug_assert!(written.is_ok(), "writing to a string cannot fail");
        };
        line(&mut text, format_args!("{FIRST_WORDS}{VERSION}\nnode={}\n", self.node));
        if let Some(Membership { cluster, keys, token }) = &self.membership {
            line(&mut text, format_args!("cluster={cluster}\n"));
            for NodeKey { key_id, secret } in keys {
                line(&mut text, format_args!("key={key_id}:"));
                secret.expose_hex(&mut text);
                text.push('\n');
            }
            line(&mut text, format_args!("token={}\n", token.expose().as_str()));
        }
        let crc = crc32c(text.as_bytes());
        text.push_str(&format!("end crc32c={crc:08x}\n"));
        text
    }

    /// Reads the file's bytes. As with the checksum files: taken only if printing what was read gives the same bytes.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut lines = text.lines().skip(1).peekable();
        let node = lines.next()?.strip_prefix("node=")?.parse().ok()?;
        let membership = match lines.next_if(|line| line.starts_with("cluster=")) {
            Some(cluster) => {
                let cluster = cluster.strip_prefix("cluster=")?.parse().ok()?;
                let mut keys = Vec::new();
                while let Some(key) = lines.next_if(|line| line.starts_with("key=")) {
                    keys.push(parse_key(key.strip_prefix("key=")?)?);
                }
                let token: Token = lines.next()?.strip_prefix("token=")?.parse().ok()?;
                Some(Membership::new(cluster, keys, token)?)
            }
            None => None,
        };
        let file = Self { node, membership };
        (file.print().as_str() == text).then_some(file)
    }
}

impl Membership {
    /// The membership under other keys; `None` when the order changes nothing, or would leave the node without its first
    /// key.
    pub(crate) fn obeying(&self, order: &KeyOrder) -> Option<Self> {
        let find = |key_id: &u32| {
            let own = self.keys.iter().find(|key| key.key_id == *key_id);
            own.or_else(|| order.given.iter().find(|key| key.key_id == *key_id)).cloned()
        };
        find(order.hold.first()?)?;
        let keys: Vec<_> = order.hold.iter().filter_map(find).collect();
        let changed = !keys.iter().map(|key| key.key_id).eq(self.key_ids());
        changed.then(|| Self { keys, ..self.clone() })
    }

    /// Numbers of its keys.
    pub(crate) fn key_ids(&self) -> impl Iterator<Item = u32> {
        self.keys.iter().map(|key| key.key_id)
    }

    /// `None` when there is no key, or the token is not a node's.
    pub(crate) fn new(cluster: ClusterId, keys: Vec<NodeKey>, token: Token) -> Option<Self> {
        (!keys.is_empty() && token.kind == TokenKind::Node).then_some(Self { cluster, keys, token })
    }
}

/// A later version may say anything behind its first line.
fn refuse_newer(path: &Path, bytes: &[u8]) -> Result<(), ChunkError> {
    let first = bytes.split(|byte| *byte == b'\n').next().and_then(|line| std::str::from_utf8(line).ok());
    let found = first.and_then(|line| line.strip_prefix(FIRST_WORDS)?.parse().ok());
    match found.filter(|found| *found > VERSION) {
        Some(found) => Err(ChunkError::TooNew { path: path.to_path_buf(), found, known: VERSION }),
        None => Ok(()),
    }
}

fn parse_key(text: &str) -> Option<NodeKey> {
    let (key_id, hex) = text.split_once(':')?;
    Some(NodeKey { key_id: key_id.parse().ok()?, secret: SecretKey::from_hex(hex)? })
}

fn identity_of(node: NodeId, membership: &Membership) -> Identity {
    Identity::new(ROLE, membership.cluster.to_string(), Some(node.to_string()))
}

#[cfg(test)]
mod tests {
    use proto::entropy::SeededEntropy;

    use super::*;

    fn joined() -> (NodeId, Membership) {
        let entropy = SeededEntropy::new(4);
        let node = NodeId::generate(1, &entropy);
        let secret = SecretKey::generate(&entropy);
        let keys = vec![NodeKey::derive(&secret, node, 2), NodeKey::derive(&secret, node, 1)];
        let token = Token::generate(TokenKind::Node, &entropy);
        (node, Membership::new(ClusterId::generate(1, &entropy), keys, token).unwrap())
    }

    fn same(a: &NodeFile, b: &NodeFile) -> bool {
        *a.print() == *b.print()
    }

    #[test]
    fn a_node_file_reads_as_written_before_and_after_joining() {
        let folder = tempfile::tempdir().unwrap();
        let (node, membership) = joined();
        assert!(NodeFile::read(folder.path()).unwrap().is_none());
        for membership in [None, Some(membership)] {
            let file = NodeFile { node, membership };
            file.write(folder.path()).unwrap();
            assert!(same(&NodeFile::read(folder.path()).unwrap().unwrap(), &file));
        }
    }

    #[test]
    fn every_truncation_and_flipped_bit_is_refused() {
        let (node, membership) = joined();
        let text = NodeFile { node, membership: Some(membership) }.print();
        for at in 0..text.len() {
            assert!(NodeFile::parse(&text.as_bytes()[..at]).is_none(), "cut at {at}");
            for bit in 0..8 {
                let mut bytes = text.as_bytes().to_vec();
                bytes[at] ^= 1 << bit;
                assert!(NodeFile::parse(&bytes).is_none(), "bit {bit} of byte {at}");
            }
        }
    }

    #[test]
    fn the_keys_are_those_of_the_order_and_never_none() {
        let (_node, member) = joined();
        let key = |key_id| NodeKey { key_id, secret: SecretKey::generate(&SeededEntropy::new(u64::from(key_id))) };
        let after = |hold: &[u32], given: &[u32]| {
            let order = KeyOrder { hold: hold.to_vec(), given: given.iter().copied().map(key).collect() };
            member.obeying(&order).map(|changed| changed.key_ids().collect::<Vec<_>>())
        };
        assert_eq!(after(&[3, 2], &[3]), Some(vec![3, 2]));
        assert_eq!(after(&[1], &[]), Some(vec![1]));
        assert_eq!(after(&[2, 3, 1], &[]), None, "a key that was not given cannot be held");
        for (hold, given) in [(&[] as &[u32], &[] as &[u32]), (&[], &[3]), (&[2, 1], &[]), (&[3, 1], &[]), (&[4], &[3])]
        {
            assert_eq!(after(hold, given), None, "{hold:?}");
        }
        let order = KeyOrder { hold: vec![2], given: vec![key(2)] };
        let kept = member.obeying(&order).unwrap();
        assert_eq!(kept.keys[0].secret.expose(), member.keys[0].secret.expose(), "a key that is held is not replaced");
    }

    #[test]
    fn a_node_file_of_a_later_version_is_refused_by_that_name() {
        let folder = tempfile::tempdir().unwrap();
        folder::publish(&folder.path().join(FILE), b"mini-tectonic node key v2\nwhatever\n").unwrap();
        let refused = NodeFile::read(folder.path()).unwrap_err();
        assert!(refused.to_string().contains("format version 2, but this program knows versions up to 1"), "{refused}");
    }

    #[test]
    fn an_identity_without_its_keys_or_with_anothers_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (node, membership) = joined();
        NodeFile::seal(folder.path(), node, &membership).unwrap();
        assert!(matches!(NodeFile::read(folder.path()), Err(ChunkError::NodeKey { .. })));
        NodeFile { node, membership: None }.write(folder.path()).unwrap();
        assert!(matches!(NodeFile::read(folder.path()), Err(ChunkError::NodeKey { .. })));
        let stranger = NodeId::generate(9, &SeededEntropy::new(9));
        NodeFile { node: stranger, membership: Some(membership.clone()) }.write(folder.path()).unwrap();
        assert!(matches!(NodeFile::read(folder.path()), Err(ChunkError::Folder(_))));
        NodeFile { node, membership: Some(membership) }.write(folder.path()).unwrap();
        assert!(NodeFile::read(folder.path()).unwrap().is_some_and(|file| file.membership.is_some()));
    }

    #[test]
    fn debug_shows_no_secret() {
        let (node, membership) = joined();
        let file = NodeFile { node, membership: Some(membership) };
        let secret = file.print().lines().nth(3).unwrap().split(':').nth(1).unwrap().to_owned();
        assert!(!format!("{file:?}").contains(&secret));
    }
}

//! Which nodes get a block's chunks: a pure function of how the nodes are.
//!
//! Copies go to distinct failure domains (I13). Among the nodes that fit, two are drawn and the emptier one is taken:
//! nearly as even as always taking the emptiest, without sending everything to it.

use proto::entropy::Entropy;
use proto::ids::NodeId;

use crate::error::MetadataError;

/// A node as placement sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The node.
    pub node: NodeId,
    /// What fails together with it; empty for the node alone.
    pub failure_domain: String,
    /// Alive, and takes writes.
    pub writable: bool,
    /// Bytes its disk has left.
    pub free_bytes: u64,
}

impl Candidate {
    fn shares_fate_with(&self, other: &Self) -> bool {
        self.node == other.node || (!self.failure_domain.is_empty() && self.failure_domain == other.failure_domain)
    }
}

/// Chooses a node for each copy.
///
/// # Errors
/// [`MetadataError::NoChunkNode`] when too few take writes, [`MetadataError::NodesFull`] when enough would if they had
/// space for `chunk_bytes`.
pub fn place(
    candidates: &[Candidate],
    copies: u32,
    chunk_bytes: u64,
    entropy: &dyn Entropy,
) -> Result<Vec<NodeId>, MetadataError> {
    let mut chosen: Vec<&Candidate> = Vec::new();
    for _copy in 0..copies {
        let apart = |candidate: &&Candidate| !chosen.iter().any(|other| other.shares_fate_with(candidate));
        let writable: Vec<_> = candidates.iter().filter(|candidate| candidate.writable).filter(apart).collect();
        let roomy: Vec<_> = writable.iter().copied().filter(|candidate| candidate.free_bytes >= chunk_bytes).collect();
        match emptier_of_two(&roomy, entropy) {
            Some(candidate) => chosen.push(candidate),
            None if writable.is_empty() => return Err(MetadataError::NoChunkNode),
            None => return Err(MetadataError::NodesFull),
        }
    }
    Ok(chosen.iter().map(|candidate| candidate.node).collect())
}

fn emptier_of_two<'a>(candidates: &[&'a Candidate], entropy: &dyn Entropy) -> Option<&'a Candidate> {
    let draw = || {
        let mut random = [0; 8];
        entropy.fill(&mut random);
        let at = u64::from_be_bytes(random).checked_rem(candidates.len() as u64)?;
        candidates.get(usize::try_from(at).ok()?).copied()
    };
    let (one, other) = (draw()?, draw()?);
    Some(if other.free_bytes > one.free_bytes { other } else { one })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proto::entropy::SeededEntropy;

    use super::*;

    fn candidate(seed: u64, domain: &str, writable: bool, free_bytes: u64) -> Candidate {
        let node = NodeId::generate(seed, &SeededEntropy::new(seed));
        Candidate { node, failure_domain: domain.to_owned(), writable, free_bytes }
    }

    #[test]
    fn without_a_writable_node_there_is_none_and_full_ones_are_told_apart() {
        let entropy = SeededEntropy::new(1);
        assert!(matches!(place(&[], 1, 1, &entropy), Err(MetadataError::NoChunkNode)));
        let read_only = [candidate(1, "", false, 100)];
        assert!(matches!(place(&read_only, 1, 1, &entropy), Err(MetadataError::NoChunkNode)));
        let full = [candidate(1, "", true, 9)];
        assert!(matches!(place(&full, 1, 10, &entropy), Err(MetadataError::NodesFull)));
        assert_eq!(place(&full, 1, 9, &entropy).unwrap(), [full[0].node]);
        assert!(matches!(place(&full, 2, 9, &entropy), Err(MetadataError::NoChunkNode)));
    }

    proptest! {
        #[test]
        fn copies_go_to_writable_roomy_nodes_that_do_not_fail_together(
            nodes in proptest::collection::vec(("[ab]{0,1}", any::<bool>(), 0u64..20), 0..8), copies in 1u32..4, seed: u64,
        ) {
            let candidates: Vec<_> = (1u64..).zip(&nodes)
                .map(|(n, (domain, writable, free_bytes))| candidate(n, domain, *writable, *free_bytes)).collect();
            let Ok(chosen) = place(&candidates, copies, 10, &SeededEntropy::new(seed)) else { return Ok(()) };
            prop_assert_eq!(chosen.len(), copies as usize);
            let chosen: Vec<_> =
                chosen.iter().map(|node| candidates.iter().find(|one| one.node == *node).unwrap()).collect();
            for (at, one) in chosen.iter().enumerate() {
                prop_assert!(one.writable && one.free_bytes >= 10);
                prop_assert!(!chosen[..at].iter().any(|other| other.shares_fate_with(one)));
            }
        }
    }
}

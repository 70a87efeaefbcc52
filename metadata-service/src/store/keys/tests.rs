use std::collections::BTreeSet;

use proptest::prelude::*;
use proto::entropy::{Entropy as _, SeededEntropy};

use super::*;

fn blob_id(seed: u64) -> BlobId {
    BlobId::generate(seed, &SeededEntropy::new(seed))
}

fn tenant_id() -> impl Strategy<Value = TenantId> {
    "[a-z][a-z0-9-]{2,8}".prop_map(|text| text.parse().unwrap())
}

#[test]
fn no_layer_s_prefix_is_the_beginning_of_another_s() {
    let entropy = SeededEntropy::new(1);
    let tenant_id: TenantId = "posts".parse().unwrap();
    let mut key_id = [0; 8];
    entropy.fill(&mut key_id);
    let node_id = NodeId::generate(1, &entropy);
    let keys = [
        cluster(),
        tenant(&tenant_id),
        token(TokenKeyId::try_from(key_id.as_slice()).unwrap()),
        usage(&tenant_id),
        blob(&tenant_id, blob_id(1)),
        deleted(&tenant_id, blob_id(1)),
        retained(&tenant_id, 1, blob_id(1)),
        extent(blob_id(1), 0),
        block(BlockId::generate(1, &entropy)),
        reverse(node_id, ChunkId::generate(1, &entropy)),
        upload(&tenant_id, blob_id(1)),
        garbage(1, GarbageKind::Upload, blob_id(1)),
        request(&RequestScope::Admin, "r"),
        name(&tenant_id, "n", blob_id(1)),
        node(node_id),
        worker("scrub"),
        damage(node_id, ChunkId::generate(1, &entropy)),
    ];
    let layers: BTreeSet<Vec<u8>> =
        keys.iter().map(|key| key.split_inclusive(|byte| *byte == b'/').next().unwrap().to_vec()).collect();
    assert_eq!(layers.len(), keys.len());
    for layer in &layers {
        assert_eq!(keys.iter().filter(|key| KeyRange::prefix(layer).contains(key)).count(), 1);
    }
}

#[test]
fn the_admin_s_request_ids_are_no_tenant_s() {
    let tenant_id: TenantId = "posts".parse().unwrap();
    let scope = RequestScope::Tenant(tenant_id);
    assert_ne!(request(&RequestScope::Admin, "posts/1"), request(&scope, "1"));
    assert_ne!(request(&RequestScope::Admin, "1"), request(&scope, "1"));
}

/// The fuzzer found it: a longer key was read as that of the node whose id it ends with.
#[test]
fn a_key_that_is_longer_than_a_node_s_is_no_node_s() {
    let id = NodeId::generate(1, &SeededEntropy::new(1));
    assert_eq!(node_of(&node(id)), Some(id));
    assert_eq!(node_of(&[NODES, b"more", id.as_bytes()].concat()), None);
}

/// A check of rows would have taken a damaged key for a blob's: the `/` behind the tenant counted as a byte of its id,
/// and nothing asked whether the name had an end.
#[test]
fn a_key_without_the_end_of_a_name_is_no_name_s() {
    let tenant_id: TenantId = "posts".parse().unwrap();
    let good = name(&tenant_id, "n", blob_id(1));
    assert_eq!(name_of(&good), Some((tenant_id.clone(), blob_id(1))));
    let short = [names(&tenant_id).as_slice(), &blob_id(1).as_bytes()[1..]].concat();
    let without_end = [names(&tenant_id).as_slice(), b"n", blob_id(1).as_bytes()].concat();
    assert_eq!((name_of(&short), name_of(&without_end)), (None, None));
}

proptest! {
    #[test]
    fn the_name_index_sorts_by_name_then_blob(
        mut rows in proptest::collection::vec(("[\\x00\\x01a\u{ff}é/]{0,6}", 0u64..4), 1..30),
    ) {
        let tenant_id: TenantId = "posts".parse().unwrap();
        let mut keys: Vec<Vec<u8>> = rows.iter().map(|(text, seed)| name(&tenant_id, text, blob_id(*seed))).collect();
        keys.sort();
        rows.sort_by(|a, b| (a.0.as_bytes(), blob_id(a.1)).cmp(&(b.0.as_bytes(), blob_id(b.1))));
        let expected: Vec<Vec<u8>> = rows.iter().map(|(text, seed)| name(&tenant_id, text, blob_id(*seed))).collect();
        prop_assert_eq!(keys, expected);
    }

    #[test]
    fn a_prefix_of_the_name_index_holds_exactly_the_names_that_begin_with_it(
        text in "[\\x00\\x01ab]{0,5}", prefix in "[\\x00\\x01ab]{0,3}", seed in 0u64..9,
    ) {
        let tenant_id: TenantId = "posts".parse().unwrap();
        let range = KeyRange::prefix(&names_with_prefix(&tenant_id, &prefix));
        prop_assert_eq!(range.contains(&name(&tenant_id, &text, blob_id(seed))), text.starts_with(&prefix));
    }

    #[test]
    fn tenants_keep_their_order_and_do_not_reach_into_each_other(a in tenant_id(), b in tenant_id(), seed in 0u64..9) {
        prop_assert_eq!(tenant(&a).cmp(&tenant(&b)), a.cmp(&b));
        prop_assert_eq!(tenant_of(&tenant(&a)), Some(a.clone()));
        let foreign = a != b && KeyRange::prefix(&blobs(&a)).contains(&blob(&b, blob_id(seed)));
        prop_assert!(!foreign);
    }

    #[test]
    fn integers_and_ids_keep_their_order_and_come_back(a: u64, b: u64, seed in 0u64..9, id in tenant_id()) {
        let blob_id = blob_id(seed);
        prop_assert_eq!(extent(blob_id, a).cmp(&extent(blob_id, b)), a.cmp(&b));
        prop_assert_eq!(extent_index(&extent(blob_id, a)), Some(a));
        prop_assert_eq!(extents_from(blob_id, a).contains(&extent(blob_id, b)), b >= a);
        let order = garbage(a, GarbageKind::Blob, blob_id).cmp(&garbage(b, GarbageKind::Blob, blob_id));
        prop_assert_eq!(order, a.cmp(&b));
        prop_assert_eq!(retained(&id, a, blob_id).cmp(&retained(&id, b, blob_id)), a.cmp(&b));
        prop_assert_eq!(blob_of(&retained(&id, a, blob_id)), Some(blob_id));
        prop_assert_eq!(upload_of(&upload(&id, blob_id)), Some((id.clone(), blob_id)));
        prop_assert_eq!(blob_of(&name(&id, "x", blob_id)), Some(blob_id));
        prop_assert_eq!(extent_of(&extent(blob_id, a)), Some((blob_id, a)));
        prop_assert_eq!(usage_of(&usage(&id)), Some(id.clone()));
        prop_assert_eq!(name_of(&name(&id, "x/y", blob_id)), Some((id, blob_id)));
    }

    #[test]
    fn a_garbage_key_says_what_is_due_and_when(a: u64, b: u64, seed in 0u64..9) {
        let chunk = ChunkId::generate(seed, &SeededEntropy::new(seed));
        let mut rows = vec![(garbage_chunk(a, chunk), Garbage::Chunk(chunk))];
        for kind in [GarbageKind::Upload, GarbageKind::Blob, GarbageKind::Surplus] {
            rows.push((garbage(a, kind, blob_id(seed)), Garbage::Blocks(kind, blob_id(seed))));
        }
        for (key, about) in rows {
            prop_assert_eq!(garbage_of(&key), Some((a, about)));
            prop_assert_eq!(garbage_due(b).contains(&key), a <= b);
        }
    }

    #[test]
    fn no_key_panics(key in proptest::collection::vec(any::<u8>(), 0..60)) {
        for prefix in [
            &b""[..],
            UPLOADS,
            NODES,
            TENANTS,
            USAGES,
            EXTENTS,
            BLOCKS,
            REVERSE,
            NAMES,
            GARBAGE,
            RETAINED,
            DAMAGE,
            WORKERS,
        ] {
            let key = [prefix, &key].concat();
            let parsed = (blob_of(&key), node_of(&key), tenant_of(&key), upload_of(&key), extent_index(&key));
            drop(parsed);
            drop((usage_of(&key), extent_of(&key), block_of(&key), reverse_of(&key), name_of(&key), garbage_of(&key)));
            drop((retained_of(&key), damage_of(&key), worker_of(&key).is_some()));
        }
    }
}

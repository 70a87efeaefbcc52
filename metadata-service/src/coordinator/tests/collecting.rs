//! The collector's commits (I6, I7, I11).

use std::collections::BTreeSet;

use super::*;
use crate::coordinator::collect::hasten::{self, Walk};
use crate::store::keys::GarbageKind;
use crate::store::records::{
    BlockRecord, ClusterRecord, DeletedRecord, GarbageRecord, RestoreEnd, RestoreRecord, SCHEMA, UploadRecord,
};

const HOUR: Duration = Duration::from_secs(3600);
/// The most that a tenant can hold in these tests.
const PLENTY: Quota = Quota { max_bytes: Some(1_000), ..Quota::UNLIMITED };

fn row_counts(bench: &Bench) -> [usize; 6] {
    [keys::EXTENTS, keys::BLOCKS, keys::REVERSE, keys::DELETED, keys::RETAINED, keys::UPLOADS].map(|l| bench.count(l))
}

/// Writes a blob of so many blocks, by rounds of allocation.
fn put_blocks(bench: &Bench, tenant: &TenantId, blocks: u64) -> BlobId {
    let started = bench.start(tenant, "", Some(blocks * BLOCK)).unwrap();
    let (blob, mut planned) = (started.upload.blob, started.blocks);
    let mut next = planned.len() as u64;
    while next < blocks {
        planned = bench.allocate(tenant, blob, next, 16, receipts(&planned)).unwrap().blocks;
        next += planned.len() as u64;
    }
    bench.commit(tenant, blob, blocks * BLOCK, content(0), receipts(&planned)).unwrap();
    blob
}

#[test]
fn i7_of_a_deleted_blob_nothing_is_left_once_it_was_collected_in_bounded_steps() {
    let (bench, tenant) = Bench::with_tenant(Quota::default());
    let blob = put_blocks(&bench, &tenant, 40);
    bench.delete(&tenant, "", blob).unwrap();
    bench.advance(24 * HOUR - Duration::from_millis(1));
    assert!(bench.due().is_empty());
    bench.advance(Duration::from_millis(1));
    let before = bench.sequence();
    assert_eq!(bench.take_apart(), 4, "one step marks, then 16, 16 and 8 blocks go");
    assert_eq!(bench.sequence() - before, 4);
    assert_eq!(row_counts(&bench), [0; 6]);
    assert_eq!(bench.usage(&tenant), UsageRecord::default());
    assert_eq!(bench.collect().len(), 40, "each chunk is to be deleted");
    assert_eq!(bench.count(keys::GARBAGE), 0);
}

#[test]
fn i7_of_an_upload_that_ended_nothing_is_left_and_a_committed_one_loses_only_its_surplus() {
    let (bench, tenant) = Bench::with_tenant(Quota::default());
    let aborted = bench.start(&tenant, "", Some(45)).unwrap();
    bench.abort(&tenant, aborted.upload.blob).unwrap();
    let kept = bench.start(&tenant, "", None).unwrap();
    let one = vec![receipt(&kept.blocks[0], 3)];
    bench.commit(&tenant, kept.upload.blob, 3, content(0), one).unwrap();
    bench.advance(HOUR);
    let condemned = bench.collect();
    assert_eq!(condemned.len(), 5 + kept.blocks.len() - 1);
    assert_eq!(row_counts(&bench), [1, 1, 1, 0, 0, 0]);
    let needed = kept.blocks[0].record.chunks[0].chunk;
    assert!(condemned.iter().all(|one| one.binding.chunk != needed));
}

#[test]
fn what_a_node_is_told_of_a_chunk_is_what_was_planned() {
    let (bench, tenant) = Bench::with_tenant(Quota::default());
    let started = bench.start(&tenant, "", Some(BLOCK)).unwrap();
    let [planned] = &started.blocks[..] else { panic!("one block") };
    let chunk = planned.record.chunks[0];
    bench.abort(&tenant, started.upload.blob).unwrap();
    bench.advance(HOUR);
    let condemned = bench.collect();
    let [condemned] = &condemned[..] else { panic!("one chunk") };
    assert_eq!((condemned.node, condemned.tenant.as_ref()), (chunk.node, Some(&tenant)));
    let binding = &condemned.binding;
    assert_eq!((binding.chunk, binding.block, binding.blob), (chunk.chunk, planned.block, started.upload.blob));
    assert_eq!((binding.shard_index, binding.shard_count, binding.generation), (0, 1, 1));
    assert_eq!((binding.epoch, binding.sequence), (chunk.epoch, chunk.sequence));
}

#[test]
fn two_collectors_at_once_do_each_step_once() {
    let (bench, tenant) = Bench::with_tenant(Quota::default());
    let blob = put_blocks(&bench, &tenant, 20);
    bench.delete(&tenant, "", blob).unwrap();
    bench.advance(24 * HOUR);
    let [(not_before_ms, _)] = bench.due()[..] else { panic!("one row is due") };
    let blocks = Blocks { not_before_ms, kind: GarbageKind::Blob, blob };
    let steps: Vec<_> = (0..5).map(|_turn| bench.step(blocks).unwrap()).collect();
    assert_eq!(steps, [Step::More, Step::More, Step::Done, Step::Done, Step::Done]);
    let rows: Vec<ChunkRow> = bench.due().iter().map(|(due, garbage)| (*due, chunk_of(*garbage))).collect();
    assert_eq!(rows.len(), 20);
    assert_eq!(bench.unreferenced(rows.clone()), bench.unreferenced(rows.clone()), "both may ask the node");
    assert_eq!(bench.collect().len(), 20);
    assert_eq!(bench.unreferenced(rows), Unreferenced::default());
}

/// What the cluster's row says of an import.
fn imported(bench: &Bench, end: RestoreEnd) {
    let cluster = ClusterId::generate(1, &SeededEntropy::new(1));
    let restores = vec![RestoreRecord { import_ms: 1, epoch: EPOCH, sequence: 9, end }];
    let key_check = content(0);
    let row = ClusterRecord { cluster, epoch: EPOCH + 1, key_check, create_ms: 1, schema: SCHEMA, restores };
    bench.put_row(keys::cluster(), &row);
}

/// An upload was open at an export, was committed, and was open again after the export had been imported. Its lease ran
/// out, and the chunks of a blob that had been acknowledged were collected.
#[test]
fn i16_the_blocks_of_an_upload_that_an_import_found_open_stay_until_the_lost_time_is_given_up() {
    let (bench, tenant) = Bench::with_tenant(Quota::default());
    let [maybe_committed, given_up] = [(); 2].map(|()| bench.start(&tenant, "", Some(45)).unwrap().upload.blob);
    bench.abort(&tenant, given_up).unwrap();
    bench.advance(HOUR);
    assert!(bench.expire(&tenant, maybe_committed).unwrap());
    let key = keys::upload(&tenant, maybe_committed);
    let expired: UploadRecord = bench.row(&key).unwrap();
    assert_eq!(expired.end_epoch, Some(EPOCH));
    bench.put_row(key, &UploadRecord { end_epoch: Some(EPOCH + 1), ..expired });
    bench.advance(HOUR);
    for (end, collected) in [(RestoreEnd::Undecided, 5), (RestoreEnd::Keep, 0), (RestoreEnd::Discard, 5)] {
        imported(&bench, end);
        assert_eq!(bench.collect().len(), collected, "{end:?}: what ended before the export goes");
    }
    assert_eq!((row_counts(&bench), bench.count(keys::GARBAGE)), ([0; 6], 0));
}

fn chunk_of(garbage: Garbage) -> proto::ids::ChunkId {
    match garbage {
        Garbage::Chunk(chunk) => chunk,
        Garbage::Blocks(..) => panic!("{garbage:?} is no chunk"),
    }
}

/// A clock that was set back made a row due again later. The step that had been begun with it waits.
#[test]
fn a_step_in_whose_turn_the_row_is_not_due_does_nothing() {
    let (bench, tenant) = Bench::with_tenant(Quota::default());
    let blob = bench.put(&tenant, 25).blob;
    bench.delete(&tenant, "", blob).unwrap();
    let not_before_ms = bench.tuning().deleted_due_ms(bench.now_ms());
    let before = bench.everything();
    let blocks = Blocks { not_before_ms, kind: GarbageKind::Blob, blob };
    assert_eq!(bench.step(blocks).unwrap(), Step::NotDue);
    assert_eq!(bench.everything(), before);
}

/// A blob was deleted, restored and deleted again. Had the row of the first delete been left behind, it would have cut
/// the second retention short.
#[test]
fn i6_a_row_that_is_not_the_tombstone_s_own_collects_nothing() {
    let (bench, tenant) = Bench::with_tenant(Quota::default());
    let blob = bench.put(&tenant, 25).blob;
    bench.delete(&tenant, "", blob).unwrap();
    let [(stale, row)] = &bench.rows::<GarbageRecord>(keys::GARBAGE)[..] else { panic!("one row") };
    bench.undelete(&tenant, "", blob).unwrap();
    bench.put_row(stale.clone(), row);
    bench.advance(23 * HOUR);
    bench.delete(&tenant, "", blob).unwrap();
    bench.advance(HOUR);
    assert!(bench.collect().is_empty());
    assert_eq!(bench.count(keys::GARBAGE), 1, "the row of the second delete");
    assert!(bench.undelete(&tenant, "", blob).is_ok());
}

#[test]
fn i6_rows_that_list_what_is_needed_stop_the_collector_and_change_nothing() {
    let (bench, tenant) = Bench::with_tenant(Quota::default());
    let open = bench.start(&tenant, "", Some(25)).unwrap().upload.blob;
    let committed = bench.put(&tenant, 25).blob;
    let deleted = bench.put(&tenant, 25).blob;
    bench.delete(&tenant, "", deleted).unwrap();
    let wrong =
        [(GarbageKind::Upload, open, 0), (GarbageKind::Surplus, committed, 2), (GarbageKind::Surplus, deleted, 0)];
    for (kind, blob, first_block) in wrong {
        bench.put_row(keys::garbage(1, kind, blob), &GarbageRecord { tenant: tenant.clone(), first_block });
        let before = bench.everything();
        let refused = bench.step(Blocks { not_before_ms: 1, kind, blob });
        assert!(matches!(refused, Err(MetadataError::Bug(_))), "{kind:?}: {refused:?}");
        assert_eq!(bench.everything(), before);
    }
}

/// Reverse rows were the only ones that were asked. One was lost, and a chunk in the queue by mistake was deleted.
#[test]
fn i6_a_chunk_in_the_queue_whose_block_still_lists_it_stays_and_so_does_its_row() {
    let (bench, tenant) = Bench::with_tenant(Quota::default());
    let started = bench.start(&tenant, "", Some(BLOCK)).unwrap();
    bench.abort(&tenant, started.upload.blob).unwrap();
    bench.advance(HOUR);
    let block = bench.rows::<BlockRecord>(keys::BLOCKS).remove(0);
    bench.take_apart();
    bench.put_row(block.0, &block.1);
    let [(due, garbage)] = bench.due()[..] else { panic!("one chunk") };
    let chunk = chunk_of(garbage);
    for _again in 0..2 {
        let found = bench.unreferenced(vec![(due, chunk)]);
        assert_eq!(found, Unreferenced { contradicted: vec![chunk], ..Unreferenced::default() });
    }
}

#[test]
fn i6_a_chunk_that_something_refers_to_is_no_garbage_and_its_row_goes() {
    let (bench, tenant) = Bench::with_tenant(Quota::default());
    let started = bench.start(&tenant, "", Some(BLOCK)).unwrap();
    bench.abort(&tenant, started.upload.blob).unwrap();
    bench.advance(HOUR);
    let reverse = bench.rows::<crate::store::records::ReverseRecord>(keys::REVERSE).remove(0);
    bench.take_apart();
    bench.put_row(reverse.0, &reverse.1);
    let [(due, garbage)] = bench.due()[..] else { panic!("one chunk") };
    let found = bench.unreferenced(vec![(due, chunk_of(garbage))]);
    assert_eq!(found, Unreferenced { referenced: 1, ..Unreferenced::default() });
    assert_eq!(bench.count(keys::GARBAGE), 0);
}

#[test]
fn a_tenant_id_is_free_again_once_everything_of_its_former_owner_is_collected() {
    let (bench, tenant) = Bench::with_tenant(Quota::default());
    let blob = bench.put(&tenant, 25).blob;
    bench.delete(&tenant, "", blob).unwrap();
    let open = bench.start(&tenant, "", Some(25)).unwrap().upload.blob;
    bench.abort(&tenant, open).unwrap();
    let owner = tenant.clone();
    bench.decide(move |view, context| tenants::delete(view, context, &admin(""), &owner)).unwrap();
    assert_eq!(bench.usage(&tenant).retained_bytes, 25, "counted until it is collected");
    for hours in [1, 23] {
        let refused = bench.register("posts", Quota::default());
        assert!(matches!(refused, Err(MetadataError::TenantNotCollected(_))), "{refused:?}");
        bench.advance(hours * HOUR);
        bench.collect();
    }
    assert_eq!(bench.count(keys::USAGES), 0);
    assert!(bench.register("posts", Quota::default()).is_ok());
}

/// Walks until the end; returns how many blobs it made due.
fn hasten(bench: &Bench, tenant: &TenantId) -> u64 {
    let mut at = Walk::default();
    loop {
        let (tenant, before) = (tenant.clone(), at.clone());
        at = bench.decide(move |view, context| hasten::walk(view, context, &tenant, &before)).unwrap();
        if !at.more {
            return at.hastened;
        }
    }
}

#[test]
fn beyond_the_quota_the_blobs_deleted_first_go_first_and_no_more_than_needed() {
    let (bench, tenant) = Bench::with_tenant(PLENTY);
    let mut deleted = Vec::new();
    // The older a blob, the later it is deleted.
    let blobs: Vec<_> = (0..100).map(|_n| bench.put(&tenant, 10).blob).collect();
    for blob in blobs.into_iter().rev() {
        bench.delete(&tenant, "", blob).unwrap();
        bench.advance(Duration::from_secs(1));
        deleted.push(blob);
    }
    bench.advance(HOUR);
    assert_eq!(hasten(&bench, &tenant), 0, "the quota holds all of them");
    bench.set_quota(&tenant, Quota { max_bytes: Some(105), ..Quota::UNLIMITED });
    assert_eq!(hasten(&bench, &tenant), 90);
    assert_eq!(hasten(&bench, &tenant), 0, "those on their way count as gone");
    bench.collect();
    assert_eq!(hasten(&bench, &tenant), 0);
    let left: BTreeSet<_> =
        bench.rows::<DeletedRecord>(keys::DELETED).iter().map(|row| keys::blob_of(&row.0)).collect();
    assert_eq!(left, deleted[90..].iter().copied().map(Some).collect());
    assert_eq!(bench.usage(&tenant).retained_bytes, 100);
    assert!(bench.undelete(&tenant, "", deleted[95]).is_ok());
}

#[test]
fn i6_no_blob_goes_before_the_grace_has_passed_since_its_delete() {
    let (bench, tenant) = Bench::with_tenant(PLENTY);
    let blobs = [bench.put(&tenant, 10).blob, bench.put(&tenant, 10).blob];
    bench.delete(&tenant, "", blobs[0]).unwrap();
    bench.advance(HOUR / 2);
    bench.delete(&tenant, "", blobs[1]).unwrap();
    bench.set_quota(&tenant, Quota { max_bytes: Some(0), ..Quota::UNLIMITED });
    bench.advance(HOUR / 2 - Duration::from_millis(1));
    assert_eq!(hasten(&bench, &tenant), 0);
    bench.advance(Duration::from_millis(1));
    assert_eq!(hasten(&bench, &tenant), 1);
    assert_eq!(bench.collect().len(), 1);
    assert!(bench.row::<DeletedRecord>(&keys::deleted(&tenant, blobs[1])).is_some());
    bench.advance(HOUR / 2);
    assert_eq!(hasten(&bench, &tenant), 1);
    bench.collect();
    assert_eq!(row_counts(&bench), [0; 6]);
}

#[test]
fn without_a_quota_deleted_blobs_stay_for_their_retention() {
    let (bench, tenant) = Bench::with_tenant(Quota::default());
    let blob = bench.put(&tenant, 10).blob;
    bench.delete(&tenant, "", blob).unwrap();
    bench.advance(24 * HOUR - Duration::from_millis(1));
    assert_eq!((hasten(&bench, &tenant), bench.due().len()), (0, 0));
}

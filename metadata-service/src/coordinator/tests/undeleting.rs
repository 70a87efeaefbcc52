//! Restoring deleted blobs (I8, I9, I11).

use proto::error::{Classify as _, Reason};

use super::*;
use crate::store::keys::GarbageKind;
use crate::store::records::DeletedRecord;

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn an_undelete_leaves_exactly_what_was_there_before_the_delete() {
    let (bench, tenant) = Bench::with_tenant(Quota::default());
    bench.put(&tenant, 5);
    let blob = bench.put(&tenant, 25);
    let before = bench.everything();
    bench.delete(&tenant, "", blob.blob).unwrap();
    bench.advance(23 * HOUR);
    assert_ne!(bench.everything(), before);
    assert_eq!(bench.undelete(&tenant, "", blob.blob).unwrap(), blob);
    assert_eq!(bench.everything(), before);
}

#[test]
fn i8_once_the_collector_has_begun_a_blob_cannot_be_restored() {
    let (bench, tenant) = Bench::with_tenant(Quota::default());
    let blob = bench.put(&tenant, 25).blob;
    bench.delete(&tenant, "", blob).unwrap();
    bench.advance(24 * HOUR);
    let [(not_before_ms, _)] = bench.due()[..] else { panic!("one row is due") };
    let blocks = Blocks { not_before_ms, kind: GarbageKind::Blob, blob };
    assert_eq!(bench.step(blocks).unwrap(), Step::More);
    assert_eq!(bench.count(b"block/"), 3, "the first step only marks");
    let refused = bench.undelete(&tenant, "", blob).unwrap_err();
    assert_eq!(refused.reason(), Reason::BlobCollected);
    assert_eq!(bench.step(blocks).unwrap(), Step::Done);
    let refused = bench.undelete(&tenant, "", blob).unwrap_err();
    assert_eq!(refused.reason(), Reason::BlobNotFound);
}

#[test]
fn what_is_due_and_not_begun_can_be_restored_and_its_row_collects_nothing_then() {
    let (bench, tenant) = Bench::with_tenant(Quota::default());
    let blob = bench.put(&tenant, 25);
    bench.delete(&tenant, "", blob.blob).unwrap();
    bench.advance(48 * HOUR);
    let [(not_before_ms, _)] = bench.due()[..] else { panic!("one row is due") };
    bench.undelete(&tenant, "", blob.blob).unwrap();
    let (kind, blob) = (GarbageKind::Blob, blob.blob);
    assert_eq!(bench.step(Blocks { not_before_ms, kind, blob }).unwrap(), Step::Done);
    assert_eq!((bench.count(b"block/"), bench.count(keys::GARBAGE)), (3, 0));
}

#[test]
fn i9_what_is_gone_what_is_foreign_and_what_never_was_are_refused_alike() {
    let (bench, tenant) = Bench::with_tenant(Quota::default());
    let other = bench.register("other", Quota::default()).unwrap().tenant;
    let (gone, foreign) = (bench.put(&tenant, 5).blob, bench.put(&other, 5).blob);
    bench.delete(&tenant, "", gone).unwrap();
    bench.advance(24 * HOUR);
    bench.collect();
    bench.delete(&other, "", foreign).unwrap();
    let never = BlobId::generate(bench.now_ms(), &SeededEntropy::new(99));
    for blob in [gone, foreign, never] {
        let refused = bench.undelete(&tenant, "", blob).unwrap_err();
        assert!(matches!(&refused, MetadataError::BlobNotFound(id) if *id == blob.to_string()), "{refused:?}");
    }
}

#[test]
fn i11_an_undelete_that_does_not_fit_into_the_quota_is_refused_and_changes_nothing() {
    let (bench, tenant) = Bench::with_tenant(Quota { max_bytes: Some(40), max_blobs: Some(2), ..Quota::UNLIMITED });
    let blob = bench.put(&tenant, 25).blob;
    bench.delete(&tenant, "", blob).unwrap();
    let second = bench.put(&tenant, 16).blob;
    let before = bench.everything();
    let refused = bench.undelete(&tenant, "r", blob).unwrap_err();
    assert_eq!(refused.reason(), Reason::QuotaExceeded);
    assert_eq!(bench.everything(), before);
    bench.delete(&tenant, "", second).unwrap();
    let opened = bench.start(&tenant, "", Some(1)).unwrap();
    bench.put(&tenant, 1);
    let refused = bench.undelete(&tenant, "r", blob).unwrap_err();
    assert_eq!(refused.reason(), Reason::QuotaExceeded, "of blobs");
    bench.abort(&tenant, opened.upload.blob).unwrap();
    assert!(bench.undelete(&tenant, "r", blob).is_ok(), "a refusal is not remembered");
}

#[test]
fn i8_no_repeat_of_an_older_call_deletes_or_restores_a_blob_again() {
    let (bench, tenant) = Bench::with_tenant(Quota::default());
    let blob = bench.put(&tenant, 25);
    let id = blob.blob;
    bench.delete(&tenant, "delete 1", id).unwrap();
    assert_eq!(bench.undelete(&tenant, "undelete 1", id).unwrap(), blob);
    bench.delete(&tenant, "delete 1", id).unwrap();
    assert_eq!(bench.undelete(&tenant, "undelete 1", id).unwrap(), blob, "the repeated delete did nothing");
    bench.delete(&tenant, "delete 2", id).unwrap();
    let again = bench.undelete(&tenant, "undelete 1", id).unwrap_err();
    assert_eq!(again.reason(), Reason::BlobNotFound, "the repeated undelete did nothing");
    assert_eq!(bench.rows::<DeletedRecord>(keys::DELETED).len(), 1);
    let reused = bench.undelete(&tenant, "delete 2", id).unwrap_err();
    assert_eq!(reused.reason(), Reason::RequestIdReused);
}

/// An undelete found its blob alive, changed nothing and was not remembered. The blob was deleted; then a copy of the
/// undelete came out of the network, late, and brought it back.
#[test]
fn i8_the_repeat_of_an_undelete_that_had_nothing_to_do_restores_nothing() {
    let (bench, tenant) = Bench::with_tenant(Quota::default());
    let blob = bench.put(&tenant, 25);
    assert_eq!(bench.undelete(&tenant, "u", blob.blob).unwrap(), blob);
    bench.delete(&tenant, "", blob.blob).unwrap();
    assert_eq!(bench.undelete(&tenant, "u", blob.blob).unwrap_err().reason(), Reason::BlobNotFound);
}

#[test]
fn i8_a_repeated_commit_brings_nothing_back_and_finds_what_was_restored() {
    let (bench, tenant) = Bench::with_tenant(Quota::default());
    let blob = bench.put(&tenant, 5);
    let commit = || bench.commit(&tenant, blob.blob, 5, blob.record.sha256, Vec::new());
    bench.delete(&tenant, "", blob.blob).unwrap();
    assert_eq!(commit().unwrap_err().reason(), Reason::UploadNotFound);
    bench.undelete(&tenant, "", blob.blob).unwrap();
    assert_eq!(commit().unwrap(), blob);
}

#[test]
fn a_blob_that_an_older_version_deleted_can_be_restored_and_collected() {
    let (bench, tenant) = Bench::with_tenant(Quota::default());
    let (restored, collected) = (bench.put(&tenant, 5), bench.put(&tenant, 5));
    for blob in [&restored, &collected] {
        bench.delete(&tenant, "", blob.blob).unwrap();
        let key = keys::deleted(&tenant, blob.blob);
        let tombstone = DeletedRecord { due_ms: None, ..bench.row(&key).unwrap() };
        bench.put_row(key, &tombstone);
    }
    bench.remove_rows(keys::RETAINED);
    assert_eq!(bench.undelete(&tenant, "", restored.blob).unwrap(), restored);
    bench.advance(24 * HOUR);
    assert_eq!(bench.collect().len(), 1);
    assert_eq!((bench.count(keys::DELETED), bench.count(keys::GARBAGE)), (0, 0));
    assert_eq!(bench.usage(&tenant), UsageRecord { used_bytes: 5, used_blobs: 1, ..UsageRecord::default() });
}

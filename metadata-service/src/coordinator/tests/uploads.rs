//! Starting, going on with, and ending uploads.

use proto::entropy::SeededEntropy;
use proto::error::{Classify as _, Reason};
use proto::ids::ChunkId;

use super::*;
use crate::coordinator::upload::{Standing, get};
use crate::store::records::{GarbageRecord, UploadRecord};

const HOUR: Duration = Duration::from_secs(3600);
const UNLIMITED: Quota = Quota::UNLIMITED;

fn bytes(max_bytes: u64) -> Quota {
    Quota { max_bytes: Some(max_bytes), ..Quota::UNLIMITED }
}

#[test]
fn a_known_size_is_reserved_and_planned_sixteen_blocks_at_a_time() {
    let (bench, tenant) = Bench::with_tenant(UNLIMITED);
    let started = bench.start(&tenant, "", Some(175)).unwrap();
    assert_eq!(started.blocks.len(), 16);
    let usage = bench.usage(&tenant);
    assert_eq!((usage.reserved_bytes, usage.reserved_blobs, usage.used_blobs), (175, 1, 0));
    let rest = bench.allocate(&tenant, started.upload.blob, 16, 16, Vec::new()).unwrap();
    let sizes: Vec<_> = rest.blocks.iter().map(|block| (block.offset_bytes, block.max_bytes)).collect();
    assert_eq!(sizes, [(160, 10), (170, 5)]);
    let none = bench.allocate(&tenant, started.upload.blob, 18, 16, Vec::new()).unwrap();
    assert!(none.blocks.is_empty(), "a known size ends its plan");
    assert_eq!(bench.usage(&tenant), usage, "everything was reserved at the start");
}

#[test]
fn an_empty_blob_needs_no_node_and_no_block() {
    let (bench, tenant) = Bench::with_tenant(UNLIMITED);
    bench.set_nodes(Vec::clear);
    let started = bench.start(&tenant, "", Some(0)).unwrap();
    assert!(started.blocks.is_empty());
    let refused = bench.commit(&tenant, started.upload.blob, 0, content(0), Vec::new());
    assert_eq!(refused.unwrap_err().reason(), Reason::ChecksumMismatch);
    bench.commit(&tenant, started.upload.blob, 0, Sha256::of(b""), Vec::new()).unwrap();
}

#[test]
fn without_a_node_nothing_is_started_or_reserved() {
    let (bench, tenant) = Bench::with_tenant(UNLIMITED);
    bench.set_nodes(|nodes| nodes[0].writable = false);
    assert_eq!(bench.start(&tenant, "r", Some(1)).unwrap_err().reason(), Reason::NoChunkNode);
    bench.set_nodes(|nodes| (nodes[0].writable, nodes[0].free_bytes) = (true, 0));
    assert_eq!(bench.start(&tenant, "r", Some(1)).unwrap_err().reason(), Reason::NodeOutOfSpace);
    assert_eq!((bench.usage(&tenant), bench.count(keys::UPLOADS)), (UsageRecord::default(), 0));
    bench.set_nodes(|nodes| nodes[0].free_bytes = 1);
    assert!(bench.start(&tenant, "r", Some(1)).is_ok(), "the refused request was not remembered");
}

#[test]
fn a_known_size_that_does_not_fit_is_refused_at_the_start() {
    let (bench, tenant) = Bench::with_tenant(bytes(100));
    bench.start(&tenant, "", Some(60)).unwrap();
    let refused = bench.start(&tenant, "", Some(41)).unwrap_err();
    assert_eq!(refused.details().quota_subject.as_deref(), Some("tenant:posts"));
    assert!(matches!(refused, MetadataError::QuotaExceeded { limit: 100, left: 40, .. }), "{refused:?}");
    bench.start(&tenant, "", Some(40)).unwrap();
    assert!(bench.start(&tenant, "", Some(0)).is_ok(), "nothing more is still nothing more");
}

#[test]
fn the_number_of_blobs_has_a_bound_too() {
    let (bench, tenant) = Bench::with_tenant(Quota { max_blobs: Some(2), ..Quota::UNLIMITED });
    bench.put(&tenant, 1);
    let second = bench.start(&tenant, "", Some(1)).unwrap();
    assert_eq!(bench.start(&tenant, "", Some(1)).unwrap_err().reason(), Reason::QuotaExceeded);
    bench.abort(&tenant, second.upload.blob).unwrap();
    assert!(bench.start(&tenant, "", Some(1)).is_ok());
}

#[test]
fn a_blob_larger_than_one_may_be_is_refused_at_the_start() {
    let (bench, tenant) = Bench::with_tenant(Quota { max_blob_bytes: Some(40), ..UNLIMITED });
    let refused = bench.start(&tenant, "", Some(41)).unwrap_err();
    assert_eq!(
        (refused.reason(), refused.details().quota_subject.as_deref()),
        (Reason::QuotaExceeded, Some("tenant:posts"))
    );
    assert_eq!(refused.to_string(), "a blob of tenant posts may have at most 40 bytes, but 41 are wanted");
    let started = bench.start(&tenant, "", Some(40)).unwrap();
    bench.set_quota(&tenant, Quota { max_blob_bytes: Some(39), ..UNLIMITED });
    assert_eq!(bench.start(&tenant, "", Some(40)).unwrap_err().reason(), Reason::QuotaExceeded);
    bench.commit(&tenant, started.upload.blob, 40, content(9), receipts(&started.blocks)).unwrap();
    bench.delete(&tenant, "", started.upload.blob).unwrap();
    bench.undelete(&tenant, "", started.upload.blob).unwrap();
}

#[test]
fn an_unknown_size_ends_where_one_blob_may_end() {
    let (bench, tenant) = Bench::with_tenant(Quota { max_blob_bytes: Some(45), ..UNLIMITED });
    let started = bench.start(&tenant, "", None).unwrap();
    let more = bench.allocate(&tenant, started.upload.blob, 4, 16, Vec::new()).unwrap();
    let sizes: Vec<_> = started.blocks.iter().chain(&more.blocks).map(|block| block.max_bytes).collect();
    assert_eq!((sizes, bench.usage(&tenant).reserved_bytes), (vec![10, 10, 10, 10, 5], 45));
    let end = bench.allocate(&tenant, started.upload.blob, 5, 1, Vec::new()).unwrap_err();
    assert!(matches!(end, MetadataError::BlobTooLarge { limit: 45, wanted: 46, .. }), "{end:?}");
    bench.set_quota(&tenant, Quota { max_blob_bytes: Some(0), ..UNLIMITED });
    assert!(matches!(bench.start(&tenant, "", None), Err(MetadataError::BlobTooLarge { limit: 0, wanted: 1, .. })));
    assert!(bench.start(&tenant, "", Some(0)).is_ok(), "nothing is not too large");
}

#[test]
fn the_number_of_open_uploads_has_a_bound_that_ended_ones_do_not_count_against() {
    let (bench, tenant) = Bench::with_tenant(Quota { max_open_uploads: 2, ..UNLIMITED });
    bench.put(&tenant, 1);
    let open = [(); 2].map(|()| bench.start(&tenant, "", None).unwrap());
    let refused = bench.start(&tenant, "r", Some(1)).unwrap_err();
    assert_eq!(refused.reason(), Reason::QuotaExceeded);
    assert!(refused.to_string().ends_with("of 2 open uploads, 0 are left"), "{refused}");
    bench.abort(&tenant, open[0].upload.blob).unwrap();
    bench.start(&tenant, "r", Some(1)).unwrap();
    bench.set_quota(&tenant, Quota { max_open_uploads: 1, ..UNLIMITED });
    bench.abort(&tenant, open[1].upload.blob).unwrap();
    assert_eq!(bench.start(&tenant, "", Some(1)).unwrap_err().reason(), Reason::QuotaExceeded, "one is open still");
    assert!(bench.start(&tenant, "r", Some(1)).is_ok(), "the repeat of what was granted");
}

#[test]
fn an_unknown_size_reserves_block_by_block_until_the_quota_ends() {
    let (bench, tenant) = Bench::with_tenant(bytes(55));
    let started = bench.start(&tenant, "", None).unwrap();
    assert_eq!((started.blocks.len(), bench.usage(&tenant).reserved_bytes), (4, 40));
    let more = bench.allocate(&tenant, started.upload.blob, 4, 16, Vec::new()).unwrap();
    let sizes: Vec<_> = more.blocks.iter().map(|block| block.max_bytes).collect();
    assert_eq!((sizes, bench.usage(&tenant).reserved_bytes), (vec![10, 5], 55));
    let end = bench.allocate(&tenant, started.upload.blob, 6, 1, Vec::new());
    assert_eq!(end.unwrap_err().reason(), Reason::QuotaExceeded);
    bench.set_quota(&tenant, UNLIMITED);
    let end = bench.allocate(&tenant, started.upload.blob, 6, 1, Vec::new());
    assert_eq!(end.unwrap_err().reason(), Reason::QuotaExceeded, "behind a shorter block there is none");
    let again = bench.allocate(&tenant, started.upload.blob, 4, 16, Vec::new()).unwrap();
    assert_eq!(again.blocks, more.blocks, "what was planned is planned");
    let other = bench.start(&tenant, "", None);
    assert!(other.is_ok());
}

#[test]
fn an_unknown_size_with_nothing_left_is_refused_at_the_start() {
    let (bench, tenant) = Bench::with_tenant(bytes(10));
    bench.put(&tenant, 10);
    assert_eq!(bench.start(&tenant, "", None).unwrap_err().reason(), Reason::QuotaExceeded);
}

#[test]
fn i4_a_repeated_start_returns_the_same_upload_and_reserves_once() {
    let (bench, tenant) = Bench::with_tenant(UNLIMITED);
    let first = bench.start(&tenant, "r", Some(25)).unwrap();
    let (usage, sequence) = (bench.usage(&tenant), bench.sequence());
    assert_eq!(bench.start(&tenant, "r", Some(25)).unwrap(), first);
    assert_eq!((bench.usage(&tenant), bench.sequence()), (usage, sequence), "a repeat writes nothing");
    assert_eq!(bench.start(&tenant, "r", Some(26)).unwrap_err().reason(), Reason::RequestIdReused);
    assert_eq!(bench.start(&tenant, "r", None).unwrap_err().reason(), Reason::RequestIdReused);
    let deleted = bench.delete(&tenant, "r", first.upload.blob);
    assert_eq!(deleted.unwrap_err().reason(), Reason::RequestIdReused);

    bench.commit(&tenant, first.upload.blob, 25, content(9), receipts(&first.blocks)).unwrap();
    let after = bench.start(&tenant, "r", Some(25)).unwrap();
    assert_eq!((after.upload.standing, after.blocks.len()), (Standing::Committed, 0));
    let other = bench.start(&tenant, "s", Some(25)).unwrap();
    bench.abort(&tenant, other.upload.blob).unwrap();
    assert_eq!(bench.start(&tenant, "s", Some(25)).unwrap_err().reason(), Reason::UploadExpired);
}

#[test]
fn a_request_is_forgotten_when_its_time_is_over() {
    let (bench, tenant) = Bench::with_tenant(UNLIMITED);
    let first = bench.start(&tenant, "r", Some(25)).unwrap();
    let forget = |bench: &Bench| {
        let key = keys::request(&own(&tenant, "").scope, "r");
        bench.decide(move |view, context| request::forget(view, context, &[key])).unwrap()
    };
    assert_eq!(forget(&bench), 0);
    bench.advance(bench.tuning().request_id_remembered);
    let second = bench.start(&tenant, "r", Some(30)).unwrap();
    assert_ne!(first.upload.blob, second.upload.blob);
    assert_eq!(forget(&bench), 0, "the new use is remembered anew");
    bench.advance(bench.tuning().request_id_remembered);
    assert_eq!((forget(&bench), bench.count(keys::REQUESTS)), (1, 0));
}

#[test]
fn a_repeated_allocation_returns_the_same_plan_and_plans_have_no_gaps() {
    let (bench, tenant) = Bench::with_tenant(UNLIMITED);
    let started = bench.start(&tenant, "", None).unwrap();
    let blob = started.upload.blob;
    assert_eq!(bench.allocate(&tenant, blob, 0, 4, Vec::new()).unwrap().blocks, started.blocks);
    let more = bench.allocate(&tenant, blob, 2, 5, Vec::new()).unwrap();
    assert_eq!(more.blocks[..2], started.blocks[2..]);
    let indexes: Vec<_> = more.blocks.iter().map(|block| block.record.index).collect();
    assert_eq!((indexes, more.upload.planned_blocks), (vec![2, 3, 4, 5, 6], 7));
    assert_eq!(bench.allocate(&tenant, blob, 2, 5, Vec::new()).unwrap().blocks, more.blocks);
    let gap = bench.allocate(&tenant, blob, 8, 1, Vec::new()).unwrap_err();
    assert_eq!(gap.details().field, Some("first_block_index"));
    let gap = bench.allocate(&tenant, blob, u64::MAX, 16, Vec::new()).unwrap_err();
    assert_eq!(gap.details().field, Some("first_block_index"));
}

#[test]
fn a_lease_is_renewed_but_not_for_ever() {
    let (bench, tenant) = Bench::with_tenant(UNLIMITED);
    let started = bench.start(&tenant, "", Some(5)).unwrap();
    let (blob, begun) = (started.upload.blob, bench.now_ms());
    let last = begun + 7 * 24 * 3_600_000;
    assert_eq!(started.upload.lease_expire_ms, Some(begun + 3_600_000));
    for _half_hour in 0..2 * 7 * 24 - 1 {
        bench.advance(HOUR / 2);
        let renewed = bench.allocate(&tenant, blob, 0, 0, Vec::new()).unwrap().upload;
        assert_eq!(renewed.lease_expire_ms, Some((bench.now_ms() + 3_600_000).min(last)));
    }
    bench.advance(HOUR / 2);
    let over = bench.allocate(&tenant, blob, 0, 0, Vec::new());
    assert_eq!(over.unwrap_err().reason(), Reason::UploadExpired);
}

#[test]
fn an_upload_whose_lease_ran_out_is_over_before_anybody_wrote_it_down() {
    let (bench, tenant) = Bench::with_tenant(UNLIMITED);
    let started = bench.start(&tenant, "", Some(5)).unwrap();
    let blob = started.upload.blob;
    bench.advance(HOUR);
    assert_eq!(bench.allocate(&tenant, blob, 0, 0, Vec::new()).unwrap_err().reason(), Reason::UploadExpired);
    let committed = bench.commit(&tenant, blob, 5, content(0), receipts(&started.blocks));
    assert_eq!(committed.unwrap_err().reason(), Reason::UploadExpired);
    let now_ms = bench.now_ms();
    let shown = bench.read(async |engine| get(engine, &tenant, blob, now_ms).await).unwrap();
    assert_eq!(shown.standing, Standing::Expired);
}

#[test]
fn expiring_releases_the_reservation_once_and_leaves_one_garbage_row() {
    let (bench, tenant) = Bench::with_tenant(UNLIMITED);
    let blob = bench.start(&tenant, "", Some(25)).unwrap().upload.blob;
    assert!(!bench.expire(&tenant, blob).unwrap(), "its lease has not run out");
    bench.advance(HOUR);
    assert!(bench.expire(&tenant, blob).unwrap());
    assert!(!bench.expire(&tenant, blob).unwrap());
    assert_eq!(bench.usage(&tenant), UsageRecord::default());
    let garbage = bench.rows::<GarbageRecord>(keys::GARBAGE);
    let due_ms = bench.now_ms() + 3_600_000;
    let expected = keys::garbage(due_ms, keys::GarbageKind::Upload, blob);
    assert_eq!(garbage, [(expected, GarbageRecord { tenant: tenant.clone(), first_block: 0 })]);
    assert!(bench.abort(&tenant, blob).is_ok(), "giving up what is over is harmless");
    assert_eq!(bench.count(keys::GARBAGE), 1);
}

#[test]
fn aborting_is_idempotent_and_final() {
    let (bench, tenant) = Bench::with_tenant(UNLIMITED);
    let started = bench.start(&tenant, "", Some(25)).unwrap();
    let blob = started.upload.blob;
    bench.abort(&tenant, blob).unwrap();
    bench.abort(&tenant, blob).unwrap();
    assert_eq!((bench.usage(&tenant), bench.count(keys::GARBAGE)), (UsageRecord::default(), 1));
    let row: UploadRecord = bench.row(&keys::upload(&tenant, blob)).unwrap();
    assert_eq!(row.state, crate::store::records::UploadState::Aborted);
    let committed = bench.commit(&tenant, blob, 25, content(9), receipts(&started.blocks));
    assert_eq!(committed.unwrap_err().reason(), Reason::UploadExpired);
    let blob = bench.put(&tenant, 1).blob;
    assert_eq!(bench.abort(&tenant, blob).unwrap_err().reason(), Reason::UploadCommitted);
}

#[test]
fn i9_a_foreign_upload_is_a_missing_one() {
    let (bench, tenant) = Bench::with_tenant(UNLIMITED);
    let stranger = bench.register("strangers", UNLIMITED).unwrap().tenant;
    let started = bench.start(&tenant, "", Some(5)).unwrap();
    let (there, nowhere) = (started.upload.blob, BlobId::generate(1, &SeededEntropy::new(99)));
    let tell = |error: MetadataError, blob: BlobId| {
        let (text, details) = (error.to_string(), format!("{:?}", error.details()));
        (error.reason(), text, details.replace(&blob.to_string(), "<id>"))
    };
    type Try<'a> = &'a dyn Fn(BlobId) -> MetadataError;
    let tries: [Try<'_>; 3] = [
        &|blob| bench.allocate(&stranger, blob, 0, 1, receipts(&started.blocks)).unwrap_err(),
        &|blob| bench.commit(&stranger, blob, 5, content(0), receipts(&started.blocks)).unwrap_err(),
        &|blob| bench.abort(&stranger, blob).unwrap_err(),
    ];
    for attempt in tries {
        assert_eq!(tell(attempt(there), there), tell(attempt(nowhere), nowhere));
    }
}

#[test]
fn i5_a_receipt_that_is_not_of_the_plan_is_refused() {
    let (bench, tenant) = Bench::with_tenant(UNLIMITED);
    let started = bench.start(&tenant, "", Some(25)).unwrap();
    let other = bench.start(&tenant, "", Some(25)).unwrap();
    let entropy = SeededEntropy::new(5);
    let good = receipt(&started.blocks[0], BLOCK);
    let foreign = receipt(&other.blocks[0], BLOCK);
    let bad = [
        foreign.clone(),
        Receipt { blob: started.upload.blob, ..foreign },
        Receipt { blob: other.upload.blob, ..good.clone() },
        Receipt { block: started.blocks[1].block, ..good.clone() },
        Receipt { chunk: ChunkId::generate(1, &entropy), ..good.clone() },
        Receipt { node: NodeId::generate(1, &entropy), ..good.clone() },
        Receipt { generation: 2, ..good.clone() },
        Receipt { size_bytes: BLOCK - 1, ..good.clone() },
        Receipt { size_bytes: BLOCK + 1, ..good.clone() },
        Receipt { size_bytes: 0, ..good.clone() },
    ];
    for receipt in bad {
        let refused = bench.allocate(&tenant, started.upload.blob, 0, 0, vec![receipt.clone()]);
        assert_eq!(refused.unwrap_err().reason(), Reason::ReceiptInvalid, "{receipt:?}");
    }
    let sealed = bench.allocate(&tenant, started.upload.blob, 0, 0, vec![good.clone()]).unwrap();
    assert_eq!(sealed.upload.sealed_blocks, 1);
    let again = bench.allocate(&tenant, started.upload.blob, 0, 0, vec![good.clone(), good.clone()]).unwrap();
    assert_eq!(again.upload.sealed_blocks, 1, "a receipt given twice counts once");
    let changed = Receipt { sha256: content(7), ..good };
    let refused = bench.allocate(&tenant, started.upload.blob, 0, 0, vec![changed]);
    assert_eq!(refused.unwrap_err().reason(), Reason::ReceiptInvalid);
}

#[test]
fn a_refused_allocation_seals_nothing() {
    let (bench, tenant) = Bench::with_tenant(bytes(40));
    let started = bench.start(&tenant, "", None).unwrap();
    let blob = started.upload.blob;
    let refused = bench.allocate(&tenant, blob, 4, 1, receipts(&started.blocks));
    assert_eq!(refused.unwrap_err().reason(), Reason::QuotaExceeded);
    let row: UploadRecord = bench.row(&keys::upload(&tenant, blob)).unwrap();
    assert_eq!(row.sealed_blocks, 0);
}

#[test]
fn the_largest_allocation_fits_into_one_batch() {
    let (bench, tenant) = Bench::with_tenant(UNLIMITED);
    let started = bench.start(&tenant, "", None).unwrap();
    let blob = started.upload.blob;
    let mut planned = started.blocks;
    while planned.len() < 64 {
        let next = planned.len() as u64;
        planned.extend(bench.allocate(&tenant, blob, next, 16, Vec::new()).unwrap().blocks);
    }
    let full = bench.allocate(&tenant, blob, planned.len() as u64, 16, receipts(&planned[..64])).unwrap();
    assert_eq!((full.blocks.len(), full.upload.sealed_blocks), (16, 64));
}

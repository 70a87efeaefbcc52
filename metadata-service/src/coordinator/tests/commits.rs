//! Commits, reads of what was committed, deletes.

use proto::error::{Classify as _, Reason};

use super::*;
use crate::coordinator::blobs;
use crate::coordinator::layout::{self, ReadRange};
use crate::coordinator::upload::{Standing, get};
use crate::store::records::{BlobRecord, BlockRecord, DeletedRecord, ExtentRecord, GarbageRecord, UploadRecord};

const UNLIMITED: Quota = Quota::UNLIMITED;

fn layout_of(bench: &Bench, blob: &Blob, offset: u64, limit: u64) -> Result<layout::Layout, MetadataError> {
    let range = ReadRange { offset, limit };
    bench.read(async |engine| layout::get(engine, &blob.tenant, blob.blob, range).await)
}

#[test]
fn a_commit_moves_the_reservation_and_shows_the_blob_everywhere_at_once() {
    let (bench, tenant) = Bench::with_tenant(UNLIMITED);
    let started = bench.start(&tenant, "", Some(25)).unwrap();
    let id = started.upload.blob;
    let missing = bench.read(async |engine| blobs::get(engine, &tenant, id).await);
    assert_eq!(missing.unwrap_err().reason(), Reason::BlobNotFound);
    let sequence = bench.sequence();
    let blob = bench.commit(&tenant, id, 25, content(9), receipts(&started.blocks)).unwrap();
    assert_eq!(bench.sequence(), sequence + 1, "one commit");
    let usage = bench.usage(&tenant);
    assert_eq!(usage, UsageRecord { used_bytes: 25, used_blobs: 1, ..UsageRecord::default() });
    assert_eq!(bench.row::<BlobRecord>(&keys::blob(&tenant, id)).as_ref(), Some(&blob.record));
    assert_eq!(bench.count(&keys::names_with_prefix(&tenant, "nam")), 1);
    assert!(bench.row::<UploadRecord>(&keys::upload(&tenant, id)).is_none());
    assert_eq!(bench.count(keys::GARBAGE), 0);
    let now_ms = bench.now_ms();
    let upload = bench.read(async |engine| get(engine, &tenant, id, now_ms).await).unwrap();
    assert_eq!((upload.standing, upload.sealed_blocks), (Standing::Committed, 3));
}

#[test]
fn i4_a_repeated_commit_returns_the_blob_and_a_different_one_is_refused() {
    let (bench, tenant) = Bench::with_tenant(UNLIMITED);
    let blob = bench.put(&tenant, 25);
    let (usage, sequence) = (bench.usage(&tenant), bench.sequence());
    assert_eq!(bench.commit(&tenant, blob.blob, 25, content(0), Vec::new()).unwrap(), blob);
    assert_eq!((bench.usage(&tenant), bench.sequence()), (usage, sequence));
    let other_size = bench.commit(&tenant, blob.blob, 24, content(0), Vec::new());
    assert_eq!(other_size.unwrap_err().reason(), Reason::UploadCommitted);
    let other_sum = bench.commit(&tenant, blob.blob, 25, content(1), Vec::new());
    assert_eq!(other_sum.unwrap_err().reason(), Reason::UploadCommitted);
    let more = bench.allocate(&tenant, blob.blob, 0, 1, Vec::new());
    assert_eq!(more.unwrap_err().reason(), Reason::UploadCommitted);
}

#[test]
fn i5_a_commit_names_the_first_block_without_a_receipt() {
    let (bench, tenant) = Bench::with_tenant(UNLIMITED);
    let started = bench.start(&tenant, "", Some(45)).unwrap();
    let blob = started.upload.blob;
    let all = receipts(&started.blocks);
    bench.allocate(&tenant, blob, 0, 0, [1, 2, 4].map(|index: usize| all[index].clone()).to_vec()).unwrap();
    let first_missing = |result: Result<Blob, MetadataError>| {
        let error = result.unwrap_err();
        assert_eq!(error.reason(), Reason::UploadIncomplete);
        error.details().facts
    };
    let facts = first_missing(bench.commit(&tenant, blob, 45, content(9), Vec::new()));
    assert_eq!(facts, [("block_index", "0".to_owned())]);
    let facts = first_missing(bench.commit(&tenant, blob, 45, content(9), vec![all[0].clone()]));
    assert_eq!(facts, [("block_index", "3".to_owned())]);
    assert_eq!(bench.usage(&tenant).used_blobs, 0, "I3: nothing of a refused commit is visible");
    bench.commit(&tenant, blob, 45, content(9), vec![all[0].clone(), all[3].clone()]).unwrap();
}

#[test]
fn a_declared_size_must_be_committed() {
    let (bench, tenant) = Bench::with_tenant(UNLIMITED);
    let started = bench.start(&tenant, "", Some(25)).unwrap();
    let refused = bench.commit(&tenant, started.upload.blob, 20, content(9), receipts(&started.blocks[..2]));
    assert_eq!(refused.unwrap_err().details().field, Some("size_bytes"));
}

#[test]
fn a_blob_of_one_block_must_have_the_sum_that_its_node_computed() {
    let (bench, tenant) = Bench::with_tenant(UNLIMITED);
    for declared in [Some(5), None] {
        let started = bench.start(&tenant, "", declared).unwrap();
        let blob = started.upload.blob;
        let receipts = vec![receipt(&started.blocks[0], 5)];
        let wrong = bench.commit(&tenant, blob, 5, content(1), receipts.clone());
        assert_eq!(wrong.unwrap_err().reason(), Reason::ChecksumMismatch);
        bench.allocate(&tenant, blob, 0, 0, receipts).unwrap();
        let wrong = bench.commit(&tenant, blob, 5, content(1), Vec::new());
        assert_eq!(wrong.unwrap_err().reason(), Reason::ChecksumMismatch, "sealed before");
        bench.commit(&tenant, blob, 5, content(0), Vec::new()).unwrap();
    }
}

#[test]
fn an_unknown_size_ends_anywhere_and_its_surplus_becomes_garbage() {
    let (bench, tenant) = Bench::with_tenant(UNLIMITED);
    let started = bench.start(&tenant, "", None).unwrap();
    let id = started.upload.blob;
    let written = vec![receipt(&started.blocks[0], 10), receipt(&started.blocks[1], 3)];
    for wrong in [12, 14, 20, 30] {
        let refused = bench.commit(&tenant, id, wrong, content(9), written.clone());
        assert_eq!(refused.unwrap_err().reason(), Reason::UploadIncomplete, "{wrong}");
    }
    let blob = bench.commit(&tenant, id, 13, content(9), written).unwrap();
    assert_eq!(bench.usage(&tenant), UsageRecord { used_bytes: 13, used_blobs: 1, ..UsageRecord::default() });
    let due_ms = bench.now_ms() + 3_600_000;
    let surplus = (
        keys::garbage(due_ms, keys::GarbageKind::Surplus, id),
        GarbageRecord { tenant: tenant.clone(), first_block: 2 },
    );
    assert_eq!(bench.rows::<GarbageRecord>(keys::GARBAGE), [surplus]);
    let extent: ExtentRecord = bench.row(&keys::extent(id, 1)).unwrap();
    assert_eq!(extent.size_bytes, 3, "the last extent has its true size");
    let layout = layout_of(&bench, &blob, 0, 0).unwrap();
    let sizes: Vec<_> = layout.blocks.iter().map(|block| (block.offset_bytes, block.sums.size_bytes)).collect();
    assert_eq!(sizes, [(0, 10), (10, 3)]);
}

#[test]
fn an_unknown_size_that_is_whole_blocks_or_nothing_commits_too() {
    let (bench, tenant) = Bench::with_tenant(UNLIMITED);
    let started = bench.start(&tenant, "", None).unwrap();
    bench.commit(&tenant, started.upload.blob, 20, content(9), receipts(&started.blocks[..2])).unwrap();
    let nothing = bench.start(&tenant, "", None).unwrap();
    bench.commit(&tenant, nothing.upload.blob, 0, Sha256::of(b""), Vec::new()).unwrap();
    assert_eq!(bench.count(keys::GARBAGE), 2);
}

#[test]
fn only_the_last_block_may_be_short() {
    let (bench, tenant) = Bench::with_tenant(UNLIMITED);
    let started = bench.start(&tenant, "", None).unwrap();
    let id = started.upload.blob;
    let sizes = |sizes: &[u64]| -> Vec<_> {
        started.blocks.iter().zip(sizes).map(|(block, size)| receipt(block, *size)).collect()
    };
    let two = bench.allocate(&tenant, id, 0, 0, sizes(&[3, 10, 4]));
    assert_eq!(two.unwrap_err().reason(), Reason::ReceiptInvalid);
    bench.allocate(&tenant, id, 0, 0, sizes(&[10, 3, 10])).unwrap();
    let refused = bench.commit(&tenant, id, 23, content(9), Vec::new());
    assert_eq!(refused.unwrap_err().reason(), Reason::UploadIncomplete);
}

#[test]
fn the_largest_commit_fits_into_one_batch() {
    let (bench, tenant) = Bench::with_tenant(UNLIMITED);
    let started = bench.start(&tenant, "", None).unwrap();
    let id = started.upload.blob;
    let mut planned = started.blocks;
    while planned.len() < 64 {
        planned.extend(bench.allocate(&tenant, id, planned.len() as u64, 16, Vec::new()).unwrap().blocks);
    }
    planned.truncate(64);
    let mut receipts = receipts(&planned);
    receipts[63].size_bytes = 1;
    bench.commit(&tenant, id, 631, content(9), receipts).unwrap();
}

const MANY: u64 = 1_000;

/// Plans an upload of [`MANY`] blocks and gives all receipts but that of block 0; returns that one.
fn sealed_back_to_front(bench: &Bench, tenant: &TenantId, declared: Option<u64>) -> (BlobId, Receipt) {
    let started = bench.start(tenant, "", declared).unwrap();
    let (blob, mut planned) = (started.upload.blob, started.blocks);
    while (planned.len() as u64) < MANY {
        planned.extend(bench.allocate(tenant, blob, planned.len() as u64, 16, Vec::new()).unwrap().blocks);
    }
    planned.truncate(usize::try_from(MANY).unwrap());
    let mut all = receipts(&planned);
    let first = all.remove(0);
    for some in all.chunks(64) {
        bench.allocate(tenant, blob, 0, 0, some.to_vec()).unwrap();
    }
    (blob, first)
}

fn prefix(bench: &Bench, tenant: &TenantId, blob: BlobId) -> u64 {
    bench.row::<UploadRecord>(&keys::upload(tenant, blob)).unwrap().sealed_prefix
}

/// One tenant sealed the 131,071 later blocks of an upload first and block 0 last. The one commit that took that receipt
/// walked over all of them, and every other tenant's commit waited behind it.
#[test]
fn the_receipt_that_closes_a_long_gap_makes_no_commit_long() {
    let (bench, tenant) = Bench::with_tenant(UNLIMITED);
    let (blob, first) = sealed_back_to_front(&bench, &tenant, Some(MANY * BLOCK));
    assert_eq!(prefix(&bench, &tenant, blob), 0);
    bench.allocate(&tenant, blob, 0, 0, vec![first]).unwrap();
    assert_eq!(prefix(&bench, &tenant, blob), 256, "no more than a bounded number in one commit");
    bench.commit(&tenant, blob, MANY * BLOCK, content(9), Vec::new()).unwrap();
    let (blob, first) = sealed_back_to_front(&bench, &tenant, Some(MANY * BLOCK));
    bench.commit(&tenant, blob, MANY * BLOCK, content(9), vec![first]).unwrap();
}

/// The same with an unknown size, where more blocks are planned than written: that all sealed blocks are the first ones
/// is known only once the prefix has been counted that far.
#[test]
fn a_long_gap_of_an_unknown_size_is_counted_on_call_by_call_and_then_commits() {
    let (bench, tenant) = Bench::with_tenant(UNLIMITED);
    let (blob, first) = sealed_back_to_front(&bench, &tenant, None);
    let commit = |receipts| bench.commit(&tenant, blob, MANY * BLOCK, content(9), receipts);
    let missing = commit(Vec::new()).unwrap_err();
    assert_eq!(missing.details().facts, [("block_index", "0".to_owned())]);
    let uncounted = commit(vec![first.clone()]).unwrap_err();
    assert_eq!((uncounted.reason(), uncounted.details().facts), (Reason::UploadIncomplete, Vec::new()));
    for counted in [256, 512, 768] {
        bench.allocate(&tenant, blob, 0, 0, vec![first.clone()]).unwrap();
        assert_eq!(prefix(&bench, &tenant, blob), counted);
    }
    commit(Vec::new()).unwrap();
}

#[test]
fn a_layout_covers_a_range_and_refuses_one_behind_the_end() {
    let (bench, tenant) = Bench::with_tenant(UNLIMITED);
    let blob = bench.put(&tenant, 45);
    let offsets = |offset, limit| -> Vec<u64> {
        layout_of(&bench, &blob, offset, limit).unwrap().blocks.iter().map(|block| block.offset_bytes).collect()
    };
    assert_eq!(offsets(0, 0), [0, 10, 20, 30, 40]);
    assert_eq!(offsets(9, 2), [0, 10]);
    assert_eq!(offsets(10, 10), [10]);
    assert_eq!(offsets(44, u64::MAX), [40]);
    assert!(offsets(45, 0).is_empty());
    let behind = layout_of(&bench, &blob, 46, 0).unwrap_err();
    assert_eq!(behind.reason(), Reason::ReadOffsetOutOfRange);
}

#[test]
fn i2_a_layout_with_a_block_that_is_not_its_own_is_refused() {
    let (bench, tenant) = Bench::with_tenant(UNLIMITED);
    let (blob, other) = (bench.put(&tenant, 45), bench.put(&tenant, 45));
    let extent: ExtentRecord = bench.row(&keys::extent(other.blob, 1)).unwrap();
    let key = keys::extent(blob.blob, 1);
    bench
        .decide(move |_view, _context| {
            let mut decision = Decision::default();
            crate::store::rows::BatchExt::set(&mut decision.batch, key, &extent);
            Ok((decision, ()))
        })
        .unwrap();
    assert_eq!(layout_of(&bench, &blob, 0, 0).unwrap_err().reason(), Reason::RecordCorrupt);
}

#[test]
fn i8_a_delete_is_final_and_its_repeat_depends_on_the_request_id() {
    let (bench, tenant) = Bench::with_tenant(UNLIMITED);
    let blob = bench.put(&tenant, 25);
    let id = blob.blob;
    let sequence = bench.sequence();
    bench.delete(&tenant, "d", id).unwrap();
    assert_eq!(bench.sequence(), sequence + 1, "one commit");
    bench.delete(&tenant, "d", id).unwrap();
    assert_eq!(bench.delete(&tenant, "", id).unwrap_err().reason(), Reason::BlobNotFound);
    assert_eq!(bench.delete(&tenant, "e", id).unwrap_err().reason(), Reason::BlobNotFound);
    let usage = bench.usage(&tenant);
    assert_eq!(usage, UsageRecord { retained_bytes: 25, retained_blobs: 1, ..UsageRecord::default() });
    let deleted: DeletedRecord = bench.row(&keys::deleted(&tenant, id)).unwrap();
    let (delete_ms, due_ms) = (bench.now_ms(), Some(bench.tuning().deleted_due_ms(bench.now_ms())));
    assert_eq!(deleted, DeletedRecord { blob: blob.record.clone(), delete_ms, due_ms, collecting: false });
    assert_eq!((bench.count(&keys::blobs(&tenant)), bench.count(&keys::names(&tenant))), (0, 0));
    let due_ms = bench.now_ms() + 24 * 3_600_000;
    let garbage = bench.rows::<GarbageRecord>(keys::GARBAGE);
    assert_eq!(garbage.first().map(|row| &row.0), Some(&keys::garbage(due_ms, keys::GarbageKind::Blob, id)));
    let replayed = bench.commit(&tenant, id, 25, content(0), Vec::new());
    assert_eq!(replayed.unwrap_err().reason(), Reason::UploadNotFound, "a replayed commit brings nothing back");
    assert_eq!(layout_of(&bench, &blob, 0, 0).unwrap_err().reason(), Reason::BlobNotFound);
}

#[test]
fn an_open_upload_is_no_blob_to_delete_and_neither_is_a_foreign_one() {
    let (bench, tenant) = Bench::with_tenant(UNLIMITED);
    let stranger = bench.register("strangers", UNLIMITED).unwrap().tenant;
    let open = bench.start(&tenant, "", Some(5)).unwrap().upload.blob;
    assert_eq!(bench.delete(&tenant, "", open).unwrap_err().reason(), Reason::BlobNotFound);
    let blob = bench.put(&tenant, 5).blob;
    assert_eq!(bench.delete(&stranger, "", blob).unwrap_err().reason(), Reason::BlobNotFound);
    bench.delete(&tenant, "", blob).unwrap();
}

#[test]
fn listings_page_by_id_and_by_name() {
    let (bench, tenant) = Bench::with_tenant(UNLIMITED);
    let mut by_name = Vec::new();
    for name in ["b", "a/2", "a/1", "a", "", "a/1"] {
        let description = Description { display_name: name.to_owned(), ..Description::default() };
        let request = own(&tenant, "");
        let command = StartUpload { tenant: tenant.clone(), request, description, declared_bytes: Some(0) };
        let blob = bench.start_as(command).unwrap().upload.blob;
        bench.commit(&tenant, blob, 0, Sha256::of(b""), Vec::new()).unwrap();
        by_name.push((name, blob));
        bench.advance(Duration::from_millis(1));
    }
    let all_pages = |prefix: &str, size: usize| {
        let (mut found, mut after) = (Vec::new(), None::<Vec<u8>>);
        loop {
            let page = bench.read(async |engine| blobs::list(engine, &tenant, prefix, after.as_deref(), size).await);
            let page = page.unwrap();
            assert!(page.entries.len() <= size);
            found.extend(page.entries.into_iter().map(|blob| blob.blob));
            after = page.next;
            if after.is_none() {
                return found;
            }
        }
    };
    let by_id: Vec<_> = by_name.iter().map(|(_, blob)| *blob).collect();
    by_name.sort();
    let named = |prefix: &str| -> Vec<_> {
        by_name.iter().filter(|(name, _)| name.starts_with(prefix)).map(|(_, blob)| *blob).collect()
    };
    for size in 1..8 {
        assert_eq!(all_pages("", size), by_id, "size {size}");
        for prefix in ["a", "a/", "a/1", "b", "c"] {
            assert_eq!(all_pages(prefix, size), named(prefix), "{prefix:?} in pages of {size}");
        }
    }
}

#[test]
fn a_sealed_block_keeps_what_its_receipt_said() {
    let (bench, tenant) = Bench::with_tenant(UNLIMITED);
    let blob = bench.put(&tenant, 5).blob;
    let extent: ExtentRecord = bench.row(&keys::extent(blob, 0)).unwrap();
    let block: BlockRecord = bench.row(&keys::block(extent.block)).unwrap();
    let chunk = block.chunks[0];
    assert_eq!(block.sealed.map(|sums| (sums.size_bytes, sums.sha256)), Some((5, content(0))));
    assert_eq!(chunk.sums.map(|sums| sums.pieces_sha256), Some(Sha256::of(b"pieces")));
    let engine_says =
        bench.read(async |engine| crate::nodes::usecases::describe_chunk(engine, chunk.node, chunk.chunk).await);
    let described = engine_says.unwrap().unwrap();
    assert_eq!((described.block, described.blob, described.sums), (extent.block, blob, chunk.sums));
    assert_eq!((described.epoch, described.sequence), (chunk.epoch, chunk.sequence));
    assert!(chunk.sequence > 0 && chunk.sequence < bench.sequence());
}

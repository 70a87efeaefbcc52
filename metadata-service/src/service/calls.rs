//! One method for each call about tenants, uploads and blobs: what it decides or reads, and what it adds to that.

use bytes::Bytes;
use proto::failpoint;
use proto::ids::{BlobId, TenantId};
use proto::limits::BATCH_WRITES_MAX;
use proto::receipt::{self, Receipt};
use proto::token::Token;
use proto::traffic::TrafficClass;

use super::{ReadPlan, Service, WritePlan};
use crate::coordinator::PlannedBlock;
use crate::coordinator::allocate::{self, AllocateBlocks};
use crate::coordinator::blobs::{self, Blob, DeletedBlob, Page};
use crate::coordinator::collect::chunks::{self, CHUNKS_PER_LOOK, ChunkRow, Unreferenced};
use crate::coordinator::collect::hasten::{self, Walk};
use crate::coordinator::collect::{self, Blocks, Step};
use crate::coordinator::commit::{self, CommitUpload};
use crate::coordinator::delete::{self, DeleteBlob};
use crate::coordinator::end;
use crate::coordinator::layout::{self, Layout, ReadRange, SealedBlock};
use crate::coordinator::request::{self, RequestId};
use crate::coordinator::start::{self, Planned, StartUpload};
use crate::coordinator::tenants::{self, RegisterTenant, Tenant, UpdateTenant};
use crate::coordinator::undelete::{self, UndeleteBlob};
use crate::coordinator::upload::{self, Upload};
use crate::error::MetadataError;
use crate::mint::Terms;
use crate::page_token::Listing;
use crate::store::records::TenantRecord;

impl Service {
    /// See [`tenants::register`].
    ///
    /// # Errors
    /// [`MetadataError`], as each of these.
    pub async fn register_tenant(&self, command: RegisterTenant) -> Result<(Tenant, Token), MetadataError> {
        self.decide(move |view, context| tenants::register(view, context, &command)).await
    }

    /// See [`tenants::update`].
    ///
    /// # Errors
    /// [`MetadataError`].
    pub async fn update_tenant(&self, command: UpdateTenant) -> Result<Tenant, MetadataError> {
        self.decide(move |view, context| tenants::update(view, context, &command)).await
    }

    /// See [`tenants::delete`].
    ///
    /// # Errors
    /// [`MetadataError`].
    pub async fn delete_tenant(&self, request: RequestId, tenant: TenantId) -> Result<(), MetadataError> {
        self.decide(move |view, context| tenants::delete(view, context, &request, &tenant)).await
    }

    /// See [`tenants::rotate_token`].
    ///
    /// # Errors
    /// [`MetadataError`].
    pub async fn rotate_token(
        &self,
        request: RequestId,
        tenant: TenantId,
        expire_ms: Option<u64>,
    ) -> Result<Token, MetadataError> {
        self.decide(move |view, context| tenants::rotate_token(view, context, &request, &tenant, expire_ms)).await
    }

    /// See [`tenants::list`]; returns the tenants and the next page's token.
    ///
    /// # Errors
    /// [`MetadataError`].
    pub async fn list_tenants(&self, size: usize, token: &str) -> Result<(Vec<Tenant>, String), MetadataError> {
        let listing = Listing { tenant: "", method: "ListTenants", filter: "" };
        let after = listing.verify(&self.cluster().secret, token)?;
        let Page { entries, next } = self.watch(tenants::list(self.engine(), after.as_deref(), size).await)?;
        Ok((entries, listing.sign(&self.cluster().secret, next.as_deref())))
    }

    /// See [`tenants::get`].
    ///
    /// # Errors
    /// [`MetadataError`].
    pub async fn get_tenant(&self, tenant: &TenantId) -> Result<Tenant, MetadataError> {
        self.watch(tenants::get(self.engine(), tenant).await)
    }

    // Uploads.

    /// The terms of a tenant's call that asks for this class: never above the tenant's own.
    async fn terms(&self, tenant: &TenantId, asked: Option<TrafficClass>) -> Result<Terms, MetadataError> {
        let TenantRecord { traffic_class: own, rates, .. } = self.watch(tenants::row(self.engine(), tenant).await)?;
        Ok(Terms { class: asked.map_or(own, |asked| asked.lower(own)), rates })
    }

    /// See [`start::decide`]; the writes are as urgent as `asked`, at most as the tenant's traffic.
    ///
    /// # Errors
    /// [`MetadataError`].
    pub async fn start_upload(
        &self,
        command: StartUpload,
        asked: Option<TrafficClass>,
    ) -> Result<WritePlan, MetadataError> {
        // Before the commit: a call that fails leaves no trace.
        let terms = self.terms(&command.tenant, asked).await?;
        let planned = self.decide(move |view, context| start::decide(view, context, &command)).await?;
        failpoint!("start_upload.durable");
        self.permit_writes(planned, terms)
    }

    /// See [`allocate::decide`]; `asked` as in [`Service::start_upload`].
    ///
    /// # Errors
    /// [`MetadataError`].
    pub async fn allocate_blocks(
        &self,
        command: AllocateBlocks,
        signed: &[Bytes],
        asked: Option<TrafficClass>,
    ) -> Result<WritePlan, MetadataError> {
        let terms = self.terms(&command.tenant, asked).await?;
        let command = AllocateBlocks { receipts: self.verify_receipts(signed)?, ..command };
        let planned = self.decide(move |view, context| allocate::decide(view, context, &command)).await?;
        failpoint!("allocate.durable");
        self.permit_writes(planned, terms)
    }

    /// See [`commit::decide`].
    ///
    /// # Errors
    /// [`MetadataError`].
    pub async fn commit_upload(&self, command: CommitUpload, signed: &[Bytes]) -> Result<Blob, MetadataError> {
        let command = CommitUpload { receipts: self.verify_receipts(signed)?, ..command };
        let blob = self.decide(move |view, context| commit::decide(view, context, &command)).await?;
        failpoint!("commit.durable");
        Ok(blob)
    }

    /// See [`end::abort`].
    ///
    /// # Errors
    /// [`MetadataError`].
    pub async fn abort_upload(&self, tenant: TenantId, blob: BlobId) -> Result<(), MetadataError> {
        self.decide(move |view, context| end::abort(view, context, &tenant, blob)).await?;
        failpoint!("abort.durable");
        Ok(())
    }

    /// See [`end::expire`].
    ///
    /// # Errors
    /// [`MetadataError`].
    pub async fn expire_upload(&self, tenant: TenantId, blob: BlobId) -> Result<bool, MetadataError> {
        let expired = self.decide(move |view, context| end::expire(view, context, &tenant, blob)).await?;
        failpoint!("expire.durable");
        Ok(expired)
    }

    /// See [`request::forget`]; in as many commits as it takes.
    ///
    /// # Errors
    /// [`MetadataError`].
    pub async fn forget_requests(&self, keys: Vec<Vec<u8>>) -> Result<u64, MetadataError> {
        let mut forgotten = 0;
        for some in keys.chunks(BATCH_WRITES_MAX) {
            let some = some.to_vec();
            forgotten += self.decide(move |view, context| request::forget(view, context, &some)).await?;
        }
        Ok(forgotten)
    }

    /// See [`upload::get`].
    ///
    /// # Errors
    /// [`MetadataError`].
    pub async fn get_upload(&self, tenant: &TenantId, blob: BlobId) -> Result<Upload, MetadataError> {
        self.watch(upload::get(self.engine(), tenant, blob, self.now_ms()).await)
    }

    /// Checks the signatures of receipts; what they say is held against the plan in the commit.
    fn verify_receipts(&self, signed: &[Bytes]) -> Result<Vec<Receipt>, MetadataError> {
        let now_ms = self.now_ms();
        let key_of = |node, key_id| self.registry().receipt_key(node, key_id, now_ms);
        let verify = |signed: &Bytes| match receipt::verify(signed, key_of) {
            Ok(receipt) if receipt.cluster == self.cluster().id => Ok(receipt),
            Ok(_foreign) => Err(MetadataError::ReceiptInvalid("it is of another cluster")),
            Err(_unsigned) => Err(MetadataError::ReceiptInvalid("no node of this cluster signed it")),
        };
        signed.iter().map(verify).collect()
    }

    fn permit_writes(&self, planned: Planned, terms: Terms) -> Result<WritePlan, MetadataError> {
        let Planned { upload, blocks } = planned;
        let permit = |block: PlannedBlock| Ok((self.shared.mint.writes(&upload.tenant, terms, &block)?, block));
        let blocks = blocks.into_iter().map(permit).map(|granted| granted.map(|(chunks, block)| (block, chunks)));
        let blocks = blocks.collect::<Result<_, MetadataError>>()?;
        Ok(WritePlan { upload, blocks })
    }

    // Blobs.

    /// See [`blobs::get`].
    ///
    /// # Errors
    /// [`MetadataError`].
    pub async fn get_blob(&self, tenant: &TenantId, blob: BlobId) -> Result<Blob, MetadataError> {
        self.watch(blobs::get(self.engine(), tenant, blob).await)
    }

    /// See [`layout::get`]; the reads are as urgent as `asked`, at most as the tenant's traffic.
    ///
    /// # Errors
    /// [`MetadataError`].
    pub async fn get_layout(
        &self,
        tenant: &TenantId,
        blob: BlobId,
        range: ReadRange,
        asked: Option<TrafficClass>,
    ) -> Result<ReadPlan, MetadataError> {
        let Layout { blob, blocks, next_read_offset } =
            self.watch(layout::get(self.engine(), tenant, blob, range).await)?;
        let terms = self.terms(tenant, asked).await?;
        let permit = |block: SealedBlock| self.shared.mint.reads(tenant, terms, &block).map(|chunks| (block, chunks));
        let blocks = blocks.into_iter().map(permit).collect::<Result<_, _>>()?;
        Ok(ReadPlan { blob, blocks, next_read_offset })
    }

    /// See [`blobs::list`]; returns the blobs and the next page's token.
    ///
    /// # Errors
    /// [`MetadataError`].
    pub async fn list_blobs(
        &self,
        tenant: &TenantId,
        prefix: &str,
        size: usize,
        token: &str,
    ) -> Result<(Vec<Blob>, String), MetadataError> {
        let listing = Listing { tenant: tenant.as_str(), method: "ListBlobs", filter: prefix };
        let after = listing.verify(&self.cluster().secret, token)?;
        let Page { entries, next } =
            self.watch(blobs::list(self.engine(), tenant, prefix, after.as_deref(), size).await)?;
        Ok((entries, listing.sign(&self.cluster().secret, next.as_deref())))
    }

    /// See [`delete::decide`].
    ///
    /// # Errors
    /// [`MetadataError`].
    pub async fn delete_blob(&self, command: DeleteBlob) -> Result<(), MetadataError> {
        self.decide(move |view, context| delete::decide(view, context, &command)).await?;
        failpoint!("delete.durable");
        Ok(())
    }

    /// See [`undelete::decide`].
    ///
    /// # Errors
    /// [`MetadataError`].
    pub async fn undelete_blob(&self, command: UndeleteBlob) -> Result<Blob, MetadataError> {
        let blob = self.decide(move |view, context| undelete::decide(view, context, &command)).await?;
        failpoint!("undelete.durable");
        Ok(blob)
    }

    /// See [`blobs::list_deleted`]; returns the blobs and the next page's token.
    ///
    /// # Errors
    /// [`MetadataError`].
    pub async fn list_deleted_blobs(
        &self,
        tenant: &TenantId,
        size: usize,
        token: &str,
    ) -> Result<(Vec<DeletedBlob>, String), MetadataError> {
        let listing = Listing { tenant: tenant.as_str(), method: "ListBlobs of deleted ones", filter: "" };
        let after = listing.verify(&self.cluster().secret, token)?;
        let listed = blobs::list_deleted(self.engine(), self.tuning(), tenant, after.as_deref(), size).await;
        let Page { entries, next } = self.watch(listed)?;
        Ok((entries, listing.sign(&self.cluster().secret, next.as_deref())))
    }

    // Garbage.

    /// See [`collect::step`].
    ///
    /// # Errors
    /// [`MetadataError`].
    pub async fn collect_blocks(&self, blocks: Blocks) -> Result<Step, MetadataError> {
        let step = self.decide(move |view, context| collect::step(view, context, &blocks)).await?;
        failpoint!("collect.step_durable");
        Ok(step)
    }

    /// See [`hasten::walk`].
    ///
    /// # Errors
    /// [`MetadataError`].
    pub async fn hasten_garbage(&self, tenant: TenantId, walk: Walk) -> Result<Walk, MetadataError> {
        self.decide(move |view, context| hasten::walk(view, context, &tenant, &walk)).await
    }

    /// See [`chunks::unreferenced`]; in one commit.
    ///
    /// # Errors
    /// [`MetadataError`].
    pub async fn unreferenced_garbage(&self, rows: Vec<ChunkRow>) -> Result<Unreferenced, MetadataError> {
        self.decide(move |view, context| chunks::unreferenced(view, context, &rows)).await
    }

    /// See [`chunks::gone`]; in as many commits as it takes.
    ///
    /// # Errors
    /// [`MetadataError`].
    pub async fn drop_garbage(&self, rows: Vec<ChunkRow>) -> Result<(), MetadataError> {
        for some in rows.chunks(CHUNKS_PER_LOOK) {
            let decision = chunks::gone(some);
            self.decide(move |_view, _context| Ok((decision, ()))).await?;
            failpoint!("collect.rows_dropped");
        }
        Ok(())
    }
}

//! One tenant: what it knows, what it calls, and every answer that it got.

use std::collections::BTreeMap;
use std::fmt::Debug;

use bytes::Bytes;
use proto::checksum::Sha256;
use proto::ids::TenantId;
use proto::pb;
use proto::rates::Rates;

use super::calls::{Answer, Plain, client, receipt, seen, with_token};
use super::site::{Actor, Site};
use super::steps::{Call, Foreign, NAMES, Which};
use crate::coordinator::request::RequestId;
use crate::coordinator::tenants::{RegisterTenant, UpdateTenant};
use crate::store::keys::RequestScope;
use crate::store::records::{Quota, TrafficClass};

/// An upload as its writer knows it.
#[derive(Debug, Clone)]
struct Upload {
    blob: String,
    blocks: BTreeMap<u64, pb::BlockPlan>,
}

/// Where a listing goes on, and which one.
#[derive(Debug, Clone)]
struct Next {
    token: String,
    prefix: String,
    deleted: bool,
}

/// What one tenant may try of another's.
#[derive(Debug, Clone, Default)]
struct Known {
    ids: Vec<String>,
    receipts: Vec<Bytes>,
    key_ids: Vec<String>,
    pages: Vec<Next>,
}

/// What bella tried of another's, by slot: drawn from what there is in the first run, and the same in the others.
#[derive(Debug, Default)]
pub(super) struct Guesses {
    made: BTreeMap<usize, Known>,
    again: bool,
    kept: bool,
}

impl Guesses {
    pub(super) fn recording() -> Self {
        Self { kept: true, ..Self::default() }
    }

    /// Of somebody who is compared with nobody.
    pub(super) fn none() -> Self {
        Self::default()
    }

    pub(super) fn repeat(&mut self) {
        self.again = true;
    }

    fn at(&mut self, slot: usize, known: impl FnOnce() -> Known) -> Known {
        if self.again {
            return self.made.get(&slot).cloned().unwrap_or_default();
        }
        let known = known();
        if self.kept {
            self.made.insert(slot, known.clone());
        }
        known
    }
}

/// See the module.
pub(super) struct Tenant {
    actor: Actor,
    id: TenantId,
    tokens: Vec<String>,
    token: String,
    uploads: Vec<Upload>,
    pages: Vec<Next>,
    pub(super) transcript: Vec<String>,
    pub(super) calls: BTreeMap<&'static str, [u64; 2]>,
    pub(super) foreign: u64,
}

fn operator() -> RequestId {
    RequestId { scope: RequestScope::Admin, id: String::new() }
}

fn pick<T: Clone>(all: &[T], which: Which) -> Option<T> {
    which.checked_rem(all.len()).and_then(|at| all.get(at)).cloned()
}

fn key_id(token: &str) -> String {
    token.split('.').nth(1).unwrap_or_default().to_owned()
}

/// A call with the tenant's token, whose answer is written down.
macro_rules! ask {
    ($tenant:ident, $site:ident, $name:expr, $method:ident, $request:expr) => {{
        let answer = client($site).$method(with_token($request, &$tenant.token)).await;
        $tenant.note($site, $name, &answer);
        answer
    }};
}

/// The same about what is another's, which is not there.
macro_rules! guess {
    ($tenant:ident, $site:ident, $method:ident, $request:expr) => {{
        let answer = ask!($tenant, $site, concat!("foreign ", stringify!($method)), $method, $request);
        assert!(answer.is_err(), "what is another's is there: {answer:?}");
        $tenant.foreign += 1;
    }};
}

impl Tenant {
    pub(super) async fn register(site: &Site, actor: Actor) -> Self {
        site.act_as(actor);
        let id: TenantId = if actor == Actor::Bella { "bella" } else { "anton" }.parse().unwrap();
        let quota = Quota { max_bytes: Some(300), ..Quota::default() };
        let command = RegisterTenant {
            tenant: id.clone(),
            request: operator(),
            quota,
            traffic_class: TrafficClass::Silver,
            rates: Rates::default(),
        };
        let (_tenant, token) = site.service.register_tenant(command).await.unwrap();
        let token = token.expose().to_string();
        Self {
            actor,
            id,
            tokens: vec![token.clone()],
            token,
            uploads: Vec::new(),
            pages: Vec::new(),
            transcript: Vec::new(),
            calls: BTreeMap::new(),
            foreign: 0,
        }
    }

    /// What another tenant could hope to use.
    fn known(&self, site: &Site) -> Known {
        let of = |upload: &Upload| upload.blocks.values().map(|block| receipt(site, &upload.blob, block)).collect();
        Known {
            ids: self.uploads.iter().map(|upload| upload.blob.clone()).collect(),
            receipts: self.uploads.last().map(of).unwrap_or_default(),
            key_ids: self.tokens.iter().map(|token| key_id(token)).collect(),
            pages: self.pages.clone(),
        }
    }

    fn note<T: Debug + Clone + Plain>(&mut self, site: &Site, call: &'static str, answer: &Answer<T>) {
        self.calls.entry(call).or_default()[usize::from(answer.is_err())] += 1;
        self.transcript.push(format!("{call}: {}", seen(site, answer)));
    }

    fn blob(&self, which: Which) -> Option<String> {
        pick(&self.uploads, which).map(|upload| upload.blob)
    }

    /// A call, next to the other tenant if there is one.
    pub(super) async fn act(
        &mut self,
        site: &Site,
        call: &Call,
        other: Option<&Self>,
        guesses: &mut Guesses,
        slot: usize,
    ) {
        site.act_as(self.actor);
        match call.clone() {
            Call::Start { declared, name, request } => self.start(site, declared, NAMES[name], request).await,
            Call::Allocate { which, count } => self.allocate(site, which, count).await,
            Call::Commit { which, without, off } => self.commit(site, which, without, off).await,
            Call::List { prefix, size, deleted, page } => {
                let page_token = page.and_then(|page| pick(&self.pages, page)).map(|next| next.token);
                let page_token = page_token.unwrap_or_default();
                self.list(site, page_token, (NAMES[prefix], deleted, size)).await;
            }
            Call::Abort(which) => self.abort(site, which).await,
            Call::GetUpload(which) => self.get_upload(site, which).await,
            Call::GetBlob(which) => self.get_blob(site, which).await,
            Call::Layout { which, offset } => self.layout(site, which, offset).await,
            Call::Delete { which, request } => self.delete(site, which, request).await,
            Call::Undelete { which, request } => self.undelete(site, which, request).await,
            Call::Stat => self.stat(site).await,
            Call::Rotate { request } => self.rotate(site, request).await,
            Call::CreateToken { scopes, hours, request } => self.create_token(site, scopes, hours, request).await,
            Call::Revoke(which) => self.revoke(site, which).await,
            Call::ListTokens => self.list_tokens(site).await,
            Call::Use(which) => self.token = pick(&self.tokens, which).unwrap_or_default(),
            Call::Quota { bytes, blobs } => self.quota(site, bytes, blobs).await,
            Call::Foreign(foreign, which) => {
                let known = guesses.at(slot, || other.map(|other| other.known(site)).unwrap_or_default());
                self.about_another(site, foreign, which, known).await;
            }
        }
    }

    async fn start(&mut self, site: &Site, size_bytes: Option<u64>, name: &str, request_id: String) {
        let display_name = name.to_owned();
        let request = pb::StartUploadRequest { display_name, size_bytes, request_id, ..Default::default() };
        let Ok(answer) = ask!(self, site, "start", start_upload, request) else { return };
        let pb::StartUploadResponse { upload, blocks, .. } = answer.into_inner();
        let blob = upload.expect("an upload was started").blob_id;
        let known = self.uploads.iter().position(|known| known.blob == blob);
        let at = known.unwrap_or_else(|| {
            self.uploads.push(Upload { blob, blocks: BTreeMap::new() });
            self.uploads.len() - 1
        });
        self.take(at, blocks);
    }

    fn take(&mut self, at: usize, blocks: Vec<pb::BlockPlan>) {
        self.uploads[at].blocks.extend(blocks.into_iter().map(|block| (block.block_index, block)));
    }

    async fn allocate(&mut self, site: &Site, which: Which, block_count: u32) {
        let Some(at) = which.checked_rem(self.uploads.len()) else { return };
        let Upload { blob: blob_id, blocks } = self.uploads[at].clone();
        let first_block_index = blocks.len() as u64;
        let receipts = blocks.values().take(8).map(|block| receipt(site, &blob_id, block)).collect();
        let request =
            pb::AllocateBlocksRequest { blob_id, first_block_index, block_count, receipts, ..Default::default() };
        if let Ok(answer) = ask!(self, site, "allocate", allocate_blocks, request) {
            self.take(at, answer.into_inner().blocks);
        }
    }

    async fn commit(&mut self, site: &Site, which: Which, without: usize, off: u64) {
        // Mostly one of the youngest, which is still open.
        let Some(back) = (which % 3).checked_rem(self.uploads.len()) else { return };
        let Upload { blob: blob_id, blocks } = self.uploads[self.uploads.len() - 1 - back].clone();
        let receipts = blocks.values().skip(without).map(|block| receipt(site, &blob_id, block)).collect();
        let size_bytes = blocks.values().skip(without).map(|block| block.max_bytes).sum::<u64>() + off;
        let sha256 = if blocks.is_empty() { Sha256::of(b"") } else { Sha256::of(b"block") }.to_string();
        let request = pb::CommitUploadRequest { blob_id, size_bytes, sha256, receipts, ..Default::default() };
        drop(ask!(self, site, "commit", commit_upload, request));
    }

    async fn abort(&mut self, site: &Site, which: Which) {
        let Some(blob_id) = self.blob(which) else { return };
        drop(ask!(self, site, "abort", abort_upload, pb::AbortUploadRequest { blob_id, ..Default::default() }));
    }

    async fn get_upload(&mut self, site: &Site, which: Which) {
        let Some(blob_id) = self.blob(which) else { return };
        drop(ask!(self, site, "get upload", get_upload, pb::GetUploadRequest { blob_id, ..Default::default() }));
    }

    async fn get_blob(&mut self, site: &Site, which: Which) {
        let Some(blob_id) = self.blob(which) else { return };
        drop(ask!(self, site, "get", get_blob, pb::GetBlobRequest { blob_id, ..Default::default() }));
    }

    async fn layout(&mut self, site: &Site, which: Which, read_offset: u64) {
        let Some(blob_id) = self.blob(which) else { return };
        let request = pb::GetBlobLayoutRequest { blob_id, read_offset, ..Default::default() };
        drop(ask!(self, site, "layout", get_blob_layout, request));
    }

    async fn delete(&mut self, site: &Site, which: Which, request_id: String) {
        let Some(blob_id) = self.blob(which) else { return };
        let request = pb::DeleteBlobRequest { blob_id, request_id, ..Default::default() };
        drop(ask!(self, site, "delete", delete_blob, request));
    }

    async fn undelete(&mut self, site: &Site, which: Which, request_id: String) {
        let Some(blob_id) = self.blob(which) else { return };
        let request = pb::UndeleteBlobRequest { blob_id, request_id, ..Default::default() };
        drop(ask!(self, site, "undelete", undelete_blob, request));
    }

    async fn list(&mut self, site: &Site, page_token: String, (prefix, deleted, page_size): (&str, bool, i32)) {
        let display_name_prefix = prefix.to_owned();
        let request =
            pb::ListBlobsRequest { page_size, page_token, display_name_prefix, deleted, ..Default::default() };
        let next = ask!(self, site, "list", list_blobs, request).map(|page| page.into_inner().next_page_token);
        let next = next.ok().filter(|token| !token.is_empty());
        self.pages.extend(next.map(|token| Next { token, prefix: prefix.to_owned(), deleted }));
    }

    async fn stat(&mut self, site: &Site) {
        drop(ask!(self, site, "stat", get_tenant, pb::GetTenantRequest::default()));
    }

    async fn list_tokens(&mut self, site: &Site) {
        drop(ask!(self, site, "list tokens", list_tenant_tokens, pb::ListTenantTokensRequest::default()));
    }

    async fn rotate(&mut self, site: &Site, request_id: String) {
        let request = pb::RotateTenantTokenRequest { request_id, ..Default::default() };
        let made = ask!(self, site, "rotate", rotate_tenant_token, request);
        self.keep(made.ok().map(|made| made.into_inner().token));
    }

    async fn create_token(&mut self, site: &Site, scopes: Vec<i32>, hours: Option<i64>, request_id: String) {
        let ttl = hours.map(|hours| prost_types::Duration { seconds: hours * 3600, nanos: 0 });
        let request = pb::CreateTenantTokenRequest { scopes, ttl, request_id, ..Default::default() };
        let made = ask!(self, site, "create token", create_tenant_token, request);
        self.keep(made.ok().map(|made| made.into_inner().token));
    }

    async fn revoke(&mut self, site: &Site, which: Which) {
        // Never the first one, so that most tenants go on.
        let Some(revoked) = pick(&self.tokens[1..], which) else { return };
        let request = pb::RevokeTenantTokenRequest { key_id: key_id(&revoked), ..Default::default() };
        drop(ask!(self, site, "revoke", revoke_tenant_token, request));
    }

    fn keep(&mut self, made: Option<String>) {
        self.tokens.extend(made.filter(|made| !self.tokens.contains(made)));
    }

    /// The operator's answer is not the tenant's; what it changes shows in the tenant's next ones.
    async fn quota(&self, site: &Site, bytes: u64, blobs: u64) {
        let quota = Some(Quota { max_bytes: Some(bytes), max_blobs: Some(blobs), ..Quota::default() });
        let command =
            UpdateTenant { tenant: self.id.clone(), request: operator(), quota, traffic_class: None, rates: None };
        site.service.update_tenant(command).await.unwrap();
    }

    async fn about_another(&mut self, site: &Site, foreign: Foreign, which: Which, known: Known) {
        let blob_id = pick(&known.ids, which).unwrap_or_default();
        match foreign {
            Foreign::Tenant => {
                let tenant_id = if self.actor == Actor::Bella { "anton" } else { "bella" }.to_owned();
                guess!(self, site, get_tenant, pb::GetTenantRequest { tenant_id });
            }
            Foreign::Revoke => {
                let Some(key_id) = pick(&known.key_ids, which) else { return };
                guess!(self, site, revoke_tenant_token, pb::RevokeTenantTokenRequest { key_id, ..Default::default() });
            }
            Foreign::Page => {
                let Some(Next { token: page_token, prefix: display_name_prefix, deleted }) = pick(&known.pages, which)
                else {
                    return;
                };
                let request = pb::ListBlobsRequest { page_token, display_name_prefix, deleted, ..Default::default() };
                guess!(self, site, list_blobs, request);
            }
            Foreign::GetBlob => guess!(self, site, get_blob, pb::GetBlobRequest { blob_id, ..Default::default() }),
            Foreign::Layout => {
                guess!(self, site, get_blob_layout, pb::GetBlobLayoutRequest { blob_id, ..Default::default() });
            }
            Foreign::Delete => guess!(self, site, delete_blob, pb::DeleteBlobRequest { blob_id, ..Default::default() }),
            Foreign::Undelete => {
                guess!(self, site, undelete_blob, pb::UndeleteBlobRequest { blob_id, ..Default::default() });
            }
            Foreign::Allocate => {
                let request = pb::AllocateBlocksRequest { blob_id, block_count: 1, ..Default::default() };
                guess!(self, site, allocate_blocks, request);
            }
            Foreign::Abort => {
                guess!(self, site, abort_upload, pb::AbortUploadRequest { blob_id, ..Default::default() })
            }
            Foreign::GetUpload => {
                guess!(self, site, get_upload, pb::GetUploadRequest { blob_id, ..Default::default() });
            }
            Foreign::Commit => self.commit_with_receipts_of_another(site, blob_id, which, known.receipts).await,
        }
    }

    /// Once the other's upload, once one's own.
    async fn commit_with_receipts_of_another(
        &mut self,
        site: &Site,
        foreign: String,
        which: Which,
        receipts: Vec<Bytes>,
    ) {
        for blob_id in std::iter::once(foreign).chain(self.blob(which)) {
            let (receipts, sha256) = (receipts.clone(), Sha256::of(b"block").to_string());
            // No upload of these histories is so large.
            let size_bytes = 1 << 20;
            let request = pb::CommitUploadRequest { blob_id, size_bytes, sha256, receipts, ..Default::default() };
            guess!(self, site, commit_upload, request);
        }
    }

    /// The last look, with a token that the operator makes.
    pub(super) async fn look_at_everything(&mut self, site: &Site) {
        site.act_as(self.actor);
        let made = site.service.rotate_token(operator(), self.id.clone(), None).await.unwrap();
        self.token = made.expose().to_string();
        for deleted in [false, true] {
            self.list(site, String::new(), ("", deleted, 1_000)).await;
        }
        for which in 0..self.uploads.len() {
            self.get_blob(site, which).await;
            self.get_upload(site, which).await;
            self.layout(site, which, 0).await;
        }
        self.stat(site).await;
        self.list_tokens(site).await;
    }
}

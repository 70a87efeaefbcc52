//! The methods of the metadata service: whom each is for, which objects it names, and what becomes of each kind of them.

use prost::Message;
use proto::checksum::Sha256;
use proto::pb;
use tonic::Code;

use super::Cell;
use super::site::{EMPTY_TENANT, ENDPOINT, Site, key_id};
use super::spec::{Expected, Target, refusal};
use super::targets::{
    Targets, bad, blobs, chunks, key_ids, malformed, new_tenants, nodes, page_tokens, tenants, uploads,
};
use super::tokens::{Access, SCOPES, Who, credentials};

/// What a request names. Which of these a method reads, its row says.
#[derive(Debug, Clone, Default)]
pub(super) struct Values {
    pub(super) tenant: String,
    pub(super) blob: String,
    pub(super) key_id: String,
    pub(super) node: String,
    pub(super) chunk: String,
    pub(super) endpoint: String,
    pub(super) name: String,
    pub(super) page_token: String,
    pub(super) prefix: String,
    pub(super) deleted: bool,
    pub(super) lost_time: i32,
}

/// A field that names an object.
#[derive(Debug, Clone, Copy)]
enum Field {
    /// None does.
    Nothing,
    /// A tenant, by `tenant_id`.
    Tenant,
    /// A tenant that shall be.
    NewTenant,
    /// A committed blob.
    Blob,
    /// A deleted one, or a committed one.
    DeletedBlob,
    /// An open upload; the method says what of ended ones.
    Upload {
        ended: bool,
        committed: bool,
    },
    KeyId,
    Node,
    /// The node that joins.
    JoiningNode,
    Chunk,
    /// A chunk in a list of reports.
    ReportedChunk,
    Name,
    PageToken,
    /// A page token of a listing with another filter.
    Filter,
    LostTime,
}

struct Row {
    path: &'static str,
    access: Access,
    fields: &'static [Field],
    request: fn(Values) -> Vec<u8>,
}

fn encoded(message: impl Message) -> Vec<u8> {
    message.encode_to_vec()
}

/// A change of one object is under one request id, so that it may be asked for again.
fn once(method: &str, id: &str) -> String {
    format!("{method} {}", id.get(..8).unwrap_or(id))
}

macro_rules! rows {
    ($($path:literal $access:expr, $fields:expr, |$values:ident| $request:expr;)*) => {
        &[$(Row {
            path: concat!("/minitectonic.v1.", $path),
            access: $access,
            fields: $fields,
            request: |$values: Values| encoded($request),
        }),*]
    };
}

const READ: Access = Access::Tenant(&["read"]);
const WRITE: Access = Access::Tenant(&["write"]);
const DELETE: Access = Access::Tenant(&["delete"]);
const LIST: Access = Access::Tenant(&["list"]);
const TOKENS: Access = Access::AdminOrTenant(&SCOPES);
const OPEN: Field = Field::Upload { ended: false, committed: false };

const ROWS: &[Row] = rows! {
    "MetadataService/RegisterTenant" Access::Admin, &[Field::NewTenant],
        |v| pb::RegisterTenantRequest { request_id: once("register", &v.tenant), tenant_id: v.tenant, ..Default::default() };
    "MetadataService/GetTenant" Access::AdminOrTenant(&[]), &[Field::Tenant], |v| pb::GetTenantRequest { tenant_id: v.tenant };
    "MetadataService/ListTenants" Access::Admin, &[Field::PageToken],
        |v| pb::ListTenantsRequest { page_token: v.page_token, ..Default::default() };
    "MetadataService/UpdateTenant" Access::Admin, &[Field::Tenant],
        |v| pb::UpdateTenantRequest { request_id: once("update", &v.tenant), tenant_id: v.tenant, ..Default::default() };
    "MetadataService/DeleteTenant" Access::Admin, &[Field::Tenant],
        |v| pb::DeleteTenantRequest { request_id: once("delete", &v.tenant), tenant_id: v.tenant };
    "MetadataService/RotateTenantToken" TOKENS, &[Field::Tenant],
        |v| pb::RotateTenantTokenRequest { tenant_id: v.tenant, request_id: once("rotate", "") };
    "MetadataService/CreateTenantToken" TOKENS, &[Field::Tenant],
        |v| pb::CreateTenantTokenRequest { tenant_id: v.tenant, request_id: once("create", ""), ..Default::default() };
    "MetadataService/ListTenantTokens" TOKENS, &[Field::Tenant], |v| pb::ListTenantTokensRequest { tenant_id: v.tenant };
    "MetadataService/RevokeTenantToken" TOKENS, &[Field::Tenant, Field::KeyId],
        |v| pb::RevokeTenantTokenRequest { tenant_id: v.tenant, request_id: once("revoke", &v.key_id), key_id: v.key_id };
    "MetadataService/StartUpload" WRITE, &[Field::Tenant],
        |v| pb::StartUploadRequest { tenant_id: v.tenant, size_bytes: Some(1), ..Default::default() };
    "MetadataService/AllocateBlocks" WRITE, &[Field::Tenant, OPEN],
        |v| pb::AllocateBlocksRequest { tenant_id: v.tenant, blob_id: v.blob, ..Default::default() };
    "MetadataService/CommitUpload" WRITE, &[Field::Tenant, OPEN],
        |v| pb::CommitUploadRequest { tenant_id: v.tenant, blob_id: v.blob, sha256: Sha256::of(b"").to_string(), ..Default::default() };
    "MetadataService/AbortUpload" WRITE, &[Field::Tenant, Field::Upload { ended: true, committed: false }],
        |v| pb::AbortUploadRequest { tenant_id: v.tenant, blob_id: v.blob };
    "MetadataService/GetUpload" WRITE, &[Field::Tenant, Field::Upload { ended: true, committed: true }],
        |v| pb::GetUploadRequest { tenant_id: v.tenant, blob_id: v.blob };
    "MetadataService/StartUploads" WRITE, &[Field::Tenant],
        |v| pb::StartUploadsRequest { uploads: vec![pb::StartUploadRequest { tenant_id: v.tenant, size_bytes: Some(1), ..Default::default() }] };
    "MetadataService/CommitUploads" WRITE, &[Field::Tenant, OPEN],
        |v| pb::CommitUploadsRequest { uploads: vec![pb::CommitUploadRequest { tenant_id: v.tenant, blob_id: v.blob, sha256: Sha256::of(b"").to_string(), ..Default::default() }] };
    "MetadataService/GetBlob" READ, &[Field::Tenant, Field::Blob], |v| pb::GetBlobRequest { tenant_id: v.tenant, blob_id: v.blob };
    "MetadataService/GetBlobLayout" READ, &[Field::Tenant, Field::Blob],
        |v| pb::GetBlobLayoutRequest { tenant_id: v.tenant, blob_id: v.blob, ..Default::default() };
    "MetadataService/GetBlobLayouts" READ, &[Field::Tenant, Field::Blob],
        |v| pb::GetBlobLayoutsRequest { blobs: vec![pb::GetBlobLayoutRequest { tenant_id: v.tenant, blob_id: v.blob, ..Default::default() }] };
    "MetadataService/ListBlobs" LIST, &[Field::Tenant, Field::PageToken, Field::Filter],
        |v| pb::ListBlobsRequest { tenant_id: v.tenant, page_token: v.page_token, display_name_prefix: v.prefix, deleted: v.deleted, ..Default::default() };
    "MetadataService/DeleteBlob" DELETE, &[Field::Tenant, Field::Blob],
        |v| pb::DeleteBlobRequest { tenant_id: v.tenant, request_id: once("delete blob", &v.blob), blob_id: v.blob };
    "MetadataService/UndeleteBlob" DELETE, &[Field::Tenant, Field::DeletedBlob],
        |v| pb::UndeleteBlobRequest { tenant_id: v.tenant, blob_id: v.blob, ..Default::default() };
    "ClusterService/RegisterNode" Access::Join, &[Field::JoiningNode],
        |v| pb::RegisterNodeRequest { node_id: v.node, endpoint: ENDPOINT.to_owned(), ..Default::default() };
    "ClusterService/Heartbeat" Access::Node, &[Field::Node],
        |v| pb::HeartbeatRequest { node_id: v.node, endpoint: v.endpoint, ..Default::default() };
    "ClusterService/ListNodes" Access::Admin, &[Field::PageToken],
        |v| pb::ListNodesRequest { page_token: v.page_token, ..Default::default() };
    "ClusterService/DescribeChunk" Access::Node, &[Field::Chunk], |v| pb::DescribeChunkRequest { chunk_id: v.chunk };
    "ClusterService/ListNodeChunks" Access::Node, &[Field::Node],
        |v| pb::ListNodeChunksRequest { node_id: v.node, ..Default::default() };
    "ClusterService/ReportChunks" Access::Node, &[Field::Node, Field::ReportedChunk],
        |v| pb::ReportChunksRequest { node_id: v.node, reports: vec![sound(v.chunk)] };
    "ClusterService/GetClusterStatus" Access::Admin, &[Field::Nothing], |_v| pb::GetClusterStatusRequest {};
    "ClusterService/ListDamagedChunks" Access::Admin, &[Field::PageToken],
        |v| pb::ListDamagedChunksRequest { page_token: v.page_token, ..Default::default() };
    "ClusterService/ListWorkers" Access::Admin, &[Field::Nothing], |_v| pb::ListWorkersRequest {};
    "ClusterService/UpdateWorker" Access::Admin, &[Field::Name],
        |v| pb::UpdateWorkerRequest { name: v.name, ..Default::default() };
    "ClusterService/RunWorker" Access::Admin, &[Field::Name], |v| pb::RunWorkerRequest { name: v.name, ..Default::default() };
    "ClusterService/CheckCluster" Access::Admin, &[Field::Nothing],
        |_v| pb::CheckClusterRequest { skip_bytes: true, ..Default::default() };
    "ClusterService/ExportMetadata" Access::Admin, &[Field::Nothing], |_v| pb::ExportMetadataRequest::default();
    "ClusterService/EndRestore" Access::Admin, &[Field::LostTime], |v| pb::EndRestoreRequest { lost_time: v.lost_time };
    "ClusterService/RotateAdminToken" Access::Admin, &[Field::Nothing],
        |_v| pb::RotateAdminTokenRequest { request_id: once("rotate admin", ""), ..Default::default() };
    "ClusterService/CreateJoinToken" Access::Admin, &[Field::Nothing],
        |_v| pb::CreateJoinTokenRequest { request_id: once("join", ""), ..Default::default() };
    "ClusterService/RotateNodeKeys" Access::Admin, &[Field::Nothing], |_v| pb::RotateNodeKeysRequest::default();
};

fn sound(chunk_id: String) -> pb::ChunkReport {
    let mut report = pb::ChunkReport { chunk_id, ..Default::default() };
    report.set_condition(pb::ChunkCondition::Sound);
    report
}

/// What a request names when nothing is wrong with it.
fn own(site: &Site, path: &str, who: &Who) -> Values {
    let house = &site.owner;
    let blob = match path.rsplit('/').next().unwrap() {
        "GetBlob" | "GetBlobLayout" | "GetBlobLayouts" => house.blob.blob_id.clone(),
        "DeleteBlob" => house.doomed.to_string(),
        "UndeleteBlob" => house.deleted.to_string(),
        "CommitUpload" | "CommitUploads" => house.empty_upload.clone(),
        "AbortUpload" => house.doomed_upload.clone(),
        _upload => house.upload.upload.as_ref().unwrap().blob_id.clone(),
    };
    let tenant = if path.ends_with("DeleteTenant") { EMPTY_TENANT } else { house.id.as_str() };
    let node = if path.ends_with("RegisterNode") { site.other_node } else { site.node };
    let spare = &site.keys.spare[usize::from(*who == Who::Admin)];
    Values {
        tenant: if *who == Who::Admin { tenant.to_owned() } else { String::new() },
        blob,
        key_id: key_id(spare),
        node: node.to_string(),
        chunk: house.location.chunk_id.clone(),
        endpoint: site.chunk_endpoint(),
        name: "scrub".to_owned(),
        lost_time: pb::LostTime::Keep.into(),
        ..Values::default()
    }
}

fn targets(site: &Site, row: &Row, field: Field, who: &Who, own: &Values) -> Targets {
    let names = ["", "SCRUB", "../scrub", "nobody"].map(str::to_owned);
    match field {
        Field::Nothing => vec![(Target::Own, String::new(), Expected::Answered)],
        Field::Tenant => tenants(site, who, own),
        Field::NewTenant => new_tenants(site),
        Field::Blob => blobs(site, who, own, false),
        Field::DeletedBlob => blobs(site, who, own, true),
        Field::Upload { ended, committed } => uploads(site, who, own, ended, committed),
        Field::KeyId => key_ids(site, who, own),
        Field::Node => nodes(site, who, false),
        Field::JoiningNode => nodes(site, who, true),
        Field::Chunk => chunks(site, who, "chunk_id"),
        Field::ReportedChunk if *who == Who::OtherNode => Vec::new(),
        Field::ReportedChunk => chunks(site, who, "reports.chunk_id"),
        Field::Name => {
            let mut targets = malformed("name", names, "must be one of uploads, garbage, orphans, scrub");
            targets.push((Target::Own, own.name.clone(), Expected::Answered));
            targets
        }
        Field::PageToken => page_tokens(site, row.path, who),
        Field::Filter => ["a prefix", "deleted"]
            .map(|filter| (Target::Malformed(filter.to_owned()), filter.to_owned(), not_this_listing()))
            .to_vec(),
        Field::LostTime => {
            let nothing = "nothing waits for this decision: the metadata were not imported, or what was written after the \
                           export was given up";
            let nothing = Expected::Refused(refusal(Code::FailedPrecondition, "NOT_RESTORED", nothing));
            let undecided = bad("lost_time", "must be KEEP or DISCARD");
            vec![
                (Target::Own, "1".to_owned(), nothing),
                (Target::Malformed("0".to_owned()), "0".to_owned(), undecided.clone()),
                (Target::Malformed("7".to_owned()), "7".to_owned(), undecided),
            ]
        }
    }
}

fn not_this_listing() -> Expected {
    bad("page_token", "is not the next_page_token of this listing")
}

/// The request with this value in its field, and the field's name.
fn with(site: &Site, own: &Values, field: Field, value: String) -> (&'static str, Values) {
    let mut values = own.clone();
    let name = match field {
        Field::Nothing => "nothing",
        Field::Tenant | Field::NewTenant => {
            values.tenant = value;
            "tenant_id"
        }
        Field::Blob | Field::DeletedBlob | Field::Upload { .. } => {
            values.blob = value;
            "blob_id"
        }
        Field::KeyId => {
            values.key_id = value;
            "key_id"
        }
        Field::Node | Field::JoiningNode => {
            values.node = value;
            "node_id"
        }
        Field::Chunk | Field::ReportedChunk => {
            values.chunk = value;
            "chunk_id"
        }
        Field::Name => {
            values.name = value;
            "name"
        }
        Field::PageToken => {
            values.page_token = value;
            "page_token"
        }
        Field::Filter => {
            values.page_token = site.owner.page_token.clone();
            values.deleted = value == "deleted";
            values.prefix = if values.deleted { String::new() } else { "of".to_owned() };
            "filter"
        }
        Field::LostTime => {
            values.lost_time = value.parse().unwrap();
            "lost_time"
        }
    };
    (name, values)
}

/// The cells of the metadata service: all of them, or of those in which the credential decides one for each kind of target.
pub(super) fn cells(site: &Site, full: bool) -> Vec<Cell> {
    let credentials = credentials(site);
    let mut cells = Vec::new();
    for row in ROWS {
        for credential in &credentials {
            // Whoever is refused for the credential is refused alike for every object of the tenant that is an owner.
            let nobody = Who::Owner(SCOPES.to_vec());
            let (who, refused) = match &credential.worth {
                Ok(who) => (who, row.access.refusal(who)),
                Err(refused) => (&nobody, Some(refused.clone())),
            };
            let own = own(site, row.path, who);
            for field in row.fields {
                let mut targets = targets(site, row, *field, who, &own);
                if refused.is_some() && !full {
                    targets.dedup_by_key(|(target, ..)| std::mem::discriminant(target));
                }
                for (target, value, expected) in targets {
                    let (field, values) = with(site, &own, *field, value);
                    cells.push(Cell {
                        path: row.path,
                        credential: credential.name.clone(),
                        target,
                        field,
                        authorization: credential.authorization.clone(),
                        message: (row.request)(values),
                        expected: refused.clone().unwrap_or(expected),
                    });
                }
            }
        }
    }
    cells
}

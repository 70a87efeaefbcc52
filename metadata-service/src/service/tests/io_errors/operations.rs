//! Every operation of the service that reads or writes rows.

use futures_util::future::BoxFuture;
use proto::entropy::SeededEntropy;
use proto::ids::{ChunkId, NodeId};
use proto::limits::JOIN_TOKEN_LIFE;

use super::stage::{Stage, commit, registration, request, upload};
use crate::coordinator::allocate::AllocateBlocks;
use crate::coordinator::collect::hasten::Walk;
use crate::coordinator::delete::DeleteBlob;
use crate::coordinator::layout::ReadRange;
use crate::coordinator::operator_tokens::CreateJoinToken;
use crate::coordinator::tenants::UpdateTenant;
use crate::coordinator::tokens::{CreateTenantToken, RevokeTenantToken};
use crate::coordinator::undelete::UndeleteBlob;
use crate::error::MetadataError;
use crate::nodes::Report;
use crate::nodes::damage::ChunkReport;
use crate::nodes::usecases::RegisterNode;
use crate::service::LostTime;
use crate::store::keys::{self, RequestScope};
use crate::store::records::{Damage, Quota, Scopes};
use crate::workers::board::{Change, WorkerName};

/// What an operation does to the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    Reads,
    /// Decides, and finds nothing to write.
    Decides,
    /// Writes, and is refused on a nearly full disk.
    Adds,
    /// The same, and may be answered before the sync: what it writes is worth nothing without a later commit.
    Plans,
    /// Writes, and is let through there.
    Frees,
}

/// See the module.
#[derive(Debug, Clone, Copy)]
pub(super) struct Operation {
    pub(super) name: &'static str,
    pub(super) effect: Effect,
    run: for<'a> fn(&'a Stage) -> BoxFuture<'a, Result<(), MetadataError>>,
}

impl Operation {
    pub(super) async fn run(&self, stage: &Stage) -> Result<(), MetadataError> {
        (self.run)(stage).await
    }
}

/// All of them.
pub(super) const OPERATIONS: [Operation; 40] = [
    Operation {
        name: "RegisterTenant",
        effect: Effect::Adds,
        run: |s| {
            Box::pin(async move { s.service.register_tenant(registration(&"new".parse().unwrap())).await.map(drop) })
        },
    },
    Operation {
        name: "CreateTenantToken",
        effect: Effect::Adds,
        run: |s| {
            Box::pin(async move {
                let (tenant, request, scopes) = (s.tenant.clone(), request("adding"), Scopes::READ);
                let command = CreateTenantToken { tenant, request, scopes, life_ms: None, maker_expire_ms: None };
                s.service.create_tenant_token(command).await.map(drop)
            })
        },
    },
    Operation {
        name: "CreateJoinToken",
        effect: Effect::Adds,
        run: |s| {
            Box::pin(async move {
                let command = CreateJoinToken { request: request("adding"), life: JOIN_TOKEN_LIFE };
                s.service.create_join_token(command).await.map(drop)
            })
        },
    },
    Operation {
        name: "RevokeTenantToken",
        effect: Effect::Frees,
        run: |s| {
            Box::pin(async move {
                let known = s.service.list_tenant_tokens(&s.tenant).await?;
                let (tenant, request, key_id) = (s.tenant.clone(), request("freeing"), known[0].key_id);
                s.service.revoke_tenant_token(RevokeTenantToken { tenant, request, key_id }).await
            })
        },
    },
    Operation {
        name: "ForgetTokens",
        effect: Effect::Decides,
        run: |s| {
            Box::pin(async move {
                let known = s.service.list_tenant_tokens(&s.tenant).await?;
                s.service.forget_tokens(&[known[0].key_id]).await.map(drop)
            })
        },
    },
    Operation {
        name: "ListTenantTokens",
        effect: Effect::Reads,
        run: |s| Box::pin(async move { s.service.list_tenant_tokens(&s.tenant).await.map(drop) }),
    },
    Operation {
        name: "StartUpload",
        effect: Effect::Plans,
        run: |s| Box::pin(async move { s.service.start_upload(upload(9, "new"), None).await.map(drop) }),
    },
    Operation {
        name: "AllocateBlocks",
        effect: Effect::Adds,
        run: |s| {
            Box::pin(async move {
                let (tenant, blob) = (s.tenant.clone(), s.open);
                let command = AllocateBlocks { tenant, blob, first_block: 0, block_count: 1, receipts: Vec::new() };
                s.service.allocate_blocks(command, &s.receipts, None).await.map(drop)
            })
        },
    },
    Operation {
        name: "RegisterNode",
        effect: Effect::Adds,
        run: |s| {
            Box::pin(async move {
                let (node, endpoint) = (NodeId::generate(5, &SeededEntropy::new(77)), "http://[::1]:5".to_owned());
                let command = RegisterNode { node, endpoint, failure_domain: String::new() };
                s.service.register_node(s.join, command).await.map(drop)
            })
        },
    },
    Operation {
        name: "MoveNode",
        effect: Effect::Frees,
        run: |s| {
            Box::pin(async move {
                s.service.heartbeat(s.node, "http://[::1]:7".to_owned(), Vec::new(), Report::default()).await.map(drop)
            })
        },
    },
    Operation {
        name: "UpdateTenant",
        effect: Effect::Frees,
        run: |s| {
            Box::pin(async move {
                let (tenant, request, quota) = (s.tenant.clone(), request("freeing"), Some(Quota::default()));
                s.service
                    .update_tenant(UpdateTenant { tenant, request, quota, traffic_class: None, rates: None })
                    .await
                    .map(drop)
            })
        },
    },
    Operation {
        name: "DeleteTenant",
        effect: Effect::Frees,
        run: |s| Box::pin(async move { s.service.delete_tenant(request("freeing"), s.without_blobs.clone()).await }),
    },
    Operation {
        name: "RotateToken",
        effect: Effect::Frees,
        run: |s| {
            Box::pin(async move { s.service.rotate_token(request("freeing"), s.tenant.clone(), None).await.map(drop) })
        },
    },
    Operation {
        name: "CommitUpload",
        effect: Effect::Frees,
        run: |s| Box::pin(async move { s.service.commit_upload(commit(s.open, 7), &s.receipts).await.map(drop) }),
    },
    Operation {
        name: "AbortUpload",
        effect: Effect::Frees,
        run: |s| Box::pin(async move { s.service.abort_upload(s.tenant.clone(), s.open).await }),
    },
    Operation {
        name: "ExpireUpload",
        effect: Effect::Frees,
        run: |s| Box::pin(async move { s.service.expire_upload(s.tenant.clone(), s.stale).await.map(drop) }),
    },
    Operation {
        name: "ForgetRequests",
        effect: Effect::Frees,
        run: |s| {
            Box::pin(async move {
                let key = keys::request(&RequestScope::Tenant(s.tenant.clone()), "old");
                s.service.forget_requests(vec![key]).await.map(drop)
            })
        },
    },
    Operation {
        name: "DeleteBlob",
        effect: Effect::Frees,
        run: |s| {
            Box::pin(async move {
                let (tenant, request, blob) = (s.tenant.clone(), request("freeing"), s.live);
                s.service.delete_blob(DeleteBlob { tenant, request, blob }).await
            })
        },
    },
    Operation {
        name: "UndeleteBlob",
        effect: Effect::Frees,
        run: |s| {
            Box::pin(async move {
                let (tenant, request, blob) = (s.tenant.clone(), request("freeing"), s.deleted);
                s.service.undelete_blob(UndeleteBlob { tenant, request, blob }).await.map(drop)
            })
        },
    },
    Operation {
        name: "CollectBlocks",
        effect: Effect::Frees,
        run: |s| Box::pin(async move { s.service.collect_blocks(s.blocks).await.map(drop) }),
    },
    Operation {
        name: "HastenGarbage",
        effect: Effect::Frees,
        run: |s| Box::pin(async move { s.service.hasten_garbage(s.tenant.clone(), Walk::default()).await.map(drop) }),
    },
    Operation {
        name: "DropGarbage",
        effect: Effect::Frees,
        run: |s| Box::pin(async move { s.service.drop_garbage(s.chunks.clone()).await }),
    },
    Operation {
        name: "CondemnOrphans",
        effect: Effect::Frees,
        run: |s| {
            Box::pin(async move {
                let orphan = ChunkId::generate(1, &SeededEntropy::new(78));
                s.service.condemn_orphans(s.node, vec![orphan]).await.map(drop)
            })
        },
    },
    Operation {
        name: "UpdateWorker",
        effect: Effect::Frees,
        run: |s| {
            Box::pin(async move {
                let change = Change { paused: Some(true), ..Change::default() };
                s.service.update_worker(WorkerName::Garbage, change).await.map(drop)
            })
        },
    },
    Operation {
        name: "EndRestore",
        effect: Effect::Frees,
        run: |s| Box::pin(async move { s.service.end_restore(LostTime::Discard).await }),
    },
    Operation {
        name: "LookAtChunks",
        effect: Effect::Decides,
        run: |s| Box::pin(async move { s.service.unreferenced_garbage(s.chunks.clone()).await.map(drop) }),
    },
    Operation {
        name: "RepeatStart",
        effect: Effect::Decides,
        run: |s| Box::pin(async move { s.service.start_upload(upload(7, "open"), None).await.map(drop) }),
    },
    Operation {
        name: "GetTenant",
        effect: Effect::Reads,
        run: |s| Box::pin(async move { s.service.get_tenant(&s.tenant).await.map(drop) }),
    },
    Operation {
        name: "ListTenants",
        effect: Effect::Reads,
        run: |s| Box::pin(async move { s.service.list_tenants(10, "").await.map(drop) }),
    },
    Operation {
        name: "GetUpload",
        effect: Effect::Reads,
        run: |s| Box::pin(async move { s.service.get_upload(&s.tenant, s.live).await.map(drop) }),
    },
    Operation {
        name: "GetBlob",
        effect: Effect::Reads,
        run: |s| Box::pin(async move { s.service.get_blob(&s.tenant, s.live).await.map(drop) }),
    },
    Operation {
        name: "GetLayout",
        effect: Effect::Reads,
        run: |s| {
            Box::pin(async move {
                let range = ReadRange { offset: 0, limit: 0 };
                s.service.get_layout(&s.tenant, s.live, range, None).await.map(drop)
            })
        },
    },
    Operation {
        name: "ListBlobs",
        effect: Effect::Reads,
        run: |s| Box::pin(async move { s.service.list_blobs(&s.tenant, "", 10, "").await.map(drop) }),
    },
    Operation {
        name: "ListBlobsByName",
        effect: Effect::Reads,
        run: |s| Box::pin(async move { s.service.list_blobs(&s.tenant, "n", 10, "").await.map(drop) }),
    },
    Operation {
        name: "ListDeletedBlobs",
        effect: Effect::Reads,
        run: |s| Box::pin(async move { s.service.list_deleted_blobs(&s.tenant, 10, "").await.map(drop) }),
    },
    Operation {
        name: "DescribeChunk",
        effect: Effect::Reads,
        run: |s| Box::pin(async move { s.service.describe_chunk(s.node, s.chunk).await.map(drop) }),
    },
    Operation {
        name: "ClusterStatus",
        effect: Effect::Reads,
        run: |s| Box::pin(async move { s.service.cluster_status().await.map(drop) }),
    },
    Operation {
        name: "ReportChunks",
        effect: Effect::Frees,
        run: |s| {
            Box::pin(async move {
                let (damage, detail) = (Some(Damage::Missing), "it has no bytes".to_owned());
                let report = ChunkReport { chunk: s.chunk, damage, detail, tenant: None };
                s.service.report_chunks(s.node, vec![report]).await
            })
        },
    },
    Operation {
        name: "ListDamagedChunks",
        effect: Effect::Reads,
        run: |s| Box::pin(async move { s.service.list_damaged_chunks(10, "").await.map(drop) }),
    },
    Operation {
        name: "ListNodeChunks",
        effect: Effect::Reads,
        run: |s| Box::pin(async move { s.service.list_node_chunks(s.node, None, 10).await.map(drop) }),
    },
];

//! `status`: the cluster at a glance: whether it takes writes, what needs attention, what is damaged, and how each chunk
//! service is.

mod classes;
mod damaged;

use clap::Args;
use indicatif::HumanBytes;
use proto::pb;

use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::output::{Align, Table, escape};
use crate::cli::units::{blobs_in_full, time_in_seconds};
use crate::cli::views::ClusterView;

/// Show the cluster: chunk services, free space, why writes are refused, what needs attention (admin)
#[derive(Debug, Args)]
pub(crate) struct Status {
    /// List the chunks that are missing or damaged instead: whose they are, where, and what was found
    #[arg(long)]
    damaged: bool,
    /// Show what the chunk services do for each class of traffic instead, and how long it waits for their disks
    #[arg(long, conflicts_with = "damaged")]
    classes: bool,
}

impl Status {
    /// Runs the command.
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        if self.damaged {
            return damaged::run(context).await;
        }
        let session = context.admin(None)?;
        let status = session.client.cluster_status().await.map_err(|error| session.failed("status", &error))?;
        if context.out.json() {
            return context.out.object(&ClusterView::from(&status));
        }
        if self.classes {
            return classes::print(context, &status.nodes);
        }
        print_cluster(context, &status)?;
        let rows: Vec<_> = status.nodes.iter().map(row).collect();
        Table::new(&context.out, HEADINGS).page(&rows)
    }
}

fn print_cluster(context: &Context, status: &pb::GetClusterStatusResponse) -> Result<(), Failure> {
    let usage = status.usage.unwrap_or_default();
    context.out.facts(&[
        ("cluster", escape(&status.cluster_id)),
        ("metadata", format!("{}, version {}", context.endpoint(), escape(&status.version))),
        ("since", time_in_seconds(status.start_time.as_ref())),
        ("metadata writes", writes(&status.read_only_reason)),
        ("tenants", status.tenant_count.to_string()),
        ("used", blobs_in_full(usage.used_blobs, usage.used_bytes)),
        (
            "reserved",
            format!("{} for uploads that are open", blobs_in_full(usage.reserved_blobs, usage.reserved_bytes)),
        ),
        (
            "retained",
            format!("{} deleted, not yet collected", blobs_in_full(usage.retained_blobs, usage.retained_bytes)),
        ),
        ("commits", format!("{} in epoch {}", status.sequence, status.epoch)),
        ("damaged chunks", damaged_chunks(status.damaged_chunk_count)),
        ("connections", connections(status.connections.as_ref())),
        ("chunk services", status.nodes.len().to_string()),
    ])?;
    let warnings: Vec<_> = status.warnings.iter().map(|words| ("needs attention", escape(words))).collect();
    context.out.facts(&warnings)
}

fn damaged_chunks(count: u64) -> String {
    match count {
        0 => "0".to_owned(),
        more => format!("{more}; 'status --damaged' lists them"),
    }
}

const HEADINGS: [(&str, Align); 8] = [
    ("NODE", Align::Left),
    ("ENDPOINT", Align::Left),
    ("STATE", Align::Left),
    ("FREE", Align::Right),
    ("OF", Align::Right),
    ("LAST HEARD OF", Align::Left),
    ("WRITES", Align::Left),
    ("CONNECTIONS", Align::Left),
];

fn row(node: &pb::Node) -> [String; 8] {
    let (state, writes) = match node.state() {
        pb::NodeState::Unspecified => ("unknown", writes(&node.read_only_reason)),
        pb::NodeState::Alive => ("alive", writes(&node.read_only_reason)),
        pb::NodeState::ReadOnly => ("read-only", writes(&node.read_only_reason)),
        pb::NodeState::Lost => ("lost", "refused: no heartbeat".to_owned()),
    };
    [
        escape(&node.node_id),
        escape(&node.endpoint),
        state.to_owned(),
        HumanBytes(node.free_bytes).to_string(),
        HumanBytes(node.capacity_bytes).to_string(),
        time_in_seconds(node.last_heartbeat_time.as_ref()),
        writes,
        connections(node.connections.as_ref()),
    ]
}

/// Those that are open, and whatever was turned away since the start.
fn connections(counts: Option<&pb::ConnectionCounts>) -> String {
    let Some(counts) = counts else { return "not known".to_owned() };
    let mut text = format!("{} open, {} accepted", counts.open_count, counts.accepted_count);
    for (count, why) in [
        (counts.refused_full_count, "refused, all places taken"),
        (counts.refused_address_count, "refused, too many of their address"),
        (counts.failed_handshake_count, "with a failed TLS handshake"),
        (counts.silent_count, "without a request in time"),
        (counts.accept_error_count, "not handed out by the system"),
    ] {
        if count > 0 {
            text.push_str(&format!(", {count} {why}"));
        }
    }
    text
}

fn writes(read_only_reason: &str) -> String {
    if read_only_reason.is_empty() { "taken".to_owned() } else { format!("refused: {}", escape(read_only_reason)) }
}

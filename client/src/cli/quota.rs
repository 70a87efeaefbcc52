//! A tenant's quota as options of the commands that set it.

use clap::Args;
use proto::pb;

use super::units::parse_size;

/// What a tenant may hold. What is not named stays as it is, which for a new tenant is the default.
#[derive(Debug, Args)]
pub(crate) struct QuotaArgs {
    /// Most bytes it may hold, for example 10GiB, or 'unlimited'. Less than it holds stops further writes.
    #[arg(long, value_name = "SIZE", value_parser = |text: &str| bound(text, parse_size))]
    max_bytes: Option<Bound>,
    /// Most blobs it may hold, or 'unlimited'.
    #[arg(long, value_name = "N", value_parser = |text: &str| bound(text, parse_count))]
    max_blobs: Option<Bound>,
    /// Most bytes of one blob, for example 1GiB, or 'unlimited'. Larger ones that it holds stay.
    #[arg(long, value_name = "SIZE", value_parser = |text: &str| bound(text, parse_size))]
    max_blob_bytes: Option<Bound>,
    /// Most uploads that it may have open at a time; 1024 unless said.
    #[arg(long, value_name = "N")]
    max_open_uploads: Option<u64>,
}

/// A bound, or none.
#[derive(Debug, Clone, Copy)]
struct Bound(Option<u64>);

fn bound(text: &str, parse: impl Fn(&str) -> Result<u64, String>) -> Result<Bound, String> {
    if text == "unlimited" { Ok(Bound(None)) } else { parse(text).map(|most| Bound(Some(most))) }
}

fn parse_count(text: &str) -> Result<u64, String> {
    text.parse().map_err(|error: std::num::ParseIntError| error.to_string())
}

impl QuotaArgs {
    /// Whether any of it is named.
    pub(crate) fn any(&self) -> bool {
        let Self { max_bytes, max_blobs, max_blob_bytes, max_open_uploads } = self;
        [max_bytes, max_blobs, max_blob_bytes].into_iter().any(Option::is_some) || max_open_uploads.is_some()
    }

    /// A quota with the bounds that are named in place of its own: services replace a quota as a whole.
    pub(crate) fn over(&self, current: pb::Quota) -> pb::Quota {
        let either = |named: Option<Bound>, before| named.map_or(before, |bound| bound.0);
        pb::Quota {
            max_bytes: either(self.max_bytes, current.max_bytes),
            max_blobs: either(self.max_blobs, current.max_blobs),
            max_blob_bytes: either(self.max_blob_bytes, current.max_blob_bytes),
            max_open_uploads: self.max_open_uploads.or(current.max_open_uploads),
        }
    }
}

//! A tenant's quota and rates as options of the commands that set them.

use clap::Args;
use proto::pb;

use super::units::parse_size;

/// What a tenant may hold, and how fast it may go. What is not named stays as it is, which for a new tenant is the default.
#[derive(Debug, Args)]
pub(crate) struct BoundArgs {
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
    /// Most requests a second to the metadata service, and to each chunk service, or 'unlimited'.
    #[arg(long, value_name = "N", value_parser = |text: &str| bound(text, parse_count))]
    requests_per_second: Option<Bound>,
    /// Most bytes a second that it reads from each chunk service, for example 50MiB, or 'unlimited'; at least 256KiB.
    #[arg(long, value_name = "SIZE", value_parser = |text: &str| bound(text, parse_size))]
    read_bytes_per_second: Option<Bound>,
    /// Most bytes a second that it writes to each chunk service, or 'unlimited'; at least 256KiB.
    #[arg(long, value_name = "SIZE", value_parser = |text: &str| bound(text, parse_size))]
    write_bytes_per_second: Option<Bound>,
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

fn either(named: Option<Bound>, before: Option<u64>) -> Option<u64> {
    named.map_or(before, |bound| bound.0)
}

impl BoundArgs {
    /// Whether a bound of the quota is named.
    pub(crate) fn of_quota(&self) -> bool {
        let named = [self.max_bytes, self.max_blobs, self.max_blob_bytes];
        named.iter().any(Option::is_some) || self.max_open_uploads.is_some()
    }

    /// Whether a rate is named.
    pub(crate) fn of_rates(&self) -> bool {
        let named = [self.requests_per_second, self.read_bytes_per_second, self.write_bytes_per_second];
        named.iter().any(Option::is_some)
    }

    /// A quota with the bounds that are named in place of its own: services replace a quota as a whole.
    pub(crate) fn quota(&self, current: pb::Quota) -> pb::Quota {
        pb::Quota {
            max_bytes: either(self.max_bytes, current.max_bytes),
            max_blobs: either(self.max_blobs, current.max_blobs),
            max_blob_bytes: either(self.max_blob_bytes, current.max_blob_bytes),
            max_open_uploads: self.max_open_uploads.or(current.max_open_uploads),
        }
    }

    /// The same for rates.
    pub(crate) fn rates(&self, current: pb::Rates) -> pb::Rates {
        pb::Rates {
            requests_per_second: either(self.requests_per_second, current.requests_per_second),
            read_bytes_per_second: either(self.read_bytes_per_second, current.read_bytes_per_second),
            write_bytes_per_second: either(self.write_bytes_per_second, current.write_bytes_per_second),
        }
    }
}

//! Which bound a round is about.

use mini_tectonic_client::pb;
use proto::limits::OPEN_UPLOADS_PER_TENANT;

/// Far less than the clients want.
const BYTES: u64 = 400_000;
const BLOBS: u64 = 24;
const OPEN_UPLOADS: u64 = 10;
const BLOB_BYTES: u64 = 40_000;

/// A bound, or all of them.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Edge {
    Bytes,
    Blobs,
    OpenUploads,
    All,
}

impl Edge {
    pub(crate) const ALL: [Self; 4] = [Self::Bytes, Self::Blobs, Self::OpenUploads, Self::All];

    pub(crate) fn quota(self) -> pb::Quota {
        let bytes = pb::Quota { max_bytes: Some(BYTES), ..Default::default() };
        match self {
            Self::Bytes => bytes,
            Self::Blobs => pb::Quota { max_blobs: Some(BLOBS), ..Default::default() },
            Self::OpenUploads => pb::Quota { max_open_uploads: Some(OPEN_UPLOADS), ..Default::default() },
            Self::All => pb::Quota {
                max_blobs: Some(BLOBS),
                max_open_uploads: Some(OPEN_UPLOADS),
                max_blob_bytes: Some(BLOB_BYTES),
                ..bytes
            },
        }
    }
}

/// What is held of each bounded thing: bytes, blobs, open uploads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held(pub(crate) [u64; 3]);

impl Held {
    pub(crate) fn of(usage: &pb::Usage) -> Self {
        let pb::Usage { used_bytes, used_blobs, reserved_bytes, reserved_blobs, .. } = *usage;
        Self([used_bytes + reserved_bytes, used_blobs + reserved_blobs, reserved_blobs])
    }

    /// The most that a quota allows.
    pub(crate) fn most(quota: &pb::Quota) -> Self {
        let open_uploads = quota.max_open_uploads.unwrap_or(OPEN_UPLOADS_PER_TENANT);
        Self([quota.max_bytes.unwrap_or(u64::MAX), quota.max_blobs.unwrap_or(u64::MAX), open_uploads])
    }

    /// For each, the larger.
    pub(crate) fn max(self, other: Self) -> Self {
        self.with(other, u64::max)
    }

    /// For each, by how much this is more.
    pub(crate) fn over(self, other: Self) -> Self {
        self.with(other, u64::saturating_sub)
    }

    fn with(self, other: Self, each: impl Fn(u64, u64) -> u64) -> Self {
        let ([a, b, c], [x, y, z]) = (self.0, other.0);
        Self([each(a, x), each(b, y), each(c, z)])
    }
}

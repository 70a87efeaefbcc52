//! What writers and the metadata know of a chunk.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use proto::capability::ReadClaims;

use super::steps::{CHUNKS, CONTENTS};
use crate::store::testing::world::{claims, pattern};

/// The bytes of a content for a chunk, and what a permission to read them says.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) bytes: Vec<u8>,
    pub(super) claims: ReadClaims,
}

pub(super) fn content_of(chunk: u64, content: usize) -> &'static Content {
    static ALL: LazyLock<Vec<Content>> = LazyLock::new(|| {
        let all = (0..CHUNKS).flat_map(|chunk| (0..CONTENTS.len()).map(move |content| (chunk, content)));
        all.map(|(chunk, content)| {
            let bytes = pattern(CONTENTS[content], chunk * 10 + content as u64);
            Content { claims: claims(&bytes), bytes }
        })
        .collect()
    });
    &ALL[usize::try_from(chunk).unwrap() * CONTENTS.len() + content]
}

#[derive(Debug, Default, Clone)]
pub(super) struct Known {
    /// The content that was answered as durable.
    pub(super) acked: Option<usize>,
    pub(super) sealed: bool,
    /// The content and length of a write that broke off.
    pub(super) part: Option<(usize, usize)>,
    /// Contents whose writes, or deletes, failed: they may turn out to be there.
    pub(super) perhaps: BTreeSet<usize>,
    /// Contents of writes and deletes that failed: a crash may bring them back although a look found nothing before.
    pub(super) undeleted: BTreeSet<usize>,
    /// Its files were changed behind the store's back.
    pub(super) blob_damaged: bool,
    pub(super) chk_damaged: bool,
    /// Both of them were.
    pub(super) lost: bool,
}

impl Known {
    pub(super) fn damaged(&self) -> bool {
        self.blob_damaged || self.chk_damaged
    }

    /// This content was answered as durable.
    pub(super) fn promise(&mut self, content: usize) {
        if !self.sealed {
            *self = Self { acked: Some(content), ..Self::default() };
        } else if self.acked != Some(content) {
            self.perhaps.insert(content);
        }
        self.chk_damaged = false;
    }

    /// A write of this content failed in a way that may have left it whole.
    pub(super) fn doubt(&mut self, content: usize) {
        self.part = None;
        if self.acked.is_none() {
            self.perhaps.insert(content);
        }
    }

    /// A left-over of an open block was cleared away: whoever has no receipt begins anew.
    pub(super) fn clear(&mut self) {
        assert!(!self.sealed);
        self.undeleted.extend(&self.perhaps);
        *self = Self { undeleted: std::mem::take(&mut self.undeleted), ..Self::default() };
    }

    /// A crash forgets writes in progress, and may tear a checksum file.
    pub(super) fn crash(&mut self) {
        self.part = None;
        self.perhaps.extend(&self.undeleted);
        self.chk_damaged |= self.acked.is_some();
    }
}

//! Remembered requests: a repeat under the same `request_id` has no second effect (I4).
//!
//! The row is written in the batch of the effect and keeps a fingerprint of the call and the id of its object, not the
//! answer: a repeat recomputes that, with fresh capabilities.

use proto::checksum::{Sha256, Sha256Hasher};
use proto::runtime::clock::millis;

use super::{Context, Outcome};
use crate::error::MetadataError;
use crate::store::engine::{Batch, Decision, View};
use crate::store::keys::{self, RequestScope};
use crate::store::records::RequestRecord;
use crate::store::rows::{BatchExt as _, read};

/// Whose request, under which id; an empty id is not remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId {
    /// Who asks.
    pub scope: RequestScope,
    /// The id that the caller chose; may be empty.
    pub id: String,
}

/// A method and its arguments, to be summed up. Every part is preceded by its length, so that no two lists of parts
/// look alike.
#[derive(Debug, Clone)]
pub struct Fingerprint(Sha256Hasher);

impl Fingerprint {
    /// Begins with the method.
    pub fn of(method: &'static str) -> Self {
        Self(Sha256Hasher::default()).with(method.as_bytes())
    }

    /// Adds an argument.
    #[must_use]
    pub fn with(mut self, argument: &[u8]) -> Self {
        self.0.update(&(argument.len() as u64).to_be_bytes());
        self.0.update(argument);
        self
    }

    /// Adds a number that may be absent.
    #[must_use]
    pub fn with_number(self, number: Option<u64>) -> Self {
        match number {
            Some(number) => self.with(&number.to_be_bytes()),
            None => self.with(&[]),
        }
    }

    fn finish(self) -> Sha256 {
        self.0.finish()
    }
}

/// A call that is made once.
#[derive(Debug)]
pub struct Once {
    key: Option<Vec<u8>>,
    fingerprint: Sha256,
}

impl Once {
    /// The call that this id stands for.
    pub fn new(request: &RequestId, fingerprint: Fingerprint) -> Self {
        let key = (!request.id.is_empty()).then(|| keys::request(&request.scope, &request.id));
        Self { key, fingerprint: fingerprint.finish() }
    }

    /// The object of the first call, if this is a repeat.
    ///
    /// # Errors
    /// [`MetadataError::RequestIdReused`] when the first call was another one.
    pub fn recall(&self, view: &dyn View, context: &Context<'_>) -> Result<Option<Vec<u8>>, MetadataError> {
        let Some(key) = &self.key else { return Ok(None) };
        match read::<RequestRecord>(view, key)? {
            Some(row) if row.expire_ms <= context.now_ms => Ok(None),
            Some(row) if row.fingerprint == self.fingerprint => Ok(Some(row.object)),
            Some(_other) => Err(MetadataError::RequestIdReused),
            None => Ok(None),
        }
    }

    /// Remembers the call in the batch of its effect.
    pub fn remember(self, batch: &mut Batch, context: &Context<'_>, object: &[u8]) {
        let expire_ms = context.now_ms.saturating_add(millis(context.tuning.request_id_remembered));
        if let Some(key) = self.key {
            batch.set(key, &RequestRecord { fingerprint: self.fingerprint, object: object.to_vec(), expire_ms });
        }
    }
}

/// Forgets those of these requests whose time is over by now; returns how many. At most
/// [`BATCH_WRITES_MAX`](proto::limits::BATCH_WRITES_MAX) keys.
///
/// # Errors
/// [`MetadataError`] when a row cannot be read.
pub fn forget(view: &dyn View, context: &Context<'_>, keys: &[Vec<u8>]) -> Outcome<u64> {
    let mut batch = Batch::default();
    for key in keys {
        if read::<RequestRecord>(view, key)?.is_some_and(|row| row.expire_ms <= context.now_ms) {
            batch.delete(key.clone());
        }
    }
    let forgotten = batch.len() as u64;
    Ok((Decision::frees(batch), forgotten))
}

/// The id that a request row keeps.
pub(super) fn object_id<'a, T: TryFrom<&'a [u8]>>(object: &'a [u8]) -> Result<T, MetadataError> {
    T::try_from(object).map_err(|_not_an_id| MetadataError::missing("request's object"))
}

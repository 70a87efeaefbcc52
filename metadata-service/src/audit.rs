//! The audit log: who did what to whom, one JSON object per line in `metadata/audit.log` (0600). No secret is ever in it:
//! tokens are named by their key ids.
//!
//! | what | its line |
//! |---|---|
//! | a call that changes something for the operator or a token, or hands out all metadata | is durable before the call is decided; without it there is no call |
//! | a call of the operator that only looks; a node that joins; a delete or restore of a blob | is written; when that fails, the call goes on |
//! | a call that was refused for its credential | as above, at most [`REFUSALS_AT_ONCE`] and [`REFUSALS_PER_SECOND`]; the next line says how many were left out |
//!
//! So a line says who was let in to do something, and a full disk stops admin calls, but neither data calls nor `status`,
//! which says why. What came of a call its answer says: a line with no effect is possible, an effect with no line is not.
//!
//! Order of an admin call: line appended, file synced, call decided. A crash leaves at most one torn line at the end, of a
//! call that was not decided; it is cut off before the next line. A failed write is cut off at once and may be tried again;
//! after a failed sync nobody knows what the file holds, so nothing that needs a line is done until a restart (as I15).

mod file;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use proto::runtime::Clock;
use proto::status::chain;
use proto::token::TokenKeyId;
use serde::Serialize;

pub use self::file::AuditError;
use self::file::AuditFile;

/// Most lines a second about refused credentials, on average: whoever has none cannot push the lines of those who have one
/// out of the files that are kept within days.
pub const REFUSALS_PER_SECOND: u64 = 1;
/// Most lines about refused credentials at once.
pub const REFUSALS_AT_ONCE: u64 = 20;
/// Characters of a text of the caller's that are kept.
const TEXT_CHARS_MAX: usize = 64;

/// What became of a call at the door.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// It was let in.
    Allowed,
    /// It was refused.
    Refused,
}

/// Something to put on record. Texts of the caller's are as it sent them, but for their length.
#[derive(Debug, Clone, Serialize)]
pub struct Event {
    /// `admin`, `tenant`, `join`, `node`, `anyone`; empty when that is not known.
    pub actor: &'static str,
    /// The credential; of a refused one what it claims to be.
    #[serde(serialize_with = "as_text")]
    pub key_id: Option<TokenKeyId>,
    /// Whose tenant it is about.
    pub tenant: String,
    /// The method's path.
    pub method: &'static str,
    /// What it is about: an id.
    pub object: String,
    /// What became of it.
    pub decision: Decision,
    /// Why it was refused.
    pub reason: &'static str,
    /// Where it came from.
    pub peer: Option<SocketAddr>,
    /// As the caller chose it, or as the refusal names it.
    pub request_id: String,
}

fn as_text<S: serde::Serializer>(key_id: &Option<TokenKeyId>, to: S) -> Result<S::Ok, S::Error> {
    match key_id {
        Some(key_id) => to.collect_str(key_id),
        None => to.serialize_str(""),
    }
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    #[serde(flatten)]
    event: &'a Event,
    #[serde(skip_serializing_if = "is_zero")]
    refusals_left_out: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// The log; cheap to clone.
#[derive(Debug, Clone)]
pub struct Audit {
    shared: Option<Arc<Shared>>,
}

#[derive(Debug)]
struct Shared {
    clock: Arc<dyn Clock>,
    /// Held while a line is written and synced, so never taken but on a thread that may wait.
    file: Mutex<AuditFile>,
    refusals: Mutex<Refusals>,
    /// Why the last line could not be written or synced, if it could not.
    trouble: Mutex<Option<AuditError>>,
}

/// How many lines about refusals may be written now, in thousandths, and how many were not.
#[derive(Debug)]
struct Refusals {
    credit: u64,
    filled_ms: u64,
    left_out: u64,
}

impl Refusals {
    const FULL: u64 = REFUSALS_AT_ONCE * 1_000;

    /// Whether one more line may be written; counts it if not.
    fn admit(&mut self, now_ms: u64) -> bool {
        let gained = now_ms.saturating_sub(self.filled_ms).saturating_mul(REFUSALS_PER_SECOND);
        (self.credit, self.filled_ms) = (self.credit.saturating_add(gained).min(Self::FULL), now_ms);
        let left = self.credit.checked_sub(1_000);
        match left {
            Some(left) => self.credit = left,
            None => self.left_out = self.left_out.saturating_add(1),
        }
        left.is_some()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Audit {
    /// The log in this file, which is made with its first line.
    pub fn at(path: PathBuf, clock: Arc<dyn Clock>) -> Self {
        let refusals = Mutex::new(Refusals { credit: Refusals::FULL, filled_ms: clock.now_ms(), left_out: 0 });
        let file = Mutex::new(AuditFile::at(path));
        Self { shared: Some(Arc::new(Shared { clock, file, refusals, trouble: Mutex::default() })) }
    }

    /// No log: for a folder that is looked at without a service.
    pub fn none() -> Self {
        Self { shared: None }
    }

    /// Why the last event is not on record, if it is not.
    pub fn trouble(&self) -> Option<AuditError> {
        self.shared.as_ref().and_then(|shared| locked(&shared.trouble).clone())
    }

    /// Puts an event on record; durable on return.
    ///
    /// # Errors
    /// [`AuditError`]: what the event is about must not happen.
    pub async fn record(&self, event: Event) -> Result<(), AuditError> {
        self.append(event, true).await
    }

    /// Puts an event on record if that is possible.
    pub async fn note(&self, event: Event) {
        if let Err(error) = self.append(event, false).await {
            tracing::warn!(cause = %chain(&error), "a call is not in the audit log");
        }
    }

    /// Puts a refusal on record if that is possible and there are not too many.
    pub async fn refused(&self, event: impl FnOnce() -> Event) {
        let Some(shared) = &self.shared else { return };
        let admitted = locked(&shared.refusals).admit(shared.clock.now_ms());
        if admitted {
            self.note(event()).await;
        }
    }

    async fn append(&self, event: Event, durable: bool) -> Result<(), AuditError> {
        let Some(shared) = self.shared.clone() else { return Ok(()) };
        let appended = tokio::task::spawn_blocking(move || shared.append(event, durable)).await;
        appended.map_err(|_panicked| AuditError::Failed("a thread panicked".to_owned()))?
    }
}

impl Shared {
    fn append(&self, mut event: Event, durable: bool) -> Result<(), AuditError> {
        for text in [&mut event.tenant, &mut event.object, &mut event.request_id] {
            if let Some((end, _)) = text.char_indices().nth(TEXT_CHARS_MAX) {
                text.truncate(end);
            }
        }
        let mut file = locked(&self.file);
        let outcome = self.append_to(&mut file, &event, durable);
        *locked(&self.trouble) = outcome.clone().err();
        outcome
    }

    fn append_to(&self, file: &mut AuditFile, event: &Event, durable: bool) -> Result<(), AuditError> {
        let refusals_left_out = locked(&self.refusals).left_out;
        let line = Line { time: rfc3339(self.clock.now_ms()), event, refusals_left_out };
        let mut text = serde_json::to_vec(&line).map_err(|error| AuditError::Failed(error.to_string()))?;
        text.push(b'\n');
        file.append(&text)?;
        let mut refusals = locked(&self.refusals);
        refusals.left_out = refusals.left_out.saturating_sub(refusals_left_out);
        drop(refusals);
        if durable { file.sync() } else { Ok(()) }
    }
}

fn rfc3339(ms: u64) -> String {
    let seconds = i64::try_from(ms / 1_000).unwrap_or(i64::MAX);
    let nanos = i32::try_from(ms % 1_000 * 1_000_000).expect("less than a second of nanoseconds fits");
    prost_types::Timestamp { seconds, nanos }.to_string()
}

#[cfg(test)]
mod tests;

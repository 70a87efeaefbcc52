//! The file of the audit log: whole lines, appended, synced on demand, moved aside at a size.
//!
//! `audit.log` is the current one, `audit.log.1` the one before, up to [`KEPT`]; older ones are deleted. A file is synced
//! before it is moved aside, so that no durable line comes before one that is not.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use proto::runtime::folder;

/// From this size on a file is moved aside.
pub(super) const FILE_BYTES_MAX: u64 = 16 << 20;
/// Files that are kept besides the current one.
pub(super) const KEPT: usize = 8;
/// No line is longer.
const LINE_BYTES_MAX: u64 = 4096;

/// Why something cannot be put on record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuditError {
    /// There is no room. It may be tried again.
    #[error("there is no room for the audit log")]
    Full,
    /// It cannot be written. It may be tried again.
    #[error("the audit log cannot be written: {0}")]
    Failed(String),
    /// A sync failed before. Only a restart ends that.
    #[error("a sync of the audit log failed")]
    Latched,
}

impl From<io::Error> for AuditError {
    fn from(error: io::Error) -> Self {
        let full = matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded);
        if full { Self::Full } else { Self::Failed(error.to_string()) }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct AuditFile {
    path: PathBuf,
    open: Option<Open>,
    latched: bool,
}

#[derive(Debug)]
struct Open {
    file: File,
    size: u64,
}

impl AuditFile {
    pub(super) fn at(path: PathBuf) -> Self {
        Self { path, open: None, latched: false }
    }

    /// Appends a line with its line end. One that fails leaves nothing behind, or what the next opening cuts off.
    pub(super) fn append(&mut self, line: &[u8]) -> Result<(), AuditError> {
        if self.latched {
            return Err(AuditError::Latched);
        }
        let mut open = match self.open.take() {
            Some(open) if open.size < FILE_BYTES_MAX => open,
            Some(open) => self.rotate(&open)?,
            None => self.open_current()?,
        };
        if let Err(error) = open.file.write_all(line) {
            // If that fails as well, the next one to open the file cuts the torn line off.
            open.file.set_len(open.size).ok();
            return Err(error.into());
        }
        open.size += line.len() as u64;
        self.open = Some(open);
        Ok(())
    }

    /// Makes what was appended durable.
    pub(super) fn sync(&mut self) -> Result<(), AuditError> {
        let Some(open) = self.open.take() else { return Ok(()) };
        self.sync_file(&open.file)?;
        self.open = Some(open);
        Ok(())
    }

    fn sync_file(&mut self, file: &File) -> Result<(), AuditError> {
        file.sync_data().map_err(|error| {
            self.latched = true;
            tracing::error!(%error, "a sync of the audit log failed: no call that needs it is taken until a restart");
            AuditError::Latched
        })
    }

    fn open_current(&mut self) -> Result<Open, AuditError> {
        let mut options = OpenOptions::new();
        let mut file = options.read(true).append(true).create(true).mode(0o600).open(&self.path)?;
        let size = whole_lines(&mut file)?;
        if size < file.metadata()?.len() {
            file.set_len(size)?;
        }
        self.sync_names()?;
        Ok(if size < FILE_BYTES_MAX { Open { file, size } } else { self.rotate(&Open { file, size })? })
    }

    fn rotate(&mut self, full: &Open) -> Result<Open, AuditError> {
        self.sync_file(&full.file)?;
        for age in (1..KEPT).rev() {
            move_aside(&self.aged(age), &self.aged(age + 1))?;
        }
        move_aside(&self.path, &self.aged(1))?;
        let mut options = OpenOptions::new();
        let file = options.append(true).create(true).mode(0o600).open(&self.path)?;
        self.sync_names()?;
        Ok(Open { file, size: 0 })
    }

    fn aged(&self, age: usize) -> PathBuf {
        self.path.with_added_extension(age.to_string())
    }

    fn sync_names(&self) -> Result<(), AuditError> {
        let Some(folder) = self.path.parent() else { return Ok(()) };
        folder::sync_folder(folder).map_err(|error| AuditError::Failed(proto::status::chain(&error)))
    }
}

#[expect(clippy::disallowed_methods, reason = "a whole, synced file gets another name; its folder is synced after it")]
fn move_aside(from: &PathBuf, to: &PathBuf) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        moved => moved,
    }
}

/// How many bytes of the file are whole lines. What is behind is the line of a call that was never decided.
fn whole_lines(file: &mut File) -> io::Result<u64> {
    let size = file.metadata()?.len();
    let begin = size.saturating_sub(LINE_BYTES_MAX);
    let mut tail = Vec::new();
    file.seek(SeekFrom::Start(begin))?;
    file.take(size - begin).read_to_end(&mut tail)?;
    match tail.iter().rposition(|byte| *byte == b'\n') {
        Some(last) => Ok(begin + last as u64 + 1),
        None => Ok(if begin == 0 { 0 } else { size }),
    }
}

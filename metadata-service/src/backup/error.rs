//! Why an export cannot be used, and why an import failed.

use std::path::PathBuf;

use proto::runtime::folder::FolderError;

use crate::error::StartError;
use crate::store::engine::EngineError;

/// Bytes that are not a whole, undamaged export of a version that is known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MalformedExport {
    /// The first line is another.
    #[error("it is not a metadata export: its first line is not that of one")]
    NotAnExport,
    /// Made by a later version of this program.
    #[error("it has export version {found}, but this program knows versions up to {known}; use a newer program")]
    TooNew {
        /// Its version.
        found: u32,
        /// The latest one known here.
        known: u32,
    },
    /// Some bytes are not what was written.
    #[error("it is damaged at byte {offset}: {problem}; use another copy of it")]
    Damaged {
        /// Where the frame begins that is damaged.
        offset: u64,
        /// What is wrong.
        problem: &'static str,
    },
    /// The end is missing.
    #[error("it is cut off after {length} bytes: its end is missing; use another copy of it")]
    Truncated {
        /// Its length.
        length: u64,
    },
    /// Something follows the end.
    #[error("something follows its end at byte {offset}; use another copy of it")]
    TrailingBytes {
        /// Where the end ends.
        offset: u64,
    },
}

/// Why an import failed.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is no export that could be imported. Nothing was written.
    #[error("{} cannot be imported", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: MalformedExport,
    },
    /// The file is sound, but what it holds does not fit together. Nothing was written.
    #[error("{} cannot be imported: {problem}", path.display())]
    Unfit {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// The folder holds something. Nothing was written.
    #[error(
        "{} is not empty (it holds {found}), and an import never writes over metadata; move the folder away, or give \
         another storage folder",
        folder.display()
    )]
    NotEmpty {
        /// The metadata folder.
        folder: PathBuf,
        /// One of the things in it.
        found: String,
    },
    /// The folder cannot be used.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The folder cannot be made into one that a service starts on.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A row could not be written. The folder is half-made; a service refuses it, and a repeated import begins anew.
    #[error("the import into {} is not complete; when the cause is gone, run it again: it begins anew", folder.display())]
    Write {
        /// The metadata folder.
        folder: PathBuf,
        /// Why.
        #[source]
        source: EngineError,
    },
}

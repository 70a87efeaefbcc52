//! The file `admin.token` follows the rotation of the token in it.
//!
//! Order: the rows of the new token and of the one that ends, in one commit, then the file. A crash in between leaves a file
//! with the token that is about to end; its row names its successor, whose secret is derived, so the next start goes on
//! where the crash was. A file that is not there, or holds anything but an admin token of this cluster, is nobody's
//! business here: an operator who moved it away keeps it elsewhere.

use std::path::{Path, PathBuf};

use proto::runtime::folder;
use proto::secret::SecretKey;
use proto::token::{Token, TokenKind};

use super::publish;
use crate::error::StartError;
use crate::store::engine::Engine;
use crate::store::keys;
use crate::store::records::{Holder, TokenRecord};
use crate::store::rows::{RowError, load};
use crate::tokens;

/// Writes the token over the one in the file that has been rotated since. Returns whether the file holds the latest one.
///
/// # Errors
/// [`StartError`].
pub(crate) async fn follow(file: &Path, engine: &dyn Engine, secret: &SecretKey) -> Result<bool, StartError> {
    let Some(found) = read(file)? else { return Ok(false) };
    let mut latest = found.clone();
    let row_of = async |token: &Token| -> Result<Option<TokenRecord>, StartError> {
        let row: Result<Option<TokenRecord>, RowError> = load(engine, &keys::token(token.key_id)).await;
        let row = row.map_err(|source| StartError::Engine { folder: PathBuf::from(file), source })?;
        Ok(row.filter(|row| row.holder == Holder::Admin && token.matches(&row.secret_sha256)))
    };
    let Some(mut row) = row_of(&found).await? else { return Ok(false) };
    while let Some(successor) = row.successor {
        let next = tokens::of_admin(secret, successor);
        let Some(next_row) = row_of(&next).await? else { break };
        (latest, row) = (next, next_row);
    }
    if latest.key_id != found.key_id {
        let (path, token) = (file.to_path_buf(), latest);
        // The file is small, but a full or slow disk can take its time.
        let written = tokio::task::spawn_blocking(move || publish(&path, &token)).await;
        written.map_err(|_panicked| StartError::Stopped)??;
        tracing::info!(file = %file.display(), "wrote the admin token that took the place of the one before");
    }
    Ok(true)
}

fn read(file: &Path) -> Result<Option<Token>, StartError> {
    let Some(bytes) = folder::read_small(file)? else { return Ok(None) };
    let token = std::str::from_utf8(&bytes).ok().and_then(|text| text.trim_end().parse::<Token>().ok());
    Ok(token.filter(|token| token.kind == TokenKind::Admin))
}

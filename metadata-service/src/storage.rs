//! The storage folder: made by the first start, checked by every other.
//!
//! Order of a first start: folders (each synced into its parent), the lock, `metadata/cluster.key`, `admin.token` and
//! `join.token`, the rows of cluster and tokens in one durable commit, `metadata/IDENTITY`. Each step takes over what an
//! interrupted start left, so the next start finishes it. A folder with an IDENTITY has been finished: its rows must be
//! there and its key must be the one they were made with, else the start is refused, never begun anew. So is one where
//! tokens lie beside a folder with neither key nor rows: the key comes before the tokens, so no first start left that; the
//! folder was emptied, or its disk is not mounted.

pub(crate) mod admin_file;
mod cluster_key;
pub(crate) mod import;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use proto::checksum::Sha256;
use proto::entropy::Entropy;
use proto::failpoint;
use proto::ids::ClusterId;
use proto::runtime::folder::{self, FolderLock, Identity};
use proto::secret::SecretKey;
use proto::token::{Token, TokenError, TokenKind};

use crate::config::Tuning;
use crate::error::StartError;
use crate::service::Cluster;
use crate::store::engine::{Batch, Decision, Engine, EngineExt as _, KeyRange};
use crate::store::keys;
use crate::store::records::{ClusterRecord, Holder, SCHEMA, TokenRecord};
use crate::store::rows::{BatchExt as _, RowError, load, record_of};
use crate::store::sled::{SledEngine, SledOptions};
use crate::tokens;

const ROLE: &str = "metadata";
const FIRST_EPOCH: u64 = 1;

/// Where things are.
#[derive(Debug, Clone)]
pub struct Paths {
    /// The service's own folder.
    pub metadata: PathBuf,
    /// The operator's token.
    pub admin_token: PathBuf,
    /// The token by which a node joins.
    pub join_token: PathBuf,
    key: PathBuf,
}

impl Paths {
    /// Below a storage folder.
    pub fn of(storage: &Path) -> Self {
        let metadata = storage.join("metadata");
        Self {
            admin_token: storage.join("admin.token"),
            join_token: storage.join("join.token"),
            key: metadata.join("cluster.key"),
            metadata,
        }
    }
}

/// What a start needs of the outside world.
#[derive(Debug, Clone, Copy)]
pub struct Opening<'a> {
    /// The settings.
    pub tuning: &'a Tuning,
    /// For ids, keys and tokens.
    pub entropy: &'a dyn Entropy,
    /// The time.
    pub now_ms: u64,
}

/// A storage folder in use.
#[derive(Debug)]
pub struct Storage {
    /// Keeps other processes out; dropped last.
    pub lock: FolderLock,
    /// The rows.
    pub engine: Arc<dyn Engine>,
    /// Which cluster it is.
    pub cluster: Cluster,
    /// Where things are.
    pub paths: Paths,
}

/// Makes or checks the folder and opens what is in it.
///
/// # Errors
/// [`StartError`]: in use, damaged, foreign, or incomplete.
pub async fn open(storage: &Path, opening: Opening<'_>) -> Result<Storage, StartError> {
    let paths = Paths::of(storage);
    refuse_unmounted(&paths)?;
    folder::create(&paths.metadata)?;
    failpoint!("start.folder_created");
    let lock = folder::lock(&paths.metadata)?;
    failpoint!("start.locked");
    import::refuse_half_made(&paths.metadata)?;
    let identity = Identity::read(&paths.metadata, ROLE)?;
    let engine = open_engine(&paths.metadata, opening.tuning).await?;
    failpoint!("start.engine_opened");
    let opened = match &identity {
        Some(identity) => check(&paths, engine.as_ref(), identity).await,
        None => initialise(&paths, engine.as_ref(), opening).await,
    };
    match opened {
        Ok(cluster) => Ok(Storage { lock, engine, cluster, paths }),
        Err(error) => {
            engine.close().await;
            Err(error)
        }
    }
}

/// As [`open`], for a folder that a first start has finished, and no other.
///
/// # Errors
/// [`StartError`].
pub async fn open_finished(storage: &Path, opening: Opening<'_>) -> Result<Storage, StartError> {
    // Nothing is written to a folder before it is known to be ours; that includes its lock.
    let paths = Paths::of(storage);
    if !paths.metadata.is_dir() {
        let problem = "is not there, or not a folder; if it was lost, restore an export with 'mini-tectonic-rs import'";
        return inconsistent(&paths.metadata, problem);
    }
    if Identity::read(&paths.metadata, ROLE)?.is_none() {
        let problem = "has no IDENTITY: no metadata service has ever finished its first start with this folder, or its \
                       disk is not mounted";
        return inconsistent(&paths.metadata, problem);
    }
    if !SledEngine::has_database(&paths.metadata)? {
        let problem = "has an IDENTITY but no database (there is no file db in it); restore an export with \
                       'mini-tectonic-rs import', or the folder from a copy of its disk";
        return inconsistent(&paths.metadata, problem);
    }
    open(storage, opening).await
}

async fn open_engine(folder: &Path, tuning: &Tuning) -> Result<Arc<dyn Engine>, StartError> {
    let options = SledOptions {
        cache_bytes: tuning.metadata_cache,
        journal_bytes: tuning.metadata_journal_size,
        checkpoint_bytes: tuning.metadata_checkpoint,
        waiting_bytes: tuning.metadata_checkpoint.saturating_mul(4),
        low_watermark_bytes: tuning.metadata_low_watermark,
        reserve_bytes: tuning.metadata_low_watermark / 4,
        ..SledOptions::default()
    };
    let path = folder.to_path_buf();
    let opened = tokio::task::spawn_blocking(move || SledEngine::open(&path, &options)).await;
    let opened = opened.map_err(|_panicked| StartError::Inconsistent {
        path: folder.to_path_buf(),
        problem: "cannot be opened: the engine panicked over it; restore it from a backup",
    })?;
    opened.map(|engine| Arc::new(engine) as Arc<dyn Engine>).map_err(unreadable(folder))
}

fn unreadable<E: Into<RowError>>(folder: &Path) -> impl FnOnce(E) -> StartError + '_ {
    move |source| StartError::Engine { folder: folder.to_path_buf(), source: source.into() }
}

fn inconsistent<T>(path: &Path, problem: &'static str) -> Result<T, StartError> {
    Err(StartError::Inconsistent { path: path.to_path_buf(), problem })
}

fn key_check(secret: &SecretKey) -> Sha256 {
    Sha256::of(&secret.sum("mini-tectonic cluster key check v1", &[]))
}

/// A folder that was finished must be whole.
async fn check(paths: &Paths, engine: &dyn Engine, identity: &Identity) -> Result<Cluster, StartError> {
    let row: Option<ClusterRecord> = load(engine, &keys::cluster()).await.map_err(unreadable(&paths.metadata))?;
    let Some(row) = row else {
        let problem =
            "has an IDENTITY but no metadata; restore the folder from a backup, or move it away to begin anew";
        return inconsistent(&paths.metadata, problem);
    };
    let own = Identity::new(ROLE, row.cluster.to_string(), None);
    identity.expect(&paths.metadata, &own)?;
    let Some(secret) = cluster_key::read(&paths.key)? else {
        return inconsistent(&paths.key, "is missing; restore it from a backup");
    };
    let cluster = with_key(paths, &row, secret)?;
    if let Ok(found) = std::fs::metadata(&paths.admin_token) {
        folder::refuse_exposed(&paths.admin_token, &found)?;
    }
    if let Err(error) = admin_file::follow(&paths.admin_token, engine, &cluster.secret).await {
        // Whoever needs the token can have it issued anew; the data are served meanwhile.
        let cause = proto::status::chain(&error);
        tracing::error!(file = %paths.admin_token.display(), %cause, "the admin token's file may not be the latest one");
    }
    Ok(cluster)
}

fn with_key(paths: &Paths, row: &ClusterRecord, secret: SecretKey) -> Result<Cluster, StartError> {
    if row.schema > SCHEMA {
        let (path, found) = (paths.metadata.clone(), row.schema);
        return Err(StartError::TooNew { path, what: "rows of schema version", found, known: SCHEMA });
    }
    if key_check(&secret) != row.key_check {
        return inconsistent(&paths.key, "is not the key of this cluster; restore the right one from a backup");
    }
    Ok(Cluster { id: row.cluster, secret, epoch: row.epoch, restores: row.restores.clone() })
}

/// Makes what is missing of a folder that was never finished.
async fn initialise(paths: &Paths, engine: &dyn Engine, opening: Opening<'_>) -> Result<Cluster, StartError> {
    let unreadable_here = || unreadable::<RowError>(&paths.metadata);
    let row: Option<ClusterRecord> = load(engine, &keys::cluster()).await.map_err(unreadable_here())?;
    let secret = match (cluster_key::read(&paths.key)?, &row) {
        (Some(secret), _) => secret,
        (None, Some(_row)) => return inconsistent(&paths.key, "is missing; restore it from a backup"),
        (None, None) => make_key(paths, engine, opening)?,
    };
    let row = row.unwrap_or_else(|| ClusterRecord {
        cluster: ClusterId::generate(opening.now_ms, opening.entropy),
        epoch: FIRST_EPOCH,
        key_check: key_check(&secret),
        create_ms: opening.now_ms,
        schema: SCHEMA,
        restores: Vec::new(),
    });
    let cluster = with_key(paths, &row, secret)?;
    write_rows(paths, engine, opening, &row).await?;
    failpoint!("start.rows_committed");
    Identity::new(ROLE, row.cluster.to_string(), None).write(&paths.metadata)?;
    failpoint!("start.identity_written");
    tracing::info!(folder = %paths.metadata.display(), cluster = %row.cluster, "initialised an empty folder");
    Ok(cluster)
}

fn make_key(paths: &Paths, engine: &dyn Engine, opening: Opening<'_>) -> Result<SecretKey, StartError> {
    if engine.sequence() > 0 {
        return inconsistent(&paths.metadata, "has metadata but no key; restore the folder from a backup");
    }
    refuse_tokens(paths)?;
    let secret = SecretKey::generate(opening.entropy);
    cluster_key::write(&paths.key, &secret)?;
    failpoint!("start.key_written");
    Ok(secret)
}

/// Nothing is written to a folder whose disk may be missing, so that an import can fill it.
fn refuse_unmounted(paths: &Paths) -> Result<(), StartError> {
    if import::is_untouched(&paths.metadata)? { refuse_tokens(paths) } else { Ok(()) }
}

fn refuse_tokens(paths: &Paths) -> Result<(), StartError> {
    for token in [&paths.admin_token, &paths.join_token] {
        if folder::read_small(token)?.is_some() {
            let problem = "is empty, but tokens of a cluster lie beside it: is its disk mounted? To restore an export, \
                           run 'mini-tectonic-rs import'; to begin anew, move admin.token, join.token and chunks away";
            return inconsistent(&paths.metadata, problem);
        }
    }
    Ok(())
}

async fn write_rows(
    paths: &Paths,
    engine: &dyn Engine,
    opening: Opening<'_>,
    row: &ClusterRecord,
) -> Result<(), StartError> {
    let admin = take_or_make(&paths.admin_token, TokenKind::Admin, opening.entropy)?;
    let join = take_or_make(&paths.join_token, TokenKind::Join, opening.entropy)?;
    failpoint!("start.tokens_written");
    let mut batch = Batch::default();
    batch.set(keys::cluster(), row);
    for (token, holder) in [(admin, Holder::Admin), (join, Holder::Join(None))] {
        // A join token that has been used stays bound to its node.
        let known = engine.get(&keys::token(token.key_id)).await.map_err(unreadable(&paths.metadata))?;
        if known.is_none() {
            if holder == Holder::Admin {
                // Of imported rows: the file is the later word.
                let ended = admin_tokens(engine).await.map_err(unreadable(&paths.metadata))?;
                ended.into_iter().for_each(|key| batch.delete(key));
            }
            batch.set(keys::token(token.key_id), &tokens::record(&token, holder));
        }
    }
    commit(paths, engine, batch).await
}

async fn commit(paths: &Paths, engine: &dyn Engine, batch: Batch) -> Result<(), StartError> {
    let decided = engine.decide(move |_view| Ok::<_, RowError>((Decision::frees(batch), ()))).await;
    decided.map_err(unreadable(&paths.metadata))
}

/// The token that an interrupted start has written, or a new one.
fn take_or_make(path: &Path, kind: TokenKind, entropy: &dyn Entropy) -> Result<Token, StartError> {
    let Some(bytes) = folder::read_secret(path)? else { return make(path, kind, entropy) };
    match std::str::from_utf8(&bytes).unwrap_or_default().trim_end().parse::<Token>() {
        Ok(token) if token.kind == kind => Ok(token),
        Err(TokenError::TooNew { found }) => {
            let (path, known) = (path.to_path_buf(), TokenError::KNOWN);
            Err(StartError::TooNew { path, what: "a token of format version", found, known })
        }
        Ok(_) | Err(TokenError::Malformed) => {
            inconsistent(path, "is in the way: it is not a token of this kind; move it away")
        }
    }
}

fn make(path: &Path, kind: TokenKind, entropy: &dyn Entropy) -> Result<Token, StartError> {
    let token = Token::generate(kind, entropy);
    publish(path, &token)?;
    Ok(token)
}

fn publish(path: &Path, token: &Token) -> Result<(), StartError> {
    let mut text = token.expose();
    text.push('\n');
    Ok(folder::publish(path, text.as_bytes())?)
}

/// Writes a fresh join token over the one in the folder; first its row, so that what can be read can be used.
///
/// # Errors
/// [`StartError`].
pub async fn reissue_join_token(storage: &Storage, entropy: &dyn Entropy) -> Result<(), StartError> {
    let token = Token::generate(TokenKind::Join, entropy);
    let mut batch = Batch::default();
    batch.set(keys::token(token.key_id), &tokens::record(&token, Holder::Join(None)));
    commit(&storage.paths, storage.engine.as_ref(), batch).await?;
    failpoint!("reissue.rows_committed");
    publish(&storage.paths.join_token, &token)?;
    failpoint!("reissue.file_written");
    tracing::info!(file = %storage.paths.join_token.display(), "wrote a fresh join token");
    Ok(())
}

/// Rows that are read at once while the tokens are looked through.
const TOKENS_PER_READ: usize = 1_000;

/// Writes a fresh admin token over the one in the folder, and ends every other: first the rows, in one commit, then the
/// file. An interrupted one leaves a file that is good for nothing, and is done again by the next start that asks for it.
///
/// # Errors
/// [`StartError`].
pub async fn reissue_admin_token(storage: &Storage, entropy: &dyn Entropy) -> Result<(), StartError> {
    let token = Token::generate(TokenKind::Admin, entropy);
    let mut batch = Batch::default();
    for ended in admin_tokens(storage.engine.as_ref()).await.map_err(unreadable(&storage.paths.metadata))? {
        batch.delete(ended);
    }
    batch.set(keys::token(token.key_id), &tokens::record(&token, Holder::Admin));
    commit(&storage.paths, storage.engine.as_ref(), batch).await?;
    failpoint!("reissue.rows_committed");
    publish(&storage.paths.admin_token, &token)?;
    failpoint!("reissue.file_written");
    tracing::warn!(file = %storage.paths.admin_token.display(), "wrote a fresh admin token; the one before has ended");
    Ok(())
}

/// The keys of the admin's tokens.
async fn admin_tokens(engine: &dyn Engine) -> Result<Vec<Vec<u8>>, RowError> {
    let (mut range, mut found) = (KeyRange::prefix(keys::TOKENS), Vec::new());
    loop {
        let rows = engine.scan(&range, TOKENS_PER_READ).await?;
        for row in &rows {
            if record_of::<TokenRecord>(row)?.holder == Holder::Admin {
                found.push(row.0.to_vec());
            }
        }
        match rows.last() {
            Some((key, _)) => range = range.after(key),
            None => return Ok(found),
        }
    }
}

#[cfg(test)]
mod tests;

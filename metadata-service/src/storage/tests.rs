use std::os::unix::fs::PermissionsExt as _;

use proto::entropy::SeededEntropy;
use proto::runtime::folder::FolderError;

use super::*;

async fn start(storage: &Path, seed: u64) -> Result<Storage, StartError> {
    let (tuning, entropy) = (Tuning::default(), SeededEntropy::new(seed));
    open(storage, Opening { tuning: &tuning, entropy: &entropy, now_ms: 1_700_000_000_000 }).await
}

async fn stop(storage: Storage) {
    storage.engine.close().await;
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

async fn holder(storage: &Storage, text: &str) -> Option<Holder> {
    let token: Token = text.trim_end().parse().unwrap();
    let row: Option<TokenRecord> = load(storage.engine.as_ref(), &keys::token(token.key_id)).await.unwrap();
    row.filter(|row| token.matches(&row.secret_sha256)).map(|row| row.holder)
}

#[tokio::test]
async fn a_first_start_makes_everything_and_the_next_one_finds_it() {
    let folder = tempfile::tempdir().unwrap();
    let storage = folder.path().join("deep/storage");
    let first = start(&storage, 1).await.unwrap();
    let (cluster, admin) = (first.cluster.id, text(&first.paths.admin_token));
    let join = text(&first.paths.join_token);
    assert!(admin.starts_with("ma1.") && admin.ends_with('\n') && join.starts_with("mj1."));
    assert_eq!(holder(&first, &admin).await, Some(Holder::Admin));
    assert_eq!(holder(&first, &join).await, Some(Holder::Join(None)));
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for private in [&first.paths.admin_token, &first.paths.join_token, &first.paths.key] {
        assert_eq!(mode(private), 0o600, "{}", private.display());
    }
    assert_eq!(mode(&first.paths.metadata), 0o700);
    stop(first).await;
    let second = start(&storage, 2).await.unwrap();
    assert_eq!((second.cluster.id, text(&second.paths.admin_token)), (cluster, admin));
    stop(second).await;
}

#[tokio::test]
async fn tokens_that_the_operator_took_away_are_not_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let first = start(folder.path(), 1).await.unwrap();
    let paths = first.paths.clone();
    stop(first).await;
    std::fs::remove_file(&paths.admin_token).unwrap();
    std::fs::remove_file(&paths.join_token).unwrap();
    stop(start(folder.path(), 2).await.unwrap()).await;
    assert!(!paths.admin_token.try_exists().unwrap() && !paths.join_token.try_exists().unwrap());
}

#[tokio::test]
async fn an_interrupted_first_start_is_finished_by_the_next_one_wherever_it_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let first = start(folder.path(), 1).await.unwrap();
    let (paths, cluster) = (first.paths.clone(), first.cluster.id);
    let (admin, join) = (text(&paths.admin_token), text(&paths.join_token));
    stop(first).await;

    // Everything but IDENTITY.
    std::fs::remove_file(paths.metadata.join("IDENTITY")).unwrap();
    let second = start(folder.path(), 2).await.unwrap();
    assert_eq!((second.cluster.id, text(&paths.admin_token)), (cluster, admin.clone()));
    stop(second).await;

    // Key and token files, but no rows yet: the files are taken over.
    let other = tempfile::tempdir().unwrap();
    let half = Paths::of(other.path());
    folder::create(&half.metadata).unwrap();
    folder::publish(&half.key, &std::fs::read(&paths.key).unwrap()).unwrap();
    folder::publish(&half.admin_token, admin.as_bytes()).unwrap();
    let third = start(other.path(), 3).await.unwrap();
    assert_eq!(text(&half.admin_token), admin);
    assert_eq!(holder(&third, &admin).await, Some(Holder::Admin));
    assert_ne!(text(&half.join_token), join, "the missing one is made");
    stop(third).await;
}

#[tokio::test]
async fn a_folder_in_use_is_refused_until_it_is_free() {
    let folder = tempfile::tempdir().unwrap();
    let first = start(folder.path(), 1).await.unwrap();
    let refused = start(folder.path(), 2).await.unwrap_err();
    assert!(matches!(refused, StartError::Folder(FolderError::InUse(_))), "{refused}");
    stop(first).await;
    stop(start(folder.path(), 3).await.unwrap()).await;
}

/// A start served over a `cluster.key` that everybody on the machine could read, and said nothing.
#[tokio::test]
async fn keys_and_tokens_that_others_can_read_are_refused_until_they_cannot() {
    let folder = tempfile::tempdir().unwrap();
    let first = start(folder.path(), 1).await.unwrap();
    let paths = first.paths.clone();
    stop(first).await;
    let identity = std::fs::read(paths.metadata.join("IDENTITY")).unwrap();
    for (path, unfinished) in [(&paths.key, false), (&paths.admin_token, false), (&paths.join_token, true)] {
        if unfinished {
            // A start that goes on where another was interrupted takes the tokens over.
            std::fs::remove_file(paths.metadata.join("IDENTITY")).unwrap();
        }
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let refused = start(folder.path(), 2).await.unwrap_err();
        let (told, path_told) = (refused.to_string(), path.display());
        assert!(told.contains(&format!("{path_told} (mode 0644); 'chmod 600 {path_told}'")), "{told}");
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
        stop(start(folder.path(), 3).await.unwrap()).await;
        assert_eq!(std::fs::read(paths.metadata.join("IDENTITY")).unwrap(), identity);
    }
}

/// The disk under `metadata/` was not mounted after a reboot. The start found an empty folder, made a new cluster in it
/// and took the old tokens over, so that everything looked well and every tenant and blob was gone.
#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "stands for a mount: nothing is published by it")]
async fn i16_tokens_beside_an_emptied_metadata_folder_refuse_the_start_every_time() {
    let folder = tempfile::tempdir().unwrap();
    let first = start(folder.path(), 1).await.unwrap();
    let (paths, cluster) = (first.paths.clone(), first.cluster.id);
    stop(first).await;
    let disk = folder.path().join("unmounted");
    std::fs::rename(&paths.metadata, &disk).unwrap();
    for _attempt in 0..2 {
        let refused = start(folder.path(), 2).await.unwrap_err();
        assert!(refused.to_string().contains("is its disk mounted?"), "{refused}");
        assert!(!paths.metadata.try_exists().unwrap(), "nothing is written where a disk should be");
    }
    std::fs::remove_file(&paths.admin_token).unwrap();
    assert!(start(folder.path(), 2).await.is_err(), "one token is enough to know");
    std::fs::rename(&disk, &paths.metadata).unwrap();
    let mounted = start(folder.path(), 3).await.unwrap();
    assert_eq!(mounted.cluster.id, cluster);
    stop(mounted).await;
    std::fs::remove_dir_all(&paths.metadata).unwrap();
    std::fs::remove_file(&paths.join_token).unwrap();
    let anew = start(folder.path(), 4).await.unwrap();
    assert_ne!(anew.cluster.id, cluster, "without tokens it is a first start");
    stop(anew).await;
}

#[tokio::test]
async fn i16_an_identity_without_its_metadata_is_refused_every_time() {
    let folder = tempfile::tempdir().unwrap();
    let first = start(folder.path(), 1).await.unwrap();
    let paths = first.paths.clone();
    stop(first).await;
    for name in ["db", "conf", "blobs"] {
        let path = paths.metadata.join(name);
        if path.is_dir() { std::fs::remove_dir_all(path).unwrap() } else { std::fs::remove_file(path).unwrap() }
    }
    for _attempt in 0..2 {
        let refused = start(folder.path(), 2).await.unwrap_err();
        assert!(refused.to_string().contains("has an IDENTITY but no metadata"), "{refused}");
    }
}

#[tokio::test]
async fn a_key_that_is_missing_damaged_or_another_cluster_s_is_refused() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (first, second) = (start(folder.path(), 1).await.unwrap(), start(other.path(), 2).await.unwrap());
    let (paths, foreign) = (first.paths.clone(), std::fs::read(&second.paths.key).unwrap());
    stop(first).await;
    stop(second).await;
    let good = std::fs::read(&paths.key).unwrap();
    for (bytes, said) in [(foreign, "is not the key of this cluster"), (good[..31].to_vec(), "is damaged")] {
        folder::publish(&paths.key, &bytes).unwrap();
        let refused = start(folder.path(), 3).await.unwrap_err();
        assert!(refused.to_string().contains(said), "{refused}");
    }
    std::fs::remove_file(&paths.key).unwrap();
    let refused = start(folder.path(), 3).await.unwrap_err();
    assert!(refused.to_string().contains("is missing"), "{refused}");
    std::fs::remove_file(paths.metadata.join("IDENTITY")).unwrap();
    let refused = start(folder.path(), 3).await.unwrap_err();
    assert!(refused.to_string().contains("is missing"), "no new key is made for old metadata: {refused}");
    folder::publish(&paths.key, &good).unwrap();
    stop(start(folder.path(), 3).await.unwrap()).await;
}

#[tokio::test]
async fn another_cluster_s_identity_is_refused() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (first, second) = (start(folder.path(), 1).await.unwrap(), start(other.path(), 2).await.unwrap());
    let (paths, foreign) = (first.paths.clone(), second.paths.metadata.join("IDENTITY"));
    stop(first).await;
    stop(second).await;
    folder::publish(&paths.metadata.join("IDENTITY"), &std::fs::read(foreign).unwrap()).unwrap();
    let refused = start(folder.path(), 3).await.unwrap_err();
    assert!(matches!(refused, StartError::Folder(FolderError::Foreign { what: "cluster", .. })), "{refused}");
}

#[tokio::test]
async fn a_reissued_join_token_works_beside_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let first = start(folder.path(), 1).await.unwrap();
    let before = text(&first.paths.join_token);
    reissue_join_token(&first, &SeededEntropy::new(9)).await.unwrap();
    let after = text(&first.paths.join_token);
    assert_ne!(before, after);
    assert_eq!(holder(&first, &before).await, Some(Holder::Join(None)));
    assert_eq!(holder(&first, &after).await, Some(Holder::Join(None)));
    stop(first).await;
}

/// The file with the admin token was deleted by mistake. No start wrote another, and only a hash of it was kept: the
/// operator was locked out for good.
#[tokio::test]
async fn a_reissued_admin_token_ends_the_one_before_and_leaves_all_others() {
    let folder = tempfile::tempdir().unwrap();
    let first = start(folder.path(), 1).await.unwrap();
    let (before, join) = (text(&first.paths.admin_token), text(&first.paths.join_token));
    let many = SeededEntropy::new(8);
    let tenant = Holder::Tenant("posts".parse().unwrap());
    let tenants: Vec<_> = (0..=TOKENS_PER_READ).map(|_n| Token::generate(TokenKind::Tenant, &many)).collect();
    for some in tenants.chunks(100) {
        let mut batch = Batch::default();
        some.iter().for_each(|token| batch.set(keys::token(token.key_id), &tokens::record(token, tenant.clone())));
        commit(&first.paths, first.engine.as_ref(), batch).await.unwrap();
    }
    std::fs::remove_file(&first.paths.admin_token).unwrap();
    reissue_admin_token(&first, &SeededEntropy::new(9)).await.unwrap();
    let after = text(&first.paths.admin_token);
    assert_eq!((holder(&first, &before).await, holder(&first, &after).await), (None, Some(Holder::Admin)));
    assert_eq!(holder(&first, &join).await, Some(Holder::Join(None)));
    for token in &tenants {
        assert_eq!(holder(&first, &token.expose()).await.as_ref(), Some(&tenant));
    }
    stop(first).await;
}

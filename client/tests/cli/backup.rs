//! Export and import: what comes back, what is refused, and that nothing half-made is ever taken for whole.

use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::common::{Ended, Serve, User, bytes, run_to_end, user_with_services, write};
use crate::{KIB, read};

fn export(user: &User, more: &str) -> Ended {
    user.line(&format!("export -o export {more}"))
}

fn import(user: &User, file: &str, storage: &str) -> Ended {
    user.line(&format!("import {file} --storage {storage}"))
}

fn end(mut serve: Serve) {
    serve.process.signal(Signal::TERM);
    assert_eq!(serve.process.wait().code(), Some(0));
}

#[test]
fn an_export_is_private_appears_whole_and_holds_secrets_only_if_asked() {
    let (user, _serve) = user_with_services();
    user.put("posts", &user.file("in", &bytes(70 * KIB)));
    assert_eq!(export(&user, "").ok(), "", "what it tells goes to standard error");
    assert_eq!(std::fs::metadata(user.path("export")).unwrap().permissions().mode() & 0o777, 0o600);
    let without = read(&user.path("export"));
    let told = export(&user, "--include-secrets --json").json();
    assert_eq!((&told["include_secrets"], &told["epoch"]), (&true.into(), &1.into()));
    let with = read(&user.path("export"));
    assert_eq!(told["size_bytes"], with.len());
    let holds = |bytes: &[u8], words: &[u8]| bytes.windows(words.len()).any(|window| window == words);
    assert!(holds(&with, b"token/") && !holds(&without, b"token/"));
    let printed = user.line("export -o -");
    assert_eq!((printed.code, printed.stdout.is_empty()), (Some(0), false), "{}", printed.stderr);
    let left: Vec<_> = std::fs::read_dir(user.home.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains("partial")), "{left:?}");
}

/// An export renamed its file over whatever had the name; to a device that was full it reported success and took the
/// device's place.
#[test]
fn an_export_that_cannot_be_written_says_so_and_takes_nobody_s_place() {
    let (user, _serve) = user_with_services();
    let makes = |program: &str, arguments: &[&str]| {
        let made = Command::new(program).args(arguments).current_dir(user.home.path()).stderr(Stdio::null()).status();
        made.unwrap().success()
    };
    // Whoever may make a device could also lose the one that all share.
    if !makes("mknod", &["full", "c", "1", "7"]) {
        std::os::unix::fs::symlink("/dev/full", user.path("full")).unwrap();
    }
    assert!(makes("mkfifo", &["pipe"]));
    let pipe = user.path("pipe");
    let reader = std::thread::spawn(move || read(&pipe));
    user.line("export -o pipe").ok();
    assert!(reader.join().unwrap().starts_with(b"mini-tectonic export v1\n"));
    assert!(std::fs::metadata(user.path("pipe")).unwrap().file_type().is_fifo());
    user.line("export -o full").failed(1, &["cannot write full", "No space left on device"]);
    user.line("export -o .").failed(1, &["cannot write ."]);
    user.line("export -o nowhere/export").failed(1, &["cannot write nowhere/export", "No such file"]);
    user.line("export").failed(2, &["--output"]);
}

/// An import kept to the default's 128 MiB of free space whatever `--metadata-low-watermark` and its variable said, so that
/// nothing could be imported to a small disk on which `serve` ran well.
#[test]
fn an_import_keeps_to_the_low_watermark_that_it_is_given() {
    let (user, _serve) = user_with_services();
    export(&user, "--include-secrets").ok();
    let no_disk_has_it = "export --metadata-low-watermark 8EiB";
    import(&user, no_disk_has_it, "new").failed(1, &["the metadata disk is nearly full"]);
    let mut command = user.command();
    command.args(["import", "export", "--storage", "new"]).env("MINI_TECTONIC_METADATA_LOW_WATERMARK", "8EiB");
    run_to_end(command, Vec::new()).failed(1, &["the metadata disk is nearly full"]);
    import(&user, "export --metadata-low-watermark 0", "new").ok();
}

#[test]
fn an_import_over_lost_metadata_serves_what_was_stored() {
    let (user, serve) = user_with_services();
    let content = bytes(70 * KIB);
    let id = user.put("posts", &user.file("in", &content));
    let address = serve.metadata.replace("http://", "");
    export(&user, "--include-secrets").ok();
    import(&user, "export", "storage").failed(1, &["in use by another process"]);
    end(serve);
    import(&user, "export", "storage").failed(1, &["is not empty", "never writes over metadata"]);
    std::fs::remove_dir_all(user.path("storage/metadata")).unwrap();
    let told = user.line("import export --storage storage --json").json();
    assert_eq!((&told["epoch"], &told["include_secrets"]), (&2.into(), &true.into()));
    let _serve = Serve::start_with(
        &user,
        &user.path("storage"),
        &["--metadata-listen", &address, "--chunk-listen", "127.0.0.1:0"],
    );
    assert!(user.line(&format!("get -t posts -b {id}")).stdout == content);
}

/// A tenant's saved token is not valid any more, and who used it to ask for a new one was only told so.
#[test]
fn after_an_import_without_secrets_nodes_rejoin_and_tenants_get_tokens_as_it_says() {
    let (user, serve) = user_with_services();
    let content = bytes(KIB);
    let id = user.put("posts", &user.file("in", &content));
    let address = serve.metadata.replace("http://", "");
    export(&user, "").ok();
    end(serve);
    std::fs::remove_dir_all(user.path("storage/metadata")).unwrap();
    let imported = import(&user, "export", "storage");
    imported.ok();
    for told in ["serve --rejoin", "rotate-token -t TENANT --token-file admin.token"] {
        assert!(imported.stderr.replace("\n", " ").contains(told), "{}", imported.stderr);
    }
    let _serve = Serve::start_with(
        &user,
        &user.path("storage"),
        &["--rejoin", "--metadata-listen", &address, "--chunk-listen", "127.0.0.1:0"],
    );
    user.line("list-blobs -t posts").failed(4, &["TOKEN_INVALID"]);
    user.line("rotate-token -t posts --token-file storage/admin.token").ok();
    assert!(user.line(&format!("get -t posts -b {id}")).stdout == content);
}

#[test]
fn an_export_that_is_cut_changed_newer_or_none_is_refused_and_nothing_is_made() {
    let (user, _serve) = user_with_services();
    export(&user, "").ok();
    let good = read(&user.path("export"));
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    let newer = [b"mini-tectonic export v2".as_slice(), &good[23..]].concat();
    for (bytes, says) in [
        (&good[..good.len() / 2], "is cut off after"),
        (&good[..good.len() - 1], "is cut off after"),
        (&flipped, "is damaged at byte"),
        (&newer, "export version 2, but this program knows versions up to 1"),
        (b"something else", "is not a metadata export"),
        (b"", "is cut off after 0 bytes"),
    ] {
        write(&user.path("bad"), bytes);
        import(&user, "bad", "restored").failed(1, &["bad cannot be imported", says]);
        assert!(!user.path("restored").try_exists().unwrap(), "{says}: something was made");
    }
    import(&user, "missing", "restored").failed(1, &["cannot read missing", "No such file"]);
    import(&user, ".", "restored").failed(1, &["cannot read ."]);
    import(&user, "export", "export").failed(1, &["export"]);
    assert!(read(&user.path("export")) == good && !user.path("restored").try_exists().unwrap());
}

/// What an import that was killed leaves is no folder to serve, and the message says what to do.
#[test]
fn a_folder_that_an_import_left_half_made_is_refused_until_the_import_is_run_again() {
    let (user, serve) = user_with_services();
    export(&user, "").ok();
    end(serve);
    std::fs::create_dir_all(user.path("restored/metadata")).unwrap();
    write(&user.path("restored/metadata/IMPORT"), b"mini-tectonic import v1\n");
    let refused = user.line("serve --storage restored --metadata-listen 127.0.0.1:0 --chunk-listen 127.0.0.1:0");
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    assert!(refused.stderr.contains("run 'mini-tectonic-rs import' again"), "{}", refused.stderr);
    import(&user, "export", "restored").ok();
    assert!(!user.path("restored/metadata/IMPORT").try_exists().unwrap());
}

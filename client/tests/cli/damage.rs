//! Stored files that were changed behind the service's back: never a wrong byte, and no file left behind.

use crate::common::{bytes, user_with_services, wait_until, write};
use crate::{KIB, get_to, read};

#[test]
fn damaged_chunks_end_with_7_and_leave_no_file() {
    let (user, serve) = user_with_services();
    let content = bytes(300 * KIB);
    let id = user.put("posts", &user.file("in", &content));
    let [blob] = serve.chunk_files("blob").try_into().unwrap();
    let mut flipped = content.clone();
    flipped[150_000] ^= 1;
    let longer = [content.as_slice(), b"x"].concat();
    let folder = user.path("outputs");
    std::fs::create_dir(&folder).unwrap();
    for (damage, stored) in
        [("flipped bit", flipped.as_slice()), ("shorter", &content[..299 * KIB]), ("longer", &longer)]
    {
        write(&blob, stored);
        let got = get_to(&user, &id, &folder.join("out"));
        assert_eq!(got.code, Some(7), "{damage}: {}", got.stderr);
        got.failed(7, &["error: get failed"]);
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0, "{damage}");
        let printed = user.line(&format!("get -t posts -b {id}"));
        assert_eq!(printed.code, Some(7));
        assert!(content.starts_with(&printed.stdout), "{damage}: wrong bytes came out");
    }
    std::fs::remove_file(&blob).unwrap();
    get_to(&user, &id, &folder.join("out")).failed(7, &["CHUNK_MISSING"]);
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
    write(&blob, &content);
    get_to(&user, &id, &folder.join("out")).ok();
}

#[test]
fn damage_is_listed_from_the_first_read_that_meets_it_until_the_bytes_are_good_again() {
    let (user, serve) = user_with_services();
    let content = bytes(300 * KIB);
    let id = user.put("posts", &user.file("in", &content));
    let listed = || user.line("status --damaged --json").ok();
    assert_eq!(listed(), "");
    let [blob] = serve.chunk_files("blob").try_into().unwrap();
    let mut flipped = content.clone();
    flipped[150_000] ^= 1;
    write(&blob, &flipped);
    user.line(&format!("get -t posts -b {id} -o out")).failed(7, &["CHUNK_CORRUPT"]);
    let line = wait_until("it is listed", || Some(listed()).filter(|lines| !lines.is_empty()));
    let damage: serde_json::Value = serde_json::from_str(&line).expect("one object");
    assert_eq!(damage["chunk_id"], blob.file_stem().unwrap().to_str().unwrap(), "{line}");
    assert!(user.line("status --damaged").ok().contains(&id), "people are told which blob it is");
    write(&blob, &content);
    user.line("workers run scrub").ok();
    wait_until("it is found sound", || listed().is_empty().then_some(()));
    assert!(user.line(&format!("get -t posts -b {id}")).stdout == content);
}

#[test]
fn a_damaged_or_missing_checksum_file_is_healed() {
    let (user, serve) = user_with_services();
    let content = bytes(300 * KIB);
    let id = user.put("posts", &user.file("in", &content));
    let [chk] = serve.chunk_files("chk").try_into().unwrap();
    let written = read(&chk);
    let mut flipped = written.clone();
    flipped[30] ^= 1;
    for damage in [Some(flipped.as_slice()), Some(&written[..40]), Some(b""), None] {
        match damage {
            Some(bytes) => write(&chk, bytes),
            None => std::fs::remove_file(&chk).unwrap(),
        }
        let out = user.path("out");
        get_to(&user, &id, &out).ok();
        assert!(read(&out) == content);
        wait_until("the checksum file is healed", || (std::fs::read(&chk).ok()? == written).then_some(()));
    }
}

#[test]
fn swapped_chunks_are_noticed() {
    let (user, serve) = user_with_services();
    let ids = [b'a', b'b'].map(|byte| user.put("posts", &user.file("in", &vec![byte; 70 * KIB])));
    for extension in ["blob", "chk"] {
        let [one, two] = serve.chunk_files(extension).try_into().unwrap();
        let (first, second) = (read(&one), read(&two));
        write(&one, &second);
        write(&two, &first);
        for id in &ids {
            let got = user.line(&format!("get -t posts -b {id}"));
            got.failed(7, &["error: get failed"]);
            assert!(got.stdout.is_empty());
        }
    }
}

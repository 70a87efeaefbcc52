//! The disk must lose what it says it loses, and keep the rest: all that the suite finds rests on that.

use super::*;
use crate::cut::Data;

const HARD: Cut = Cut::HARD;

fn dice() -> Dice {
    Dice::new(1)
}

fn file(image: &mut Image, name: &str, bytes: &[u8]) -> Inode {
    let body = Body::File(FileImage::default());
    let inode = image.create(ROOT, name.as_ref(), 0o600, body, 0).unwrap();
    image.file_mut(inode).unwrap().write(0, bytes);
    inode
}

fn folder(image: &mut Image, name: &str) -> Inode {
    image.create(ROOT, name.as_ref(), 0o700, Body::Folder(FolderImage::default()), 0).unwrap()
}

fn read<'a>(image: &'a Image, path: &str) -> Option<&'a [u8]> {
    image.read(path.as_ref()).ok()
}

#[test]
fn a_file_is_left_by_a_cut_only_when_its_bytes_and_its_name_were_synced() {
    for (bytes, name, left) in [
        (false, false, None),
        (true, false, None),
        (false, true, Some(b"".as_slice())),
        (true, true, Some(b"abc".as_slice())),
    ] {
        let mut image = Image::new(Journal::None);
        let inode = file(&mut image, "f", b"abc");
        if bytes {
            image.sync(inode).unwrap();
        }
        if name {
            image.sync(ROOT).unwrap();
        }
        assert_eq!(read(&image, "f"), Some(b"abc".as_slice()), "before the cut it is seen");
        image.cut(HARD, &dice());
        assert_eq!(read(&image, "f"), left, "bytes {bytes}, name {name}");
    }
}

#[test]
fn a_shared_journal_takes_names_along_with_a_file_s_sync() {
    let mut image = Image::new(Journal::Shared);
    let inode = file(&mut image, "f", b"abc");
    image.sync(inode).unwrap();
    image.cut(HARD, &dice());
    assert_eq!(read(&image, "f"), Some(b"abc".as_slice()));
}

#[test]
fn writes_after_the_last_sync_are_lost_and_so_are_sizes() {
    let mut image = Image::new(Journal::None);
    let inode = file(&mut image, "f", b"abcdef");
    image.sync(inode).unwrap();
    image.sync(ROOT).unwrap();
    image.file_mut(inode).unwrap().write(2, b"XYZ123");
    image.file_mut(inode).unwrap().resize(3);
    assert_eq!(read(&image, "f"), Some(b"abX".as_slice()));
    image.cut(HARD, &dice());
    assert_eq!(read(&image, "f"), Some(b"abcdef".as_slice()));
}

#[test]
fn a_name_that_was_removed_comes_back_unless_its_folder_was_synced() {
    for synced in [false, true] {
        let mut image = Image::new(Journal::None);
        let inode = file(&mut image, "f", b"abc");
        image.sync(inode).unwrap();
        image.sync(ROOT).unwrap();
        image.remove(ROOT, "f".as_ref()).unwrap();
        if synced {
            image.sync(ROOT).unwrap();
        }
        image.cut(HARD, &dice());
        assert_eq!(read(&image, "f").is_none(), synced);
    }
}

#[test]
fn a_rename_is_durable_in_both_folders_or_in_none() {
    for synced in [None, Some("old"), Some("new")] {
        let mut image = Image::new(Journal::None);
        let (old, new) = (folder(&mut image, "old"), folder(&mut image, "new"));
        let inode = image.create(old, "f".as_ref(), 0o600, Body::File(FileImage::default()), 0).unwrap();
        for inode in [inode, old, new, ROOT] {
            image.sync(inode).unwrap();
        }
        image.rename((old, "f".as_ref()), (new, "g".as_ref()), false).unwrap();
        if let Some(name) = synced {
            image.sync(image.look_up(ROOT, name.as_ref()).unwrap()).unwrap();
        }
        image.cut(HARD, &dice());
        let seen = (read(&image, "old/f").is_some(), read(&image, "new/g").is_some());
        assert_eq!(seen, (synced.is_none(), synced.is_some()), "{synced:?}");
    }
}

#[test]
fn a_folder_whose_parent_was_not_synced_is_lost_with_all_that_was_synced_in_it() {
    let mut image = Image::new(Journal::None);
    let inner = folder(&mut image, "inner");
    let inode = image.create(inner, "f".as_ref(), 0o600, Body::File(FileImage::default()), 0).unwrap();
    image.sync(inode).unwrap();
    image.sync(inner).unwrap();
    image.cut(HARD, &dice());
    assert_eq!(read(&image, "inner/f"), None);
    assert_eq!(image.nodes.len(), 1, "nothing is kept of it");
}

#[test]
fn a_torn_file_is_made_of_whole_units_of_some_moment() {
    let dice = dice();
    let mut mixed = 0;
    for _ in 0..200 {
        let mut image = Image::new(Journal::None);
        let inode = file(&mut image, "f", &[1; 4096]);
        image.sync(inode).unwrap();
        image.sync(ROOT).unwrap();
        image.file_mut(inode).unwrap().write(0, &[2; 4096]);
        image.file_mut(inode).unwrap().write(0, &[3; 2048]);
        image.cut(Cut { data: Data::Torn { unit: 512 }, names: Names::None }, &dice);
        let units: Vec<_> = read(&image, "f").unwrap().chunks(512).collect();
        assert_eq!(units.len(), 8);
        for (index, unit) in units.iter().enumerate() {
            assert!(unit.iter().all(|byte| *byte == unit[0]), "a unit is never torn");
            assert!((1..=if index < 4 { 3 } else { 2 }).contains(&unit[0]));
        }
        mixed += u32::from(units.iter().any(|unit| unit[0] != units[0][0]));
    }
    assert!(mixed > 100, "units of different moments are the rule: {mixed} of 200");
}

#[test]
fn some_of_the_names_and_writes_that_were_not_synced_survive_and_some_do_not() {
    let dice = dice();
    let mut seen = BTreeSet::new();
    for _ in 0..200 {
        let mut image = Image::new(Journal::None);
        file(&mut image, "a", b"a");
        file(&mut image, "b", b"b");
        image.cut(Cut { data: Data::Some, names: Names::Some }, &dice);
        seen.insert((read(&image, "a").map(<[u8]>::to_vec), read(&image, "b").map(<[u8]>::to_vec)));
    }
    assert_eq!(seen.len(), 9, "each of the two is absent, empty or whole");
}

//! The committed corpus: seeds that are what the encoders make today, and inputs that once broke something.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::Target;

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fuzz/corpus");
const SEED: &str = "seed-";

/// Gives every committed input to its target, and compares the seeds among them with [`Target::seeds`].
///
/// # Panics
/// When a target does, or the committed seeds are not those of today.
pub fn check_corpus(targets: &[Target]) {
    for target in targets {
        let folder = Path::new(CORPUS).join(target.name);
        let seeds: BTreeMap<String, Vec<u8>> = (target.seeds)()
            .into_iter()
            .enumerate()
            .map(|(number, seed)| (format!("{SEED}{number:02}"), seed))
            .collect();
        if std::env::var_os("MINI_TECTONIC_FUZZ_SEEDS").is_some() {
            write(&folder, &seeds);
        }
        let committed = read(&folder);
        committed.values().for_each(|input| (target.run)(input));
        let is_seed = |name: &String| name.starts_with(SEED);
        let committed: BTreeMap<_, _> = committed.into_iter().filter(|(name, _)| is_seed(name)).collect();
        assert!(committed == seeds, "the seeds in {folder:?} are stale; see the module doc of proto::fuzzing");
    }
}

fn read(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).expect("every target has a corpus");
    let paths = entries.map(|entry| entry.expect("a folder of the sources can be listed").path());
    paths.map(|path| (name_of(&path), fs::read(&path).expect("a file of the sources can be read"))).collect()
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[expect(clippy::disallowed_methods, reason = "files of the sources need no durable step")]
fn write(folder: &Path, seeds: &BTreeMap<String, Vec<u8>>) {
    fs::create_dir_all(folder).expect("the sources can be written");
    let stale: Vec<PathBuf> =
        read(folder).keys().filter(|name| name.starts_with(SEED)).map(|name| folder.join(name)).collect();
    stale.iter().for_each(|path| fs::remove_file(path).expect("the sources can be written"));
    for (name, seed) in seeds {
        fs::write(folder.join(name), seed).expect("the sources can be written");
    }
}

//! The real engine where it cannot be opened: too few descriptors, and a place where no files can be made.

use std::path::Path;
use std::process::{Command, Output};

use crate::figures;
use crate::store::engine::{Engine as _, EngineError};
use crate::store::faulty::memory_folder;
use crate::store::sled::{SledEngine, SledOptions};

/// Names the folder to the process that opens it with few descriptors.
const VARIABLE: &str = "MINI_TECTONIC_OPENED_BY_CHILD";
/// Enough to open it, however many the test's own process needs.
const ENOUGH: u32 = 64;

fn open(folder: &Path) {
    match SledEngine::open(folder, &SledOptions::default()) {
        Ok(engine) => {
            tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(engine.close());
            figures::print("it was opened");
        }
        Err(error) => {
            assert!(matches!(error, EngineError::Failed { .. }));
            figures::print(format_args!("it was refused: {error}"));
        }
    }
}

/// Opens the folder in a process that may have this many descriptors.
fn open_with(descriptors: u32, folder: &Path) -> Output {
    let test = "service::tests::io_errors::descriptors::opening_with_too_few_descriptors_is_an_error_in_words";
    let script = format!("ulimit -n {descriptors} && exec \"$0\" --exact {test} --nocapture");
    let mut command = Command::new("sh");
    command.arg("-c").arg(script).arg(std::env::current_exe().unwrap()).env(VARIABLE, folder).output().unwrap()
}

#[test]
fn opening_with_too_few_descriptors_is_an_error_in_words() {
    if let Some(folder) = std::env::var_os(VARIABLE) {
        return open(Path::new(&folder));
    }
    let (folder, mut refused) = (memory_folder(), 0);
    for descriptors in 4..ENOUGH {
        let Output { status, stdout, stderr } = open_with(descriptors, folder.path());
        let (told, trouble) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        if told.contains("it was opened") {
            figures::print(format_args!("I/O errors: refused in words with too few descriptors, {refused} times"));
            return assert!(refused > 0, "there were too few of them");
        }
        // With too few for the process itself it does not come that far.
        if told.contains("running 1 test") {
            assert!(status.success() && told.contains("it was refused"), "{descriptors}: {told}{trouble}");
            refused += 1;
        }
    }
    panic!("it opens with enough of them");
}

#[test]
fn a_place_where_no_files_can_be_made_is_an_error_in_words() {
    let refused = SledEngine::open(Path::new("/proc/metadata"), &SledOptions::default()).unwrap_err();
    assert!(matches!(refused, EngineError::Failed { action: "make its folder", .. }), "{refused}");
}

//! Every fuzz target in one program, so that what they share is built once; `MINI_TECTONIC_FUZZ_TARGET` selects one.
//!
//! The targets are functions of the crates they are about (`proto::fuzzing` and its like), since most of what they call
//! is private. `tests/fuzz/run` builds this with coverage and runs it. A panic, a failed assertion, an input that takes
//! too long and one that makes a target hold too much memory are crashes.

#![no_main]

use std::alloc::System;
use std::sync::LazyLock;

use cap::Cap;
use libfuzzer_sys::fuzz_target;
use proto::fuzzing::Target;

/// What one input may make a target hold, beyond what was held before it.
const MEMORY_BYTES_MAX: usize = 64 << 20;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    let wanted = std::env::var("MINI_TECTONIC_FUZZ_TARGET").expect("MINI_TECTONIC_FUZZ_TARGET names the target");
    let crates = [proto::fuzzing::TARGETS, chunk_service::fuzzing::TARGETS, metadata_service::fuzzing::TARGETS];
    let mut targets = crates.into_iter().flatten();
    targets.find(|target| target.name == wanted).expect("MINI_TECTONIC_FUZZ_TARGET is a target")
});

fuzz_target!(|input: &[u8]| {
    let target = *TARGET;
    let limit = ALLOCATOR.allocated() + MEMORY_BYTES_MAX;
    ALLOCATOR.set_limit(limit).expect("the limit is above what is held");
    (target.run)(input);
    ALLOCATOR.set_limit(usize::MAX).expect("there is no limit between inputs");
});

//! What a service's process sets up before anything else.

use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit, umask};
use tokio::signal::unix::{SignalKind, signal};

/// Keeps every file that the process makes to its owner, also those that libraries make, and raises the limit of open
/// files. Called once, first in `main`.
pub fn prepare() {
    umask(Mode::RWXG | Mode::RWXO);
    raise_limit();
}

/// From now on SIGHUP does not end the process, with or without anything that it is to read again. Called within a runtime,
/// before anything that takes its time.
pub fn outlive_hangups() {
    // Once somebody has listened, the signal does nothing more by itself.
    if let Err(error) = signal(SignalKind::hangup()) {
        tracing::warn!(%error, "SIGHUP will end this process");
    }
}

/// Raises the soft limit of open files, which is often 1,024, to the hard one: sockets, chunks and the engine's files all
/// count. A refusal is logged and no error: with fewer
/// descriptors the process works, until it has too few.
fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(%error, "the limit of open files stays as it was");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The metadata service ran with the 1,024 descriptors that a shell gives, and a few hundred clients took them all.
    #[test]
    fn the_limit_becomes_the_highest_that_is_permitted() {
        let before = getrlimit(Resource::Nofile);
        let lowered = Rlimit { current: before.current.map(|current| current.min(512)), ..before };
        setrlimit(Resource::Nofile, lowered).unwrap();
        raise_limit();
        let after = getrlimit(Resource::Nofile);
        assert_eq!((after.current, after.maximum), (before.maximum, before.maximum));
    }
}

//! How many files a process may hold open: sockets, chunks and the engine's files all count.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit, which is often 1,024, to the hard one. A refusal is logged and no error: with fewer
/// descriptors the process works, until it has too few. Called once, when a process starts.
pub fn raise_limit() {
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

//! Entry points for the fuzzer: see [`proto::fuzzing`]. Not an interface of this crate.

mod commits;
mod damage;
mod page_token;
mod stored;

use proto::fuzzing::Target;

use crate::backup::fuzzing as export;

/// The targets of this crate.
pub const TARGETS: &[Target] = &[
    Target { name: "commits", run: commits::run, seeds: commits::seeds },
    Target { name: "damage", run: damage::run, seeds: damage::seeds },
    Target { name: "export", run: export::run, seeds: export::seeds },
    Target { name: "key", run: stored::key, seeds: stored::key_seeds },
    Target { name: "page_token", run: page_token::run, seeds: page_token::seeds },
    Target { name: "record", run: stored::record, seeds: stored::record_seeds },
];

#[cfg(test)]
mod tests {
    #[test]
    fn every_target_takes_its_corpus() {
        proto::fuzzing::check_corpus(super::TARGETS);
    }
}

//! Entry points for the fuzzer: see [`proto::fuzzing`]. Not an interface of this crate.

mod files;
mod messages;
mod model;
mod script;
mod streams;

use proto::fuzzing::Target;

/// The targets of this crate.
pub const TARGETS: &[Target] = &[
    Target { name: "chk", run: files::chk, seeds: files::chk_seeds },
    Target { name: "frame_stream", run: streams::run, seeds: streams::seeds },
    Target { name: "journal_record", run: files::journal_record, seeds: files::journal_record_seeds },
    Target { name: "node_key", run: files::node_key, seeds: files::node_key_seeds },
    Target { name: "write_request", run: messages::run, seeds: messages::seeds },
];

#[cfg(test)]
mod tests {
    #[test]
    fn every_target_takes_its_corpus() {
        proto::fuzzing::check_corpus(super::TARGETS);
    }
}

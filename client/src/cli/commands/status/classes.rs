//! `status --classes`: what each chunk service does for each class of traffic, and how long jobs wait for its disk.

use std::time::Duration;

use indicatif::HumanBytes;
use proto::pb;

use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::output::{Align, Table, escape};

/// Prints a line for each node and class. The waits are those of the last one to two minutes.
pub(super) fn print(context: &Context, nodes: &[pb::Node]) -> Result<(), Failure> {
    let rows = nodes.iter().flat_map(|node| node.class_loads.iter().map(|load| row(node, load)));
    Table::new(&context.out, HEADINGS).page(&rows.collect::<Vec<_>>())
}

const HEADINGS: [(&str, Align); 9] = [
    ("NODE", Align::Left),
    ("CLASS", Align::Left),
    ("JOBS", Align::Right),
    ("MOVED", Align::Right),
    ("DISK TIME", Align::Right),
    ("WAITING", Align::Right),
    ("QUEUE P50", Align::Right),
    ("QUEUE P99", Align::Right),
    ("LONGEST", Align::Right),
];

fn row(node: &pb::Node, load: &pb::ClassLoad) -> [String; 9] {
    let waited = |us: u64| if load.recent_job_count == 0 { "-".to_owned() } else { time(us) };
    [
        escape(&node.node_id),
        class(load.traffic_class()).to_owned(),
        load.job_count.to_string(),
        HumanBytes(load.moved_bytes).to_string(),
        time(load.disk_time_us),
        load.waiting_count.to_string(),
        waited(load.queue_p50_us),
        waited(load.queue_p99_us),
        waited(load.queue_max_us),
    ]
}

fn class(class: pb::TrafficClass) -> &'static str {
    match class {
        pb::TrafficClass::Unspecified => "unknown",
        pb::TrafficClass::Gold => "gold",
        pb::TrafficClass::Silver => "silver",
        pb::TrafficClass::Bronze => "bronze",
    }
}

/// In milliseconds below ten seconds, else in seconds.
fn time(us: u64) -> String {
    let time = Duration::from_micros(us);
    if time < Duration::from_secs(10) {
        return format!("{:.1} ms", time.as_secs_f64() * 1_000.0);
    }
    format!("{:.1} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_of_which_none_is_known_are_no_zero() {
        let node = pb::Node { node_id: "n".to_owned(), ..Default::default() };
        let load = pb::ClassLoad { traffic_class: 1, job_count: 3, disk_time_us: 12_340_000, ..Default::default() };
        assert_eq!(row(&node, &load), ["n", "gold", "3", "0 B", "12.3 s", "0", "-", "-", "-"].map(str::to_owned));
        let load = pb::ClassLoad { recent_job_count: 1, queue_p50_us: 250, queue_p99_us: 31_000, ..load };
        assert_eq!(row(&node, &load)[6..8], ["0.2 ms", "31.0 ms"].map(str::to_owned));
    }
}

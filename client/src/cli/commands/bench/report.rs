//! What `bench` prints of a phase.

use std::fmt::Write as _;
use std::time::Duration;

use indicatif::HumanBytes;
use serde::Serialize;

use super::listing::Pages;
use super::phase::{Limits, Measured, Tally};
use super::process::{Process, Usage};
use super::sizes::Sizes;
use crate::cli::context::Context;
use crate::cli::failure::Failure;

/// One phase in figures: the object of `--json`.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// What was done.
    operation: &'static str,
    /// The phase, where this is one kind of operation among several.
    #[serde(skip_serializing_if = "Option::is_none")]
    part_of: Option<&'static str>,
    sizes: String,
    concurrency: usize,
    clients: usize,
    /// Objects of each operation.
    batch: u64,
    operations: u64,
    errors: u64,
    bytes: u64,
    entries: u64,
    elapsed_seconds: f64,
    operations_per_second: f64,
    bytes_per_second: f64,
    mib_per_second: f64,
    entries_per_second: f64,
    latency_ms: Latency,
    #[serde(skip_serializing_if = "Option::is_none")]
    page_ms: Option<PageTimes>,
    /// Processor time that the benchmark itself took to make and to compare objects: a part of the client's.
    content_seconds: f64,
    processes: Vec<Taken>,
}

/// Percentiles of the time that successful operations took.
#[derive(Debug, Serialize)]
struct Latency {
    p50: f64,
    p90: f64,
    p99: f64,
    p999: f64,
    max: f64,
}

/// Medians of the first tenth of a list's pages and of the last.
#[derive(Debug, Serialize)]
struct PageTimes {
    first_tenth_p50: f64,
    last_tenth_p50: f64,
}

/// What a process took.
#[derive(Debug, Serialize)]
struct Taken {
    name: String,
    pid: u32,
    cpu_seconds: f64,
    /// Absent where no bytes were moved.
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_seconds_per_gib: Option<f64>,
    cpu_seconds_per_1000_operations: f64,
    /// Since the process began, not since the phase did.
    peak_memory_bytes: u64,
}

/// What a phase was like, and what it cost.
#[derive(Debug)]
pub(super) struct Phase<'a> {
    pub(super) name: &'static str,
    pub(super) sizes: &'a Sizes,
    pub(super) limits: Limits,
    pub(super) clients: usize,
    pub(super) batch: u64,
    pub(super) measured: &'a Measured,
    pub(super) content: Duration,
    pub(super) pages: &'a Pages,
    /// Each with what it had taken when the phase began and when it ended.
    pub(super) processes: &'a [(Process, Usage, Usage)],
}

impl Phase<'_> {
    /// Prints it: as a whole, and by kinds where there is more than one.
    pub(super) fn print(&self, context: &Context) -> Result<(), Failure> {
        self.whole().print(context)?;
        if self.measured.kinds.len() < 2 {
            return Ok(());
        }
        self.measured.kinds.iter().try_for_each(|(kind, tally)| {
            let part = Report { part_of: Some(self.name), ..self.report(kind.word(), tally) };
            part.print(context)
        })
    }

    fn whole(&self) -> Report {
        let total = self.measured.total();
        let taken = |(process, before, after): &(Process, Usage, Usage)| {
            let cpu = after.cpu.saturating_sub(before.cpu).as_secs_f64();
            Taken {
                name: process.name.clone(),
                pid: process.pid,
                cpu_seconds: cpu,
                cpu_seconds_per_gib: (total.bytes > 0).then(|| cpu / (as_f64(total.bytes) / as_f64(1 << 30))),
                cpu_seconds_per_1000_operations: cpu / (as_f64(total.latencies_us.len().max(1)) / 1000.0),
                peak_memory_bytes: after.peak_memory_bytes,
            }
        };
        let page_ms = self.pages.ends().map(|(first, last)| PageTimes {
            first_tenth_p50: first.as_secs_f64() * 1000.0,
            last_tenth_p50: last.as_secs_f64() * 1000.0,
        });
        Report {
            errors: self.measured.errors,
            page_ms,
            content_seconds: self.content.as_secs_f64(),
            processes: self.processes.iter().map(taken).collect(),
            ..self.report(self.name, &total)
        }
    }

    fn report(&self, operation: &'static str, tally: &Tally) -> Report {
        let operations = tally.latencies_us.len();
        let seconds = self.measured.elapsed.as_secs_f64().max(f64::MIN_POSITIVE);
        let per_second = |count| as_f64(count) / seconds;
        Report {
            operation,
            part_of: None,
            sizes: self.sizes.to_string(),
            concurrency: self.limits.concurrency,
            clients: self.clients,
            batch: self.batch,
            operations,
            errors: 0,
            bytes: tally.bytes,
            entries: tally.entries,
            elapsed_seconds: seconds,
            operations_per_second: per_second(operations),
            bytes_per_second: per_second(tally.bytes),
            mib_per_second: per_second(tally.bytes) / as_f64(1 << 20),
            entries_per_second: per_second(tally.entries),
            latency_ms: Latency::of(tally),
            page_ms: None,
            content_seconds: 0.0,
            processes: Vec::new(),
        }
    }
}

impl Latency {
    fn of(tally: &Tally) -> Self {
        let percentile = |quantile| as_f64(tally.latencies_us.value_at_quantile(quantile)) / 1000.0;
        Self {
            p50: percentile(0.50),
            p90: percentile(0.90),
            p99: percentile(0.99),
            p999: percentile(0.999),
            max: as_f64(tally.latencies_us.max()) / 1000.0,
        }
    }
}

impl Report {
    fn print(&self, context: &Context) -> Result<(), Failure> {
        if context.out.json() { context.out.object(self) } else { context.out.line(&self.text()) }
    }

    fn text(&self) -> String {
        let Latency { p50, p90, p99, p999, max } = self.latency_ms;
        let mut text = match self.part_of {
            Some(phase) => format!("  {} in {phase}: ", self.operation),
            None if self.operation == "ping" || self.operation == "list" => {
                format!("{}, {}: ", self.operation, self.at_once())
            }
            None if self.batch > 1 => {
                format!("{} of {} by {}, {}: ", self.operation, self.sizes, self.batch, self.at_once())
            }
            None => format!("{} of {}, {}: ", self.operation, self.sizes, self.at_once()),
        };
        let elapsed = Duration::from_secs_f64(self.elapsed_seconds);
        text += &format!("{} in {elapsed:.2?}, {:.2}/s", self.operations, self.operations_per_second);
        if self.bytes > 0 {
            text += &format!(", {:.2} MiB/s", self.mib_per_second);
        }
        if self.entries > 0 {
            text += &format!(", {:.0} entries/s", self.entries_per_second);
        }
        if self.part_of.is_none() {
            text += &format!(", {} errors", self.errors);
        }
        text +=
            &format!("\n     p50 {p50:.2} ms  p90 {p90:.2} ms  p99 {p99:.2} ms  p99.9 {p999:.2} ms  max {max:.2} ms");
        if let Some(PageTimes { first_tenth_p50, last_tenth_p50 }) = &self.page_ms {
            text += &format!("\n     a page: {first_tenth_p50:.2} ms at the start, {last_tenth_p50:.2} ms at the end");
        }
        self.processes.iter().for_each(|taken| text += &taken.text(self.content_seconds));
        text
    }

    fn at_once(&self) -> String {
        match self.clients {
            1 => format!("{} at once", self.concurrency),
            clients => format!("{} at once from {clients} clients", self.concurrency),
        }
    }
}

impl Taken {
    fn text(&self, content_seconds: f64) -> String {
        let mut text = format!("\n     {:<18} {:.2} s CPU", self.name, self.cpu_seconds);
        let written = self.cpu_seconds_per_gib.map(|per_gib| write!(text, ", {per_gib:.2} s/GiB"));
        debug_assert!(written.is_none_or(|written| written.is_ok()), "writing to a string cannot fail");
        let memory = HumanBytes(self.peak_memory_bytes);
        text += &format!(", {:.3} s per 1,000, peak {memory}", self.cpu_seconds_per_1000_operations);
        if self.pid == std::process::id() && content_seconds > 0.0 {
            text += &format!(", {content_seconds:.2} s of it to make and compare objects");
        }
        text
    }
}

/// Exact up to 2^53, which no count, size or time here comes near.
#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
fn as_f64(number: u64) -> f64 {
    number as f64
}

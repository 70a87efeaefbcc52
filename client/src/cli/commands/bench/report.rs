//! What `bench` prints of a phase.

use std::time::Duration;

use indicatif::HumanBytes;
use serde::Serialize;

use super::phase::Measured;
use crate::cli::context::Context;
use crate::cli::failure::Failure;

/// One phase in figures: the object of `--json`.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    operation: &'static str,
    size_bytes: u64,
    concurrency: usize,
    operations: u64,
    errors: u64,
    elapsed_seconds: f64,
    operations_per_second: f64,
    mib_per_second: f64,
    latency_ms: Latency,
}

/// Percentiles of the time that successful operations took.
#[derive(Debug, Serialize)]
struct Latency {
    p50: f64,
    p90: f64,
    p99: f64,
    max: f64,
}

impl Report {
    /// The figures of what was measured.
    pub(super) fn new(operation: &'static str, size_bytes: u64, concurrency: usize, measured: &Measured) -> Self {
        let operations = measured.latencies_us.len();
        let seconds = measured.elapsed.as_secs_f64().max(f64::MIN_POSITIVE);
        let per_second = as_f64(operations) / seconds;
        let percentile = |quantile| as_f64(measured.latencies_us.value_at_quantile(quantile)) / 1000.0;
        Self {
            operation,
            size_bytes,
            concurrency,
            operations,
            errors: measured.errors,
            elapsed_seconds: seconds,
            operations_per_second: per_second,
            mib_per_second: per_second * as_f64(size_bytes) / f64::from(1024 * 1024),
            latency_ms: Latency {
                p50: percentile(0.50),
                p90: percentile(0.90),
                p99: percentile(0.99),
                max: as_f64(measured.latencies_us.max()) / 1000.0,
            },
        }
    }

    /// Prints it.
    pub(super) fn print(&self, context: &Context) -> Result<(), Failure> {
        if context.out.json() { context.out.object(self) } else { context.out.line(&self.text()) }
    }

    fn text(&self) -> String {
        let Latency { p50, p90, p99, max } = self.latency_ms;
        format!(
            "{} of {}, {} at once: {} in {:.2?}, {:.2}/s, {:.2} MiB/s, {} errors\n     \
             p50 {p50:.2} ms  p90 {p90:.2} ms  p99 {p99:.2} ms  max {max:.2} ms",
            self.operation,
            HumanBytes(self.size_bytes),
            self.concurrency,
            self.operations,
            Duration::from_secs_f64(self.elapsed_seconds),
            self.operations_per_second,
            self.mib_per_second,
            self.errors,
        )
    }
}

/// Exact up to 2^53, which no count, size or time here comes near.
fn as_f64(number: u64) -> f64 {
    let (high, low) = (number >> 32, number & u64::from(u32::MAX));
    let half = |part| f64::from(u32::try_from(part).unwrap_or(u32::MAX));
    half(high) * 4_294_967_296.0 + half(low)
}

//! What was measured, what follows from it, and how it is told.

use std::fmt;
use std::time::Duration;

use mini_tectonic_client::pb;

use crate::load::Kind;

/// By how much gold's reads may be slower than alone: so many times, or so much.
const READS_TIMES: u32 = 2;
const READS_MORE: Duration = Duration::from_millis(5);
/// By how much gold's writes may.
const WRITES_MORE: Duration = Duration::from_millis(50);
/// Percent of what gold leaves that bronze has at least.
const LEFT_PERCENT: f64 = 80.0;

/// What came of one load.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outcome {
    kind: Kind,
    count: u64,
    bytes: u64,
    p50: Duration,
    p99: Duration,
    max: Duration,
}

impl Outcome {
    /// Reads what a load prints at its end.
    pub(crate) fn parse(kind: Kind, line: &str) -> Option<Self> {
        let figures: Vec<u64> = line.split(' ').map(|figure| figure.parse().ok()).collect::<Option<_>>()?;
        let [count, bytes, p50, p99, max] = figures.try_into().ok()?;
        let [p50, p99, max] = [p50, p99, max].map(Duration::from_micros);
        Some(Self { kind, count, bytes, p50, p99, max })
    }
}

/// What the disk did for one class.
#[derive(Debug, Clone, Copy, Default)]
struct Work {
    jobs: u64,
    bytes: u64,
    disk_time: Duration,
}

impl Work {
    fn of(class: pb::TrafficClass, before: &[pb::ClassLoad], after: &[pb::ClassLoad]) -> Self {
        let find = |loads: &[pb::ClassLoad]| {
            loads.iter().find(|load| load.traffic_class() == class).copied().unwrap_or_default()
        };
        let (before, after) = (find(before), find(after));
        Self {
            jobs: after.job_count.saturating_sub(before.job_count),
            bytes: after.moved_bytes.saturating_sub(before.moved_bytes),
            disk_time: Duration::from_micros(after.disk_time_us.saturating_sub(before.disk_time_us)),
        }
    }
}

/// One combination of loads.
#[derive(Debug)]
pub(crate) struct Measured {
    lasts: Duration,
    outcomes: Vec<Outcome>,
    gold: Work,
    bronze: Work,
}

impl Measured {
    /// From what the loads and the chunk service say.
    pub(crate) fn new(
        lasts: Duration,
        outcomes: Vec<Outcome>,
        before: &[pb::ClassLoad],
        after: &[pb::ClassLoad],
    ) -> Self {
        let work = |class| Work::of(class, before, after);
        let (gold, bronze) = (work(pb::TrafficClass::Gold), work(pb::TrafficClass::Bronze));
        Self { lasts, outcomes, gold, bronze }
    }

    fn p99(&self, kind: Kind) -> Duration {
        self.outcomes.iter().find(|outcome| outcome.kind == kind).map_or(Duration::ZERO, |outcome| outcome.p99)
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |time: Duration| time.as_secs_f64() * 1_000.0;
        for Outcome { kind, count, bytes, p50, p99, max } in &self.outcomes {
            let rate = mebibytes(*bytes) / self.lasts.as_secs_f64();
            let (kind, p50, p99, max) = (kind.word(), ms(*p50), ms(*p99), ms(*max));
            writeln!(
                f,
                "    {kind:<12}{count:>7} ops {p50:>9.1} ms p50 {p99:>9.1} ms p99 {max:>9.1} ms max {rate:>7.1} MiB/s"
            )?;
        }
        for (class, Work { jobs, bytes, disk_time }) in [("gold", &self.gold), ("bronze", &self.bronze)] {
            let (moved, time) = (mebibytes(*bytes), disk_time.as_secs_f64());
            writeln!(f, "    disk: {class:<6}{jobs:>7} jobs {moved:>9.1} MiB {time:>8.2} s")?;
        }
        Ok(())
    }
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn float(count: u64) -> f64 {
    count as f64
}

fn mebibytes(bytes: u64) -> f64 {
    float(bytes) / float(1024 * 1024)
}

/// All combinations, with one mode of the scheduler.
#[derive(Debug)]
pub(crate) struct Report {
    /// `on` or `off`.
    pub(crate) scheduler: &'static str,
    /// Gold alone.
    pub(crate) gold: Measured,
    /// Bronze alone.
    pub(crate) bronze: Measured,
    /// Both.
    pub(crate) both: Measured,
}

impl Report {
    /// Percent of what gold leaves that bronze had, both valued at what their work takes alone.
    fn had_of_left(&self) -> f64 {
        let alone = self.bronze.bronze.disk_time.as_secs_f64();
        let of_a_byte = alone / float(self.bronze.bronze.bytes.max(1));
        let of_a_job = self.gold.gold.disk_time.as_secs_f64() / float(self.gold.gold.jobs.max(1));
        let left = alone - of_a_job * float(self.both.gold.jobs);
        100.0 * of_a_byte * float(self.both.bronze.bytes) / left.max(f64::EPSILON)
    }

    /// The bounds that are not kept, in words.
    pub(crate) fn broken(&self) -> Vec<String> {
        let times = |kind| (self.gold.p99(kind), self.both.p99(kind));
        let (reads_alone, reads) = times(Kind::GoldReads);
        let (writes_alone, writes) = times(Kind::GoldWrites);
        let mut broken = Vec::new();
        if reads > (reads_alone * READS_TIMES).max(reads_alone + READS_MORE) {
            broken.push(format!("gold reads: {reads:?} beside {reads_alone:?} alone"));
        }
        if writes > writes_alone + WRITES_MORE {
            broken.push(format!("gold writes: {writes:?} beside {writes_alone:?} alone"));
        }
        if self.had_of_left() < LEFT_PERCENT {
            broken.push(format!("bronze had {:.0} % of what gold left", self.had_of_left()));
        }
        broken
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "scheduler {}", self.scheduler)?;
        for (what, measured) in [("gold alone", &self.gold), ("bronze alone", &self.bronze), ("both", &self.both)] {
            write!(f, "  {what}\n{measured}")?;
        }
        write!(f, "  bronze had {:.0} % of what gold left", self.had_of_left())
    }
}

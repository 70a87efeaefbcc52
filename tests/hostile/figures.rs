//! What came of each attack, whether that is good enough, and how it is told.

use std::fmt;
use std::time::Duration;

use crate::honest::{Done, Percentiles};
use crate::watch::Usage;

/// Memory that an attack may take.
const MEMORY_MORE: u64 = 256 << 20;
/// How much slower honest clients may be, and below which time nobody counts.
const TIMES: u32 = 3;
const UNNOTICED: Duration = Duration::from_millis(50);

/// In this time some honest client has something under way.
const LONG_ENOUGH: Duration = Duration::from_secs(1);
/// Memory that may be kept when an attack is over: what allocators do not give back.
const MEMORY_KEPT: u64 = 128 << 20;
/// Descriptors, threads and open writes that come and go with honest clients.
const COMES_AND_GOES: usize = 48;

/// Whether everything is as it was.
pub(crate) fn is_back(now: Usage, baseline: Usage) -> bool {
    now.memory <= baseline.memory + MEMORY_KEPT
        && now.descriptors <= baseline.descriptors + COMES_AND_GOES
        && now.threads <= baseline.threads + COMES_AND_GOES
        && now.open_writes <= COMES_AND_GOES
        && now.hostile == 0
}

/// One attack.
#[derive(Debug)]
pub(crate) struct Row {
    /// Its name.
    pub(crate) attack: String,
    /// How often it was run.
    pub(crate) runs: usize,
    /// What honest clients did before, while nobody attacked.
    pub(crate) alone: Done,
    /// What they did meanwhile.
    pub(crate) during: Done,
    /// What the services held before anything happened.
    pub(crate) baseline: Usage,
    /// The most that they held meanwhile.
    pub(crate) peak: Usage,
    /// How long the attack was.
    pub(crate) lasted: Duration,
    /// After how long everything was as before, or what was left.
    pub(crate) back: Result<Duration, Usage>,
    /// What the attacker saw, or what was wrong about it.
    pub(crate) seen: Result<String, String>,
}

impl Row {
    /// What is wrong, in words. Times are judged only if asked for.
    pub(crate) fn broken(&self, judges_times: bool) -> Vec<String> {
        let mut broken = Vec::new();
        let mut say = |text: String| broken.push(format!("{}: {text}", self.attack));
        self.during.errors.iter().for_each(|error| say(format!("an honest client failed: {error}")));
        if self.lasted > LONG_ENOUGH && self.during.gets().count + self.during.puts().count == 0 {
            say("honest clients did nothing".to_owned());
        }
        if self.peak.memory > self.baseline.memory + MEMORY_MORE {
            say(format!("memory rose from {} to {}", self.baseline, self.peak));
        }
        if let Err(left) = self.back {
            say(format!("it was {} and stays {left}", self.baseline));
        }
        if let Err(wrong) = &self.seen {
            say(wrong.clone());
        }
        if judges_times {
            self.slower().into_iter().for_each(say);
        }
        broken
    }

    /// Which times of honest clients were beyond their bound, in words.
    pub(crate) fn slower(&self) -> Vec<String> {
        let beyond = |(_, alone, during): &(_, Percentiles, Percentiles)| during.p99 > UNNOTICED.max(alone.p99 * TIMES);
        let told = |(what, alone, during): (_, Percentiles, Percentiles)| {
            format!("p99 of {what} went from {:?} to {:?}", alone.p99, during.p99)
        };
        self.times().into_iter().filter(beyond).map(told).collect()
    }

    /// Adds another run of the same attack: what either did wrong stays, and times are those of both, as those before are.
    pub(crate) fn add(&mut self, again: Self) {
        self.runs += again.runs;
        self.alone.add(again.alone);
        self.during.add(again.during);
        self.peak = self.peak.max(again.peak);
        self.lasted += again.lasted;
        self.back = match (self.back, again.back) {
            (Ok(first), Ok(second)) => Ok(first.max(second)),
            (Err(left), _) | (_, Err(left)) => Err(left),
        };
        if self.seen.is_ok() {
            self.seen = again.seen;
        }
    }

    fn times(&self) -> [(&'static str, Percentiles, Percentiles); 2] {
        let (alone, during) = (&self.alone, &self.during);
        [("puts", alone.puts(), during.puts()), ("gets", alone.gets(), during.gets())]
    }
}

/// The first lines of the table.
pub(crate) const HEAD: &str = "\
                                 honest: operations, ms at p50 and p99 (p99 alone), ratio     services at most
attack             runs seconds  errors  puts   p50    p99  (alone) ratio  gets   p50    p99  (alone) ratio  +MiB    fds  thr  conns  back  seen";

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |time: Duration| time.as_secs_f64() * 1_000.0;
        let errors = self.during.errors.len();
        write!(f, "{:<18} {:>4} {:>7.1} {errors:>7}", self.attack, self.runs, self.lasted.as_secs_f64())?;
        for (_, alone, during) in self.times() {
            let (Percentiles { count, p50, p99 }, p99_alone) = (during, ms(alone.p99));
            let ratio = ms(p99) / p99_alone.max(f64::EPSILON);
            write!(f, " {count:>5} {:>5.0} {:>6.0} {:>8} {ratio:>5.1}", ms(p50), ms(p99), format!("({p99_alone:.0})"))?;
        }
        let Usage { memory, descriptors, threads, hostile, .. } = self.peak;
        let more = memory.saturating_sub(self.baseline.memory) >> 20;
        write!(f, " {more:>5} {descriptors:>6} {threads:>4} {hostile:>6}")?;
        match self.back {
            Ok(after) => write!(f, " {:>4.1}s", after.as_secs_f64())?,
            Err(_) => f.write_str(" never")?,
        }
        match &self.seen {
            Ok(seen) => write!(f, "  {seen}"),
            Err(wrong) => write!(f, "  WRONG: {wrong}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(millis: impl Iterator<Item = u64>) -> Row {
        let during = Done::of_gets(millis.map(Duration::from_millis).collect());
        let alone = Done::of_gets(vec![Duration::from_millis(20)]);
        Row {
            attack: "an-attack".to_owned(),
            runs: 1,
            alone,
            during,
            baseline: Usage::default(),
            peak: Usage::default(),
            lasted: Duration::from_secs(1),
            back: Ok(Duration::ZERO),
            seen: Ok(String::new()),
        }
    }

    #[test]
    fn what_befell_one_run_is_not_the_attacks_but_what_every_run_shows_is() {
        let (fast, stalled) = (|| [5].into_iter().cycle().take(500), || [200].into_iter().cycle().take(20));
        let mut once = row(fast().chain(stalled()));
        assert_eq!(once.slower().len(), 1);
        (0..4).for_each(|_| once.add(row(fast())));
        assert_eq!((once.runs, once.broken(true)), (5, Vec::new()));

        let mut always = row(fast().chain(stalled()));
        (0..4).for_each(|_| always.add(row(fast().chain(stalled()))));
        assert_eq!((always.broken(true).len(), always.broken(false).len()), (1, 0));
    }

    #[test]
    fn what_a_run_did_wrong_stays_whatever_the_next_one_shows() {
        let mut first = row([5].into_iter());
        first.seen = Err("it was let in".to_owned());
        first.back = Err(Usage { memory: 1 << 30, ..Usage::default() });
        first.add(row([5].into_iter()));
        assert_eq!(first.broken(true).len(), 2);
    }
}

//! What a process takes from the machine, read from `/proc`. On systems without it nothing is known.

use std::time::Duration;

/// A process that is watched.
#[derive(Debug, Clone)]
pub(super) struct Process {
    pub(super) name: String,
    pub(super) pid: u32,
}

/// What it has taken since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Usage {
    /// Processor time, in the program and in the system for it.
    pub(super) cpu: Duration,
    /// The most memory that it ever had resident, in bytes.
    pub(super) peak_memory_bytes: u64,
}

impl Process {
    /// This process.
    pub(super) fn this(name: &str) -> Self {
        Self { name: name.to_owned(), pid: std::process::id() }
    }

    /// A process that runs, named as its program. `None` when there is none of this number.
    pub(super) fn of_pid(pid: u32) -> Option<Self> {
        // The name that the system keeps ends after 15 bytes.
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let program = line.split(|byte| *byte == 0).next()?.rsplit(|byte| *byte == b'/').next()?;
        Some(Self { name: String::from_utf8_lossy(program).into_owned(), pid })
    }

    /// What it has taken so far. `None` when it has ended, or the system does not say.
    pub(super) fn usage(&self) -> Option<Usage> {
        let read = |file: &str| std::fs::read_to_string(format!("/proc/{}/{file}", self.pid)).ok();
        let ticks = ticks_in(&read("stat")?)?;
        let peak_memory_bytes = peak_memory_in(&read("status")?)?;
        Some(Usage { cpu: time_of(ticks, rustix::param::clock_ticks_per_second()), peak_memory_bytes })
    }
}

/// User and system time in `/proc/<pid>/stat`. The name before them, in parentheses, may hold anything.
fn ticks_in(stat: &str) -> Option<u64> {
    const FIRST_AFTER_NAME: usize = 3;
    const USER_TIME: usize = 14;
    let (_name, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(USER_TIME - FIRST_AFTER_NAME);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some(next()? + next()?)
}

/// The peak of resident memory in `/proc/<pid>/status`, in bytes.
fn peak_memory_in(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

fn time_of(ticks: u64, per_second: u64) -> Duration {
    Duration::from_micros(ticks.saturating_mul(1_000_000) / per_second.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_a_name_of_any_kind() {
        let stat = "77 (a) R (b) S 1 77 77 0 -1 4194560 9 8 7 6 250 50 3 2 20 0 9 0 12345 1 2 3";
        assert_eq!(ticks_in(stat), Some(300));
        assert_eq!(time_of(300, 100), Duration::from_secs(3));
        for bad in ["", "77 (a) S 1 2", "77 a S 1 77 77 0 -1 4194560 9 8 7 6 250 50"] {
            assert_eq!(ticks_in(bad), None, "{bad}");
        }
    }

    #[test]
    fn peak_memory_is_read_in_bytes() {
        assert_eq!(peak_memory_in("VmPeak:\t  9 kB\nVmHWM:\t  1024 kB\nVmRSS:\t 3 kB\n"), Some(1024 * 1024));
        assert_eq!(peak_memory_in("VmRSS:\t 3 kB\n"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_takes_memory_and_time() {
        let usage = Process::this("test").usage().unwrap();
        assert!(usage.peak_memory_bytes > 100_000);
        let named = Process::of_pid(std::process::id()).unwrap();
        assert!(named.name.starts_with("mini_tectonic_rs-"), "{}", named.name);
        assert!(Process::of_pid(u32::MAX).is_none());
    }
}

//! What the services take from the machine, read from `/proc` and their folder while they run.

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::task::JoinSet;

use crate::services::Services;

/// How often it is read.
const INTERVAL: Duration = Duration::from_millis(100);
/// In `/proc/net/tcp`, the state of a connection that is over and only remembered.
const TIME_WAIT: &str = "06";
/// An empty place there.
const LISTEN: &str = "0A";

/// What both services hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Resident memory, in bytes: that of the larger one.
    pub(crate) memory: u64,
    /// Descriptors of both.
    pub(crate) descriptors: usize,
    /// Threads of both.
    pub(crate) threads: usize,
    /// Connections that come from hostile addresses.
    pub(crate) hostile: usize,
    /// Writes that are not complete: chunks without a checksum file.
    pub(crate) open_writes: usize,
}

impl Usage {
    /// The larger of each.
    pub(crate) fn max(self, other: Self) -> Self {
        Self {
            memory: self.memory.max(other.memory),
            descriptors: self.descriptors.max(other.descriptors),
            threads: self.threads.max(other.threads),
            hostile: self.hostile.max(other.hostile),
            open_writes: self.open_writes.max(other.open_writes),
        }
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { memory, descriptors, threads, hostile, open_writes } = self;
        let memory = memory >> 20;
        write!(f, "{memory} MiB, {descriptors} descriptors, {threads} threads, ")?;
        write!(f, "{hostile} hostile connections, {open_writes} open writes")
    }
}

/// Where it is read.
#[derive(Debug, Clone)]
pub(crate) struct Gauge {
    pids: [u32; 2],
    ports: [u16; 2],
    chunks: PathBuf,
}

impl Gauge {
    /// Of these services.
    pub(crate) fn new(services: &Services) -> Self {
        let both = [&services.metadata, &services.chunk];
        Self {
            pids: both.map(|service| service.pid),
            ports: both.map(|service| service.address.port()),
            chunks: services.chunks(),
        }
    }

    /// What they hold now.
    pub(crate) fn read(&self) -> Result<Usage> {
        let mut usage = Usage { open_writes: open_writes(&self.chunks)?, ..Usage::default() };
        for pid in self.pids {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("a service's status")?;
            let number = |name: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(name));
                line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0_usize)
            };
            usage.memory = usage.memory.max(number("VmRSS:") as u64 * 1024);
            usage.threads += number("Threads:");
            usage.descriptors += std::fs::read_dir(format!("/proc/{pid}/fd")).context("its descriptors")?.count();
        }
        let table = std::fs::read_to_string("/proc/net/tcp").context("the table of connections")?;
        usage.hostile = table.lines().filter(|line| is_hostile(line, self.ports)).count();
        Ok(usage)
    }
}

/// Whether a line of `/proc/net/tcp` is a connection of a service with 127.0.0.2 to 127.0.0.9.
fn is_hostile(line: &str, ports: [u16; 2]) -> bool {
    let mut words = line.split_whitespace().skip(1);
    let (Some(local), Some(remote), Some(state)) = (words.next(), words.next(), words.next()) else { return false };
    let port = local.split_once(':').and_then(|(_, port)| u16::from_str_radix(port, 16).ok());
    let address = remote.split_once(':').and_then(|(address, _)| u32::from_str_radix(address, 16).ok());
    let [a, b, c, d] = address.unwrap_or_default().to_le_bytes();
    let counts = state != TIME_WAIT && state != LISTEN && port.is_some_and(|port| ports.contains(&port));
    counts && [a, b, c] == [127, 0, 0] && (2..=9).contains(&d)
}

fn open_writes(chunks: &Path) -> Result<usize> {
    let mut names = HashSet::new();
    for entry in std::fs::read_dir(chunks).context("the folder of chunks")? {
        names.insert(entry?.file_name().to_string_lossy().into_owned());
    }
    let open = |name: &&String| name.ends_with(".blob") && !names.contains(&format!("{name}.chk"));
    Ok(names.iter().filter(open).count())
}

/// Reads it again and again.
#[derive(Debug)]
pub(crate) struct Peaks {
    peak: Arc<Mutex<Usage>>,
    /// Ends when this is dropped.
    _reading: JoinSet<()>,
}

impl Peaks {
    /// Begins.
    pub(crate) fn start(gauge: Gauge) -> Self {
        let peak = Arc::<Mutex<Usage>>::default();
        let kept = Arc::clone(&peak);
        let mut interval = tokio::time::interval(INTERVAL);
        let mut reading = JoinSet::new();
        reading.spawn(async move {
            loop {
                interval.tick().await;
                // A service that has ended is found elsewhere.
                if let Ok(usage) = gauge.read() {
                    let mut peak = kept.lock().unwrap_or_else(PoisonError::into_inner);
                    *peak = peak.max(usage);
                }
            }
        });
        Self { peak, _reading: reading }
    }

    /// The most since the last time.
    pub(crate) fn take(&self) -> Usage {
        std::mem::take(&mut *self.peak.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_living_connections_from_hostile_addresses_to_a_service_are_hostile() {
        let line =
            |local: &str, remote: &str, state: &str| format!("  12: {local} {remote} {state} 00000000:00000000 0");
        let ports = [0x1234, 0x4321];
        assert!(is_hostile(&line("0100007F:1234", "0200007F:9999", "01"), ports));
        assert!(is_hostile(&line("0100007F:4321", "0900007F:9999", "08"), ports));
        assert!(!is_hostile(&line("0100007F:1234", "0200007F:9999", "06"), ports), "over");
        assert!(!is_hostile(&line("0100007F:1234", "0100007F:9999", "01"), ports), "honest");
        assert!(!is_hostile(&line("0100007F:1235", "0200007F:9999", "01"), ports), "of something else");
        assert!(!is_hostile("  sl  local_address rem_address   st", ports));
    }
}

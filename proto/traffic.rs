//! How urgent a tenant's traffic is.

use crate::pb;

/// A class of traffic. A tenant has one, and each of its calls may ask for a lower one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum TrafficClass {
    /// Latency comes first.
    Gold,
    /// Normal.
    #[default]
    Silver,
    /// Background; all work of the services' own is.
    Bronze,
}

impl TrafficClass {
    /// Every class, the most urgent first.
    pub const ALL: [Self; 3] = [Self::Gold, Self::Silver, Self::Bronze];

    /// Place in [`TrafficClass::ALL`].
    pub fn index(self) -> usize {
        match self {
            Self::Gold => 0,
            Self::Silver => 1,
            Self::Bronze => 2,
        }
    }

    /// The less urgent of two.
    #[must_use]
    pub fn lower(self, other: Self) -> Self {
        if self.index() > other.index() { self } else { other }
    }

    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gold => "gold",
            Self::Silver => "silver",
            Self::Bronze => "bronze",
        }
    }

    /// The class of this number in a message; `None` when it says nothing.
    ///
    /// # Errors
    /// [`UnknownClass`].
    pub fn from_wire(number: i32) -> Result<Option<Self>, UnknownClass> {
        match pb::TrafficClass::try_from(number).map_err(|_unknown| UnknownClass)? {
            pb::TrafficClass::Unspecified => Ok(None),
            pb::TrafficClass::Gold => Ok(Some(Self::Gold)),
            pb::TrafficClass::Silver => Ok(Some(Self::Silver)),
            pb::TrafficClass::Bronze => Ok(Some(Self::Bronze)),
        }
    }
}

impl From<TrafficClass> for pb::TrafficClass {
    fn from(class: TrafficClass) -> Self {
        match class {
            TrafficClass::Gold => Self::Gold,
            TrafficClass::Silver => Self::Silver,
            TrafficClass::Bronze => Self::Bronze,
        }
    }
}

/// What a node does for one class. A job is what it asks of its disk in one go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClassLoad {
    /// The class.
    pub class: TrafficClass,
    /// Jobs that have ended since the node started.
    pub jobs: u64,
    /// Bytes that they read or wrote.
    pub moved_bytes: u64,
    /// Microseconds that they took; of jobs at the same time each counts.
    pub disk_time_us: u64,
    /// Jobs that wait for their turn now.
    pub waiting: u64,
    /// Jobs whose turn came lately; the times below are theirs.
    pub recent_jobs: u64,
    /// Half of them waited for no longer than this, in microseconds.
    pub queue_p50_us: u64,
    /// 99 of 100 waited for no longer than this, in microseconds.
    pub queue_p99_us: u64,
    /// None waited for longer, in microseconds.
    pub queue_max_us: u64,
}

impl From<ClassLoad> for pb::ClassLoad {
    fn from(load: ClassLoad) -> Self {
        Self {
            traffic_class: pb::TrafficClass::from(load.class).into(),
            job_count: load.jobs,
            moved_bytes: load.moved_bytes,
            disk_time_us: load.disk_time_us,
            waiting_count: load.waiting,
            recent_job_count: load.recent_jobs,
            queue_p50_us: load.queue_p50_us,
            queue_p99_us: load.queue_p99_us,
            queue_max_us: load.queue_max_us,
        }
    }
}

impl ClassLoad {
    /// What a message says; `None` when it names no class that is known here.
    pub fn from_wire(load: &pb::ClassLoad) -> Option<Self> {
        Some(Self {
            class: TrafficClass::from_wire(load.traffic_class).ok()??,
            jobs: load.job_count,
            moved_bytes: load.moved_bytes,
            disk_time_us: load.disk_time_us,
            waiting: load.waiting_count,
            recent_jobs: load.recent_job_count,
            queue_p50_us: load.queue_p50_us,
            queue_p99_us: load.queue_p99_us,
            queue_max_us: load.queue_max_us,
        })
    }
}

/// A number that no class has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a class that exists")]
pub struct UnknownClass;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_is_the_same_on_the_other_side_and_the_lower_of_two_is_the_less_urgent() {
        for (index, class) in TrafficClass::ALL.into_iter().enumerate() {
            assert_eq!(TrafficClass::from_wire(pb::TrafficClass::from(class).into()), Ok(Some(class)));
            assert_eq!(class.index(), index);
            assert_eq!(class.lower(TrafficClass::Bronze), TrafficClass::Bronze);
            assert_eq!(TrafficClass::Gold.lower(class), class);
        }
        assert_eq!(TrafficClass::from_wire(0), Ok(None));
        assert_eq!(TrafficClass::from_wire(9), Err(UnknownClass));
    }
}

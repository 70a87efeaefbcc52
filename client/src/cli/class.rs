//! Classes of traffic on the command line.

use clap::{Args, ValueEnum};
use mini_tectonic_client::TrafficClass;

/// A class of traffic.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Class {
    /// Latency comes first.
    Gold,
    /// Normal.
    Silver,
    /// Background.
    Bronze,
}

impl From<Class> for TrafficClass {
    fn from(class: Class) -> Self {
        match class {
            Class::Gold => Self::Gold,
            Class::Silver => Self::Silver,
            Class::Bronze => Self::Bronze,
        }
    }
}

/// How urgent a transfer is.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(crate) struct ClassArg {
    /// How urgent it is; the tenant's own class when not given, and never above that.
    #[arg(long, value_enum)]
    pub(crate) class: Option<Class>,
}

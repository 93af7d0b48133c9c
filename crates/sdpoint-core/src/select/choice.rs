//! The selected instance and the reason.

use std::fmt;
use std::time::Duration;

use super::format_duration;
use crate::cost::format_macs;
use crate::instance::Instance;

/// The instance selected for a budget. Its `Display` form gives the reason.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Choice {
    /// The instance.
    pub instance: Instance,
    /// Its multiply-accumulates per image.
    pub macs: u64,
    /// Its multiply-accumulates as a share of the most expensive instance's.
    pub share: f64,
    /// Its measured top-1 accuracy, 0 to 1.
    pub top1: Option<f64>,
    /// Its latency, if known.
    pub time: Option<Duration>,
    /// Why it was selected.
    pub reason: Reason,
}

/// Why an instance was selected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// It was requested by name.
    Requested,
    /// Of those that fit and were measured, it is the most accurate.
    MostAccurate {
        /// How many instances fit.
        fitting: usize,
    },
    /// Of those that are accurate enough, it is the cheapest.
    Cheapest {
        /// How many instances are accurate enough.
        fitting: usize,
    },
    /// None of those that fit was measured; it is the most expensive.
    MostExpensive {
        /// How many instances fit.
        fitting: usize,
    },
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} MACs, {:.1}% of full",
            self.instance,
            format_macs(self.macs),
            100.0 * self.share
        )?;
        if let Some(time) = self.time {
            write!(f, ", {}", format_duration(time))?;
        }
        if let Some(top1) = self.top1 {
            write!(f, ", {:.2}% accurate on held-out images", 100.0 * top1)?;
        }
        match self.reason {
            Reason::Requested => f.write_str("; requested by name"),
            Reason::MostAccurate { fitting: 1 } | Reason::MostExpensive { fitting: 1 } => {
                f.write_str("; the only one that fits")
            }
            Reason::Cheapest { fitting: 1 } => {
                f.write_str("; the only one that is accurate enough")
            }
            Reason::MostAccurate { fitting } => {
                write!(f, "; the most accurate of the {fitting} that fit")
            }
            Reason::Cheapest { fitting } => {
                write!(
                    f,
                    "; the cheapest of the {fitting} that are accurate enough"
                )
            }
            Reason::MostExpensive { fitting } => write!(
                f,
                "; the most expensive of the {fitting} that fit, none of which was evaluated"
            ),
        }
    }
}

//! The inputs of decisions besides the queue.

use sdpoint::Pace;

use super::{Costs, Waiting};

/// The state of a model and of the machine at the time of a decision.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// The time.
    pub now: f64,
    /// The costs of the model.
    pub costs: &'a Costs,
    /// How fast the machine is.
    pub pace: &'a Pace,
    /// The forecast of future requests.
    pub outlook: Outlook,
    /// The ratio of the time until this model's next turn to its compute time: the number of
    /// models with work, or more if requests and answers take time between batches, or if the
    /// process has to sleep because its CPU quota is below a core.
    pub share: f64,
    /// The latest time at which the other models need the machine.
    pub wanted: f64,
}

/// A forecast of future requests, and how the policy reacts to it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outlook {
    /// The number of images to leave room for.
    pub room: f64,
    /// The share of slack; see [`Policy::use_of_slack`](super::Policy::use_of_slack).
    pub use_of_slack: f64,
    /// To what extent admission assumes that later requests fill up batches, from 0 to 1.
    pub fill: f64,
}

impl Outlook {
    /// No future requests; all slack is used.
    pub const QUIET: Self = Self {
        room: 0.0,
        use_of_slack: 1.0,
        fill: 0.0,
    };
}

#[cfg(test)]
impl<'a> Situation<'a> {
    /// One model on a machine of its own, without future requests.
    pub(super) fn quiet(now: f64, costs: &'a Costs, pace: &'a Pace) -> Self {
        Self {
            now,
            costs,
            pace,
            outlook: Outlook::QUIET,
            share: 1.0,
            wanted: f64::INFINITY,
        }
    }
}

impl Situation<'_> {
    /// The usable part of the time until a deadline.
    pub(super) fn usable(&self, deadline: f64) -> f64 {
        self.outlook.use_of_slack * (deadline - self.now) / self.share
    }
}

/// Requests that share the machine's time equally, as far as their demands allow.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Crowd {
    /// The number of images whose requests allow the cheapest instance.
    flexible: usize,
    /// The time of all others, in seconds.
    pub fixed: f64,
}

impl Crowd {
    pub fn add<T>(&mut self, waiting: &Waiting<T>, pace: &Pace) {
        if waiting.flexible {
            self.flexible += waiting.request.images;
        } else {
            self.fixed += pace.expected(waiting.work());
        }
    }

    /// The number of images that share the time, with those to leave room for.
    pub fn images(&self, outlook: &Outlook) -> f64 {
        self.flexible as f64 + outlook.room
    }

    /// The time per image with which all are answered after `usable` seconds.
    pub fn fair_cost(&self, usable: f64, outlook: &Outlook) -> f64 {
        let left = usable - self.fixed;
        match self.flexible {
            0 if left >= 0.0 => f64::INFINITY,
            0 => 0.0,
            _ => left / self.images(outlook),
        }
    }
}

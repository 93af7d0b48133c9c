//! What decisions depend on besides the queue.

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
    /// What is expected of requests to come.
    pub outlook: Outlook,
    /// The number of models that have something to do.
    pub models: usize,
    /// The time between the starts of two batches, relative to the time of a
    /// batch: 1, or more where the machine has to rest because the system allows
    /// less than a core.
    pub duty: f64,
    /// When the other models need the machine, at the latest.
    pub wanted: f64,
}

/// What is expected of requests to come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outlook {
    /// Images that are expected to join those that wait.
    pub to_come: f64,
    /// The share of everyone's slack that a batch plans to use.
    pub use_of_slack: f64,
    /// To what extent batches are assumed to be filled up by requests that come
    /// later, from 0 to 1.
    pub fill: f64,
}

impl Outlook {
    /// No further requests, and all slack used.
    pub const QUIET: Self = Self {
        to_come: 0.0,
        use_of_slack: 1.0,
        fill: 0.0,
    };
}

impl Situation<'_> {
    /// The time until a deadline that may be used.
    pub(super) fn usable(&self, deadline: f64) -> f64 {
        self.outlook.use_of_slack * (deadline - self.now) / self.share()
    }

    /// How many times longer than the computation it takes until the machine is
    /// there for this model again.
    pub(super) fn share(&self) -> f64 {
        self.duty * self.models.max(1) as f64
    }
}

/// Requests that are to be answered one after the other, at the same cost as far
/// as they allow it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Crowd {
    /// Images of requests that any instance may answer.
    flexible: usize,
    /// The time of those that allow no cheap instance, in seconds.
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

    /// Images that share the cost, with those that are expected.
    pub fn images(&self, outlook: &Outlook) -> f64 {
        self.flexible as f64 + outlook.to_come
    }

    /// The time an image at which all are answered after `usable` seconds.
    pub fn fair_cost(&self, usable: f64, outlook: &Outlook) -> f64 {
        let left = usable - self.fixed;
        match self.flexible {
            0 if left >= 0.0 => f64::INFINITY,
            0 => 0.0,
            _ => left / self.images(outlook),
        }
    }
}

//! Decides which requests are accepted, which run next, and in which instance.
//!
//! Everything here is a function of a state, without clock, threads or engine. Times are
//! seconds on the caller's clock: a real one in the executor, a simulated one in
//! [`simulation`](crate::simulation). `docs/controller.md` explains the policy.

mod admit;
mod controller;
mod costs;
mod demand;
mod load;
mod plan;
mod reconsider;
mod reserve;
mod salvage;
mod situation;
mod slack;
#[cfg(test)]
mod tests;

mod traffic;
mod waiting;

pub use admit::Refused;
pub use controller::{Batch, Controller, Due, ModelId, Shed};
pub use costs::{Choice, Costs};
pub use demand::Demand;
pub use plan::{Plan, plan};
pub use reconsider::{Running, reconsider};
pub use situation::{Outlook, Situation};
pub use waiting::{Request, Waiting};

/// The parameters of the policy. `docs/controller.md` has the simulations behind the
/// defaults.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Policy {
    /// The range of the share of slack: the part of the time until their deadlines that
    /// the queued requests together may plan to use.
    pub use_of_slack: [f64; 2],
    /// The price of accuracy: the share of requests that may be refused although a server
    /// that always runs the cheapest instance would have accepted them. It is divided by
    /// the burstiness, because bursts cause further misses that this does not count.
    pub price: f64,
    /// The room that is left for future requests, in standard deviations of the number
    /// that arrive within an objective.
    pub caution: f64,
    /// The time constant of the estimate of the arrival rate, in objectives.
    pub memory: f64,
    /// The limit on queued images of a model. Further requests are refused.
    pub most_waiting: usize,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            use_of_slack: [0.1, 1.1],
            price: 0.0005,
            caution: 0.3,
            memory: 0.2,
            most_waiting: 4096,
        }
    }
}

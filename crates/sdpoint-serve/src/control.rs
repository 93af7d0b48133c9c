//! Which requests are taken, which run next, and in which instance.
//!
//! Everything here is a function of a state: there is no clock, no thread and no
//! engine. Times are seconds on whatever clock the caller has; the executor has a
//! real one, [`simulation`](crate::simulation) a simulated one. `docs/controller.md`
//! explains the policy.

mod admit;
mod controller;
mod costs;
mod demand;
mod plan;
mod reconsider;
mod situation;
#[cfg(test)]
mod tests;
mod thrift;
mod traffic;
mod waiting;

pub use admit::Refused;
pub use controller::{Batch, Controller, ModelId, Shed};
pub use costs::{Choice, Costs};
pub use demand::Demand;
pub use plan::{Plan, plan};
pub use reconsider::{Running, reconsider};
pub use situation::{Outlook, Situation};
pub use waiting::{Request, Waiting};

/// The parameters of the policy. `docs/controller.md` has the simulations that the
/// defaults come from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Policy {
    /// The share of the time left to everyone who waits that a batch plans to use:
    /// the least and the most.
    pub use_of_slack: [f64; 2],
    /// The price of accuracy: the share of requests that may be refused although a
    /// server that always ran the cheapest instance would have taken them.
    pub price: f64,
    /// How much room is left for requests to come: so many standard deviations of
    /// the number that arrive within an objective.
    pub caution: f64,
    /// The time constant of the present rate, as a share of the same time.
    pub memory: f64,
    /// The most images that wait for a model. Further requests are refused.
    pub most_waiting: usize,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            use_of_slack: [0.3, 1.1],
            price: 0.005,
            caution: 0.3,
            memory: 0.2,
            most_waiting: 4096,
        }
    }
}

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
mod traffic;
mod waiting;

pub use admit::Refused;
pub use controller::{Batch, Controller, ModelId, Shed};
pub use costs::{Choice, Costs};
pub use demand::Demand;
pub use plan::{Plan, plan};
pub use reconsider::{Running, reconsider};
pub use situation::{Outlook, Situation};
pub use traffic::Traffic;
pub use waiting::{Request, Waiting};

/// The parameters of the policy. `docs/controller.md` has the simulations that the
/// defaults come from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Policy {
    /// The share of the time left to everyone who waits, and to those who are
    /// expected, that a batch plans to use, from 0 to 1.
    pub use_of_slack: f64,
    /// For how long arrivals are expected to continue at their present rate, as a
    /// share of the time from arrival to deadline.
    pub foresight: f64,
    /// The time constant of the present rate, as a share of the same time.
    pub memory: f64,
    /// How much less slack is used when requests are being refused: with 5 and a
    /// fifth of the requests refused, half.
    pub restraint: f64,
    /// The most images that wait for a model. Further requests are refused.
    pub most_waiting: usize,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            use_of_slack: 0.95,
            foresight: 0.3,
            memory: 0.2,
            restraint: 5.0,
            most_waiting: 4096,
        }
    }
}

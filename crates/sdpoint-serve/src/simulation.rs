//! Runs the controller in simulated time, under random arrivals.
//!
//! The decisions are those of the server; the machine is simulated.

mod arrivals;
mod bound;
mod compare;
mod ideal;
mod machine;
mod run;

pub use arrivals::{Arrivals, Phase};
pub use bound::{Mixture, fluid_bound};
pub use compare::{Comparison, Scenario};
pub use ideal::{Ideal, ideal};
pub use machine::{Machine, example_costs};
pub use run::{Load, Outcome, Report, simulate};

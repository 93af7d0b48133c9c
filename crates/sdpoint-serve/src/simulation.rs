//! The controller in imagined time, under arrivals that are drawn at random.

mod arrivals;
mod bound;
mod ideal;
mod machine;
mod run;

pub use arrivals::{Arrivals, Phase};
pub use bound::{Mixture, fluid_bound};
pub use ideal::{Ideal, ideal};
pub use machine::{Machine, example_costs};
pub use run::{Load, Outcome, Report, simulate};

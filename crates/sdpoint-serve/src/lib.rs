//! A server for networks whose inference cost is chosen at run time.
//!
//! Under overload, a fixed network answers late or not at all. This server answers in
//! time with a cheaper instance of the same weights: each request has a deadline, and
//! the controller gives the most accurate answers that all deadlines allow.
//!
//! From the outside in: `net` accepts connections and limits them; `protocol` (the Open
//! Inference Protocol over REST and gRPC, and `/predict`) turns requests into [`Job`]s;
//! the [`Scheduler`] queues jobs, refuses those that cannot be answered in time, and runs
//! batches; [`control`] decides, as pure functions of a state, which batch runs next and
//! in which instance. [`simulation`] runs the same decisions in simulated time.

mod app;
mod clients;
pub mod control;
mod cpu_quota;
mod decode;
mod delivery;
mod executor;
mod job;
mod limits;
mod memory;
mod metrics;
mod models;
mod net;
pub mod page;
mod protocol;
mod recent;
mod scheduler;
mod server;
pub mod simulation;
mod statistics;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use delivery::Sent;
pub use executor::{Answering, Executor};
pub use job::{Constraints, Input, Job, Mode, Refusal, Reply};
pub use limits::Limits;
pub use metrics::Metrics;
pub use models::{ModelError, NameError, Registry, check_name};
pub use net::origin::Origin;
pub use net::token::{TokenError, Tokens};
pub use scheduler::{BatchReport, Computing, Dropped, Observer, Scheduler, SchedulerOptions};
pub use server::{Addresses, Handle, Lost, Options, ServeError, Server};

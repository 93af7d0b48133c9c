//! By how much a request may exceed its deadline, or the server's objective.

use super::super::Demand;
use super::{Controller, ModelId};

/// The time in which a request should be answered, in seconds from now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Due {
    /// Until its own deadline, which an idle machine at its usual pace can meet.
    Deadline(f64),
    /// The server's objective, as the request has no deadline of its own.
    Objective(f64),
}

impl<T> Controller<T> {
    /// The [grace](super::Request::grace) of a request of so many images, which may be more than a
    /// batch holds.
    ///
    /// A request with a deadline of its own is tried while nothing is queued or computed, even if by
    /// the pace that was learned last it will be late: that costs no other request anything, and if
    /// what slowed the machine is gone, only a batch can show it.
    ///
    /// The objective sheds load, but whoever sends a request without a deadline wants an answer. So
    /// where there is no load to shed, the answer comes late instead of never:
    ///
    /// - While no request is queued, one is accepted whatever its time. While many are being
    ///   refused, this needs an idle machine: a request for which the current batch leaves no time
    ///   would take the place of the next one, which can be in time.
    /// - A request that cannot be answered within the objective even by itself has the time for
    ///   itself and for another one like it, so that requests of this kind queue up no further.
    ///
    /// # Panics
    /// If there is no such model.
    pub fn grace(&self, now: f64, id: ModelId, images: usize, demand: &Demand, due: Due) -> f64 {
        let (model, share) = (&self.models[&id], self.share(id));
        let is_free = self.is_idle() && self.current.is_none();
        let is_calm = self.is_idle() && model.traffic.overload() == 0.0;
        let (Due::Deadline(seconds) | Due::Objective(seconds)) = due;
        let alone = model.pace.expected(model.costs.alone(demand, images)) * share;
        let load = model.load(now, share);
        let promise = model.reserve.promise(now + seconds, load, now) - now;
        match due {
            Due::Objective(_) if is_free || is_calm => f64::INFINITY,
            _ if alone <= promise => 0.0,
            Due::Deadline(_) if is_free => f64::INFINITY,
            Due::Deadline(_) => 0.0,
            Due::Objective(_) => 2.0 * alone - promise,
        }
    }
}

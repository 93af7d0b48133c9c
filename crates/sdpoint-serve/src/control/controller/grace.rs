//! By how much a request may exceed its deadline, or the server's objective.

use super::super::Demand;
use super::{Controller, ModelId};

impl<T> Controller<T> {
    /// The [grace](super::Request::grace) of a request of so many images without a deadline of its
    /// own, given the server's objective in seconds. The images may be more than a batch holds.
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
    pub fn grace(
        &self,
        now: f64,
        id: ModelId,
        images: usize,
        demand: &Demand,
        objective: f64,
    ) -> f64 {
        let calm = self.current.is_none() || self.models[&id].traffic.overload() == 0.0;
        if self.is_idle() && calm {
            return f64::INFINITY;
        }
        let (alone, promise) = self.alone(now, id, images, demand, objective);
        match alone <= promise {
            true => 0.0,
            false => 2.0 * alone - promise,
        }
    }

    /// The grace of a request that has a deadline of its own in so many seconds, which an idle
    /// machine at its usual pace can meet.
    ///
    /// While nothing is queued or computed, it is tried even if by the pace that was learned last it
    /// will be late: that costs no other request anything, and if what slowed the machine is gone,
    /// only a batch can show it.
    ///
    /// # Panics
    /// If there is no such model.
    pub fn grace_of_deadline(
        &self,
        now: f64,
        id: ModelId,
        images: usize,
        demand: &Demand,
        seconds: f64,
    ) -> f64 {
        let is_free = self.current.is_none() && self.is_idle();
        let (alone, promise) = self.alone(now, id, images, demand, seconds);
        match is_free && alone > promise {
            true => f64::INFINITY,
            false => 0.0,
        }
    }

    /// The time of a request by itself at the present pace, and the time in which it is promised if
    /// its deadline is in so many seconds.
    fn alone(
        &self,
        now: f64,
        id: ModelId,
        images: usize,
        demand: &Demand,
        seconds: f64,
    ) -> (f64, f64) {
        let (model, share) = (&self.models[&id], self.share(id));
        let alone = model.pace.expected(model.costs.alone(demand, images)) * share;
        let load = model.load(now, share);
        (alone, model.reserve.promise(now + seconds, load, now) - now)
    }
}

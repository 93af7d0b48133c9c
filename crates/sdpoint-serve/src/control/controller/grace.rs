//! By how much a request without a deadline of its own may exceed the server's objective.

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
        let (model, share) = (&self.models[&id], self.share(id));
        let calm = self.current.is_none() || model.traffic.overload() == 0.0;
        if self.is_idle() && calm {
            return f64::INFINITY;
        }
        let alone = model.pace.expected(model.costs.alone(demand, images)) * share;
        let load = model.load(now, share);
        let promise = model.reserve.promise(now + objective, load, now) - now;
        match alone <= promise {
            true => 0.0,
            false => 2.0 * alone - promise,
        }
    }
}

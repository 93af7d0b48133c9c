//! Queued requests.

use sdpoint::Pace;

use super::admit::batch_within;
use super::reserve::Reserve;
use super::{Costs, Demand};

/// A request, or a part of one that is too large for a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Request<T> {
    /// The number of images, from 1 to [`Costs::max_batch`].
    pub images: usize,
    /// The deadline.
    pub deadline: f64,
    /// By how much later than at the deadline it may be answered, in seconds; infinite for at any
    /// time. Once accepted, a request that may be late is never dropped.
    pub grace: f64,
    /// The instances that may answer it.
    pub demand: Demand,
    /// Identifies the request for the caller.
    pub tag: T,
}

/// A queued request, with what its demand means for the costs of its model.
#[derive(Clone, Debug, PartialEq)]
pub struct Waiting<T> {
    /// The request.
    pub request: Request<T>,
    /// The time by which its batch has to end. For a request that may be late, at
    /// least the time at which it is expected to end, so that it keeps its place in the queue.
    pub deadline: f64,
    /// The time by which admission has to expect it to end: earlier, because forecasts err.
    pub promise: f64,
    /// The shortest time of a batch with this request alone.
    pub quickest: f64,
    /// The least time per image, in batches of the best size.
    pub rate: f64,
    /// The size of the batches that admission assumes for it.
    pub batch: usize,
    /// Whether the cheapest instance of the model may answer it.
    pub flexible: bool,
}

impl<T> Request<T> {
    /// Whether it may be answered after the deadline.
    pub(super) fn may_be_late(&self) -> bool {
        self.grace > 0.0
    }
}

impl<T> Waiting<T> {
    /// A request that arrives at a load relative to capacity. None if no instance of the model
    /// meets its demand.
    pub(super) fn new(
        request: Request<T>,
        reserve: &Reserve,
        load: f64,
        now: f64,
        costs: &Costs,
        pace: &Pace,
    ) -> Option<Self> {
        let promise = reserve.promise(request.deadline, load, now);
        let rate = costs.rate(&request.demand)?;
        Some(Self {
            deadline: reserve.plan(request.deadline, now),
            promise,
            quickest: costs.quickest(&request.demand, request.images)?,
            batch: batch_within(promise - now, costs, pace),
            flexible: rate <= costs.least_rate(),
            rate,
            request,
        })
    }

    /// The time of its images in batches of the best size.
    pub fn work(&self) -> f64 {
        self.request.images as f64 * self.rate
    }

    /// Whether it would miss its deadline even if it ran now, in the cheapest instance.
    pub fn hopeless(&self, now: f64, pace: &Pace) -> bool {
        now + pace.expected(self.quickest) > self.deadline
    }
}

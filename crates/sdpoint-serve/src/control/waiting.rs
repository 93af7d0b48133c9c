//! Requests that wait.

use sdpoint::Pace;

use super::admit::batch_within;
use super::{Costs, Demand};

/// A request, or a part of one that is too large for a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Request<T> {
    /// The number of images, from 1 to [`Costs::max_batch`].
    pub images: usize,
    /// When the answer must be there.
    pub deadline: f64,
    /// Whether an answer after the deadline is better than none.
    pub late: bool,
    /// What may answer it.
    pub demand: Demand,
    /// What the caller knows it by.
    pub tag: T,
}

/// A request in a queue, with what its demand means for the costs of its model.
#[derive(Clone, Debug, PartialEq)]
pub struct Waiting<T> {
    /// The request.
    pub request: Request<T>,
    /// The deadline. Of a request that may be late and will be, the time at which
    /// it can be answered, so that it takes its turn.
    pub deadline: f64,
    /// The shortest time in which it can be answered, alone in a batch.
    pub quickest: f64,
    /// The least time an image, in batches of the best size.
    pub rate: f64,
    /// The size of the batches in which it counts on being answered under
    /// overload.
    pub batch: usize,
    /// Whether the cheapest instance of the model may answer it.
    pub flexible: bool,
}

impl<T> Waiting<T> {
    /// None if no instance of the model meets the request's demand.
    pub fn new(request: Request<T>, now: f64, costs: &Costs, pace: &Pace) -> Option<Self> {
        let rate = costs.rate(&request.demand)?;
        Some(Self {
            deadline: request.deadline,
            quickest: costs.quickest(&request.demand, request.images)?,
            batch: batch_within(request.deadline - now, costs, pace),
            flexible: rate <= costs.least_rate(),
            rate,
            request,
        })
    }

    /// The time of its images in batches of the best size.
    pub fn work(&self) -> f64 {
        self.request.images as f64 * self.rate
    }

    /// Whether it cannot be answered in time any more, even in the cheapest
    /// instance and at once.
    pub fn hopeless(&self, now: f64, pace: &Pace) -> bool {
        now + pace.expected(self.quickest) > self.deadline
    }
}

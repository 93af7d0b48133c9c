//! Decides whether a request is accepted.

use sdpoint::Pace;

use super::{Costs, Demand, Situation, Waiting};

/// The acceptable loss of throughput by small batches under overload. Larger batches lose
/// less, but increase the latency of all requests.
const BATCH_LOSS: f64 = 0.04;

/// The reason why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Refused {
    /// Even in the cheapest instances, it or a queued request would miss its deadline.
    Late {
        /// By how much, in seconds.
        by: f64,
    },
    /// The queue is full.
    Full {
        /// The time until the queue is empty, in seconds.
        until: f64,
    },
    /// No instance of the model meets its demand.
    NoInstance,
}

/// Checks that a request can be answered in time if from now on all requests run in their
/// cheapest instances, and that this makes no queued request miss its deadline. Returns
/// the expected time of the answer.
///
/// `place` is the position in the queue, `free` the time at which the current batch ends.
/// The check does not simulate batches: it adds up the work and the fixed times of batches
/// of the size from [`batch_within`].
///
/// # Errors
/// If it has to be refused.
pub(super) fn admit<T>(
    queue: &[Waiting<T>],
    place: usize,
    new: &Waiting<T>,
    free: f64,
    most_waiting: usize,
    situation: &Situation<'_>,
) -> Result<f64, Refused> {
    let mut line = Line::new(free, situation);
    queue[..place].iter().for_each(|waiting| line.add(waiting));
    let mut without = line;
    line.add(new);
    let images: usize = queue.iter().map(|waiting| waiting.request.images).sum();
    if images + new.request.images > most_waiting {
        queue[place..]
            .iter()
            .for_each(|waiting| without.add(waiting));
        let until = without.end(new.batch) - situation.now;
        return Err(Refused::Full { until });
    }
    let answered = line.end(new.batch);
    let mut late = (answered - new.promise - new.request.grace).max(0.0);
    for waiting in &queue[place..] {
        without.add(waiting);
        line.add(waiting);
        // A request that would be late in any case is no reason to refuse.
        if !waiting.request.may_be_late() && without.end(waiting.batch) <= waiting.promise {
            late = late.max(line.end(waiting.batch) - waiting.promise);
        }
    }
    if late > 0.0 {
        return Err(Refused::Late { by: late });
    }
    Ok(answered)
}

/// The time that the current batch and all queued requests take in their cheapest instances,
/// in seconds.
pub(super) fn backlog<T>(queue: &[Waiting<T>], free: f64, situation: &Situation<'_>) -> f64 {
    let mut line = Line::new(free, situation);
    queue.iter().for_each(|waiting| line.add(waiting));
    line.end(queue.last().map_or(1, |last| last.batch)) - situation.now
}

/// Queued requests, each in its cheapest instance.
#[derive(Clone, Copy)]
struct Line<'a> {
    situation: &'a Situation<'a>,
    /// The time until the current batch ends.
    busy: f64,
    images: usize,
    work: f64,
}

impl<'a> Line<'a> {
    fn new(free: f64, situation: &'a Situation<'a>) -> Self {
        Self {
            situation,
            busy: (free - situation.now).max(0.0),
            images: 0,
            work: 0.0,
        }
    }

    fn add<T>(&mut self, waiting: &Waiting<T>) {
        self.images += waiting.request.images;
        self.work += waiting.work();
    }

    /// The time by which the last added request is answered, nearly certainly, in batches
    /// of `batch` images.
    fn end(&self, batch: usize) -> f64 {
        let Situation {
            now,
            costs,
            pace,
            outlook,
            ..
        } = *self.situation;
        let batches = self.images.div_ceil(batch);
        let places = batches * batch - self.images;
        let joining = outlook.fill * places as f64 * costs.least_rate();
        let work = self.work + joining + batches as f64 * costs.start_up();
        now + self.busy + pace.expected(work * self.situation.share)
    }
}

/// The size of batches that admission assumes for requests with so many seconds until
/// their deadlines: large enough to lose little throughput, but at most
/// [`fitting_batch`].
pub(super) fn batch_within(seconds: f64, costs: &Costs, pace: &Pace) -> usize {
    let enough = (1.0 + BATCH_LOSS) * costs.least_rate();
    let efficient = |&images: &usize| cheapest(costs, images) / images as f64 <= enough;
    let smallest = (1..=costs.max_batch()).find(efficient);
    let fitting = fitting_batch(seconds, costs, pace);
    smallest.map_or(fitting, |smallest| smallest.min(fitting))
}

/// The largest batch size with which a request meets a deadline in so many seconds even
/// if another batch started just before it arrived.
fn fitting_batch(seconds: f64, costs: &Costs, pace: &Pace) -> usize {
    let fits = |&images: &usize| pace.expected(2.0 * cheapest(costs, images)) <= seconds;
    (1..=costs.max_batch()).rev().find(fits).unwrap_or(1)
}

fn cheapest(costs: &Costs, images: usize) -> f64 {
    costs.quickest(&Demand::ANY, images).unwrap_or(0.0)
}

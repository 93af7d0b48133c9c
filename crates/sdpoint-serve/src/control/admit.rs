//! Whether a request is taken.

use sdpoint::Pace;

use super::{Costs, Demand, Situation, Waiting};

/// The loss of throughput that small batches may cause under overload. Larger
/// batches would lose less, and make everyone wait for them.
const BATCH_LOSS: f64 = 0.04;

/// Why a request is not taken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Refused {
    /// Even the cheapest instances would answer it, or one that waits already,
    /// after the deadline.
    Late {
        /// By how much, in seconds.
        by: f64,
    },
    /// Too many images wait.
    Full {
        /// The time until they are answered, in seconds.
        until: f64,
    },
    /// No instance of the model meets its demand.
    NoInstance,
}

/// Checks that a request can be answered in time, if from now on all run in their
/// cheapest instances, and that those which wait already can still be. Returns
/// when it would be answered.
///
/// `place` is its place in the queue, `free` when the machine is done with what
/// runs now. The check needs neither to know nor to simulate the batches: it adds
/// up work and the start-up of batches of the size that [`batch_within`] gives.
///
/// # Errors
/// If it cannot be taken.
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
    let mut late = 0.0f64;
    if !new.request.late {
        late = answered - new.deadline;
    }
    for waiting in &queue[place..] {
        without.add(waiting);
        line.add(waiting);
        // One that is late anyway is no reason.
        if !waiting.request.late && without.end(waiting.batch) <= waiting.deadline {
            late = late.max(line.end(waiting.batch) - waiting.deadline);
        }
    }
    if late > 0.0 {
        return Err(Refused::Late { by: late });
    }
    Ok(answered)
}

/// Requests that run one after the other, each in its cheapest instance.
#[derive(Clone, Copy)]
struct Line<'a> {
    situation: &'a Situation<'a>,
    /// The time until the machine is done with what runs now.
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

    /// When the last that was added is answered, nearly for sure, in batches of
    /// `batch` images.
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
        now + self.busy
            + costs
                .table(batch)
                .bound(work * self.situation.share(), pace)
    }
}

/// The size of the batches in which requests that have so many seconds are
/// answered under overload: large enough to lose little throughput, and no larger
/// than [`fitting_batch`].
pub(super) fn batch_within(seconds: f64, costs: &Costs, pace: &Pace) -> usize {
    let enough = (1.0 + BATCH_LOSS) * costs.least_rate();
    let efficient = |&images: &usize| cheapest(costs, images) / images as f64 <= enough;
    let smallest = (1..=costs.max_batch()).find(efficient);
    let fitting = fitting_batch(seconds, costs, pace);
    smallest.map_or(fitting, |smallest| smallest.min(fitting))
}

/// The size of the largest batch such that one can have begun just before a
/// request arrives, and another that the request is in still ends within so many
/// seconds.
pub(super) fn fitting_batch(seconds: f64, costs: &Costs, pace: &Pace) -> usize {
    let fits = |&images: &usize| {
        let both = 2.0 * cheapest(costs, images);
        costs.table(images).bound(both, pace) <= seconds
    };
    (1..=costs.max_batch()).rev().find(fits).unwrap_or(1)
}

fn cheapest(costs: &Costs, images: usize) -> f64 {
    costs.quickest(&Demand::ANY, images).unwrap_or(0.0)
}

//! Decides at a point whether a batch continues at full resolution.

use sdpoint::{Crossing, Decision, Way};

use super::situation::Crowd;
use super::{Demand, Situation, Waiting};

/// A batch in progress.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Running {
    /// The number of images.
    pub images: usize,
    /// What all of its requests allow.
    pub demand: Demand,
    /// The earliest deadline that can be met; none if no deadline can.
    pub deadline: Option<f64>,
}

/// Decides for a batch at a point, given the queue of its model. This is the rule of
/// [`plan`](super::plan()) for the rest of the batch: among the instances that it can still
/// become, the most accurate one that meets its deadline and leaves all other requests
/// enough time. If it cannot meet any deadline, the quickest one.
pub fn reconsider<T>(
    running: &Running,
    queue: &[Waiting<T>],
    crossing: &Crossing<'_>,
    situation: &Situation<'_>,
) -> Decision {
    let usable = usable_time(running, queue, crossing.elapsed(), situation);
    let slack = running
        .deadline
        .map_or(0.0, |deadline| deadline - situation.now);
    let rank = |way: &Way| {
        let in_time = way.bound <= slack;
        match in_time && way.expected <= usable {
            true => (2, way.worth, -way.expected),
            false if in_time => (1, -way.expected, way.worth),
            false => (0, -way.expected, way.worth),
        }
    };
    let allowed = crossing
        .ways()
        .filter(|way| allows(running, situation, way));
    let best = allowed.max_by(|a, b| {
        let order = rank(a).partial_cmp(&rank(b));
        order.expect("times and worths are numbers")
    });
    match best {
        Some(way) if way.here => Decision::Become(way.instance),
        _ => Decision::Continue,
    }
}

fn allows(running: &Running, situation: &Situation<'_>, way: &Way) -> bool {
    let costs = situation.costs;
    let choice = costs
        .index(way.instance)
        .map(|index| &costs.choices()[index]);
    choice.is_some_and(|choice| running.demand.constraints.allow(&choice.record))
}

/// The time that the rest of the batch may take if all other requests get the same time
/// per image as the whole batch.
fn usable_time<T>(
    running: &Running,
    queue: &[Waiting<T>],
    elapsed: f64,
    situation: &Situation<'_>,
) -> f64 {
    let Situation {
        now, pace, outlook, ..
    } = *situation;
    let images = running.images as f64;
    // The batch takes elapsed + rest, and the crowd the same time per image:
    // rest + crowd / images · (elapsed + rest) <= left
    let rest = |left: f64, crowd: f64| (left - elapsed * crowd / images) / (1.0 + crowd / images);
    let mut crowd = Crowd::default();
    let mut usable = situation.wanted - now;
    if let Some(deadline) = running.deadline {
        // As at the start of the batch: the usable share of the slack at that time.
        let left = situation.usable(deadline + elapsed) - elapsed;
        usable = usable.min(rest(left, crowd.images(&outlook)));
    }
    for waiting in queue {
        crowd.add(waiting, pace);
        if !waiting.hopeless(now, pace) {
            let left = situation.usable(waiting.deadline) - crowd.fixed;
            usable = usable.min(rest(left, crowd.images(&outlook)));
        }
    }
    usable
}

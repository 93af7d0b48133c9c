//! Plans a batch when not all requests can be in time.

use super::plan::works;
use super::{Costs, Demand, Plan, Situation, Waiting};

/// The batch with which least is lost when not all requests can be in time; none if the queue
/// is empty.
///
/// The first requests of the queue may be left out. If they only have time for small batches, and
/// more requests wait than small batches can answer, serving them would make all after them late as
/// well, long after the cause has gone. For each size of the first batch, and then for each
/// size of all that follow, this adds up what is lost with the queued requests: the time that
/// requests which cannot be in time would have taken in batches of the best size, and the time
/// that batches take in excess of that.
pub(super) fn salvage<T>(queue: &[Waiting<T>], situation: &Situation<'_>) -> Option<Plan> {
    let sizes = sizes(situation.costs.max_batch());
    let mut best: Option<(f64, Plan)> = None;
    for &size in &sizes {
        let Some(first) = First::new(queue, size, situation) else {
            continue;
        };
        let rest = &queue[first.next..];
        let losses = sizes
            .iter()
            .map(|&size| loss(rest, first.free, size, situation));
        let lost = first.lost + losses.fold(f64::INFINITY, f64::min);
        if best.as_ref().is_none_or(|(least, _)| lost <= *least) {
            best = Some((lost, first.plan));
        }
    }
    best.map(|(_, plan)| plan)
}

/// 1, 2, 4, … and the largest.
fn sizes(most: usize) -> Vec<usize> {
    let doubling = (0..usize::BITS).map(|bit| 1 << bit);
    let mut sizes: Vec<usize> = doubling.take_while(|&size| size < most).collect();
    sizes.push(most);
    sizes
}

/// The first batch.
struct First {
    plan: Plan,
    /// What is lost by then, in seconds.
    lost: f64,
    /// The index of the next request.
    next: usize,
    /// The time at which the next batch can start.
    free: f64,
}

impl First {
    /// The first batch of at most `size` images that meets the deadlines of its requests.
    fn new<T>(queue: &[Waiting<T>], size: usize, situation: &Situation<'_>) -> Option<Self> {
        let Situation {
            now, costs, pace, ..
        } = *situation;
        let fits = |waiting: &Waiting<T>| {
            let time = quickest(
                costs,
                &waiting.request.demand,
                size.max(waiting.request.images),
            );
            let time = time.map_or(f64::INFINITY, |(_, time)| time);
            waiting.request.may_be_late() || now + pace.expected(time) <= waiting.deadline
        };
        let start = queue.iter().position(fits)?;
        let mut demand = queue[start].request.demand;
        let mut images = 0;
        let mut next = start;
        let mut option = None;
        for waiting in &queue[start..] {
            let more = images + waiting.request.images;
            let common = demand.and(&waiting.request.demand);
            let Some(common) = common.filter(|_| images == 0 || more <= size) else {
                break;
            };
            let Some(found) = quickest(costs, &common, more) else {
                break;
            };
            (demand, images, option) = (common, more, Some(found));
            next += 1;
        }
        let (choice, time) = option?;
        let end = now + pace.expected(time);
        let taken = &queue[start..next];
        let late = |waiting: &&Waiting<T>| !waiting.request.may_be_late() && end > waiting.deadline;
        let possible = |waiting: &&Waiting<T>| !waiting.hopeless(now, pace);
        let missed = work(taken.iter().filter(late)) + work(queue[..start].iter().filter(possible));
        Some(Self {
            plan: Plan {
                take: (start..next).collect(),
                images,
                demand,
                choice,
            },
            lost: missed + (time - work(taken.iter())).max(0.0),
            next,
            free: now + pace.expected(time) * situation.share,
        })
    }
}

/// What is lost, in seconds, if all batches from `free` on have `size` images. Those for which
/// nothing waits yet are filled by later requests.
fn loss<T>(queue: &[Waiting<T>], free: f64, size: usize, situation: &Situation<'_>) -> f64 {
    let Situation { costs, pace, .. } = *situation;
    let least = size as f64 * costs.least_rate();
    let time = quickest(costs, &Demand::ANY, size).map_or(least, |(_, time)| time);
    // Of batches of this size over those of the best.
    let excess = (time / least).max(1.0);
    let (mut free, mut lost) = (free, 0.0);
    let (mut images, mut used) = (0, 0.0);
    for waiting in queue {
        let alone = time.max(waiting.work() * excess);
        if !waiting.request.may_be_late() && free + pace.expected(alone) > waiting.deadline {
            lost += waiting.work();
            continue;
        }
        images += waiting.request.images;
        used += waiting.work();
        if images >= size {
            lost += used * (excess - 1.0);
            free += pace.expected(used * excess) * situation.share;
            (images, used) = (0, 0.0);
        }
    }
    lost
}

/// What requests take in batches of the best size, in seconds.
fn work<'a, T: 'a>(requests: impl Iterator<Item = &'a Waiting<T>>) -> f64 {
    requests.map(Waiting::work).sum()
}

/// The cheapest option for a batch that meets a demand, and its time.
fn quickest(costs: &Costs, demand: &Demand, images: usize) -> Option<(Option<usize>, f64)> {
    let options = works(costs, demand, images).map(|work| (work.choice, work.time));
    options.min_by(|(_, a), (_, b)| a.total_cmp(b))
}

#[cfg(test)]
mod tests {
    use sdpoint::Pace;

    use super::super::Request;
    use super::super::reserve::Reserve;
    use super::*;
    use crate::simulation::example_costs;

    /// The requests in the first batch for requests of one image with these deadlines, in
    /// times of one image in the cheapest instance.
    fn taken(deadlines: impl IntoIterator<Item = f64>) -> Vec<usize> {
        let (costs, pace) = (example_costs(8), Pace::default());
        let one = costs.quickest(&Demand::ANY, 1).unwrap();
        let queue: Vec<Waiting<usize>> = deadlines
            .into_iter()
            .enumerate()
            .map(|(tag, deadline)| {
                let request = Request {
                    images: 1,
                    deadline: deadline * one,
                    grace: 0.0,
                    demand: Demand::ANY,
                    tag,
                };
                Waiting::new(request, &Reserve::none(), 0.0, 0.0, &costs, &pace).unwrap()
            })
            .collect();
        let situation = Situation::quiet(0.0, &costs, &pace);
        salvage(&queue, &situation).unwrap().take
    }

    #[test]
    fn requests_that_only_small_batches_can_answer_are_left_out() {
        // Each has time for itself when its turn comes, but not for those before it.
        let each = (0..40).map(|number| 1.1 + 0.3 * f64::from(number));
        let taken = taken(each);
        assert!(taken.len() >= 4 && taken[0] > 0, "{taken:?}");
    }

    #[test]
    fn a_single_urgent_request_is_not() {
        let deadlines = [1.5].into_iter().chain([30.0; 12]);
        assert_eq!(taken(deadlines), [0]);
    }

    #[test]
    fn batches_are_as_large_as_all_have_time_for() {
        assert_eq!(taken([20.0; 12]).len(), 8);
        assert_eq!(taken([3.0, 3.0, 40.0]).len(), 2);
    }
}

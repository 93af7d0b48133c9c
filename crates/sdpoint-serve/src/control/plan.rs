//! Plans the next batch and its instance.

use super::salvage::salvage;
use super::situation::Crowd;
use super::{Costs, Demand, Situation, Waiting};
use crate::job::Mode;

/// The next batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The indices of the requests in the queue, ascending.
    pub take: Vec<usize>,
    /// The number of images.
    pub images: usize,
    /// What all of the requests allow.
    pub demand: Demand,
    /// The index of the instance in [`Costs::choices`]; none for a combination.
    pub choice: Option<usize>,
}

/// Plans the next batch from a queue in the order of deadlines. None if the queue is
/// empty.
///
/// A batch contains the first request. Among the batches and instances that meet the
/// batch's deadlines, and that leave all other requests, queued and expected, enough time
/// at the same cost per image, it chooses the most accurate instance, and then the batch
/// with the least time per image. If there is none, it chooses the batch with which most of
/// them are in time, which may leave out the first ones.
pub fn plan<T>(queue: &[Waiting<T>], situation: &Situation<'_>) -> Option<Plan> {
    let first = queue.first()?;
    let order: Vec<usize> = (0..queue.len()).collect();
    let mut best = best_prefix(queue, &order, situation);
    // Requests with other demands may be queued between those that could share a batch
    // with the first.
    let same = |index: &usize| queue[*index].request.demand == first.request.demand;
    if !order.iter().all(same) {
        let (mut alike, others): (Vec<usize>, Vec<usize>) = order.iter().partition(|i| same(i));
        alike.extend(others);
        let other = best_prefix(queue, &alike, situation);
        if other.rank > best.rank {
            best = other;
        }
    }
    let mut plan = best.plan;
    if !best.rank.keeps {
        plan = salvage(queue, situation).unwrap_or(plan);
    }
    plan.take.sort_unstable();
    Some(plan)
}

/// A batch and its rank.
struct Candidate {
    rank: Rank,
    plan: Plan,
}

/// Ranks are compared field by field.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
struct Rank {
    /// Whether the batch's deadlines are met and all others have enough time.
    keeps: bool,
    /// The worth of the instance, if it keeps them.
    worth: f64,
    /// The negated time per image.
    speed: f64,
}

/// The best batch that takes requests from the front of `order`.
fn best_prefix<T>(queue: &[Waiting<T>], order: &[usize], situation: &Situation<'_>) -> Candidate {
    let Situation {
        now, costs, pace, ..
    } = *situation;
    let fair = fair_costs(queue, order, situation);
    let mut best: Option<Candidate> = None;
    let mut images = 0;
    let mut demand = queue[order[0]].request.demand;
    let mut slack = f64::INFINITY;
    for (taken, &index) in order.iter().enumerate() {
        let waiting = &queue[index];
        images += waiting.request.images;
        let common = demand.and(&waiting.request.demand);
        let Some(common) = common.filter(|_| images <= costs.max_batch()) else {
            break;
        };
        demand = common;
        if !waiting.hopeless(now, pace) {
            slack = slack.min(waiting.deadline - now);
        }
        // What is late in any case is answered as soon as possible.
        let slack = if slack.is_finite() { slack } else { 0.0 };
        let works = works(costs, &demand, images);
        let ranked = works.map(|work| (rank(&work, images, slack, fair[taken], situation), work));
        let Some((rank, work)) = ranked.max_by(|(a, _), (b, _)| compare(a, b)) else {
            break;
        };
        if best.as_ref().is_none_or(|best| rank > best.rank) {
            let plan = Plan {
                take: order[..=taken].to_vec(),
                images,
                demand,
                choice: work.choice,
            };
            best = Some(Candidate { rank, plan });
        }
    }
    best.expect("some instance can answer each accepted request")
}

fn compare(a: &Rank, b: &Rank) -> std::cmp::Ordering {
    let order = a.partial_cmp(b);
    order.expect("times and worths are numbers")
}

/// An option for computing a batch.
pub(super) struct Work {
    pub choice: Option<usize>,
    pub worth: f64,
    /// The expected time, in seconds.
    pub time: f64,
}

/// The options for computing a batch that meets a demand.
pub(super) fn works<'a>(
    costs: &'a Costs,
    demand: &'a Demand,
    images: usize,
) -> impl Iterator<Item = Work> + 'a {
    let combined = match demand.mode {
        Mode::Instance => None,
        Mode::Combination(_) => costs.quickest(demand, images),
    };
    let combined = combined.map(|time| Work {
        choice: None,
        worth: 0.0,
        time,
    });
    let instances = costs.allowed(demand).map(move |choice| Work {
        choice: Some(choice),
        worth: costs.choices()[choice].worth,
        time: costs.time(choice, images),
    });
    instances.chain(combined)
}

fn rank(work: &Work, images: usize, slack: f64, fair: f64, situation: &Situation<'_>) -> Rank {
    let Situation {
        now,
        costs,
        pace,
        wanted,
        ..
    } = *situation;
    let time = pace.expected(work.time);
    let each = time / images as f64;
    let in_time = costs.table(images).bound(work.time, pace) <= slack;
    let keeps = in_time && each <= fair && now + time <= wanted;
    Rank {
        keeps,
        worth: if keeps { work.worth } else { 0.0 },
        speed: -each,
    }
}

/// For each prefix of `order`: the largest time per image with which its last request and
/// all after it can be answered within their usable slack.
fn fair_costs<T>(queue: &[Waiting<T>], order: &[usize], situation: &Situation<'_>) -> Vec<f64> {
    let mut crowd = Crowd::default();
    let mut fair: Vec<f64> = order
        .iter()
        .map(|&index| {
            let waiting = &queue[index];
            crowd.add(waiting, situation.pace);
            if waiting.hopeless(situation.now, situation.pace) {
                return f64::INFINITY;
            }
            crowd.fair_cost(situation.usable(waiting.deadline), &situation.outlook)
        })
        .collect();
    for index in (1..fair.len()).rev() {
        fair[index - 1] = fair[index - 1].min(fair[index]);
    }
    fair
}

//! An ideal policy that knows all arrivals in advance.

use super::bound::Mixture;
use crate::control::Costs;

/// What an ideal policy reaches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ideal {
    /// The share of requests that are answered in time.
    pub attainment: f64,
    /// The mean accuracy of these answers, in 0..=1.
    pub accuracy: f64,
}

/// The attainment of the cheapest instance, and the highest mean accuracy with the same
/// attainment of a policy that knows all arrivals and is limited by deadlines alone. It may
/// mix instances within an image and interrupt them at any time, and always computes as
/// fast as in batches of the best size. So no policy exceeds it.
///
/// Accuracy is concave in the time per image, so the times should be as equal as arrivals
/// and deadlines allow. Plotted over the number of images, the completion times are then
/// the shortest path between two walls: no image starts before it arrives, and none ends
/// after its deadline.
pub fn ideal(costs: &Costs, arrivals: &[f64], objective: f64) -> Ideal {
    let mixture = Mixture::new(costs);
    let least = mixture.least();
    let mut done = 0.0f64;
    let served: Vec<f64> = arrivals
        .iter()
        .copied()
        .filter(|&at| {
            let end = done.max(at) + least;
            let in_time = end <= at + objective;
            done = if in_time { end } else { done };
            in_time
        })
        .collect();
    // Image i completes no earlier than the next arrives and no later than its own
    // deadline.
    let gates: Vec<[f64; 2]> = (0..served.len())
        .map(|i| {
            let high = served[i] + objective;
            [served.get(i + 1).copied().unwrap_or(high).min(high), high]
        })
        .collect();
    let path = shortest_path(served.first().copied().unwrap_or(0.0), &gates);
    let starts = served.first().into_iter().chain(&path);
    let accuracy = std::iter::zip(starts, &path).map(|(start, end)| mixture.accuracy(end - start));
    Ideal {
        attainment: served.len() as f64 / arrivals.len() as f64,
        accuracy: accuracy.sum::<f64>() / served.len() as f64,
    }
}

/// The shortest path from (0, `start`) through the gates at 1, 2, 3, …, each open
/// from its low to its high end. It ends at the high end of the last. Returns its
/// height at each gate.
fn shortest_path(start: f64, gates: &[[f64; 2]]) -> Vec<f64> {
    let mut path = Vec::with_capacity(gates.len());
    let mut from = (0, start);
    while path.len() < gates.len() {
        // Straight ahead as far as possible, then a bend around the obstructing end.
        let slope = |to: (usize, f64)| (to.1 - from.1) / (to.0 - from.0) as f64;
        let mut low = (f64::NEG_INFINITY, from);
        let mut high = (f64::INFINITY, from);
        let mut bend = None;
        for (index, gate) in gates.iter().enumerate().skip(from.0) {
            let last = index + 1 == gates.len();
            let bottom = (index + 1, if last { gate[1] } else { gate[0] });
            let top = (index + 1, gate[1]);
            if slope(bottom) > high.0 {
                bend = Some(high.1);
                break;
            }
            if slope(top) < low.0 {
                bend = Some(low.1);
                break;
            }
            if slope(bottom) >= low.0 {
                low = (slope(bottom), bottom);
            }
            if slope(top) <= high.0 {
                high = (slope(top), top);
            }
        }
        let to = bend.unwrap_or_else(|| (gates.len(), gates[gates.len() - 1][1]));
        let rise = slope(to);
        path.extend((from.0 + 1..=to.0).map(|at| from.1 + rise * (at - from.0) as f64));
        from = to;
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_bends_only_around_ends_of_gates() {
        let straight = shortest_path(0.0, &[[0.0, 9.0], [0.0, 9.0], [0.0, 9.0]]);
        assert_eq!(straight, [3.0, 6.0, 9.0]);
        let over = shortest_path(0.0, &[[5.0, 9.0], [0.0, 9.0], [0.0, 9.0]]);
        assert_eq!(over, [5.0, 7.0, 9.0]);
        let under = shortest_path(0.0, &[[0.0, 9.0], [0.0, 2.0], [0.0, 9.0]]);
        assert_eq!(under, [1.0, 2.0, 9.0]);
        let both = shortest_path(0.0, &[[4.0, 9.0], [0.0, 5.0], [5.5, 9.0], [0.0, 6.0]]);
        assert_eq!(both, [4.0, 4.75, 5.5, 6.0]);
    }
}

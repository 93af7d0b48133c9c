//! The fluid bound on accuracy.

use crate::control::{Costs, Demand};

/// The accuracy that mixtures of instances reach with a given time per image, in batches
/// of the best size.
#[derive(Clone, Debug)]
pub struct Mixture {
    /// Time per image and accuracy: the upper convex hull of the instances, from the
    /// cheapest to the most accurate.
    hull: Vec<(f64, f64)>,
}

impl Mixture {
    /// The mixtures of a model's instances.
    pub fn new(costs: &Costs) -> Self {
        let best = |choice: usize| {
            let sizes = 1..=costs.max_batch();
            let each = sizes.map(|images| costs.time(choice, images) / images as f64);
            each.fold(f64::INFINITY, f64::min)
        };
        let mut all: Vec<(f64, f64)> = costs
            .allowed(&Demand::ANY)
            .map(|choice| (best(choice), costs.choices()[choice].worth))
            .collect();
        all.sort_by(|a, b| a.0.total_cmp(&b.0).then(b.1.total_cmp(&a.1)));
        let mut hull: Vec<(f64, f64)> = Vec::new();
        for (time, worth) in all {
            if hull.last().is_some_and(|last| last.1 >= worth) {
                continue;
            }
            let below = |a: &(f64, f64), b: &(f64, f64)| {
                (b.1 - a.1) * (time - a.0) <= (worth - a.1) * (b.0 - a.0)
            };
            while let [.., a, b] = hull[..]
                && below(&a, &b)
            {
                hull.pop();
            }
            hull.push((time, worth));
        }
        Self { hull }
    }

    /// The least time per image, in seconds.
    pub fn least(&self) -> f64 {
        self.hull[0].0
    }

    /// The time per image of the most accurate instance, in seconds.
    pub fn most(&self) -> f64 {
        self.hull[self.hull.len() - 1].0
    }

    /// The accuracy, from 0 to 1, of a mixture that takes `time` seconds per image; that of
    /// the cheapest instance if even this takes longer.
    pub fn accuracy(&self, time: f64) -> f64 {
        let after = self.hull.partition_point(|point| point.0 <= time);
        match (after.checked_sub(1), self.hull.get(after)) {
            (None, _) => self.hull[0].1,
            (Some(before), None) => self.hull[before].1,
            (Some(before), Some(&(costly, high))) => {
                let (cheap, low) = self.hull[before];
                low + (high - low) * (time - cheap) / (costly - cheap)
            }
        }
    }
}

/// The fluid bound: the mean accuracy, from 0 to 1, of the mixture of instances that
/// answers `rate` images per second and uses exactly the machine's time, without bursts or
/// deadlines.
///
/// None if not even the cheapest instance is fast enough.
pub fn fluid_bound(costs: &Costs, rate: f64) -> Option<f64> {
    let mixture = Mixture::new(costs);
    (1.0 / rate >= mixture.least()).then(|| mixture.accuracy(1.0 / rate))
}

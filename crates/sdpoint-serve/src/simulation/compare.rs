//! Compares the controller with fixed instances and with the ideal policy.

use super::{Arrivals, Ideal, Load, Machine, Mixture, Phase, Report, fluid_bound, ideal, simulate};
use crate::control::{Costs, Demand, Policy};

/// A steady load in random bursts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scenario {
    /// The load, as a multiple of the rate that `full` can serve in batches of the best
    /// size.
    pub load: f64,
    /// The squared coefficient of variation of the time between arrivals.
    pub burstiness: f64,
    /// The time from arrival to deadline, as a multiple of the time of one image
    /// in the cheapest instance.
    pub objective: f64,
    /// The approximate number of requests.
    pub requests: usize,
}

/// The results of a scenario, all on the same arrivals.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// The controller's result.
    pub chosen: Report,
    /// The results of every fixed instance with the same shedding, in the order of
    /// [`Costs::choices`].
    pub fixed: Vec<Report>,
    /// The index of the cheapest instance.
    pub cheapest: usize,
    /// The fluid bound on accuracy, if the cheapest instance can serve the load.
    pub bound: Option<f64>,
    /// The result of the ideal policy.
    pub ideal: Ideal,
    /// The capacity of the cheapest instance, in images per second.
    pub capacity: f64,
}

impl Scenario {
    /// Simulates the controller and every fixed instance.
    pub fn compare(&self, costs: &Costs, policy: Policy, seed: u64) -> Comparison {
        let run = |demand| self.answer(costs, policy, demand, seed);
        let choices = costs.choices().iter();
        let fixed = choices.map(|choice| run(Demand::only(choice.instance())));
        let rates = (0..costs.choices().len()).map(|choice| costs.time(choice, 1));
        let cheapest = rates.enumerate().min_by(|a, b| a.1.total_cmp(&b.1));
        Comparison {
            chosen: run(Demand::ANY),
            fixed: fixed.collect(),
            cheapest: cheapest.expect("some instance").0,
            bound: fluid_bound(costs, self.rate(costs)),
            ideal: ideal(costs, &self.arrivals(costs, seed), self.deadline(costs)),
            capacity: 1.0 / Mixture::new(costs).least(),
        }
    }

    /// The controller alone, on the arrivals and the machine that [`Self::compare`] has
    /// for the same seed, with requests that demand this.
    pub fn answer(&self, costs: &Costs, policy: Policy, demand: Demand, seed: u64) -> Report {
        let load = Load {
            arrivals: self.arrivals(costs, seed),
            objective: self.deadline(costs),
            demand,
            strict: true,
        };
        simulate(costs, policy, load, &mut Machine::usual(seed))
    }

    /// Requests per second.
    fn rate(&self, costs: &Costs) -> f64 {
        self.load / Mixture::new(costs).most()
    }

    fn arrivals(&self, costs: &Costs, seed: u64) -> Vec<f64> {
        let rate = self.rate(costs);
        let phases = vec![Phase::steady(self.requests as f64 / rate, rate)];
        Arrivals::new(phases, self.burstiness, seed).collect()
    }

    /// The objective in seconds.
    fn deadline(&self, costs: &Costs) -> f64 {
        let quickest = costs.quickest(&Demand::ANY, 1).expect("some instance");
        self.objective * quickest
    }
}

impl Comparison {
    /// The misses beyond those of the cheapest instance, in percentage points.
    pub fn more_misses(&self) -> f64 {
        100.0 * (self.fixed[self.cheapest].attainment() - self.chosen.attainment())
    }

    /// The index of the most accurate fixed instance with an attainment at least as high,
    /// up to a twentieth of a point; the cheapest if there is none.
    pub fn best_fixed(&self, costs: &Costs) -> usize {
        let least = self.chosen.attainment() - 0.0005;
        let equal = (0..self.fixed.len()).filter(|&i| self.fixed[i].attainment() >= least);
        let best = equal.max_by(|&a, &b| {
            let worth = |i: usize| costs.choices()[i].worth;
            worth(a).total_cmp(&worth(b))
        });
        best.unwrap_or(self.cheapest)
    }

    /// The share of the distance from the accuracy of the best fixed instance to
    /// `to` that the controller closes.
    pub fn closed(&self, costs: &Costs, to: f64) -> f64 {
        let from = costs.choices()[self.best_fixed(costs)].worth;
        (self.chosen.accuracy() - from) / (to - from)
    }
}

//! The choice of the instances of every training step.

use std::collections::BTreeSet;

use chacha20::ChaCha8Rng;
use chacha20::rand_core::{Rng, SeedableRng};
use sdpoint_core::{Instance, PointId};
use serde::{Deserialize, Serialize};

use crate::draw::{Draw, Menu, Method};

/// How the choice of instances changes in the course of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Phases {
    /// The share of the steps, from the beginning, that train `full` alone: late
    /// shrinking, as in arXiv 2407.06167.
    pub shrink_after: f64,
    /// For [`Method::SdPoint`], the probability of `full` in the last step.
    /// Over the last third of the run, it changes there linearly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub full_at_end: Option<f64>,
}

impl Phases {
    /// The part of a run over which [`Phases::full_at_end`] takes effect.
    const LAST_PART: f64 = 1.0 / 3.0;

    /// Sets the share of the steps that train `full` alone.
    pub fn with_shrink_after(self, shrink_after: f64) -> Self {
        Self {
            shrink_after,
            ..self
        }
    }

    /// Sets the probability of `full` in the last step.
    pub fn with_full_at_end(self, probability: f64) -> Self {
        Self {
            full_at_end: Some(probability),
            ..self
        }
    }
}

/// Chooses the instances of every step of a run.
#[derive(Clone, Debug)]
pub struct InstanceSampler {
    seed: u64,
    method: Method,
    /// Each instance with its probability, in the network's order.
    probabilities: Vec<(Instance, f64)>,
    /// The indices of `full` and of the cheapest instance.
    ends: [usize; 2],
    /// The number of branches of a step of [`Method::Branched`].
    branches: usize,
    /// The number of parts of a batch that [`Method::SdPoint`] draws instances for.
    parts: usize,
    phases: Phases,
    /// The number of steps of the run, for `phases`.
    steps: u64,
}

impl InstanceSampler {
    /// A sampler over instances, given with their MACs. `full` is one of them,
    /// and all points have the same number of ratios.
    pub fn new(costs: &[(Instance, u64)], method: Method, draw: &Draw, seed: u64) -> Self {
        let points: BTreeSet<PointId> = costs.iter().filter_map(|c| c.0.point()).collect();
        let behind = costs.len().saturating_sub(1) as f64;
        let split = |full: f64| {
            let weight = move |instance| match instance {
                Instance::Full => full,
                Instance::At(..) => (1.0 - full) / behind,
            };
            costs.iter().map(|&(i, _)| weight(i)).collect::<Vec<f64>>()
        };
        let most = costs.iter().map(|c| c.1.max(1)).max().unwrap_or(1) as f64;
        let weights = match (method, draw) {
            _ if points.is_empty() => split(1.0),
            (Method::Plain, _) => split(1.0),
            (_, Draw::Uniform) => split(1.0 / (points.len() + 1) as f64),
            (_, Draw::Full { probability }) => split(*probability),
            (_, Draw::Instances) => vec![1.0; costs.len()],
            (_, Draw::Cost { power }) => costs
                .iter()
                .map(|&(_, macs)| (macs.max(1) as f64 / most).powf(*power))
                .collect(),
            (_, Draw::Menu(menu)) => of_menu(costs, menu),
        };
        let sum: f64 = weights.iter().sum();
        let instances = costs.iter().map(|&(instance, _)| instance);
        let full = costs.iter().position(|cost| cost.0 == Instance::Full);
        let cheapest = (0..costs.len()).min_by_key(|&place| costs[place].1);
        Self {
            seed,
            method,
            ends: [full, cheapest].map(Option::unwrap_or_default),
            branches: 0,
            parts: 1,
            phases: Phases::default(),
            steps: 0,
            probabilities: instances.zip(weights.iter().map(|w| w / sum)).collect(),
        }
    }

    /// Sets the number of instances that a step of [`Method::Branched`] trains
    /// besides `full`.
    pub fn with_branches(self, branches: usize) -> Self {
        Self { branches, ..self }
    }

    /// Sets the number of parts of a batch that [`Method::SdPoint`] draws an
    /// instance for each.
    pub fn with_parts(self, parts: usize) -> Self {
        Self { parts, ..self }
    }

    /// Sets how the choice changes in the course of a run of so many steps.
    pub fn with_phases(self, phases: Phases, steps: u64) -> Self {
        Self {
            phases,
            steps,
            ..self
        }
    }

    /// Each instance with its probability, before [`Phases`].
    pub fn probabilities(&self) -> &[(Instance, f64)] {
        &self.probabilities
    }

    /// The instances, in the order of [`InstanceSampler::probabilities`].
    pub fn instances(&self) -> impl Iterator<Item = Instance> {
        self.probabilities.iter().map(|&(instance, _)| instance)
    }

    /// The instance with this index in [`InstanceSampler::probabilities`].
    pub(crate) fn instance(&self, index: usize) -> Instance {
        self.probabilities[index].0
    }

    /// The instances that a step trains, as indices into
    /// [`InstanceSampler::probabilities`]; of several, `full` is the first. With
    /// [`Method::Branched`], an instance may be drawn for several branches.
    pub fn of_step(&self, step: u64) -> Vec<usize> {
        let [full, _] = self.ends;
        if self.is_before_shrinking(step) {
            return vec![full];
        }
        match self.method {
            Method::Plain => vec![self.draw(step)],
            Method::SdPoint => self.draws(step).take(self.parts).collect(),
            Method::Sandwich => {
                let mut indices = Vec::new();
                for index in self.ends.into_iter().chain([self.draw(step)]) {
                    if !indices.contains(&index) {
                        indices.push(index);
                    }
                }
                indices
            }
            Method::Branched => {
                let behind = self.with_probability_of_full(0.0);
                let mut random = self.random(step);
                let mut indices = vec![full];
                if behind.iter().any(|entry| entry.1 > 0.0) {
                    let all = (0..self.branches).map(|_| pick(&behind, &mut random));
                    indices.extend(all);
                }
                indices
            }
        }
    }

    /// The instance drawn for a step, as an index into
    /// [`InstanceSampler::probabilities`]. It depends on the seed and the step
    /// alone, so a resumed run draws the same instances.
    pub fn draw(&self, step: u64) -> usize {
        let mut draws = self.draws(step);
        draws.next().expect("there is no last draw")
    }

    /// The draws for a step, one after another.
    fn draws(&self, step: u64) -> impl Iterator<Item = usize> {
        let mut random = self.random(step);
        let probabilities = match self.probability_of_full(step) {
            Some(full) => self.with_probability_of_full(full),
            None => self.probabilities.clone(),
        };
        std::iter::repeat_with(move || pick(&probabilities, &mut random))
    }

    /// The source of the numbers that decide a step's draws.
    fn random(&self, step: u64) -> ChaCha8Rng {
        let mut key = *b"sdpoint: instance of a step\0\0\0\0\0";
        key[24..].copy_from_slice(&self.seed.to_le_bytes());
        let mut random = ChaCha8Rng::from_seed(key);
        random.set_stream(step);
        random
    }

    /// Whether a step trains `full` alone because of [`Phases::shrink_after`].
    pub(crate) fn is_before_shrinking(&self, step: u64) -> bool {
        (step as f64) < (self.phases.shrink_after * self.steps as f64).round()
    }

    /// The probability of `full` in a step if [`Phases::full_at_end`] changes it.
    fn probability_of_full(&self, step: u64) -> Option<f64> {
        let end = self.phases.full_at_end?;
        let start = self.probabilities[self.ends[0]].1;
        let begins = (self.steps as f64 * (1.0 - Phases::LAST_PART)).round();
        let past = step as f64 + 1.0 - begins;
        let part = past / (self.steps as f64 - begins).max(1.0);
        (past > 0.0).then(|| start + part.min(1.0) * (end - start))
    }

    /// The distribution with another probability of `full`; those of the other
    /// instances keep their proportions.
    fn with_probability_of_full(&self, full: f64) -> Vec<(Instance, f64)> {
        let mut probabilities = self.probabilities.clone();
        let now = probabilities[self.ends[0]].1;
        let behind = if now < 1.0 {
            (1.0 - full) / (1.0 - now)
        } else {
            0.0
        };
        for (index, (_, probability)) in probabilities.iter_mut().enumerate() {
            *probability = if index == self.ends[0] {
                full
            } else {
                *probability * behind
            };
        }
        probabilities
    }
}

/// The index of an instance drawn from a distribution.
fn pick(probabilities: &[(Instance, f64)], random: &mut ChaCha8Rng) -> usize {
    // Uniform in [0, 1): 53 bits, the precision of an f64.
    let mut left = (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
    for (index, &(_, probability)) in probabilities.iter().enumerate() {
        if left < probability {
            return index;
        }
        left -= probability;
    }
    // Only rounding errors lead here.
    let possible = |&(_, probability): &(Instance, f64)| probability > 0.0;
    probabilities.iter().rposition(possible).unwrap_or(0)
}

/// The probabilities of a menu: those of its instances, and equal parts of the
/// rest for the others that are cheaper than `full`.
fn of_menu(costs: &[(Instance, u64)], menu: &Menu) -> Vec<f64> {
    let on_menu = |instance: Instance| {
        let entry = menu.entries().iter().find(|entry| entry.0 == instance);
        entry.map(|entry| entry.1)
    };
    let full = costs.iter().find(|cost| cost.0 == Instance::Full);
    let full = full.map_or(u64::MAX, |cost| cost.1);
    let is_other = |&(instance, macs): &(Instance, u64)| {
        instance != Instance::Full && macs < full && on_menu(instance).is_none()
    };
    let others = costs.iter().filter(|cost| is_other(cost)).count();
    let taken: f64 = menu.entries().iter().map(|entry| entry.1).sum();
    let rest = (1.0 - taken).max(0.0) / others.max(1) as f64;
    let probability =
        |cost: &(Instance, u64)| on_menu(cost.0).unwrap_or(if is_other(cost) { rest } else { 0.0 });
    costs.iter().map(probability).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three blocks, two ratios; the MACs of `full` are twice the cheapest's.
    fn costs() -> Vec<(Instance, u64)> {
        [
            ("full", 100),
            ("0@0.5", 50),
            ("0@0.75", 60),
            ("1@0.5", 70),
            ("1@0.75", 80),
            ("2@0.5", 90),
            ("2@0.75", 95),
        ]
        .map(|(name, macs)| (name.parse().unwrap(), macs))
        .into()
    }

    fn draws(method: Method, draw: &str) -> InstanceSampler {
        InstanceSampler::new(&costs(), method, &draw.parse().unwrap(), 7)
    }

    /// Pearson's statistic of 40,000 draws; with 6 degrees of freedom it
    /// exceeds 30 once in 25,000 times.
    fn chi_square(draws: &InstanceSampler) -> f64 {
        let steps = 40_000;
        let mut counts = vec![0.0; draws.probabilities().len()];
        for step in 0..steps {
            counts[draws.draw(step)] += 1.0;
        }
        std::iter::zip(&counts, draws.probabilities())
            .map(|(count, (instance, probability))| {
                let expected = probability * steps as f64;
                assert!(expected > 0.0 || *count == 0.0, "{instance} was drawn");
                if expected > 0.0 {
                    (count - expected).powi(2) / expected
                } else {
                    0.0
                }
            })
            .sum()
    }

    #[test]
    fn frequencies_are_those_of_the_distribution() {
        for draw in [
            "uniform",
            "instances",
            "cost",
            "cost:-2",
            "full:0.8",
            "full:1",
            "menu:full=0.3,0@0.75=0.4,2@0.5=0",
        ] {
            let statistic = chi_square(&draws(Method::SdPoint, draw));
            assert!(statistic < 30.0, "{draw}: {statistic}");
        }
        assert_eq!(chi_square(&draws(Method::Plain, "uniform")), 0.0);
    }

    #[test]
    fn the_papers_draw_takes_each_point_as_often_as_none() {
        let draws = draws(Method::SdPoint, "uniform");
        for &(instance, probability) in draws.probabilities() {
            let expected = if instance == Instance::Full {
                0.25
            } else {
                0.125
            };
            assert!((probability - expected).abs() < 1e-12, "{instance}");
        }
        let first = draws.probabilities()[1].0;
        assert_eq!(first.to_string(), "0@0.5");
        assert!(
            (0..1000).any(|step| draws.draw(step) == 1),
            "block 0 is drawn"
        );
    }

    #[test]
    fn draws_by_cost_follow_the_power() {
        let draws = draws(Method::SdPoint, "cost:-1");
        let of = |place: usize| draws.probabilities()[place].1;
        assert!((of(1) / of(0) - 2.0).abs() < 1e-12);
    }

    #[test]
    fn the_sandwich_rule_trains_both_ends_and_what_is_drawn() {
        let sandwich = draws(Method::Sandwich, "uniform");
        let plain_draws = draws(Method::SdPoint, "uniform");
        for step in 0..200 {
            let places = sandwich.of_step(step);
            let drawn = plain_draws.draw(step);
            assert_eq!(places[..2], [0, 1], "full, then 0@0.5");
            assert_eq!(places.len(), if drawn < 2 { 2 } else { 3 });
            assert!(places.contains(&drawn));
            assert_eq!(plain_draws.of_step(step), [drawn]);
        }
    }

    #[test]
    fn a_network_without_points_is_always_full() {
        let only = [(Instance::Full, 10)];
        for draw in ["uniform", "instances", "cost", "full:0.5", "full:0"] {
            let draws = InstanceSampler::new(&only, Method::SdPoint, &draw.parse().unwrap(), 1);
            assert_eq!(draws.probabilities(), [(Instance::Full, 1.0)], "{draw}");
            assert_eq!(draws.draw(3), 0);
        }
    }

    #[test]
    fn a_draw_depends_on_seed_and_step_alone() {
        let draw = |seed, step| {
            InstanceSampler::new(&costs(), Method::SdPoint, &Draw::Uniform, seed).draw(step)
        };
        let some: Vec<usize> = (0..64).map(|step| draw(1, step)).collect();
        let again: Vec<usize> = (0..64).rev().map(|step| draw(1, step)).collect();
        assert!(some.iter().eq(again.iter().rev()));
        assert_ne!(some, (0..64).map(|step| draw(2, step)).collect::<Vec<_>>());
    }

    #[test]
    fn what_a_menu_leaves_goes_to_the_other_cheaper_instances() {
        let mut costs = costs();
        costs.push(("3@0.5".parse().unwrap(), 100));
        let menu = "menu:full=0.2,0@0.5=0.4".parse().unwrap();
        let sampler = InstanceSampler::new(&costs, Method::SdPoint, &menu, 7);
        let found: Vec<f64> = sampler.probabilities().iter().map(|p| p.1).collect();
        let expected = [0.2, 0.4, 0.08, 0.08, 0.08, 0.08, 0.08, 0.0];
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        }
        // A menu without a rest, and one without other instances.
        for menu in ["menu:0@0.5=1", "menu:0@0.5=0.5"] {
            let costs = &costs[..2];
            let menu = menu.parse().unwrap();
            let sampler = InstanceSampler::new(costs, Method::SdPoint, &menu, 7);
            assert_eq!(sampler.probabilities()[1].1, 1.0);
        }
    }

    #[test]
    fn the_menu_of_early_points_takes_two_points() {
        let menu = Menu::of_early_points(&costs());
        let names: Vec<String> = menu.entries().iter().map(|e| e.0.to_string()).collect();
        assert_eq!(names, ["full", "0@0.5", "0@0.75", "1@0.75"]);
        assert!(menu.entries().iter().all(|e| (e.1 - 0.2).abs() < 1e-12));
        let menu = Menu::of_early_points(&costs()[..1]);
        assert_eq!(menu.entries(), [(Instance::Full, 0.8)]);
    }

    #[test]
    fn branches_are_drawn_from_all_but_full() {
        let sampler = draws(Method::Branched, "full:0.5").with_branches(4);
        let mut counts = [0; 7];
        for step in 0..5000 {
            let indices = sampler.of_step(step);
            assert_eq!((indices.len(), indices[0]), (5, 0));
            assert_eq!(indices, sampler.of_step(step));
            for &index in &indices[1..] {
                counts[index] += 1;
            }
        }
        assert_eq!(counts[0], 0, "full is not a branch");
        // 20,000 draws of 6: deviations of 5 standard deviations, 53 each.
        assert!(
            counts[1..].iter().all(|&n| (3068..3600).contains(&n)),
            "{counts:?}"
        );
        let only_full = draws(Method::Branched, "full:1").with_branches(4);
        assert_eq!(only_full.of_step(0), [0]);
    }

    #[test]
    fn every_part_of_a_batch_has_a_draw_of_its_own() {
        let whole = draws(Method::SdPoint, "uniform");
        let parts = whole.clone().with_parts(4);
        let mut differ = 0;
        for step in 0..500 {
            let drawn = parts.of_step(step);
            assert_eq!((drawn.len(), drawn[0]), (4, whole.draw(step)));
            differ += usize::from(drawn.iter().any(|&index| index != drawn[0]));
        }
        assert!(differ > 450, "{differ}");
    }

    #[test]
    fn shrinking_begins_after_its_share_of_the_steps() {
        let phases = Phases::default().with_shrink_after(0.5);
        for method in [Method::SdPoint, Method::Sandwich, Method::Branched] {
            let always = draws(method, "full:0").with_branches(2);
            let late = always.clone().with_phases(phases, 101);
            for step in 0..101 {
                let expected = if step < 51 {
                    vec![0]
                } else {
                    always.of_step(step)
                };
                assert_eq!(late.of_step(step), expected, "{method} {step}");
            }
        }
    }

    #[test]
    fn full_becomes_more_probable_at_the_end() {
        let steps = 30_000;
        let phases = Phases::default().with_full_at_end(0.7);
        let before = draws(Method::SdPoint, "full:0.1");
        let sampler = before.clone().with_phases(phases, steps);
        let share = |range: std::ops::Range<u64>| {
            let count = range.clone().filter(|&step| sampler.draw(step) == 0);
            count.count() as f64 / (range.end - range.start) as f64
        };
        assert!((0..20_000).all(|step| sampler.draw(step) == before.draw(step)));
        assert!((share(20_000..21_000) - 0.13).abs() < 0.06);
        assert!((share(24_500..25_500) - 0.4).abs() < 0.08);
        assert!((share(29_000..30_000) - 0.67).abs() < 0.08);
        // The last step has the probability itself.
        assert_eq!(sampler.probability_of_full(steps - 1), Some(0.7));
        let others = sampler.with_probability_of_full(0.7);
        assert!((others.iter().map(|p| p.1).sum::<f64>() - 1.0).abs() < 1e-12);
        assert!((others[3].1 - 0.05).abs() < 1e-12);
    }
}

//! Which instances a training step trains.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use sdpoint_core::{Instance, PointId};
use serde::{Deserialize, Serialize};

/// Which instances a step trains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Method {
    /// One instance drawn at random: stochastic downsampling.
    #[default]
    SdPoint,
    /// `full` in every step: the baseline without stochastic downsampling.
    Plain,
    /// `full`, the cheapest instance and one drawn at random, with the mean of
    /// their gradients: the sandwich rule of Yu and Huang, arXiv 1903.05134,
    /// section 3.1.
    Sandwich,
}

/// The distribution that [`Method::SdPoint`] and [`Method::Sandwich`] draw
/// instances from.
///
/// As text: `uniform`, `instances`, `cost`, `cost:POWER` and `full:P`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Draw {
    /// The paper's distribution: first "no downsampling" or one of the points,
    /// all equally likely, then one of the ratios, all equally likely.
    #[default]
    Uniform,
    /// All instances are equally likely.
    Instances,
    /// The probability of an instance is proportional to its MACs to the power
    /// `power`: 1 favours costly instances, −1 cheap ones.
    Cost {
        /// The exponent.
        power: f64,
    },
    /// `full` with this probability; otherwise a point, all equally likely,
    /// then a ratio, all equally likely.
    Full {
        /// The probability of `full`.
        probability: f64,
    },
}

impl Draw {
    /// Proportional to the inverse of an instance's MACs. In the experiments of
    /// `docs/results.md`, it made cheap instances most accurate for the least
    /// training.
    pub const THRIFTY: Self = Self::Cost { power: -1.0 };
}

/// Text that is not a [`Draw`] or a [`Method`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DrawError {
    /// Not a distribution.
    #[error(
        "'{0}' is not a distribution of instances: use uniform, instances, cost, cost:POWER or full:P with P from 0 to 1"
    )]
    Draw(String),
    /// Not a method.
    #[error("'{0}' is not a method: use sdpoint, plain or sandwich")]
    Method(String),
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::SdPoint => "sdpoint",
            Self::Plain => "plain",
            Self::Sandwich => "sandwich",
        })
    }
}

impl FromStr for Method {
    type Err = DrawError;

    fn from_str(text: &str) -> Result<Self, DrawError> {
        match text {
            "sdpoint" => Ok(Self::SdPoint),
            "plain" => Ok(Self::Plain),
            "sandwich" => Ok(Self::Sandwich),
            _ => Err(DrawError::Method(text.to_owned())),
        }
    }
}

impl fmt::Display for Draw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uniform => f.pad("uniform"),
            Self::Instances => f.pad("instances"),
            Self::Cost { power: 1.0 } => f.pad("cost"),
            Self::Cost { power } => f.pad(&format!("cost:{power}")),
            Self::Full { probability } => f.pad(&format!("full:{probability}")),
        }
    }
}

impl FromStr for Draw {
    type Err = DrawError;

    fn from_str(text: &str) -> Result<Self, DrawError> {
        let bad = || DrawError::Draw(text.to_owned());
        let (kind, number) = match text.split_once(':') {
            Some((kind, number)) => (kind, Some(number.parse::<f64>().map_err(|_| bad())?)),
            None => (text, None),
        };
        match (kind, number) {
            ("uniform", None) => Ok(Self::Uniform),
            ("instances", None) => Ok(Self::Instances),
            ("cost", power) if power.is_none_or(|power| power.abs() <= 16.0) => Ok(Self::Cost {
                power: power.unwrap_or(1.0),
            }),
            ("full", Some(probability)) if (0.0..=1.0).contains(&probability) => {
                Ok(Self::Full { probability })
            }
            _ => Err(bad()),
        }
    }
}

impl Serialize for Draw {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Draw {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
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
}

impl InstanceSampler {
    /// A sampler over instances, given with their MACs. `full` is one of them,
    /// and all points have the same number of ratios.
    pub fn new(costs: &[(Instance, u64)], method: Method, draw: Draw, seed: u64) -> Self {
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
            (_, Draw::Full { probability }) => split(probability),
            (_, Draw::Instances) => vec![1.0; costs.len()],
            (_, Draw::Cost { power }) => costs
                .iter()
                .map(|&(_, macs)| (macs.max(1) as f64 / most).powf(power))
                .collect(),
        };
        let sum: f64 = weights.iter().sum();
        let instances = costs.iter().map(|&(instance, _)| instance);
        let full = costs.iter().position(|cost| cost.0 == Instance::Full);
        let cheapest = (0..costs.len()).min_by_key(|&place| costs[place].1);
        Self {
            seed,
            method,
            ends: [full, cheapest].map(Option::unwrap_or_default),
            probabilities: instances.zip(weights.iter().map(|w| w / sum)).collect(),
        }
    }

    /// Each instance with its probability.
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

    /// The instances that a step trains, each once, as indices into
    /// [`InstanceSampler::probabilities`]; of several, `full` is the first.
    pub fn of_step(&self, step: u64) -> Vec<usize> {
        let drawn = self.draw(step);
        if self.method != Method::Sandwich {
            return vec![drawn];
        }
        let mut indices = Vec::new();
        for index in self.ends.into_iter().chain([drawn]) {
            if !indices.contains(&index) {
                indices.push(index);
            }
        }
        indices
    }

    /// The instance drawn for a step, as an index into
    /// [`InstanceSampler::probabilities`]. It depends on the seed and the step
    /// alone, so a resumed run draws the same instances.
    pub fn draw(&self, step: u64) -> usize {
        let mut key = *b"sdpoint: instance of a step\0\0\0\0\0";
        key[24..].copy_from_slice(&self.seed.to_le_bytes());
        let mut random = ChaCha8Rng::from_seed(key);
        random.set_stream(step);
        // Uniform in [0, 1): 53 bits, the precision of an f64.
        let mut left = (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        for (index, &(_, probability)) in self.probabilities.iter().enumerate() {
            if left < probability {
                return index;
            }
            left -= probability;
        }
        // Only rounding errors lead here.
        let possible = |&(_, probability): &(Instance, f64)| probability > 0.0;
        self.probabilities.iter().rposition(possible).unwrap_or(0)
    }
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
        InstanceSampler::new(&costs(), method, draw.parse().unwrap(), 7)
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
            let draws = InstanceSampler::new(&only, Method::SdPoint, draw.parse().unwrap(), 1);
            assert_eq!(draws.probabilities(), [(Instance::Full, 1.0)], "{draw}");
            assert_eq!(draws.draw(3), 0);
        }
    }

    #[test]
    fn a_draw_depends_on_seed_and_step_alone() {
        let draw = |seed, step| {
            InstanceSampler::new(&costs(), Method::SdPoint, Draw::Uniform, seed).draw(step)
        };
        let some: Vec<usize> = (0..64).map(|step| draw(1, step)).collect();
        let again: Vec<usize> = (0..64).rev().map(|step| draw(1, step)).collect();
        assert!(some.iter().eq(again.iter().rev()));
        assert_ne!(some, (0..64).map(|step| draw(2, step)).collect::<Vec<_>>());
    }

    #[test]
    fn text_and_draw_agree_both_ways() {
        for text in ["uniform", "instances", "cost", "cost:-0.5", "full:0.25"] {
            assert_eq!(text.parse::<Draw>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "full",
            "full:1.5",
            "full:nan",
            "cost:inf",
            "uniform:1",
            "cost:",
        ] {
            let message = text.parse::<Draw>().unwrap_err().to_string();
            assert!(message.contains("cost:POWER"), "{message}");
        }
        assert_eq!(
            serde_json::to_string(&Method::SdPoint).unwrap(),
            "\"sdpoint\""
        );
    }
}

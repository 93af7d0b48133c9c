//! Which instance a training step works in.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use sdpoint_core::{Instance, PointId};
use serde::{Deserialize, Serialize};

/// What is trained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Every step in an instance drawn at random: stochastic downsampling.
    #[default]
    SdPoint,
    /// Every step in `full`: what stochastic downsampling is compared with.
    Plain,
    /// Every step in `full`, in the cheapest instance and in one drawn at
    /// random, by the mean of their gradients: the sandwich rule of Yu and
    /// Huang, arXiv 1903.05134, section 3.1.
    Sandwich,
}

/// How instances are drawn in [`Method::SdPoint`] and [`Method::Sandwich`].
///
/// Written as `uniform`, `instances`, `cost`, `cost:POWER` and `full:P`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Draw {
    /// The paper's: one of "no downsampling" and the points, all equally
    /// likely, then a ratio, all equally likely.
    #[default]
    Uniform,
    /// Every instance equally likely.
    Instances,
    /// In proportion to the MACs of an instance to the power `power`: 1
    /// trains the expensive instances more, −1 the cheap ones.
    Cost {
        /// The power.
        power: f64,
    },
    /// `full` with this probability; else a point, all equally likely, then
    /// a ratio, all equally likely.
    Full {
        /// The probability of `full`.
        probability: f64,
    },
}

impl Draw {
    /// In proportion to the inverse of an instance's MACs: what made the cheap
    /// instances best for the least training in `docs/results.md`.
    pub const THRIFTY: Self = Self::Cost { power: -1.0 };
}

/// Text that names no draw or no method.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DrawError {
    /// Not a draw.
    #[error(
        "'{0}' is not a draw: write uniform, instances, cost, cost:POWER or full:P with P from 0 to 1"
    )]
    Draw(String),
    /// Not a method.
    #[error("'{0}' is not a method: write sdpoint, plain or sandwich")]
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

/// The distribution over instances of a run, and its draws.
#[derive(Clone, Debug)]
pub struct Draws {
    seed: u64,
    method: Method,
    /// Each instance with its probability, in the network's order.
    probabilities: Vec<(Instance, f64)>,
    /// The places of `full` and of the cheapest instance.
    ends: [usize; 2],
}

impl Draws {
    /// The draws of a run over instances with their MACs, of which `full` is
    /// one and each point has as many ratios as any other.
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

    /// The instances alone, in the same order.
    pub fn instances(&self) -> impl Iterator<Item = Instance> {
        self.probabilities.iter().map(|&(instance, _)| instance)
    }

    /// The instances that a step trains, each once, by their places in
    /// [`Draws::probabilities`]: `full` first where it is one of several.
    pub fn of_step(&self, step: u64) -> Vec<usize> {
        let drawn = self.at(step);
        if self.method != Method::Sandwich {
            return vec![drawn];
        }
        let mut places = Vec::new();
        for place in self.ends.into_iter().chain([drawn]) {
            if !places.contains(&place) {
                places.push(place);
            }
        }
        places
    }

    /// The instance drawn for a step, by its place in [`Draws::probabilities`]. It
    /// depends on the seed and the step alone, so that a resumed run draws
    /// what the uninterrupted one would have drawn.
    pub fn at(&self, step: u64) -> usize {
        let mut key = *b"sdpoint: instance of a step\0\0\0\0\0";
        key[24..].copy_from_slice(&self.seed.to_le_bytes());
        let mut random = ChaCha8Rng::from_seed(key);
        random.set_stream(step);
        // 53 bits, as many as an f64 between 0 and 1 holds.
        let mut left = (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        for (place, &(_, probability)) in self.probabilities.iter().enumerate() {
            if left < probability {
                return place;
            }
            left -= probability;
        }
        // Only rounding leads here.
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

    fn draws(method: Method, draw: &str) -> Draws {
        Draws::new(&costs(), method, draw.parse().unwrap(), 7)
    }

    /// Pearson's statistic of 40,000 draws; with 6 degrees of freedom it
    /// exceeds 30 once in 25,000 times.
    fn chi_square(draws: &Draws) -> f64 {
        let steps = 40_000;
        let mut counts = vec![0.0; draws.probabilities().len()];
        for step in 0..steps {
            counts[draws.at(step)] += 1.0;
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
            (0..1000).any(|step| draws.at(step) == 1),
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
            let drawn = plain_draws.at(step);
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
            let draws = Draws::new(&only, Method::SdPoint, draw.parse().unwrap(), 1);
            assert_eq!(draws.probabilities(), [(Instance::Full, 1.0)], "{draw}");
            assert_eq!(draws.at(3), 0);
        }
    }

    #[test]
    fn a_draw_depends_on_seed_and_step_alone() {
        let draw = |seed, step| Draws::new(&costs(), Method::SdPoint, Draw::Uniform, seed).at(step);
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

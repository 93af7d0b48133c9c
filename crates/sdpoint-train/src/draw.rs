//! Which instances a training step trains: methods, and distributions of
//! instances.

use std::fmt;
use std::str::FromStr;

use sdpoint_core::Instance;
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
    /// `full` on the whole batch, and several instances drawn at random, each on
    /// a part of the batch. They branch off from the activations of `full`, and
    /// learn from its predictions; see [`Branching`](crate::Branching).
    Branched,
}

/// The distribution that [`Method::SdPoint`] and [`Method::Sandwich`] draw
/// instances from.
///
/// [`Method::Branched`] draws from it under the condition that it is not `full`.
///
/// As text: `uniform`, `instances`, `cost`, `cost:POWER`, `full:P` and
/// `menu:INSTANCE=P,…`.
#[derive(Clone, Debug, Default, PartialEq)]
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
    /// Some instances with given probabilities. The others share the rest
    /// equally, except those that cost as much as `full`, which are not drawn.
    Menu(Menu),
}

/// The instances of a [`Draw::Menu`] with their probabilities, which add up to at
/// most 1.
///
/// As text: `full=0.2,0@0.5=0.4`.
#[derive(Clone, Debug, PartialEq)]
pub struct Menu(Vec<(Instance, f64)>);

impl Menu {
    /// A menu of these instances and probabilities.
    ///
    /// # Errors
    /// If it is empty, an instance is in it twice, a probability is below 0, or
    /// their sum above 1.
    pub fn new(entries: Vec<(Instance, f64)>) -> Result<Self, DrawError> {
        let bad = |problem: String| Err(DrawError::Menu(problem));
        if entries.is_empty() {
            return bad("it is empty".into());
        }
        for (index, (instance, probability)) in entries.iter().enumerate() {
            if !(0.0..=1.0).contains(probability) {
                return bad(format!(
                    "the probability of {instance} is {probability}; it must be from 0 to 1"
                ));
            }
            if entries[..index].iter().any(|entry| entry.0 == *instance) {
                return bad(format!("{instance} is in it twice"));
            }
        }
        let sum: f64 = entries.iter().map(|entry| entry.1).sum();
        // Decimal fractions such as ten times 0.1 add up to 1 up to rounding.
        if sum > 1.0 + 1e-9 {
            return bad(format!("its probabilities add up to {sum}, more than 1"));
        }
        Ok(Self(entries))
    }

    /// The menu of `--method sdpoint+` for instances given with their MACs: `full`,
    /// the first point with every ratio, and the second point with the largest
    /// ratio, with four fifths of the probability in equal parts. Early points
    /// save most for a given loss of accuracy; the other instances share the rest.
    pub fn of_early_points(costs: &[(Instance, u64)]) -> Self {
        let mut points: Vec<_> = costs.iter().filter_map(|cost| cost.0.point()).collect();
        points.dedup();
        let of = |nth: usize| {
            let point = points.get(nth).copied();
            let all = costs.iter().map(|cost| cost.0);
            all.filter(move |instance| point.is_some() && instance.point() == point)
        };
        let largest = of(1).max_by_key(|instance: &Instance| instance.ratio());
        let mut menu = vec![Instance::Full];
        menu.extend(of(0).chain(largest));
        let probability = 0.8 / menu.len() as f64;
        Self(menu.into_iter().map(|i| (i, probability)).collect())
    }

    /// The instances and their probabilities.
    pub fn entries(&self) -> &[(Instance, f64)] {
        &self.0
    }
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
        "'{0}' is not a distribution of instances: use uniform, instances, cost, cost:POWER, full:P with P from 0 to 1, or menu:INSTANCE=P,..."
    )]
    Draw(String),
    /// Not a menu.
    #[error("the menu of instances is invalid: {0}")]
    Menu(String),
    /// Not a method.
    #[error("'{0}' is not a method: use sdpoint, plain, sandwich or branched")]
    Method(String),
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::SdPoint => "sdpoint",
            Self::Plain => "plain",
            Self::Sandwich => "sandwich",
            Self::Branched => "branched",
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
            "branched" => Ok(Self::Branched),
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
            Self::Menu(menu) => f.pad(&format!("menu:{menu}")),
        }
    }
}

impl fmt::Display for Menu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries: Vec<String> = (self.0.iter())
            .map(|(instance, probability)| format!("{instance}={probability}"))
            .collect();
        f.pad(&entries.join(","))
    }
}

impl FromStr for Menu {
    type Err = DrawError;

    fn from_str(text: &str) -> Result<Self, DrawError> {
        let entry = |part: &str| {
            let bad = || {
                DrawError::Menu(format!(
                    "'{part}' is not INSTANCE=PROBABILITY, such as 0@0.5=0.2"
                ))
            };
            let (instance, probability) = part.split_once('=').ok_or_else(bad)?;
            let instance = instance.trim().parse().map_err(|_| bad())?;
            Ok((instance, probability.trim().parse().map_err(|_| bad())?))
        };
        Self::new(text.split(',').map(entry).collect::<Result<_, _>>()?)
    }
}

impl FromStr for Draw {
    type Err = DrawError;

    fn from_str(text: &str) -> Result<Self, DrawError> {
        let bad = || DrawError::Draw(text.to_owned());
        if let Some(menu) = text.strip_prefix("menu:") {
            return menu.parse().map(Self::Menu);
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn menus_are_read_as_they_are_written() {
        let draw: Draw = "menu:full=0.2,0@0.5=0.4,stem@0.75=0".parse().unwrap();
        assert_eq!(draw.to_string(), "menu:full=0.2,0@0.5=0.4,stem@0.75=0");
        let json = serde_json::to_string(&draw).unwrap();
        assert_eq!(serde_json::from_str::<Draw>(&json).unwrap(), draw);
        let tenths: Vec<String> = (0..10).map(|block| format!("{block}@0.5=0.1")).collect();
        assert!(tenths.join(",").parse::<Menu>().is_ok());
        for (bad, problem) in [
            ("", "'' is not"),
            ("full", "'full' is not"),
            ("full=x", "'full=x' is not"),
            ("0.5@0=0.1", "is not"),
            ("full=0.5,full=0.1", "twice"),
            ("full=1.5", "from 0 to 1"),
            ("full=-0.5", "from 0 to 1"),
            ("full=NaN", "from 0 to 1"),
            ("full=0.7,0@0.5=0.4", "more than 1"),
        ] {
            let error = format!("menu:{bad}").parse::<Draw>().unwrap_err();
            assert!(error.to_string().contains(problem), "{bad}: {error}");
        }
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

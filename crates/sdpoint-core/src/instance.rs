//! Names of downsampling points and instances.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ratio::Ratio;

/// The name of a downsampling point of a network.
///
/// Points are ordered by execution: the stem, then the blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PointId {
    /// The stem's max pool.
    Stem,
    /// The end of the block with this number, counted from zero.
    Block(usize),
}

/// One of the networks that share a set of weights: the full network, or the one
/// that downsamples once, at one point, by one ratio.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Instance {
    /// No downsampling.
    Full,
    /// Downsampling at a point by a ratio.
    At(PointId, Ratio),
}

/// An error of parsing the name of an instance or a point.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not an instance: write full, or POINT@RATIO such as 3@0.5 or stem@0.75")]
pub struct InstanceError(String);

impl Instance {
    /// The point at which the instance downsamples.
    pub fn point(self) -> Option<PointId> {
        match self {
            Self::Full => None,
            Self::At(point, _) => Some(point),
        }
    }

    /// The share of each side of the feature map that the instance keeps at its
    /// point.
    pub fn ratio(self) -> Option<Ratio> {
        match self {
            Self::Full => None,
            Self::At(_, ratio) => Some(ratio),
        }
    }
}

impl fmt::Display for PointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stem => f.write_str("stem"),
            Self::Block(index) => index.fmt(f),
        }
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // `pad` lets tables align the names.
            Self::Full => f.pad("full"),
            Self::At(point, ratio) => f.pad(&format!("{point}@{ratio}")),
        }
    }
}

impl FromStr for PointId {
    type Err = InstanceError;

    fn from_str(text: &str) -> Result<Self, InstanceError> {
        match text {
            "stem" => Ok(Self::Stem),
            _ => text
                .parse()
                .map(Self::Block)
                .map_err(|_| InstanceError(text.to_owned())),
        }
    }
}

impl FromStr for Instance {
    type Err = InstanceError;

    fn from_str(text: &str) -> Result<Self, InstanceError> {
        let text = text.trim();
        if text == "full" {
            return Ok(Self::Full);
        }
        let bad = || InstanceError(text.to_owned());
        let (point, ratio) = text.split_once('@').ok_or_else(bad)?;
        Ok(Self::At(
            point.parse().map_err(|_| bad())?,
            ratio.parse().map_err(|_| bad())?,
        ))
    }
}

// In files, points and instances are serialised as their text form.
macro_rules! serde_as_text {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
serde_as_text!(PointId);
serde_as_text!(Instance);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_round_trip_through_text() {
        for text in ["full", "0@0.5", "17@0.75", "stem@0.35"] {
            assert_eq!(text.parse::<Instance>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "Full",
            "3",
            "3@",
            "@0.5",
            "3@1",
            "-1@0.5",
            "stem@0",
            "3@0.5@0.5",
        ] {
            assert!(text.parse::<Instance>().is_err(), "{text}");
        }
    }

    #[test]
    fn instances_are_ordered_by_execution() {
        let mut all: Vec<Instance> = ["1@0.5", "0@0.75", "stem@0.5", "full", "0@0.5"]
            .map(|text| text.parse().unwrap())
            .into();
        all.sort();
        let names: Vec<String> = all.iter().map(Instance::to_string).collect();
        assert_eq!(names, ["full", "stem@0.5", "0@0.5", "0@0.75", "1@0.5"]);
    }
}

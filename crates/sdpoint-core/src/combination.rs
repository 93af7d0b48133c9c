//! Several instances for one answer: cascades and ensembles.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::instance::Instance;

/// How instances work together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Combination {
    /// The second sees what the first is not sure of.
    Cascade(Cascade),
    /// The average of all their probabilities.
    Ensemble(Vec<Instance>),
}

/// A cheap instance, and a dearer one for the images that it is not sure of.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cascade {
    /// The instance that every image goes through.
    pub first: Instance,
    /// The instance for the images that the first is not sure of.
    pub second: Instance,
    /// The first is sure where it gives its best class at least this
    /// probability.
    pub threshold: f64,
}

/// A combination that was measured: what an image costs and how well it does,
/// on average.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CombinedRecord {
    /// Which combination.
    pub combination: Combination,
    /// Mean multiply-accumulates for an image; what its instances have in
    /// common counts once.
    pub macs: u64,
    /// Share (0 to 1) of images whose first guess is right.
    pub top1: f64,
    /// Share of images with the right class among the first five.
    pub top5: f64,
    /// Mean cross-entropy, in nats.
    pub loss: f64,
}

impl Combination {
    /// The instances that it needs.
    pub fn members(&self) -> Vec<Instance> {
        match self {
            Self::Cascade(cascade) => vec![cascade.first, cascade.second],
            Self::Ensemble(members) => members.clone(),
        }
    }
}

impl fmt::Display for Cascade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}>{}", self.first, self.second)
    }
}

impl fmt::Display for Combination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cascade(cascade) => f.pad(&cascade.to_string()),
            Self::Ensemble(members) => {
                let names: Vec<String> = members.iter().map(Instance::to_string).collect();
                f.pad(&names.join("+"))
            }
        }
    }
}

//! Combinations of instances: cascades and ensembles.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::instance::Instance;
use crate::record::Scores;

/// A combination of several instances for one prediction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Combination {
    /// A second instance for images that the first is unsure of.
    Cascade(Cascade),
    /// The mean of the probabilities of all instances.
    Ensemble(Vec<Instance>),
}

/// A cheap instance for all images, and a costlier one for those that it is
/// unsure of.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cascade {
    /// The instance that runs on every image.
    pub first: Instance,
    /// The instance that runs on the images that the first is unsure of.
    pub second: Instance,
    /// The confidence threshold: the first instance is sure of an image if its
    /// most probable class has at least this probability.
    pub threshold: f64,
}

/// The mean cost and the measured accuracy of a combination.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CombinedRecord {
    /// The combination.
    pub combination: Combination,
    /// Mean multiply-accumulates per image. Layers that its instances have in
    /// common count once.
    pub macs: u64,
    /// Top-1 accuracy, from 0 to 1.
    pub top1: f64,
    /// Top-5 accuracy, from 0 to 1.
    pub top5: f64,
    /// Mean cross-entropy, in nats.
    pub loss: f64,
    /// Accuracies on the test images, for reports only, if the others are those
    /// of images held out of training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<Scores>,
}

impl CombinedRecord {
    /// The accuracies by which combinations are chosen.
    pub fn scores(&self) -> Scores {
        let &Self {
            top1, top5, loss, ..
        } = self;
        Scores { top1, top5, loss }
    }

    /// The accuracies to report: those on the test images, unless only others
    /// are known.
    pub fn reported(&self) -> Scores {
        self.test.unwrap_or_else(|| self.scores())
    }
}

impl Combination {
    /// The instances that it consists of.
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

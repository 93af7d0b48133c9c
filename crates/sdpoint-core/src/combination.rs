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
    /// A cascade whose stages are averaged instead of replaced.
    BlendedCascade(BlendedCascade),
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

/// Two or three instances, of which each but the first runs on the images that
/// those before it are unsure of, and is averaged with their answer.
///
/// The answer of the first stage is `log_softmax(z / temperature)` of its logits
/// `z`. Each later one makes of the answer `a` before it
/// `log_softmax((1 − weight) · a + weight · log_softmax(z / temperature))`. A stage
/// is sure of an image if the difference between its answer's two largest
/// probabilities is at least its margin.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlendedCascade {
    /// The stage that runs on every image. Its weight is 1.
    pub first: Stage,
    /// The stage that runs on the images that the first is unsure of.
    pub second: Stage,
    /// The stage that runs on the images that both are unsure of, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub third: Option<Stage>,
}

/// A stage of a [`BlendedCascade`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// The instance that runs.
    pub instance: Instance,
    /// What its logits are divided by.
    pub temperature: f64,
    /// The weight of its log-probabilities in the answer, from 0 to 1; the answer
    /// so far has the rest.
    pub weight: f64,
    /// The margin from which the answer is sure; that of the last stage has no
    /// effect.
    pub margin: f64,
}

impl BlendedCascade {
    /// The stages in order.
    pub fn stages(&self) -> impl Iterator<Item = Stage> {
        [self.first, self.second].into_iter().chain(self.third)
    }

    /// The instances of the stages in order.
    pub fn instances(&self) -> Vec<Instance> {
        self.stages().map(|stage| stage.instance).collect()
    }
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
    /// What it is called: `cascade` or `ensemble`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Cascade(_) | Self::BlendedCascade(_) => "cascade",
            Self::Ensemble(_) => "ensemble",
        }
    }

    /// The instances that it consists of.
    pub fn members(&self) -> Vec<Instance> {
        match self {
            Self::Cascade(cascade) => vec![cascade.first, cascade.second],
            Self::Ensemble(members) => members.clone(),
            Self::BlendedCascade(cascade) => cascade.instances(),
        }
    }

    /// Whether it is a cascade of either kind.
    pub fn is_cascade(&self) -> bool {
        matches!(self, Self::Cascade(_) | Self::BlendedCascade(_))
    }
}

impl fmt::Display for BlendedCascade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.instances().iter().map(Instance::to_string).collect();
        f.write_str(&names.join(">"))
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
            Self::BlendedCascade(cascade) => f.pad(&cascade.to_string()),
            Self::Ensemble(members) => {
                let names: Vec<String> = members.iter().map(Instance::to_string).collect();
                f.pad(&names.join("+"))
            }
        }
    }
}

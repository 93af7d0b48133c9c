//! Which transform of the images batch-norm statistics are computed under.

use std::fmt;
use std::str::FromStr;

use sdpoint_core::{Instance, Model, Preprocessing, TrainTransform};
use serde::{Deserialize, Serialize};

/// How the images are prepared from which the batch-norm statistics of
/// instances are computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StatisticsFrom {
    /// Cropped and mirrored at random, by the training transform of the
    /// preprocessing. Other augmentation of a run is not applied: its mixed or
    /// erased images are unlike those of inference.
    Training,
    /// As for evaluation. All runs of version 0.1 did this.
    #[default]
    Evaluation,
}

/// A text that is not the name of a [`StatisticsFrom`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is neither training nor evaluation")]
pub struct UnknownStatistics(String);

/// The key under which [`Model::training`] has it.
pub(crate) const KEY: &str = "statistics_from";

impl StatisticsFrom {
    /// The better choice for a preprocessing, as far as it is known.
    ///
    /// Where small images are padded and cropped, the training transform made all
    /// instances more accurate: by 0.65 points in the mean with stochastic
    /// downsampling, and by 1.13 with plain training (`docs/training.md`). Random
    /// resized crops show objects in another scale than evaluation does; they
    /// made no difference beyond noise, so they are not used.
    pub fn usual(preprocessing: &Preprocessing) -> Self {
        match preprocessing.train {
            TrainTransform::PadCrop { .. } => Self::Training,
            TrainTransform::RandomResizedCrop { .. } | TrainTransform::None => Self::Evaluation,
        }
    }

    /// How the statistics of a model's instances were computed, so that new ones
    /// fit in with the layers that they share.
    ///
    /// Models that do not say it and have several instances are of version 0.1,
    /// or of another program, and count as calibrated as for evaluation.
    pub fn of(model: &Model) -> Self {
        let recorded = model.training.get(KEY).cloned();
        let recorded = recorded.and_then(|value| serde_json::from_value(value).ok());
        recorded.unwrap_or_else(|| {
            let is_full = |instance| instance == Instance::Full;
            match model.instances.iter().all(|r| is_full(r.instance)) {
                true => Self::usual(&model.preprocessing),
                false => Self::Evaluation,
            }
        })
    }

    /// Notes in a model that its instances were calibrated in this way.
    pub(crate) fn record(self, model: &mut Model) {
        if model.training.is_null() {
            model.training = serde_json::json!({});
        }
        if let Some(training) = model.training.as_object_mut() {
            training.insert(KEY.to_owned(), serde_json::json!(self));
        }
    }

    /// The name on the command line and in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Training => "training",
            Self::Evaluation => "evaluation",
        }
    }
}

impl fmt::Display for StatisticsFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for StatisticsFrom {
    type Err = UnknownStatistics;

    fn from_str(name: &str) -> Result<Self, UnknownStatistics> {
        [Self::Training, Self::Evaluation]
            .into_iter()
            .find(|known| known.name() == name)
            .ok_or_else(|| UnknownStatistics(name.to_owned()))
    }
}

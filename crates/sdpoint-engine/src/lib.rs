//! Runs any instance of a network from one set of weights.
//!
//! Three operations: inference ([`InferenceEngine`]), the training step
//! ([`TrainingEngine`]) and the calibration of batch-norm statistics
//! ([`Calibrator`]). All read the same description, lower it the same way
//! and call the same kernels, so that what was trained is what runs.

mod arena;
mod calibration;
mod forward;
mod fuse;
mod inference;
mod initial;
mod lower;
mod operation;
mod optimizer;
mod packed;
mod parameters;
mod placement;
mod scores;
mod timing;
mod training;
mod work;

use std::sync::Arc;

use sdpoint_core::{Instance, Network, ShapeError, Weights};

pub use calibration::Calibrator;
pub use inference::{Flight, InferenceEngine, NormSource};
pub use initial::initial_weights;
pub use optimizer::{Sgd, SgdOptions};
pub use scores::{confidences, cross_entropy, log_mean_probabilities, softmax, top_k};
pub use sdpoint_kernels::{Context, ContextError, Isa, peak_gflops};
pub use timing::{Pass, StepTime};
pub use training::{Noise, StepOutcome, Target, TrainingEngine};
pub use work::{InstanceWork, SharedWork};

/// A batch of images, normalised, in NHWC order.
#[derive(Clone, Copy, Debug)]
pub struct Images<'a> {
    /// `batch · height · width · channels` values.
    pub data: &'a [f32],
    /// The number of images.
    pub batch: usize,
    /// Height and width.
    pub size: [usize; 2],
}

/// Why the engine could not do what it was asked.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum EngineError {
    /// The network cannot take images of this size, or has no such point.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// A slice does not hold what it is said to hold.
    #[error("{what} has {found} values where {expected} are needed")]
    Length {
        /// Which slice.
        what: &'static str,
        /// Its length.
        found: usize,
        /// The length that would be right.
        expected: usize,
    },
    /// More memory is needed than the system gives.
    #[error("{what} would take {bytes} bytes of memory, which the system does not give")]
    TooLarge {
        /// What needs it.
        what: &'static str,
        /// How much it needs.
        bytes: usize,
    },
    /// A batch without images.
    #[error("a batch needs at least one image")]
    EmptyBatch,
    /// A label that is no class.
    #[error("label {label} is none of the {classes} classes")]
    Label {
        /// The label.
        label: u32,
        /// The number of classes.
        classes: usize,
    },
    /// The weights are another network's.
    #[error("the weights do not fit {0}")]
    Weights(String),
    /// An instance without batch-norm statistics.
    #[error("instance {0} has no batch-norm statistics yet: calibrate it first")]
    NotCalibrated(Instance),
    /// A run has passed the point at which the instance downsamples.
    #[error("the run has passed the point of instance {0}: ask for it earlier")]
    Passed(Instance),
    /// Statistics were asked for before any batch was seen.
    #[error("calibration needs at least one batch")]
    NothingSeen,
}

impl Images<'_> {
    /// Checks the length against the network.
    fn check(&self, network: &Network) -> Result<(), EngineError> {
        if self.batch == 0 {
            return Err(EngineError::EmptyBatch);
        }
        let expected = [self.size[0], self.size[1], network.input_channels()]
            .into_iter()
            .try_fold(self.batch, usize::checked_mul)
            .unwrap_or(usize::MAX);
        check_length("the batch of images", self.data.len(), expected)
    }
}

fn check_length(what: &'static str, found: usize, expected: usize) -> Result<(), EngineError> {
    if found == expected {
        Ok(())
    } else {
        Err(EngineError::Length {
            what,
            found,
            expected,
        })
    }
}

fn check_weights(network: &Network, weights: &Weights) -> Result<(), EngineError> {
    if weights.fit(network) {
        Ok(())
    } else {
        Err(EngineError::Weights(network.name().to_owned()))
    }
}

fn check_labels(labels: &[u32], batch: usize, classes: usize) -> Result<(), EngineError> {
    check_length("the list of labels", labels.len(), batch)?;
    match labels.iter().find(|&&label| label as usize >= classes) {
        Some(&label) => Err(EngineError::Label { label, classes }),
        None => Ok(()),
    }
}

/// What all engines of one network share.
#[derive(Clone, Debug)]
struct Base {
    ctx: Arc<Context>,
    network: Arc<Network>,
}

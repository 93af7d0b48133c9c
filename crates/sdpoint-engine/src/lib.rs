//! Runs any instance of a network from one set of weights.
//!
//! Three entry points: inference ([`InferenceEngine`]), training steps
//! ([`TrainingEngine`]) and calibration of batch-norm statistics
//! ([`Calibrator`]). All three lower the network description through the same
//! code and call the same kernels, so training and inference cannot diverge.
//!
//! ```
//! use std::sync::Arc;
//!
//! use sdpoint_core::{Instance, Weights, zoo};
//! use sdpoint_engine::{
//!     Calibrator, Context, Images, InferenceEngine, Sgd, SgdOptions, SgdStep, StepInput, Target,
//!     TrainingEngine, initial_weights,
//! };
//!
//! let network = Arc::new(zoo::build("preresnet8", 10)?);
//! let ctx = Arc::new(Context::new(None)?);
//! let pixels = vec![0.5; 4 * 32 * 32 * 3];
//! let images = Images { data: &pixels, batch: 4, size: [32, 32] };
//! let half: Instance = "1@0.5".parse()?;
//!
//! // A training step of one instance,
//! let mut weights = initial_weights(&network, 0);
//! let mut momentum = Weights::zeros(&network);
//! let mut training = TrainingEngine::new(ctx.clone(), network.clone());
//! let target = Target::labels(&[3, 1, 4, 1]);
//! let outcome = training.step(StepInput { weights: &weights, images, target, instance: half })?;
//! assert!(outcome.loss.is_finite());
//! let gradients = training.gradients();
//! let step = SgdStep { weights: &mut weights, momentum: &mut momentum, gradients, rate: 0.1 };
//! Sgd::new(&network, SgdOptions::default()).step(&ctx, step);
//!
//! // its batch-norm statistics, and those of `full`,
//! let mut calibrator = Calibrator::new(ctx.clone(), network.clone(), &weights, &[half])?;
//! calibrator.add_batch(images)?;
//! let statistics = calibrator.finish()?;
//!
//! // and inference in it: a row of logits for each image.
//! let engine = InferenceEngine::new(ctx, network, &weights, &statistics)?;
//! assert_eq!(engine.run(images, half)?.len(), 4 * 10);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

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

use std::ops::Range;
use std::sync::Arc;

use sdpoint_core::{Instance, Network, ShapeError, Weights};

pub use calibration::Calibrator;
pub use inference::{InferenceEngine, NormSource, Packing, PartialRun};
pub use initial::initial_weights;
pub use optimizer::{Sgd, SgdOptions, SgdStep};
pub use scores::{
    blend, confidences, cross_entropy, log_mean_probabilities, log_softmax, margins, softmax, top_k,
};
pub use sdpoint_kernels::{
    AlgorithmChoice, Context, ContextError, ConvAlgorithm, Isa, WinogradTile, peak_gflops,
    release_freed_memory, return_freed_blocks_from,
};
pub use timing::{Pass, StepTime};
pub use training::{
    Branch, BranchedInput, BranchedOutcome, Distillation, Noise, StepInput, StepOutcome, Target,
    TrainingEngine, TuningInput,
};
pub use work::{InstanceMacs, SharedMacs};

/// A borrowed batch of normalised images in NHWC order.
#[derive(Clone, Copy, Debug)]
pub struct Images<'a> {
    /// `batch · height · width · channels` values.
    pub data: &'a [f32],
    /// The number of images.
    pub batch: usize,
    /// Height and width.
    pub size: [usize; 2],
}

/// An error of the engine: invalid arguments, or too little memory.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The network does not accept images of this size, or lacks the
    /// instance's point.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// A slice has the wrong length.
    #[error("{what} has {found} values where {expected} are needed")]
    Length {
        /// What the slice holds.
        what: &'static str,
        /// The length of the slice.
        found: usize,
        /// The required length.
        expected: usize,
    },
    /// An allocation that the system refused.
    #[error("{what} needs {bytes} bytes of memory, more than the system can allocate")]
    TooLarge {
        /// What the memory is for.
        what: &'static str,
        /// The size of the allocation in bytes.
        bytes: usize,
    },
    /// A batch without images.
    #[error("a batch needs at least one image")]
    EmptyBatch,
    /// A label outside `0..classes`.
    #[error("label {label} is out of range: the network has {classes} classes")]
    Label {
        /// The label.
        label: u32,
        /// The number of classes.
        classes: usize,
    },
    /// Soft targets for a network of several classifiers, which are trained on
    /// labels alone.
    #[error("soft targets are not supported for a network of several classifiers")]
    SoftTargets,
    /// The weights belong to another network: their number or their lengths
    /// differ.
    #[error("the weights do not fit {0}")]
    Weights(String),
    /// An instance without batch-norm statistics.
    #[error("instance {0} has no batch-norm statistics yet: calibrate it first")]
    NotCalibrated(Instance),
    /// A [`PartialRun`] is already past the point at which the instance
    /// downsamples.
    #[error("the run is already past the point at which instance {0} downsamples")]
    Passed(Instance),
    /// A branch of a training step whose instance is `full`.
    #[error("full cannot branch off from itself: a branch needs an instance with a point")]
    BranchOfFull,
    /// A branch of a training step without images, or with images beyond the
    /// batch.
    #[error(
        "the branch {instance} has images {}..{} of a batch of {batch}: it needs at least one, and \
         none beyond the batch",
        images.start, images.end
    )]
    BranchImages {
        /// The instance of the branch.
        instance: Instance,
        /// Its images.
        images: Range<usize>,
        /// The number of images of the batch.
        batch: usize,
    },
    /// Calibration finished without a batch.
    #[error("calibration needs at least one batch")]
    NoBatches,
}

impl Images<'_> {
    /// Checks the number of images and the length of `data`.
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

/// The context and the network that every engine holds.
#[derive(Clone, Debug)]
struct Base {
    ctx: Arc<Context>,
    network: Arc<Network>,
}

//! What the protocols hand to the executor, and what they get back.

use std::time::{Duration, Instant};

use sdpoint::{Instance, Record};

/// One request: a few images, to be classified by a deadline.
#[derive(Debug)]
pub struct Job {
    /// The images.
    pub input: Input,
    /// The number of images.
    pub images: usize,
    /// When the request arrived.
    pub arrival: Instant,
    /// When the answer must be there; none takes the server's objective.
    pub deadline: Option<Instant>,
    /// Whether an answer after the deadline is better than none.
    pub late: bool,
    /// The instances that may answer.
    pub constraints: Constraints,
    /// One instance for all images, or a cascade.
    pub mode: Mode,
}

/// Images in the form in which a request carried them. The executor writes them
/// straight into its batch, so each is copied once.
#[derive(Debug)]
pub enum Input {
    /// Normalised values, image by channel by row by column (NCHW).
    Planes(Vec<f32>),
    /// Normalised values, image by row by column by channel (NHWC).
    Prepared(Vec<f32>),
    /// Pixels of the network's input size, NHWC, not normalised.
    Pixels(Vec<u8>),
}

/// Bounds on the instances that may answer a request. Those of all requests of a
/// batch hold together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Constraints {
    /// Only this instance.
    pub instance: Option<Instance>,
    /// At most this many multiply-accumulates an image.
    pub max_macs: Option<u64>,
    /// At least this recorded accuracy, in 0..=1.
    pub min_accuracy: Option<f64>,
}

impl Constraints {
    /// Whether an instance may answer.
    pub fn allow(&self, record: &Record) -> bool {
        // Accuracies that were printed and read again must still fit.
        let accurate = |least: f64| record.top1.is_some_and(|top1| top1 >= least * (1.0 - 1e-9));
        self.instance
            .is_none_or(|instance| record.instance == instance)
            && self.max_macs.is_none_or(|macs| record.macs <= macs)
            && self.min_accuracy.is_none_or(accurate)
    }
}

/// How a batch is computed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Mode {
    /// One instance for all images, chosen by the controller.
    #[default]
    Instance,
    /// A cheap instance, and a costlier one for the images that it is not sure of.
    Cascade([Instance; 2], f64),
}

/// The answer to a [`Job`].
#[derive(Clone, Debug)]
pub struct Reply {
    /// `images * classes` values; row by row the logits of an image.
    pub logits: Vec<f32>,
    /// The same shape: the probabilities (softmax, or a sigmoid where the model says so).
    pub probabilities: Vec<f32>,
    /// The instance that answered each image.
    pub instances: Vec<Instance>,
    /// Multiply-accumulates of an image, in the mean.
    pub macs: u64,
    /// The recorded accuracy of the instance, in 0..=1, if the model file has one.
    pub accuracy: Option<f64>,
    /// Time between arrival and the start of the computation.
    pub queued: Duration,
    /// Time of the computation of the batch that this job was part of.
    pub computed: Duration,
    /// Images in that batch.
    pub batch: usize,
}

/// Why a job gets no [`Reply`].
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Even the cheapest allowed instance would be late, or the queue is full.
    #[error("overloaded: {reason}; retry in {} ms", retry_after.as_millis())]
    Overloaded {
        /// What is exhausted.
        reason: &'static str,
        /// When there is likely to be room again.
        retry_after: Duration,
    },
    /// The deadline passed before the answer was there.
    #[error("the deadline passed before the request could be answered")]
    Expired,
    /// No instance of the model satisfies the constraints.
    #[error("{0}")]
    NoInstance(String),
    /// The server is shutting down, or the model was unloaded.
    #[error("the model is being unloaded")]
    Unavailable,
    /// The computation failed.
    #[error("inference failed: {0}")]
    Failed(String),
}

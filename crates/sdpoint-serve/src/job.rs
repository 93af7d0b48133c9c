//! Jobs, which the protocols submit to the executor, and the replies to them.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use sdpoint::Instance;
use sdpoint::core::Record;

/// One request: a few images, to be classified by a deadline.
#[derive(Debug)]
pub struct Job {
    /// The images.
    pub input: Input,
    /// The number of images.
    pub images: usize,
    /// When the request arrived.
    pub arrival: Instant,
    /// The deadline of the answer, if the request has one of its own. Otherwise it is due within
    /// the server's objective, or later where there is no load to shed.
    pub deadline: Option<Instant>,
    /// Whether to answer even after the deadline.
    pub late: bool,
    /// The instances that may answer.
    pub constraints: Constraints,
    /// One instance for all images, or a combination.
    pub mode: Mode,
}

/// Images in the layout of the request. The executor converts them while copying them
/// into a batch, which is the only copy.
#[derive(Debug)]
pub enum Input {
    /// Normalised values, image by channel by row by column (NCHW), as little-endian FP32.
    Planes(Bytes),
    /// Normalised values, image by row by column by channel (NHWC).
    Prepared(Vec<f32>),
    /// Pixels of the network's input size, NHWC, not normalised.
    Pixels(Bytes),
}

/// Bounds on the instances that may answer a request. A batch satisfies the bounds of
/// all its requests.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Constraints {
    /// Only this instance.
    pub instance: Option<Instance>,
    /// At most this many multiply-accumulates per image.
    pub max_macs: Option<u64>,
    /// At least this recorded accuracy, in 0..=1.
    pub min_accuracy: Option<f64>,
}

impl Constraints {
    /// Whether an instance may answer.
    pub fn allow(&self, record: &Record) -> bool {
        // Tolerates the rounding of an accuracy that was printed and parsed again.
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
    /// The cascade or ensemble of this index in
    /// [`Engine::combinations`](sdpoint::Engine::combinations).
    Combination(usize),
}

/// The answer to a [`Job`].
#[derive(Clone, Debug)]
pub struct Reply {
    /// The logits, `images × classes` values, row by row.
    pub logits: Vec<f32>,
    /// The probabilities, in the same layout.
    pub probabilities: Vec<f32>,
    /// The instance that answered each image; of an ensemble, the first.
    pub instances: Vec<Instance>,
    /// The name of the ensemble that answered all images, if one did.
    pub ensemble: Option<String>,
    /// Mean multiply-accumulates per image.
    pub macs: u64,
    /// The recorded accuracy of the instance or combination, in 0..=1, if the model file has one.
    pub accuracy: Option<f64>,
    /// Time between arrival and the start of the computation.
    pub queued: Duration,
    /// Compute time of the batch that contained this job.
    pub computed: Duration,
    /// The number of images in that batch.
    pub batch: usize,
    /// When that batch ended, the last one if there were several.
    pub ended: Instant,
    /// The deadline by which it was accepted to be answered; none if it could be late.
    pub promised: Option<Instant>,
}

impl Reply {
    /// What answered, and how many consecutive images.
    pub fn answered_by(&self) -> impl Iterator<Item = (String, usize)> {
        let alike = self
            .instances
            .chunk_by(|a, b| a == b || self.ensemble.is_some());
        alike.map(|group| {
            let name = self.ensemble.clone();
            (name.unwrap_or_else(|| group[0].to_string()), group.len())
        })
    }
}

/// A time in milliseconds, to three digits.
fn milliseconds(time: Duration) -> String {
    let time = 1e3 * time.as_secs_f64();
    let decimals = match time {
        100.0.. => 0,
        10.0.. => 1,
        _ => 2,
    };
    format!("{time:.decimals$}")
}

/// Why a job gets no [`Reply`].
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Even the cheapest allowed instance would be late, or the queue is full.
    #[error(
        "overloaded: {reason}; retry in {} ms{}",
        retry_after.as_millis(),
        if *late { ", or set 'late' to get the answer after that" } else { "" }
    )]
    Overloaded {
        /// What is exhausted.
        reason: Cow<'static, str>,
        /// The time after which a retry is likely to succeed.
        retry_after: Duration,
        /// Whether the request would be accepted if it had [`Job::late`].
        late: bool,
    },
    /// The deadline is below the shortest possible time, so that a retry is of no use.
    #[error(
        "the deadline cannot be met: {} ms of it are left once the request is received and \
         decoded, and {by} takes {} ms even without other requests; set a longer one, or 'late' to \
         get the answer after it",
        milliseconds(*left),
        milliseconds(*shortest)
    )]
    TooShort {
        /// The instance or combination that would answer.
        by: Cow<'static, str>,
        /// The time that was left.
        left: Duration,
        /// The shortest possible time.
        shortest: Duration,
    },
    /// The deadline passed before the request was answered.
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

//! Jobs that wait for their answers.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sdpoint::{Instance, Predictions};
use tokio::sync::oneshot;

use crate::executor::Answering;
use crate::{Job, Refusal, Reply};

/// A job, and the part of its answer that is there.
pub(super) struct Pending {
    pub job: Job,
    open: Mutex<Open>,
}

struct Open {
    /// None once it was answered.
    answer: Option<oneshot::Sender<Result<Reply, Refusal>>>,
    /// Images without an answer.
    left: usize,
    reply: Reply,
    /// Sums over images.
    macs: f64,
    accuracy: Option<f64>,
}

/// A run of a job's images that fits into a batch.
#[derive(Clone)]
pub(super) struct Piece {
    pub pending: Arc<Pending>,
    /// The index of the first image.
    pub first: usize,
    pub images: usize,
}

/// What a batch says of the images of a piece.
pub(super) struct Part<'a> {
    pub predictions: &'a Predictions,
    /// The place of the piece's first image in the batch.
    pub at: usize,
    /// The instance of each image of the batch.
    pub instances: &'a [Instance],
    pub macs: f64,
    pub accuracy: Option<f64>,
    pub started: Instant,
    pub computed: Duration,
}

impl Pending {
    pub fn new(job: Job, classes: usize) -> (Self, Answering) {
        let (answer, answering) = oneshot::channel();
        let values = || vec![0.0; job.images * classes];
        let open = Open {
            answer: Some(answer),
            left: job.images,
            reply: Reply {
                logits: values(),
                probabilities: values(),
                instances: vec![Instance::Full; job.images],
                macs: 0,
                accuracy: None,
                queued: Duration::ZERO,
                computed: Duration::ZERO,
                batch: 0,
            },
            macs: 0.0,
            accuracy: Some(0.0),
        };
        let open = Mutex::new(open);
        (Self { job, open }, answering)
    }

    /// The job in runs of at most `most` images.
    pub fn pieces(this: &Arc<Self>, most: usize) -> impl Iterator<Item = Piece> + '_ {
        let images = this.job.images;
        (0..images).step_by(most).map(move |first| Piece {
            pending: this.clone(),
            first,
            images: most.min(images - first),
        })
    }

    /// Whether somebody waits for the answer.
    pub fn is_wanted(&self) -> bool {
        let open = self.lock();
        open.answer
            .as_ref()
            .is_some_and(|answer| !answer.is_closed())
    }

    /// Whether it was answered or refused.
    pub fn is_answered(&self) -> bool {
        self.lock().answer.is_none()
    }

    pub fn refuse(&self, refusal: Refusal) {
        if let Some(answer) = self.lock().answer.take() {
            // Whoever has gone wants no reason.
            let _ = answer.send(Err(refusal));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Piece {
    /// Adds the answers of its images, and sends the reply once all are there.
    pub fn answer(&self, part: &Part<'_>) {
        let Self {
            pending,
            first,
            images,
        } = self;
        let mut open = pending.lock();
        let Open {
            reply,
            left,
            macs,
            accuracy,
            ..
        } = &mut *open;
        let classes = reply.logits.len() / pending.job.images;
        for image in 0..*images {
            let from = part.at + image;
            let to = (first + image) * classes..(first + image + 1) * classes;
            reply.logits[to.clone()].copy_from_slice(part.predictions.logits(from));
            reply.probabilities[to].copy_from_slice(&part.predictions.probabilities(from));
            reply.instances[first + image] = part.instances[from];
        }
        if *left == pending.job.images {
            reply.queued = part.started.saturating_duration_since(pending.job.arrival);
        }
        reply.computed += part.computed;
        reply.batch = part.instances.len();
        *macs += part.macs * *images as f64;
        *accuracy = accuracy
            .zip(part.accuracy)
            .map(|(sum, a)| sum + a * *images as f64);
        *left -= images;
        if *left > 0 {
            return;
        }
        let all = pending.job.images as f64;
        reply.macs = (*macs / all).round() as u64;
        reply.accuracy = accuracy.map(|sum| sum / all);
        let late = pending
            .job
            .deadline
            .is_some_and(|deadline| Instant::now() > deadline);
        let result = match late && !pending.job.late {
            true => Err(Refusal::Expired),
            false => Ok(reply.clone()),
        };
        if let Some(answer) = open.answer.take() {
            // Whoever has gone wants no answer.
            let _ = answer.send(result);
        }
    }
}

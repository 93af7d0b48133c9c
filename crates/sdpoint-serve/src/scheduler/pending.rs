//! Jobs that have not been answered.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sdpoint::{Answer, AnsweredBy, Instance};
use tokio::sync::oneshot;

use crate::executor::Answering;
use crate::{Job, Refusal, Reply};

/// A job and its partial answer.
pub(super) struct Pending {
    pub job: Job,
    open: Mutex<Open>,
}

struct Open {
    /// None once the job is answered.
    answer: Option<oneshot::Sender<Result<Reply, Refusal>>>,
    /// The number of images without an answer.
    left: usize,
    reply: Reply,
    /// The sum over images.
    macs: f64,
    accuracy: Option<f64>,
}

/// Consecutive images of a job that fit into a batch.
#[derive(Clone)]
pub(super) struct Piece {
    pub pending: Arc<Pending>,
    /// The index of the first image.
    pub first: usize,
    pub images: usize,
}

/// The answer of a batch for the images of a piece.
pub(super) struct Part<'a> {
    pub answer: &'a Answer,
    /// The index of the piece's first image in the batch.
    pub at: usize,
    pub accuracy: Option<f64>,
    pub started: Instant,
    pub computed: Duration,
}

impl Pending {
    /// A job that is to be answered by `promised`, unless it may be late.
    pub fn new(job: Job, classes: usize, promised: Option<Instant>) -> (Self, Answering) {
        let (answer, answering) = oneshot::channel();
        let values = || vec![0.0; job.images * classes];
        let open = Open {
            answer: Some(answer),
            left: job.images,
            reply: Reply {
                logits: values(),
                probabilities: values(),
                instances: vec![Instance::Full; job.images],
                ensemble: None,
                macs: 0,
                accuracy: None,
                queued: Duration::ZERO,
                computed: Duration::ZERO,
                batch: 0,
                ended: Instant::now(),
                promised,
            },
            macs: 0.0,
            accuracy: Some(0.0),
        };
        let open = Mutex::new(open);
        (Self { job, open }, answering)
    }

    /// Splits the job into pieces of at most `most` images.
    pub fn pieces(this: &Arc<Self>, most: usize) -> impl Iterator<Item = Piece> + '_ {
        let images = this.job.images;
        (0..images).step_by(most).map(move |first| Piece {
            pending: this.clone(),
            first,
            images: most.min(images - first),
        })
    }

    /// Whether the caller still waits for the answer.
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
            // Fails if the caller has gone.
            let _ = answer.send(Err(refusal));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Piece {
    /// Adds the answers of its images, and sends the reply once it is complete.
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
            let predictions = &part.answer.predictions;
            reply.logits[to.clone()].copy_from_slice(predictions.logits(from));
            reply.probabilities[to].copy_from_slice(&predictions.probabilities(from));
            reply.instances[first + image] = part.answer.instances.image(from)[0];
        }
        if let AnsweredBy::Ensemble(_) = part.answer.instances {
            reply.ensemble = Some(part.answer.instances.to_string());
        }
        if *left == pending.job.images {
            reply.queued = part.started.saturating_duration_since(pending.job.arrival);
        }
        reply.computed += part.computed;
        reply.ended = part.started + part.computed;
        reply.batch = part.answer.predictions.len();
        *macs += part.answer.macs * *images as f64;
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
            // Fails if the caller has gone.
            let _ = answer.send(result);
        }
    }
}

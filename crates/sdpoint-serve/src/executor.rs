//! The interface between the protocols and what computes their jobs.

use std::sync::Arc;

use sdpoint::{Engine, EngineError};
use tokio::sync::oneshot;

use crate::delivery::Sent;
use crate::{Job, Refusal, Reply};

/// Receives the answer to a [`Job`]. Dropping it cancels the job.
pub type Answering = oneshot::Receiver<Result<Reply, Refusal>>;

/// Computes jobs on the engines of several models.
pub trait Executor: Send + Sync + 'static {
    /// Adds a model under a new name. When this returns, the weights are packed and the
    /// latencies measured. It may block for seconds.
    ///
    /// A reloaded model gets a new name here, so that requests that are in progress keep
    /// the model that they started with.
    ///
    /// # Errors
    /// If the model cannot run.
    fn install(&self, name: &str, engine: Arc<Engine>) -> Result<(), EngineError>;

    /// Stops accepting jobs for a model. Accepted ones are answered.
    fn remove(&self, name: &str);

    /// Queues a job without blocking.
    ///
    /// # Errors
    /// If it cannot be answered in time, or the queue is full.
    fn submit(&self, name: &str, job: Job) -> Result<Answering, Refusal>;

    /// Notes that the answer to an accepted job was sent, or the refusal of one that was dropped.
    fn settle(&self, name: &str, sent: &Sent) {
        let _ = (name, sent);
    }

    /// The number of images that are queued for a model.
    fn waiting(&self, name: &str) -> usize;

    /// Stops accepting jobs. Accepted ones are answered.
    fn close(&self);
}

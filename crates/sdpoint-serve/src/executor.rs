//! What computes: the protocols hand it jobs, and get replies.

use std::sync::Arc;

use sdpoint::Engine;
use sdpoint::engine::EngineError;
use tokio::sync::oneshot;

use crate::{Job, Refusal, Reply};

/// The way in which a [`Job`]'s answer comes back. Whoever drops it no longer wants
/// the answer, and the job should cost nothing any more.
pub type Answering = oneshot::Receiver<Result<Reply, Refusal>>;

/// Computes jobs on the engines of several models.
pub trait Executor: Send + Sync + 'static {
    /// Takes a model under a name that no other has. When this returns, weights are
    /// packed and times known. May take seconds; not for async threads.
    ///
    /// A model that is loaded again has another name here, so that requests end with the
    /// model that they began with.
    ///
    /// # Errors
    /// If the model cannot run.
    fn install(&self, name: &str, engine: Arc<Engine>) -> Result<(), EngineError>;

    /// Takes no further jobs for a model; those that it has are answered.
    fn remove(&self, name: &str);

    /// Queues a job, without waiting.
    ///
    /// # Errors
    /// If it cannot be answered in time, or the queue is full.
    fn submit(&self, name: &str, job: Job) -> Result<Answering, Refusal>;

    /// Takes no further jobs at all; those that were taken are answered.
    fn close(&self);
}

//! When the answer to a request was sent.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::models::Model;
use crate::{Executor, Reply};

/// The end of an accepted job, as its client sees it.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// When the response was handed to the connection.
    pub at: Instant,
    /// Whether that was after the deadline, or the job was dropped.
    pub missed: bool,
    /// The time since the end of its batch; none if it was dropped.
    pub delivery: Option<Duration>,
}

/// Tells the executor when the response to an accepted request is handed to the connection:
/// sending answers takes time that the executor does not see.
#[derive(Debug, Default)]
pub struct Delivery(OnceLock<Expected>);

/// The response to an accepted request.
struct Expected {
    executor: Arc<dyn Executor>,
    model: Arc<Model>,
    deadline: Instant,
    /// When its batch ended; none if it was dropped.
    ended: Option<Instant>,
}

impl Delivery {
    /// Notes the response to an accepted request, which is about to be sent: the reply, or
    /// none if the request was dropped.
    pub fn expect(
        &self,
        executor: &Arc<dyn Executor>,
        model: &Arc<Model>,
        deadline: Instant,
        reply: Option<&Reply>,
    ) {
        // A request is answered once.
        let _ = self.0.set(Expected {
            executor: executor.clone(),
            model: model.clone(),
            deadline,
            ended: reply.map(|reply| reply.ended),
        });
    }
}

/// Reports a [`Delivery`] when it is dropped, together with the response.
#[derive(Debug)]
pub struct Sending(pub Arc<Delivery>);

impl Drop for Sending {
    fn drop(&mut self) {
        if let Some(expected) = self.0.0.get() {
            let now = Instant::now();
            let delivery = |ended| now.saturating_duration_since(ended);
            let sent = Sent {
                at: now,
                missed: expected.ended.is_none() || now > expected.deadline,
                delivery: expected.ended.map(delivery),
            };
            let key = expected.model.installed.key();
            expected.executor.settle(key, &sent);
        }
    }
}

impl std::fmt::Debug for Expected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Expected")
            .field("deadline", &self.deadline)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

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

/// The response to a request that was accepted to be answered by a deadline.
struct Expected {
    executor: Arc<dyn Executor>,
    model: Arc<Model>,
    /// The deadline, and when its batch ended; none if it was dropped.
    answer: Option<[Instant; 2]>,
}

impl Delivery {
    /// Notes the response to an accepted request, which is about to be sent: the reply, or
    /// none if the request was dropped. One that could be late says nothing about forecasts.
    pub fn expect(&self, executor: &Arc<dyn Executor>, model: &Arc<Model>, reply: Option<&Reply>) {
        let answer = match reply {
            None => None,
            Some(reply) => match reply.promised {
                None => return,
                Some(promised) => Some([promised, reply.ended]),
            },
        };
        // A request is answered once.
        let _ = self.0.set(Expected {
            executor: executor.clone(),
            model: model.clone(),
            answer,
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
            let delivery = |[_, ended]: [Instant; 2]| now.saturating_duration_since(ended);
            let sent = Sent {
                at: now,
                missed: expected.answer.is_none_or(|[promised, _]| now > promised),
                delivery: expected.answer.map(delivery),
            };
            let key = expected.model.installed.key();
            expected.executor.settle(key, &sent);
        }
    }
}

impl std::fmt::Debug for Expected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Expected")
            .field("answer", &self.answer)
            .finish_non_exhaustive()
    }
}

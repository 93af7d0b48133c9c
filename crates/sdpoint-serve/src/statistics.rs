//! Request statistics of a model as Triton defines them, for its clients and
//! perf_analyzer.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::Reply;

/// A count and a total duration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// The count.
    pub count: u64,
    /// The total, in nanoseconds.
    pub ns: u64,
}

impl Tally {
    fn add(&mut self, time: Duration) {
        self.count += 1;
        self.ns = self
            .ns
            .saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }
}

/// A snapshot of the counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts {
    /// When the last request was answered, in milliseconds since 1970.
    pub last_inference: u64,
    /// Images that were answered.
    pub inferences: u64,
    /// Executed batches. Each answer adds its share of its batch.
    pub executions: f64,
    /// Answered requests, from arrival to answer.
    pub success: Tally,
    /// Failed requests.
    pub fail: Tally,
    /// Time in the queue.
    pub queue: Tally,
    /// Time for reading, checking and decoding.
    pub input: Tally,
    /// Compute time of the batch.
    pub compute: Tally,
    /// Time from the end of the computation to the answer.
    pub output: Tally,
    /// Number and total time of batches, by size.
    pub batches: BTreeMap<usize, (f64, Duration)>,
}

/// The counts of a model.
#[derive(Debug, Default)]
pub struct Statistics(Mutex<Counts>);

impl Statistics {
    /// Counts an answer. `input` is the time until it was submitted to the executor, which
    /// is part of [`Reply::queued`]; `whole` the time from arrival to answer.
    pub fn answered(&self, reply: &Reply, input: Duration, whole: Duration) {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let images = reply.instances.len();
        let part = images as f64 / reply.batch.max(images).max(1) as f64;
        let spent = reply.queued + reply.computed;
        self.change(|counts| {
            counts.last_inference = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
            counts.inferences += images as u64;
            counts.executions += part;
            counts.success.add(whole);
            counts.queue.add(reply.queued.saturating_sub(input));
            counts.input.add(input);
            counts.compute.add(reply.computed);
            counts.output.add(whole.saturating_sub(spent));
            let batch = counts.batches.entry(reply.batch).or_default();
            batch.0 += part;
            batch.1 += reply.computed.mul_f64(part);
        });
    }

    /// Counts a request that failed `whole` after its arrival.
    pub fn failed(&self, whole: Duration) {
        self.change(|counts| counts.fail.add(whole));
    }

    /// A snapshot of the counts.
    pub fn counts(&self) -> Counts {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn change(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

#[cfg(test)]
mod tests {
    use sdpoint::Instance;

    use super::*;

    #[test]
    fn parts_of_a_batch_add_up_to_one() {
        let reply = |images: usize| Reply {
            logits: vec![],
            probabilities: vec![],
            instances: vec![Instance::Full; images],
            ensemble: None,
            macs: 1,
            accuracy: None,
            queued: Duration::from_millis(2),
            computed: Duration::from_millis(5),
            batch: 4,
            ended: std::time::Instant::now(),
            promised: None,
        };
        let statistics = Statistics::default();
        statistics.answered(
            &reply(1),
            Duration::from_millis(1),
            Duration::from_millis(9),
        );
        statistics.answered(
            &reply(3),
            Duration::from_millis(1),
            Duration::from_millis(9),
        );
        statistics.failed(Duration::from_millis(1));
        let counts = statistics.counts();
        assert_eq!((counts.inferences, counts.executions), (4, 1.0));
        assert_eq!((counts.success.count, counts.fail.count), (2, 1));
        assert_eq!((counts.input.ns, counts.queue.ns), (2_000_000, 2_000_000));
        assert_eq!(counts.output.ns, 4_000_000);
        assert_eq!(counts.batches[&4], (1.0, Duration::from_millis(5)));
        assert!(counts.last_inference > 1_700_000_000_000);
    }
}

//! Open-loop load: requests are sent when they are due, however many are unanswered.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use sdpoint::Instance;
use tokio::sync::mpsc::unbounded_channel;
use tokio::task::JoinSet;
use tonic::Code;

use crate::client::{Client, Requests};

/// A request and what became of it.
#[derive(Clone, Debug)]
pub struct Sample {
    /// When it was due, in seconds from the start of the run.
    pub due: f64,
    /// How much later it was sent, in seconds.
    pub lag: f64,
    /// The time from when it was due to the answer or refusal, in seconds.
    pub latency: f64,
    pub outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    Answered {
        instance: Option<Instance>,
        accuracy: Option<f64>,
    },
    /// The server has no time for it.
    Refused,
    /// It was accepted, and the server gave up on it.
    Dropped,
    Failed(String),
}

/// Tells a request that was accepted and could not be answered in time after all from one that
/// was refused when it arrived.
const DROPPED: &str = "can no longer be answered";

/// The time from the call of [`run`] to the start of the run.
const LEAD: Duration = Duration::from_millis(20);

/// Sends requests at the given times, in seconds from the start, and calls `each` with
/// what became of each, in the order of the answers.
///
/// A thread of its own waits for the next time, because the runtime's timer has a
/// resolution of a millisecond.
pub async fn run(
    client: &Client,
    requests: &Requests,
    arrivals: Arc<[f64]>,
    mut each: impl FnMut(Sample),
) -> anyhow::Result<()> {
    let (sender, mut due) = unbounded_channel();
    let start = Instant::now() + LEAD;
    let pacing = thread::spawn(move || {
        for &at in &*arrivals {
            let time = start + Duration::from_secs_f64(at);
            thread::sleep(time.saturating_duration_since(Instant::now()));
            if sender.send((at, time)).is_err() {
                return;
            }
        }
    });
    let mut running = JoinSet::new();
    let mut number = 0;
    while let Some((at, time)) = due.recv().await {
        let (client, request) = (client.clone(), requests.request(number));
        number += 1;
        running.spawn(async move {
            let sent = Instant::now();
            let result = client.infer(request).await;
            let done = Instant::now();
            Sample {
                due: at,
                lag: sent.duration_since(time).as_secs_f64(),
                latency: done.duration_since(time).as_secs_f64(),
                outcome: outcome(result),
            }
        });
        while let Some(sample) = running.try_join_next() {
            each(sample?);
        }
    }
    while let Some(sample) = running.join_next().await {
        each(sample?);
    }
    pacing.join().expect("the pacing thread only sleeps");
    Ok(())
}

/// As [`run`], with all samples in the order in which they were due.
pub async fn collect(
    client: &Client,
    requests: &Requests,
    arrivals: Arc<[f64]>,
) -> anyhow::Result<Vec<Sample>> {
    let mut samples = Vec::with_capacity(arrivals.len());
    run(client, requests, arrivals, |sample| samples.push(sample)).await?;
    samples.sort_by(|a, b| a.due.total_cmp(&b.due));
    Ok(samples)
}

fn outcome(result: Result<crate::client::Answer, tonic::Status>) -> Outcome {
    match result {
        Ok(answer) => Outcome::Answered {
            instance: answer.instance,
            accuracy: answer.accuracy,
        },
        Err(status) => match status.code() {
            Code::ResourceExhausted if status.message().contains(DROPPED) => Outcome::Dropped,
            Code::ResourceExhausted => Outcome::Refused,
            Code::DeadlineExceeded => Outcome::Dropped,
            code => Outcome::Failed(format!("{code:?}: {}", status.message())),
        },
    }
}

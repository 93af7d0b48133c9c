//! What the samples of a run amount to.

use std::collections::BTreeMap;

use sdpoint::Instance;

use crate::load::{Outcome, Sample};

/// Shares are from 0 to 1, times in seconds.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// The share of requests that were answered within the objective.
    pub attainment: f64,
    /// The mean recorded accuracy of the answers in time.
    pub accuracy: f64,
    /// Answers in time, per second.
    pub goodput: f64,
    pub median: f64,
    pub p99: f64,
    /// The share of requests that were refused when they arrived.
    pub refused: f64,
    /// The share of requests that were accepted and dropped.
    pub dropped: f64,
    /// The 99.9th percentile of the time to a refusal.
    pub refusal: f64,
    /// The 99th percentile of the time by which requests were sent late.
    pub lag: f64,
    /// Errors other than refusals and passed deadlines.
    pub failed: usize,
    /// The share of each instance among the answers in time.
    pub mix: BTreeMap<Instance, f64>,
}

impl Summary {
    pub fn of(samples: &[Sample], objective: f64) -> Self {
        let all = samples.len().max(1) as f64;
        let span = samples.last().map_or(1.0, |sample| sample.due);
        let mut accuracies = Vec::new();
        let (mut latencies, mut refusals) = (Vec::new(), Vec::new());
        let mut mix = BTreeMap::new();
        let (mut in_time, mut dropped, mut failed) = (0, 0, 0);
        for sample in samples {
            match &sample.outcome {
                Outcome::Answered { instance, accuracy } => {
                    latencies.push(sample.latency);
                    if sample.latency <= objective {
                        in_time += 1;
                        accuracies.extend(*accuracy);
                        instance.map(|instance| *mix.entry(instance).or_default() += 1.0);
                    }
                }
                Outcome::Refused => refusals.push(sample.latency),
                Outcome::Dropped => dropped += 1,
                Outcome::Failed(_) => failed += 1,
            }
        }
        mix.values_mut()
            .for_each(|count| *count /= f64::from(in_time.max(1)));
        let lags = samples.iter().map(|sample| sample.lag).collect();
        Self {
            attainment: f64::from(in_time) / all,
            accuracy: accuracies.iter().sum::<f64>() / accuracies.len().max(1) as f64,
            goodput: f64::from(in_time) / span,
            median: quantile(latencies.clone(), 0.5),
            p99: quantile(latencies, 0.99),
            refused: refusals.len() as f64 / all,
            dropped: f64::from(dropped) / all,
            refusal: quantile(refusals, 0.999),
            lag: quantile(lags, 0.99),
            failed,
            mix,
        }
    }
}

/// A quantile of the values; 0 if there are none.
pub fn quantile(mut values: Vec<f64>, share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let place = (values.len().saturating_sub(1) as f64 * share).round();
    values.get(place as usize).copied().unwrap_or(0.0)
}

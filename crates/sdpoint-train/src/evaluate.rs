//! Accuracy of every instance.

use std::sync::Arc;

use sdpoint_core::{Combination, CombinedRecord, Instance, Network, Record, Statistics, Weights};
use sdpoint_engine::{
    Context, Images, InferenceEngine, InstanceMacs, NormSource, SharedMacs, cross_entropy, top_k,
};

use crate::calibrate::Feed;
use crate::combine::Tally;
use crate::error::TrainError;
use crate::observer::Observer;

/// What an evaluation measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// Cost and accuracy of each instance, in the order asked for.
    pub records: Vec<Record>,
    /// Those of the combinations whose members are all among the instances.
    pub combined: Vec<CombinedRecord>,
    /// How many images it measured.
    pub images: usize,
    /// How many it left out because they are unreadable.
    pub skipped: usize,
    /// MACs of one image in all instances, and what they would have been
    /// without sharing the layers before the points.
    pub work: SharedMacs,
}

/// Measures some instances on all images of the feed that can be read. The
/// layers before a point are computed once a batch for all instances.
///
/// # Errors
/// If the data cannot be read or does not fit the network, if an instance
/// has no statistics, or if the observer stops it.
pub fn evaluate(
    ctx: &Arc<Context>,
    network: &Arc<Network>,
    weights: &Weights,
    statistics: &Statistics,
    instances: &[Instance],
    combinations: &[Combination],
    norms: NormSource,
    feed: Feed<'_>,
    observer: &mut dyn Observer,
) -> Result<Evaluation, TrainError> {
    let size = feed.preprocessing.size;
    let work = InstanceMacs::new(network, size, instances.iter().copied())?;
    let engine = InferenceEngine::new(ctx.clone(), network.clone(), weights, statistics)?;
    let images = feed.data.len();
    let mut scores = vec![Score::default(); instances.len()];
    let mut combined = Tally::of(combinations, instances);
    let mut done = 0;
    for batch in feed.batches(ctx, (0..images).collect())? {
        let batch = batch?;
        let input = Images {
            data: &batch.images,
            batch: batch.len(),
            size: batch.size,
        };
        let logits = engine.run_all(input, instances, norms)?;
        for (score, logits) in scores.iter_mut().zip(&logits) {
            score.add(logits, &batch.labels, network.classes());
        }
        for tally in &mut combined {
            tally.add(&logits, &batch.labels, network.classes());
        }
        done += batch.len();
        observer.evaluating(done, images);
        if observer.stop_requested() {
            return Err(TrainError::Stopped);
        }
    }
    let records = std::iter::zip(instances, &scores).map(|(&instance, score)| {
        let [top1, top5, loss] = score.means();
        Record {
            instance,
            macs: work.macs(instance),
            top1: Some(top1),
            top5: Some(top5),
            loss: Some(loss),
        }
    });
    Ok(Evaluation {
        records: records.collect(),
        combined: combined.iter().map(|tally| tally.record(&work)).collect(),
        images: done,
        skipped: images - done,
        work: work.shared(instances),
    })
}

/// Sums over the images of one instance.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Score {
    images: u64,
    first: u64,
    among_five: u64,
    loss: f64,
}

impl Score {
    pub fn add(&mut self, logits: &[f32], labels: &[u32], classes: usize) {
        self.images += labels.len() as u64;
        self.loss += cross_entropy(logits, labels, classes);
        for (row, &label) in logits.chunks_exact(classes).zip(labels) {
            let best = top_k(row, 5);
            let place = best.iter().position(|&class| class == label as usize);
            self.first += u64::from(place == Some(0));
            self.among_five += u64::from(place.is_some());
        }
    }

    /// Top-1 and top-5 accuracy and the mean loss.
    pub fn means(&self) -> [f64; 3] {
        let images = self.images.max(1) as f64;
        [self.first as f64, self.among_five as f64, self.loss].map(|sum| sum / images)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_and_the_first_five_guesses_are_counted() {
        let mut score = Score::default();
        let logits = [
            [9.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
            [9.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
            [9.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
        ];
        score.add(logits.as_flattened(), &[0, 3, 2], 7);
        assert_eq!((score.first, score.among_five), (1, 2));
        let sum: f64 = logits[0].iter().map(|v: &f32| f64::from(*v).exp()).sum();
        let expected = 3.0 * sum.ln() - (9.0 + 3.0 + 2.0);
        assert!((score.loss - expected).abs() < 1e-5, "{}", score.loss);
    }
}

//! The accuracy of every instance.

use std::sync::Arc;

use sdpoint_core::{Combination, CombinedRecord, Instance, Network, Record, Statistics, Weights};
use sdpoint_engine::{
    Context, Images, InferenceEngine, InstanceMacs, NormSource, SharedMacs, cross_entropy, top_k,
};

use crate::calibrate::Feed;
use crate::combine::Tally;
use crate::details::{Collector, Confusion, Details};
use crate::error::TrainError;
use crate::observer::Observer;

/// A trained network: what evaluation runs.
#[derive(Clone, Copy, Debug)]
pub struct Trained<'a> {
    /// The network.
    pub network: &'a Arc<Network>,
    /// Its weights.
    pub weights: &'a Weights,
    /// The batch-norm statistics of its instances.
    pub statistics: &'a Statistics,
}

/// What [`evaluate`] measures.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct EvaluateOptions<'a> {
    /// The instances.
    pub instances: &'a [Instance],
    /// Cascades and ensembles; those with a member that is not among the
    /// instances are skipped.
    pub combinations: &'a [Combination],
    /// The batch-norm statistics that the instances run with.
    pub norms: NormSource,
    /// The instance whose confusion matrix is counted, one of the instances.
    pub confusion: Option<Instance>,
    /// Whether to keep the logits of all images.
    pub logits: bool,
}

impl<'a> EvaluateOptions<'a> {
    /// Measures `instances` with their own statistics, and no combinations.
    pub fn new(instances: &'a [Instance]) -> Self {
        Self {
            instances,
            combinations: &[],
            norms: NormSource::Own,
            confusion: None,
            logits: false,
        }
    }

    /// Measures these combinations too.
    pub fn with_combinations(self, combinations: &'a [Combination]) -> Self {
        Self {
            combinations,
            ..self
        }
    }

    /// Sets the batch-norm statistics that the instances run with.
    pub fn with_norms(self, norms: NormSource) -> Self {
        Self { norms, ..self }
    }

    /// Counts the confusion matrix of one of the instances.
    pub fn with_confusion(self, instance: Instance) -> Self {
        let confusion = Some(instance);
        Self { confusion, ..self }
    }

    /// Keeps the logits of all images, which take four bytes per class and instance.
    pub fn with_logits(self) -> Self {
        Self {
            logits: true,
            ..self
        }
    }
}

/// The results of an evaluation.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Evaluation {
    /// The cost and accuracy of each instance, in the order of
    /// [`EvaluateOptions::instances`].
    pub records: Vec<Record>,
    /// The mean cost and accuracy of each combination.
    pub combined: Vec<CombinedRecord>,
    /// The calibration and the classes of each instance, then of each
    /// combination.
    pub details: Vec<Details>,
    /// The confusion matrix, if it was requested.
    pub confusion: Option<Confusion>,
    /// The labels of the images measured and their logits in each instance, if they were
    /// requested.
    pub logits: Option<Logits>,
    /// The number of images measured.
    pub images: usize,
    /// The number of images skipped because they are unreadable.
    pub skipped: usize,
    /// MACs of one image in all instances, with and without sharing the layers
    /// before the points.
    pub work: SharedMacs,
}

/// What instances predicted for each image.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Logits {
    /// The class of each image, in the order of the data without unreadable images.
    pub labels: Vec<u32>,
    /// Of each instance, in the order of the records: images times classes.
    pub of_instances: Vec<Vec<f32>>,
}

impl Logits {
    fn add(&mut self, labels: &[u32], logits: &[Vec<f32>]) {
        self.labels.extend(labels);
        self.of_instances.resize(logits.len(), Vec::new());
        for (all, new) in self.of_instances.iter_mut().zip(logits) {
            all.extend(new);
        }
    }
}

/// Measures instances on all readable images of `feed`.
///
/// The layers before a point are computed once per batch for all instances.
///
/// # Errors
/// If the data cannot be read or does not fit the network, if an instance
/// has no statistics, or if the observer stops it.
pub fn evaluate(
    ctx: &Arc<Context>,
    trained: Trained<'_>,
    feed: Feed<'_>,
    options: EvaluateOptions<'_>,
    observer: &mut dyn Observer,
) -> Result<Evaluation, TrainError> {
    let Trained {
        network,
        weights,
        statistics,
    } = trained;
    let EvaluateOptions {
        instances,
        combinations,
        norms,
        confusion,
        logits: keep,
    } = options;
    let size = feed.preprocessing.size;
    let work = InstanceMacs::new(network, size, instances.iter().copied())?;
    let engine = InferenceEngine::new(ctx.clone(), network.clone(), weights, statistics)?;
    let images = feed.data.len();
    let mut scores = vec![Score::default(); instances.len()];
    let place = confusion.and_then(|wanted| instances.iter().position(|&one| one == wanted));
    let mut confusion =
        place.map(|place| (place, Confusion::new(instances[place], network.classes())));
    let mut combined = Tally::of(combinations, instances);
    let mut kept = keep.then(Logits::default);
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
        if let Some((place, confusion)) = &mut confusion {
            confusion.add(&logits[*place], &batch.labels);
        }
        if let Some(kept) = &mut kept {
            kept.add(&batch.labels, &logits);
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
            test: None,
        }
    });
    Ok(Evaluation {
        records: records.collect(),
        combined: combined.iter().map(|tally| tally.record(&work)).collect(),
        details: scores
            .iter()
            .chain(combined.iter().map(Tally::score))
            .map(|score| score.details.details())
            .collect(),
        confusion: confusion.map(|(_, confusion)| confusion),
        logits: kept,
        images: done,
        skipped: images - done,
        work: work.shared(instances),
    })
}

/// Sums of one instance over the images.
#[derive(Clone, Debug, Default)]
pub(crate) struct Score {
    images: u64,
    first: u64,
    among_five: u64,
    loss: f64,
    details: Collector,
}

impl Score {
    pub fn add(&mut self, logits: &[f32], labels: &[u32], classes: usize) {
        self.images += labels.len() as u64;
        self.loss += cross_entropy(logits, labels, classes);
        self.details.add(logits, labels, classes);
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
    fn top_1_and_top_5_are_counted() {
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

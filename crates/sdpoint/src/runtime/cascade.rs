//! Cascades and fitted ensembles.

use std::time::{Duration, Instant};

use sdpoint_core::{
    Cascade, Combination, CombinedRecord, Instance, SelectError, select_combined,
};
use sdpoint_engine::{EngineError, Images, InstanceMacs};

use super::{Engine, MOST_REMEMBERED, Predictions, RunError, lock};

/// The result of a cascade.
#[derive(Clone, Debug, PartialEq)]
pub struct CascadeAnswer {
    /// The predicted classes of each image.
    pub predictions: Predictions,
    /// The instance that produced each image's prediction.
    pub instances: Vec<Instance>,
    /// Mean multiply-accumulates per image.
    pub macs: f64,
    /// Wall-clock time of the run.
    pub time: Duration,
}

impl Engine {
    /// The cascades and ensembles fitted to the model.
    pub fn combinations(&self) -> &[CombinedRecord] {
        &self.combinations
    }

    /// Selects the most accurate fitted cascade whose mean cost is at most
    /// `share` times that of the costliest instance.
    ///
    /// # Errors
    /// If the model has no cascade within that cost.
    pub fn choose_cascade(&self, share: f64) -> Result<&CombinedRecord, SelectError> {
        let is_cascade = |r: &&CombinedRecord| matches!(r.combination, Combination::Cascade(_));
        let cascades = self.combinations.iter().filter(is_cascade);
        select_combined(&self.records, cascades, "cascade", share)
    }

    /// Selects the most accurate fitted ensemble whose cost is at most `share`
    /// times that of the costliest instance; shares above 1 are usual.
    ///
    /// # Errors
    /// If the model has no ensemble within that cost.
    pub fn choose_ensemble(&self, share: f64) -> Result<&CombinedRecord, SelectError> {
        let is_ensemble = |r: &&CombinedRecord| matches!(r.combination, Combination::Ensemble(_));
        let ensembles = self.combinations.iter().filter(is_ensemble);
        select_combined(&self.records, ensembles, "ensemble", share)
    }

    /// Classifies a batch by a cascade: all images in the first instance, then
    /// those with a confidence below the threshold in the second. The second
    /// continues from the point where the two diverge.
    ///
    /// # Errors
    /// If the model lacks an instance, or the images do not fit the network.
    pub fn run_cascade<'a>(
        &self,
        images: impl Into<Images<'a>>,
        cascade: &Cascade,
    ) -> Result<CascadeAnswer, RunError> {
        let images = images.into();
        let Cascade { first, second, .. } = *cascade;
        let start = Instant::now();
        let mut run = self.inference.start(images)?;
        // If the second instance diverges from `full` before the first does,
        // a copy of the run at its point is kept. Otherwise the run itself can
        // still branch into it.
        let mut fork = None;
        if place(second) < place(first) {
            run.advance_to(second)?;
            let all: Vec<usize> = (0..images.batch).collect();
            fork = Some(run.subset(&all)?);
        }
        let mut predictions = Predictions::new(run.branch(first)?, self.classes.clone());
        let unsure: Vec<usize> = predictions
            .confidences()
            .into_iter()
            .enumerate()
            .filter_map(|(image, sure)| (sure < cascade.threshold).then_some(image))
            .collect();
        let mut instances = vec![first; images.batch];
        if !unsure.is_empty() {
            let from = fork.as_mut().unwrap_or(&mut run);
            let logits = if unsure.len() == images.batch {
                from.branch(second)?
            } else {
                from.subset(&unsure)?.branch(second)?
            };
            predictions.replace(&unsure, &logits);
            unsure.iter().for_each(|&image| instances[image] = second);
        }
        let time = start.elapsed();
        let again = unsure.len() as f64 / images.batch as f64;
        Ok(CascadeAnswer {
            predictions,
            instances,
            macs: self.cascade_macs(images.size, cascade, again)?,
            time,
        })
    }

    /// Mean multiply-accumulates per image if the share `again` of the images
    /// runs the second instance.
    fn cascade_macs(
        &self,
        size: [usize; 2],
        cascade: &Cascade,
        again: f64,
    ) -> Result<f64, EngineError> {
        let Cascade { first, second, .. } = *cascade;
        let key = (size, [first, second]);
        let known = lock(&self.cascade_macs).get(&key).copied();
        let [cost, extra] = match known {
            Some(macs) => macs,
            None => {
                let work = InstanceMacs::new(self.network(), size, [first, second])?;
                let macs = work.cascade(first, second);
                let mut remembered = lock(&self.cascade_macs);
                if remembered.len() >= MOST_REMEMBERED {
                    remembered.clear();
                }
                remembered.insert(key, macs);
                macs
            }
        };
        Ok(cost as f64 + again * extra as f64)
    }
}

/// A sort key: orders instances by where they diverge from `full`.
fn place(instance: Instance) -> (bool, Option<sdpoint_core::PointId>) {
    (instance == Instance::Full, instance.point())
}

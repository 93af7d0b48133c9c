//! Runs whose cost depends on the input.

use std::time::{Duration, Instant};

use sdpoint_core::select::{SelectError, select_combined};
use sdpoint_core::{Cascade, Combination, CombinedRecord, Instance};
use sdpoint_engine::{EngineError, Images, InstanceWork};

use super::{Engine, MOST_REMEMBERED, Predictions, RunError, lock};

/// What a cascade gave.
#[derive(Clone, Debug, PartialEq)]
pub struct CascadeAnswer {
    /// The classes of each image.
    pub predictions: Predictions,
    /// The instance whose answer each image has.
    pub instances: Vec<Instance>,
    /// Mean multiply-accumulates for an image.
    pub macs: f64,
    /// How long the run took.
    pub time: Duration,
}

impl Engine {
    /// The cascades and ensembles that were fitted to the model.
    pub fn combinations(&self) -> &[CombinedRecord] {
        &self.combinations
    }

    /// The most accurate fitted cascade that costs, on average, at most a
    /// share of the dearest instance.
    ///
    /// # Errors
    /// If the model has none so cheap.
    pub fn choose_cascade(&self, share: f64) -> Result<&CombinedRecord, SelectError> {
        let is_cascade = |r: &&CombinedRecord| matches!(r.combination, Combination::Cascade(_));
        let cascades = self.combinations.iter().filter(is_cascade);
        select_combined(&self.records, cascades, "cascade", share)
    }

    /// The most accurate fitted ensemble that costs at most a share of the
    /// dearest instance; more than 1 is usual.
    ///
    /// # Errors
    /// If the model has none so cheap.
    pub fn choose_ensemble(&self, share: f64) -> Result<&CombinedRecord, SelectError> {
        let is_ensemble = |r: &&CombinedRecord| matches!(r.combination, Combination::Ensemble(_));
        let ensembles = self.combinations.iter().filter(is_ensemble);
        select_combined(&self.records, ensembles, "ensemble", share)
    }

    /// Classifies a batch by a cascade: all images in its first instance, and
    /// those that it is not sure of in its second, which goes on from where
    /// the two part.
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
        let mut flight = self.inference.start(images)?;
        // Where the second parts from `full` before the first does, what it
        // needs has to be kept; otherwise it is still there.
        let mut fork = None;
        if place(second) < place(first) {
            flight.go_to(second)?;
            let all: Vec<usize> = (0..images.batch).collect();
            fork = Some(flight.of(&all)?);
        }
        let mut predictions = Predictions::new(flight.branch(first)?, self.classes.clone());
        let unsure: Vec<usize> = predictions
            .confidences()
            .into_iter()
            .enumerate()
            .filter_map(|(image, sure)| (sure < cascade.threshold).then_some(image))
            .collect();
        let mut instances = vec![first; images.batch];
        if !unsure.is_empty() {
            let from = fork.as_mut().unwrap_or(&mut flight);
            let logits = if unsure.len() == images.batch {
                from.branch(second)?
            } else {
                from.of(&unsure)?.branch(second)?
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

    /// Mean multiply-accumulates where a share of the images goes on.
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
                let work = InstanceWork::new(self.network(), size, [first, second])?;
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

/// Orders instances by where they part from `full`.
fn place(instance: Instance) -> (bool, Option<sdpoint_core::PointId>) {
    (instance == Instance::Full, instance.point())
}

//! Cascades and fitted ensembles.

use std::time::Instant;

use sdpoint_core::{
    BlendedCascade, Cascade, Combination, CombinedRecord, Instance, SelectError, Stage,
    select_combined,
};
use sdpoint_engine::{Images, log_softmax};

use super::macs::Computation;
use super::{Answer, AnsweredBy, Engine, Predictions, RunError};

impl Engine {
    /// The cascades and ensembles fitted to the model.
    pub fn combinations(&self) -> &[CombinedRecord] {
        &self.combinations
    }

    /// Selects the most accurate fitted cascade whose mean cost is at most
    /// `share` times that of `full`.
    ///
    /// # Errors
    /// If the model has no cascade within that cost.
    pub fn choose_cascade(&self, share: f64) -> Result<&CombinedRecord, SelectError> {
        let records = self.combinations.iter();
        let cascades = records.filter(|record| record.combination.is_cascade());
        select_combined(&self.records, cascades, "cascade", share)
    }

    /// Selects the most accurate fitted ensemble whose cost is at most `share`
    /// times that of `full`; shares above 1 are usual.
    ///
    /// # Errors
    /// If the model has no ensemble within that cost.
    pub fn choose_ensemble(&self, share: f64) -> Result<&CombinedRecord, SelectError> {
        let is_ensemble = |r: &&CombinedRecord| matches!(r.combination, Combination::Ensemble(_));
        let ensembles = self.combinations.iter().filter(is_ensemble);
        select_combined(&self.records, ensembles, "ensemble", share)
    }

    /// Classifies a batch by a cascade or an ensemble, such as one that
    /// [`Engine::choose_cascade`] or [`Engine::choose_ensemble`] selected.
    ///
    /// # Errors
    /// As [`Engine::run_cascade`], [`Engine::run_blended_cascade`] and
    /// [`Engine::run_ensemble`].
    pub fn run_combination<'a>(
        &self,
        images: impl Into<Images<'a>>,
        combination: &Combination,
    ) -> Result<Answer, RunError> {
        match combination {
            Combination::Cascade(cascade) => self.run_cascade(images, cascade),
            Combination::Ensemble(members) => self.run_ensemble(images, members),
            Combination::BlendedCascade(cascade) => self.run_blended_cascade(images, cascade),
        }
    }

    /// Classifies a batch by a cascade: all images in the first instance, then
    /// those with a confidence below the threshold in the second.
    ///
    /// The second continues from the point where the two diverge. A fitted
    /// cascade comes from [`Engine::choose_cascade`].
    ///
    /// # Errors
    /// If the model lacks an instance, or the images do not fit the network.
    pub fn run_cascade<'a>(
        &self,
        images: impl Into<Images<'a>>,
        cascade: &Cascade,
    ) -> Result<Answer, RunError> {
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
        let [cost, extra, _] = self.macs(images.size, Computation::Cascade([first, second]))?;
        Ok(Answer {
            predictions,
            instances: AnsweredBy::Cascade(instances),
            macs: cost as f64 + again * extra as f64,
            time,
        })
    }

    /// Classifies a batch by a cascade whose stages are averaged: each runs on the
    /// images that the answer so far is unsure of, from the point where the
    /// stages diverge. [`Predictions::logits`] are then log-probabilities, and
    /// [`AnsweredBy::Cascade`] names the last instance that ran on an image.
    ///
    /// # Errors
    /// If the model lacks an instance, or the images do not fit the network.
    pub fn run_blended_cascade<'a>(
        &self,
        images: impl Into<Images<'a>>,
        cascade: &BlendedCascade,
    ) -> Result<Answer, RunError> {
        let images = images.into();
        let classes = self.classes.len();
        let stages: Vec<Stage> = cascade.stages().collect();
        let start = Instant::now();
        let mut run = self.inference.start(images)?;
        let mut predictions = Predictions::new(Vec::new(), self.classes.clone());
        let mut instances = vec![cascade.first.instance; images.batch];
        // The images that the stage runs on, and how many those were.
        let mut open: Vec<usize> = (0..images.batch).collect();
        let mut counts = Vec::new();
        for (index, stage) in stages.iter().enumerate() {
            let later = stages[index + 1..].iter().map(|stage| stage.instance);
            let mut fork = None;
            if let Some(earliest) = later.min_by_key(|&instance| place(instance))
                && place(earliest) < place(stage.instance)
            {
                run.advance_to(earliest)?;
                let all: Vec<usize> = (0..open.len()).collect();
                fork = Some(run.subset(&all)?);
            }
            let mut answers = run.branch(stage.instance)?;
            log_softmax(&mut answers, classes, stage.temperature);
            if index == 0 {
                predictions = Predictions::new(answers, self.classes.clone());
            } else {
                predictions.blend(&open, &answers, stage.weight);
                open.iter()
                    .for_each(|&image| instances[image] = stage.instance);
            }
            counts.push(open.len());
            if index + 1 == stages.len() {
                break;
            }
            let margins = predictions.margins();
            let unsure = |&place: &usize| margins[open[place]] < stage.margin;
            let unsure: Vec<usize> = (0..open.len()).filter(unsure).collect();
            if unsure.is_empty() {
                break;
            }
            let mut from = fork.unwrap_or(run);
            run = if unsure.len() == open.len() {
                from
            } else {
                from.subset(&unsure)?
            };
            open = unsure.into_iter().map(|place| open[place]).collect();
        }
        let time = start.elapsed();
        let macs = self.macs(images.size, Computation::Stages(cascade.instances()))?;
        let parts = std::iter::zip(macs, counts);
        let sum: f64 = parts.map(|(macs, count)| macs as f64 * count as f64).sum();
        Ok(Answer {
            predictions,
            instances: AnsweredBy::Cascade(instances),
            macs: sum / images.batch as f64,
            time,
        })
    }
}

/// A sort key: orders instances by where they diverge from `full`.
fn place(instance: Instance) -> (bool, Option<sdpoint_core::PointId>) {
    (instance == Instance::Full, instance.point())
}

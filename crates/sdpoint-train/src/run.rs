//! A run from its plan or its checkpoint to its results.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sdpoint_core::Weights;
use sdpoint_data::Dataset;
use sdpoint_engine::{Context, initial_weights};

use crate::checkpoint::{Checkpoint, Counters, DataDigest, EpochSums};
use crate::error::TrainError;
use crate::finish::Finished;
use crate::folder;
use crate::observer::Observer;
use crate::plan::Plan;
use crate::trainer::Trainer;

/// Where and on what a run works. None of it changes what the run gives.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// Threads and instruction set.
    pub ctx: &'a Arc<Context>,
    /// The images to learn from.
    pub train: &'a Dataset,
    /// The images to measure on in the end.
    pub test: &'a Dataset,
    /// Where checkpoints, metrics and results go.
    pub folder: &'a Path,
    /// How long to go at most between two checkpoints; there is one after
    /// every epoch in any case.
    pub checkpoint_every: Duration,
}

/// A usual value of [`Run::checkpoint_every`]: ten minutes.
pub const CHECKPOINT_EVERY: Duration = Duration::from_secs(600);

/// How a run ended that met no error.
#[derive(Debug)]
pub enum Outcome {
    /// The model stands, with everything in the folder.
    Finished(Box<Finished>),
    /// The observer stopped it; the checkpoint holds all steps done.
    Stopped {
        /// Steps done.
        step: u64,
        /// Steps in all.
        steps: u64,
    },
}

impl Run<'_> {
    /// Trains from the beginning, then calibrates, evaluates and writes the
    /// results.
    ///
    /// # Errors
    /// If the plan is not one that can be trained on this data, if the
    /// folder already holds a run and `overwrite` is not set, if training
    /// diverges, or if data or folder fail.
    pub fn start(
        &self,
        plan: Plan,
        overwrite: bool,
        observer: &mut dyn Observer,
    ) -> Result<Outcome, TrainError> {
        let weights = initial_weights(&plan.trained()?, plan.seed);
        self.start_from(plan, weights, overwrite, observer)
    }

    /// As [`Run::start`], from weights that [`fine_tune`](crate::fine_tune())
    /// took from a model.
    ///
    /// # Errors
    /// If the weights are another network's, and as [`Run::start`].
    pub fn start_from(
        &self,
        plan: Plan,
        weights: Weights,
        overwrite: bool,
        observer: &mut dyn Observer,
    ) -> Result<Outcome, TrainError> {
        plan.check()?;
        let trained = plan.trained()?;
        if !weights.fit(&trained) {
            return Err(TrainError::Plan(format!(
                "the weights to start from are not those of {}",
                plan.network.name()
            )));
        }
        let counters = Counters {
            step: 0,
            images: self.train.len(),
            data: Some(DataDigest::of(self.train, self.test)?),
            steps_per_epoch: self.train.len().div_ceil(plan.recipe.batch_size),
            isa: self.ctx.isa().to_string(),
            drawn: vec![0; plan.costs()?.len()],
            epoch: EpochSums::default(),
        };
        let checkpoint = Checkpoint {
            weights,
            momentum: Weights::zeros(&trained),
            plan,
            counters,
        };
        self.check_data(&checkpoint)?;
        // What is wrong with test images would show when all work is done.
        self.test.check_classes()?;
        let lock = folder::take(self.folder)?;
        folder::clear(self.folder, overwrite)?;
        // A run that is killed before its first checkpoint can be resumed
        // too, and a folder that cannot be written to shows at once.
        let mut trainer = Trainer::new(*self, checkpoint, lock)?;
        trainer.save(observer)?;
        trainer.run(observer)
    }

    /// Goes on from a checkpoint of the run in the folder. What comes of it
    /// is, bit for bit, what the run would have given without interruption.
    ///
    /// Images that are not those of the run are refused, unless the digest is
    /// taken out of the checkpoint's counters. Runs of older versions have
    /// none; from here on they do.
    ///
    /// # Errors
    /// If the data is not the run's, and as [`Run::start`].
    pub fn resume(
        &self,
        mut checkpoint: Checkpoint,
        observer: &mut dyn Observer,
    ) -> Result<Outcome, TrainError> {
        self.check_data(&checkpoint)?;
        let digest = DataDigest::of(self.train, self.test)?;
        if let Some(began_with) = &checkpoint.counters.data {
            check_digest(began_with, &digest)?;
        }
        checkpoint.counters.data = Some(digest);
        let (then, now) = (&checkpoint.counters.isa, self.ctx.isa().to_string());
        if *then != now {
            observer.note(&format!(
                "The run began with {then} instructions and goes on with {now}: \
                 the result will differ in rounding from that of an uninterrupted run."
            ));
        }
        let lock = folder::take(self.folder)?;
        Trainer::new(*self, checkpoint, lock)?.run(observer)
    }

    fn check_data(&self, checkpoint: &Checkpoint) -> Result<(), TrainError> {
        let Checkpoint { plan, counters, .. } = checkpoint;
        let changed = |what: String| Err(TrainError::DataChanged(what));
        if self.train.len() != counters.images {
            return changed(format!(
                "it has {} training images, and had {} when the run began",
                self.train.len(),
                counters.images
            ));
        }
        for data in [self.train, self.test] {
            if data.classes() != plan.classes {
                return changed(format!(
                    "the {} images' classes are not those of the run",
                    data.split()
                ));
            }
        }
        Ok(())
    }
}

/// Whether the images are those that the run began with.
fn check_digest(then: &DataDigest, now: &DataDigest) -> Result<(), TrainError> {
    let differing = match (then.train == now.train, then.test == now.test) {
        (true, true) => return Ok(()),
        (false, true) => "the training images",
        (true, false) => "the test images",
        (false, false) => "the training and the test images",
    };
    Err(TrainError::DataChanged(format!(
        "{differing} are not those that it began with: some were added, removed, replaced, renamed \
         or moved to another class"
    )))
}

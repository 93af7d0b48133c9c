//! A run, from its plan or its checkpoint to its results.

use std::mem::discriminant;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sdpoint_core::Weights;
use sdpoint_core::words::plural;
use sdpoint_data::{Dataset, Source};
use sdpoint_engine::Context;

use crate::checkpoint::{Checkpoint, Counters, DataDigest, EpochSums};
use crate::error::TrainError;
use crate::finish::Finished;
use crate::folder;
use crate::observer::Observer;
use crate::plan::TrainPlan;
use crate::splits::Splits;
use crate::trainer::Trainer;

/// Trains a [`TrainPlan`] in a folder, from which the run can be resumed.
///
/// Nothing here affects the results; all that does is in the plan.
///
/// ```no_run
/// use std::sync::Arc;
///
/// use sdpoint_core::zoo;
/// use sdpoint_data::{OpenOptions, Source, open_pair};
/// use sdpoint_engine::Context;
/// use sdpoint_train::{Run, Silent, TrainPlan};
///
/// let photos = Source::Folder("photos".into());
/// let (train, test) = open_pair(&photos, &OpenOptions::default())?;
/// let network = zoo::build("wrn16-4", train.classes().len())?;
/// let plan = TrainPlan::new(network, &train)?.with_epochs(60);
///
/// let ctx = Arc::new(Context::new(None)?);
/// let run = Run::new(&ctx, &train, &test, "runs/photos".as_ref());
/// let outcome = run.start(plan, &mut Silent)?;
/// for record in outcome.finished().expect("nothing stops it").evaluation.records {
///     println!("{}: {} MACs, top-1 {:?}", record.instance, record.macs, record.top1);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Run<'a> {
    /// The threads and the instruction set.
    pub ctx: &'a Arc<Context>,
    /// The training images, of which the plan may hold out a part; see
    /// [`TrainPlan::val_share`].
    pub train: &'a Dataset,
    /// The test images, on which instances are evaluated after training.
    pub test: &'a Dataset,
    /// The folder for checkpoints, metrics and results.
    pub folder: &'a Path,
    /// The longest time between two checkpoints. There is one after every
    /// epoch in any case.
    pub checkpoint_every: Duration,
    /// Whether a new run replaces an earlier one in the folder.
    pub overwrite: bool,
}

/// How a run ended without an error.
#[derive(Debug)]
pub enum Outcome {
    /// It is finished; the model and all other results are in the folder.
    Finished(Box<Finished>),
    /// The observer stopped it; the checkpoint has all steps done.
    Stopped {
        /// The number of steps done.
        step: u64,
        /// The number of steps of the whole run.
        steps: u64,
    },
}

impl Outcome {
    /// The results, unless the observer stopped the run.
    pub fn finished(self) -> Option<Finished> {
        match self {
            Self::Finished(finished) => Some(*finished),
            Self::Stopped { .. } => None,
        }
    }
}

impl<'a> Run<'a> {
    /// A run with a checkpoint at least every ten minutes, which does not
    /// replace an earlier run.
    pub fn new(
        ctx: &'a Arc<Context>,
        train: &'a Dataset,
        test: &'a Dataset,
        folder: &'a Path,
    ) -> Self {
        Self {
            ctx,
            train,
            test,
            folder,
            checkpoint_every: Duration::from_secs(600),
            overwrite: false,
        }
    }

    /// Sets the longest time between two checkpoints.
    pub fn with_checkpoint_every(self, checkpoint_every: Duration) -> Self {
        Self {
            checkpoint_every,
            ..self
        }
    }

    /// Sets whether a new run replaces an earlier one in the folder.
    pub fn with_overwrite(self, overwrite: bool) -> Self {
        Self { overwrite, ..self }
    }

    /// Trains from random weights, then calibrates and evaluates all instances
    /// and writes the results.
    ///
    /// # Errors
    /// If the plan is invalid or does not fit the data, if the folder already
    /// holds a run and [`Run::overwrite`] is not set, if training diverges, or
    /// if images cannot be read or files cannot be written.
    pub fn start(
        &self,
        plan: TrainPlan,
        observer: &mut dyn Observer,
    ) -> Result<Outcome, TrainError> {
        let weights = plan.initial_weights()?;
        self.start_from(plan, weights, observer)
    }

    /// As [`Run::start`], from the weights of a model; see
    /// [`fine_tune`](crate::fine_tune()).
    ///
    /// # Errors
    /// If the weights belong to another network, and as [`Run::start`].
    pub fn start_from(
        &self,
        plan: TrainPlan,
        weights: Weights,
        observer: &mut dyn Observer,
    ) -> Result<Outcome, TrainError> {
        plan.check()?;
        let network = plan.trained_network()?;
        if !weights.fit(&network) {
            return Err(TrainError::Plan(format!(
                "the initial weights are not those of {}",
                plan.network.name()
            )));
        }
        let splits = Splits::new(self.train, self.test, plan.held_out())?;
        let counters = Counters {
            step: 0,
            images: self.train.len(),
            held_out: splits.held_out_len(),
            data: Some(DataDigest::of(self.train, self.test)?),
            steps_per_epoch: splits.train.len().div_ceil(plan.recipe.batch_size),
            isa: self.ctx.isa().to_string(),
            drawn: vec![0; plan.costs()?.len()],
            macs: 0,
            epoch: EpochSums::default(),
        };
        let checkpoint = Checkpoint::new(plan, counters, weights)?;
        self.check_data(&checkpoint)?;
        if !self.overwrite {
            folder::clear(self.folder, false)?;
        }
        splits.check(self.ctx, observer)?;
        let lock = folder::lock(self.folder)?;
        folder::clear(self.folder, self.overwrite)?;
        // A run that is killed before its first checkpoint can be resumed too,
        // and a folder that cannot be written to shows at once.
        let mut trainer = Trainer::new(*self, splits, checkpoint, lock)?;
        trainer.save(observer)?;
        trainer.run(observer)
    }

    /// Resumes the run in the folder from its checkpoint. The results are the
    /// same, bit for bit, as without the interruption.
    ///
    /// If the images have changed since the run began, it is refused, unless
    /// [`Counters::data`] is set to `None`. Checkpoints of version 1 have no
    /// digest of the data; resuming adds one.
    ///
    /// # Errors
    /// If the data is not the run's, and as [`Run::start`].
    pub fn resume(
        &self,
        mut checkpoint: Checkpoint,
        observer: &mut dyn Observer,
    ) -> Result<Outcome, TrainError> {
        self.check_data(&checkpoint)?;
        let splits = Splits::new(self.train, self.test, checkpoint.plan.held_out())?;
        if splits.held_out_len() != checkpoint.counters.held_out {
            return Err(TrainError::DataChanged(format!(
                "it has {} held out of training, but had {} when the run began",
                plural(splits.held_out_len(), "image", "images"),
                checkpoint.counters.held_out
            )));
        }
        let digest = DataDigest::of(self.train, self.test)?;
        if let Some(began_with) = &checkpoint.counters.data {
            if *began_with != digest {
                self.check_source(&checkpoint.plan)?;
            }
            check_digest(began_with, &digest)?;
        }
        checkpoint.counters.data = Some(digest);
        let (then, now) = (&checkpoint.counters.isa, self.ctx.isa().to_string());
        if *then != now {
            observer.note(&format!(
                "The run began with {then} instructions and continues with {now}: the result will \
                 differ in rounding from that of an uninterrupted run."
            ));
        }
        let lock = folder::lock(self.folder)?;
        Trainer::new(*self, splits, checkpoint, lock)?.run(observer)
    }

    /// Checks that the images are read from the kind of source that the run
    /// began with: another one has other names for them, and another order.
    fn check_source(&self, plan: &TrainPlan) -> Result<(), TrainError> {
        let then: Source = plan.data.parse()?;
        let now = self.train.source();
        if discriminant(&then) == discriminant(now) {
            return Ok(());
        }
        Err(TrainError::OtherSource {
            then: Box::new(then),
            now: Box::new(now.clone()),
        })
    }

    fn check_data(&self, checkpoint: &Checkpoint) -> Result<(), TrainError> {
        let Checkpoint { plan, counters, .. } = checkpoint;
        let changed = |what: String| Err(TrainError::DataChanged(what));
        if self.train.len() != counters.images {
            return changed(format!(
                "it has {}, but had {} when the run began",
                plural(self.train.len(), "training image", "training images"),
                counters.images
            ));
        }
        for data in [self.train, self.test] {
            if data.classes() != plan.classes {
                return changed(format!(
                    "the classes of the {} images are not those of the run",
                    data.split()
                ));
            }
        }
        Ok(())
    }
}

/// Checks that the images are those that the run began with.
fn check_digest(then: &DataDigest, now: &DataDigest) -> Result<(), TrainError> {
    let differing = match (then.train == now.train, then.test == now.test) {
        (true, true) => return Ok(()),
        (false, true) => "the training images",
        (true, false) => "the test images",
        (false, false) => "the training and the test images",
    };
    Err(TrainError::ImagesChanged(differing))
}

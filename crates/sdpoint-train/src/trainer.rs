//! The training loop.

mod branched;
mod parts;

use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sdpoint_core::{Instance, Network, Weights};
use sdpoint_data::{Batch, Epoch, Loader};
use sdpoint_engine::{EngineError, Images, StepInput, StepOutcome, TrainingEngine, softmax};

use crate::branching::Branching;
use crate::checkpoint::Checkpoint;
use crate::draw::Method;
use crate::error::TrainError;
use crate::finish::{FinishedTraining, finish};
use crate::folder;
use crate::measure::measure_full;
use crate::metrics::{EpochMetrics, MetricsLog};
use crate::observer::{Observer, Progress};
use crate::optimizer::{Update, Updater};
use crate::plan::TrainPlan;
use crate::run::{Outcome, Run};
use crate::sampler::InstanceSampler;
use crate::splits::Splits;
use crate::targets::Targets;
use crate::work::StepWork;

/// A run in progress.
pub(crate) struct Trainer<'a> {
    run: Run<'a>,
    splits: Splits,
    /// The state between two steps, as a checkpoint holds it.
    state: Checkpoint,
    network: Arc<Network>,
    sampler: InstanceSampler,
    work: StepWork,
    engine: TrainingEngine,
    updater: Updater,
    /// The mean gradients of a step that trains several instances.
    mean: Weights,
    log: MetricsLog,
    smooth: Smooth,
    /// Step and time of the checkpoint on disk.
    saved: (u64, Instant),
    /// Keeps other processes out of the folder.
    _lock: File,
}

/// What one step trains on.
struct Step<'a> {
    batch: &'a Batch,
    /// The instances, as indices into the sampler's.
    instances: &'a [usize],
    rate: f64,
}

impl Step<'_> {
    fn images(&self) -> Images<'_> {
        Images {
            data: &self.batch.images,
            batch: self.batch.len(),
            size: self.batch.size,
        }
    }

    fn targets(&self, plan: &TrainPlan) -> Targets<'_> {
        Targets::new(
            &self.batch.labels,
            self.batch.mixed.as_ref(),
            plan.recipe.label_smoothing as f32,
            plan.classes.len(),
        )
    }
}

impl<'a> Trainer<'a> {
    pub(crate) fn new(
        run: Run<'a>,
        splits: Splits,
        state: Checkpoint,
        lock: File,
    ) -> Result<Self, TrainError> {
        folder::sweep(run.folder)?;
        let plan = &state.plan;
        let network = Arc::new(plan.trained_network()?);
        let mut engine = TrainingEngine::new(run.ctx.clone(), network.clone());
        if plan.exits {
            engine = engine.with_classifiers(network.classes() / plan.classes.len());
        }
        if let Some(noise) = plan.noise() {
            engine = engine.with_noise(noise, plan.seed);
        }
        let step = state.counters.step;
        let sampler = plan.sampler(state.steps())?;
        let sizes = plan.training_sizes().into_iter().map(|p| p.size);
        let sizes = sizes.chain(plan.branch_scales.iter().copied());
        // Early exits are trained in `full` alone.
        let instances: Vec<Instance> = match plan.exits {
            true => Vec::new(),
            false => sampler.instances().collect(),
        };
        Ok(Self {
            work: StepWork::new(&network, sizes, &instances)?,
            sampler,
            updater: Updater::new(&network, &plan.recipe),
            mean: Weights::zeros(&network),
            engine,
            log: MetricsLog::open(&run.folder.join(folder::METRICS), step)?,
            saved: (step, Instant::now()),
            smooth: Smooth::default(),
            run,
            splits,
            network,
            state,
            _lock: lock,
        })
    }

    /// Trains to the end unless stopped, and writes the results.
    pub(crate) fn run(mut self, observer: &mut dyn Observer) -> Result<Outcome, TrainError> {
        let steps = self.steps();
        let stopped = |step| Ok(Outcome::Stopped { step, steps });
        if !self.train(observer)? {
            return stopped(self.state.counters.step);
        }
        let Checkpoint {
            plan,
            counters,
            weights,
            average,
            ..
        } = self.state;
        let weights = average.unwrap_or(weights);
        let drawn = self.sampler.instances().zip(counters.drawn).collect();
        let trained = FinishedTraining {
            plan: &plan,
            network: &self.network,
            weights,
            drawn,
        };
        match finish(&self.run, &self.splits, trained, observer) {
            Err(TrainError::Stopped) => stopped(steps),
            finished => Ok(Outcome::Finished(Box::new(finished?))),
        }
    }

    /// The number of steps of the whole run.
    fn steps(&self) -> u64 {
        self.state.steps()
    }

    fn rate(&self, step: u64) -> f64 {
        let recipe = &self.state.plan.recipe;
        recipe.rate_at(step as usize, self.state.counters.steps_per_epoch)
    }

    /// The epoch of the next step, and its index there.
    fn position(&self) -> (usize, usize) {
        let step = self.state.counters.step as usize;
        let an_epoch = self.state.counters.steps_per_epoch;
        (step / an_epoch, step % an_epoch)
    }

    /// Takes the remaining steps. Returns false if the observer stopped it.
    fn train(&mut self, observer: &mut dyn Observer) -> Result<bool, TrainError> {
        let mut loader = None;
        while self.state.counters.step < self.steps() {
            let (epoch, index) = self.position();
            let batches = match &mut loader {
                Some(batches) => batches,
                None => loader.insert(self.batches(epoch, index)?),
            };
            let start = Instant::now();
            let batch = batches
                .next()
                .expect("an epoch has as many batches as steps")?;
            let waited = start.elapsed();
            let last = batches.left() == 0;
            if last {
                // The next epoch's first batches are prepared during the last step.
                let more = epoch + 1 < self.state.plan.recipe.epochs;
                loader = more.then(|| self.batches(epoch + 1, 0)).transpose()?;
            }
            let instances = self.instances(batch.len());
            let step = Step {
                batch: &batch,
                instances: &instances,
                rate: self.rate(self.state.counters.step),
            };
            let outcome = self.step(&step)?;
            if !outcome.loss.is_finite() {
                return Err(self.diverged("the loss", self.state.counters.step));
            }
            self.count(&step, &outcome, [start.elapsed(), waited]);
            observer.step(&self.progress(&step, epoch, outcome.loss));

            let stop = observer.stop_requested();
            if last {
                self.check_weights()?;
                self.end_epoch(epoch, step.rate, observer)?;
            }
            if last || stop || self.saved.1.elapsed() >= self.run.checkpoint_every {
                self.save(observer)?;
            }
            if stop {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The instances that the next step trains on a batch of so many images, as
    /// indices into the sampler's.
    fn instances(&self, images: usize) -> Vec<usize> {
        let mut instances = self.sampler.of_step(self.state.counters.step);
        match self.state.plan.method {
            Method::Branched => {
                instances.truncate(1 + Branching::parts(instances.len() - 1, images));
            }
            Method::SdPoint => instances.truncate(Branching::parts(instances.len(), images)),
            Method::Plain | Method::Sandwich => {}
        }
        instances
    }

    /// The instances of a step.
    fn drawn(&self, step: &Step<'_>) -> Vec<Instance> {
        let instances = step.instances.iter();
        instances
            .map(|&index| self.sampler.instance(index))
            .collect()
    }

    /// Updates the weights. Of several instances, the first learns from the
    /// labels and the others from a mixture of labels and its predictions; the
    /// update follows the mean of their gradients.
    ///
    /// Returns the outcome of the first instance, or of the first whose loss is
    /// not finite, in which case the weights are unchanged.
    fn step(&mut self, step: &Step<'_>) -> Result<StepOutcome, EngineError> {
        self.engine.set_noise_step(self.state.counters.step);
        let mut first = None;
        let mut apart = step.instances;
        let sized = self.sized_branches(step);
        if self.state.plan.method == Method::Branched {
            let outcome = match sized.is_empty() {
                true => self.branched(step)?,
                false => self.branched_by_size(step, &sized)?,
            };
            if !outcome.loss.is_finite() {
                return Ok(outcome);
            }
            first = Some(outcome);
            apart = &[];
        }
        let in_parts = self.state.plan.method == Method::SdPoint && apart.len() > 1;
        if in_parts {
            let outcome = self.in_parts(step)?;
            if !outcome.loss.is_finite() {
                return Ok(outcome);
            }
            first = Some(outcome);
            apart = &[];
        }
        let Checkpoint {
            plan,
            counters,
            weights,
            momentum,
            second_moment,
            average,
        } = &mut self.state;
        let images = step.images();
        let distill = plan.distill as f32;
        let mut targets = step.targets(plan);
        let mut predictions = Vec::new();
        for &index in apart {
            let learns = first.is_some() && distill > 0.0;
            let target = targets.target(learns.then_some((&predictions, distill)));
            let outcome = self.engine.step(StepInput {
                weights,
                images,
                target,
                instance: self.sampler.instance(index),
            })?;
            if !outcome.loss.is_finite() {
                return Ok(outcome);
            }
            if apart.len() > 1 {
                let share = 1.0 / apart.len() as f32;
                let gradients = self.engine.gradients();
                add_to_mean(&mut self.mean, gradients, share, first.is_none());
            }
            if first.is_none() {
                predictions = self.engine.logits().to_vec();
                softmax(&mut predictions, self.network.classes());
                first = Some(outcome);
            }
        }
        let gradients = match apart.len() {
            0 | 1 if sized.is_empty() && !in_parts => self.engine.gradients(),
            _ => &self.mean,
        };
        let update = Update {
            weights,
            momentum,
            second_moment: second_moment.as_mut(),
            average: average.as_mut(),
            gradients,
            rate: step.rate,
            step: counters.step,
        };
        self.updater.update(self.run.ctx, update);
        Ok(first.expect("a step trains at least one instance"))
    }

    fn batches(&self, epoch: usize, first_batch: usize) -> Result<Loader, TrainError> {
        let which = Epoch {
            seed: self.state.plan.seed,
            number: epoch as u64,
            first_batch,
        };
        Ok(Loader::train_augmented(
            &self.splits.train,
            &self.state.plan.training_sizes(),
            self.state.plan.augmentation,
            self.state.plan.recipe.batch_size,
            self.run.ctx.threads(),
            which,
        )?)
    }

    /// Counts a finished step, which took `times[0]` in all, `times[1]` of that
    /// waiting for data.
    fn count(&mut self, step: &Step<'_>, outcome: &StepOutcome, times: [Duration; 2]) {
        let images = step.batch.len();
        let method = self.state.plan.method;
        let drawn = self.drawn(step);
        let sized = self.sized_branches(step);
        let macs =
            self.work.of_step(method, step.batch.size, images, &drawn) + self.work.of_sized(&sized);
        let counters = &mut self.state.counters;
        counters.step += 1;
        counters.macs = counters.macs.saturating_add(macs);
        let sums = &mut counters.epoch;
        sums.drawn.resize(counters.drawn.len(), 0);
        for &index in step.instances {
            counters.drawn[index] += 1;
            sums.drawn[index] += 1;
        }
        sums.images += images as u64;
        sums.loss += outcome.loss * images as f64;
        sums.correct += outcome.correct as u64;
        sums.macs = sums.macs.saturating_add(macs);
        sums.seconds += times[0].as_secs_f64();
        sums.data_wait_seconds += times[1].as_secs_f64();
        self.smooth
            .add(outcome.loss, outcome.correct as f64 / images as f64);
    }

    fn progress(&self, step: &Step<'_>, epoch: usize, loss: f64) -> Progress {
        let sums = &self.state.counters.epoch;
        Progress {
            epoch,
            epochs: self.state.plan.recipe.epochs,
            step: self.state.counters.step,
            steps: self.steps(),
            instance: self.sampler.instance(step.instances[0]),
            rate: step.rate,
            loss,
            smooth_loss: self.smooth.loss,
            smooth_accuracy: self.smooth.accuracy,
            images_per_second: sums.images as f64 / sums.seconds,
            data_wait_seconds: sums.data_wait_seconds,
        }
    }

    /// Writes the epoch's metrics and resets its sums.
    fn end_epoch(
        &mut self,
        epoch: usize,
        rate: f64,
        observer: &mut dyn Observer,
    ) -> Result<(), TrainError> {
        let every = self.state.plan.measure_every;
        let due = every > 0 && (epoch + 1).is_multiple_of(every);
        let Checkpoint {
            plan,
            weights,
            average,
            ..
        } = &self.state;
        let weights = average.as_ref().unwrap_or(weights);
        let measure = || measure_full(&self.run, &self.splits, plan, &self.network, weights);
        let full = due.then(measure).transpose()?;
        let sums = std::mem::take(&mut self.state.counters.epoch);
        let images = sums.images as f64;
        let metrics = EpochMetrics {
            epoch: epoch + 1,
            step: self.state.counters.step,
            train_loss: sums.loss / images,
            train_accuracy: sums.correct as f64 / images,
            rate,
            seconds: sums.seconds,
            images_per_second: images / sums.seconds,
            data_wait_seconds: sums.data_wait_seconds,
            drawn: self.sampler.instances().zip(sums.drawn).collect(),
            macs: sums.macs,
            full,
        };
        self.log.append(&metrics)?;
        observer.epoch(&metrics);
        Ok(())
    }

    /// Writes a checkpoint.
    ///
    /// # Errors
    /// If a weight is not finite, and if the file cannot be written.
    pub(crate) fn save(&mut self, observer: &mut dyn Observer) -> Result<(), TrainError> {
        self.check_weights()?;
        self.state.write(self.run.folder)?;
        self.saved = (self.state.counters.step, Instant::now());
        observer.checkpoint(self.state.counters.step);
        Ok(())
    }

    /// Checks that the weights are finite: the loss is computed before the
    /// update, so it does not show what the last update did.
    fn check_weights(&self) -> Result<(), TrainError> {
        let finite = |weights: &Weights| weights.0.iter().flatten().all(|v| v.is_finite());
        if finite(&self.state.weights) && finite(&self.state.momentum) {
            Ok(())
        } else {
            // The fault of the last step, or at step 0 of the initial weights.
            Err(self.diverged("a weight", self.state.counters.step.saturating_sub(1)))
        }
    }

    fn diverged(&self, what: &'static str, step: u64) -> TrainError {
        TrainError::Diverged {
            what,
            step,
            epoch: step as usize / self.state.counters.steps_per_epoch,
            instance: self.sampler.instance(self.sampler.of_step(step)[0]),
            rate: self.rate(step),
            kept: self.saved.0,
        }
    }
}

/// Adds a share of gradients to a mean, which starts anew with the first.
fn add_to_mean(mean: &mut Weights, gradients: &Weights, share: f32, first: bool) {
    let all = std::iter::zip(&mut mean.0, &gradients.0);
    for (mean, gradient) in all.flat_map(|(mean, gradient)| std::iter::zip(mean, gradient)) {
        *mean = share * gradient + if first { 0.0 } else { *mean };
    }
}

/// Running means over about the last fifty steps.
#[derive(Debug, Default)]
struct Smooth {
    steps: f64,
    loss: f64,
    accuracy: f64,
}

impl Smooth {
    fn add(&mut self, loss: f64, accuracy: f64) {
        self.steps = (self.steps + 1.0).min(50.0);
        self.loss += (loss - self.loss) / self.steps;
        self.accuracy += (accuracy - self.accuracy) / self.steps;
    }
}

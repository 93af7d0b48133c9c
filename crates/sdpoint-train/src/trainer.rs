//! The training loop.

use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sdpoint_core::{Instance, Network, Weights};
use sdpoint_data::{Batch, Epoch, Loader};
use sdpoint_engine::{EngineError, Images, Sgd, StepOutcome, Target, TrainingEngine, softmax};

use crate::checkpoint::{Checkpoint, Counters};
use crate::draw::Draws;
use crate::error::TrainError;
use crate::finish::finish;
use crate::folder;
use crate::measure::measure_full;
use crate::metrics::{EpochMetrics, MetricsLog};
use crate::observer::{Observer, Progress};
use crate::plan::Plan;
use crate::run::{Outcome, Run};

/// A run while it goes on.
pub(crate) struct Trainer<'a> {
    run: Run<'a>,
    plan: Plan,
    network: Arc<Network>,
    draws: Draws,
    engine: TrainingEngine,
    sgd: Sgd,
    weights: Weights,
    /// The mean gradients of a step in several instances.
    mean: Weights,
    counters: Counters,
    log: MetricsLog,
    smooth: Smooth,
    /// Step and time of the checkpoint on disk.
    saved: (u64, Instant),
    /// Keeps other processes out of the folder.
    _lock: File,
}

impl<'a> Trainer<'a> {
    pub(crate) fn new(
        run: Run<'a>,
        checkpoint: Checkpoint,
        lock: File,
    ) -> Result<Self, TrainError> {
        folder::sweep(run.folder)?;
        let Checkpoint {
            plan,
            counters,
            weights,
            momentum,
        } = checkpoint;
        let network = Arc::new(plan.trained()?);
        let recipe = &plan.recipe;
        let options = recipe.sgd_options();
        let mut sgd = Sgd::new(&network, options);
        sgd.set_momentum(momentum);
        let mut engine = TrainingEngine::new(run.ctx.clone(), network.clone());
        if plan.exits {
            engine = engine.with_classifiers(network.classes() / plan.classes.len());
        }
        if let Some(noise) = plan.noise() {
            engine = engine.with_noise(noise, plan.seed);
        }
        Ok(Self {
            draws: plan.draws()?,
            mean: Weights::zeros(&network),
            engine,
            log: MetricsLog::open(&run.folder.join(folder::METRICS), counters.step)?,
            saved: (counters.step, Instant::now()),
            smooth: Smooth::default(),
            run,
            plan,
            network,
            sgd,
            weights,
            counters,
            _lock: lock,
        })
    }

    /// Trains to the end, unless stopped, and turns the weights into results.
    pub(crate) fn run(mut self, observer: &mut dyn Observer) -> Result<Outcome, TrainError> {
        let steps = self.steps();
        let stopped = |step| Ok(Outcome::Stopped { step, steps });
        if !self.train(observer)? {
            return stopped(self.counters.step);
        }
        let drawn = self.draws.instances().zip(self.counters.drawn).collect();
        match finish(
            &self.run,
            &self.plan,
            &self.network,
            self.weights,
            drawn,
            observer,
        ) {
            Err(TrainError::Stopped) => stopped(steps),
            finished => Ok(Outcome::Finished(Box::new(finished?))),
        }
    }

    /// Steps in all.
    fn steps(&self) -> u64 {
        (self.plan.recipe.epochs * self.counters.steps_per_epoch) as u64
    }

    fn rate(&self, step: u64) -> f64 {
        let recipe = &self.plan.recipe;
        recipe.rate_at(step as usize, self.counters.steps_per_epoch)
    }

    /// The epoch of the next step, and its place there.
    fn place(&self) -> (usize, usize) {
        let step = self.counters.step as usize;
        let an_epoch = self.counters.steps_per_epoch;
        (step / an_epoch, step % an_epoch)
    }

    /// Takes all steps that are left. False if the observer stopped it.
    fn train(&mut self, observer: &mut dyn Observer) -> Result<bool, TrainError> {
        let mut loader = None;
        while self.counters.step < self.steps() {
            let (epoch, place) = self.place();
            let batches = match &mut loader {
                Some(batches) => batches,
                None => loader.insert(self.batches(epoch, place)?),
            };
            let start = Instant::now();
            let batch = batches
                .next()
                .expect("an epoch has as many batches as steps")?;
            let waited = start.elapsed();
            let last = batches.left() == 0;
            if last {
                // The next epoch's first batches are prepared during the last step.
                let more = epoch + 1 < self.plan.recipe.epochs;
                loader = more.then(|| self.batches(epoch + 1, 0)).transpose()?;
            }
            let drawn = self.draws.of_step(self.counters.step);
            let (instance, _) = self.draws.probabilities()[drawn[0]];
            let rate = self.rate(self.counters.step);
            let outcome = self.step(&batch, &drawn, rate as f32)?;
            if !outcome.loss.is_finite() {
                return Err(self.diverged("the loss", self.counters.step));
            }
            self.count(&outcome, batch.len(), &drawn, [start.elapsed(), waited]);
            observer.step(&self.progress(epoch, instance, rate, outcome.loss));

            let stop = observer.stop_requested();
            if last {
                self.check_weights()?;
                self.end_epoch(epoch, rate, observer)?;
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

    /// Moves the weights by a batch in these instances. Of several, the first
    /// learns from the labels and the others from its predictions, as far as
    /// the plan says, and the mean of their gradients counts.
    ///
    /// Gives what came of the first instance, or of the first whose loss is
    /// not finite; the weights stay as they are then.
    fn step(
        &mut self,
        batch: &Batch,
        places: &[usize],
        rate: f32,
    ) -> Result<StepOutcome, EngineError> {
        let images = Images {
            data: &batch.images,
            batch: batch.len(),
            size: batch.size,
        };
        self.engine.set_noise_step(self.counters.step);
        let mut first = None;
        let mut predictions = Vec::new();
        for &place in places {
            let (instance, _) = self.draws.probabilities()[place];
            let distill = self.plan.distill as f32;
            let target = Target {
                labels: &batch.labels,
                smoothing: self.plan.recipe.label_smoothing as f32,
                soft: (first.is_some() && distill > 0.0).then_some((&predictions[..], distill)),
            };
            let outcome = self
                .engine
                .step_towards(&self.weights, images, target, instance)?;
            if !outcome.loss.is_finite() {
                return Ok(outcome);
            }
            if places.len() > 1 {
                self.add_to_mean(first.is_none(), places.len());
            }
            if first.is_none() {
                predictions = self.engine.logits().to_vec();
                softmax(&mut predictions, self.network.classes());
                first = Some(outcome);
            }
        }
        let gradients = match places.len() {
            1 => self.engine.gradients(),
            _ => &self.mean,
        };
        self.sgd
            .step(self.run.ctx, &mut self.weights, gradients, rate);
        Ok(first.expect("a step has at least one instance"))
    }

    /// Makes the last gradients a part of the mean of `count`, the first part
    /// of a new mean if `fresh`.
    fn add_to_mean(&mut self, fresh: bool, count: usize) {
        let part = 1.0 / count as f32;
        let all = std::iter::zip(&mut self.mean.0, &self.engine.gradients().0);
        for (mean, gradient) in all.flat_map(|(mean, gradient)| std::iter::zip(mean, gradient)) {
            *mean = part * gradient + if fresh { 0.0 } else { *mean };
        }
    }

    fn batches(&self, epoch: usize, first_batch: usize) -> Result<Loader, TrainError> {
        let which = Epoch {
            seed: self.plan.seed,
            number: epoch as u64,
            first_batch,
        };
        Ok(Loader::train_mixed(
            self.run.train,
            &self.plan.training_sizes(),
            self.plan.recipe.batch_size,
            self.run.ctx.threads(),
            which,
        )?)
    }

    /// Notes a step that was done.
    fn count(
        &mut self,
        outcome: &StepOutcome,
        images: usize,
        drawn: &[usize],
        times: [Duration; 2],
    ) {
        self.counters.step += 1;
        let sums = &mut self.counters.epoch;
        sums.drawn.resize(self.counters.drawn.len(), 0);
        for &place in drawn {
            self.counters.drawn[place] += 1;
            sums.drawn[place] += 1;
        }
        sums.images += images as u64;
        sums.loss += outcome.loss * images as f64;
        sums.correct += outcome.correct as u64;
        sums.seconds += times[0].as_secs_f64();
        sums.data_wait_seconds += times[1].as_secs_f64();
        self.smooth
            .add(outcome.loss, outcome.correct as f64 / images as f64);
    }

    fn progress(&self, epoch: usize, instance: Instance, rate: f64, loss: f64) -> Progress {
        let sums = &self.counters.epoch;
        Progress {
            epoch,
            epochs: self.plan.recipe.epochs,
            step: self.counters.step,
            steps: self.steps(),
            instance,
            rate,
            loss,
            smooth_loss: self.smooth.loss,
            smooth_accuracy: self.smooth.accuracy,
            images_per_second: sums.images as f64 / sums.seconds,
            data_wait_seconds: sums.data_wait_seconds,
        }
    }

    /// Writes the epoch's line of metrics and starts new sums.
    fn end_epoch(
        &mut self,
        epoch: usize,
        rate: f64,
        observer: &mut dyn Observer,
    ) -> Result<(), TrainError> {
        let every = self.plan.measure_every;
        let due = every > 0 && (epoch + 1).is_multiple_of(every);
        let measure = || measure_full(&self.run, &self.plan, &self.network, &self.weights);
        let full = due.then(measure).transpose()?;
        let sums = std::mem::take(&mut self.counters.epoch);
        let images = sums.images as f64;
        let metrics = EpochMetrics {
            epoch: epoch + 1,
            step: self.counters.step,
            train_loss: sums.loss / images,
            train_accuracy: sums.correct as f64 / images,
            rate,
            seconds: sums.seconds,
            images_per_second: images / sums.seconds,
            data_wait_seconds: sums.data_wait_seconds,
            drawn: self.draws.instances().zip(sums.drawn).collect(),
            full,
        };
        self.log.append(&metrics)?;
        observer.epoch(&metrics);
        Ok(())
    }

    /// Writes a checkpoint, if the weights are worth it.
    pub(crate) fn save(&mut self, observer: &mut dyn Observer) -> Result<(), TrainError> {
        self.check_weights()?;
        Checkpoint::write(
            self.run.folder,
            &self.plan,
            &self.counters,
            &self.weights,
            self.sgd.momentum(),
        )?;
        self.saved = (self.counters.step, Instant::now());
        observer.checkpoint(self.counters.step);
        Ok(())
    }

    /// The loss is taken before the step, so that the last step may have
    /// ruined the weights unseen.
    fn check_weights(&self) -> Result<(), TrainError> {
        let finite = |weights: &Weights| weights.0.iter().flatten().all(|v| v.is_finite());
        if finite(&self.weights) && finite(self.sgd.momentum()) {
            Ok(())
        } else {
            // What the last step did; at step 0, what was given.
            Err(self.diverged("a weight", self.counters.step.saturating_sub(1)))
        }
    }

    fn diverged(&self, what: &'static str, step: u64) -> TrainError {
        TrainError::Diverged {
            what,
            step,
            epoch: step as usize / self.counters.steps_per_epoch,
            instance: self.draws.probabilities()[self.draws.at(step)].0,
            rate: self.rate(step),
            kept: self.saved.0,
        }
    }
}

/// Running means that follow the last fifty steps or so.
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

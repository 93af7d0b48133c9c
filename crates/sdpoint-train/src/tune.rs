//! Scales, shifts and classifier biases of instances' own, trained after the
//! network.

use std::collections::BTreeMap;
use std::f64::consts::PI;
use std::sync::Arc;

use sdpoint_core::{Instance, Model, OwnParameters, Record};
use sdpoint_data::{Dataset, Epoch, Loader, epoch_order};
use sdpoint_engine::{
    Context, Distillation, Images, StepOutcome, Target, TrainingEngine, TuningInput,
};

use crate::calibrate::{CalibrateOptions, Feed, calibrate};
use crate::error::TrainError;
use crate::observer::Observer;
use crate::statistics_from::StatisticsFrom;

/// The number of images for [`tune_model`] unless set otherwise.
pub const TUNING_IMAGES: usize = 10_000;

/// The peak learning rate of [`tune_model`] unless set otherwise.
pub const TUNING_RATE: f64 = 0.02;

/// The epoch number that seeds the choice, the order and the augmentation of the
/// images; no epoch of training has it.
const TUNING_ORDER: u64 = u64::MAX - 2;

const MOMENTUM: f32 = 0.9;

/// How [`tune_model`] trains the parameters of instances' own.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct TuneOptions<'a> {
    /// The instances; `full` has no parameters of its own.
    pub instances: &'a [Instance],
    /// The number of training images; each is used once.
    pub images: usize,
    /// The peak learning rate.
    pub rate: f64,
    /// The share of `full`'s predictions in what an instance learns, from 0 to 1;
    /// the labels are the rest.
    pub distill: f64,
    /// The number of training images for the statistics.
    pub calibration_images: usize,
    /// The seed for the choice and the augmentation of images.
    pub seed: u64,
}

impl<'a> TuneOptions<'a> {
    /// One pass over [`TUNING_IMAGES`] at [`TUNING_RATE`], half on predictions of
    /// `full` and half on labels, with seed 0.
    pub fn new(instances: &'a [Instance]) -> Self {
        Self {
            instances,
            images: TUNING_IMAGES,
            rate: TUNING_RATE,
            distill: 0.5,
            calibration_images: crate::CALIBRATION_IMAGES,
            seed: 0,
        }
    }

    /// Sets the number of training images.
    pub fn with_images(self, images: usize) -> Self {
        Self { images, ..self }
    }

    /// Sets the peak learning rate.
    pub fn with_rate(self, rate: f64) -> Self {
        Self { rate, ..self }
    }

    /// Sets the number of training images for the statistics.
    pub fn with_calibration_images(self, calibration_images: usize) -> Self {
        Self {
            calibration_images,
            ..self
        }
    }

    /// Sets the seed.
    pub fn with_seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }
}

/// Gives instances of a trained model scales and shifts of their own for the
/// batch norms after their points, and a bias of their own for the classifier.
/// They cost nothing at run time, as batch norms are folded per instance anyway.
///
/// All instances are trained in the same pass over augmented training images,
/// with frozen convolutions and `full` as teacher; `full` itself does not change.
/// Then their statistics are computed anew. They lose their accuracies, and
/// cascades and ensembles of them are removed, as in
/// [`calibrate_model`](crate::calibrate_model).
///
/// # Errors
/// If an instance is `full` or the model does not have it, if a setting is out of
/// range, if the data cannot be read or does not fit the network, if the loss
/// becomes infinite, or if the observer stops it; the model is unchanged then.
pub fn tune_model(
    ctx: &Arc<Context>,
    model: &mut Model,
    images: &Dataset,
    options: TuneOptions<'_>,
    observer: &mut dyn Observer,
) -> Result<(), TrainError> {
    check(model, &options)?;
    let network = Arc::new(model.network.clone());
    let feed = Feed::for_model(model, images)?;
    let own = train(ctx, model, feed, &options, observer)?;
    let own: BTreeMap<Instance, OwnParameters> = own.into_iter().collect();
    let calibration = CalibrateOptions::new(options.instances)
        .with_images(options.calibration_images)
        .with_seed(options.seed)
        .with_statistics_from(StatisticsFrom::of(model))
        .with_parameters(&own);
    let statistics = calibrate(ctx, &network, &model.weights, feed, calibration, observer)?;
    for (&instance, parameters) in &own {
        let moments = statistics
            .own(instance)
            .into_iter()
            .flat_map(|(_, own)| own);
        let moments = moments.flat_map(|moments| [&moments.mean, &moments.var]);
        let mut values = parameters.values().chain(moments).flatten();
        if !values.all(|value| value.is_finite()) {
            return Err(diverged(instance));
        }
    }
    for (&instance, parameters) in &own {
        let (_, moments) = statistics.own(instance).expect("it was calibrated");
        let moments = moments.to_vec();
        model.statistics.set(&network, instance, moments);
        model
            .statistics
            .set_parameters(&network, instance, parameters.clone());
    }
    for record in &mut model.instances {
        if own.contains_key(&record.instance) {
            *record = Record::unmeasured(record.instance, record.macs);
        }
    }
    model.combinations.retain(|record| {
        let members = record.combination.members();
        !members.iter().any(|member| own.contains_key(member))
    });
    Ok(())
}

fn check(model: &Model, options: &TuneOptions<'_>) -> Result<(), TrainError> {
    let refuse = |problem: String| Err(TrainError::Plan(problem));
    for &instance in options.instances {
        if instance == Instance::Full {
            return refuse("full has no parameters of its own: it uses the network's".into());
        }
        if model.record(instance).is_none() {
            return refuse(format!("the model does not have the instance {instance}"));
        }
    }
    if options.images == 0 || options.calibration_images == 0 {
        return refuse("tuning needs at least one image".into());
    }
    if !(options.rate.is_finite() && options.rate > 0.0) {
        return refuse(format!(
            "the learning rate is {}; it must be a number above 0",
            options.rate
        ));
    }
    if !(0.0..=1.0).contains(&options.distill) {
        return refuse(format!(
            "the distillation is {}; it must be from 0 to 1",
            options.distill
        ));
    }
    Ok(())
}

/// The trained parameters of each instance.
fn train(
    ctx: &Arc<Context>,
    model: &Model,
    feed: Feed<'_>,
    options: &TuneOptions<'_>,
    observer: &mut dyn Observer,
) -> Result<Vec<(Instance, OwnParameters)>, TrainError> {
    let network = Arc::new(model.network.clone());
    let mut order = epoch_order(feed.data.len(), options.seed, TUNING_ORDER);
    order.truncate(options.images);
    let data = feed.data.select(&order)?;
    let epoch = Epoch {
        seed: options.seed,
        number: TUNING_ORDER,
        first_batch: 0,
    };
    let loader = Loader::train(
        &data,
        feed.preprocessing,
        feed.batch_size,
        ctx.threads(),
        epoch,
    )?;
    let steps = data.len().div_ceil(feed.batch_size);
    let mut own = initial(model, options.instances);
    let mut momentum = own.clone();
    for values in momentum.iter_mut().flat_map(|(_, own)| own.values_mut()) {
        values.fill(0.0);
    }
    let mut engine = TrainingEngine::new(ctx.clone(), network);
    let mut done = 0;
    for (step, batch) in loader.enumerate() {
        let batch = batch?;
        let results = engine.step_tuning(TuningInput {
            weights: &model.weights,
            images: Images {
                data: &batch.images,
                batch: batch.len(),
                size: batch.size,
            },
            target: Target::labels(&batch.labels),
            instances: &own,
            distillation: Distillation {
                weight: 1.0,
                share: options.distill as f32,
                temperature: 1.0,
            },
        })?;
        // Half a cosine from the peak to zero.
        let rate = options.rate * (1.0 + (PI * step as f64 / steps as f64).cos()) / 2.0;
        for (index, (outcome, gradients)) in results.iter().enumerate() {
            finite(outcome, own[index].0)?;
            update(
                &mut own[index].1,
                &mut momentum[index].1,
                gradients,
                rate as f32,
            );
        }
        done += batch.len();
        observer.calibrating(done, data.len());
        if observer.stop_requested() {
            return Err(TrainError::Stopped);
        }
    }
    Ok(own)
}

/// The parameters that instances start from: those that they use now.
fn initial(model: &Model, instances: &[Instance]) -> Vec<(Instance, OwnParameters)> {
    let mut own = Vec::new();
    for &instance in instances {
        let indices = model.network.own_parameters(instance).into_iter();
        let value = |index| {
            let values = model.statistics.parameter(&model.weights, instance, index);
            (index, values.to_vec())
        };
        if !own.iter().any(|(other, _)| *other == instance) {
            own.push((instance, indices.map(value).collect()));
        }
    }
    own
}

fn finite(outcome: &StepOutcome, instance: Instance) -> Result<(), TrainError> {
    if outcome.loss.is_finite() {
        return Ok(());
    }
    Err(diverged(instance))
}

fn diverged(instance: Instance) -> TrainError {
    TrainError::Plan(format!(
        "the parameters of {instance} became infinite: use a lower learning rate"
    ))
}

/// A step of gradient descent with Nesterov momentum.
fn update(
    own: &mut OwnParameters,
    momentum: &mut OwnParameters,
    gradients: &OwnParameters,
    rate: f32,
) {
    let all = own.values_mut().zip(momentum.values_mut());
    for ((values, momentum), gradients) in all.zip(gradients.values()) {
        let all = values.iter_mut().zip(momentum).zip(gradients);
        for ((value, momentum), gradient) in all {
            *momentum = MOMENTUM * *momentum + gradient;
            *value -= rate * (gradient + MOMENTUM * *momentum);
        }
    }
}

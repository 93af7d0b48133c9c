//! Batch-norm statistics of every instance.

use std::sync::Arc;

use sdpoint_core::{
    Instance, Model, Network, Preprocessing, Record, ShapeError, Statistics, Weights,
};
use sdpoint_data::{Dataset, Epoch, Loader, epoch_order};
use sdpoint_engine::{Calibrator, Context, Images};

use crate::error::TrainError;
use crate::observer::Observer;
use crate::statistics_from::StatisticsFrom;

/// Images with their preprocessing, in batches.
#[derive(Clone, Copy, Debug)]
pub struct Feed<'a> {
    /// The images.
    pub data: &'a Dataset,
    /// How they are preprocessed.
    pub preprocessing: &'a Preprocessing,
    /// The number of images in a batch.
    pub batch_size: usize,
}

impl<'a> Feed<'a> {
    /// Images for a model, in batches of at most 128 images and at most half a
    /// gigabyte of feature maps.
    ///
    /// # Errors
    /// If the network does not accept images of the model's size.
    pub fn for_model(model: &'a Model, data: &'a Dataset) -> Result<Self, ShapeError> {
        const MAX_BYTES: u64 = 1 << 29;
        let preprocessing = &model.preprocessing;
        let cost = model.network.cost(preprocessing.size, Instance::Full)?;
        Ok(Self {
            data,
            preprocessing,
            batch_size: (MAX_BYTES / cost.peak_bytes.max(1)).clamp(1, 128) as usize,
        })
    }

    /// Batches of the images with these indices, preprocessed as for evaluation
    /// on as many threads as the context has.
    pub(crate) fn batches(&self, ctx: &Context, order: Vec<usize>) -> Result<Loader, TrainError> {
        Ok(Loader::evaluate(
            self.data,
            self.preprocessing,
            self.batch_size,
            ctx.threads(),
            order,
        )?)
    }

    /// As [`batches`](Self::batches), augmented as for training.
    fn augmented(&self, ctx: &Context, order: Vec<usize>, seed: u64) -> Result<Loader, TrainError> {
        let epoch = Epoch {
            seed,
            number: CALIBRATION_ORDER,
            first_batch: 0,
        };
        Ok(Loader::augmented(
            self.data,
            self.preprocessing,
            self.batch_size,
            ctx.threads(),
            order,
            epoch,
        )?)
    }
}

/// The number of calibration images unless set otherwise.
pub const CALIBRATION_IMAGES: usize = 5000;

/// What [`calibrate`] computes statistics of, and from which images.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct CalibrateOptions<'a> {
    /// The instances. `full` is always calibrated, because the others share
    /// the statistics before their point with it.
    pub instances: &'a [Instance],
    /// The number of training images.
    pub images: usize,
    /// The seed for the choice of images and their augmentation.
    pub seed: u64,
    /// How the images are prepared; the default if `None`:
    /// [`StatisticsFrom::usual`], and for instances that are added to others of
    /// a model, as for those ([`StatisticsFrom::of`]).
    pub statistics_from: Option<StatisticsFrom>,
}

impl<'a> CalibrateOptions<'a> {
    /// Calibrates `instances` on [`CALIBRATION_IMAGES`] images, with seed 0.
    pub fn new(instances: &'a [Instance]) -> Self {
        Self {
            instances,
            images: CALIBRATION_IMAGES,
            seed: 0,
            statistics_from: None,
        }
    }

    /// Sets the number of images.
    pub fn with_images(self, images: usize) -> Self {
        Self { images, ..self }
    }

    /// Sets the seed for the choice of images and their augmentation.
    pub fn with_seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// Sets how the images are prepared.
    pub fn with_statistics_from(self, from: StatisticsFrom) -> Self {
        let statistics_from = Some(from);
        Self {
            statistics_from,
            ..self
        }
    }
}

/// The epoch number that seeds the order of the calibration images and their
/// augmentation; no epoch of training has it.
const CALIBRATION_ORDER: u64 = u64::MAX;

/// Computes the batch-norm statistics of `full` and of some instances from
/// training images, with fixed weights.
///
/// The images are drawn at random from all of the data. Batches count equally
/// in the average, so images that do not fill a batch are dropped, and so is a
/// batch that unreadable images leave less than half full. Unreadable images
/// are not replaced by others.
///
/// [`calibrate_model`] does this for a [`Model`] as a whole.
///
/// # Errors
/// If the data cannot be read or does not fit the network, or if the observer
/// stops it.
pub fn calibrate(
    ctx: &Arc<Context>,
    network: &Arc<Network>,
    weights: &Weights,
    feed: Feed<'_>,
    options: CalibrateOptions<'_>,
    observer: &mut dyn Observer,
) -> Result<Statistics, TrainError> {
    let CalibrateOptions {
        instances,
        images,
        seed,
        statistics_from,
    } = options;
    let from = statistics_from.unwrap_or_else(|| StatisticsFrom::usual(feed.preprocessing));
    let order = calibration_order(feed.data.len(), feed.batch_size, images, seed);
    let images = order.len();
    let mut calibrator = Calibrator::new(ctx.clone(), network.clone(), weights, instances)?;
    let mut done = 0;
    let full_batch = images.min(feed.batch_size);
    let batches = match from {
        StatisticsFrom::Evaluation => feed.batches(ctx, order)?,
        StatisticsFrom::Training => feed.augmented(ctx, order, seed)?,
    };
    for batch in batches {
        let batch = batch?;
        if done > 0 && 2 * batch.len() < full_batch {
            continue;
        }
        calibrator.add_batch(Images {
            data: &batch.images,
            batch: batch.len(),
            size: batch.size,
        })?;
        done += batch.len();
        observer.calibrating(done, images);
        if observer.stop_requested() {
            return Err(TrainError::Stopped);
        }
    }
    Ok(calibrator.finish()?)
}

/// Adds instances to a trained model, or calibrates its instances anew.
///
/// Instances that the model has already lose their accuracies, and cascades
/// and ensembles of them are removed: both hold for the old statistics only.
/// [`evaluate`](crate::evaluate()) measures accuracies.
///
/// ```no_run
/// use std::sync::Arc;
///
/// use sdpoint_core::{Model, Ratio};
/// use sdpoint_data::{OpenOptions, Source, Split, open};
/// use sdpoint_engine::Context;
/// use sdpoint_train::{CalibrateOptions, Silent, calibrate_model};
///
/// let mut model = Model::load("model.safetensors")?;
/// let images = open(&Source::Folder("photos".into()), Split::Train, &OpenOptions::default())?;
/// let cheaper = model.network.instances(&[Ratio::new(0.35)?]);
/// let options = CalibrateOptions::new(&cheaper).with_images(2000);
/// let ctx = Arc::new(Context::new(None)?);
/// calibrate_model(&ctx, &mut model, &images, options, &mut Silent)?;
/// model.save("cheaper.safetensors")?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// As [`calibrate`]; the model is unchanged then.
pub fn calibrate_model(
    ctx: &Arc<Context>,
    model: &mut Model,
    images: &Dataset,
    options: CalibrateOptions<'_>,
    observer: &mut dyn Observer,
) -> Result<(), TrainError> {
    let network = Arc::new(model.network.clone());
    let size = model.preprocessing.size;
    let macs = |&instance: &Instance| Ok((instance, network.cost(size, instance)?.macs));
    let costs: Result<Vec<(Instance, u64)>, ShapeError> =
        options.instances.iter().map(macs).collect();
    let costs = costs?;
    let feed = Feed::for_model(model, images)?;
    let is_kept = |record: &Record| !options.instances.contains(&record.instance);
    let adds = model.instances.iter().any(is_kept);
    let from = options.statistics_from.unwrap_or_else(|| match adds {
        true => StatisticsFrom::of(model),
        false => StatisticsFrom::usual(&model.preprocessing),
    });
    let others = model
        .instances
        .iter()
        .any(|record| is_kept(record) && record.instance != Instance::Full);
    let options = options.with_statistics_from(from);
    let statistics = calibrate(ctx, &network, &model.weights, feed, options, observer)?;
    let mut replaced = Vec::new();
    for (instance, macs) in costs {
        if let Some((_, own)) = statistics.own(instance) {
            model.statistics.set(&network, instance, own.to_vec());
        }
        let mut records = model.instances.iter_mut();
        let unmeasured = Record::unmeasured(instance, macs);
        match records.find(|record| record.instance == instance) {
            Some(record) => {
                *record = unmeasured;
                replaced.push(instance);
            }
            None => model.instances.push(unmeasured),
        }
    }
    model.instances.sort_by_key(|record| record.instance);
    model.combinations.retain(|record| {
        let members = record.combination.members();
        !members.iter().any(|member| replaced.contains(member))
    });
    if !others {
        from.record(model);
    }
    Ok(())
}

fn calibration_order(len: usize, batch_size: usize, count: usize, seed: u64) -> Vec<usize> {
    let mut order = epoch_order(len, seed, CALIBRATION_ORDER);
    order.truncate(count);
    if order.len() > batch_size {
        order.truncate(order.len() / batch_size * batch_size);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calibration_images_come_from_everywhere_and_fill_their_batches() {
        let order = calibration_order(10_000, 128, 500, 1);
        assert_eq!(order.len(), 384);
        let late = order.iter().filter(|&&index| index >= 5000).count();
        assert!((140..244).contains(&late), "{late} of the second half");
        assert_ne!(order, calibration_order(10_000, 128, 500, 2));
        assert_eq!(calibration_order(50, 128, 5000, 1).len(), 50);
    }
}

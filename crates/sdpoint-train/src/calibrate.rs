//! Batch-norm statistics of every instance.

use std::sync::Arc;

use sdpoint_core::{Instance, Network, Preprocessing, Statistics, Weights};
use sdpoint_data::{Dataset, Loader, epoch_order};
use sdpoint_engine::{Calibrator, Context, Images};

use crate::error::TrainError;
use crate::observer::Observer;

/// Images as evaluation prepares them, in batches.
#[derive(Clone, Copy, Debug)]
pub struct Feed<'a> {
    /// The images.
    pub data: &'a Dataset,
    /// How they become tensors.
    pub preprocessing: &'a Preprocessing,
    /// Images in a batch.
    pub batch_size: usize,
}

impl Feed<'_> {
    /// Batches of the images of these numbers, prepared on as many threads
    /// as the context has.
    pub(crate) fn batches(&self, ctx: &Context, order: Vec<usize>) -> Result<Loader, TrainError> {
        Ok(Loader::evaluate(
            self.data,
            self.preprocessing,
            self.batch_size,
            ctx.threads(),
            order,
        )?)
    }
}

/// The order of the calibration images is none that an epoch has.
const CALIBRATION_ORDER: u64 = u64::MAX;

/// Takes the statistics of `full` and of `instances` from some training
/// images, with the weights as they are.
///
/// The images are drawn from all of the data by `seed`, `count` of them or
/// as many as there are, less what does not fill a batch: every batch counts
/// the same in the average, so that a small one would count too much. For the
/// same reason a batch of which unreadable images leave less than half is left
/// out; no image counts in another's place.
///
/// # Errors
/// If the data cannot be read or does not fit the network, or if the
/// observer stops it.
pub fn calibrate(
    ctx: &Arc<Context>,
    network: &Arc<Network>,
    weights: &Weights,
    instances: &[Instance],
    feed: Feed<'_>,
    count: usize,
    seed: u64,
    observer: &mut dyn Observer,
) -> Result<Statistics, TrainError> {
    let order = calibration_order(feed.data.len(), feed.batch_size, count, seed);
    let images = order.len();
    let mut calibrator = Calibrator::new(ctx.clone(), network.clone(), weights, instances)?;
    let mut done = 0;
    let full = images.min(feed.batch_size);
    for batch in feed.batches(ctx, order)? {
        let batch = batch?;
        if done > 0 && 2 * batch.len() < full {
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

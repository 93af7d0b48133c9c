//! What a run tells its caller while it goes on.

use sdpoint_core::Instance;

use crate::metrics::EpochMetrics;

/// Watches a run, to draw a progress bar say, and may stop it.
///
/// Methods are called on the thread that trains, between steps or batches.
pub trait Observer {
    /// Whether to stop; asked after every step and every batch of a
    /// calibration or an evaluation.
    fn stop_requested(&self) -> bool {
        false
    }

    /// A step was done.
    fn step(&mut self, _progress: &Progress) {}

    /// An epoch was done.
    fn epoch(&mut self, _metrics: &EpochMetrics) {}

    /// A checkpoint was written after so many steps.
    fn checkpoint(&mut self, _step: u64) {}

    /// So many of the calibration images were seen.
    fn calibrating(&mut self, _done: usize, _images: usize) {}

    /// So many of the images were evaluated in all instances.
    fn evaluating(&mut self, _done: usize, _images: usize) {}

    /// Something that the user should know, in a sentence.
    fn note(&mut self, _message: &str) {}
}

/// Watches nothing and never stops.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {}

/// Where a run is after a step.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// The epoch of the step, from zero.
    pub epoch: usize,
    /// Epochs in all.
    pub epochs: usize,
    /// Steps done, over all epochs.
    pub step: u64,
    /// Steps in all.
    pub steps: u64,
    /// The step's instance.
    pub instance: Instance,
    /// The step's learning rate.
    pub rate: f64,
    /// Mean loss of the step's images.
    pub loss: f64,
    /// The loss, smoothed over some fifty steps.
    pub smooth_loss: f64,
    /// Share of the images that were classified rightly, smoothed likewise.
    pub smooth_accuracy: f64,
    /// Images a second in this epoch.
    pub images_per_second: f64,
    /// Seconds that this epoch's steps waited for data.
    pub data_wait_seconds: f64,
}

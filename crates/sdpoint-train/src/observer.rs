//! Progress reports.

use sdpoint_core::Instance;

use crate::metrics::EpochMetrics;

/// Receives the progress of a run, a calibration or an evaluation, and can stop
/// it.
///
/// Methods are called on the training thread, between steps or batches. All
/// have defaults that do nothing.
pub trait Observer {
    /// Whether to stop; called after every training step, and after every batch
    /// of a calibration or an evaluation.
    fn stop_requested(&self) -> bool {
        false
    }

    /// A training step is done.
    fn step(&mut self, _progress: &Progress) {}

    /// An epoch is done.
    fn epoch(&mut self, _metrics: &EpochMetrics) {}

    /// A checkpoint was written after `step` steps.
    fn checkpoint(&mut self, _step: u64) {}

    /// `done` of the calibration images are processed.
    fn calibrating(&mut self, _done: usize, _images: usize) {}

    /// `done` of the images are evaluated in all instances.
    fn evaluating(&mut self, _done: usize, _images: usize) {}

    /// A message for the user, as a sentence.
    fn note(&mut self, _message: &str) {}
}

/// An observer that ignores everything and never stops.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {}

/// The progress of a run after a step.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Progress {
    /// The epoch of the step, from zero.
    pub epoch: usize,
    /// The number of epochs of the run.
    pub epochs: usize,
    /// Steps done, over all epochs.
    pub step: u64,
    /// The number of steps of the run.
    pub steps: u64,
    /// The instance that the step trained, or the first of several.
    pub instance: Instance,
    /// The step's learning rate.
    pub rate: f64,
    /// Mean loss of the step's images.
    pub loss: f64,
    /// The loss, smoothed over about fifty steps.
    pub smooth_loss: f64,
    /// The share of correctly classified images, smoothed likewise.
    pub smooth_accuracy: f64,
    /// Images per second in this epoch.
    pub images_per_second: f64,
    /// Seconds that this epoch's steps waited for data.
    pub data_wait_seconds: f64,
}

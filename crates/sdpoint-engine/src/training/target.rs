//! The target of a training step, and the loss.

use std::ops::Range;

use sdpoint_kernels as kernels;
use sdpoint_kernels::Context;

use super::StepOutcome;
use crate::{EngineError, check_labels, check_length};

/// The target of the loss of a training step.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// The label of each image.
    pub labels: &'a [u32],
    /// Label smoothing: the fraction of a label's probability that is spread
    /// evenly over all classes, from 0 to 1.
    pub smoothing: f32,
    /// Soft targets, `batch · classes` probabilities, and their weight `w` from
    /// 0 to 1. The target is `w · soft + (1 − w) · labels`.
    pub soft: Option<(&'a [f32], f32)>,
}

impl<'a> Target<'a> {
    /// A target of hard labels without smoothing.
    pub fn labels(labels: &'a [u32]) -> Self {
        Self {
            labels,
            smoothing: 0.0,
            soft: None,
        }
    }

    /// The same target with label smoothing.
    pub fn with_smoothing(self, smoothing: f32) -> Self {
        Self { smoothing, ..self }
    }

    pub(super) fn check(&self, batch: usize, classes: usize) -> Result<(), EngineError> {
        check_labels(self.labels, batch, classes)?;
        match self.soft {
            Some((soft, _)) => check_length("the soft targets", soft.len(), batch * classes),
            None => Ok(()),
        }
    }

    /// The targets of a range of the images of the batch.
    pub fn part(&self, images: Range<usize>, classes: usize) -> Target<'a> {
        let rows = images.start * classes..images.end * classes;
        Target {
            labels: &self.labels[images],
            soft: self.soft.map(|(soft, share)| (&soft[rows], share)),
            ..*self
        }
    }

    /// The target distribution of each image, `batch · classes` values.
    pub(super) fn distributions(&self, classes: usize) -> Vec<f32> {
        let (soft, share) = self.soft.unwrap_or((&[], 0.0));
        let hard = 1.0 - share;
        let everywhere = hard * self.smoothing / classes as f32;
        let mut all: Vec<f32> = match self.soft {
            Some(_) => soft.iter().map(|p| share * p + everywhere).collect(),
            None => vec![everywhere; self.labels.len() * classes],
        };
        for (row, &label) in all.chunks_exact_mut(classes).zip(self.labels) {
            row[label as usize] += hard * (1.0 - self.smoothing);
        }
        all
    }

    /// The mean cross-entropy of `logits`; writes its gradient.
    pub(super) fn loss(
        &self,
        ctx: &Context,
        logits: &[f32],
        classes: usize,
        gradient: &mut [f32],
    ) -> StepOutcome {
        let mut outcome = kernels::loss::softmax_cross_entropy(
            ctx,
            logits,
            classes,
            self.labels,
            self.smoothing,
            Some(&mut *gradient),
        );
        if self.soft.is_some() {
            let targets = self.distributions(classes);
            outcome.loss = kernels::loss::softmax_cross_entropy_soft(
                ctx,
                logits,
                classes,
                &targets,
                Some(gradient),
            );
        }
        StepOutcome {
            loss: outcome.loss,
            correct: outcome.correct,
        }
    }

    /// The mean loss of several classifiers, whose logits follow one another for
    /// each image, and the gradient of its sum.
    pub(super) fn loss_of_classifiers(
        &self,
        ctx: &Context,
        logits: &[f32],
        classes: usize,
        classifiers: usize,
        gradient: &mut [f32],
    ) -> StepOutcome {
        let repeated = self.labels.iter();
        let labels: Vec<u32> = repeated
            .flat_map(|&label| std::iter::repeat_n(label, classifiers))
            .collect();
        let outcome = kernels::loss::softmax_cross_entropy(
            ctx,
            logits,
            classes,
            &labels,
            self.smoothing,
            Some(&mut *gradient),
        );
        // The kernel computes the gradient of the mean over classifiers.
        for value in gradient {
            *value *= classifiers as f32;
        }
        StepOutcome {
            loss: outcome.loss,
            correct: outcome.correct / classifiers,
        }
    }
}

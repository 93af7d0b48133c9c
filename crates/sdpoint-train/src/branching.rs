//! Settings of training steps with branches.

use std::ops::Range;

use sdpoint_core::Instance;
use sdpoint_engine::{Branch, Distillation};
use serde::{Deserialize, Serialize};

/// How a step of [`Method::Branched`](crate::Method::Branched) trains instances
/// besides `full`.
///
/// `full` runs on the whole batch. The batch is divided into parts, and for each
/// part an instance is drawn, which branches off at its point: the layers before
/// it are not computed again. The loss is that of `full` plus [`Branching::weight`]
/// times the mean loss of the branches, each of which learns from the labels and
/// from the predictions of `full`, as
/// [`BranchedInput`](sdpoint_engine::BranchedInput) defines it.
/// [`TrainPlan::distill`](crate::TrainPlan::distill) is the share of the
/// predictions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Branching {
    /// The number of parts of a batch. A batch of few images has fewer: each part
    /// has at least [`Branching::MIN_IMAGES`].
    pub branches: usize,
    /// The weight of the mean loss of the branches.
    pub weight: f64,
    /// The temperature of the predictions.
    pub temperature: f64,
    /// The share of a run's steps over which the share of the predictions rises
    /// linearly from zero. `full` has little to teach at first.
    pub ramp: f64,
}

impl Default for Branching {
    /// Four branches with weight 1 and temperature 1, and a ramp of a third.
    fn default() -> Self {
        Self {
            branches: 4,
            weight: 1.0,
            temperature: 1.0,
            ramp: 1.0 / 3.0,
        }
    }
}

impl Branching {
    /// The least number of images of a branch, unless the whole batch has fewer:
    /// the statistics of its batch norms are those of its images.
    pub const MIN_IMAGES: usize = 4;

    /// How many of the instances drawn for a step a batch of so many images
    /// trains.
    pub(crate) fn parts(drawn: usize, images: usize) -> usize {
        drawn.min((images / Self::MIN_IMAGES).max(1))
    }

    /// The images of each of the parts of a batch that instances were drawn for.
    pub(crate) fn images_of_parts(
        drawn: usize,
        images: usize,
    ) -> impl Iterator<Item = Range<usize>> {
        let parts = Self::parts(drawn, images);
        (0..parts).map(move |part| part * images / parts..(part + 1) * images / parts)
    }

    /// The branches of a step on so many images, of the instances drawn for it
    /// besides `full`: equal parts of the batch, for as many as there are parts.
    pub(crate) fn branches_of(drawn: &[Instance], images: usize) -> Vec<Branch> {
        std::iter::zip(drawn, Self::images_of_parts(drawn.len(), images))
            .map(|(&instance, images)| Branch { instance, images })
            .collect()
    }

    /// What branches learn in a step, if the share of the predictions is
    /// `distill` in the end.
    pub(crate) fn distillation(&self, distill: f64, step: u64, steps: u64) -> Distillation {
        let ramp = self.ramp * steps as f64;
        let risen = if ramp > 0.0 {
            ((step as f64 + 1.0) / ramp).min(1.0)
        } else {
            1.0
        };
        Distillation {
            weight: self.weight as f32,
            share: (distill * risen) as f32,
            temperature: self.temperature as f32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_the_batch_once() {
        for (images, drawn, lengths) in [
            (128, 4, &[32, 32, 32, 32][..]),
            (18, 4, &[4, 5, 4, 5]),
            (15, 4, &[5, 5, 5]),
            (3, 4, &[3]),
            (8, 0, &[]),
        ] {
            let drawn = vec!["0@0.5".parse().unwrap(); drawn];
            let branches = Branching::branches_of(&drawn, images);
            let found: Vec<usize> = branches.iter().map(|b| b.images.len()).collect();
            assert_eq!(found, lengths, "{images}");
            let all = branches.into_iter().flat_map(|branch| branch.images);
            assert!(drawn.is_empty() || all.eq(0..images));
        }
    }

    #[test]
    fn the_teacher_is_heard_more_and_more() {
        let branching = Branching::default();
        let share = |step| branching.distillation(0.5, step, 300).share;
        assert!((share(0) - 0.005).abs() < 1e-6);
        assert!((share(49) - 0.25).abs() < 1e-6);
        assert_eq!((share(99), share(299)), (0.5, 0.5));
        let at_once = Branching {
            ramp: 0.0,
            ..branching
        };
        assert_eq!(at_once.distillation(0.5, 0, 300).share, 0.5);
    }
}

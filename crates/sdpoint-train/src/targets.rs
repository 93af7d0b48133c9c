//! The targets of a step: labels, those of mixed images, and the predictions of
//! another instance.

use sdpoint_data::Mixed;
use sdpoint_engine::Target;

/// The targets of a batch, whose images may be mixed.
pub(crate) struct Targets<'a> {
    labels: &'a [u32],
    smoothing: f32,
    /// The distributions of mixed images.
    mixed: Option<Vec<f32>>,
    /// Those of the last target, if it has any.
    soft: Vec<f32>,
}

impl<'a> Targets<'a> {
    /// Targets for images of these labels, with label smoothing.
    pub fn new(labels: &'a [u32], mixed: Option<&Mixed>, smoothing: f32, classes: usize) -> Self {
        Self {
            labels,
            smoothing,
            mixed: mixed.map(|mixed| distributions(labels, mixed, smoothing, classes)),
            soft: Vec::new(),
        }
    }

    /// The target of an instance that learns from the labels, or from a mixture
    /// of them and predictions, `batch · classes` probabilities with their share.
    pub fn target(&mut self, predictions: Option<(&[f32], f32)>) -> Target<'_> {
        self.soft.clear();
        let share = match (&self.mixed, predictions) {
            (None, None) => None,
            (None, Some((predictions, share))) => {
                self.soft.extend(predictions);
                Some(share)
            }
            (Some(mixed), None) => {
                self.soft.extend(mixed);
                Some(1.0)
            }
            (Some(mixed), Some((predictions, share))) => {
                let both = std::iter::zip(mixed, predictions);
                let blend = both.map(|(label, p)| share * p + (1.0 - share) * label);
                self.soft.extend(blend);
                Some(1.0)
            }
        };
        Target {
            labels: self.labels,
            smoothing: self.smoothing,
            soft: share.map(|share| (&self.soft[..], share)),
        }
    }
}

/// The smoothed labels of both images of each mixture, by their shares.
fn distributions(labels: &[u32], mixed: &Mixed, smoothing: f32, classes: usize) -> Vec<f32> {
    let mut all = vec![smoothing / classes as f32; labels.len() * classes];
    let both = std::iter::zip(labels, &mixed.labels);
    for (row, (&own, &other)) in all.chunks_exact_mut(classes).zip(both) {
        row[own as usize] += (1.0 - smoothing) * (1.0 - mixed.share);
        row[other as usize] += (1.0 - smoothing) * mixed.share;
    }
    all
}

#[cfg(test)]
mod tests {
    use sdpoint_data::{Augmentation, Epoch, Loader, OpenOptions, Source, Split, open};

    use super::*;

    /// What a batch was mixed with.
    fn mixed() -> Mixed {
        let mut options = OpenOptions::default();
        options.shapes_train = 20;
        let data = open(&Source::Shapes, Split::Train, &options).unwrap();
        let preprocessing = sdpoint_data::default_preprocessing(&data).unwrap();
        let augmentation: Augmentation = "mixup:1".parse().unwrap();
        let epoch = Epoch {
            seed: 1,
            number: 0,
            first_batch: 0,
        };
        let all = [preprocessing];
        let loader = Loader::train_augmented(&data, &all, augmentation, 2, 1, epoch);
        let batch = loader.unwrap().next().unwrap().unwrap();
        batch.mixed.clone().unwrap()
    }

    #[test]
    fn distributions_add_up_and_have_the_shares_of_the_images() {
        let mut mixed = mixed();
        (mixed.labels, mixed.share) = (vec![2, 1], 0.25);
        let labels = [0, 1];
        let mut targets = Targets::new(&labels, Some(&mixed), 0.3, 3);
        let (soft, share) = targets.target(None).soft.unwrap();
        assert_eq!(share, 1.0);
        let expected = [0.1 + 0.7 * 0.75, 0.1, 0.1 + 0.7 * 0.25, 0.1, 0.8, 0.1];
        for (found, expected) in soft.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{soft:?}");
        }
        let predictions = [0.0, 1.0, 0.0, 0.5, 0.5, 0.0];
        let (soft, share) = targets.target(Some((&predictions, 0.5))).soft.unwrap();
        assert_eq!(share, 1.0);
        assert!((soft[1] - 0.55).abs() < 1e-6 && (soft[4] - 0.65).abs() < 1e-6);

        let mut hard = Targets::new(&labels, None, 0.3, 3);
        assert!(hard.target(None).soft.is_none());
        assert_eq!(
            hard.target(Some((&predictions, 0.5))).soft,
            Some((&predictions[..], 0.5))
        );
    }
}

//! Predicted classes and their probabilities.

use std::sync::Arc;

use sdpoint_engine::{blend, confidences, log_mean_probabilities, margins, softmax, top_k};

/// The predictions for a batch of images.
#[derive(Clone, Debug, PartialEq)]
pub struct Predictions {
    logits: Vec<f32>,
    classes: Arc<[String]>,
}

/// A predicted class of an image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Guess<'a> {
    /// The name of the class.
    pub class: &'a str,
    /// The index of the class.
    pub label: usize,
    /// The predicted probability, from 0 to 1.
    pub probability: f32,
}

impl Predictions {
    pub(super) fn new(logits: Vec<f32>, classes: Arc<[String]>) -> Self {
        Self { logits, classes }
    }

    /// Averages the probabilities of several sets of logits.
    pub(super) fn average(all: &[Vec<f32>], classes: Arc<[String]>) -> Self {
        let all: Vec<&[f32]> = all.iter().map(Vec::as_slice).collect();
        Self::new(log_mean_probabilities(&all, classes.len()), classes)
    }

    /// The number of images.
    pub fn len(&self) -> usize {
        self.logits.len() / self.classes.len()
    }

    /// Whether there are no images.
    pub fn is_empty(&self) -> bool {
        self.logits.is_empty()
    }

    /// The logits of an image, one for each class; for an ensemble, the
    /// logarithms of the mean probabilities.
    ///
    /// # Panics
    /// If `image` is not below [`Predictions::len`].
    pub fn logits(&self, image: usize) -> &[f32] {
        let classes = self.classes.len();
        &self.logits[image * classes..][..classes]
    }

    /// The probability of each class for an image.
    ///
    /// # Panics
    /// If `image` is not below [`Predictions::len`].
    pub fn probabilities(&self, image: usize) -> Vec<f32> {
        let mut probabilities = self.logits(image).to_vec();
        softmax(&mut probabilities, self.classes.len());
        probabilities
    }

    /// The `k` most probable classes of an image, in descending order.
    ///
    /// # Panics
    /// If `image` is not below [`Predictions::len`].
    pub fn top(&self, image: usize, k: usize) -> Vec<Guess<'_>> {
        let probabilities = self.probabilities(image);
        let guess = |label: usize| Guess {
            class: &self.classes[label],
            label,
            probability: probabilities[label],
        };
        top_k(&probabilities, k).into_iter().map(guess).collect()
    }

    /// The confidence for each image: the probability of its most probable
    /// class.
    pub(super) fn confidences(&self) -> Vec<f64> {
        confidences(&self.logits, self.classes.len())
    }

    /// The margin for each image: the difference between the two largest
    /// probabilities.
    pub(super) fn margins(&self) -> Vec<f64> {
        margins(&self.logits, self.classes.len())
    }

    /// Averages the answers to some images, which are log-probabilities, with
    /// others.
    pub(super) fn blend(&mut self, images: &[usize], others: &[f32], weight: f64) {
        let classes = self.classes.len();
        for (&image, other) in std::iter::zip(images, others.chunks_exact(classes)) {
            let row = &mut self.logits[image * classes..][..classes];
            blend(row, other, classes, weight);
        }
    }

    /// Replaces the logits of the images with the indices `images`.
    pub(super) fn replace(&mut self, images: &[usize], logits: &[f32]) {
        let classes = self.classes.len();
        for (&image, row) in std::iter::zip(images, logits.chunks_exact(classes)) {
            self.logits[image * classes..][..classes].copy_from_slice(row);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classes() -> Arc<[String]> {
        ["cat", "dog", "eel"].map(str::to_owned).into()
    }

    #[test]
    fn top_classes_have_their_names() {
        let mut two = Predictions::new(vec![0.0, 3.0, 1.0, 5.0, 0.0, 0.0], classes());
        assert_eq!(two.len(), 2);
        let best: Vec<&str> = two.top(0, 2).iter().map(|guess| guess.class).collect();
        assert_eq!(best, ["dog", "eel"]);
        assert_eq!(two.top(1, 9).len(), 3);
        two.replace(&[1], &[0.0, 0.0, 9.0]);
        assert_eq!(two.top(1, 1)[0].label, 2);
        assert_eq!(two.top(0, 1)[0].label, 1);
    }
}

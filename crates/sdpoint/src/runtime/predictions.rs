//! From logits to classes.

use std::sync::Arc;

use sdpoint_engine::{softmax, top_k};

/// What a network says of the images of a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Predictions {
    logits: Vec<f32>,
    classes: Arc<[String]>,
}

/// A class that an image may be of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Guess<'a> {
    /// Its name.
    pub class: &'a str,
    /// Its number.
    pub label: usize,
    /// How probable the network holds it, from 0 to 1.
    pub probability: f32,
}

impl Predictions {
    pub(super) fn new(logits: Vec<f32>, classes: Arc<[String]>) -> Self {
        Self { logits, classes }
    }

    /// The average of several networks' probabilities.
    pub(super) fn average(all: &[Vec<f32>], classes: Arc<[String]>) -> Self {
        let mut sum = vec![0.0f64; all.first().map_or(0, Vec::len)];
        for logits in all {
            let mut probabilities = logits.clone();
            softmax(&mut probabilities, classes.len());
            for (sum, p) in std::iter::zip(&mut sum, probabilities) {
                *sum += f64::from(p);
            }
        }
        // Softmax undoes the logarithm.
        let least = f64::from(f32::MIN_POSITIVE);
        let logits = sum
            .iter()
            .map(|sum| (sum / all.len() as f64).max(least).ln() as f32);
        Self::new(logits.collect(), classes)
    }

    /// The number of images.
    pub fn len(&self) -> usize {
        self.logits.len() / self.classes.len()
    }

    /// Whether there are no images.
    pub fn is_empty(&self) -> bool {
        self.logits.is_empty()
    }

    /// The score of each class for an image, before softmax; for an ensemble,
    /// the logarithm of its mean probability.
    ///
    /// # Panics
    /// If there are not so many images.
    pub fn logits(&self, image: usize) -> &[f32] {
        let classes = self.classes.len();
        &self.logits[image * classes..][..classes]
    }

    /// The probability of each class for an image.
    ///
    /// # Panics
    /// If there are not so many images.
    pub fn probabilities(&self, image: usize) -> Vec<f32> {
        let mut probabilities = self.logits(image).to_vec();
        softmax(&mut probabilities, self.classes.len());
        probabilities
    }

    /// The `k` most probable classes of an image, best first.
    ///
    /// # Panics
    /// If there are not so many images.
    pub fn top(&self, image: usize, k: usize) -> Vec<Guess<'_>> {
        let probabilities = self.probabilities(image);
        let guess = |label: usize| Guess {
            class: &self.classes[label],
            label,
            probability: probabilities[label],
        };
        top_k(&probabilities, k).into_iter().map(guess).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classes() -> Arc<[String]> {
        ["cat", "dog", "eel"].map(str::to_owned).into()
    }

    #[test]
    fn the_best_classes_come_by_name() {
        let two = Predictions::new(vec![0.0, 3.0, 1.0, 5.0, 0.0, 0.0], classes());
        assert_eq!(two.len(), 2);
        let best: Vec<&str> = two.top(0, 2).iter().map(|guess| guess.class).collect();
        assert_eq!(best, ["dog", "eel"]);
        assert_eq!(two.top(1, 9).len(), 3);
    }

    #[test]
    fn an_average_is_of_probabilities() {
        let sure = vec![0.0, 100.0, 0.0];
        let unsure = vec![0.0, 0.0, 0.0];
        let both = Predictions::average(&[sure, unsure], classes()).probabilities(0);
        let expected = [1.0 / 6.0, 2.0 / 3.0, 1.0 / 6.0];
        for (p, expected) in std::iter::zip(both, expected) {
            assert!((p - expected as f32).abs() < 1e-6, "{p}");
        }
    }
}

//! More about an evaluation than accuracy and loss: how well confidences are
//! calibrated, each class, and which classes are confused.

mod picture;

use std::cmp::Ordering;
use std::fmt::Write;

use sdpoint_core::Instance;
use sdpoint_engine::confidences;

pub use picture::MAX_PICTURED_CLASSES;

/// The number of bins of the expected calibration error, as in Guo et al.
const BINS: usize = 15;

/// Details of the predictions of one instance or combination.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Details {
    /// The expected calibration error, from 0 to 1: the mean difference between
    /// the confidence of predictions and the share of them that is correct, over
    /// 15 bins of equal width, weighted by their numbers of images (Guo et al.,
    /// "On Calibration of Modern Neural Networks", arXiv 1706.04599).
    pub calibration_error: f64,
    /// The images and predictions of each class, in the order of the classes.
    pub classes: Vec<ClassCounts>,
}

/// Counts of the images and predictions of a class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClassCounts {
    /// Images of the class.
    pub images: u64,
    /// Images for which the class was predicted.
    pub predicted: u64,
    /// Images of the class for which it was predicted.
    pub correct: u64,
}

impl ClassCounts {
    /// The share of the images of the class that is recognised; `None` without
    /// such images.
    pub fn recall(&self) -> Option<f64> {
        (self.images > 0).then(|| self.correct as f64 / self.images as f64)
    }

    /// The share of the predictions of the class that is correct; `None` without
    /// such predictions.
    pub fn precision(&self) -> Option<f64> {
        (self.predicted > 0).then(|| self.correct as f64 / self.predicted as f64)
    }
}

/// Running sums of [`Details`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Collector {
    bins: [Bin; BINS],
    classes: Vec<ClassCounts>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Bin {
    images: u64,
    correct: u64,
    confidence: f64,
}

impl Collector {
    /// Adds a batch.
    pub fn add(&mut self, logits: &[f32], labels: &[u32], classes: usize) {
        self.classes.resize(classes, ClassCounts::default());
        let rows = logits.chunks_exact(classes).zip(labels);
        for ((row, &label), confidence) in rows.zip(confidences(logits, classes)) {
            let predicted = best(row);
            let right = predicted == label as usize;
            self.classes[label as usize].images += 1;
            self.classes[predicted].predicted += 1;
            self.classes[predicted].correct += u64::from(right);
            // A bin has its upper end, as in the paper; logits that are not finite
            // have no confidence.
            let bin = (confidence * BINS as f64).ceil() as usize;
            let bin = &mut self.bins[bin.clamp(1, BINS) - 1];
            bin.images += 1;
            bin.correct += u64::from(right);
            bin.confidence += confidence;
        }
    }

    pub fn details(&self) -> Details {
        let images: u64 = self.bins.iter().map(|bin| bin.images).sum();
        let gaps = self
            .bins
            .iter()
            .map(|bin| (bin.correct as f64 - bin.confidence).abs());
        Details {
            calibration_error: gaps.sum::<f64>() / images.max(1) as f64,
            classes: self.classes.clone(),
        }
    }
}

/// The most probable class, as [`top_k`](sdpoint_engine::top_k) finds it, without
/// sorting the others.
fn best(row: &[f32]) -> usize {
    let score = |class: usize| match row[class].is_nan() {
        true => f32::NEG_INFINITY,
        false => row[class],
    };
    let better = |best: usize, class: usize| match score(class).total_cmp(&score(best)) {
        Ordering::Greater => class,
        _ => best,
    };
    (1..row.len()).fold(0, better)
}

/// How often each class was predicted for the images of each class, by one
/// instance.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Confusion {
    /// The instance.
    pub instance: Instance,
    /// The number of classes.
    pub classes: usize,
    /// The numbers of images, `classes` rows of true classes, each with a value
    /// for each predicted class.
    pub counts: Vec<u64>,
}

impl Confusion {
    /// No image yet.
    pub(crate) fn new(instance: Instance, classes: usize) -> Self {
        Self {
            instance,
            classes,
            counts: vec![0; classes * classes],
        }
    }

    pub(crate) fn add(&mut self, logits: &[f32], labels: &[u32]) {
        for (row, &label) in logits.chunks_exact(self.classes).zip(labels) {
            self.counts[label as usize * self.classes + best(row)] += 1;
        }
    }

    /// The row of a true class: the images for which each class was predicted.
    ///
    /// # Panics
    /// If there is no such class.
    pub fn row(&self, class: usize) -> &[u64] {
        &self.counts[class * self.classes..][..self.classes]
    }

    /// The matrix as CSV: a line for each true class, with its name, its number
    /// of images, and a column for each predicted class. The header has the
    /// classes' names.
    ///
    /// # Panics
    /// If `names` are not those of all classes.
    pub fn csv(&self, names: &[String]) -> String {
        assert_eq!(names.len(), self.classes, "names of the classes");
        let mut text = String::from(CSV_START);
        for name in names {
            write!(text, ",{}", quoted(name)).expect(INFALLIBLE);
        }
        text.push('\n');
        for (class, name) in names.iter().enumerate() {
            let row = self.row(class);
            let images: u64 = row.iter().sum();
            write!(text, "{},{images}", quoted(name)).expect(INFALLIBLE);
            for count in row {
                write!(text, ",{count}").expect(INFALLIBLE);
            }
            text.push('\n');
        }
        text
    }
}

/// How the header of [`Confusion::csv`] starts.
const CSV_START: &str = "true class,images";

/// Why writing into a string is never checked.
const INFALLIBLE: &str = "writing to a string never fails";

/// A field of a CSV file (RFC 4180).
fn quoted(text: &str) -> String {
    match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Logits whose softmax has these probabilities.
    fn logits<const N: usize>(rows: &[[f64; N]]) -> Vec<f32> {
        rows.as_flattened().iter().map(|p| p.ln() as f32).collect()
    }

    #[test]
    fn the_calibration_error_is_the_mean_gap_of_the_bins() {
        let mut collector = Collector::default();
        // Two predictions at 0.9, one of them right; one at 0.6, wrong; both bins
        // are added in batches of their own.
        let rows = logits(&[[0.9, 0.1], [0.1, 0.9]]);
        collector.add(&rows, &[0, 0], 2);
        collector.add(&logits(&[[0.4, 0.6]]), &[0], 2);
        let details = collector.details();
        let expected = (2.0 * (0.9f64 - 0.5).abs() + (0.6f64 - 0.0).abs()) / 3.0;
        assert!(
            (details.calibration_error - expected).abs() < 1e-6,
            "{details:?}"
        );
        let [first, second] = details.classes[..] else {
            panic!("two classes");
        };
        assert_eq!((first.images, first.predicted, first.correct), (3, 1, 1));
        assert_eq!((second.images, second.predicted, second.correct), (0, 2, 0));
        assert_eq!(
            (first.recall(), first.precision()),
            (Some(1.0 / 3.0), Some(1.0))
        );
        assert_eq!((second.recall(), second.precision()), (None, Some(0.0)));

        // Confidences that are right as often as they say have no error.
        let mut calibrated = Collector::default();
        let rows = logits(&[[0.75, 0.25]; 4]);
        calibrated.add(&rows, &[0, 0, 1, 0], 2);
        assert!(calibrated.details().calibration_error < 1e-6);
        assert_eq!(Collector::default().details().calibration_error, 0.0);
    }

    #[test]
    fn the_best_class_is_the_first_of_the_top() {
        let nan = f32::NAN;
        for row in [
            [1.0, 3.0, 3.0, 2.0],
            [nan, -9.0, nan, -9.0],
            [nan; 4],
            [-0.0, 0.0, -0.0, 0.0],
            [f32::NEG_INFINITY; 4],
        ] {
            assert_eq!([best(&row)], sdpoint_engine::top_k(&row, 1)[..], "{row:?}");
        }
    }

    #[test]
    fn certainty_belongs_to_the_last_bin() {
        let mut collector = Collector::default();
        collector.add(&[100.0, 0.0, f32::NAN, f32::NAN], &[0, 0], 2);
        assert_eq!(collector.bins[BINS - 1].images, 1);
        assert_eq!(collector.bins.iter().map(|bin| bin.images).sum::<u64>(), 2);
    }

    #[test]
    fn the_matrix_has_a_line_for_each_true_class() {
        let mut confusion = Confusion::new(Instance::Full, 3);
        let rows = [[9.0, 0.0, 0.0], [0.0, 9.0, 0.0], [0.0, 0.0, 9.0]];
        confusion.add(rows.as_flattened(), &[0, 0, 2]);
        assert_eq!(confusion.row(0), [1, 1, 0]);
        let names = ["cat", "a, b", "\"dog\"\nx"].map(str::to_owned);
        assert_eq!(
            confusion.csv(&names),
            "true class,images,cat,\"a, b\",\"\"\"dog\"\"\nx\"\n\
             cat,2,1,1,0\n\
             \"a, b\",0,0,0,0\n\
             \"\"\"dog\"\"\nx\",1,0,0,1\n"
        );
    }
}

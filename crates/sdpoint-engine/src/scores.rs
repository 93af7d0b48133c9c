//! Functions of logits: probabilities, loss, top-k classes.

/// Computes the softmax of each row of `classes` logits in place.
pub fn softmax(logits: &mut [f32], classes: usize) {
    for row in logits.chunks_exact_mut(classes) {
        let (max, sum) = log_sum(row);
        for x in row {
            *x = ((f64::from(*x) - max).exp() / sum) as f32;
        }
    }
}

/// Computes the cross-entropy `log Σ exp(logits) − logits[label]` of each row,
/// in nats, and returns the sum over the rows.
///
/// # Panics
/// If a label is not below `classes`.
pub fn cross_entropy(logits: &[f32], labels: &[u32], classes: usize) -> f64 {
    std::iter::zip(logits.chunks_exact(classes), labels)
        .map(|(row, &label)| {
            let (max, sum) = log_sum(row);
            max + sum.ln() - f64::from(row[label as usize])
        })
        .sum()
}

/// The largest logit `max`, and `Σ exp(logit − max)`.
fn log_sum(row: &[f32]) -> (f64, f64) {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let max = f64::from(max);
    let sum = row.iter().map(|&x| (f64::from(x) - max).exp()).sum();
    (max, sum)
}

/// Returns the `k` classes with the largest scores in descending order. Ties
/// go to the lower class; NaN ranks last.
pub fn top_k(scores: &[f32], k: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    let key = |i: usize| {
        if scores[i].is_nan() {
            f32::NEG_INFINITY
        } else {
            scores[i]
        }
    };
    order.sort_by(|&a, &b| key(b).total_cmp(&key(a)));
    order.truncate(k);
    order
}

/// Averages the probabilities of several sets of logits of equal length and
/// returns the logarithm of the mean. The result serves as logits: its softmax
/// is the mean. Means are clamped to `f32::MIN_POSITIVE` before the logarithm.
pub fn log_mean_probabilities(all: &[&[f32]], classes: usize) -> Vec<f32> {
    let mut sum = vec![0.0f64; all.first().map_or(0, |logits| logits.len())];
    for logits in all {
        let mut probabilities = logits.to_vec();
        softmax(&mut probabilities, classes);
        for (sum, p) in std::iter::zip(&mut sum, probabilities) {
            *sum += f64::from(p);
        }
    }
    let least = f64::from(f32::MIN_POSITIVE);
    let mean = |sum: f64| (sum / all.len() as f64).max(least);
    sum.into_iter().map(|sum| mean(sum).ln() as f32).collect()
}

/// Returns the confidence for each row of `classes` logits: the probability of
/// the most probable class.
pub fn confidences(logits: &[f32], classes: usize) -> Vec<f64> {
    let best = logits.chunks_exact(classes).map(|row| {
        let (_, sum) = log_sum(row);
        // exp(max − max) = 1 is the numerator of the softmax.
        1.0 / sum
    });
    best.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_and_loss_agree() {
        let logits = [1.0, 2.0, 3.0, 1000.0, 0.0, 0.0];
        let mut p = logits;
        softmax(&mut p, 3);
        assert!((p[0] + p[1] + p[2] - 1.0).abs() < 1e-6);
        assert_eq!(&p[3..], [1.0, 0.0, 0.0]);
        let loss = cross_entropy(&logits, &[1, 0], 3);
        assert!((loss + f64::from(p[1]).ln()).abs() < 1e-6);
    }

    #[test]
    fn ensembles_average_probabilities() {
        let (sure, unsure) = ([0.0, 100.0, 0.0], [0.0; 3]);
        let mut both = log_mean_probabilities(&[&sure, &unsure], 3);
        softmax(&mut both, 3);
        for (p, expected) in std::iter::zip(both, [1.0 / 6.0, 2.0 / 3.0, 1.0 / 6.0]) {
            assert!((p - expected as f32).abs() < 1e-6, "{p}");
        }
        let logits = [1.0, 3.0, 2.0, 0.0, 0.0, 0.0];
        let mut p = logits;
        softmax(&mut p, 3);
        let confidences = confidences(&logits, 3);
        assert!((confidences[0] - f64::from(p[1])).abs() < 1e-6);
        assert!((confidences[1] - 1.0 / 3.0).abs() < 1e-6);
    }

    #[test]
    fn the_best_classes_come_first() {
        assert_eq!(top_k(&[0.1, 0.5, f32::NAN, 0.5, 0.9], 4), [4, 1, 3, 0]);
        assert_eq!(top_k(&[0.1], 5), [0]);
    }
}

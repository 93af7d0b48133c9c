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

/// Computes the log-softmax of each row of `classes` logits divided by a
/// temperature, in place.
pub fn log_softmax(logits: &mut [f32], classes: usize, temperature: f64) {
    for row in logits.chunks_exact_mut(classes) {
        for x in row.iter_mut() {
            *x = (f64::from(*x) / temperature) as f32;
        }
        let (max, sum) = log_sum(row);
        for x in row {
            *x = (f64::from(*x) - max - sum.ln()) as f32;
        }
    }
}

/// Averages the log-probabilities `answer` with those of `next`, which have the
/// weight `weight`, and normalises the rows: a stage of a
/// [`BlendedCascade`](sdpoint_core::BlendedCascade).
///
/// # Panics
/// If the lengths differ.
pub fn blend(answer: &mut [f32], next: &[f32], classes: usize, weight: f64) {
    assert_eq!(answer.len(), next.len(), "one row for each");
    for (a, b) in std::iter::zip(&mut *answer, next) {
        // Log-probabilities may be -inf, which a weight of 0 must not make NaN.
        let part = |x: f32, weight: f64| {
            if weight == 0.0 {
                0.0
            } else {
                weight * f64::from(x)
            }
        };
        *a = (part(*a, 1.0 - weight) + part(*b, weight)) as f32;
    }
    log_softmax(answer, classes, 1.0);
}

/// Returns the margin for each row of `classes` logits: the difference between
/// the two largest probabilities; 1 if there is only one class.
pub fn margins(logits: &[f32], classes: usize) -> Vec<f64> {
    let margin = |row: &[f32]| {
        let (max, sum) = log_sum(row);
        let best = top_k(row, 2);
        match best[..] {
            [first, second] => {
                let p = |index: usize| (f64::from(row[index]) - max).exp() / sum;
                p(first) - p(second)
            }
            _ => 1.0,
        }
    };
    logits.chunks_exact(classes).map(margin).collect()
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
    fn answers_are_averaged_as_logarithms() {
        let mut a = [1.0, 2.0, 3.0, 0.5, 0.5, 0.0];
        let mut b = [0.0, 4.0, 1.0, 2.0, 1.0, 1.0];
        let (raw_a, raw_b) = (a, b);
        log_softmax(&mut a, 3, 2.0);
        log_softmax(&mut b, 3, 1.0);
        for row in a.chunks(3).chain(b.chunks(3)) {
            let sum: f32 = row.iter().map(|x| x.exp()).sum();
            assert!((sum - 1.0).abs() < 1e-6);
        }
        let mut blended = a;
        blend(&mut blended, &b, 3, 0.25);
        // The softmax of the weighted sum of logits.
        let mut expected: Vec<f32> = std::iter::zip(raw_a, raw_b)
            .map(|(a, b)| 0.75 * a / 2.0 + 0.25 * b)
            .collect();
        softmax(&mut expected, 3);
        for (found, expected) in std::iter::zip(blended, &expected) {
            assert!((found.exp() - expected).abs() < 1e-6);
        }
        let margins = margins(&blended, 3);
        let mut sorted = expected[..3].to_vec();
        sorted.sort_by(f32::total_cmp);
        assert!((margins[0] - f64::from(sorted[2] - sorted[1])).abs() < 1e-6);
        assert_eq!(super::margins(&[0.3], 1), [1.0]);

        // Certainty stays as it is with a weight of zero.
        let mut sure = [0.0, f32::NEG_INFINITY];
        blend(&mut sure, &[f32::NEG_INFINITY, 0.0], 2, 0.0);
        assert_eq!(sure, [0.0, f32::NEG_INFINITY]);
    }

    #[test]
    fn the_best_classes_come_first() {
        assert_eq!(top_k(&[0.1, 0.5, f32::NAN, 0.5, 0.9], 4), [4, 1, 3, 0]);
        assert_eq!(top_k(&[0.1], 5), [0]);
    }
}

//! From logits to answers.

/// Turns each row of `classes` logits into probabilities.
pub fn softmax(logits: &mut [f32], classes: usize) {
    for row in logits.chunks_exact_mut(classes) {
        let (max, sum) = log_sum(row);
        for x in row {
            *x = ((f64::from(*x) - max).exp() / sum) as f32;
        }
    }
}

/// The sum over rows of the cross-entropy against the labels,
/// `log Σ exp(logits) − logit of the label`.
///
/// # Panics
/// If a label is no class.
pub fn cross_entropy(logits: &[f32], labels: &[u32], classes: usize) -> f64 {
    std::iter::zip(logits.chunks_exact(classes), labels)
        .map(|(row, &label)| {
            let (max, sum) = log_sum(row);
            max + sum.ln() - f64::from(row[label as usize])
        })
        .sum()
}

/// The largest logit, and the sum of exponentials above it.
fn log_sum(row: &[f32]) -> (f64, f64) {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let max = f64::from(max);
    let sum = row.iter().map(|&x| (f64::from(x) - max).exp()).sum();
    (max, sum)
}

/// The `k` classes with the largest scores, best first; of equal ones the
/// lower class first. NaN counts as smallest.
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
    fn the_best_classes_come_first() {
        assert_eq!(top_k(&[0.1, 0.5, f32::NAN, 0.5, 0.9], 4), [4, 1, 3, 0]);
        assert_eq!(top_k(&[0.1], 5), [0]);
    }
}

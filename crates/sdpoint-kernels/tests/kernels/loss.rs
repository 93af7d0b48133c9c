//! Losses.

use crate::testing::{check, contexts, differentiate, random, widen};
use sdpoint_kernels::loss::*;

/// Rows and classes; more rows than a task takes.
const SHAPES: [(usize, usize); 5] = [(1, 1), (1, 10), (3, 17), (2, 40), (35, 5)];

fn reference(logits: &[f64], targets: &[f64], classes: usize) -> f64 {
    let mut loss = 0.0;
    for (row, targets) in logits.chunks(classes).zip(targets.chunks(classes)) {
        let sum: f64 = row.iter().map(|logit| logit.exp()).sum();
        for (logit, target) in row.iter().zip(targets) {
            loss -= target * (logit.exp() / sum).ln();
        }
    }
    loss / (logits.len() / classes) as f64
}

#[test]
fn labels_match_finite_differences() {
    for (rows, classes) in SHAPES {
        let logits = random(rows * classes, 1);
        let labels: Vec<u32> = (0..rows).map(|row| (row * 7 % classes) as u32).collect();
        for smoothing in [0.0, 0.1] {
            let mut targets = vec![f64::from(smoothing) / classes as f64; logits.len()];
            for (row, &label) in labels.iter().enumerate() {
                targets[row * classes + label as usize] += 1.0 - f64::from(smoothing);
            }
            let loss = reference(&widen(&logits), &targets, classes);
            let gradient = differentiate(&widen(&logits), |x| reference(x, &targets, classes));
            check([vec![loss], vec![loss], gradient], 1e-6, |ctx| {
                let run =
                    |d| softmax_cross_entropy(ctx, &logits, classes, &labels, smoothing, d).loss;
                let mut dlogits = vec![9.0; logits.len()];
                [
                    vec![run(None) as f32],
                    vec![run(Some(&mut dlogits)) as f32],
                    dlogits,
                ]
            });
        }
    }
}

#[test]
fn soft_targets_match_finite_differences() {
    for (rows, classes) in SHAPES {
        let logits = random(rows * classes, 1);
        let mut targets = random(rows * classes, 2);
        for row in targets.chunks_mut(classes) {
            let sum: f32 = row.iter().map(|t| t.abs()).sum();
            row.iter_mut().for_each(|t| *t = t.abs() / sum);
        }
        let targets64 = widen(&targets);
        let loss = reference(&widen(&logits), &targets64, classes);
        let gradient = differentiate(&widen(&logits), |x| reference(x, &targets64, classes));
        check([vec![loss], gradient], 1e-6, |ctx| {
            let mut dlogits = vec![9.0; logits.len()];
            let loss =
                softmax_cross_entropy_soft(ctx, &logits, classes, &targets, Some(&mut dlogits));
            [vec![loss as f32], dlogits]
        });
    }
}

#[test]
fn huge_logits_do_not_overflow() {
    for ctx in contexts(1) {
        let logits = [1e30, -1e30, f32::NEG_INFINITY, 1000.0, 1001.0, 999.0];
        let mut d = [0.0; 6];
        let result = softmax_cross_entropy(&ctx, &logits, 3, &[0, 1], 0.0, Some(&mut d));
        let second = (1.0 + (-1.0f64).exp() + (-2.0f64).exp()).ln();
        assert!((result.loss - second / 2.0).abs() < 1e-12);
        assert_eq!(result.correct, 2);
        assert!(d.iter().all(|d| d.is_finite()));
    }
}

#[test]
fn a_diverged_row_shows_and_is_not_right() {
    let ctx = contexts(1).next().unwrap();
    let logits = [f32::NAN, f32::NAN, 1.0, 2.0];
    let result = softmax_cross_entropy(&ctx, &logits, 2, &[0, 1], 0.0, None);
    assert!(result.loss.is_nan());
    assert_eq!(result.correct, 1);
}

#[test]
fn the_first_of_equal_logits_is_the_answer() {
    let ctx = contexts(1).next().unwrap();
    let logits = [1.0, 1.0, 0.0];
    for (label, correct) in [(0, 1), (1, 0), (2, 0)] {
        let result = softmax_cross_entropy(&ctx, &logits, 3, &[label], 0.0, None);
        assert_eq!(result.correct, correct);
    }
}

#[test]
#[should_panic(expected = "label 3 is out of range for 3 classes")]
fn a_label_outside_the_classes_is_refused() {
    let ctx = contexts(1).next().unwrap();
    softmax_cross_entropy(&ctx, &[0.0; 3], 3, &[3], 0.0, None);
}

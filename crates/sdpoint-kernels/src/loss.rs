//! Cross-entropy, and what is read off the logits of a classifier while training.
//!
//! Logits are `[rows, classes]`, a row for each image. There are few of them
//! beside the activations that they come from, so each row is plain arithmetic
//! in f64.

use std::ops::Range;

use crate::context::Context;
use crate::shared_mut::SharedMut;

/// A batch's loss and how many of its rows were classified rightly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Classification {
    /// Mean over the rows of the cross-entropy, in nats.
    pub loss: f64,
    /// Rows whose largest logit is the label's; of equal ones the first counts
    /// as the largest, and a row with NaN is never right.
    pub correct: usize,
}

/// Rows that a thread takes at a time.
const TASK_ROWS: usize = 16;

/// Cross-entropy of the softmax of `logits` with the labels, smoothed by
/// `smoothing` in [0, 1]: the target of a row is `1 - smoothing` at its label
/// plus `smoothing / classes` everywhere (Szegedy et al., "Rethinking the
/// Inception Architecture", 2016, section 7). Writes the gradient of the mean
/// loss to `dlogits` if given.
///
/// # Panics
/// If there are no rows, lengths do not fit, or a label is no class.
pub fn softmax_cross_entropy(
    ctx: &Context,
    logits: &[f32],
    classes: usize,
    labels: &[u32],
    smoothing: f32,
    dlogits: Option<&mut [f32]>,
) -> Classification {
    assert_eq!(
        logits.len(),
        labels.len() * classes,
        "length of logits is not rows x classes"
    );
    if let Some(label) = labels.iter().find(|&&label| label as usize >= classes) {
        panic!("label {label} is none of {classes} classes");
    }
    let everywhere = f64::from(smoothing) / classes as f64;
    let at_label = 1.0 - f64::from(smoothing) + everywhere;
    let target = |row: usize, class: usize| {
        if class == labels[row] as usize {
            at_label
        } else {
            everywhere
        }
    };
    let loss = cross_entropy(ctx, logits, classes, target, dlogits);
    let rows = logits.chunks_exact(classes).zip(labels);
    let correct = rows
        .filter(|(row, label)| is_largest(row, **label as usize))
        .count();
    Classification { loss, correct }
}

/// Mean cross-entropy of the softmax of `logits` with `targets`, a distribution
/// over the classes for each row. Writes its gradient to `dlogits` if given.
///
/// # Panics
/// If there are no rows or lengths do not fit.
pub fn softmax_cross_entropy_soft(
    ctx: &Context,
    logits: &[f32],
    classes: usize,
    targets: &[f32],
    dlogits: Option<&mut [f32]>,
) -> f64 {
    assert_eq!(
        targets.len(),
        logits.len(),
        "length of targets is not that of logits"
    );
    let target = |row: usize, class: usize| f64::from(targets[row * classes + class]);
    cross_entropy(ctx, logits, classes, target, dlogits)
}

fn is_largest(row: &[f32], class: usize) -> bool {
    let largest = row[class];
    row[..class].iter().all(|&other| other < largest)
        && row[class..].iter().all(|&other| other <= largest)
}

fn check_rows(len: usize, classes: usize) -> usize {
    assert!(
        classes > 0 && len.is_multiple_of(classes),
        "{len} logits are not whole rows of {classes} classes"
    );
    len / classes
}

/// `ln(sum(exp(row)))`, without overflow.
fn log_sum_exp(row: &[f32]) -> f64 {
    let largest = f64::from(row.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = row
        .iter()
        .map(|&logit| (f64::from(logit) - largest).exp())
        .sum();
    largest + sum.ln()
}

/// The mean over the rows of `-sum(target * log_softmax)` and its gradient.
fn cross_entropy(
    ctx: &Context,
    logits: &[f32],
    classes: usize,
    target: impl Fn(usize, usize) -> f64 + Sync,
    dlogits: Option<&mut [f32]>,
) -> f64 {
    let rows = check_rows(logits.len(), classes);
    assert!(rows > 0, "the loss of no rows");
    if let Some(dlogits) = &dlogits {
        assert_eq!(
            dlogits.len(),
            logits.len(),
            "length of dlogits is not that of logits"
        );
    }
    let dlogits = dlogits.map(SharedMut::new);
    let mut losses = vec![0.0; rows];
    ctx.parallel_chunks(&mut losses, TASK_ROWS, |task, losses| {
        for (i, loss) in losses.iter_mut().enumerate() {
            let row = task * TASK_ROWS + i;
            let range: Range<usize> = row * classes..(row + 1) * classes;
            let logits = &logits[range.clone()];
            let log_sum = log_sum_exp(logits);
            let mut weight = 0.0;
            for (class, &logit) in logits.iter().enumerate() {
                let target = target(row, class);
                weight += target;
                // A logit of -inf is no loss where nothing is expected.
                if target != 0.0 {
                    *loss += target * (log_sum - f64::from(logit));
                }
            }
            if let Some(dlogits) = dlogits {
                // SAFETY: each row is visited once.
                let dlogits = unsafe { dlogits.slice(range) };
                for (class, (d, &logit)) in dlogits.iter_mut().zip(logits).enumerate() {
                    let probability = (f64::from(logit) - log_sum).exp();
                    *d = ((weight * probability - target(row, class)) / rows as f64) as f32;
                }
            }
        }
    });
    losses.iter().sum::<f64>() / rows as f64
}

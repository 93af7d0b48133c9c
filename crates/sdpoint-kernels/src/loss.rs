//! Softmax cross-entropy, its gradient, and top-1 accuracy while training.
//!
//! Logits are `[rows, classes]`, one row per image. They are few compared to a
//! network's activations, so they are computed in f64 without SIMD.

use std::ops::Range;

use crate::context::Context;
use crate::shared_mut::SharedMut;

/// A batch's loss and number of correct predictions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Classification {
    /// Mean over the rows of the cross-entropy, in nats.
    pub loss: f64,
    /// Rows whose argmax is the label. Of equal logits the first is the argmax;
    /// a row with NaN is never correct.
    pub correct: usize,
}

/// Rows per task.
const TASK_ROWS: usize = 16;

/// Mean cross-entropy of the softmax of `logits` with `labels`, one per row,
/// and label smoothing in [0, 1]: a row's target is `1 - smoothing` at its
/// label plus `smoothing / classes` everywhere (Szegedy et al., "Rethinking
/// the Inception Architecture", 2016, section 7). Writes the gradient of the
/// mean loss to `dlogits` if given.
///
/// # Panics
/// If there are no rows, lengths do not fit, or a label is not below `classes`.
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
        panic!("label {label} is out of range for {classes} classes");
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

/// Mean cross-entropy of the softmax of `logits` with `targets`
/// (`[rows, classes]`), a distribution over the classes for each row. Writes
/// its gradient to `dlogits` if given.
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
                // 0 * ln(0) is 0: a logit of -inf with target 0 costs nothing.
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

//! Branches of a training step that run `full` on smaller images, for comparison
//! with branches that downsample at a point.

use std::ops::Range;

use chacha20::ChaCha8Rng;
use chacha20::rand_core::{Rng, SeedableRng};

use crate::branching::Branching;

/// A part of a batch and the size of its images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SizedBranch {
    pub size: [usize; 2],
    pub images: Range<usize>,
}

/// The branches of a step on so many images: the sizes are drawn uniformly, as a
/// function of the seed and the step.
pub(crate) fn of_step(
    scales: &[[usize; 2]],
    branches: usize,
    images: usize,
    seed: u64,
    step: u64,
) -> Vec<SizedBranch> {
    let mut key = *b"sdpoint: sizes of branches\0\0\0\0\0\0";
    // The first half of the text and the seed make the key.
    key[24..].copy_from_slice(&seed.to_le_bytes());
    let mut random = ChaCha8Rng::from_seed(key);
    random.set_stream(step);
    Branching::images_of_parts(branches, images)
        .map(|images| SizedBranch {
            size: scales[(random.next_u64() % scales.len() as u64) as usize],
            images,
        })
        .collect()
}

/// Images of `from` in NHWC order, reduced to `to` by the mean over the area of
/// each output pixel.
pub(crate) fn reduced(
    images: &[f32],
    channels: usize,
    from: [usize; 2],
    to: [usize; 2],
) -> Vec<f32> {
    let rows = resampled(images, from[1] * channels, from[0], to[0]);
    resampled(&rows, channels, from[1], to[1])
}

/// Reduces one axis of `from` entries, each of `inner` values, to `to`.
fn resampled(values: &[f32], inner: usize, from: usize, to: usize) -> Vec<f32> {
    let scale = from as f64 / to as f64;
    let mut all = Vec::with_capacity(values.len() / from * to);
    for outer in values.chunks_exact(from * inner) {
        for target in 0..to {
            let (start, end) = (target as f64 * scale, (target + 1) as f64 * scale);
            let mut sums = vec![0.0; inner];
            for source in start as usize..(end.ceil() as usize).min(from) {
                let overlap = end.min((source + 1) as f64) - start.max(source as f64);
                let weight = (overlap / scale) as f32;
                let row = &outer[source * inner..(source + 1) * inner];
                for (sum, value) in std::iter::zip(&mut sums, row) {
                    *sum += weight * value;
                }
            }
            all.extend(sums);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_depend_on_seed_and_step_and_are_drawn_equally() {
        let scales = [[20, 20], [24, 24], [28, 28]];
        let draw = |seed, step| of_step(&scales, 4, 128, seed, step);
        assert_eq!(draw(1, 7), draw(1, 7));
        let mut counts = [0; 3];
        for step in 0..3000 {
            let branches = draw(1, step);
            assert_eq!(branches.len(), 4);
            assert_eq!(branches[3].images, 96..128);
            for branch in branches {
                let index = scales.iter().position(|&size| size == branch.size);
                counts[index.unwrap()] += 1;
            }
        }
        // 12,000 draws of 3: five standard deviations are 260.
        assert!(
            counts.iter().all(|&n| (3740..4260).contains(&n)),
            "{counts:?}"
        );
        assert_ne!(draw(1, 0), draw(2, 0));
        assert_eq!(of_step(&scales, 4, 6, 1, 0).len(), 1);
    }

    #[test]
    fn reduction_keeps_means() {
        let images: Vec<f32> = (0..2 * 4 * 6 * 3).map(|i| (i % 17) as f32).collect();
        assert_eq!(reduced(&images, 3, [4, 6], [4, 6]), images);
        let half = reduced(&images, 3, [4, 6], [2, 3]);
        assert_eq!(half.len(), 2 * 2 * 3 * 3);
        let corner = (images[0] + images[3] + images[18] + images[21]) / 4.0;
        assert!((half[0] - corner).abs() < 1e-6);
        let odd = reduced(&images, 3, [4, 6], [3, 5]);
        let mean = |values: &[f32]| values.iter().sum::<f32>() / values.len() as f32;
        assert!((mean(&odd) - mean(&images)).abs() < 1e-4);
    }
}

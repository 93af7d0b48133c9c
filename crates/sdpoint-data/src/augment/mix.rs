//! Mixup and CutMix: images of a batch are mixed with each other.

use rand::{Rng, RngExt};

use super::Augmentation;
use crate::batch::{Batch, Mixed};
use crate::transform::CHANNELS;

/// Mixes each image of a batch with the next one, the last with the first, all
/// in the same way, as in torchvision's references.
pub(crate) fn mix(batch: &mut Batch, augmentation: &Augmentation, rng: &mut impl Rng) {
    let Augmentation { mixup, cutmix, .. } = *augmentation;
    let by_area = match (mixup > 0.0, cutmix > 0.0) {
        (true, true) => rng.random(),
        (_, by_area) => by_area,
    };
    let share = beta(if by_area { cutmix } else { mixup }, rng);
    let images = batch.labels.len();
    let input = batch.images.len() / images.max(1);
    let first = batch.images[..input].to_vec();
    let share = match by_area {
        true => {
            let area = Area::new(batch.size, share, rng);
            for image in 0..images {
                let (this, rest) = batch.images[image * input..].split_at_mut(input);
                area.copy(this, rest.get(..input).unwrap_or(&first));
            }
            1.0 - area.share()
        }
        false => {
            let [own, other] = [share, 1.0 - share].map(|share| share as f32);
            for image in 0..images {
                let (this, rest) = batch.images[image * input..].split_at_mut(input);
                let next = rest.get(..input).unwrap_or(&first);
                for (value, next) in std::iter::zip(this, next) {
                    *value = own * *value + other * next;
                }
            }
            share
        }
    };
    let mut labels = batch.labels.clone();
    labels.rotate_left(1);
    batch.mixed = Some(Mixed {
        labels,
        share: (1.0 - share) as f32,
    });
}

/// The area that is replaced.
struct Area {
    size: [usize; 2],
    rows: std::ops::Range<usize>,
    columns: std::ops::Range<usize>,
}

impl Area {
    /// A rectangle of the image's proportions and `1 − share` of its area, around
    /// any pixel, cut off at the border.
    fn new(size: [usize; 2], share: f64, rng: &mut impl Rng) -> Self {
        let ratio = (1.0 - share).max(0.0).sqrt();
        let mut range = |len: usize| {
            let half = (ratio * len as f64 / 2.0) as usize;
            let centre = rng.random_range(0..len as u32) as usize;
            centre.saturating_sub(half)..(centre + half).min(len)
        };
        Self {
            size,
            rows: range(size[0]),
            columns: range(size[1]),
        }
    }

    /// Its share of the image.
    fn share(&self) -> f64 {
        (self.rows.len() * self.columns.len()) as f64 / (self.size[0] * self.size[1]) as f64
    }

    fn copy(&self, to: &mut [f32], from: &[f32]) {
        for row in self.rows.clone() {
            let place = |column: usize| (row * self.size[1] + column) * CHANNELS;
            let line = place(self.columns.start)..place(self.columns.end);
            to[line.clone()].copy_from_slice(&from[line]);
        }
    }
}

/// A number from the Beta distribution with both parameters `alpha`, above 0
/// (Jöhnk, 1964).
fn beta(alpha: f64, rng: &mut impl Rng) -> f64 {
    // The share of draws that fit is at least 1 in 70 up to the largest parameter.
    for _ in 0..10_000 {
        let [x, y] = [(); 2].map(|()| libm::pow(rng.random::<f64>(), 1.0 / alpha));
        let sum = x + y;
        if sum > 0.0 && sum <= 1.0 {
            return x / sum;
        }
    }
    // Tiny parameters, with which both numbers vanish: one of the two images.
    f64::from(u8::from(rng.random::<bool>()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Use, stream};

    fn batch(images: usize, size: [usize; 2]) -> Batch {
        let len = size[0] * size[1] * CHANNELS;
        let mut batch = Batch::new(images, size, len, &std::sync::Arc::default());
        for (image, values) in batch.images.chunks_exact_mut(len).enumerate() {
            values.fill((image + 1) as f32);
        }
        batch.labels = (0..images as u32).collect();
        batch
    }

    #[test]
    fn mixup_mixes_values_and_labels_alike() {
        let only = Augmentation {
            mixup: 1.0,
            ..Augmentation::default()
        };
        let mut shares = Vec::new();
        for number in 0..200 {
            let mut batch = batch(3, [2, 2]);
            mix(&mut batch, &only, &mut stream(Use::Mixing, 0, 0, number));
            let mixed = batch.mixed.take().unwrap();
            assert_eq!(mixed.labels, [1, 2, 0]);
            let share = mixed.share;
            for (image, values) in batch.images.chunks_exact(12).enumerate() {
                let (own, next) = ((image + 1) as f32, ((image + 1) % 3 + 1) as f32);
                let expected = (1.0 - share) * own + share * next;
                assert!(values.iter().all(|v| (v - expected).abs() < 1e-5));
            }
            shares.push(f64::from(share));
        }
        let mean = shares.iter().sum::<f64>() / 200.0;
        assert!((0.4..0.6).contains(&mean), "{mean}");
        assert!(shares.iter().any(|&s| s < 0.1) && shares.iter().any(|&s| s > 0.9));
    }

    #[test]
    fn cutmix_replaces_an_area_of_the_labels_share() {
        let only = Augmentation {
            cutmix: 1.0,
            ..Augmentation::default()
        };
        for number in 0..200 {
            let mut batch = batch(2, [8, 6]);
            mix(&mut batch, &only, &mut stream(Use::Mixing, 0, 0, number));
            let mixed = batch.mixed.take().unwrap();
            let share = f64::from(mixed.share);
            for (image, values) in batch.images.chunks_exact(8 * 6 * 3).enumerate() {
                let other = (2 - image) as f32;
                let replaced = values.iter().filter(|&&v| v == other).count();
                assert!((replaced as f64 / 144.0 - share).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn with_both_each_batch_gets_one_and_a_single_image_stays() {
        let both: Augmentation = "mixup:1,cutmix:1".parse().unwrap();
        let (mut blended, mut cut) = (0, 0);
        for number in 0..100 {
            let mut batch = batch(2, [4, 4]);
            mix(&mut batch, &both, &mut stream(Use::Mixing, 0, 0, number));
            match batch.images.iter().all(|&v| v == 1.0 || v == 2.0) {
                true => cut += 1,
                false => blended += 1,
            }
        }
        assert!(blended > 25 && cut > 25, "{blended} {cut}");
        let mut one = batch(1, [4, 4]);
        mix(&mut one, &both, &mut stream(Use::Mixing, 0, 0, 0));
        assert!(one.images.iter().all(|v| (v - 1.0).abs() < 1e-6));
        assert_eq!(one.mixed.take().unwrap().labels, [0]);
    }

    #[test]
    fn shares_have_the_beta_distribution() {
        for alpha in [0.2, 1.0, 4.0] {
            let mut rng = stream(Use::Mixing, 3, 0, 0);
            let draws: Vec<f64> = (0..4000).map(|_| beta(alpha, &mut rng)).collect();
            let mean = draws.iter().sum::<f64>() / 4000.0;
            let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 4000.0;
            let expected = 1.0 / (4.0 * (2.0 * alpha + 1.0));
            assert!((mean - 0.5).abs() < 0.03, "{alpha}: {mean}");
            assert!(
                (variance / expected - 1.0).abs() < 0.1,
                "{alpha}: {variance}"
            );
        }
        let tiny = beta(1e-12, &mut stream(Use::Mixing, 3, 0, 0));
        assert!(tiny == 0.0 || tiny == 1.0);
    }
}

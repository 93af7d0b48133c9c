//! Noise in residual blocks while training: dropout and stochastic depth.
//!
//! Both multiply by a random mask, which is what training does and inference
//! does not; so they are no layers of the network, but nodes that a training
//! step's plan has besides.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::lower::{Lowered, Mask, Node, Value, Work};

/// What is dropped at random in the residual blocks of a network.
///
/// What is kept is scaled up, so that means stay what they are and inference
/// needs no change. A sum's first input is taken for the residual branch, as
/// all builders have it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Noise {
    /// The probability of each value that goes into a branch's last
    /// convolution: dropout as in Zagoruyko and Komodakis, arXiv 1605.07146,
    /// section 2.4.
    pub dropout: f64,
    /// The probability of the last block's residual branch, image by image;
    /// those of earlier blocks rise to it in proportion to their number:
    /// stochastic depth, Huang et al., arXiv 1603.09382, section 3.
    pub depth: f64,
}

/// The masks of a step.
#[derive(Clone, Debug)]
pub(crate) struct Masks {
    pub noise: Noise,
    seed: u64,
    /// Which step's masks are drawn.
    pub step: u64,
    /// By site.
    drawn: Vec<Drawn>,
}

/// A mask, drawn.
#[derive(Clone, Debug, Default)]
struct Drawn {
    /// 1 for each part of the tensor that is kept, 0 for the others.
    kept: Vec<u8>,
    /// Values in a part.
    part: usize,
    /// What kept values are multiplied by.
    scale: f32,
}

/// Probabilities are drawn in steps of 1/256, a byte for each.
const LEVELS: f32 = 256.0;

/// A probability in steps of [`LEVELS`], and never all of them.
fn level(probability: f32) -> u8 {
    (probability * LEVELS).round().min(LEVELS - 1.0) as u8
}

impl Masks {
    pub fn new(noise: Noise, seed: u64) -> Self {
        for probability in [noise.dropout, noise.depth] {
            assert!(
                (0.0..1.0).contains(&probability),
                "{probability} is no probability below 1"
            );
        }
        Self {
            noise,
            seed,
            step: 0,
            drawn: Vec::new(),
        }
    }

    /// Draws the mask of a site for a tensor of so many images and values.
    pub fn draw(&mut self, site: usize, mask: Mask, images: usize, len: usize) {
        if self.drawn.len() <= site {
            self.drawn.resize_with(site + 1, Drawn::default);
        }
        let (probability, parts) = match mask {
            Mask::Values(probability) => (probability, len),
            Mask::Images(probability) => (probability, images),
        };
        let mut key = *b"sdpoint: masks, noise of a step\0";
        key[16..24].copy_from_slice(&self.seed.to_le_bytes());
        key[24..].copy_from_slice(&self.step.to_le_bytes());
        let mut random = ChaCha8Rng::from_seed(key);
        random.set_stream(site as u64);
        let dropped = level(probability);
        let drawn = &mut self.drawn[site];
        drawn.kept.resize(parts, 0);
        random.fill_bytes(&mut drawn.kept);
        for kept in &mut drawn.kept {
            *kept = u8::from(*kept >= dropped);
        }
        drawn.part = len / parts;
        drawn.scale = LEVELS / (LEVELS - f32::from(dropped));
    }

    /// `y = mask · x`, or `y += mask · x`, with the mask that was drawn last.
    pub fn apply(&self, site: usize, x: &[f32], accumulate: bool, y: &mut [f32]) {
        let Drawn { kept, part, scale } = &self.drawn[site];
        let parts = x.chunks_exact(*part).zip(y.chunks_exact_mut(*part));
        for ((x, y), &kept) in parts.zip(kept) {
            let factor = scale * f32::from(kept);
            for (x, y) in x.iter().zip(y) {
                *y = if accumulate {
                    *y + factor * x
                } else {
                    factor * x
                };
            }
        }
    }

    pub fn bytes(&self) -> usize {
        self.drawn.iter().map(|drawn| drawn.kept.len()).sum()
    }
}

/// Puts the noise into the residual blocks of a lowered network.
pub(super) fn insert(lowered: &mut Lowered, noise: Noise) {
    let sums = lowered.nodes.iter().filter(|node| node.work == Work::Add);
    let blocks = sums.count();
    let mut block = 0;
    let mut index = 0;
    while index < lowered.nodes.len() {
        if lowered.nodes[index].work == Work::Add {
            let branch = lowered.nodes[index].inputs[0];
            block += 1;
            if noise.dropout > 0.0
                && let Some(conv) = last_conv(lowered, branch)
            {
                let mask = Mask::Values(noise.dropout as f32);
                put_before(lowered, conv, 2 * block, mask);
                index += 1;
            }
            let depth = noise.depth * block as f64 / blocks as f64;
            if depth > 0.0 {
                put_before(lowered, index, 2 * block + 1, Mask::Images(depth as f32));
                index += 1;
            }
        }
        index += 1;
    }
}

/// The convolution that makes a value, directly or with a batch norm behind.
fn last_conv(lowered: &Lowered, mut value: Value) -> Option<usize> {
    loop {
        let index = lowered.nodes.iter().position(|node| node.output == value)?;
        match lowered.nodes[index].work {
            Work::Conv(_) => return Some(index),
            Work::Norm { .. } => value = lowered.nodes[index].inputs[0],
            _ => return None,
        }
    }
}

/// Puts a mask before a node's first input.
fn put_before(lowered: &mut Lowered, index: usize, site: usize, mask: Mask) {
    let input = lowered.nodes[index].inputs[0];
    let output = Value(lowered.shapes.len());
    lowered.shapes.push(lowered.shapes[input.0]);
    lowered.nodes[index].inputs[0] = output;
    let node = Node {
        work: Work::Mask { site, mask },
        layer: lowered.nodes[index].layer,
        inputs: vec![input],
        output,
    };
    lowered.nodes.insert(index, node);
}

#[cfg(test)]
mod tests {
    use sdpoint_core::{Instance, zoo};

    use super::*;
    use crate::lower::{Span, lower};

    fn masks() -> Masks {
        let noise = Noise {
            dropout: 0.25,
            depth: 0.0,
        };
        Masks::new(noise, 3)
    }

    /// The masked ones.
    fn drawn(masks: &mut Masks, site: usize, mask: Mask, images: usize, len: usize) -> Vec<f32> {
        masks.draw(site, mask, images, len);
        let mut y = vec![f32::NAN; len];
        masks.apply(site, &vec![1.0; len], false, &mut y);
        y
    }

    #[test]
    fn values_are_dropped_as_often_as_said_and_the_mean_stays() {
        let y = drawn(&mut masks(), 0, Mask::Values(0.25), 10, 100_000);
        let kept = y.iter().filter(|&&y| y != 0.0).count();
        assert!((74_000..76_000).contains(&kept), "{kept}");
        assert!(y.iter().all(|&y| y == 0.0 || (y - 4.0 / 3.0).abs() < 1e-6));
    }

    #[test]
    fn images_are_dropped_as_a_whole() {
        let y = drawn(&mut masks(), 0, Mask::Images(0.5), 1000, 3000);
        let images: Vec<&[f32]> = y.chunks(3).collect();
        assert!(
            images
                .iter()
                .all(|image| image.iter().all(|y| *y == image[0]))
        );
        let kept = images.iter().filter(|image| image[0] == 2.0).count();
        assert!((430..570).contains(&kept), "{kept}");
    }

    #[test]
    fn a_mask_depends_on_seed_step_and_site_alone() {
        let mask = Mask::Values(0.5);
        let first = drawn(&mut masks(), 4, mask, 1, 64);
        let mut others = masks();
        assert_ne!(drawn(&mut others, 5, mask, 1, 64), first);
        others.step = 1;
        assert_ne!(drawn(&mut others, 4, mask, 1, 64), first);
        others.step = 0;
        assert_eq!(drawn(&mut others, 4, mask, 1, 64), first);
        let mut other_seed = Masks::new(Noise::default(), 4);
        assert_ne!(drawn(&mut other_seed, 4, mask, 1, 64), first);
    }

    #[test]
    fn every_block_has_its_masks_in_its_place() {
        for name in ["preresnet8", "resnet18", "preresnet50-imagenet"] {
            let network = zoo::build(name, 10).unwrap();
            let plain = lower(&network, [64, 64], Instance::Full, Span::WHOLE).unwrap();
            let mut noisy = plain.clone();
            let noise = Noise {
                dropout: 0.25,
                depth: 0.5,
            };
            insert(&mut noisy, noise);
            let blocks = network.points().iter().filter(|p| p.layer().0 > 0);
            let blocks = blocks
                .filter(|p| p.id() != sdpoint_core::PointId::Stem)
                .count();
            assert_eq!(noisy.nodes.len(), plain.nodes.len() + 2 * blocks, "{name}");
            let mut depths = Vec::new();
            for (index, node) in noisy.nodes.iter().enumerate() {
                let next = noisy.nodes.get(index + 1).map(|node| node.work);
                match node.work {
                    Work::Mask {
                        mask: Mask::Images(p),
                        ..
                    } => {
                        assert_eq!(next, Some(Work::Add), "{name}");
                        depths.push(p);
                    }
                    Work::Mask { .. } => {
                        assert!(matches!(next, Some(Work::Conv(_))), "{name}");
                    }
                    _ => {}
                }
                // What is read was made before.
                let made = |value: &Value| noisy.nodes[..index].iter().any(|n| n.output == *value);
                assert!(
                    node.inputs.iter().all(|v| *v == noisy.input || made(v)),
                    "{name}"
                );
            }
            assert!(
                depths.is_sorted() && depths[blocks - 1] == 0.5,
                "{depths:?}"
            );
            assert!((depths[0] - 0.5 / blocks as f32).abs() < 1e-6);
        }
    }
}

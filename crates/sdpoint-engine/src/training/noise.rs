//! Training noise in residual blocks: dropout and stochastic depth.
//!
//! Both multiply a tensor by a random mask in training only. They are
//! therefore not layers of the network, but nodes inserted into the plan of a
//! training step.

use chacha20::ChaCha8Rng;
use chacha20::rand_core::{Rng, SeedableRng};

use crate::lower::{Lowered, Mask, Node, NodeOp, Value};

/// The probabilities of dropout and stochastic depth in residual blocks.
///
/// Kept values are scaled up so that the mean is preserved ("inverted
/// dropout"), and inference needs no change. The first input of a sum is taken
/// to be the residual branch; all builders of the zoo order them so.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Noise {
    /// Dropout: the probability of dropping each input value of a branch's last
    /// convolution (Zagoruyko and Komodakis, arXiv 1605.07146, section 2.4).
    pub dropout: f64,
    /// Stochastic depth: the probability of dropping the residual branch of the
    /// last block, drawn for each image. It rises linearly with the number of
    /// the block (Huang et al., arXiv 1603.09382, section 3).
    pub depth: f64,
}

/// The masks of a training step.
#[derive(Clone, Debug)]
pub(crate) struct Masks {
    pub noise: Noise,
    seed: u64,
    /// The number of the step whose masks are drawn.
    pub step: u64,
    /// Which of the step's branches, counted from one, masks are drawn for; 0
    /// for an instance that is computed from the images on.
    pub branch: u32,
    /// The last mask drawn for each site.
    drawn: Vec<DrawnMask>,
}

/// A mask with values drawn.
#[derive(Clone, Debug, Default)]
struct DrawnMask {
    /// 1 for each part of the tensor that is kept, 0 for the others.
    kept: Vec<u8>,
    /// The number of values in a part.
    part: usize,
    /// The factor for kept values.
    scale: f32,
}

/// Probabilities are quantised to multiples of 1/256: one random byte per draw.
const LEVELS: f32 = 256.0;

/// Quantises a probability to a number of [`LEVELS`], at most all but one.
fn quantise(probability: f32) -> u8 {
    (probability * LEVELS).round().min(LEVELS - 1.0) as u8
}

impl Masks {
    pub fn new(noise: Noise, seed: u64) -> Self {
        for probability in [noise.dropout, noise.depth] {
            assert!(
                (0.0..1.0).contains(&probability),
                "{probability} is not a probability below 1"
            );
        }
        Self {
            noise,
            seed,
            step: 0,
            branch: 0,
            drawn: Vec::new(),
        }
    }

    /// Draws the mask of a site for a tensor of `images` images and `len` values
    /// in all.
    pub fn draw(&mut self, site: usize, mask: Mask, images: usize, len: usize) {
        if self.drawn.len() <= site {
            self.drawn.resize_with(site + 1, DrawnMask::default);
        }
        let (probability, parts) = match mask {
            Mask::Values(probability) => (probability, len),
            Mask::Images(probability) => (probability, images),
        };
        let mut key = *b"sdpoint: masks, noise of a step\0";
        key[16..24].copy_from_slice(&self.seed.to_le_bytes());
        key[24..].copy_from_slice(&self.step.to_le_bytes());
        let mut random = ChaCha8Rng::from_seed(key);
        random.set_stream(u64::from(self.branch) << 32 | site as u64);
        let dropped = quantise(probability);
        let drawn = &mut self.drawn[site];
        drawn.kept.resize(parts, 0);
        random.fill_bytes(&mut drawn.kept);
        for kept in &mut drawn.kept {
            *kept = u8::from(*kept >= dropped);
        }
        drawn.part = len / parts;
        drawn.scale = LEVELS / (LEVELS - f32::from(dropped));
    }

    /// Computes `y = mask · x`, or `y += mask · x` with `accumulate`, with the
    /// last mask drawn for the site.
    pub fn apply(&self, site: usize, x: &[f32], accumulate: bool, y: &mut [f32]) {
        let DrawnMask { kept, part, scale } = &self.drawn[site];
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

    /// The size of all masks in bytes.
    pub fn bytes(&self) -> usize {
        self.drawn.iter().map(|drawn| drawn.kept.len()).sum()
    }
}

/// The number of residual blocks of a lowered network or span.
pub(super) fn blocks(lowered: &Lowered) -> usize {
    let sums = lowered.nodes.iter().filter(|node| node.op == NodeOp::Add);
    sums.count()
}

/// Inserts mask nodes into the residual blocks of a lowered network, or of a
/// span at its end. `blocks` is the number of blocks of the whole network.
pub(super) fn insert(lowered: &mut Lowered, noise: Noise, blocks: usize) {
    let mut block = blocks - self::blocks(lowered);
    let mut index = 0;
    while index < lowered.nodes.len() {
        if lowered.nodes[index].op == NodeOp::Add {
            let branch = lowered.nodes[index].inputs[0];
            block += 1;
            if noise.dropout > 0.0
                && let Some(conv) = last_conv(lowered, branch)
            {
                let mask = Mask::Values(noise.dropout as f32);
                insert_mask(lowered, conv, 2 * block, mask);
                index += 1;
            }
            let depth = noise.depth * block as f64 / blocks as f64;
            if depth > 0.0 {
                insert_mask(lowered, index, 2 * block + 1, Mask::Images(depth as f32));
                index += 1;
            }
        }
        index += 1;
    }
}

/// The node of the convolution that produces a value, directly or through a
/// batch norm.
fn last_conv(lowered: &Lowered, mut value: Value) -> Option<usize> {
    loop {
        let index = lowered.nodes.iter().position(|node| node.output == value)?;
        match lowered.nodes[index].op {
            NodeOp::Conv(_) => return Some(index),
            NodeOp::Norm { .. } => value = lowered.nodes[index].inputs[0],
            _ => return None,
        }
    }
}

/// Inserts a mask at a node's first input.
fn insert_mask(lowered: &mut Lowered, index: usize, site: usize, mask: Mask) {
    let input = lowered.nodes[index].inputs[0];
    let output = Value(lowered.shapes.len());
    lowered.shapes.push(lowered.shapes[input.0]);
    lowered.nodes[index].inputs[0] = output;
    let node = Node {
        op: NodeOp::Mask { site, mask },
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

    /// A masked tensor of ones.
    fn drawn(masks: &mut Masks, site: usize, mask: Mask, images: usize, len: usize) -> Vec<f32> {
        masks.draw(site, mask, images, len);
        let mut y = vec![f32::NAN; len];
        masks.apply(site, &vec![1.0; len], false, &mut y);
        y
    }

    #[test]
    fn values_are_dropped_with_the_given_probability_and_rescaled() {
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
    fn every_block_gets_both_masks_in_the_right_places() {
        for name in ["preresnet8", "resnet18", "preresnet50-imagenet"] {
            let network = zoo::build(name, 10).unwrap();
            let plain = lower(&network, [64, 64], Instance::Full, Span::WHOLE).unwrap();
            let mut noisy = plain.clone();
            let noise = Noise {
                dropout: 0.25,
                depth: 0.5,
            };
            insert(&mut noisy, noise, super::blocks(&plain));
            let blocks = network.points().iter().filter(|p| p.layer().0 > 0);
            let blocks = blocks
                .filter(|p| p.id() != sdpoint_core::PointId::Stem)
                .count();
            assert_eq!(noisy.nodes.len(), plain.nodes.len() + 2 * blocks, "{name}");
            let mut depths = Vec::new();
            for (index, node) in noisy.nodes.iter().enumerate() {
                let next = noisy.nodes.get(index + 1).map(|node| node.op);
                match node.op {
                    NodeOp::Mask {
                        mask: Mask::Images(p),
                        ..
                    } => {
                        assert_eq!(next, Some(NodeOp::Add), "{name}");
                        depths.push(p);
                    }
                    NodeOp::Mask { .. } => {
                        assert!(matches!(next, Some(NodeOp::Conv(_))), "{name}");
                    }
                    _ => {}
                }
                // Values are produced before they are read.
                let produced =
                    |value: &Value| noisy.nodes[..index].iter().any(|n| n.output == *value);
                assert!(
                    node.inputs.iter().all(|v| *v == noisy.input || produced(v)),
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

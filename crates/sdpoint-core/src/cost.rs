//! The cost of an instance: multiply-accumulates, parameters, memory.

use crate::instance::Instance;
use crate::layer::{LayerId, Op, last_uses};
use crate::network::Network;
use crate::shapes::{Shape, ShapeError, Shapes};

/// The cost of running an instance on one image.
///
/// All numbers saturate at `u64::MAX` instead of overflowing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cost {
    /// Multiply-accumulates of all convolutions and linear layers, the number
    /// usually quoted (4.09 G for ResNet-50 at 224×224). Biases, norms,
    /// activations and pooling are not counted.
    pub macs: u64,
    /// Multiply-accumulates of each layer, in order.
    pub layer_macs: Vec<u64>,
    /// The number of parameters; the same for all instances of a network.
    pub parameters: u64,
    /// Peak memory of the feature maps and the image in bytes, in `f32`. Layers
    /// are assumed to be computed in order without fusion, each into a buffer
    /// of its own that is freed after its last use.
    pub peak_bytes: u64,
}

impl Cost {
    /// The multiply-accumulates as a share of those of `full`.
    pub fn share(&self, full: &Cost) -> f64 {
        if full.macs == 0 {
            return 1.0;
        }
        self.macs as f64 / full.macs as f64
    }
}

impl Network {
    /// Computes the cost of an instance on one image of `[height, width]`.
    ///
    /// # Errors
    /// As [`Network::shapes`].
    pub fn cost(&self, input: [usize; 2], instance: Instance) -> Result<Cost, ShapeError> {
        let shapes = self.shapes(input, instance)?;
        let layer_macs: Vec<u64> = (0..self.layers().len())
            .map(|index| layer_macs(self, &shapes, LayerId(index)))
            .collect();
        Ok(Cost {
            macs: layer_macs.iter().copied().fold(0, u64::saturating_add),
            layer_macs,
            parameters: self
                .parameters()
                .iter()
                .map(|parameter| parameter.len() as u64)
                .fold(0, u64::saturating_add),
            peak_bytes: peak_bytes(self, &shapes),
        })
    }
}

/// Formats a number of multiply-accumulates to three digits: `40.8M`, `4.09G`.
pub fn format_macs(macs: u64) -> String {
    format_macs_to(macs, 3)
}

/// As [`format_macs`], with so many digits, at least three.
pub(crate) fn format_macs_to(macs: u64, digits: usize) -> String {
    let (mut value, mut unit) = (macs as f64, "");
    for larger in ["k", "M", "G", "T", "P", "E"] {
        // 999.5 would be rounded to 1000.
        if value < 999.5 {
            break;
        }
        value /= 1000.0;
        unit = larger;
    }
    let before = match value {
        _ if unit.is_empty() => digits,
        v if v < 9.995 => 1,
        v if v < 99.95 => 2,
        _ => 3,
    };
    let behind = digits.saturating_sub(before);
    format!("{value:.behind$}{unit}")
}

fn layer_macs(network: &Network, shapes: &Shapes, id: LayerId) -> u64 {
    match network.layer(id).op {
        // Each output value is a sum over a window of its group's inputs.
        Op::Conv(conv) => conv.weight_shape()[1..]
            .iter()
            .fold(shapes.computed(id).len() as u64, |macs, &size| {
                macs.saturating_mul(size as u64)
            }),
        Op::Linear {
            in_features,
            out_features,
            ..
        } => in_features as u64 * out_features as u64,
        Op::Input { .. }
        | Op::BatchNorm { .. }
        | Op::Relu
        | Op::Relu6
        | Op::MaxPool(_)
        | Op::AvgPool(_)
        | Op::GlobalAvgPool
        | Op::Add
        | Op::Concat => 0,
    }
}

fn peak_bytes(network: &Network, shapes: &Shapes) -> u64 {
    let layers = network.layers();
    let mut ending: Vec<Vec<LayerId>> = vec![Vec::new(); layers.len()];
    for (from, last) in last_uses(layers).into_iter().enumerate() {
        ending[last].push(LayerId(from));
    }
    let (mut live, mut peak) = (0u64, 0u64);
    for (index, ended) in ending.iter().enumerate() {
        let id = LayerId(index);
        let (computed, passed_on) = (shapes.computed(id), shapes.passed_on(id));
        live = live.saturating_add(bytes(computed));
        peak = peak.max(live);
        let dropped = ended
            .iter()
            .filter(|from| **from != id)
            .fold(0, |sum: u64, &from| {
                sum.saturating_add(bytes(shapes.passed_on(from)))
            });
        live = live.saturating_sub(dropped);
        if computed != passed_on {
            live = live.saturating_add(bytes(passed_on));
            peak = peak.max(live);
            live = live.saturating_sub(bytes(computed));
        }
    }
    peak
}

fn bytes(shape: Shape) -> u64 {
    shape.len() as u64 * size_of::<f32>() as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::layer::{Conv, Window};
    use crate::network::NetworkBuilder;
    use crate::ratio::Ratio;
    use crate::{PointId, zoo};

    #[test]
    fn peak_counts_what_is_live_together() {
        let mut b = NetworkBuilder::new("tiny", 2);
        let x = b.conv("conv1", b.input(), Conv::square(2, 4, 3, 1));
        let y = b.conv("conv2", x, Conv::square(4, 4, 3, 1));
        let x = b.add("add", y, x);
        b.point(PointId::Block(0), x);
        let x = b.conv("conv3", x, Conv::square(4, 1, 1, 1));
        b.layer("pool", Op::AvgPool(Window::square(2, 2, 0)), &[x]);
        let network = b.finish().unwrap();
        // At the sum, three tensors of 4 channels live at once.
        let full = network.cost([10, 6], Instance::Full).unwrap();
        assert_eq!(full.peak_bytes, 3 * 4 * 60 * 4);
        let macs = [0, 60 * 2 * 4 * 9, 60 * 4 * 4 * 9, 0, 60 * 4, 0];
        assert_eq!(full.layer_macs, macs);
        assert_eq!(full.macs, macs.iter().sum::<u64>());
        assert_eq!(full.parameters, 4 * 2 * 9 + 4 * 4 * 9 + 4);
        let half = network.cost([10, 6], "0@0.5".parse().unwrap()).unwrap();
        // 10 × 6 becomes 5 × 3.
        assert_eq!(half.layer_macs[4], 15 * 4);
        assert_eq!(half.peak_bytes, full.peak_bytes);
    }

    #[test]
    fn a_map_and_its_smaller_copy_live_together() {
        let mut b = NetworkBuilder::new("tiny", 1);
        let x = b.conv("conv1", b.input(), Conv::square(1, 8, 1, 1));
        b.point(PointId::Block(0), x);
        b.layer("pool", Op::GlobalAvgPool, &[x]);
        let network = b.finish().unwrap();
        let cost = network.cost([8, 8], "0@0.75".parse().unwrap()).unwrap();
        assert_eq!(cost.peak_bytes, 4 * 8 * (64 + 36));
    }

    #[test]
    fn macs_are_shown_in_three_digits() {
        for (macs, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1.00k"),
            (999_499, "999k"),
            (999_500, "1.00M"),
            (40_813_184, "40.8M"),
            (4_089_184_256, "4.09G"),
            (u64::MAX, "18.4E"),
        ] {
            assert_eq!(format_macs(macs), text);
        }
    }

    #[test]
    fn absurd_sizes_saturate() {
        let side = 1 << 20;
        let mut b = NetworkBuilder::new("vast", side);
        let mut x = b.input();
        for index in 0..8 {
            let conv = Conv {
                kernel: [1023; 2],
                padding: [511; 2],
                ..Conv::square(side, side, 1, 1)
            };
            x = b.conv(format!("conv{index}"), x, conv);
        }
        let network = b.finish().unwrap();
        let cost = network.cost([1 << 8; 2], Instance::Full).unwrap();
        assert_eq!(cost.macs, u64::MAX);
        let error = network.cost([1 << 9; 2], Instance::Full);
        assert!(matches!(error, Err(ShapeError::Grown { .. })), "{error:?}");

        let mut b = NetworkBuilder::new("grows", 1);
        let mut x = b.input();
        for index in 0..1000 {
            let conv = Conv {
                padding: [1024; 2],
                ..Conv::square(1, 1, 1, 1)
            };
            x = b.conv(format!("conv{index}"), x, conv);
        }
        let error = b.finish().unwrap().cost([1, 1], Instance::Full);
        assert!(matches!(error, Err(ShapeError::Grown { .. })), "{error:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn cost_never_rises_with_a_smaller_ratio(
            name in prop::sample::select(vec![
                "preresnet8", "wrn10-2", "resnext29_2x4d", "resnet18", "preresnet18-imagenet",
            ]),
            height in 8usize..300,
            width in 8usize..300,
            a in 0.01f64..0.99,
            b in 0.01f64..0.99,
        ) {
            let network = zoo::build(name, 10).unwrap();
            let full = network.cost([height, width], Instance::Full).unwrap();
            for point in network.points() {
                let at = |ratio| {
                    let instance = Instance::At(point.id(), Ratio::new(ratio).unwrap());
                    let shapes = network.shapes([height, width], instance).unwrap();
                    for index in 0..network.layers().len() {
                        prop_assert!(!shapes.passed_on(LayerId(index)).is_empty());
                    }
                    Ok(network.cost([height, width], instance).unwrap())
                };
                let (low, high) = (at(a.min(b))?, at(a.max(b))?);
                prop_assert!(low.macs <= high.macs && high.macs <= full.macs);
                prop_assert!((0.0..=1.0).contains(&low.share(&full)));
                for (low, high) in low.layer_macs.iter().zip(&high.layer_macs) {
                    prop_assert!(low <= high);
                }
            }
        }
    }
}

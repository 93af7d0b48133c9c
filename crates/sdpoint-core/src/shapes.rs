//! Shape inference: the size of every tensor for an input size and an instance.

use crate::instance::{Instance, PointId};
use crate::layer::{LayerId, Op, windows};
use crate::network::Network;

/// The size of a tensor of one image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// The number of rows.
    pub height: usize,
    /// The number of columns.
    pub width: usize,
    /// The number of channels.
    pub channels: usize,
}

impl Shape {
    /// The number of values.
    pub fn len(&self) -> usize {
        self.height * self.width * self.channels
    }

    /// Whether it has no values; always false for tensors of a network.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The sizes of all tensors of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shapes {
    computed: Vec<Shape>,
    passed_on: Vec<Shape>,
}

/// The error for an input size or an instance that a network does not accept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShapeError {
    /// A feature map is smaller than a kernel.
    #[error(
        "an input of {height}×{width} is too small for {network}: nothing is left at layer '{layer}'"
    )]
    TooSmall {
        /// The network's name.
        network: String,
        /// Rows of the input.
        height: usize,
        /// Columns of the input.
        width: usize,
        /// The layer whose input is too small.
        layer: String,
    },
    /// The input is larger than the limit.
    #[error("an input of {height}×{width} is too large; sides go up to {MAX_SIDE}")]
    TooLarge {
        /// Rows of the input.
        height: usize,
        /// Columns of the input.
        width: usize,
    },
    /// A feature map is larger than the limit.
    #[error(
        "layer '{layer}' of {network} makes a feature map of {height}×{width}, which is too large"
    )]
    Grown {
        /// The network's name.
        network: String,
        /// The layer.
        layer: String,
        /// Rows of its output.
        height: usize,
        /// Columns of its output.
        width: usize,
    },
    /// The inputs of a layer have different sizes.
    #[error(
        "layer '{layer}' of {network} joins feature maps of different sizes at an input of {height}×{width}"
    )]
    Mismatch {
        /// The network's name.
        network: String,
        /// Rows of the input.
        height: usize,
        /// Columns of the input.
        width: usize,
        /// The layer.
        layer: String,
    },
    /// A linear layer whose input has more than one pixel.
    #[error("layer '{layer}' of {network} is linear, but its input has more than one pixel")]
    NotFlat {
        /// The network's name.
        network: String,
        /// The linear layer.
        layer: String,
    },
    /// The network has no such point.
    #[error("{network} has no point {point}; its points are {points}")]
    NoPoint {
        /// The network's name.
        network: String,
        /// The point that the network lacks.
        point: PointId,
        /// The points that it has.
        points: String,
    },
}

/// The longest side of an input.
pub const MAX_SIDE: usize = 1 << 14;

/// The longest side of a feature map. The number of values of a map of that size
/// with the most channels fits into 64 bits.
const MAX_MAP_SIDE: usize = 1 << 20;

/// The most values of a tensor of one image, 256 GiB in f32. Sums over all
/// layers and a batch do not overflow.
const MAX_TENSOR: usize = 1 << 36;

impl Shapes {
    /// The output size of a layer before downsampling. For the stem's max pool,
    /// that of the max pool or of the adaptive pool in its place.
    pub fn computed(&self, layer: LayerId) -> Shape {
        self.computed[layer.0]
    }

    /// The size of a layer's output as later layers read it: after downsampling
    /// if the instance's point is at the layer.
    pub fn passed_on(&self, layer: LayerId) -> Shape {
        self.passed_on[layer.0]
    }
}

impl Network {
    /// Computes the size of every tensor for images of `[height, width]`.
    ///
    /// # Errors
    /// If the input is too small or too large for the network, or the network
    /// lacks the instance's point.
    pub fn shapes(&self, input: [usize; 2], instance: Instance) -> Result<Shapes, ShapeError> {
        let [height, width] = input;
        let name = || self.name().to_owned();
        if height > MAX_SIDE || width > MAX_SIDE {
            return Err(ShapeError::TooLarge { height, width });
        }
        let down = match instance {
            Instance::Full => None,
            Instance::At(id, ratio) => match self.point(id) {
                Some(point) => Some((point.layer(), ratio)),
                None => {
                    let points: Vec<String> =
                        self.points().iter().map(|p| p.id().to_string()).collect();
                    return Err(ShapeError::NoPoint {
                        network: name(),
                        point: id,
                        points: points.join(", "),
                    });
                }
            },
        };
        let mut computed: Vec<Shape> = Vec::with_capacity(self.layers().len());
        let mut passed_on: Vec<Shape> = Vec::with_capacity(self.layers().len());
        for (index, layer) in self.layers().iter().enumerate() {
            let mismatch = || ShapeError::Mismatch {
                network: name(),
                height,
                width,
                layer: layer.name.clone(),
            };
            let first = layer.inputs.first().map(|input| passed_on[input.0]);
            let sides = match (&layer.op, first) {
                (Op::Input { .. }, _) | (_, None) => Some((height, width)),
                (Op::Conv(conv), Some(x)) => both(x, conv.kernel, conv.stride, conv.padding),
                (Op::MaxPool(w) | Op::AvgPool(w), Some(x)) => {
                    both(x, w.kernel, w.stride, w.padding)
                }
                (Op::GlobalAvgPool, Some(_)) => Some((1, 1)),
                (Op::Linear { .. }, Some(x)) => {
                    if (x.height, x.width) != (1, 1) {
                        return Err(ShapeError::NotFlat {
                            network: name(),
                            layer: layer.name.clone(),
                        });
                    }
                    Some((1, 1))
                }
                (Op::BatchNorm { .. } | Op::Relu | Op::Relu6 | Op::Add | Op::Concat, Some(x)) => {
                    let agree = layer.inputs.iter().all(|input| {
                        let other = passed_on[input.0];
                        (other.height, other.width) == (x.height, x.width)
                    });
                    if !agree {
                        return Err(mismatch());
                    }
                    Some((x.height, x.width))
                }
            };
            let (rows, columns) =
                sides
                    .filter(|&(h, w)| h > 0 && w > 0)
                    .ok_or_else(|| ShapeError::TooSmall {
                        network: name(),
                        height,
                        width,
                        layer: layer.name.clone(),
                    })?;
            if rows > MAX_MAP_SIDE || columns > MAX_MAP_SIDE {
                return Err(ShapeError::Grown {
                    network: name(),
                    layer: layer.name.clone(),
                    height: rows,
                    width: columns,
                });
            }
            let mut shape = Shape {
                height: rows,
                width: columns,
                channels: self.channels(LayerId(index)),
            };
            if shape.len() > MAX_TENSOR {
                return Err(ShapeError::Grown {
                    network: name(),
                    layer: layer.name.clone(),
                    height: rows,
                    width: columns,
                });
            }
            let mut reduced = shape;
            if let Some((point, ratio)) = down
                && point.0 == index
            {
                reduced.height = ratio.apply(rows);
                reduced.width = ratio.apply(columns);
                if instance.point() == Some(PointId::Stem) {
                    shape = reduced;
                }
            }
            computed.push(shape);
            passed_on.push(reduced);
        }
        Ok(Shapes {
            computed,
            passed_on,
        })
    }
}

fn both(
    x: Shape,
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 2],
) -> Option<(usize, usize)> {
    Some((
        windows(x.height, kernel[0], stride[0], padding[0])?,
        windows(x.width, kernel[1], stride[1], padding[1])?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::{Conv, Window};
    use crate::network::NetworkBuilder;

    fn network() -> Network {
        let mut b = NetworkBuilder::new("tiny", 3);
        let x = b.conv("conv1", b.input(), Conv::square(3, 8, 7, 2));
        let pool = b.layer("maxpool", Op::MaxPool(Window::square(3, 2, 1)), &[x]);
        b.point(PointId::Stem, pool);
        let x = b.conv("conv2", pool, Conv::square(8, 8, 3, 1));
        b.point(PointId::Block(0), x);
        let x = b.conv("conv3", x, Conv::square(8, 8, 3, 2));
        b.layer("avgpool", Op::GlobalAvgPool, &[x]);
        b.finish().unwrap()
    }

    fn sides(network: &Network, input: [usize; 2], instance: &str) -> Vec<(usize, usize)> {
        let shapes = network.shapes(input, instance.parse().unwrap()).unwrap();
        (0..network.layers().len())
            .map(|index| {
                let shape = shapes.passed_on(LayerId(index));
                (shape.height, shape.width)
            })
            .collect()
    }

    #[test]
    fn a_point_shrinks_the_tensors_after_it() {
        let network = network();
        assert_eq!(
            sides(&network, [84, 60], "full"),
            [(84, 60), (42, 30), (21, 15), (21, 15), (11, 8), (1, 1)]
        );
        assert_eq!(
            sides(&network, [84, 60], "0@0.5"),
            [(84, 60), (42, 30), (21, 15), (10, 8), (5, 4), (1, 1)]
        );
        assert_eq!(
            sides(&network, [84, 60], "stem@0.5"),
            [(84, 60), (42, 30), (10, 8), (10, 8), (5, 4), (1, 1)]
        );
        let shapes = network.shapes([84, 60], "0@0.5".parse().unwrap()).unwrap();
        assert_eq!(shapes.computed(LayerId(3)).height, 21);
    }

    #[test]
    fn impossible_inputs_and_points_are_named() {
        let network = network();
        let error = network.shapes([0, 60], Instance::Full).unwrap_err();
        assert!(error.to_string().contains("too small"), "{error}");
        let error = network.shapes([1 << 20, 60], Instance::Full).unwrap_err();
        assert!(error.to_string().contains("16384"), "{error}");
        let error = network
            .shapes([84, 60], "7@0.5".parse().unwrap())
            .unwrap_err();
        assert!(error.to_string().contains("stem, 0"), "{error}");
    }
}

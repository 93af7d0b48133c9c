//! Layers and their operations, as data.

use serde::{Deserialize, Serialize};

/// The index of a layer in its network. The inputs of a layer have smaller ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LayerId(pub usize);

/// A layer of a network: an operation and its inputs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layer {
    /// Unique in its network. Parameters are named after it, as in PyTorch:
    /// `layer1.0.conv1` has `layer1.0.conv1.weight`.
    pub name: String,
    /// The operation.
    pub op: Op,
    /// The layers whose outputs it reads, in order.
    pub inputs: Vec<LayerId>,
}

/// The operation of a layer. Pairs of sizes are height, then width.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
// Not `non_exhaustive`: every reader of networks, in several crates, matches all operations, so that
// the compiler lists what a new one needs (docs/adding-an-operation.md).
pub enum Op {
    /// The input images. A network has exactly one, as its first layer.
    Input {
        /// The number of channels.
        channels: usize,
    },
    /// A convolution.
    Conv(Conv),
    /// Batch normalisation over all images and pixels.
    BatchNorm {
        /// Input and output channels.
        channels: usize,
        /// The constant added to the variance.
        eps: f32,
    },
    /// `max(x, 0)`.
    Relu,
    /// `min(max(x, 0), 6)`.
    Relu6,
    /// Max pooling; padding is ignored.
    MaxPool(Window),
    /// Average pooling; padding counts as zeros.
    AvgPool(Window),
    /// Global average pooling to one pixel.
    GlobalAvgPool,
    /// A fully connected layer on a tensor of one pixel.
    Linear {
        /// Input channels.
        in_features: usize,
        /// Output channels.
        out_features: usize,
        /// Whether it has a bias.
        bias: bool,
    },
    /// The sum of two tensors of the same shape.
    Add,
    /// The concatenation of the inputs along the channels.
    Concat,
}

/// The parameters of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conv {
    /// Input channels, a multiple of `groups`.
    pub in_channels: usize,
    /// Output channels, a multiple of `groups`.
    pub out_channels: usize,
    /// The size of the kernel.
    pub kernel: [usize; 2],
    /// The stride.
    pub stride: [usize; 2],
    /// Zero padding on each side of the input.
    pub padding: [usize; 2],
    /// The number of groups; `in_channels` of them make a depthwise
    /// convolution.
    pub groups: usize,
    /// Whether it has a bias.
    pub bias: bool,
}

/// The parameters of a pooling window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// The size of the window.
    pub kernel: [usize; 2],
    /// The stride.
    pub stride: [usize; 2],
    /// Padding on each side of the input, at most half of the window.
    pub padding: [usize; 2],
}

impl Conv {
    /// A convolution with a square kernel, "same" padding (`kernel / 2`), one
    /// group and no bias.
    pub fn square(in_channels: usize, out_channels: usize, kernel: usize, stride: usize) -> Self {
        Self {
            in_channels,
            out_channels,
            kernel: [kernel; 2],
            stride: [stride; 2],
            padding: [kernel / 2; 2],
            groups: 1,
            bias: false,
        }
    }

    /// The same convolution with `groups` groups.
    pub fn grouped(self, groups: usize) -> Self {
        Self { groups, ..self }
    }

    /// The shape of the weight in PyTorch's layout:
    /// `[out_channels, in_channels / groups, kernel height, kernel width]`.
    pub fn weight_shape(&self) -> [usize; 4] {
        [
            self.out_channels,
            self.in_channels / self.groups,
            self.kernel[0],
            self.kernel[1],
        ]
    }
}

impl Window {
    /// A square window.
    pub fn square(kernel: usize, stride: usize, padding: usize) -> Self {
        Self {
            kernel: [kernel; 2],
            stride: [stride; 2],
            padding: [padding; 2],
        }
    }
}

/// The number of windows along one side, `⌊(size + 2·padding − kernel) / stride⌋ + 1`,
/// or `None` where the kernel does not fit.
pub(crate) fn windows(size: usize, kernel: usize, stride: usize, padding: usize) -> Option<usize> {
    Some((size + 2 * padding).checked_sub(kernel)? / stride + 1)
}

/// For each layer, the index of the last layer that reads its output; its own if
/// none does.
pub(crate) fn last_uses(layers: &[Layer]) -> Vec<usize> {
    let mut last_use: Vec<usize> = (0..layers.len()).collect();
    for (index, layer) in layers.iter().enumerate() {
        for input in &layer.inputs {
            last_use[input.0] = index;
        }
    }
    last_use
}

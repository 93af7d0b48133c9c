//! What a layer computes, as data.

use serde::{Deserialize, Serialize};

/// The place of a layer in its network; a layer's inputs always have smaller ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LayerId(pub usize);

/// One computation of a network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layer {
    /// Unique in its network. Parameters are named after it, as in PyTorch:
    /// `layer1.0.conv1` has `layer1.0.conv1.weight`.
    pub name: String,
    /// What is computed.
    pub op: Op,
    /// The layers whose outputs go in, in order.
    pub inputs: Vec<LayerId>,
}

/// What a layer computes. Sides are given height first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Op {
    /// The images. A network has one, and it comes first.
    Input {
        /// Colour channels.
        channels: usize,
    },
    /// A convolution.
    Conv(Conv),
    /// Batch normalisation over all images and places.
    BatchNorm {
        /// Channels in and out.
        channels: usize,
        /// What is added to the variance.
        eps: f32,
    },
    /// `max(x, 0)`.
    Relu,
    /// The largest value of each window; padding never wins.
    MaxPool(Window),
    /// The mean of each window; padding counts as zeros.
    AvgPool(Window),
    /// The mean over all places, which leaves one cell.
    GlobalAvgPool,
    /// A fully connected layer on a tensor of one cell.
    Linear {
        /// Channels in.
        in_features: usize,
        /// Channels out.
        out_features: usize,
        /// Whether a bias is added.
        bias: bool,
    },
    /// The sum of two tensors of the same shape.
    Add,
    /// The inputs' channels one after another.
    Concat,
}

/// A convolution's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conv {
    /// Channels in, a multiple of `groups`.
    pub in_channels: usize,
    /// Channels out, a multiple of `groups`.
    pub out_channels: usize,
    /// The kernel's sides.
    pub kernel: [usize; 2],
    /// Steps between outputs.
    pub stride: [usize; 2],
    /// Zeros around the input.
    pub padding: [usize; 2],
    /// Groups that see nothing of each other; `in_channels` of them make a
    /// depth-wise convolution.
    pub groups: usize,
    /// Whether a bias is added.
    pub bias: bool,
}

/// A pooling window's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// The window's sides.
    pub kernel: [usize; 2],
    /// Steps between outputs.
    pub stride: [usize; 2],
    /// Padding around the input, at most half of the window.
    pub padding: [usize; 2],
}

impl Conv {
    /// A convolution with a square kernel and "same" padding (`kernel / 2`),
    /// of one group and without bias.
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

    /// The same convolution in groups.
    pub fn grouped(self, groups: usize) -> Self {
        Self { groups, ..self }
    }

    /// The shape of the weight as PyTorch has it:
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

/// For each layer, the last that uses its output; itself if none does.
pub(crate) fn last_uses(layers: &[Layer]) -> Vec<usize> {
    let mut last_use: Vec<usize> = (0..layers.len()).collect();
    for (index, layer) in layers.iter().enumerate() {
        for input in &layer.inputs {
            last_use[input.0] = index;
        }
    }
    last_use
}

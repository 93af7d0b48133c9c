//! ResNets for large images, and the blocks that networks for small images share
//! with them.

use crate::instance::PointId;
use crate::layer::{Conv, LayerId, Op, Window};
use crate::network::{Network, NetworkBuilder, NetworkError};

/// The two kinds of residual block (He et al., arXiv 1512.03385, figure 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Block {
    /// Two 3×3 convolutions; expansion 1.
    Basic,
    /// 1×1, 3×3 and 1×1 convolutions; expansion 4. The 3×3 convolution has the
    /// stride, as in torchvision (ResNet v1.5).
    Bottleneck,
}

impl Block {
    /// The ratio of output channels to the width of a stage.
    pub fn expansion(self) -> usize {
        match self {
            Self::Basic => 1,
            Self::Bottleneck => 4,
        }
    }
}

/// The configuration of a ResNet or ResNeXt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResNetConfig {
    /// The architecture's name.
    pub name: String,
    /// The kind of block.
    pub block: Block,
    /// The number of blocks of each stage. All stages but the first halve the
    /// feature map.
    pub blocks: Vec<usize>,
    /// The channels of the stem and the width of the first stage (64 in the
    /// paper). The width doubles with each stage.
    pub stem_width: usize,
    /// The groups of the blocks' 3×3 convolutions (ResNeXt's cardinality).
    pub groups: usize,
    /// The channels of each group in a stage of width 64. A ResNet has one group
    /// and a base width of 64.
    pub base_width: usize,
    /// The number of classes.
    pub classes: usize,
    /// The channels of the images.
    pub in_channels: usize,
}

impl ResNetConfig {
    /// The width of a stage.
    fn planes(&self, stage: usize) -> usize {
        1usize
            .checked_shl(stage as u32)
            .map_or(usize::MAX, |factor| self.stem_width.saturating_mul(factor))
    }

    /// The output channels of a stage's blocks.
    fn out(&self, stage: usize) -> usize {
        self.planes(stage).saturating_mul(self.block.expansion())
    }

    /// The channels of the 3×3 convolutions of a stage, as in torchvision:
    /// `⌊planes · base_width / 64⌋ · groups`.
    fn inner(&self, stage: usize) -> usize {
        (self.planes(stage).saturating_mul(self.base_width) / 64).saturating_mul(self.groups)
    }
}

/// Builds a post-activation ResNet or ResNeXt, in which each block ends in a
/// ReLU, with torchvision's parameter names.
///
/// The stem's point is the max pool. A block's point is its residual sum, before
/// the final ReLU.
///
/// # Errors
/// If the configuration is invalid, such as a width of zero.
pub fn post_activation(config: &ResNetConfig) -> Result<Network, NetworkError> {
    let mut b = NetworkBuilder::new(&config.name, config.in_channels);
    let x = large_stem(&mut b, config);
    let (x, channels) = post_activation_stages(&mut b, x, config);
    head(&mut b, x, channels, config.classes);
    b.finish()
}

/// Builds a pre-activation ResNet for large images (He et al., arXiv
/// 1603.05027) in the variant of the authors of stochastic downsampling: the
/// stem has batch norm and ReLU, and a shortcut's convolution is followed by
/// batch norm and shares the block's first batch norm and ReLU with the residual
/// branch.
///
/// The stem's point is the max pool. A block's point is its residual sum.
///
/// # Errors
/// If the configuration is invalid, such as a width of zero.
pub fn pre_activation(config: &ResNetConfig) -> Result<Network, NetworkError> {
    let mut b = NetworkBuilder::new(&config.name, config.in_channels);
    let mut x = large_stem(&mut b, config);
    let mut channels = config.stem_width;
    let mut point = 0;
    for (stage, &blocks) in config.blocks.iter().enumerate() {
        for index in 0..blocks {
            let name = format!("layer{}.{index}", stage + 1);
            let stride = if stage > 0 && index == 0 { 2 } else { 1 };
            let convs = branch(config, stage, channels, stride);
            let y = b.batch_norm(format!("{name}.bn1"), x, channels);
            let active = b.relu(format!("{name}.relu1"), y);
            let mut y = b.conv(format!("{name}.conv1"), active, convs[0]);
            for (i, conv) in (2..).zip(&convs[1..]) {
                y = b.batch_norm(format!("{name}.bn{i}"), y, conv.in_channels);
                y = b.relu(format!("{name}.relu{i}"), y);
                y = b.conv(format!("{name}.conv{i}"), y, *conv);
            }
            let out = config.out(stage);
            let shortcut = if stride == 1 && channels == out {
                x
            } else {
                projection(&mut b, &name, active, channels, out, stride)
            };
            x = b.add(format!("{name}.add"), y, shortcut);
            b.point(PointId::Block(point), x);
            point += 1;
            channels = out;
        }
    }
    let x = b.batch_norm("bn2", x, channels);
    let x = b.relu("relu2", x);
    head(&mut b, x, channels, config.classes);
    b.finish()
}

/// Adds the stages of [`post_activation`] after the stem's output `x`, with a
/// point at each block. Returns the output and its channels.
pub(super) fn post_activation_stages(
    b: &mut NetworkBuilder,
    mut x: LayerId,
    config: &ResNetConfig,
) -> (LayerId, usize) {
    let mut channels = config.stem_width;
    let mut point = 0;
    for (stage, &blocks) in config.blocks.iter().enumerate() {
        for index in 0..blocks {
            let name = format!("layer{}.{index}", stage + 1);
            let stride = if stage > 0 && index == 0 { 2 } else { 1 };
            let convs = branch(config, stage, channels, stride);
            let mut y = x;
            for (i, conv) in (1..).zip(&convs) {
                y = b.conv(format!("{name}.conv{i}"), y, *conv);
                y = b.batch_norm(format!("{name}.bn{i}"), y, conv.out_channels);
                if i < convs.len() {
                    y = b.relu(format!("{name}.relu{i}"), y);
                }
            }
            let out = config.out(stage);
            let shortcut = if stride == 1 && channels == out {
                x
            } else {
                projection(b, &name, x, channels, out, stride)
            };
            let sum = b.add(format!("{name}.add"), y, shortcut);
            b.point(PointId::Block(point), sum);
            x = b.relu(format!("{name}.relu"), sum);
            point += 1;
            channels = out;
        }
    }
    (x, channels)
}

/// Adds global average pooling and the classifier `fc`.
pub(super) fn head(b: &mut NetworkBuilder, x: LayerId, channels: usize, classes: usize) {
    let x = b.layer("avgpool", Op::GlobalAvgPool, &[x]);
    let op = Op::Linear {
        in_features: channels,
        out_features: classes,
        bias: true,
    };
    b.layer("fc", op, &[x]);
}

/// Adds the stem, a 7×7 convolution and a max pool with stride 2 each, and its
/// point.
fn large_stem(b: &mut NetworkBuilder, config: &ResNetConfig) -> LayerId {
    let width = config.stem_width;
    let x = b.conv(
        "conv1",
        b.input(),
        Conv::square(config.in_channels, width, 7, 2),
    );
    let x = b.batch_norm("bn1", x, width);
    let x = b.relu("relu", x);
    let x = b.layer("maxpool", Op::MaxPool(Window::square(3, 2, 1)), &[x]);
    b.point(PointId::Stem, x);
    x
}

/// The convolutions of a block's residual branch.
fn branch(config: &ResNetConfig, stage: usize, channels: usize, stride: usize) -> Vec<Conv> {
    let inner = config.inner(stage);
    let out = config.out(stage);
    match config.block {
        Block::Basic => vec![
            Conv::square(channels, inner, 3, stride).grouped(config.groups),
            Conv::square(inner, out, 3, 1).grouped(config.groups),
        ],
        Block::Bottleneck => vec![
            Conv::square(channels, inner, 1, 1),
            Conv::square(inner, inner, 3, stride).grouped(config.groups),
            Conv::square(inner, out, 1, 1),
        ],
    }
}

/// Adds the projection shortcut of a block that changes the shape: a 1×1
/// convolution with batch norm.
fn projection(
    b: &mut NetworkBuilder,
    name: &str,
    x: LayerId,
    channels: usize,
    out: usize,
    stride: usize,
) -> LayerId {
    let x = b.conv(
        format!("{name}.downsample.0"),
        x,
        Conv::square(channels, out, 1, stride),
    );
    b.batch_norm(format!("{name}.downsample.1"), x, out)
}

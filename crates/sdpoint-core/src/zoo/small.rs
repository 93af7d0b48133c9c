//! Networks for small images such as CIFAR's: a 3×3 stem without max pool, and
//! three stages.

use super::resnet::{Block, ResNetConfig, head, post_activation_stages};
use crate::instance::PointId;
use crate::layer::Conv;
use crate::network::{Network, NetworkBuilder, NetworkError};

/// The configuration of a pre-activation ResNet or Wide ResNet for small images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WideResNetConfig {
    /// The architecture's name.
    pub name: String,
    /// The number of blocks in each of the three stages.
    pub blocks: usize,
    /// The channels of the stem; 16 in the papers.
    pub width: usize,
    /// The width factor (the paper's k): the first stage has `width · widen`
    /// channels, and each further stage twice as many. With 1, the network is
    /// a pre-activation ResNet.
    pub widen: usize,
    /// The number of classes.
    pub classes: usize,
    /// The channels of the images.
    pub in_channels: usize,
}

/// Builds a pre-activation ResNet (He et al., arXiv 1603.05027) or Wide ResNet
/// (Zagoruyko and Komodakis, arXiv 1605.07146) of basic blocks.
///
/// Where the shape changes, the shortcut is a 1×1 convolution that shares
/// the block's first batch norm and ReLU with the residual branch. Blocks are
/// numbered consecutively over all stages: `blocks.0`, `blocks.1`, … The points
/// are their residual sums.
///
/// # Errors
/// If the configuration is invalid, such as a width of zero.
pub fn wide_resnet(config: &WideResNetConfig) -> Result<Network, NetworkError> {
    let mut b = NetworkBuilder::new(&config.name, config.in_channels);
    let mut x = b.conv(
        "conv1",
        b.input(),
        Conv::square(config.in_channels, config.width, 3, 1),
    );
    let mut channels = config.width;
    for block in 0..3 * config.blocks {
        let (stage, index) = (block / config.blocks, block % config.blocks);
        let widen = config.widen.saturating_mul(1 << stage);
        let out = config.width.saturating_mul(widen);
        let stride = if stage > 0 && index == 0 { 2 } else { 1 };
        let name = format!("blocks.{block}");
        let y = b.batch_norm(format!("{name}.bn1"), x, channels);
        let active = b.relu(format!("{name}.relu1"), y);
        let y = b.conv(
            format!("{name}.conv1"),
            active,
            Conv::square(channels, out, 3, stride),
        );
        let y = b.batch_norm(format!("{name}.bn2"), y, out);
        let y = b.relu(format!("{name}.relu2"), y);
        let y = b.conv(format!("{name}.conv2"), y, Conv::square(out, out, 3, 1));
        let shortcut = if stride == 1 && channels == out {
            x
        } else {
            let conv = Conv::square(channels, out, 1, stride);
            b.conv(format!("{name}.shortcut"), active, conv)
        };
        x = b.add(format!("{name}.add"), y, shortcut);
        b.point(PointId::Block(block), x);
        channels = out;
    }
    let x = b.batch_norm("bn", x, channels);
    let x = b.relu("relu", x);
    head(&mut b, x, channels, config.classes);
    b.finish()
}

/// Builds the ResNeXt-29 for CIFAR (Xie et al., arXiv 1611.05431): three stages
/// of three bottlenecks, with `groups` groups of `width` channels in the first
/// stage. The points are the blocks' residual sums, before the final ReLU.
///
/// # Errors
/// If the configuration is invalid, such as a width of zero.
pub fn resnext29(
    name: impl Into<String>,
    groups: usize,
    width: usize,
    classes: usize,
    in_channels: usize,
) -> Result<Network, NetworkError> {
    let config = ResNetConfig {
        name: name.into(),
        block: Block::Bottleneck,
        blocks: vec![3; 3],
        stem_width: 64,
        groups,
        base_width: width,
        classes,
        in_channels,
    };
    let mut b = NetworkBuilder::new(&config.name, in_channels);
    let x = b.conv("conv1", b.input(), Conv::square(in_channels, 64, 3, 1));
    let x = b.batch_norm("bn1", x, 64);
    let x = b.relu("relu", x);
    let (x, channels) = post_activation_stages(&mut b, x, &config);
    head(&mut b, x, channels, classes);
    b.finish()
}

//! MobileNetV2 (Sandler et al., arXiv 1801.04381).

use crate::instance::PointId;
use crate::layer::{Conv, LayerId, Op};
use crate::network::{Network, NetworkBuilder, NetworkError};

/// The stages of the paper's table 2: expansion, output channels, blocks, and
/// the stride of the first block.
const STAGES: [(usize, usize, usize, usize); 7] = [
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
];

/// Channels of the first convolution.
const STEM: usize = 32;

/// Channels of the last convolution.
const LAST: usize = 1280;

/// MobileNetV2 of width 1 with torchvision's parameter names.
///
/// Its points are the ends of its residual blocks, on their sums, numbered
/// from 0. Blocks that change the shape have no shortcut and no point, and
/// there is no max pool, so no stem's point either.
///
/// # Errors
/// If the numbers of classes or colours make no network.
pub fn mobilenet_v2(
    name: &str,
    classes: usize,
    in_channels: usize,
) -> Result<Network, NetworkError> {
    let mut b = NetworkBuilder::new(name, in_channels);
    let stem = Conv::square(in_channels, STEM, 3, 2);
    let input = b.input();
    let mut x = conv_norm_relu6(&mut b, "features.0", input, stem);
    let mut channels = STEM;
    let mut place = 1;
    let mut point = 0;
    for (expansion, out, blocks, first_stride) in STAGES {
        for index in 0..blocks {
            let stride = if index == 0 { first_stride } else { 1 };
            let block = Block {
                channels,
                expansion,
                out,
                stride,
            };
            let name = format!("features.{place}");
            let y = block.branch(&mut b, &name, x);
            x = if stride == 1 && channels == out {
                let sum = b.add(format!("{name}.add"), x, y);
                b.point(PointId::Block(point), sum);
                point += 1;
                sum
            } else {
                y
            };
            channels = out;
            place += 1;
        }
    }
    let last = Conv::square(channels, LAST, 1, 1);
    let x = conv_norm_relu6(&mut b, &format!("features.{place}"), x, last);
    let x = b.layer("avgpool", Op::GlobalAvgPool, &[x]);
    let classifier = Op::Linear {
        in_features: LAST,
        out_features: classes,
        bias: true,
    };
    b.layer("classifier.1", classifier, &[x]);
    b.finish()
}

/// An inverted residual block: 1×1 to more channels, depthwise 3×3, 1×1 back.
struct Block {
    channels: usize,
    expansion: usize,
    out: usize,
    stride: usize,
}

impl Block {
    /// The residual branch, which ends in a batch norm without activation.
    fn branch(&self, b: &mut NetworkBuilder, name: &str, x: LayerId) -> LayerId {
        let inner = self.channels * self.expansion;
        let depthwise = Conv::square(inner, inner, 3, self.stride).grouped(inner);
        let (mut x, mut place) = (x, 0);
        if self.expansion != 1 {
            let expand = Conv::square(self.channels, inner, 1, 1);
            x = conv_norm_relu6(b, &format!("{name}.conv.{place}"), x, expand);
            place += 1;
        }
        x = conv_norm_relu6(b, &format!("{name}.conv.{place}"), x, depthwise);
        let project = Conv::square(inner, self.out, 1, 1);
        x = b.conv(format!("{name}.conv.{}", place + 1), x, project);
        b.batch_norm(format!("{name}.conv.{}", place + 2), x, self.out)
    }
}

/// A convolution, batch norm and ReLU6, numbered as in torchvision.
fn conv_norm_relu6(b: &mut NetworkBuilder, name: &str, x: LayerId, conv: Conv) -> LayerId {
    let x = b.conv(format!("{name}.0"), x, conv);
    let x = b.batch_norm(format!("{name}.1"), x, conv.out_channels);
    b.relu6(format!("{name}.2"), x)
}

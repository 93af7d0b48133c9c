//! The recorded checkpoints and the network that they are of.

#![allow(dead_code)] // Each test file uses a part.

pub mod archive;
pub mod oracle;

use std::path::{Path, PathBuf};

use sdpoint_core::{Conv, LayerId, Network, NetworkBuilder, Op, PointId, Window};

/// The recorded network in each format.
pub const CHECKPOINTS: [&str; 6] = [
    "channels_last.pth",
    "protocol5.pt",
    "bfloat16.pt",
    "checkpoint.pth.tar",
    "float64.legacy.pth",
    "float16.safetensors",
];

/// The recorded network beside other things, or as another object.
pub const OTHERS: [&str; 15] = [
    "arrays.pkl",
    "arrays.pth",
    "attributes.pth",
    "big_endian.pkl",
    "big_endian.pth",
    "ema.pth",
    "lightning.ckpt",
    "module.pth",
    "parts.pth",
    "protocol0.legacy.pth",
    "protocol0.pth",
    "script.pt",
    "sparse.pth",
    "state.pkl",
    "variants.pth",
];

pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

/// The network of `tests/peers/record_fixtures.py`, for any number of classes.
pub fn tiny() -> Network {
    let mut b = NetworkBuilder::new("tiny", 3);
    let x = b.conv("conv1", b.input(), Conv::square(3, 2, 7, 2));
    let x = b.batch_norm("bn1", x, 2);
    let x = b.relu("relu", x);
    let mut x = b.layer("maxpool", Op::MaxPool(Window::square(3, 2, 1)), &[x]);
    b.point(PointId::Stem, x);
    let mut before = 2;
    for (stage, width) in [2, 4, 4, 8].into_iter().enumerate() {
        x = block(&mut b, x, stage, before, width);
        before = width;
    }
    let x = b.layer("avgpool", Op::GlobalAvgPool, &[x]);
    let op = Op::Linear {
        in_features: before,
        out_features: 1,
        bias: true,
    };
    b.layer("fc", op, &[x]);
    b.finish().unwrap()
}

fn block(b: &mut NetworkBuilder, x: LayerId, stage: usize, before: usize, width: usize) -> LayerId {
    let name = format!("layer{}.0", stage + 1);
    let stride = if stage == 0 { 1 } else { 2 };
    let y = b.conv(
        format!("{name}.conv1"),
        x,
        Conv::square(before, width, 3, stride),
    );
    let y = b.batch_norm(format!("{name}.bn1"), y, width);
    let y = b.relu(format!("{name}.relu1"), y);
    let y = b.conv(format!("{name}.conv2"), y, Conv::square(width, width, 3, 1));
    let y = b.batch_norm(format!("{name}.bn2"), y, width);
    let shortcut = if before == width && stride == 1 {
        x
    } else {
        let conv = Conv::square(before, width, 1, stride);
        let x = b.conv(format!("{name}.downsample.0"), x, conv);
        b.batch_norm(format!("{name}.downsample.1"), x, width)
    };
    let sum = b.add(format!("{name}.add"), y, shortcut);
    b.point(PointId::Block(stage), sum);
    b.relu(format!("{name}.relu"), sum)
}

//! Single convolutions on one thread; an item is a floating-point operation.
//!
//! `cargo bench -p sdpoint-kernels --bench conv -- [FILTER]`, where FILTER is a part of a name
//! such as `forward`, `k7` or `forward.*s1 g1`.

use std::fmt;
use std::num::NonZeroUsize;

use divan::Bencher;
use divan::counter::ItemsCount;
use sdpoint_kernels::{
    Context, ConvGeometry, ConvShape, Epilogue, PackedConv, PackedConvTranspose,
    conv_backward_data, conv_backward_weights, conv_forward,
};

fn main() {
    divan::main();
}

/// A layer on a batch of square images.
struct Layer {
    batch: usize,
    side: usize,
    channels: [usize; 2],
    kernel: usize,
    stride: usize,
    groups: usize,
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Layer {
            batch,
            side,
            channels: [i, o],
            kernel,
            stride,
            groups,
        } = self;
        write!(
            f,
            "{batch}x{side}x{side} {i}-{o} k{kernel} s{stride} g{groups}"
        )
    }
}

impl Layer {
    fn shape(&self) -> ConvShape {
        let geometry = ConvGeometry {
            in_channels: self.channels[0],
            out_channels: self.channels[1],
            kernel: [self.kernel; 2],
            stride: [self.stride; 2],
            padding: [self.kernel / 2; 2],
            groups: self.groups,
        };
        ConvShape {
            geometry,
            batch: self.batch,
            in_height: self.side,
            in_width: self.side,
        }
    }
}

fn layers() -> impl Iterator<Item = Layer> {
    [
        (8, 32, [16, 16], 3, 1, 1),
        (8, 32, [16, 32], 3, 2, 1),
        (8, 16, [32, 32], 3, 1, 1),
        (8, 8, [64, 64], 3, 1, 1),
        (1, 224, [3, 64], 7, 2, 1),
        (1, 56, [64, 64], 3, 1, 1),
        (1, 56, [64, 256], 1, 1, 1),
        (1, 14, [1024, 256], 1, 1, 1),
        (1, 7, [512, 512], 3, 1, 1),
        (1, 28, [256, 256], 3, 1, 32),
        (1, 56, [128, 128], 3, 1, 128),
    ]
    .into_iter()
    .map(|(batch, side, channels, kernel, stride, groups)| Layer {
        batch,
        side,
        channels,
        kernel,
        stride,
        groups,
    })
}

fn context() -> Context {
    Context::new(NonZeroUsize::new(1)).expect("a context")
}

fn values(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i % 17) as f32 * 0.1 - 0.8).collect()
}

#[divan::bench(args = layers(), sample_count = 30)]
fn forward(bencher: Bencher<'_, '_>, layer: &Layer) {
    let (ctx, shape) = (context(), layer.shape());
    let (x, mut y) = (values(shape.input_len()), values(shape.output_len()));
    let w = PackedConv::new(&ctx, shape.geometry, &values(shape.weight_len()));
    bencher
        .counter(ItemsCount::new(2 * shape.macs()))
        .bench_local(|| conv_forward(&ctx, &shape, &x, &w, Epilogue::default(), &mut y));
}

#[divan::bench(args = layers(), sample_count = 30)]
fn backward_data(bencher: Bencher<'_, '_>, layer: &Layer) {
    let (ctx, shape) = (context(), layer.shape());
    let (dy, mut dx) = (values(shape.output_len()), values(shape.input_len()));
    let w = PackedConvTranspose::new(&ctx, shape.geometry, &values(shape.weight_len()));
    bencher
        .counter(ItemsCount::new(2 * shape.macs()))
        .bench_local(|| conv_backward_data(&ctx, &shape, &dy, &w, &mut dx, false));
}

#[divan::bench(args = layers(), sample_count = 30)]
fn backward_weights(bencher: Bencher<'_, '_>, layer: &Layer) {
    let (ctx, shape) = (context(), layer.shape());
    let (x, dy) = (values(shape.input_len()), values(shape.output_len()));
    let mut dw = values(shape.weight_len());
    bencher
        .counter(ItemsCount::new(2 * shape.macs()))
        .bench_local(|| conv_backward_weights(&ctx, &shape, &x, &dy, &mut dw, false));
}

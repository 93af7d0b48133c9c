//! Prints the speed of all passes of convolutions for the layers of common networks, and their
//! share of the machine's peak, measured with multiply-adds on registers. The epilogue of forward
//! passes is scale, shift and ReLU, as in networks.
//!
//! `cargo run --release -p sdpoint-kernels --example conv_gflops -- [THREADS] [FILTER] [BATCH]`
//!
//! BATCH replaces the batch sizes; small ones are less sensitive to other programs. With COLD in
//! the environment, caches are evicted between runs.

use std::num::NonZeroUsize;
use std::time::Instant;

use sdpoint_kernels::{
    Activation, Context, ConvGeometry, ConvShape, Epilogue, PackedConv, PackedConvTranspose,
    conv_backward_data, conv_backward_weights, conv_forward, peak_gflops,
};

/// Name, batch, input side, channels in and out, kernel, stride, groups.
type Layer = (&'static str, usize, usize, [usize; 2], usize, usize, usize);

const LAYERS: &[Layer] = &[
    ("cifar stem", 128, 32, [3, 16], 3, 1, 1),
    ("cifar 3x3", 128, 32, [16, 16], 3, 1, 1),
    ("cifar 3x3/2", 128, 32, [16, 32], 3, 2, 1),
    ("cifar 1x1/2", 128, 32, [16, 32], 1, 2, 1),
    ("cifar 3x3", 128, 16, [32, 32], 3, 1, 1),
    ("cifar 3x3/2", 128, 16, [32, 64], 3, 2, 1),
    ("cifar 3x3", 128, 8, [64, 64], 3, 1, 1),
    ("wrn 1x1", 128, 32, [16, 64], 1, 1, 1),
    ("wrn 3x3", 128, 32, [64, 64], 3, 1, 1),
    ("wrn 3x3", 128, 16, [128, 128], 3, 1, 1),
    ("wrn 3x3", 128, 8, [256, 256], 3, 1, 1),
    ("stem 7x7/2", 1, 224, [3, 64], 7, 2, 1),
    ("resnet 3x3", 1, 56, [64, 64], 3, 1, 1),
    ("resnet 3x3", 1, 28, [128, 128], 3, 1, 1),
    ("resnet 3x3", 1, 14, [256, 256], 3, 1, 1),
    ("resnet 3x3", 1, 7, [512, 512], 3, 1, 1),
    ("resnet 3x3/2", 1, 56, [128, 128], 3, 2, 1),
    ("resnet 1x1", 1, 56, [64, 256], 1, 1, 1),
    ("resnet 1x1", 1, 56, [256, 64], 1, 1, 1),
    ("resnet 1x1", 1, 28, [128, 512], 1, 1, 1),
    ("resnet 1x1", 1, 28, [512, 128], 1, 1, 1),
    ("resnet 1x1", 1, 14, [256, 1024], 1, 1, 1),
    ("resnet 1x1", 1, 14, [1024, 256], 1, 1, 1),
    ("resnet 1x1", 1, 7, [512, 2048], 1, 1, 1),
    ("resnet 1x1", 1, 7, [2048, 512], 1, 1, 1),
    ("resnet 1x1/2", 1, 56, [256, 512], 1, 2, 1),
    ("resnext 1x1", 1, 28, [256, 512], 1, 1, 1),
    ("resnext 1x1", 1, 14, [1024, 512], 1, 1, 1),
    ("resnext 1x1", 1, 14, [512, 1024], 1, 1, 1),
    ("resnext 1x1", 1, 7, [2048, 1024], 1, 1, 1),
    ("resnet 3x3 b8", 8, 7, [512, 512], 3, 1, 1),
    ("resnet 3x3 b32", 32, 56, [64, 64], 3, 1, 1),
    ("resnet 3x3 b32", 32, 28, [128, 128], 3, 1, 1),
    ("resnet 3x3 b32", 32, 14, [256, 256], 3, 1, 1),
    ("resnet 3x3 b32", 32, 7, [512, 512], 3, 1, 1),
    ("resnext 3x3 g32", 1, 56, [128, 128], 3, 1, 32),
    ("resnext 3x3 g32", 1, 28, [256, 256], 3, 1, 32),
    ("resnext 3x3 g32", 1, 14, [512, 512], 3, 1, 32),
    ("resnext 3x3 g32", 1, 7, [1024, 1024], 3, 1, 32),
    ("resnext 3x3/2 g32", 1, 56, [256, 256], 3, 2, 32),
    ("depthwise 3x3", 1, 56, [128, 128], 3, 1, 128),
];

fn main() {
    let mut args = std::env::args().skip(1);
    let threads = args
        .next()
        .and_then(|n| n.parse().ok())
        .and_then(NonZeroUsize::new);
    let filter = args.next().unwrap_or_default();
    let ctx = Context::new(threads).expect("a context");
    let batch_size: Option<usize> = args.next().and_then(|n| n.parse().ok());
    let peak = peak_gflops(&ctx);
    println!(
        "{} on {} threads, peak {peak:.0} GFLOP/s",
        ctx.isa(),
        ctx.threads()
    );
    println!(
        "{:40} {:>16} {:>16} {:>16}",
        "layer", "forward", "to data", "to weights"
    );
    for &(name, batch, side, [in_channels, out_channels], kernel, stride, groups) in LAYERS {
        let batch = batch_size.unwrap_or(batch);
        let geometry = ConvGeometry {
            in_channels,
            out_channels,
            kernel: [kernel; 2],
            stride: [stride; 2],
            padding: [kernel / 2; 2],
            groups,
        };
        let shape = ConvShape {
            geometry,
            batch,
            in_height: side,
            in_width: side,
        };
        let label = format!("{name} {batch}x{side}x{side} {in_channels}->{out_channels}");
        if !label.contains(&filter) {
            continue;
        }
        let fill = |len: usize| {
            (0..len)
                .map(|i| (i % 17) as f32 * 0.1 - 0.8)
                .collect::<Vec<_>>()
        };
        let (x, w, dy) = (
            fill(shape.input_len()),
            fill(shape.weight_len()),
            fill(shape.output_len()),
        );
        let (mut y, mut dx, mut dw) = (dy.clone(), x.clone(), w.clone());
        let (scale, shift) = (vec![0.5; out_channels], vec![0.1; out_channels]);
        let packed = PackedConv::new(&ctx, geometry, &w);
        let transpose = PackedConvTranspose::new(&ctx, geometry, &w);
        let cell = |f: &mut dyn FnMut()| {
            let gflops = 2e-9 * shape.macs() as f64 / fastest(f);
            format!("{gflops:7.1} {:5.1} %", 100.0 * gflops / peak)
        };
        let forward = cell(&mut || {
            let epilogue = Epilogue {
                scale: Some(&scale),
                shift: Some(&shift),
                activation: Activation::Relu,
                ..Epilogue::default()
            };
            conv_forward(&ctx, &shape, &x, &packed, epilogue, &mut y);
        });
        let data = cell(&mut || {
            conv_backward_data(&ctx, &shape, &dy, &transpose, &mut dx, false);
        });
        let weights = cell(&mut || {
            conv_backward_weights(&ctx, &shape, &x, &dy, &mut dw, false);
        });
        println!("{label:40} {forward:>16} {data:>16} {weights:>16}");
    }
}

/// The fastest of several runs, in seconds.
fn fastest(f: &mut dyn FnMut()) -> f64 {
    let start = Instant::now();
    let mut best = f64::INFINITY;
    let mut junk = vec![
        1.0f32;
        if std::env::var("COLD").is_ok() {
            16 << 20
        } else {
            0
        }
    ];
    for run in 0.. {
        for x in &mut junk {
            *x += 1.0;
        }
        let begin = Instant::now();
        f();
        best = best.min(begin.elapsed().as_secs_f64());
        if run >= 3 && start.elapsed().as_secs_f64() > 0.3 {
            break;
        }
    }
    best
}

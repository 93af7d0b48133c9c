//! Prints the memory bandwidth of the kernels that are bound by it, next to that of a plain copy:
//! gigabytes per second that each must read and write, the median of several runs.
//!
//! `cargo run --release -p sdpoint-kernels --example bandwidth -- [THREADS]`

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use sdpoint_kernels::pool::{self, PoolAxis, PoolGeometry};
use sdpoint_kernels::{Activation, Context, elementwise, norm, optimizer};

/// Batch, input side and channels.
const SHAPES: [(usize, usize, usize); 6] = [
    (128, 32, 16),
    (128, 8, 64),
    (32, 56, 64),
    (32, 7, 2048),
    (1, 112, 64),
    (128, 32, 40),
];

fn main() {
    let threads = std::env::args().nth(1).and_then(|n| n.parse().ok());
    let ctx = Context::new(threads.and_then(NonZeroUsize::new)).expect("a context");
    println!("{}, {} threads", ctx.isa(), ctx.threads());
    for (batch, side, channels) in SHAPES {
        let len = batch * side * side * channels;
        let megabytes = 4e-6 * len as f64;
        println!("\n{batch} x {side} x {side} x {channels}, {megabytes:.1} MB");
        whole_arrays(&ctx, len, channels);
        let halves = || PoolAxis::adaptive(side, (side / 2).max(1));
        let strides = || PoolAxis::sliding(side, 3, 2, 1);
        for (name, axis) in [("adaptive", halves()), ("3x3/2", strides())] {
            let geometry = PoolGeometry {
                batch,
                channels,
                height: axis.clone(),
                width: axis,
            };
            pooling(&ctx, name, &geometry);
        }
    }
}

fn whole_arrays(ctx: &Context, len: usize, channels: usize) {
    let x = values(len);
    let mut y = values(len);
    let (ones, mut a, mut b) = (
        vec![1.0; channels],
        vec![0.0; channels],
        vec![0.0; channels],
    );
    report("copy, one thread", 2 * len, || y.copy_from_slice(&x));
    report("relu", 2 * len, || {
        elementwise::activate(ctx, Activation::Relu, &x, &mut y);
    });
    report("accumulate", 3 * len, || {
        elementwise::accumulate(ctx, &x, &mut y);
    });
    report("statistics", len, || {
        norm::batch_statistics(ctx, &x, channels, &mut a, &mut b);
    });
    report("scale, shift, relu", 2 * len, || {
        norm::scale_shift(ctx, &x, &ones, &ones, Activation::Relu, &mut y);
    });
    let dy = values(len);
    report("batch norm backward", 6 * len, || {
        let inputs = norm::BackwardInputs {
            x: &x,
            dy: &dy,
            gamma: &ones,
            beta: &ones,
            mean: &ones,
            invstd: &ones,
            activation: Activation::Relu,
            skip_grad: Some(&dy),
        };
        let gradients = norm::BackwardGradients {
            dgamma: &mut a,
            dbeta: &mut b,
            dx: &mut y,
        };
        norm::batch_norm_backward(ctx, inputs, gradients);
    });
    let sgd = optimizer::SgdUpdate {
        lr: 0.0,
        momentum: 0.9,
        weight_decay: 0.0,
        nesterov: true,
    };
    let mut buffer = values(len);
    report("sgd", 5 * len, || {
        optimizer::sgd_step(ctx, sgd, &mut y, &x, &mut buffer);
    });
}

fn pooling(ctx: &Context, windows: &str, geometry: &PoolGeometry) {
    let (input, output) = (geometry.input_len(), geometry.output_len());
    let (x, mut y) = (values(input), values(output));
    let mut dx = values(input);
    let mut indices = vec![0; output];
    report(&format!("average {windows}"), input + output, || {
        pool::average_pool(ctx, geometry, &x, &mut y);
    });
    report(&format!("average {windows} back"), input + output, || {
        pool::average_pool_backward(ctx, geometry, &y, false, &mut dx);
    });
    report(&format!("max {windows}"), input + output, || {
        pool::max_pool(ctx, geometry, &x, &mut y);
    });
    report(
        &format!("max {windows} indices"),
        input + 2 * output,
        || {
            pool::max_pool_with_indices(ctx, geometry, &x, &mut y, &mut indices);
        },
    );
    report(&format!("max {windows} back"), input + 2 * output, || {
        pool::max_pool_backward(ctx, geometry, &y, &indices, false, &mut dx);
    });
}

fn values(len: usize) -> Vec<f32> {
    (0..len)
        .map(|i| (i * 7919 % 1000) as f32 * 1e-3 - 0.5)
        .collect()
}

fn report(name: &str, floats: usize, mut run: impl FnMut()) {
    run();
    let start = Instant::now();
    let mut seconds = Vec::new();
    while seconds.len() < 5 || start.elapsed() < Duration::from_millis(200) {
        let start = Instant::now();
        run();
        seconds.push(start.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    let median = seconds[seconds.len() / 2];
    let speed = 4e-9 * floats as f64 / median;
    println!("  {name:24} {:9.1} us {speed:7.1} GB/s", median * 1e6);
}

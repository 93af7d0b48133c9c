//! Convolutions compared with naive sums in f64, on every instruction set, with one and two threads.

mod algorithms;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use chacha20::ChaCha8Rng;
use rand::{Rng, RngExt, SeedableRng};

use sdpoint_kernels::*;

/// For each instruction set, a context with one thread and one with two.
fn contexts() -> Vec<[Context; 2]> {
    contexts_forcing(None)
}

/// The same with an algorithm forced, if one is given.
fn contexts_forcing(algorithm: Option<ConvAlgorithm>) -> Vec<[Context; 2]> {
    let context = |isa, n| {
        let context = Context::with_isa(NonZeroUsize::new(n), isa).unwrap();
        match algorithm {
            Some(algorithm) => context.forcing(algorithm),
            None => context,
        }
    };
    Isa::available()
        .into_iter()
        .map(|isa| [context(isa, 1), context(isa, 2)])
        .collect()
}

fn random(rng: &mut impl Rng, len: usize) -> Vec<f32> {
    (0..len).map(|_| rng.random_range(-1.0..1.0)).collect()
}

/// Calls `f(output, input, weight)` with the indices of every product of the convolution.
fn for_each_product(shape: &ConvShape, mut f: impl FnMut(usize, usize, usize)) {
    let g = &shape.geometry;
    let [group_in, group_out] = [g.in_channels, g.out_channels].map(|channels| channels / g.groups);
    let [kh, kw] = g.kernel;
    let (out_height, out_width) = (shape.out_height(), shape.out_width());
    let position = |out: usize, k: usize, axis: usize, size: usize| {
        (out * g.stride[axis] + k)
            .checked_sub(g.padding[axis])
            .filter(|&i| i < size)
    };
    for (n, oy, ox) in (0..shape.batch)
        .flat_map(|n| (0..out_height).map(move |y| (n, y)))
        .flat_map(|(n, y)| (0..out_width).map(move |x| (n, y, x)))
    {
        for (ky, kx) in (0..kh).flat_map(|ky| (0..kw).map(move |kx| (ky, kx))) {
            let Some(iy) = position(oy, ky, 0, shape.in_height) else {
                continue;
            };
            let Some(ix) = position(ox, kx, 1, shape.in_width) else {
                continue;
            };
            let y = ((n * out_height + oy) * out_width + ox) * g.out_channels;
            let x = ((n * shape.in_height + iy) * shape.in_width + ix) * g.in_channels;
            for oc in 0..g.out_channels {
                for ic in 0..group_in {
                    let w = ((oc * group_in + ic) * kh + ky) * kw + kx;
                    f(y + oc, x + oc / group_out * group_in + ic, w);
                }
            }
        }
    }
}

/// Compares with a reference whose terms have absolute sums `scale`.
fn assert_close(what: &str, got: &[f32], expected: &[f64], scale: &[f64]) {
    for (i, ((&got, &expected), &scale)) in got.iter().zip(expected).zip(scale).enumerate() {
        let error = (f64::from(got) - expected).abs();
        assert!(
            error <= 2e-6 * (1.0 + scale),
            "{what} at {i}: {got} instead of {expected}"
        );
    }
}

/// Random operands of a shape's passes, and their results in f64 with the absolute sums of their
/// terms.
struct Reference {
    shape: ConvShape,
    x: Vec<f32>,
    w: Vec<f32>,
    dy: Vec<f32>,
    /// The initial content that gradients are added to.
    starts: [Vec<f32>; 2],
    y: [Vec<f64>; 2],
    dx: [Vec<f64>; 2],
    dw: [Vec<f64>; 2],
}

impl Reference {
    fn new(shape: ConvShape) -> Self {
        let rng = &mut ChaCha8Rng::seed_from_u64(7);
        let x = random(rng, shape.input_len());
        let w = random(rng, shape.weight_len());
        let dy = random(rng, shape.output_len());
        let starts = [x.len(), w.len()].map(|len| random(rng, len));
        let f64s = |xs: &[f32]| xs.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
        let abs = |xs: &[f32]| xs.iter().map(|&x| f64::from(x).abs()).collect::<Vec<_>>();
        let mut y = [vec![0.0; dy.len()], vec![0.0; dy.len()]];
        let [mut dx, mut dw] = starts.each_ref().map(|start| [f64s(start), abs(start)]);
        for_each_product(&shape, |yi, xi, wi| {
            let add = |[sum, scale]: &mut [Vec<f64>; 2], i: usize, a: f32, b: f32| {
                let product = f64::from(a) * f64::from(b);
                sum[i] += product;
                scale[i] += product.abs();
            };
            add(&mut y, yi, x[xi], w[wi]);
            add(&mut dx, xi, dy[yi], w[wi]);
            add(&mut dw, wi, dy[yi], x[xi]);
        });
        Reference {
            shape,
            x,
            w,
            dy,
            starts,
            y,
            dx,
            dw,
        }
    }

    /// The results of a context: output, and gradients with respect to input and weights, both
    /// added and replaced.
    fn results(&self, ctx: &Context) -> [Vec<f32>; 5] {
        let Reference {
            shape, x, w, dy, ..
        } = self;
        let geometry = shape.geometry;
        let mut y = vec![f32::NAN; dy.len()];
        let packed = PackedConv::new(ctx, geometry, w);
        conv_forward(ctx, shape, x, &packed, Epilogue::default(), &mut y);
        let transpose = PackedConvTranspose::new(ctx, geometry, w);
        let [mut dx, mut dw] = self.starts.clone();
        conv_backward_data(ctx, shape, dy, &transpose, &mut dx, true);
        conv_backward_weights(ctx, shape, x, dy, &mut dw, true);
        let mut fresh_dx = vec![f32::NAN; x.len()];
        conv_backward_data(ctx, shape, dy, &transpose, &mut fresh_dx, false);
        let mut fresh_dw = vec![f32::NAN; w.len()];
        conv_backward_weights(ctx, shape, x, dy, &mut fresh_dw, false);
        [y, dx, dw, fresh_dx, fresh_dw]
    }

    /// Compares all passes of all instruction sets, with an algorithm forced if one is given.
    fn check(&self, forced: Option<ConvAlgorithm>) {
        for contexts in contexts_forcing(forced) {
            let results = contexts.each_ref().map(|ctx| self.results(ctx));
            let name = |what: &str| {
                let isa = contexts[0].isa();
                let by = forced.map_or(String::new(), |algorithm| format!(" by {algorithm}"));
                format!("{:?} on {isa}{by}: {what}", self.shape)
            };
            assert!(
                results[0] == results[1],
                "{}",
                name("the result depends on the threads")
            );
            let [y, dx, dw, fresh_dx, fresh_dw] = &results[0];
            let [dx0, dw0] = &self.starts;
            let without = |sum: &[f64], start: &[f32]| {
                let pairs = sum.iter().zip(start);
                pairs.map(|(s, &x)| s - f64::from(x)).collect::<Vec<_>>()
            };
            for (what, found, expected, scale) in [
                ("y", y, &self.y[0], &self.y[1]),
                ("dx", dx, &self.dx[0], &self.dx[1]),
                ("dw", dw, &self.dw[0], &self.dw[1]),
                (
                    "fresh dx",
                    fresh_dx,
                    &without(&self.dx[0], dx0),
                    &self.dx[1],
                ),
                (
                    "fresh dw",
                    fresh_dw,
                    &without(&self.dw[0], dw0),
                    &self.dw[1],
                ),
            ] {
                assert_close(&name(what), found, expected, scale);
            }
        }
    }
}

fn shape(geometry: ConvGeometry, batch: usize, in_height: usize, in_width: usize) -> ConvShape {
    ConvShape {
        geometry,
        batch,
        in_height,
        in_width,
    }
}

fn check(geometry: ConvGeometry, batch: usize, in_height: usize, in_width: usize) {
    Reference::new(shape(geometry, batch, in_height, in_width)).check(None);
}

fn geometry(
    [in_channels, out_channels]: [usize; 2],
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 2],
    groups: usize,
) -> ConvGeometry {
    ConvGeometry {
        in_channels,
        out_channels,
        kernel,
        stride,
        padding,
        groups,
    }
}

#[test]
fn channel_counts_that_fill_no_vector() {
    for channels in [
        [1, 1],
        [3, 16],
        [5, 17],
        [16, 5],
        [17, 33],
        [33, 40],
        [40, 72],
        [72, 3],
    ] {
        check(geometry(channels, [3, 3], [1, 1], [1, 1], 1), 2, 9, 8);
        check(geometry(channels, [1, 1], [1, 1], [0, 0], 1), 2, 5, 7);
    }
}

#[test]
fn kernels_of_all_sizes_and_odd_ones() {
    for kernel in [
        [1, 1],
        [2, 2],
        [3, 3],
        [5, 5],
        [7, 7],
        [1, 7],
        [5, 2],
        [9, 8],
    ] {
        check(
            geometry([16, 32], kernel, [1, 1], [kernel[0] / 2, kernel[1] / 2], 1),
            1,
            11,
            9,
        );
        check(geometry([3, 18], kernel, [2, 2], [3, 3], 1), 1, 12, 13);
    }
}

#[test]
fn strides_up_to_larger_than_the_kernel() {
    for stride in [[1, 2], [2, 1], [2, 2], [3, 3], [4, 5]] {
        for kernel in [[1, 1], [2, 3], [3, 3]] {
            for padding in [[0, 0], [1, 1], [2, 3]] {
                check(geometry([16, 20], kernel, stride, padding, 1), 2, 10, 11);
            }
        }
    }
}

#[test]
fn kernels_of_one_tap_in_groups_and_where_pixels_share_cache_sets() {
    let kernel = [1, 1];
    for stride in [[1, 1], [2, 3], [3, 1]] {
        for (channels, groups) in [([48, 80], 2), ([51, 33], 3), ([70, 40], 1)] {
            check(geometry(channels, kernel, stride, [0, 0], groups), 2, 9, 41);
        }
    }
    // The first two are gathered, the second because it skips every other pixel.
    check(geometry([1024, 20], kernel, [1, 1], [0, 0], 1), 2, 3, 9);
    check(geometry([512, 20], kernel, [1, 2], [0, 0], 1), 2, 4, 9);
    check(geometry([512, 20], kernel, [1, 1], [0, 0], 1), 2, 4, 9);
}

#[test]
fn columns_taken_for_channels() {
    for channels in [[1, 5], [2, 16], [3, 40], [4, 64]] {
        for stride in [[1, 1], [2, 2], [2, 3], [3, 1]] {
            check(geometry(channels, [3, 3], stride, [1, 1], 1), 2, 8, 31);
        }
        // Most outputs read padding only, and so do whole tiles of a row.
        check(geometry(channels, [2, 5], [1, 2], [3, 9], 1), 1, 2, 3);
    }
    // The pixel stride is one channel block, in long rows and in short ones.
    check(geometry([4, 48], [3, 7], [2, 4], [1, 3], 1), 2, 9, 90);
    check(geometry([4, 48], [3, 7], [2, 4], [1, 3], 1), 2, 9, 21);
    // More channels than one part of the reduction has.
    check(geometry([4, 40], [9, 33], [1, 1], [4, 16], 1), 1, 5, 9);
}

#[test]
fn padding_beyond_the_kernel() {
    check(geometry([4, 6], [3, 3], [1, 1], [4, 5], 1), 2, 3, 4);
    check(geometry([4, 6], [1, 1], [1, 1], [1, 2], 1), 2, 3, 4);
    check(geometry([4, 6], [2, 3], [2, 3], [5, 4], 1), 2, 3, 4);
}

#[test]
fn images_of_one_pixel_and_one_column() {
    check(geometry([33, 17], [3, 3], [1, 1], [1, 1], 1), 3, 1, 1);
    check(geometry([33, 17], [1, 1], [1, 1], [0, 0], 1), 3, 1, 1);
    check(geometry([16, 16], [3, 3], [2, 2], [1, 1], 1), 3, 9, 1);
    check(geometry([16, 16], [3, 3], [1, 1], [1, 1], 1), 3, 1, 30);
}

#[test]
fn groups_of_all_widths() {
    for (groups, per_group) in [
        (2, [3, 5]),
        (8, [4, 4]),
        (12, [4, 4]),
        (8, [2, 2]),
        (6, [2, 2]),
        (4, [8, 8]),
        (6, [4, 8]),
        (3, [16, 16]),
        (2, [24, 40]),
    ] {
        let channels = per_group.map(|c| c * groups);
        check(geometry(channels, [3, 3], [1, 1], [1, 1], groups), 2, 7, 8);
        check(geometry(channels, [3, 3], [2, 2], [1, 1], groups), 2, 7, 8);
    }
    check(geometry([16; 2], [3, 5], [1, 2], [1, 2], 4), 1, 4, 45);
    // Rows with tiles of all sizes.
    for groups in [2, 4, 8, 16] {
        check(geometry([16; 2], [3, 3], [1, 1], [1, 1], groups), 1, 3, 29);
        check(geometry([16; 2], [2, 3], [2, 1], [0, 1], groups), 1, 6, 28);
    }
    check(geometry([32; 2], [1, 1], [1, 1], [0, 0], 4), 3, 5, 15);
    check(geometry([32; 2], [3, 3], [2, 2], [1, 1], 4), 2, 9, 31);
}

#[test]
fn depthwise() {
    for channels in [1, 7, 16, 40] {
        check(
            geometry([channels, channels], [3, 3], [1, 1], [1, 1], channels),
            2,
            9,
            10,
        );
        check(
            geometry([channels, channels], [5, 3], [2, 1], [2, 1], channels),
            2,
            9,
            10,
        );
        check(
            geometry([channels, 2 * channels], [3, 3], [1, 1], [1, 1], channels),
            2,
            9,
            10,
        );
    }
}

#[test]
fn batches_and_sizes_that_are_cut_into_many_tasks() {
    check(geometry([16, 16], [3, 3], [1, 1], [1, 1], 1), 5, 40, 33);
    check(geometry([64, 64], [3, 3], [1, 1], [1, 1], 1), 1, 30, 30);
    check(geometry([160, 96], [1, 1], [1, 1], [0, 0], 1), 3, 20, 20);
    check(geometry([16, 32], [3, 3], [2, 2], [1, 1], 1), 40, 8, 8);
}

#[test]
fn reductions_that_are_cut_into_parts() {
    // More weights than fit in L2, and fewer.
    check(geometry([900, 130], [1, 1], [1, 1], [0, 0], 1), 1, 5, 6);
    check(geometry([1300, 40], [1, 1], [1, 1], [0, 0], 1), 1, 9, 14);
    check(geometry([170, 70], [3, 3], [2, 2], [1, 1], 1), 1, 9, 11);
    check(geometry([340, 66], [3, 3], [1, 1], [1, 1], 2), 1, 5, 3);
}

#[test]
fn gradients_do_not_depend_on_what_working_memory_held() {
    for batch in 1..24 {
        let shape = ConvShape {
            geometry: geometry([16, 16], [3, 3], [1, 1], [1, 1], 1),
            batch,
            in_height: 32,
            in_width: 32,
        };
        let rng = &mut ChaCha8Rng::seed_from_u64(batch as u64);
        let x = random(rng, shape.input_len());
        let dy = random(rng, shape.output_len());
        for [ctx, _] in contexts() {
            let gradient = |before: f32| {
                ctx.fill_scratch(1 << 21, before);
                let mut dw = vec![f32::NAN; shape.weight_len()];
                conv_backward_weights(&ctx, &shape, &x, &dy, &mut dw, false);
                dw
            };
            assert_eq!(
                gradient(f32::NAN),
                gradient(0.0),
                "batch {batch}, {}",
                ctx.isa()
            );
        }
    }
}

#[test]
fn epilogue_and_its_second_output() {
    // By Winograd's algorithm, by the direct one, and by the direct one in several parts.
    check_epilogue(geometry([20, 37], [3, 3], [1, 1], [1, 1], 1), 8);
    check_epilogue(geometry([20, 37], [3, 3], [2, 2], [1, 1], 1), 6);
    check_epilogue(geometry([3200, 37], [1, 1], [1, 1], [0, 0], 1), 3);
    check_epilogue(geometry([37, 37], [3, 3], [1, 1], [1, 1], 37), 5);
    check_epilogue(geometry([32, 32], [3, 3], [1, 1], [1, 1], 8), 15);
    // By Strassen's algorithm with 32 registers.
    check_epilogue(geometry([288, 512], [1, 1], [1, 1], [0, 0], 1), 5);
}

fn check_epilogue(geometry: ConvGeometry, side: usize) {
    let shape = ConvShape {
        geometry,
        batch: 4,
        in_height: side,
        in_width: side,
    };
    let rng = &mut ChaCha8Rng::seed_from_u64(3);
    let x = random(rng, shape.input_len());
    let w = random(rng, shape.weight_len());
    let residual = random(rng, shape.output_len());
    let channels = geometry.out_channels;
    let [scale, shift, scale2, shift2] = std::array::from_fn(|_| random(rng, channels));
    for [ctx, _] in contexts() {
        let packed = PackedConv::new(&ctx, geometry, &w);
        let mut raw = vec![0.0; shape.output_len()];
        conv_forward(&ctx, &shape, &x, &packed, Epilogue::default(), &mut raw);
        for options in 0..128 {
            let on = |bit: usize| options >> bit & 1 == 1;
            let activation = |is_on: bool| match (is_on, on(6)) {
                (false, _) => Activation::Identity,
                (true, false) => Activation::Relu,
                (true, true) => Activation::Relu6,
            };
            let bounded = |is_on: bool, x: f32| {
                let [least, largest] = activation(is_on).bounds();
                x.clamp(least, largest)
            };
            let in_place = on(5);
            if in_place && !(on(2) && packed.adds_in_place(&shape)) {
                continue;
            }
            let (mut y, mut z) = (vec![f32::NAN; raw.len()], vec![f32::NAN; raw.len()]);
            if in_place {
                y.copy_from_slice(&residual);
            }
            let epilogue = Epilogue {
                scale: on(0).then_some(&scale),
                shift: on(1).then_some(&shift),
                residual: on(2).then_some(if in_place {
                    Residual::Output
                } else {
                    Residual::Tensor(&residual)
                }),
                activation: activation(on(3)),
                second: on(4).then_some(SecondOutput {
                    scale: &scale2,
                    shift: &shift2,
                    activation: activation(on(0)),
                    out: &mut z,
                }),
            };
            conv_forward(&ctx, &shape, &x, &packed, epilogue, &mut y);
            for (i, &raw) in raw.iter().enumerate() {
                let c = i % channels;
                let mut expected = raw;
                expected *= if on(0) { scale[c] } else { 1.0 };
                expected += if on(1) { shift[c] } else { 0.0 };
                expected += if on(2) { residual[i] } else { 0.0 };
                expected = bounded(on(3), expected);
                assert!(
                    (y[i] - expected).abs() < 2e-6 * (1.0 + expected.abs()),
                    "{options} at {i}: {} {expected}",
                    y[i]
                );
                let z_expected = bounded(on(0), y[i] * scale2[c] + shift2[c]);
                if on(4) {
                    assert!(
                        (z[i] - z_expected).abs() < 2e-6 * (1.0 + z_expected.abs()),
                        "second {options} at {i}"
                    );
                }
            }
        }
    }
}

#[test]
fn repeated_calls_take_no_more_memory() {
    let geometry = geometry([32, 32], [3, 3], [1, 1], [1, 1], 1);
    let shape = ConvShape {
        geometry,
        batch: 2,
        in_height: 16,
        in_width: 16,
    };
    let ctx = Context::new(NonZeroUsize::new(1)).unwrap();
    let w = vec![0.5; shape.weight_len()];
    let (x, mut y) = (vec![1.0; shape.input_len()], vec![0.0; shape.output_len()]);
    let (mut dx, mut dw) = (x.clone(), w.clone());
    let packed = PackedConv::new(&ctx, geometry, &w);
    let transpose = PackedConvTranspose::new(&ctx, geometry, &w);
    let mut step = || {
        conv_forward(&ctx, &shape, &x, &packed, Epilogue::default(), &mut y);
        conv_backward_data(&ctx, &shape, &y, &transpose, &mut dx, false);
        conv_backward_weights(&ctx, &shape, &x, &y, &mut dw, false);
        ctx.scratch_bytes()
    };
    let first = step();
    assert_eq!(step(), first);
}

#[test]
fn every_kernel_calls_the_interlude_on_the_thread_that_runs_it() {
    let geometry = geometry([3, 5], [3, 3], [1, 1], [1, 1], 1);
    let shape = ConvShape {
        geometry,
        batch: 2,
        in_height: 4,
        in_width: 4,
    };
    let calls = Arc::new(AtomicUsize::new(0));
    let (counter, caller) = (calls.clone(), thread::current().id());
    let ctx = Context::new(NonZeroUsize::new(2))
        .unwrap()
        .with_interlude(move || {
            assert_eq!(thread::current().id(), caller);
            counter.fetch_add(1, Ordering::Relaxed);
        });
    let w = vec![0.5; shape.weight_len()];
    let (x, mut y) = (vec![1.0; shape.input_len()], vec![0.0; shape.output_len()]);
    let packed = PackedConv::new(&ctx, geometry, &w);
    let before = calls.load(Ordering::Relaxed);
    conv_forward(&ctx, &shape, &x, &packed, Epilogue::default(), &mut y);
    assert!(calls.load(Ordering::Relaxed) > before);
}

#[test]
fn no_image_reaches_the_results_of_another() {
    for (kernel, padding, side) in [
        ([1, 1], [0, 0], 9),
        ([3, 3], [1, 1], 8),
        ([3, 3], [1, 1], 16),
    ] {
        let shape = ConvShape {
            geometry: geometry([256, 256], kernel, [1, 1], padding, 1),
            batch: 3,
            in_height: side,
            in_width: side,
        };
        let rng = &mut ChaCha8Rng::seed_from_u64(9);
        let mut x = random(rng, shape.input_len());
        let w = random(rng, shape.weight_len());
        let image = shape.input_len() / shape.batch;
        let outputs = shape.output_len() / shape.batch;
        for [ctx, _] in contexts() {
            let packed = PackedConv::new(&ctx, shape.geometry, &w);
            let mut results = [0.5, f32::NAN].map(|other| {
                x[image..2 * image].fill(other);
                let mut y = vec![f32::NAN; shape.output_len()];
                conv_forward(&ctx, &shape, &x, &packed, Epilogue::default(), &mut y);
                y
            });
            for y in &mut results {
                y[outputs..2 * outputs].fill(0.0);
            }
            assert!(results[0] == results[1], "{kernel:?} on {}", ctx.isa());
        }
    }
}

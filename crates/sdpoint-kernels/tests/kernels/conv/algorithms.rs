//! Each algorithm, chosen or forced, and the choice among them.

use super::*;
use ConvAlgorithm::{Direct, Grouped, Strassen, Winograd};
use WinogradTile::{Four, Two};

/// Checks all passes of a shape for whose forward pass `algorithm` is chosen.
fn check_chosen(algorithm: ConvAlgorithm, shape: ConvShape) {
    for isa in Isa::available() {
        let chosen = AlgorithmChoice::new(isa).forward(&shape);
        assert_eq!(chosen, algorithm, "{shape:?} on {isa}");
    }
    assert_runs(None, algorithm, &shape);
    Reference::new(shape).check(None);
}

/// Checks all passes of a shape with an algorithm forced that supports the forward pass.
fn check_forced(algorithm: ConvAlgorithm, shape: ConvShape) {
    assert_runs(Some(algorithm), algorithm, &shape);
    Reference::new(shape).check(Some(algorithm));
}

/// Checks that a forward pass is computed by `algorithm`, as it says and as the rounding of its
/// sums shows: the results differ from those of other algorithms that sum in another order.
fn assert_runs(forced: Option<ConvAlgorithm>, algorithm: ConvAlgorithm, shape: &ConvShape) {
    let rng = &mut ChaCha8Rng::seed_from_u64(5);
    let x = random(rng, shape.input_len());
    let w = random(rng, shape.weight_len());
    let run = |ctx: &Context| {
        let packed = PackedConv::new(ctx, shape.geometry, &w);
        let mut y = vec![f32::NAN; shape.output_len()];
        let ran = conv_forward(ctx, shape, &x, &packed, Epilogue::default(), &mut y);
        assert_eq!(ran, packed.algorithm(shape));
        assert_eq!(ran, ctx.algorithms().forward(shape));
        (ran, y)
    };
    let others: &[ConvAlgorithm] = match algorithm {
        // A few sums may happen to round to the same values.
        _ if shape.output_len() < 16 => &[],
        Winograd(Four) => &[Direct, Winograd(Two)],
        Winograd(Two) => &[Direct, Winograd(Four)],
        Strassen => &[Direct],
        _ => &[],
    };
    for [ctx, _] in contexts_forcing(forced) {
        let (ran, y) = run(&ctx);
        if algorithm == Strassen && has_16_registers(ctx.isa()) {
            assert_eq!(ran, Direct, "{shape:?} on {}", ctx.isa());
            continue;
        }
        assert_eq!(ran, algorithm, "{shape:?} on {}", ctx.isa());
        for &other in others {
            let context = Context::with_isa(None, ctx.isa()).unwrap().forcing(other);
            let (ran, theirs) = run(&context);
            assert_eq!(ran, other);
            assert_ne!(y, theirs, "{shape:?} by {other} on {}", ctx.isa());
        }
    }
}

/// Checks that gradients of weights are computed by `algorithm`, as the rounding of its sums shows.
fn assert_runs_to_weights(algorithm: ConvAlgorithm, shape: &ConvShape) {
    let rng = &mut ChaCha8Rng::seed_from_u64(6);
    let x = random(rng, shape.input_len());
    let dy = random(rng, shape.output_len());
    let run = |ctx: &Context| {
        let mut dw = vec![f32::NAN; shape.weight_len()];
        conv_backward_weights(ctx, shape, &x, &dy, &mut dw, false);
        dw
    };
    for isa in Isa::available() {
        let context = || Context::with_isa(None, isa).unwrap();
        let chosen = AlgorithmChoice::new(isa).backward_weights(shape);
        assert_eq!(chosen, algorithm, "{shape:?} on {isa}");
        assert_ne!(
            run(&context()),
            run(&context().forcing(Direct)),
            "{shape:?} on {isa}"
        );
    }
}

fn three_by_three(channels: [usize; 2], padding: [usize; 2], groups: usize) -> ConvGeometry {
    geometry(channels, [3, 3], [1, 1], padding, groups)
}

fn pointwise(channels: [usize; 2], stride: [usize; 2]) -> ConvGeometry {
    geometry(channels, [1, 1], stride, [0, 0], 1)
}

#[test]
fn winograd_with_tiles_of_four_that_stick_out_of_the_image() {
    let algorithm = Winograd(Four);
    for channels in [[16, 16], [17, 33], [40, 72]] {
        check_chosen(
            algorithm,
            shape(three_by_three(channels, [1, 1], 1), 6, 7, 11),
        );
        check_chosen(
            algorithm,
            shape(three_by_three(channels, [0, 2], 1), 6, 10, 6),
        );
    }
    // In groups, whose channels are multiples of vectors and channel blocks, or not.
    for (channels, groups) in [([48, 48], 3), ([64, 80], 2), ([96, 51], 3)] {
        check_chosen(
            algorithm,
            shape(three_by_three(channels, [1, 1], groups), 3, 10, 11),
        );
    }
    // Too few channels and tiles to pay off, and narrow groups.
    check_forced(algorithm, shape(three_by_three([5, 1], [1, 1], 1), 1, 1, 1));
    check_forced(algorithm, shape(three_by_three([5, 9], [1, 1], 1), 1, 6, 3));
    check_forced(
        algorithm,
        shape(three_by_three([32, 32], [1, 1], 8), 1, 9, 5),
    );
    check_forced(
        algorithm,
        shape(three_by_three([32, 32], [2, 0], 32), 2, 6, 6),
    );
}

#[test]
fn winograd_with_tiles_of_two() {
    let algorithm = Winograd(Two);
    for channels in [[96, 96], [72, 80], [67, 97]] {
        check_chosen(
            algorithm,
            shape(three_by_three(channels, [1, 1], 1), 1, 7, 7),
        );
        check_chosen(
            algorithm,
            shape(three_by_three(channels, [0, 2], 1), 2, 9, 5),
        );
    }
    for (channels, groups) in [([96, 96], 3), ([64, 80], 2)] {
        check_chosen(
            algorithm,
            shape(three_by_three(channels, [1, 1], groups), 2, 5, 5),
        );
    }
    check_forced(algorithm, shape(three_by_three([5, 1], [1, 1], 1), 1, 1, 1));
    check_forced(
        algorithm,
        shape(three_by_three([20, 7], [0, 1], 1), 2, 4, 9),
    );
    check_forced(
        algorithm,
        shape(three_by_three([64, 64], [1, 1], 8), 2, 5, 8),
    );
}

#[test]
fn gradients_by_winograd() {
    // Enough tiles for the gradient of weights, and partial channel blocks on both sides.
    let shapes = [
        shape(three_by_three([24, 40], [1, 1], 1), 13, 11, 10),
        shape(three_by_three([16, 16], [1, 1], 1), 3, 32, 32),
    ];
    for shape in shapes {
        assert_runs_to_weights(Winograd(Four), &shape);
        Reference::new(shape).check(None);
    }
    // Too few channels and tiles to pay off.
    let small = shape(three_by_three([3, 20], [1, 1], 1), 2, 9, 7);
    for isa in Isa::available() {
        let choice = AlgorithmChoice::new(isa);
        assert_eq!(choice.backward_weights(&small), Direct);
        let forced = choice.forcing(Winograd(Four));
        let computes = Winograd(Four);
        // Three channels are unrolled with the kernel's columns for the direct algorithm.
        assert_eq!(forced.backward_weights(&small), Direct);
        let wider = shape(three_by_three([5, 20], [1, 1], 1), 2, 9, 7);
        assert_eq!(forced.backward_weights(&wider), computes);
        assert_eq!(forced.backward_data(&wider), [computes]);
    }
    let wider = shape(three_by_three([5, 20], [1, 1], 1), 2, 9, 7);
    Reference::new(wider).check(Some(Winograd(Four)));
    // Only one phase of the data gradient has a 3 × 3 kernel.
    let strided = shape(geometry([16, 20], [5, 5], [2, 2], [2, 2], 1), 6, 14, 16);
    for isa in Isa::available() {
        let algorithms = AlgorithmChoice::new(isa).backward_data(&strided);
        assert_eq!(algorithms, [Winograd(Four), Direct], "{isa}");
    }
    Reference::new(strided).check(None);
}

#[test]
fn strassen_with_halves_that_differ() {
    // Halves of an image's pixels that differ by one; an odd number of channel blocks.
    check_strassen(shape(pointwise([256, 512], [1, 1]), 2, 7, 7));
    check_strassen(shape(pointwise([288, 320], [1, 1]), 1, 11, 21));
    // Several strips, and images of two pixels.
    check_strassen(shape(pointwise([256, 256], [1, 1]), 1, 19, 20));
    check_strassen(shape(pointwise([256, 512], [1, 1]), 50, 1, 2));
    // Pixels that are not adjacent.
    check_strassen(shape(pointwise([256, 448], [2, 2]), 2, 13, 16));
    check_strassen(shape(pointwise([256, 576], [1, 3]), 2, 9, 14));
    // Fewer channels, on either side.
    check_forced(Strassen, shape(pointwise([128, 512], [1, 1]), 1, 11, 13));
    check_forced(Strassen, shape(pointwise([224, 128], [1, 1]), 2, 15, 16));
    // Too few channels and outputs to pay off.
    check_forced(Strassen, shape(pointwise([32, 64], [1, 1]), 1, 3, 5));
    check_forced(Strassen, shape(pointwise([96, 128], [2, 1]), 3, 1, 2));
}

/// Checks all passes of a shape by Strassen's algorithm, which is for 32 registers only.
fn check_strassen(shape: ConvShape) {
    for isa in Isa::available() {
        let expected = if has_16_registers(isa) {
            Direct
        } else {
            Strassen
        };
        let chosen = AlgorithmChoice::new(isa).forward(&shape);
        assert_eq!(chosen, expected, "{shape:?} on {isa}");
    }
    check_forced(Strassen, shape);
}

/// Whether an instruction set has 16 vector registers rather than 32.
fn has_16_registers(isa: Isa) -> bool {
    isa.lanes() <= 8 && !cfg!(target_arch = "aarch64")
}

#[test]
fn strassen_is_not_for_what_it_cannot_compute() {
    for isa in Isa::available() {
        let forced = AlgorithmChoice::new(isa).forcing(Strassen);
        for shape in [
            // Padding.
            shape(geometry([256, 512], [1, 1], [1, 1], [1, 0], 1), 2, 6, 6),
            // Images of one pixel.
            shape(pointwise([256, 512], [1, 1]), 200, 1, 1),
            // Halves of channels that are not whole channel blocks or panels.
            shape(pointwise([264, 512], [1, 1]), 1, 9, 9),
            shape(pointwise([256, 520], [1, 1]), 1, 9, 9),
            shape(geometry([256, 512], [1, 1], [1, 1], [0, 0], 2), 1, 9, 9),
        ] {
            assert_eq!(forced.forward(&shape), Direct, "{shape:?} on {isa}");
        }
        // The gradient of every other pixel, whose rows are not adjacent.
        let strided = shape(pointwise([512, 256], [2, 2]), 2, 20, 20);
        assert_eq!(forced.backward_data(&strided), [Direct], "{isa}");
    }
    check(geometry([256, 512], [1, 1], [1, 1], [1, 0], 1), 2, 6, 6);
}

/// Groups of few channels are merged to a dense layout, for which Winograd's gradients of weights
/// would have places for weights that do not exist.
#[test]
fn merged_groups_have_gradients_of_weights() {
    for (channels, groups, side) in [(16, 2, 32), (32, 4, 16), (32, 4, 37)] {
        let shape = shape(
            geometry([channels; 2], [3, 3], [1, 1], [1, 1], groups),
            3,
            side,
            side,
        );
        Reference::new(shape).check(None);
    }
}

#[test]
fn groups_of_few_channels() {
    for (groups, width) in [(8, 2), (8, 4), (4, 8), (16, 1), (7, 1)] {
        let channels = [groups * width; 2];
        let three = geometry(channels, [3, 3], [1, 1], [1, 1], groups);
        check_chosen(Grouped, shape(three, 2, 7, 9));
        let strided = geometry(channels, [3, 5], [2, 2], [1, 2], groups);
        check_forced(Grouped, shape(strided, 2, 7, 15));
        check_forced(Direct, shape(three, 1, 5, 6));
        check_forced(Direct, shape(strided, 1, 5, 6));
    }
    let depthwise = geometry([24, 24], [3, 3], [1, 1], [1, 1], 24);
    assert_runs_to_weights(Grouped, &shape(depthwise, 3, 17, 19));
    // Groups of two channels, where a vector would start within a group.
    let uneven = shape(geometry([12, 24], [3, 3], [1, 1], [1, 1], 6), 1, 5, 5);
    for isa in Isa::available() {
        let choice = AlgorithmChoice::new(isa);
        assert_eq!(choice.forcing(Grouped).forward(&uneven), Direct);
        let depthwise = shape(geometry([24, 24], [3, 3], [2, 2], [1, 1], 24), 1, 9, 9);
        assert_eq!(choice.backward_weights(&depthwise), Grouped);
        assert_eq!(choice.backward_data(&depthwise), [Grouped]);
        let forced = choice.forcing(Direct);
        assert_eq!(forced.backward_weights(&depthwise), Direct);
        assert_eq!(forced.backward_data(&depthwise), [Direct]);
    }
}

#[test]
fn everything_directly() {
    for shape in [
        shape(three_by_three([40, 72], [1, 1], 1), 2, 9, 8),
        shape(three_by_three([64, 64], [1, 1], 1), 1, 7, 7),
        shape(pointwise([256, 256], [1, 1]), 1, 15, 14),
        shape(geometry([16, 20], [5, 5], [2, 2], [2, 2], 1), 2, 14, 16),
    ] {
        check_forced(Direct, shape);
        for isa in Isa::available() {
            let forced = AlgorithmChoice::new(isa).forcing(Direct);
            assert_eq!(forced.backward_data(&shape), [Direct]);
            assert_eq!(forced.backward_weights(&shape), Direct);
        }
    }
}

#[test]
fn layers_of_known_networks() {
    // Channels, kernel, stride, groups, input side, batch; forward, to data, to weights.
    type Row = (
        [usize; 2],
        usize,
        usize,
        usize,
        usize,
        usize,
        [ConvAlgorithm; 3],
    );
    let rows: [Row; 15] = [
        ([3, 64], 7, 2, 1, 224, 1, [Direct, Direct, Direct]),
        (
            [64, 64],
            3,
            1,
            1,
            56,
            1,
            [Winograd(Four), Winograd(Four), Winograd(Four)],
        ),
        ([128, 128], 3, 2, 1, 56, 1, [Direct, Direct, Direct]),
        (
            [256, 256],
            3,
            1,
            1,
            14,
            1,
            [Winograd(Two), Winograd(Two), Winograd(Four)],
        ),
        (
            [512, 512],
            3,
            1,
            1,
            7,
            1,
            [Winograd(Two), Winograd(Two), Direct],
        ),
        (
            [512, 512],
            3,
            1,
            1,
            7,
            32,
            [Winograd(Four), Winograd(Four), Winograd(Four)],
        ),
        ([512, 512], 3, 1, 1, 4, 1, [Direct, Direct, Direct]),
        ([64, 256], 1, 1, 1, 56, 1, [Direct, Direct, Direct]),
        ([256, 1024], 1, 1, 1, 14, 1, [Strassen, Strassen, Direct]),
        ([1024, 1024], 1, 1, 1, 14, 1, [Strassen, Strassen, Direct]),
        ([2048, 512], 1, 1, 1, 7, 1, [Direct, Direct, Direct]),
        ([1024, 2048], 1, 2, 1, 14, 1, [Direct, Direct, Direct]),
        ([128, 128], 3, 1, 32, 56, 1, [Grouped, Grouped, Direct]),
        (
            [1024, 1024],
            3,
            1,
            32,
            7,
            1,
            [Winograd(Four), Winograd(Four), Direct],
        ),
        (
            [16, 16],
            3,
            1,
            1,
            32,
            128,
            [Winograd(Four), Winograd(Four), Winograd(Four)],
        ),
    ];
    for (channels, kernel, stride, groups, side, batch, expected) in rows {
        let padding = [kernel / 2; 2];
        let geometry = geometry(channels, [kernel; 2], [stride; 2], padding, groups);
        let shape = shape(geometry, batch, side, side);
        for isa in Isa::available() {
            let choice = AlgorithmChoice::new(isa);
            let [forward, data, weights] = expected.map(|algorithm| match algorithm {
                Strassen if has_16_registers(isa) => Direct,
                other => other,
            });
            assert_eq!(choice.forward(&shape), forward, "{shape:?} on {isa}");
            assert_eq!(choice.backward_data(&shape), [data], "{shape:?} on {isa}");
            assert_eq!(
                choice.backward_weights(&shape),
                weights,
                "{shape:?} on {isa}"
            );
        }
    }
}

#[test]
fn low_memory_keeps_weights_once() {
    let shapes = [
        shape(three_by_three([64, 64], [1, 1], 1), 1, 14, 14),
        shape(pointwise([1024, 1024], [1, 1]), 1, 14, 14),
    ];
    let rng = &mut ChaCha8Rng::seed_from_u64(7);
    for shape in shapes {
        let x = random(rng, shape.input_len());
        let w = random(rng, shape.weight_len());
        let run = |ctx: &Context| {
            let packed = PackedConv::new(ctx, shape.geometry, &w);
            let mut y = vec![f32::NAN; shape.output_len()];
            let ran = conv_forward(ctx, &shape, &x, &packed, Epilogue::default(), &mut y);
            assert_eq!(ran, ctx.algorithms().forward(&shape));
            (ran, y)
        };
        for isa in Isa::available() {
            let context = || Context::with_isa(None, isa).unwrap();
            if shape.geometry.kernel == [1, 1] && has_16_registers(isa) {
                continue;
            }
            assert_ne!(context().algorithms().forward(&shape), Direct);
            let (ran, low) = run(&context().with_low_memory());
            let (_, direct) = run(&context().forcing(Direct));
            assert_eq!(ran, Direct, "{shape:?} on {isa}");
            assert_eq!(low, direct, "{shape:?} on {isa}");
            let choice = AlgorithmChoice::new(isa).with_low_memory();
            assert_eq!(choice.backward_data(&shape), [Direct]);
        }
    }
}

#[test]
fn wide_groups_with_a_stride_by_instruction_set() {
    let strided = shape(geometry([64, 64], [3, 3], [2, 2], [1, 1], 8), 1, 28, 28);
    for isa in Isa::available() {
        let expected = if isa.lanes() > 8 { Direct } else { Grouped };
        assert_eq!(
            AlgorithmChoice::new(isa).forward(&strided),
            expected,
            "{isa}"
        );
    }
}

#[test]
fn an_output_holds_a_residual_unless_it_holds_parts_of_sums() {
    let ctx = Context::new(None).unwrap();
    let adds_in_place = |shape: &ConvShape| {
        let w = vec![0.0; shape.weight_len()];
        PackedConv::new(&ctx, shape.geometry, &w).adds_in_place(shape)
    };
    // So wide that panels of two vectors of four channels are divided, too.
    let wide = pointwise([16384, 256], [1, 1]);
    assert!(!adds_in_place(&shape(wide, 1, 3, 3)));
    // By Strassen's algorithm the sums are not taken in parts.
    assert_eq!(
        adds_in_place(&shape(wide, 16, 7, 7)),
        !has_16_registers(ctx.isa())
    );
    assert!(adds_in_place(&shape(
        three_by_three([512, 512], [1, 1], 1),
        1,
        7,
        7
    )));
}

#[test]
fn forms_of_weights_are_made_when_needed_and_again_when_repacked() {
    check_forms(
        three_by_three([260, 256], [1, 1], 1),
        32,
        [Direct, Winograd(Four)],
    );
    check_forms(
        three_by_three([96, 96], [1, 1], 1),
        5,
        [Direct, Winograd(Two)],
    );
    check_forms(pointwise([1056, 1024], [1, 1]), 16, [Direct, Strassen]);
}

/// Compares a batch of `batch` images with single images, which are computed by another algorithm.
fn check_forms(geometry: ConvGeometry, batch: usize, algorithms: [ConvAlgorithm; 2]) {
    let [few, many] = [1, batch].map(|batch| shape(geometry, batch, 4, 4));
    let rng = &mut ChaCha8Rng::seed_from_u64(8);
    let image = random(rng, few.input_len());
    let images = image.repeat(many.batch);
    for [ctx, _] in contexts() {
        if algorithms[1] == Strassen && has_16_registers(ctx.isa()) {
            continue;
        }
        let mut packed = PackedConv::new(&ctx, geometry, &random(rng, few.weight_len()));
        let forward = |w: &PackedConv, shape: &ConvShape, x: &[f32], algorithm| {
            let mut y = vec![f32::NAN; shape.output_len()];
            let ran = conv_forward(&ctx, shape, x, w, Epilogue::default(), &mut y);
            assert_eq!(ran, algorithm, "{shape:?} on {}", ctx.isa());
            y
        };
        let before = packed.bytes();
        for repeat in 0..2 {
            let expected: Vec<f64> = forward(&packed, &few, &image, algorithms[0])
                .into_iter()
                .map(f64::from)
                .collect();
            let made = packed.bytes();
            assert_eq!(made > before, repeat > 0);
            let scale = vec![f64::from(few.geometry.in_channels as u32); expected.len()];
            let got = forward(&packed, &many, &images, algorithms[1]);
            for got in got.chunks_exact(expected.len()) {
                assert_close(&format!("y on {}", ctx.isa()), got, &expected, &scale);
            }
            assert!(packed.bytes() > before);
            packed.repack(&ctx, &random(rng, few.weight_len()));
        }
    }
}

#[test]
#[should_panic(expected = "weights packed for another instruction set or algorithm")]
fn weights_packed_for_another_algorithm_are_refused() {
    let shape = shape(three_by_three([16, 16], [1, 1], 1), 1, 8, 8);
    let ctx = Context::new(None).unwrap();
    let packed = PackedConv::new(&ctx, shape.geometry, &vec![0.0; shape.weight_len()]);
    let other = Context::new(None).unwrap().forcing(Direct);
    let (x, mut y) = (vec![0.0; shape.input_len()], vec![0.0; shape.output_len()]);
    conv_forward(&other, &shape, &x, &packed, Epilogue::default(), &mut y);
}

#[test]
fn names_of_algorithms_parse_back() {
    for algorithm in ConvAlgorithm::ALL {
        assert_eq!(algorithm.to_string().parse(), Ok(algorithm));
    }
    let error = "fft".parse::<ConvAlgorithm>().unwrap_err().to_string();
    for part in [
        "'fft'",
        "direct",
        "grouped",
        "winograd4",
        "winograd2",
        "strassen",
    ] {
        assert!(error.contains(part), "{error}");
    }
}

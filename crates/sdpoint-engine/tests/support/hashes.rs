//! Hashes of what the kernels and the engine compute, one line a result.
//!
//! A change that should not change a bit leaves every line as it was. Inputs are functions of
//! their position, weights of a seed, so that the lines depend on the instruction set alone.

#[allow(dead_code)] // Its list of names.
#[path = "../../../../fixtures/oracles/networks.rs"]
mod networks;

use std::fmt::Write;
use std::num::NonZeroUsize;
use std::sync::Arc;

use sdpoint_core::{Instance, Network, Ratio, Statistics, Weights};
use sdpoint_engine::{
    Calibrator, Context, Images, InferenceEngine, Isa, StepInput, Target, TrainingEngine,
    initial_weights,
};
use sdpoint_kernels::{
    Activation, ConvGeometry, ConvShape, Epilogue, PackedConv, PackedConvTranspose, Residual,
    SecondOutput, conv_backward_data, conv_backward_weights, conv_forward,
};

/// A convolution on a batch of images.
#[derive(Clone, Copy)]
pub struct Layer {
    pub batch: usize,
    /// Height and width of the input.
    pub size: [usize; 2],
    pub channels: [usize; 2],
    pub kernel: usize,
    pub stride: usize,
    pub groups: usize,
}

const fn layer(
    batch: usize,
    size: [usize; 2],
    channels: [usize; 2],
    kernel: usize,
    stride: usize,
    groups: usize,
) -> Layer {
    Layer {
        batch,
        size,
        channels,
        kernel,
        stride,
        groups,
    }
}

/// Small convolutions, several for each algorithm.
pub const LAYERS: &[Layer] = &[
    // Direct: three input channels, strides, odd channel counts, reductions in parts.
    layer(2, [17, 13], [3, 16], 3, 1, 1),
    layer(1, [23, 31], [3, 24], 7, 2, 1),
    layer(2, [13, 9], [20, 37], 3, 2, 1),
    layer(1, [11, 11], [64, 96], 3, 2, 1),
    layer(3, [7, 5], [40, 72], 1, 1, 1),
    layer(2, [9, 41], [48, 80], 1, 2, 1),
    layer(2, [4, 9], [512, 20], 1, 1, 1),
    layer(1, [5, 6], [900, 130], 1, 1, 1),
    layer(1, [9, 14], [1300, 40], 1, 1, 1),
    layer(1, [7, 11], [170, 70], 3, 2, 1),
    layer(7, [1, 1], [300, 45], 1, 1, 1),
    layer(1, [5, 7], [24, 24], 5, 1, 1),
    // Winograd's algorithm with tiles of 4×4.
    layer(6, [7, 11], [16, 16], 3, 1, 1),
    layer(4, [16, 16], [40, 72], 3, 1, 1),
    layer(13, [11, 10], [24, 40], 3, 1, 1),
    layer(1, [30, 30], [64, 64], 3, 1, 1),
    layer(3, [12, 12], [48, 48], 3, 1, 3),
    layer(16, [8, 8], [260, 256], 3, 1, 1),
    layer(1, [7, 7], [64, 64], 3, 1, 1),
    // With tiles of 2×2.
    layer(1, [7, 7], [96, 96], 3, 1, 1),
    layer(2, [9, 5], [67, 97], 3, 1, 1),
    layer(2, [5, 5], [96, 96], 3, 1, 3),
    // Strassen's algorithm.
    layer(2, [7, 7], [256, 512], 1, 1, 1),
    layer(1, [11, 21], [288, 320], 1, 1, 1),
    layer(2, [13, 16], [256, 448], 1, 2, 1),
    layer(1, [14, 14], [512, 256], 1, 1, 1),
    layer(1, [11, 13], [128, 512], 1, 1, 1),
    // Groups: narrow ones, merged ones, depth-wise ones.
    layer(2, [7, 8], [16, 16], 3, 1, 8),
    layer(2, [9, 29], [32, 32], 3, 1, 8),
    layer(2, [9, 28], [64, 64], 3, 1, 8),
    layer(2, [9, 31], [64, 64], 3, 2, 8),
    layer(2, [9, 15], [32, 32], 3, 2, 8),
    layer(2, [7, 8], [24, 40], 3, 1, 4),
    layer(2, [9, 10], [40, 40], 3, 1, 40),
    layer(2, [9, 10], [16, 32], 3, 2, 16),
];

/// A network by name, and the size and number of the images that it is run on.
pub type Case = (&'static str, [usize; 2], usize);

/// Small networks of all kinds.
const SMALL_NETWORKS: [Case; 7] = [
    ("preresnet8", [32, 32], 2),
    ("preresnet8", [19, 26], 5),
    ("resnet-mini", [64, 48], 2),
    ("resnet-mini-basic", [64, 64], 1),
    ("resnext-mini", [64, 64], 2),
    ("preresnet-mini", [64, 64], 1),
    ("mobilenet_v2", [48, 64], 1),
];

/// The hashes of [`LAYERS`] and of small networks with an instruction set.
pub fn small(isa: Isa) -> String {
    lines(isa, LAYERS, &SMALL_NETWORKS)
}

/// The hashes of `layers` and `cases` with an instruction set, on two threads.
///
/// # Panics
///
/// If the machine lacks the instruction set.
pub fn lines(isa: Isa, layers: &[Layer], cases: &[Case]) -> String {
    let ctx = Context::with_isa(NonZeroUsize::new(2), isa).expect("an available instruction set");
    let ctx = Arc::new(ctx);
    let mut lines = String::new();
    for layer in layers {
        hash_layer(&ctx, layer, &mut lines);
    }
    for &(name, size, batch) in cases {
        hash_network(&ctx, networks::network(name), size, batch, &mut lines);
    }
    lines
}

fn hash_layer(ctx: &Context, layer: &Layer, lines: &mut String) {
    let Layer {
        batch,
        size: [height, width],
        channels: [inputs, outputs],
        kernel,
        stride,
        groups,
    } = *layer;
    let geometry = ConvGeometry {
        in_channels: inputs,
        out_channels: outputs,
        kernel: [kernel; 2],
        stride: [stride; 2],
        padding: [kernel / 2; 2],
        groups,
    };
    let shape = ConvShape {
        geometry,
        batch,
        in_height: height,
        in_width: width,
    };
    let x = values(shape.input_len(), 1);
    let w = values(shape.weight_len(), 2);
    let dy = values(shape.output_len(), 3);
    let packed = PackedConv::new(ctx, geometry, &w);
    let transposed = PackedConvTranspose::new(ctx, geometry, &w);

    let mut y = vec![0.0; dy.len()];
    conv_forward(ctx, &shape, &x, &packed, Epilogue::default(), &mut y);
    let plain = hash(&y);
    let [scale, shift, scale2, shift2] = [4, 5, 6, 7].map(|seed| values(outputs, seed));
    let mut z = vec![0.0; dy.len()];
    let epilogue = Epilogue {
        scale: Some(&scale),
        shift: Some(&shift),
        residual: Some(Residual::Tensor(&dy)),
        activation: Activation::Relu,
        second: Some(SecondOutput {
            scale: &scale2,
            shift: &shift2,
            activation: Activation::Identity,
            out: &mut z,
        }),
    };
    conv_forward(ctx, &shape, &x, &packed, epilogue, &mut y);
    let finished = hash(&y) ^ hash(&z).rotate_left(1);
    let mut dx = values(x.len(), 8);
    conv_backward_data(ctx, &shape, &dy, &transposed, &mut dx, true);
    let mut dw = values(w.len(), 9);
    conv_backward_weights(ctx, &shape, &x, &dy, &mut dw, true);
    writeln!(
        lines,
        "{} layer {batch}x{height}x{width} {inputs}>{outputs} k{kernel} s{stride} g{groups} \
         forward {plain:016x} epilogue {finished:016x} data {:016x} weights {:016x}",
        ctx.isa(),
        hash(&dx),
        hash(&dw),
    )
    .expect("strings take all");
}

fn hash_network(
    ctx: &Arc<Context>,
    network: Network,
    size: [usize; 2],
    batch: usize,
    lines: &mut String,
) {
    let network = Arc::new(network);
    let [height, width] = size;
    let mut weights = initial_weights(&network, 11);
    // Initial shifts are zero, which would hide errors in their use.
    for (index, parameter) in weights.0.iter_mut().enumerate() {
        if parameter.iter().all(|&x| x == 0.0) {
            *parameter = values(parameter.len(), 100 + index as u64);
        }
    }
    let data = values(batch * height * width * network.input_channels(), 12);
    let images = Images {
        data: &data,
        batch,
        size,
    };
    let labels: Vec<u32> = (0..batch)
        .map(|image| (image % network.classes()) as u32)
        .collect();
    let instances = network.instances(&Ratio::DEFAULT);
    let statistics = statistics(ctx, &network, &weights, images, &instances);
    let inference = InferenceEngine::new(ctx.clone(), network.clone(), &weights, &statistics)
        .expect("an engine");
    let mut training = TrainingEngine::new(ctx.clone(), network.clone());
    for instance in instances {
        let logits = inference.run(images, instance).expect("a run");
        let outcome = training
            .step(StepInput {
                weights: &weights,
                images,
                target: Target::labels(&labels).with_smoothing(0.1),
                instance,
            })
            .expect("a step");
        let gradients = training.gradients().0.iter();
        let gradients = gradients.fold(0_u64, |all, one| all.rotate_left(1) ^ hash(one));
        // The system's logarithm may differ in the last bit of a double.
        let loss = (outcome.loss as f32).to_bits();
        writeln!(
            lines,
            "{} {} {height}x{width} batch {batch} {instance} logits {:016x} loss {loss:08x} \
             trained {:016x} gradients {gradients:016x}",
            ctx.isa(),
            network.name(),
            hash(&logits),
            hash(training.logits()),
        )
        .expect("strings take all");
    }
}

fn statistics(
    ctx: &Arc<Context>,
    network: &Arc<Network>,
    weights: &Weights,
    images: Images<'_>,
    instances: &[Instance],
) -> Statistics {
    let calibrator = Calibrator::new(ctx.clone(), network.clone(), weights, instances);
    let mut calibrator = calibrator.expect("a calibrator");
    calibrator.add_batch(images).expect("a batch");
    calibrator.finish().expect("statistics")
}

/// Numbers in [-1, 1) that look like noise.
fn values(len: usize, seed: u64) -> Vec<f32> {
    let value = |i: usize| {
        // SplitMix64.
        let mut z = (seed << 40 | i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(value).collect()
}

/// FNV-1a over the bits of all values.
fn hash(values: &[f32]) -> u64 {
    values.iter().fold(0xcbf2_9ce4_8422_2325, |hash, value| {
        (hash ^ u64::from(value.to_bits())).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

//! Every number of the convolutions that was found by measuring rather than derived: sizes of
//! register blocks, of what is kept in a cache, and of tasks, and from which shape on an
//! algorithm pays.
//!
//! Sizes are in floats, and follow from the caches below where they are about a cache. Each
//! constant names the entry of the log in `docs/performance.md` that it comes from, and the
//! bench that shows what it is worth:
//!
//! - *algorithms*: `cargo bench -p sdpoint-kernels --bench algorithms`, which fails where the
//!   chosen algorithm is more than a tenth slower than another one
//! - *conv_gflops*: `cargo run --release -p sdpoint-kernels --example conv_gflops`, the speed of
//!   single layers next to the peak
//! - *profile*: `sdpoint profile --network NETWORK --layers`, layers as a network runs them

use crate::isa::Registers;

// The caches of a core that the sizes are made for. Larger ones do no harm.

/// The first-level data cache: 32 KiB.
pub const L1: usize = 32 * 1024 / size_of::<f32>();

/// One way of it: addresses this far apart share a set of eight to twelve cache lines.
pub const L1_WAY: usize = L1 / 8;

/// The second-level cache: 1 MiB.
pub const L2: usize = 1024 * 1024 / size_of::<f32>();

/// What a core may count on in the third-level cache, which all cores share: 8 MiB.
pub const L3: usize = 8 * 1024 * 1024 / size_of::<f32>();

/// A cache line.
pub const LINE: usize = 64 / size_of::<f32>();

// Register blocks. *conv_gflops*; log: "tiles of 14 pixels", "loops unrolled for 16 registers".

/// Vectors of output channels in a register block.
pub const VECTORS: usize = 2;

/// The most pixels of a register block with any instruction set.
pub const MAX_PIXELS: usize = 14;

/// The most pixels of a register block of `vectors` vectors of output channels.
///
/// With 32 registers, 14 × 2 sums leave room for two vectors of weights and a broadcast pixel,
/// and 14 divides the rows of common maps. With 16 registers, 6 × 2 sums just hide the latency
/// of a multiply-add. A single vector takes more pixels for that, but with 16 registers each
/// pixel's address occupies a general-purpose register. Blocks of the portable instruction
/// set, which is for machines without AVX2, are smaller, so that fewer kernels are compiled.
#[inline(always)]
pub const fn max_pixels(registers: Registers, vectors: usize) -> usize {
    match (registers.count, registers.lanes, vectors) {
        (32, _, _) => MAX_PIXELS,
        (_, 4, _) => 4,
        (_, _, 1) => 8,
        (_, _, _) => 6,
    }
}

/// Input channels in the body of the innermost loop: with 16 registers the body for one is so
/// short that the loop itself takes a fifth of the time.
#[inline(always)]
pub const fn unroll(registers: Registers) -> usize {
    if registers.count == 32 { 1 } else { 4 }
}

/// The most input channels of a register block of a gradient of weights, for `vectors` vectors
/// of output channels: with 32 registers half of a channel block times two vectors, or a whole
/// one times one.
#[inline(always)]
pub const fn max_rows(registers: Registers, vectors: usize) -> usize {
    match (registers.count, registers.lanes, vectors) {
        (32, _, 1) => 16,
        (32, _, _) => 8,
        (_, 8, 1) => 8,
        (_, _, _) => 4,
    }
}

/// The most rows with any instruction set.
pub const MAX_ROWS: usize = 16;

// The direct algorithm.

/// A band's gathered input: a quarter of the second-level cache, as the weights of an output
/// block, the outputs and the next band's inputs want room too. *conv_gflops*; log: "tasks that
/// threads share evenly".
pub const BAND_FLOATS: usize = L2 / 4;

/// The same for a row of pixels that only one tap reads, so that nothing in it is reused.
pub const ROW_FLOATS: usize = L2 / 8;

/// The same where the weights do not stay in the second-level cache from one band to the next:
/// loading them once more costs more than inputs that come from the third-level cache.
pub const BAND_FLOATS_LARGE_WEIGHTS: usize = L2 * 9 / 16;

/// Weights that stay in the second-level cache while every tile uses all of them. *profile*; log:
/// "reduction in parts".
pub const WEIGHT_FLOATS: usize = L2 / 4;

/// Weights of one output block that all tiles of a band use before the next: with 16 registers
/// they fit the first-level cache. With 32 a tile does twice as much with each weight, so that
/// the second-level cache keeps pace, and more passes over the sums cost more. *conv_gflops*;
/// log: "reduction in parts", "longer parts of the reduction".
#[inline(always)]
pub const fn part_floats(registers: Registers) -> usize {
    if registers.count == 32 { L2 / 4 } else { L1 }
}

/// Tensors that have left a core's caches between two layers, so that prefetching their outputs
/// for writing pays. *profile*; log: "outputs prefetched from 768 KB on".
pub const EVICTED_FLOATS: usize = L2 * 3 / 4;

// Tasks. *profile* with `--threads 2`; log: "tasks that threads share evenly".

/// Multiply-accumulates of a task; fewer are not worth a thread's start.
pub const TASK_MACS: usize = 1 << 20;

/// Tasks for each thread, so that threads that start late or run slower find work that is still
/// divided.
pub const TASKS_PER_THREAD: usize = 4;

/// Multiply-accumulates that take as long as gathering a float.
pub const GATHER_COST: usize = 10;

/// Multiply-accumulates by which a float of weights delays a task if it comes from beyond the
/// second-level cache.
pub const LARGE_WEIGHTS_COST: usize = 4;

// Narrow groups. *conv_gflops*; log: "inputs of narrow groups used by three kernel columns".

/// Pixels of a register block: fewer sums than eight wait for one another, so that smaller
/// blocks, which end a row, are few.
pub const GROUPED_PIXELS: [usize; 6] = [14, 8, 7, 4, 2, 1];

/// Whether there is a kernel for one of these.
#[inline(always)]
pub const fn has_grouped_pixels(registers: Registers, pixels: usize) -> bool {
    match (pixels, registers.count, registers.lanes) {
        (14, count, _) => count == 32,
        // Fewer for the portable instruction set, which is for machines without AVX2.
        (7 | 2, 16, 4) => false,
        _ => true,
    }
}

// Winograd's algorithm. *algorithms*; log: "Winograd's algorithm for 3×3 layers", "Winograd's
// algorithm for 512 channels", "Winograd's tiles of 2×2 outputs".

/// The fewest input and output channels for tiles of 4×4 and of 2×2 outputs: with fewer, the
/// transforms take as long as the saved products.
pub const WINOGRAD_FEWEST_CHANNELS: [usize; 2] = [16, 32];

/// The fewest tiles of a batch: fewer are a small part of a register block, and loading the
/// transformed weights takes longer than the saved products.
pub const WINOGRAD_FEWEST_TILES: usize = 16;

/// How many times the outputs the tiles may cover, as a fraction.
pub const WINOGRAD_MOST_COVERED: [usize; 2] = [3, 2];

/// Transformed inputs at a time, which share the second-level cache with the products of one
/// output block and the weights. *conv_gflops*.
pub const WINOGRAD_BAND_FLOATS: usize = L2 * 9 / 32;

/// Transformed weights of one point that are made when weights are packed; larger ones are made
/// by the first batch that uses them, as they are four times as many as the weights. Log:
/// "Winograd's algorithm for 512 channels".
pub const WINOGRAD_EAGER_FLOATS: usize = L2 / 4;

/// How far ahead transformed weights are prefetched. *conv_gflops*; log: "groups of 16 and 32
/// channels by Winograd's algorithm".
pub const WINOGRAD_PREFETCH_FLOATS: usize = 2048;

// Strassen's algorithm. *algorithms*; log: "Strassen's algorithm product by product",
// "Strassen's algorithm from 128 channels on".

/// The fewest input and output channels. With fewer input channels, passing sums on costs what
/// a product saves; with fewer output channels the sums of inputs are used too seldom.
pub const STRASSEN_FEWEST_CHANNELS: usize = 256;

/// The same where input and output stay in the third-level cache from one layer to the next.
pub const STRASSEN_FEWEST_CACHED_CHANNELS: usize = 128;

/// Floats of input and output that do.
pub const STRASSEN_CACHED_FLOATS: usize = L3;

/// The fewest outputs: with fewer, loading the weights takes longer than the products, or
/// threads that share the weights copy the same inputs.
pub const STRASSEN_FEWEST_OUTPUTS: usize = 48 * 1024;

/// Left sides of the seven products of a band, which share the second-level cache with the
/// weights of two products. *conv_gflops*.
pub const STRASSEN_BAND_FLOATS: usize = L2 * 3 / 4;

// Gradients of weights. *conv_gflops*.

/// Tasks to aim at: enough for any number of threads that such small work can use. The number
/// is fixed, as it decides in which order sums are added.
pub const REDUCTION_TASKS: usize = 16;

/// Pixels that a register block of sums is added over between loading and storing it: enough to
/// make that cheap, few enough to keep their inputs and gradients in the first-level cache.
pub const REDUCTION_PIXELS: usize = 128;

/// Gathered input at a time.
pub const REDUCTION_BAND_FLOATS: usize = L2 / 4;

/// Partial sums that are worth having for more parts.
pub const REDUCTION_PARTIAL_FLOATS: usize = L2;

/// Parts of the pixels of a depth-wise convolution, each with sums of its own.
pub const DEPTHWISE_PARTS: usize = 8;

// The same by Winograd's algorithm. *algorithms*, *conv_gflops*; log: "Winograd's algorithm for
// gradients of wide weights".

/// The fewest tiles: fewer do not pay for the transform of the sums.
pub const WINOGRAD_REDUCTION_FEWEST_TILES: usize = 96;

/// Transformed inputs and gradients of a thread that works on a part of its own, in the
/// second-level cache beside the sums, and the fewest tiles all the same, as the sums are loaded
/// and stored once a band.
pub const WINOGRAD_REDUCTION_BAND: [usize; 2] = [L2 * 5 / 8, 96];

/// Transformed inputs and gradients of all threads together, in the third-level cache, and the
/// fewest tiles all the same.
pub const WINOGRAD_REDUCTION_SHARED_BAND: [usize; 2] = [L3, 128];

/// Tiles that a thread transforms at a time for all.
pub const WINOGRAD_REDUCTION_TASK_TILES: usize = 16;

/// Partial sums that are worth having so that each thread works on a part of its own.
pub const WINOGRAD_REDUCTION_PARTIAL_FLOATS: usize = L3 / 2;

/// Fewer parts than this would leave threads without work.
pub const WINOGRAD_REDUCTION_FEWEST_PARTS: usize = 8;

//! The tuning constants of the convolutions: sizes of register blocks, cache blocks and tasks, and
//! the shapes from which an algorithm pays off. All were found by measuring.
//!
//! Sizes are in floats. Those of cache blocks are fractions of the caches below. Each constant, or
//! the heading of its section, names the benchmark that shows its effect, and the entries of the
//! log in `docs/performance.md` that it comes from:
//!
//! - *algorithms*: `cargo bench -p sdpoint-kernels --bench algorithms`, which fails where the
//!   chosen algorithm is more than 10 % slower than another, or 30 % than one whose weights take
//!   more memory
//! - *conv_gflops*: `cargo run --release -p sdpoint-kernels --example conv_gflops`, single layers
//!   as a share of the peak
//! - *profile*: `sdpoint profile --network NETWORK --layers`, layers within a network

use crate::isa::Registers;

// The caches per core that the sizes are tuned for. Larger caches hold the same blocks; with a
// smaller L2, some strips are read from L3.

/// L1 data cache: 32 KiB.
pub const L1: usize = 32 * 1024 / size_of::<f32>();

/// One way of L1: addresses this far apart map to the same set, of 8 to 12 lines.
pub const L1_WAY: usize = L1 / 8;

/// L2 cache: 1 MiB.
pub const L2: usize = 1024 * 1024 / size_of::<f32>();

/// A core's share of the L3 cache: 8 MiB.
pub const L3: usize = 8 * 1024 * 1024 / size_of::<f32>();

/// A cache line.
pub const LINE: usize = 64 / size_of::<f32>();

// Register blocks. *conv_gflops*; log: "tiles of 14 pixels", "loops unrolled for 16 registers".

/// The most vectors of output channels in a register block, which with their lanes are BLIS's n_R.
///
/// With AVX2, 4 × 3 sums, three vectors of weights and a broadcast pixel take all 16 registers, and
/// 7 loads for 12 multiply-adds, where 6 × 2 sums take 8. Log: "register blocks of three vectors".
#[inline(always)]
pub const fn max_vectors(registers: Registers) -> usize {
    match (registers.count, registers.lanes) {
        (16, 8) => 3,
        _ => 2,
    }
}

/// The most pixels of a register block with any instruction set.
pub const MAX_PIXELS: usize = 14;

/// The most pixels of a register block with `vectors` vectors of output channels: BLIS's m_R.
///
/// With 32 registers, 14 × 2 sums leave room for two vectors of weights and one broadcast pixel,
/// and 14 divides the row lengths of common feature maps (56, 28, 14). With 16 registers, 4 × 3 or
/// 6 × 2 sums leave as much room; two multiply-adds per cycle of 4 or 5 cycles' latency need 8 to 10
/// independent sums. A single vector of channels needs 8 pixels for that; more would take too many
/// of the 16 general-purpose registers, one per pixel's address. The blocks of the portable
/// instruction set, meant for machines without AVX2, are smaller so that fewer micro-kernels are
/// compiled. 0 if there are no blocks of so many vectors.
#[inline(always)]
pub const fn max_pixels(registers: Registers, vectors: usize) -> usize {
    match (registers.count, registers.lanes, vectors) {
        _ if vectors > max_vectors(registers) => 0,
        (32, _, _) => MAX_PIXELS,
        (_, 4, _) => 4,
        (_, _, 1) => 8,
        (_, _, 2) => 6,
        (_, _, _) => 4,
    }
}

/// Input channels per iteration of the innermost loop. With 16 registers, the body for one channel
/// is 12 multiply-adds, so short that the loop's overhead would be a fifth of the time.
#[inline(always)]
pub const fn unroll(registers: Registers) -> usize {
    if registers.count == 32 { 1 } else { 4 }
}

/// Channel blocks per step of the reduction, where a pixel's channels are contiguous over several:
/// in place. With 16 registers, a step of one block is 192 multiply-adds, of which what precedes the
/// innermost loop took an eighth of the time. *profile*; log: "steps of four channel blocks".
pub const fn blocks_of_step(registers: Registers) -> usize {
    if registers.count == 32 { 1 } else { 4 }
}

/// The most rows (input channels) of a register block of a gradient of weights, with `vectors`
/// vectors of output channels: 16 sums with 32 registers, at most 12 with 16. 0 if there are no blocks
/// of so many vectors.
#[inline(always)]
pub const fn max_rows(registers: Registers, vectors: usize) -> usize {
    match (registers.count, registers.lanes, vectors) {
        _ if vectors > max_vectors(registers) => 0,
        (32, _, 1) => 16,
        (32, _, _) => 8,
        (_, 8, 1) => 8,
        (_, _, _) => 4,
    }
}

/// The most rows of such a register block with any instruction set.
pub const MAX_ROWS: usize = 16;

// The direct algorithm.

/// Gathered inputs of a strip: a quarter of L2, which also holds a panel of weights, the outputs
/// and the prefetched inputs of the next strip. *conv_gflops*; log: "tasks that threads share
/// evenly".
pub const STRIP_FLOATS: usize = L2 / 4;

/// The same for a strip of a 1×1 convolution, whose inputs are each read by one tap only.
pub const ROW_FLOATS: usize = L2 / 8;

/// The same where the weights exceed [`WEIGHT_FLOATS`] and are loaded again for each strip: larger
/// strips, as loading the weights more often costs more than reading some of the inputs from L3.
pub const STRIP_FLOATS_LARGE_WEIGHTS: usize = L2 * 9 / 16;

/// The most weights that stay in L2 while every tile uses all of them. *profile*; log:
/// "reduction in parts".
pub const WEIGHT_FLOATS: usize = L2 / 4;

/// The most weights of a panel's part, which all tiles of a strip use before the next part: sets
/// BLIS's k_C. With 32 registers a tile does two to three times as many multiply-adds per weight, so
/// that more passes over the sums would cost more than reading weights from L2. With 16, it also
/// matters that L2 may be smaller. *conv_gflops*; log: "reduction in parts", "longer parts of the
/// reduction", "register blocks of three vectors".
#[inline(always)]
pub const fn part_floats(registers: Registers) -> usize {
    if registers.count == 32 {
        L2 / 4
    } else {
        3 * L1
    }
}

/// The least size of a tensor that is assumed to be evicted from a core's caches between two
/// layers, so that prefetching outputs for writing pays off. *profile*; log: "outputs prefetched
/// from 768 KB on".
pub const EVICTED_FLOATS: usize = L2 * 3 / 4;

// Tasks. *profile* with `--threads 2`; log: "tasks that threads share evenly".

/// The least multiply-accumulates of a task that are worth waking a thread for.
pub const TASK_MACS: usize = 1 << 20;

/// Tasks per thread. Several, so that the others can take over tasks of a thread that started late
/// or runs slower.
pub const TASKS_PER_THREAD: usize = 4;

/// Cost of gathering one float, in multiply-accumulates, in the model of [`super::partition`].
pub const GATHER_COST: usize = 10;

/// Cost of loading one float of weights from beyond L2, in multiply-accumulates, in the same model.
pub const LARGE_WEIGHTS_COST: usize = 4;

/// The most input channels for which kernel columns are treated as channels, as im2col does: a block
/// of channels would be mostly empty. *conv_gflops*, for the first layers of networks.
pub const UNROLLED_CHANNELS: usize = 4;

// Narrow groups. *conv_gflops*; log: "inputs of narrow groups used by three kernel columns".

/// Pixels of a register block of one vector, in order of preference. Fewer than eight independent
/// sums do not hide the latency of a multiply-add, so the smaller blocks only end a row.
pub const GROUPED_PIXELS: [usize; 6] = [14, 8, 7, 4, 2, 1];

/// The most channels per group for which vectors that span groups (`grouped/`) are faster than
/// groups merged into dense ones of 16 channels (`merge.rs`), which take 16 / 8 or 16 / 4 times
/// the multiply-adds. Spreading an input over the lanes of its group is a broadcast where a
/// group fills a vector, and otherwise takes one permutation for groups of four and two for
/// groups of eight. Two cost more than they save, unless three kernel columns share the result
/// (`docs/performance.md`, below the log).
pub const fn widest_group(three_columns_share: bool, lanes: usize) -> usize {
    if three_columns_share || lanes <= 8 {
        8
    } else {
        4
    }
}

/// Whether a micro-kernel for this many pixels is compiled.
#[inline(always)]
pub const fn has_grouped_pixels(registers: Registers, pixels: usize) -> bool {
    match (pixels, registers.count, registers.lanes) {
        (14, count, _) => count == 32,
        // Fewer for the portable instruction set, which is for machines without AVX2.
        (8 | 7 | 2, 16, 4) => false,
        _ => true,
    }
}

// Winograd's algorithm. *algorithms*; log: "Winograd's algorithm for 3×3 layers", "Winograd's
// algorithm for 512 channels", "Winograd's tiles of 2×2 outputs".

/// The fewest input and output channels for F(4×4, 3×3) and for F(2×2, 3×3). With fewer, the
/// transforms take as long as the saved multiplications.
pub const WINOGRAD_FEWEST_CHANNELS: [usize; 2] = [16, 32];

/// The fewest tiles of a batch for F(2×2, 3×3). With fewer, register blocks are mostly empty, and
/// loading the transformed weights takes longer than the saved multiplications.
pub const WINOGRAD_TWO_FEWEST_TILES: usize = 16;

/// The same for F(4×4, 3×3), whose transformed weights take more than twice as much memory: fewer
/// tiles where they stay in L2, more where they are 9 MB and larger. There, the time that a single
/// image gains over F(2×2, 3×3) is less than 2 % of ResNet-50's, and its instances need that form
/// anyway. Log: "Winograd's larger tiles for wide layers only from 32 tiles on".
pub const fn winograd_four_fewest_tiles(channels: usize) -> usize {
    match channels {
        ..=64 => 4,
        65..256 => 16,
        256.. => 32,
    }
}

/// The most outputs that the tiles may cover, as a multiple (numerator, denominator) of those that
/// exist: tiles at the border compute outputs beyond it.
pub const WINOGRAD_MOST_COVERED: [usize; 2] = [3, 2];

/// Transformed inputs of a strip, which share L2 with the sums of one panel and the weights.
/// *conv_gflops*.
pub const WINOGRAD_STRIP_FLOATS: usize = L2 * 9 / 32;

/// The most transformed weights per point that are computed at packing time. Larger ones are
/// computed by the first batch that uses them, as they take four times the memory of the weights.
/// Log: "Winograd's algorithm for 512 channels".
pub const WINOGRAD_EAGER_FLOATS: usize = L2 / 8;

/// Prefetch distance in the transformed weights: 8 KB. *conv_gflops*; log: "a group's transformed
/// weights side by side".
pub const WINOGRAD_PREFETCH_FLOATS: usize = 2048;

// Strassen's algorithm. *algorithms*; log: "Strassen's algorithm product by product",
// "Strassen's algorithm from 256 channels on only".

/// The fewest input and output channels. With fewer input channels, storing and reloading
/// intermediate sums costs as much as the saved product. With fewer output channels, the sums of
/// input quadrants are reused too rarely.
pub const STRASSEN_FEWEST_CHANNELS: usize = 256;

/// Whether Strassen's algorithm has micro-kernels. With 16 registers, tiles have at most 6 pixels
/// instead of 14, so that storing and reloading their sums costs more than the saved product. Log:
/// "Strassen's algorithm from 1024 channels on with AVX2", "register blocks of three vectors".
pub const fn has_strassen(registers: Registers) -> bool {
    registers.count == 32
}

/// The fewest pixels of a batch for this many weights. With fewer, loading the sums of weights
/// takes longer than the saved product; where the weights exceed L2, they take more memory than
/// the time is worth. Log: "Strassen's algorithm for large weights only from 100 pixels on".
pub const fn strassen_fewest_pixels(weights: usize) -> usize {
    if weights <= L2 { 48 } else { 100 }
}

/// Left operands of the seven products of a strip, which share L2 with the weights of two
/// products. *conv_gflops*.
pub const STRASSEN_STRIP_FLOATS: usize = L2 * 3 / 4;

// Gradients of weights. *conv_gflops*.

/// The number of tasks, of which up to as many are parts with partial sums of their own. Fixed
/// rather than derived from the number of threads, as the parts determine the order of additions.
pub const REDUCTION_TASKS: usize = 16;

/// Pixels reduced between loading and storing a register block of sums: many enough to make that
/// cheap, few enough to keep their inputs and gradients in L1.
pub const REDUCTION_PIXELS: usize = 128;

/// Gathered inputs of a strip, as [`STRIP_FLOATS`].
pub const REDUCTION_STRIP_FLOATS: usize = L2 / 4;

/// The most partial sums of all parts together.
pub const REDUCTION_PARTIAL_FLOATS: usize = L2;

/// Parts of the pixels of a depth-wise convolution, each with partial sums of its own. Its tasks
/// divide the channel blocks, too.
pub const DEPTHWISE_PARTS: usize = 8;

// The same by Winograd's algorithm. *algorithms*, *conv_gflops*; log: "Winograd's algorithm for
// gradients of wide weights".

/// The fewest tiles. With fewer, the transform of the sums costs more than is saved.
pub const WINOGRAD_REDUCTION_FEWEST_TILES: usize = 16;

/// Strips where each task reduces a part of its own: the most transformed floats, which share L2
/// with the sums; and the fewest tiles, whatever their size, as the sums are loaded and stored
/// once per strip.
pub const WINOGRAD_REDUCTION_STRIP: [usize; 2] = [L2 * 5 / 8, 96];

/// The same for strips that all threads reduce together, which stay in L3.
pub const WINOGRAD_REDUCTION_SHARED_STRIP: [usize; 2] = [L3, 128];

/// Tiles per task while all threads transform a shared strip.
pub const WINOGRAD_REDUCTION_TASK_TILES: usize = 16;

/// The most partial sums of all parts together; if that allows too few parts, threads share one.
pub const WINOGRAD_REDUCTION_PARTIAL_FLOATS: usize = L3 / 2;

/// With fewer parts than this, threads would be idle.
pub const WINOGRAD_REDUCTION_FEWEST_PARTS: usize = 8;

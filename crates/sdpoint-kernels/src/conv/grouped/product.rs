//! Forward pass and data gradient with few channels per group.
//!
//! With groups of four, for example, output channels 0 to 3 depend on input channels 0 to 3, and 4
//! to 7 on 4 to 7. At each tap, a vector of output channels is the sum of four products of vectors:
//! weights times the inputs with channel 0 spread over lanes 0 to 3, channel 4 over lanes 4 to 7,
//! and so on; the same with channels 1 and 5; with 2 and 6; and with 3 and 7. One or two
//! permutations make each of these vectors from the vector of inputs ([`load_spread`]).

use rten_simd::ops::{BitOps, NumOps};
use rten_simd::{Isa, SimdOp};

use super::weights::GroupedWeights;
use crate::array::array;
use crate::context::Context;
use crate::conv::epilogue::TileEpilogue;
use crate::conv::gather::{BLOCK, Strip, StripLayout, Taps, gather};
use crate::conv::partition::{Partition, Work};
use crate::conv::problem::Problem;
use crate::conv::product::Product;
use crate::conv::tuning::{GROUPED_PIXELS, has_grouped_pixels};
use crate::isa::Registers;
use crate::lanes::load_masked;

/// Computes a product with the grouped algorithm.
pub(in crate::conv) fn run(ctx: &Context, product: &Product<'_>, weights: &GroupedWeights) {
    let Problem {
        window,
        batch,
        grid,
        ..
    } = product.problem;
    let blocks = weights.channels.div_ceil(BLOCK);
    let width = weights.width;
    // A task is one channel block of a strip. No two share inputs, so for the partition a channel
    // block is an image of its own.
    let partition = Partition::new(
        &Work {
            window,
            batch: batch * blocks,
            grid,
            channels: BLOCK,
            macs_per_pixel: weights.taps * BLOCK * width,
            weights: weights.taps * BLOCK * width,
            panels: 1,
        },
        ctx.threads(),
    );
    let layout = StripLayout::new(window, partition.strip[0], partition.strip[1]);
    let taps = Taps::new(&layout);
    let strips = partition.all_strips(batch);
    ctx.parallel_with(
        strips * blocks,
        || ctx.scratch(layout.plane),
        |gathered, task| {
            let block = Block {
                product,
                weights,
                layout: &layout,
                taps: &taps,
                strip: partition.strip(grid, task / blocks),
                number: task % blocks,
                gathered,
            };
            match (width, window.shares_three_columns()) {
                (1, false) => ctx.dispatch(RunBlock::<1, 1>(block)),
                (1, true) => ctx.dispatch(RunBlock::<1, 3>(block)),
                (2, false) => ctx.dispatch(RunBlock::<2, 1>(block)),
                (2, true) => ctx.dispatch(RunBlock::<2, 3>(block)),
                (4, false) => ctx.dispatch(RunBlock::<4, 1>(block)),
                (4, true) => ctx.dispatch(RunBlock::<4, 3>(block)),
                (8, false) => ctx.dispatch(RunBlock::<8, 1>(block)),
                (8, true) => ctx.dispatch(RunBlock::<8, 3>(block)),
                _ => unreachable!("groups of {width} channels"),
            }
        },
    );
}

/// A channel block of a strip.
struct Block<'a> {
    product: &'a Product<'a>,
    weights: &'a GroupedWeights,
    layout: &'a StripLayout,
    taps: &'a [usize],
    strip: Strip,
    /// Index of the channel block.
    number: usize,
    /// Buffer for the gathered inputs of a channel block, [`BLOCK`] floats per pixel.
    gathered: &'a mut [f32],
}

/// Computes a block with `W` channels per group, `C` neighbouring kernel columns at a time.
struct RunBlock<'a, const W: usize, const C: usize>(Block<'a>);

impl<const W: usize, const C: usize> SimdOp for RunBlock<'_, W, C> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Block {
            product,
            weights,
            layout,
            taps,
            strip,
            number,
            gathered,
        } = self.0;
        let lanes = isa.f32().len();
        let first = number * BLOCK;
        let channels = BLOCK.min(weights.channels - first);
        let source = &product.source;
        gather(isa, source, layout, &strip, first, channels, gathered);
        let kernels = weights.block(number);
        let out = &product.problem.output;
        for row in 0..strip.height() {
            let mut start = 0;
            while start < strip.width() {
                let pixels = pixels::<I>(strip.width() - start);
                let at = out.of(&strip) + row * out.row + start * out.pixel + first;
                for lane in (0..channels).step_by(lanes) {
                    let from = row * layout.row + start * BLOCK + lane / W * W;
                    let tile = Tile {
                        input: gathered[from..].as_ptr(),
                        taps,
                        kernels: kernels[lane..].as_ptr(),
                        // SAFETY: the strip's outputs lie in the output tensor.
                        output: unsafe { product.output.as_ptr().add(at + lane) },
                        step: out.pixel,
                        channels: lanes.min(channels - lane),
                        accumulate: product.accumulate,
                        epilogue: &product.epilogue,
                        at: at + lane,
                        channel: first + lane,
                    };
                    // SAFETY: the gathered strip holds the pixels at all taps, and the outputs
                    // are this task's alone; residual and second output equal them in length.
                    unsafe { run_pixels::<I, W, C>(isa, pixels, &tile) };
                }
                start += pixels;
            }
        }
    }
}

/// The number of pixels of the next tile, when a row has `left` more.
#[inline(always)]
fn pixels<I: Isa>(left: usize) -> usize {
    // 14 and 7 only where they use up the row exactly; otherwise tiles of 8 come first.
    let suits = |pixels: usize| match pixels {
        14 => left.is_multiple_of(14),
        7 => left == 7,
        _ => pixels <= left,
    };
    let mut sizes = GROUPED_PIXELS.into_iter();
    sizes
        .find(|&pixels| has_grouped_pixels(Registers::of::<I>(), pixels) && suits(pixels))
        .unwrap_or(1)
}

/// Computes a tile of `pixels` pixels.
///
/// # Safety
///
/// The tile's addresses must be valid for the pixels and all taps.
#[inline(always)]
unsafe fn run_pixels<I: Isa, const W: usize, const C: usize>(
    isa: I,
    pixels: usize,
    tile: &Tile<'_>,
) {
    macro_rules! choose {
        ($($p:literal)*) => {
            match pixels {
                $(
                    $p if const { has_grouped_pixels(Registers::of::<I>(), $p) } => {
                        // SAFETY: the caller's promise.
                        unsafe { run_tile::<I, W, $p, C>(isa, tile) }
                    }
                )*
                _ => unreachable!("a tile of {pixels} pixels"),
            }
        };
    }
    choose!(14 8 7 4 2 1);
}

/// The inputs at `pixel`, with channel `input` of each group of `W` channels spread over all lanes
/// of that group.
///
/// # Safety
///
/// A vector must be readable there, and a group.
#[inline(always)]
unsafe fn load_spread<I: Isa, const W: usize>(isa: I, pixel: *const f32, input: usize) -> I::F32 {
    let ops = isa.f32();
    // SAFETY: the caller's promise; and a vector has at most `BLOCK` lanes.
    unsafe {
        if W == 1 {
            return ops.load_ptr(pixel);
        }
        if W >= ops.len() {
            return ops.splat(*pixel.add(input));
        }
        // The compiler turns these arrays into one or two permutations of registers. They are
        // written out because a function has hundreds of them, and loops would take the compiler
        // most of the time that it needs for this crate.
        let mut lanes = [0.0_f32; BLOCK];
        ops.store_ptr(ops.load_ptr(pixel), lanes.as_mut_ptr());
        macro_rules! spread {
            ($($lane:literal)*) => { [$(lanes[$lane / W * W + input]),*] };
        }
        let spread: [f32; BLOCK] = spread!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
        ops.load_ptr(spread.as_ptr())
    }
}

/// A tile: neighbouring pixels times one vector of channels.
struct Tile<'a> {
    /// The first pixel at the first tap, at the first channel of the vector's first group. Pixels
    /// are [`BLOCK`] floats apart.
    input: *const f32,
    /// Offset of each tap's pixels from `input`.
    taps: &'a [usize],
    /// The channels' weights at the first tap. Vectors are [`BLOCK`] floats apart.
    kernels: *const f32,
    output: *mut f32,
    /// Stride between pixels of the output.
    step: usize,
    /// Channels that exist.
    channels: usize,
    /// Whether to add to the output's content.
    accumulate: bool,
    epilogue: &'a TileEpilogue<'a>,
    /// Index of `output` in the output tensor.
    at: usize,
    /// Output channel of `output`.
    channel: usize,
}

/// Computes a tile of `P` pixels, `C` neighbouring kernel columns at a time.
///
/// # Safety
///
/// The tile's addresses must be valid for `P` pixels and all taps.
#[inline(always)]
unsafe fn run_tile<I: Isa, const W: usize, const P: usize, const C: usize>(
    isa: I,
    tile: &Tile<'_>,
) {
    let ops = isa.f32();
    // SAFETY: this function's contract.
    unsafe {
        let sums = add_products::<I, W, P, C>(isa, tile);
        // With more than one channel per group, channel blocks are always full.
        if const { W > 1 } || tile.channels == ops.len() {
            let places = array(|p| p * tile.step);
            let Tile { output, at, .. } = *tile;
            tile.epilogue.store_full(
                isa,
                tile.channel,
                sums,
                &places,
                output,
                at,
                tile.accumulate,
            );
        } else {
            let lanes = tile.epilogue.lanes(isa, tile.channel, tile.channels);
            for (p, &sum) in sums.iter().enumerate() {
                let to = tile.output.add(p * tile.step);
                let sum = if tile.accumulate {
                    ops.add(load_masked(isa, to, lanes.mask), sum)
                } else {
                    sum
                };
                tile.epilogue
                    .store(isa, &lanes, sum, to, tile.at + p * tile.step);
            }
        }
    }
}

/// The sums of the products of all taps, `C` neighbouring kernel columns at a time: each spread
/// input is multiplied with the weights of all `C` columns before the next is spread.
///
/// # Safety
///
/// As for [`run_tile`]; and if `C` is more than 1, the kernel must have a multiple of `C` columns,
/// and neighbouring outputs read neighbouring inputs.
#[inline(always)]
unsafe fn add_products<I: Isa, const W: usize, const P: usize, const C: usize>(
    isa: I,
    tile: &Tile<'_>,
) -> [I::F32; P] {
    let mut sums = [isa.f32().zero(); P];
    let mut kernels = tile.kernels;
    for &tap in tile.taps.iter().step_by(C) {
        // Unrolled by a macro, as spreading in registers needs the channel as a constant.
        macro_rules! channels {
            ($($channel:literal)*) => {$(
                if const { $channel < W } {
                    // SAFETY: the caller's promise.
                    sums = unsafe {
                        let input = tile.input.add(tap);
                        add_channel::<I, W, P, C>(isa, input, kernels, $channel, sums)
                    };
                }
            )*};
        }
        channels!(0 1 2 3 4 5 6 7);
        // SAFETY: as above.
        kernels = unsafe { kernels.add(C * W * BLOCK) };
    }
    sums
}

/// Adds the products of one input channel of each group at `C` neighbouring kernel columns. Column
/// `k` of output pixel `p` reads input pixel `p + k`, so each of `P + C - 1` inputs is loaded once
/// and used for up to `C` outputs.
///
/// # Safety
///
/// As for [`add_products`].
#[inline(always)]
unsafe fn add_channel<I: Isa, const W: usize, const P: usize, const C: usize>(
    isa: I,
    input: *const f32,
    kernels: *const f32,
    channel: usize,
    mut sums: [I::F32; P],
) -> [I::F32; P] {
    let ops = isa.f32();
    // SAFETY: the caller's promise.
    let load = |k: usize| unsafe { ops.load_ptr(kernels.add((k * W + channel) * BLOCK)) };
    let mut columns = [load(0); C];
    // Unrolled by macros, as the compiler does not unroll a loop over 16 pixels, and takes long for
    // the hundreds of short loops over columns.
    macro_rules! load_columns {
        ($($k:literal)*) => {$(
            if const { $k < C } {
                columns[$k] = load($k);
            }
        )*};
    }
    load_columns!(1 2);
    macro_rules! add_columns {
        ($q:literal $pixel:ident $($k:literal)*) => {$(
            if const { $k < C && usize::wrapping_sub($q, $k) < P } {
                let p = usize::wrapping_sub($q, $k);
                sums[p] = ops.mul_add($pixel, columns[$k], sums[p]);
            }
        )*};
    }
    macro_rules! pixels {
        ($($q:literal)*) => {$(
            if const { $q < P + C - 1 } {
                // SAFETY: the caller's promise.
                let pixel = unsafe { load_spread::<I, W>(isa, input.add($q * BLOCK), channel) };
                add_columns!($q pixel 0 1 2);
            }
        )*};
    }
    pixels!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
    sums
}

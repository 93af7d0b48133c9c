//! A product in groups of few channels.
//!
//! In groups of four, say, output channels 0 to 3 depend on input channels 0 to 3. A vector of
//! output channels is multiplied with four vectors of inputs, of which the first has channel 0 in
//! its lanes 0 to 3 and channel 4 in the next four, the second channels 1 and 5, and so on. Each is
//! an instruction or two away from the vector of inputs.

use rten_simd::ops::{BitOps, NumOps};
use rten_simd::{Isa, SimdOp};

use super::weights::GroupedWeights;
use crate::context::Context;
use crate::conv::cut::{Cut, Work};
use crate::conv::epilogue::{self, Finish};
use crate::conv::gather::{BLOCK, Band, BandLayout, Taps, gather};
use crate::conv::problem::Problem;
use crate::conv::product::Product;
use crate::conv::tuning::{GROUPED_PIXELS, has_grouped_pixels};
use crate::isa::Registers;

/// Computes a product whose weights are packed for groups.
pub(in crate::conv) fn run(ctx: &Context, product: &Product<'_>, weights: &GroupedWeights) {
    let Problem {
        window,
        batch,
        grid,
        ..
    } = product.problem;
    let blocks = weights.channels.div_ceil(BLOCK);
    let width = weights.width;
    // A task has one channel block, and nothing in common with the others'.
    let cut = Cut::new(
        &Work {
            window,
            batch: batch * blocks,
            grid,
            channels: BLOCK,
            macs_per_pixel: weights.taps * BLOCK * width,
            weights: weights.taps * BLOCK * width,
            units: 1,
        },
        ctx.threads(),
    );
    let layout = BandLayout::new(window, cut.band[0], cut.band[1]);
    let taps = Taps::new(&layout);
    let bands = cut.all_bands(batch);
    ctx.parallel_with(
        bands * blocks,
        || ctx.scratch(layout.plane),
        |gathered, task| {
            let block = Block {
                product,
                weights,
                layout: &layout,
                taps: &taps,
                band: cut.band(grid, task / blocks),
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

/// A channel block of a band.
struct Block<'a> {
    product: &'a Product<'a>,
    weights: &'a GroupedWeights,
    layout: &'a BandLayout,
    taps: &'a [usize],
    band: Band,
    /// Which channel block.
    number: usize,
    /// Room for the inputs of a channel block, [`BLOCK`] floats a pixel.
    gathered: &'a mut [f32],
}

/// Computes a block of groups of `W` channels, `C` neighbouring columns of the kernel at a time.
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
            band,
            number,
            gathered,
        } = self.0;
        let lanes = isa.f32().len();
        let first = number * BLOCK;
        let channels = BLOCK.min(weights.channels - first);
        let source = &product.source;
        gather(isa, source, layout, &band, first, channels, gathered);
        let kernels = weights.block(number);
        let out = &product.problem.output;
        for row in 0..band.height() {
            let mut start = 0;
            while start < band.width() {
                let pixels = pixels::<I>(band.width() - start);
                let at = out.of(&band) + row * out.row + start * out.pixel + first;
                for lane in (0..channels).step_by(lanes) {
                    let from = row * layout.row + start * BLOCK + lane / W * W;
                    let tile = Tile {
                        input: gathered[from..].as_ptr(),
                        taps,
                        kernels: kernels[lane..].as_ptr(),
                        // SAFETY: the band's outputs lie in the output tensor.
                        output: unsafe { product.output.as_ptr().add(at + lane) },
                        step: out.pixel,
                        channels: lanes.min(channels - lane),
                        accumulate: product.accumulate,
                        finish: &product.finish,
                        at: at + lane,
                        channel: first + lane,
                    };
                    // SAFETY: the gathered band holds the pixels at all taps, and the outputs
                    // are this task's alone; residual and second output equal them in length.
                    unsafe { run_pixels::<I, W, C>(isa, pixels, &tile) };
                }
                start += pixels;
            }
        }
    }
}

/// How many of the `left` pixels of a row the next tile has.
#[inline(always)]
fn pixels<I: Isa>(left: usize) -> usize {
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

/// Computes a tile of so many pixels.
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

/// The vector that has channel `input` of each group of `W` in all lanes of that group, of a
/// pixel whose first group of these is at `pixel`.
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
        // Arrays, for which the compiler finds the instruction or two that do this in
        // registers.
        let mut lanes = [0.0_f32; BLOCK];
        ops.store_ptr(ops.load_ptr(pixel), lanes.as_mut_ptr());
        let spread: [f32; BLOCK] = std::array::from_fn(|lane| lanes[lane / W * W + input]);
        ops.load_ptr(spread.as_ptr())
    }
}

/// Neighbouring pixels and one vector of channels of groups of `W`.
struct Tile<'a> {
    /// The first of the vector's groups, of the first pixel at the first tap; pixels are
    /// [`BLOCK`] floats apart.
    input: *const f32,
    /// Where each tap's pixels lie, seen from `input`.
    taps: &'a [usize],
    /// The channels' weights at the first tap; vectors are [`BLOCK`] floats apart.
    kernels: *const f32,
    output: *mut f32,
    /// Between pixels of the output.
    step: usize,
    /// Channels that exist.
    channels: usize,
    accumulate: bool,
    finish: &'a Finish<'a>,
    /// Which element of the output tensor `output` is.
    at: usize,
    /// Which of the output tensor's channels that is.
    channel: usize,
}

/// Computes `P` pixels, `C` neighbouring columns of the kernel at a time.
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
        // Wider groups fill channel blocks.
        if const { W > 1 } || tile.channels == ops.len() {
            let places = std::array::from_fn(|p| p * tile.step);
            let Tile { output, at, .. } = *tile;
            tile.finish.store_whole(
                isa,
                tile.channel,
                sums,
                &places,
                output,
                at,
                tile.accumulate,
            );
        } else {
            let lanes = tile.finish.lanes(isa, tile.channel, tile.channels);
            for (p, &sum) in sums.iter().enumerate() {
                let to = tile.output.add(p * tile.step);
                let sum = if tile.accumulate {
                    ops.add(epilogue::load(isa, to, lanes.mask), sum)
                } else {
                    sum
                };
                tile.finish
                    .store(isa, &lanes, sum, to, tile.at + p * tile.step);
            }
        }
    }
}

/// The sums of the products of all taps, `C` neighbouring columns of the kernel at a time: an
/// input is multiplied with all of them before the next is spread.
///
/// # Safety
///
/// As for [`run_tile`]; and with several columns at a time, the kernel must have a multiple of
/// them, and neighbouring pixels see neighbouring columns of the input.
#[inline(always)]
unsafe fn add_products<I: Isa, const W: usize, const P: usize, const C: usize>(
    isa: I,
    tile: &Tile<'_>,
) -> [I::F32; P] {
    let mut sums = [isa.f32().zero(); P];
    let mut kernels = tile.kernels;
    for &tap in tile.taps.iter().step_by(C) {
        // Written out, as a channel has to be a constant to be spread in registers.
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

/// Adds the products of one input channel of each group at `C` neighbouring columns.
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
    let columns: [I::F32; C] =
        std::array::from_fn(|k| unsafe { ops.load_ptr(kernels.add((k * W + channel) * BLOCK)) });
    // Written out, as the compiler does not unroll a loop over so many.
    macro_rules! pixels {
        ($($q:literal)*) => {$(
            if const { $q < P + C - 1 } {
                // SAFETY: the caller's promise.
                let pixel = unsafe { load_spread::<I, W>(isa, input.add($q * BLOCK), channel) };
                for k in 0..C {
                    let p = usize::wrapping_sub($q, k);
                    if p < P {
                        sums[p] = ops.mul_add(pixel, columns[k], sums[p]);
                    }
                }
            }
        )*};
    }
    pixels!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
    sums
}

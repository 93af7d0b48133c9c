//! Convolutions in groups of few channels, depth-wise ones among them: vectors run over output
//! channels, and there is no matrix product.
//!
//! In groups of four, say, output channels 0 to 3 see input channels 0 to 3. A vector of output
//! channels meets four vectors of inputs, of which the first has channel 0 in its lanes 0 to 3
//! and channel 4 in the next four, the second channels 1 and 5, and so on. Each is an
//! instruction or two away from the vector of inputs.

use rten_simd::ops::{BitOps, NumOps};
use rten_simd::{Isa, SimdOp};

use super::cut::{Cut, Work};
use super::epilogue::{self, Finish};
use super::gather::{BLOCK, Band, BandLayout, Taps, gather};
use super::microkernel::has_32_registers;
use super::pack::{KernelPlace, Kernels};
use super::product::Product;
use crate::context::Context;
use crate::memory::AlignedVec;

/// The weights of groups of `width` channels, in the order `[channel block][tap][channel of the
/// group][BLOCK]`.
#[derive(Clone, Debug)]
pub(super) struct NarrowWeights {
    channels: usize,
    width: usize,
    taps: usize,
    data: AlignedVec,
}

impl NarrowWeights {
    pub fn zeros(ctx: &Context, channels: usize, width: usize, taps: usize) -> Self {
        let data = ctx.lasting(channels.next_multiple_of(BLOCK) * width * taps);
        NarrowWeights {
            channels,
            width,
            taps,
            data,
        }
    }

    /// Takes the weights from where `kernels` finds them, who counts the inputs of as many
    /// channels as `merged` together.
    pub fn fill(&mut self, kernels: &Kernels<'_, impl KernelPlace>, merged: usize) {
        let width = self.width;
        for channel in 0..self.channels {
            let first = channel % merged / width * width;
            for input in 0..width {
                let place = (kernels.place)(channel, first + input);
                let place = place.expect("a channel sees its group");
                for (tap, offset) in kernels.taps.iter().enumerate() {
                    let row = (channel / BLOCK * self.taps + tap) * width + input;
                    self.data[row * BLOCK + channel % BLOCK] = kernels.weights[place + offset];
                }
            }
        }
    }

    pub fn bytes(&self) -> usize {
        size_of_val::<[f32]>(&self.data)
    }

    fn block(&self, block: usize) -> &[f32] {
        let len = self.taps * self.width * BLOCK;
        &self.data[block * len..][..len]
    }
}

/// Computes a product whose groups are narrow.
pub(super) fn run(ctx: &Context, product: &Product<'_>, weights: &NarrowWeights) {
    let blocks = weights.channels.div_ceil(BLOCK);
    let width = weights.width;
    // A task has one channel block, and nothing in common with the others'.
    let cut = Cut::new(
        &Work {
            window: product.window,
            batch: product.batch * blocks,
            grid: product.grid,
            channels: BLOCK,
            macs_per_pixel: weights.taps * BLOCK * width,
            weights: weights.taps * BLOCK * width,
            units: 1,
        },
        ctx.threads(),
    );
    let layout = BandLayout::new(product.window, cut.band[0], cut.band[1]);
    let taps = Taps::new(&layout);
    let bands = cut.all_bands(product.batch);
    ctx.parallel_with(
        bands * blocks,
        || ctx.scratch(layout.plane),
        |gathered, task| {
            ctx.dispatch(RunBlock {
                product,
                weights,
                layout: &layout,
                taps: &taps,
                band: cut.band(product.grid, task / blocks),
                block: task % blocks,
                gathered,
            });
        },
    );
}

struct RunBlock<'a> {
    product: &'a Product<'a>,
    weights: &'a NarrowWeights,
    layout: &'a BandLayout,
    taps: &'a [usize],
    band: Band,
    /// Which channel block.
    block: usize,
    /// Room for the inputs of a channel block, [`BLOCK`] floats a pixel.
    gathered: &'a mut [f32],
}

impl SimdOp for RunBlock<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        match self.weights.width {
            1 => self.run::<I, 1>(isa),
            2 => self.run::<I, 2>(isa),
            4 => self.run::<I, 4>(isa),
            8 => self.run::<I, 8>(isa),
            width => unreachable!("groups of {width} channels are not narrow"),
        }
    }
}

impl RunBlock<'_> {
    #[inline(always)]
    fn run<I: Isa, const W: usize>(self, isa: I) {
        let RunBlock {
            product,
            weights,
            layout,
            taps,
            band,
            block,
            gathered,
        } = self;
        let lanes = isa.f32().len();
        let first = block * BLOCK;
        let channels = BLOCK.min(weights.channels - first);
        gather(
            isa,
            &product.source,
            layout,
            &band,
            first,
            channels,
            gathered,
        );
        let kernels = weights.block(block);
        let out = &product.layout;
        let three = product.window.shares_three_columns();
        for row in 0..band.height() {
            let mut start = 0;
            while start < band.width() {
                // Fewer sums than eight wait for one another, so that these are few.
                let pixels = match band.width() - start {
                    left if left.is_multiple_of(14) && has_32_registers::<I>() => 14,
                    8.. => 8,
                    7 => 7,
                    4.. => 4,
                    2.. => 2,
                    _ => 1,
                };
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
                    unsafe {
                        match pixels {
                            14 if has_32_registers::<I>() => {
                                run_tile::<I, W, 14>(isa, &tile, three)
                            }
                            8 => run_tile::<I, W, 8>(isa, &tile, three),
                            7 => run_tile::<I, W, 7>(isa, &tile, three),
                            4 => run_tile::<I, W, 4>(isa, &tile, three),
                            2 => run_tile::<I, W, 2>(isa, &tile, three),
                            _ => run_tile::<I, W, 1>(isa, &tile, three),
                        }
                    }
                }
                start += pixels;
            }
        }
    }
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

/// Computes `P` pixels; `three` if the kernel has three columns, and neighbouring pixels see
/// neighbouring columns of the input.
///
/// # Safety
///
/// The tile's addresses must be valid for `P` pixels and all taps.
#[inline(always)]
unsafe fn run_tile<I: Isa, const W: usize, const P: usize>(isa: I, tile: &Tile<'_>, three: bool) {
    let ops = isa.f32();
    // SAFETY: this function's contract.
    unsafe {
        let sums = if three {
            add_products::<I, W, P, 3>(isa, tile)
        } else {
            add_products::<I, W, P, 1>(isa, tile)
        };
        if tile.channels == ops.len() {
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
/// input meets all of these before the next is spread.
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
        // Written out, for a channel has to be a constant to be spread in registers.
        macro_rules! channels {
            ($($channel:literal)*) => {$(
                if $channel < W {
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
    // Written out, for the compiler does not unroll a loop over so many.
    macro_rules! pixels {
        ($($q:literal)*) => {$(
            if $q < P + C - 1 {
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

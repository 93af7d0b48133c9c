//! Convolutions in groups of few channels, depth-wise ones among them: vectors run over output
//! channels, and there is no matrix product.
//!
//! In groups of four, say, output channels 0 to 3 see input channels 0 to 3. A vector of output
//! channels meets four vectors of inputs, of which the first has channel 0 in its lanes 0 to 3
//! and channel 4 in the next four, the second channels 1 and 5, and so on. They are made when
//! inputs are gathered, once for all taps.

use rten_simd::ops::{BitOps, NumOps};
use rten_simd::{Isa, SimdOp};

use super::cut::{Cut, Work};
use super::gather::{BLOCK, Band, BandLayout, Taps, gather};
use super::pack::{KernelPlace, Kernels};
use super::product::Product;
use crate::context::Context;
use crate::memory::AlignedVec;
use crate::scratch::Scratch;

/// Pixels whose sums are held in registers together.
const PIXELS: usize = 8;

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
            channels: BLOCK * width,
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
        || State {
            gathered: ctx.scratch(layout.plane),
            spread: (width > 1).then(|| ctx.scratch(layout.plane * width)),
        },
        |state, task| {
            ctx.dispatch(RunBlock {
                product,
                weights,
                layout: &layout,
                taps: &taps,
                band: cut.band(product.grid, task / blocks),
                block: task % blocks,
                state,
            });
        },
    );
}

/// What a thread keeps from one task to the next.
struct State<'a> {
    /// A block of channels, [`BLOCK`] floats a pixel.
    gathered: Scratch<'a>,
    /// The same as vectors of inputs, `width` times [`BLOCK`] floats a pixel; for depth-wise
    /// convolutions there is no difference.
    spread: Option<Scratch<'a>>,
}

struct RunBlock<'a, 'b> {
    product: &'a Product<'a>,
    weights: &'a NarrowWeights,
    layout: &'a BandLayout,
    taps: &'a [usize],
    band: Band,
    /// Which channel block.
    block: usize,
    state: &'a mut State<'b>,
}

impl SimdOp for RunBlock<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let RunBlock {
            product,
            weights,
            layout,
            taps,
            band,
            block,
            state,
        } = self;
        let lanes = isa.f32().len();
        let width = weights.width;
        let first = block * BLOCK;
        let channels = BLOCK.min(weights.channels - first);
        gather(
            isa,
            &product.source,
            layout,
            &band,
            first,
            channels,
            &mut state.gathered,
        );
        let inputs: &[f32] = match &mut state.spread {
            None => &state.gathered,
            Some(spread) => {
                match width {
                    2 => spread_inputs::<2>(&state.gathered, spread),
                    4 => spread_inputs::<4>(&state.gathered, spread),
                    _ => unreachable!("groups of {width} channels are not narrow"),
                }
                spread
            }
        };
        let kernels = weights.block(block);
        let out = &product.layout;
        for row in 0..band.height() {
            let mut start = 0;
            while start < band.width() {
                // Fewer sums than eight wait for one another, so that these are few.
                let pixels = match band.width() - start {
                    PIXELS.. => PIXELS,
                    4.. => 4,
                    2.. => 2,
                    _ => 1,
                };
                let at = out.offset
                    + band.image * out.image
                    + (band.rows[0] + row) * out.row
                    + (band.columns[0] + start) * out.pixel
                    + first;
                for lane in (0..channels).step_by(lanes) {
                    let from = (row * layout.row + start * BLOCK) * width + lane;
                    let tile = Tile {
                        input: inputs[from..].as_ptr(),
                        taps,
                        width,
                        kernels: kernels[lane..].as_ptr(),
                        // SAFETY: the band's outputs lie in the output tensor.
                        output: unsafe { product.output.as_ptr().add(at + lane) },
                        step: out.pixel,
                        channels: lanes.min(channels - lane),
                        accumulate: product.accumulate,
                    };
                    // SAFETY: the gathered band holds the pixels at all taps, and the outputs
                    // are this task's alone.
                    unsafe {
                        match pixels {
                            PIXELS => run_tile::<I, PIXELS>(isa, &tile),
                            4 => run_tile::<I, 4>(isa, &tile),
                            2 => run_tile::<I, 2>(isa, &tile),
                            _ => run_tile::<I, 1>(isa, &tile),
                        }
                    }
                }
                if !product.finish.is_identity() {
                    let output = product.output.as_ptr();
                    // SAFETY: as above; residual and second output equal the output in length.
                    unsafe {
                        product
                            .finish
                            .apply(isa, output, at, pixels, out.pixel, first, channels);
                    }
                }
                start += pixels;
            }
        }
    }
}

/// Makes of each pixel's channels `W` vectors, the i-th of which has channel i of each group of
/// `W` in all lanes of that group.
#[inline(always)]
fn spread_inputs<const W: usize>(gathered: &[f32], spread: &mut [f32]) {
    let pixels = gathered.chunks_exact(BLOCK);
    for (pixel, vectors) in pixels.zip(spread.chunks_exact_mut(W * BLOCK)) {
        // A copy, which no store to the vectors could change: else they are made one by one.
        let pixel: [f32; BLOCK] = pixel.try_into().expect("a block of channels");
        for (input, vector) in vectors.chunks_exact_mut(BLOCK).enumerate() {
            for (lane, value) in vector.iter_mut().enumerate() {
                *value = pixel[lane / W * W + input];
            }
        }
    }
}

/// Neighbouring pixels and one vector of channels.
struct Tile<'a> {
    /// The first pixel at the first tap; pixels are `width` times [`BLOCK`] floats apart.
    input: *const f32,
    /// Where each tap's pixels lie, in blocks of one vector a pixel.
    taps: &'a [usize],
    /// Channels of a group.
    width: usize,
    /// The channels' weights at the first tap; vectors are [`BLOCK`] floats apart.
    kernels: *const f32,
    output: *mut f32,
    /// Between pixels of the output.
    step: usize,
    /// Channels that exist.
    channels: usize,
    accumulate: bool,
}

/// # Safety
///
/// The tile's addresses must be valid for `P` pixels and all taps.
#[inline(always)]
unsafe fn run_tile<I: Isa, const P: usize>(isa: I, tile: &Tile<'_>) {
    let ops = isa.f32();
    let mask = ops.first_n_mask(tile.channels);
    let mut sums = [ops.zero(); P];
    // SAFETY: this function's contract.
    unsafe {
        let mut kernels = tile.kernels;
        for &tap in tile.taps {
            let mut input = tile.input.add(tap * tile.width);
            for _ in 0..tile.width {
                let kernel = ops.load_ptr(kernels);
                for p in 0..P {
                    let pixel = ops.load_ptr(input.add(p * tile.width * BLOCK));
                    sums[p] = ops.mul_add(pixel, kernel, sums[p]);
                }
                kernels = kernels.add(BLOCK);
                input = input.add(BLOCK);
            }
        }
        if tile.accumulate {
            for p in 0..P {
                let at = tile.output.add(p * tile.step);
                sums[p] = ops.add(sums[p], ops.load_ptr_mask(at, mask));
            }
        }
        if tile.channels == ops.len() {
            for p in 0..P {
                ops.store_ptr(sums[p], tile.output.add(p * tile.step));
            }
        } else {
            for p in 0..P {
                ops.store_ptr_mask(sums[p], tile.output.add(p * tile.step), mask);
            }
        }
    }
}

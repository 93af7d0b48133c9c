//! Depth-wise convolution: every output channel sees one input
//! channel, so vectors run over channels and there is no matrix product.

use std::ops::Range;

use rten_simd::ops::{BitOps, NumOps};
use rten_simd::{Isa, SimdOp};

use super::backward_weights::Reduction;
use super::cut::{Cut, Work};
use super::gather::{BLOCK, Band, BandLayout, Taps, gather};
use super::product::Product;
use crate::context::Context;
use crate::memory::AlignedVec;
use crate::shared_mut::SharedMut;

/// Pixels whose sums are held in registers together.
const PIXELS: usize = 8;

/// One kernel for each channel, in the order `[channel block][tap][BLOCK]`.
#[derive(Clone, Debug)]
pub(super) struct DepthwiseWeights {
    channels: usize,
    taps: usize,
    data: AlignedVec,
}

impl DepthwiseWeights {
    pub fn zeros(channels: usize, taps: usize) -> Self {
        let data = AlignedVec::zeros(channels.next_multiple_of(BLOCK) * taps);
        DepthwiseWeights {
            channels,
            taps,
            data,
        }
    }

    /// Takes the weights `taps` behind each channel's place.
    pub fn fill(&mut self, weights: &[f32], taps: &[usize], place: impl Fn(usize) -> usize) {
        for channel in 0..self.channels {
            let kernel = place(channel);
            for (tap, offset) in taps.iter().enumerate() {
                let at = (channel / BLOCK * self.taps + tap) * BLOCK + channel % BLOCK;
                self.data[at] = weights[kernel + offset];
            }
        }
    }

    pub fn bytes(&self) -> usize {
        size_of_val::<[f32]>(&self.data)
    }

    fn block(&self, block: usize) -> &[f32] {
        &self.data[block * self.taps * BLOCK..][..self.taps * BLOCK]
    }
}

/// Computes a product whose groups have one channel each.
pub(super) fn run(ctx: &Context, product: &Product<'_>, weights: &DepthwiseWeights) {
    let blocks = weights.channels.div_ceil(BLOCK);
    // A task has one channel block, and nothing in common with the others'.
    let cut = Cut::new(
        &Work {
            window: product.window,
            batch: product.batch * blocks,
            grid: product.grid,
            channels: BLOCK,
            macs_per_pixel: weights.taps * BLOCK,
            weights: weights.taps * BLOCK,
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
        |scratch, task| {
            ctx.dispatch(RunBlock {
                product,
                weights,
                layout: &layout,
                taps: &taps,
                band: cut.band(product.grid, task / blocks),
                block: task % blocks,
                scratch,
            });
        },
    );
}

struct RunBlock<'a> {
    product: &'a Product<'a>,
    weights: &'a DepthwiseWeights,
    layout: &'a BandLayout,
    taps: &'a [usize],
    band: Band,
    /// Which channel block.
    block: usize,
    scratch: &'a mut [f32],
}

impl SimdOp for RunBlock<'_> {
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
            scratch,
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
            scratch,
        );
        let kernels = weights.block(block);
        let out = &product.layout;
        for row in 0..band.height() {
            for start in (0..band.width()).step_by(PIXELS) {
                let pixels = PIXELS.min(band.width() - start);
                let at = out.offset
                    + band.image * out.image
                    + (band.rows[0] + row) * out.row
                    + (band.columns[0] + start) * out.pixel
                    + first;
                for lane in (0..channels).step_by(lanes) {
                    let input = &scratch[row * layout.row + start * BLOCK + lane..];
                    let tile = Tile {
                        input: input.as_ptr(),
                        taps,
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
                        if pixels == PIXELS {
                            run_tile::<I, PIXELS>(isa, &tile);
                        } else {
                            for p in 0..pixels {
                                let pixel = Tile {
                                    input: tile.input.add(p * BLOCK),
                                    output: tile.output.add(p * tile.step),
                                    ..tile
                                };
                                run_tile::<I, 1>(isa, &pixel);
                            }
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
            }
        }
    }
}

/// Taps whose sums are held in registers together.
const TAPS: usize = 8;

/// Parts of the pixels, each with sums of its own; fixed, so that threads do not change the
/// order of additions.
const PARTS: usize = 8;

/// The gradient with respect to the weights `[channel][tap]`.
pub(super) fn backward_weights(
    ctx: &Context,
    reduction: &Reduction<'_>,
    dw: &mut [f32],
    accumulate: bool,
) {
    let [height, width] = reduction.grid;
    let layout = BandLayout::new(reduction.window, 1, width);
    let taps = Taps::new(&layout);
    let channels = reduction.out_channels;
    let blocks = channels.div_ceil(BLOCK);
    let rows = reduction.batch * height;
    let parts = PARTS.min(rows);
    let len = taps.len() * BLOCK;
    let mut partial = ctx.scratch(parts * blocks * len);
    let sums = SharedMut::new(&mut partial);
    ctx.parallel_with(
        parts * blocks,
        || ctx.scratch(layout.plane),
        |scratch, task| {
            // SAFETY: each task has sums of its own.
            let sums = unsafe { sums.slice(task * len..(task + 1) * len) };
            sums.fill(0.0);
            let part = task / blocks;
            ctx.dispatch(ReduceBlock {
                reduction,
                layout: &layout,
                taps: &taps,
                rows: rows * part / parts..rows * (part + 1) / parts,
                block: task % blocks,
                scratch,
                sums,
            });
        },
    );
    for (i, dw) in dw.iter_mut().enumerate() {
        let (channel, tap) = (i / taps.len(), i % taps.len());
        let at = channel / BLOCK * len + tap * BLOCK + channel % BLOCK;
        let sum: f32 = (0..parts)
            .map(|part| partial[part * blocks * len + at])
            .sum();
        *dw = if accumulate { *dw + sum } else { sum };
    }
}

struct ReduceBlock<'a> {
    reduction: &'a Reduction<'a>,
    layout: &'a BandLayout,
    taps: &'a [usize],
    /// Rows of outputs, counted through all images.
    rows: Range<usize>,
    /// Which channel block.
    block: usize,
    scratch: &'a mut [f32],
    /// `[tap][BLOCK]`.
    sums: &'a mut [f32],
}

impl SimdOp for ReduceBlock<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let ReduceBlock {
            reduction,
            layout,
            taps,
            rows,
            block,
            scratch,
            sums,
        } = self;
        let lanes = isa.f32().len();
        let [height, width] = reduction.grid;
        let first = block * BLOCK;
        let channels = BLOCK.min(reduction.out_channels - first);
        for index in rows {
            let (image, row) = (index / height, index % height);
            let band = Band {
                image,
                rows: [row, row + 1],
                columns: [0, width],
            };
            gather(
                isa,
                &reduction.source,
                layout,
                &band,
                first,
                channels,
                scratch,
            );
            let from = index * width * reduction.out_channels + first;
            let gradient = &reduction.gradient[from..];
            assert!(gradient.len() >= (width - 1) * reduction.out_channels + channels);
            for lane in (0..channels).step_by(lanes) {
                let row = Row {
                    input: scratch[lane..].as_ptr(),
                    gradient: gradient[lane..].as_ptr(),
                    step: reduction.out_channels,
                    pixels: width,
                    channels: lanes.min(channels - lane),
                };
                for (i, taps) in taps.chunks(TAPS).enumerate() {
                    let sums = &mut sums[i * TAPS * BLOCK..][..taps.len() * BLOCK];
                    // SAFETY: the gathered row holds the pixels at all taps, and the
                    // gradient is as long as asserted.
                    unsafe {
                        if let Ok(taps) = taps.try_into() {
                            reduce_row::<I, TAPS>(isa, &row, taps, &mut sums[lane..]);
                        } else {
                            for (tap, sums) in taps.iter().zip(sums.chunks_mut(BLOCK)) {
                                reduce_row::<I, 1>(isa, &row, &[*tap], &mut sums[lane..]);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A row of pixels and one vector of channels.
struct Row {
    /// The first pixel at the first tap; pixels are [`BLOCK`] floats apart.
    input: *const f32,
    gradient: *const f32,
    /// Between pixels of the gradient.
    step: usize,
    pixels: usize,
    /// Channels that exist.
    channels: usize,
}

/// Adds a row's products to `sums`, [`BLOCK`] floats apart for each tap.
///
/// # Safety
///
/// The row's pixels must be readable at all taps.
#[inline(always)]
unsafe fn reduce_row<I: Isa, const T: usize>(
    isa: I,
    row: &Row,
    taps: &[usize; T],
    sums: &mut [f32],
) {
    let ops = isa.f32();
    let mask = ops.first_n_mask(row.channels);
    let mut totals: [I::F32; T] = std::array::from_fn(|t| ops.load(&sums[t * BLOCK..]));
    for p in 0..row.pixels {
        // SAFETY: this function's contract.
        unsafe {
            let dy = ops.load_ptr_mask(row.gradient.add(p * row.step), mask);
            for t in 0..T {
                let x = ops.load_ptr(row.input.add(taps[t] + p * BLOCK));
                totals[t] = ops.mul_add(x, dy, totals[t]);
            }
        }
    }
    for t in 0..T {
        ops.store(totals[t], &mut sums[t * BLOCK..]);
    }
}

/// Neighbouring pixels and one vector of channels.
#[derive(Clone, Copy)]
struct Tile<'a> {
    /// The first pixel at the first tap; pixels are [`BLOCK`] floats apart.
    input: *const f32,
    taps: &'a [usize],
    /// The channels' weights at the first tap; taps are [`BLOCK`] floats apart.
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
        for (i, &tap) in tile.taps.iter().enumerate() {
            let kernel = ops.load_ptr(tile.kernels.add(i * BLOCK));
            for p in 0..P {
                let pixel = ops.load_ptr(tile.input.add(tap + p * BLOCK));
                sums[p] = ops.mul_add(pixel, kernel, sums[p]);
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

//! The gradient of depth-wise weights. Each output channel depends on one input channel, so vectors
//! span channels, and the register block is the sums of one vector of channels at several taps.

use std::ops::Range;

use rten_simd::ops::{BitOps, NumOps};
use rten_simd::{Isa, SimdOp};

use crate::array::array;
use crate::context::Context;
use crate::conv::compiler::in_register;
use crate::conv::gather::{BLOCK, Strip, StripLayout, Taps, gather};
use crate::conv::reduction::Reduction;
use crate::conv::tuning::DEPTHWISE_PARTS;
use crate::lanes::{load_masked, mask_if_slow};
use crate::shared_mut::SharedMut;

/// Taps whose sums are held in registers at once.
const TAPS: usize = 8;

/// Computes the gradient with respect to the weights `[channel][tap]`.
pub(in crate::conv) fn run(
    ctx: &Context,
    reduction: &Reduction<'_>,
    dw: &mut [f32],
    accumulate: bool,
) {
    let [height, width] = reduction.grid();
    let layout = StripLayout::new(reduction.window(), 1, width);
    let taps = Taps::new(&layout);
    let channels = reduction.out_channels();
    let blocks = channels.div_ceil(BLOCK);
    let rows = reduction.batch() * height;
    let parts = DEPTHWISE_PARTS.min(rows);
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
    layout: &'a StripLayout,
    taps: &'a [usize],
    /// Rows of outputs, numbered through all images.
    rows: Range<usize>,
    /// Index of the channel block.
    block: usize,
    scratch: &'a mut [f32],
    /// The sums, `[tap][BLOCK]`.
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
        let [height, width] = reduction.grid();
        let first = block * BLOCK;
        let channels = BLOCK.min(reduction.out_channels() - first);
        for index in rows {
            let (image, row) = (index / height, index % height);
            let strip = Strip {
                image,
                rows: [row, row + 1],
                columns: [0, width],
            };
            gather(
                isa,
                &reduction.source,
                layout,
                &strip,
                first,
                channels,
                scratch,
            );
            let from = index * width * reduction.out_channels() + first;
            let gradient = &reduction.gradient[from..];
            assert!(gradient.len() >= (width - 1) * reduction.out_channels() + channels);
            for lane in (0..channels).step_by(lanes) {
                let row = Row {
                    input: scratch[lane..].as_ptr(),
                    gradient: gradient[lane..].as_ptr(),
                    step: reduction.out_channels(),
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

/// One row of pixels and one vector of channels.
struct Row {
    /// The first pixel at the first tap. Pixels are [`BLOCK`] floats apart.
    input: *const f32,
    gradient: *const f32,
    /// Stride between pixels of the gradient.
    step: usize,
    pixels: usize,
    /// Channels that exist.
    channels: usize,
}

/// Adds a row's products to `sums`; those of neighbouring taps are [`BLOCK`] floats apart.
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
    let mask = mask_if_slow(isa, row.channels);
    let mut totals: [I::F32; T] = array(|t| ops.load(&sums[t * BLOCK..]));
    // SAFETY: this function's contract.
    unsafe {
        let inputs: [*const f32; T] = array(|t| row.input.add(taps[t]));
        let mut offset = 0;
        for p in 0..row.pixels {
            let dy = load_masked(isa, row.gradient.add(p * row.step), mask);
            for t in 0..T {
                let x = ops.load_ptr(inputs[t].byte_add(offset));
                totals[t] = ops.mul_add(x, dy, totals[t]);
            }
            offset += BLOCK * size_of::<f32>();
            // Otherwise the compiler increments an address per tap.
            if cfg!(target_arch = "aarch64") {
                offset = in_register(offset);
            }
        }
    }
    for t in 0..T {
        ops.store(totals[t], &mut sums[t * BLOCK..]);
    }
}

//! The backward pass to weights: for every tap, the matrix product of the transposed input
//! and the output gradient, reduced over all pixels.
//!
//! The pixels are cut into parts whose number depends on the shape alone; each part has its
//! own sums, and the sums are added in the parts' order. So neither the number of threads nor
//! their timing changes a bit of the result.

use std::ops::Range;

use rten_simd::ops::{BitOps, NumOps};
use rten_simd::{Isa, SimdOp};

use super::ahead::{Evenly, part_of, step_of};
use super::gather::{Band, BandLayout, Source, Taps, Window, gather};
use super::geometry::{ConvShape, Flattened};
use super::grouped::Merged;
use super::microkernel::has_32_registers;
use super::pack::{BlockedLayout, OutputBlock};
use super::{assert_len, depthwise, winograd};
use crate::context::Context;
use crate::scratch::Scratch;
use crate::shared_mut::SharedMut;

/// Pixels that a tile of sums passes over between loading and storing the sums: so many that
/// this is cheap, so few that their input and gradient stay in the first-level cache.
const RUN_PIXELS: usize = 128;

/// Floats of gathered input at a time.
const GATHER_FLOATS: usize = 64 * 1024;

/// Floats of partial sums that are worth having for more parts.
const PARTIAL_FLOATS: usize = 256 * 1024;

/// Tasks to aim at, enough for any number of threads that such small work can use.
pub(super) const TASKS: usize = 16;

/// The gradient `dw` with respect to the weights (output channel, input channel, row, column),
/// from the input `x` and the gradient `dy` with respect to the output; added to what `dw`
/// holds if `accumulate`.
///
/// # Panics
///
/// If a length does not fit `shape`.
pub fn conv_backward_weights(
    ctx: &Context,
    shape: &ConvShape,
    x: &[f32],
    dy: &[f32],
    dw: &mut [f32],
    accumulate: bool,
) {
    let geometry = &shape.geometry;
    geometry.assert_valid();
    assert_len("input", x.len(), shape.input_len());
    assert_len("output gradient", dy.len(), shape.output_len());
    assert_len("weight gradient", dw.len(), shape.weight_len());
    if dy.is_empty() {
        if !accumulate {
            dw.fill(0.0);
        }
        return;
    }
    let merged = Merged::new(geometry);
    let blocked = merged.forward_layout(ctx, geometry);
    let Flattened {
        batch,
        input: [height, width],
        output: grid,
        ..
    } = shape.flattened();
    let reduction = Reduction {
        source: Source {
            data: x,
            height,
            width,
            channels: geometry.in_channels,
        },
        window: geometry.window(),
        gradient: dy,
        batch,
        grid,
        out_channels: geometry.out_channels,
        blocked: &blocked,
    };
    if geometry.is_depthwise() {
        return depthwise::backward_weights(ctx, &reduction, dw, accumulate);
    }
    if winograd::applies(geometry.kernel, geometry.stride, &blocked)
        && winograd::Size::Four.fits(&blocked, batch, grid)
        && winograd::backward_weights::fits(&reduction)
    {
        let layout = blocked.with_taps(1);
        return winograd::backward_weights::run(ctx, &reduction, &layout, dw, accumulate);
    }
    let mut partial = reduction.run(ctx);
    let len = blocked.len();
    let taps = geometry.taps();
    let units = blocked.units();
    let partial = SharedMut::new(&mut partial);
    let dw = SharedMut::new(dw);
    ctx.parallel(units, |unit| {
        let (group, block) = blocked.unit(unit);
        let range = blocked.range(unit);
        let width = block.vectors * blocked.lanes();
        // SAFETY: units are disjoint ranges of every part's sums, and each runs once.
        let sums = unsafe { partial.slice(range.clone()) };
        for part in 1..partial.len() / len {
            // SAFETY: as above.
            let other = unsafe { partial.slice(part * len + range.start..part * len + range.end) };
            for (sum, other) in sums.iter_mut().zip(other) {
                *sum += *other;
            }
        }
        for i in 0..block.channels {
            let output = group * merged.group_out + block.first + i;
            for input in merged.inputs_of(output) {
                let Some(kernel) = merged.kernel_index(output, input) else {
                    continue;
                };
                // SAFETY: a unit's output channels, and so their kernels, are its own.
                let dw = unsafe { dw.slice(kernel * taps..(kernel + 1) * taps) };
                let row_of = |tap: usize| {
                    let (channel, tap) = if geometry.unrolls() {
                        let [row, column] = [tap / geometry.kernel[1], tap % geometry.kernel[1]];
                        (column * geometry.in_channels + input, row)
                    } else {
                        (input, tap)
                    };
                    let (row, step) = blocked.kernel_rows(channel);
                    row + tap * step
                };
                for (tap, dw) in dw.iter_mut().enumerate() {
                    let sum = sums[row_of(tap) * width + i];
                    *dw = if accumulate { *dw + sum } else { sum };
                }
            }
        }
    });
}

/// A reduction over all outputs of a grid.
pub(super) struct Reduction<'a> {
    pub source: Source<'a>,
    pub window: Window,
    pub gradient: &'a [f32],
    pub batch: usize,
    pub grid: [usize; 2],
    pub out_channels: usize,
    pub blocked: &'a BlockedLayout,
}

impl Reduction<'_> {
    /// The sums of all parts, one after the other.
    fn run<'c>(&self, ctx: &'c Context) -> Scratch<'c> {
        let [height, width] = self.grid;
        let blocked = self.blocked;
        let channels = blocked.groups * blocked.group_in.next_multiple_of(blocked.block);
        let fits = |rows: usize, columns: usize| {
            BandLayout::new(self.window, rows, columns).len(channels) <= GATHER_FLOATS
        };
        let columns = if height == 1 {
            width.min((GATHER_FLOATS / channels).clamp(16, 2 * RUN_PIXELS))
        } else {
            (16..=width)
                .rev()
                .find(|&columns| fits(1, columns))
                .unwrap_or(width.min(16))
        };
        let rows = (1..=height)
            .rev()
            .find(|&rows| fits(rows, columns))
            .unwrap_or(1);
        let layout = BandLayout::new(self.window, rows, columns);
        let image_len = layout.len(channels);
        // Small images are taken several at a time.
        let whole = rows == height && columns == width;
        let images = if whole {
            (RUN_PIXELS / (rows * columns))
                .min(GATHER_FLOATS / image_len)
                .clamp(1, self.batch)
        } else {
            1
        };
        let bands = [
            self.batch.div_ceil(images),
            height.div_ceil(rows),
            width.div_ceil(columns),
        ];
        let all_bands: usize = bands.iter().product();

        let len = blocked.len();
        let parts = (PARTIAL_FLOATS / len).clamp(1, TASKS.min(all_bands));
        let units = blocked.units();
        let splits = TASKS.div_ceil(parts).min(units);
        let taps = Taps::new(&layout);
        let mut partial = ctx.scratch(parts * len);
        let sums = SharedMut::new(&mut partial);
        ctx.parallel_with(
            parts * splits,
            || ctx.scratch(images * image_len),
            |scratch, task| {
                let (part, split) = (task / splits, task % splits);
                let units = units * split / splits..units * (split + 1) / splits;
                let start = blocked.range_of(&units);
                // SAFETY: tasks have disjoint parts or disjoint units of one.
                let sums = unsafe { sums.slice(part * len + start.start..part * len + start.end) };
                sums.fill(0.0);
                for index in all_bands * part / parts..all_bands * (part + 1) / parts {
                    let next = [self.source.data, self.gradient]
                        .map(|tensor| part_of(tensor, index + 1..index + 2, all_bands));
                    let (index, column) = (index / bands[2], index % bands[2]);
                    let (image, row) = (index / bands[1], index % bands[1]);
                    let span =
                        |i: usize, size: usize, end: usize| [i * size, end.min((i + 1) * size)];
                    ctx.dispatch(ReduceBand {
                        reduction: self,
                        layout: &layout,
                        taps: &taps,
                        images: span(image, images, self.batch),
                        rows: span(row, rows, height),
                        columns: span(column, columns, width),
                        next,
                        units: units.clone(),
                        first_weight: start.start,
                        scratch,
                        sums,
                    });
                }
            },
        );
        partial
    }
}

struct ReduceBand<'a> {
    reduction: &'a Reduction<'a>,
    layout: &'a BandLayout,
    taps: &'a [usize],
    images: [usize; 2],
    rows: [usize; 2],
    columns: [usize; 2],
    /// Inputs and gradients that are brought near for the next band.
    next: [&'a [f32]; 2],
    units: Range<usize>,
    first_weight: usize,
    scratch: &'a mut [f32],
    sums: &'a mut [f32],
}

impl SimdOp for ReduceBand<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let blocked = self.reduction.blocked;
        let group_in = blocked.group_in;
        let group_len = self.layout.len(group_in);
        let groups = self.units.start / blocked.blocks()..self.units.end.div_ceil(blocked.blocks());
        let image_len = groups.len() * group_len;
        for image in self.images[0]..self.images[1] {
            let band = Band {
                image,
                rows: self.rows,
                columns: self.columns,
            };
            let start = (image - self.images[0]) * image_len;
            for (i, group) in groups.clone().enumerate() {
                let out = &mut self.scratch[start + i * group_len..];
                let source = &self.reduction.source;
                gather(
                    isa,
                    source,
                    self.layout,
                    &band,
                    group * group_in,
                    group_in,
                    out,
                );
            }
        }
        let width = self.columns[1] - self.columns[0];
        let run_rows = (RUN_PIXELS / width).max(1);
        let runs = self.units.len() * (self.rows[1] - self.rows[0]).div_ceil(run_rows);
        let mut nexts = (0..runs).map(|run| step_of(self.next, run, runs));
        for unit in self.units.clone() {
            let (group, block) = blocked.unit(unit);
            let range = blocked.range(unit);
            let sums =
                &mut self.sums[range.start - self.first_weight..range.end - self.first_weight];
            let input = &self.scratch[(group - groups.start) * group_len..];
            for row in (self.rows[0]..self.rows[1]).step_by(run_rows) {
                let rows = run_rows.min(self.rows[1] - row);
                let [height, grid_width] = self.reduction.grid;
                let channels = self.reduction.out_channels;
                let pixel = (self.images[0] * height + row) * grid_width + self.columns[0];
                let first = group * blocked.group_out + block.first;
                let run = Run {
                    input: input[(row - self.rows[0]) * self.layout.row..].as_ptr(),
                    input_strides: [image_len, self.layout.row, self.layout.pixel],
                    gradient: self.reduction.gradient[pixel * channels + first..].as_ptr(),
                    gradient_strides: [
                        height * grid_width * channels,
                        grid_width * channels,
                        channels,
                    ],
                    pixels: [self.images[1] - self.images[0], rows, width],
                };
                // SAFETY: the gathered band and the gradient hold the run's pixels, and
                // `sums` the block's weights.
                unsafe {
                    run_block(
                        isa,
                        &run,
                        self.layout.plane,
                        self.taps,
                        blocked,
                        &block,
                        sums,
                        nexts.next().unwrap_or_default(),
                    );
                }
            }
        }
    }
}

/// Pixels to reduce over.
#[derive(Clone, Copy)]
pub(super) struct Run {
    /// The first pixel's first channel at the first tap.
    pub input: *const f32,
    /// Between images, rows and pixels.
    pub input_strides: [usize; 3],
    /// The first pixel's first output channel of the block.
    pub gradient: *const f32,
    /// Between images, rows and pixels.
    pub gradient_strides: [usize; 3],
    /// Images, rows, columns.
    pub pixels: [usize; 3],
}

/// Adds the products of a run's inputs and gradients to the sums of a block of `layout`;
/// meanwhile `next` is brought near.
///
/// # Safety
///
/// The run's pixels must be readable at all taps and channels.
#[inline(always)]
pub(super) unsafe fn run_block<I: Isa>(
    isa: I,
    run: &Run,
    plane: usize,
    taps: &[usize],
    layout: &BlockedLayout,
    block: &OutputBlock,
    sums: &mut [f32],
    next: &[f32],
) {
    let lanes = isa.f32().len();
    let width = block.vectors * lanes;
    let group_in = layout.group_in;
    assert!(sums.len() >= group_in * taps.len() * width);
    let mut sums = sums.as_mut_ptr();
    let most = max_rows::<I>(block.vectors);
    let full = block.channels == width;
    let channels_from = |first: usize| layout.block.min(group_in - first);
    let blocks = (0..group_in).step_by(layout.block);
    let tiles: usize = blocks
        .clone()
        .map(|first| channels_from(first).div_ceil(most))
        .sum();
    let pixels: usize = run.pixels.iter().product();
    let mut ahead = Evenly::over(next, pixels * taps.len() * tiles, run.gradient);
    for first in blocks {
        let channels = channels_from(first);
        let tiles = channels.div_ceil(most);
        for tap in taps {
            for tile in 0..tiles {
                let [start, end] = [tile, tile + 1].map(|t| channels * t / tiles);
                let rows = end - start;
                // SAFETY: the caller's promise; `sums` stays within the asserted length.
                unsafe {
                    let tile = Run {
                        input: run.input.add(first / layout.block * plane + tap + start),
                        ..*run
                    };
                    match (block.vectors, full) {
                        (1, true) => run_tile::<I, 1, true>(isa, rows, &tile, block, sums, ahead),
                        (1, false) => run_tile::<I, 1, false>(isa, rows, &tile, block, sums, ahead),
                        (_, true) => run_tile::<I, 2, true>(isa, rows, &tile, block, sums, ahead),
                        (_, false) => run_tile::<I, 2, false>(isa, rows, &tile, block, sums, ahead),
                    }
                    sums = sums.add(rows * width);
                }
                ahead = ahead.after(pixels);
            }
        }
    }
}

/// The most input channels of a tile of sums: with 32 registers, half of a channel block times
/// two vectors, or a whole one times one.
#[inline(always)]
const fn max_rows<I: Isa>(vectors: usize) -> usize {
    match (has_32_registers::<I>(), vectors) {
        (true, 1) => 16,
        (true, _) | (false, 1) => 8,
        (false, _) => 4,
    }
}

#[inline(always)]
unsafe fn run_tile<I: Isa, const V: usize, const FULL: bool>(
    isa: I,
    rows: usize,
    run: &Run,
    block: &OutputBlock,
    sums: *mut f32,
    ahead: Evenly,
) {
    macro_rules! choose {
        ($($n:literal)*) => {
            match rows {
                $($n if $n <= max_rows::<I>(V) => {
                    // SAFETY: this function's contract.
                    unsafe { tile_of::<I, $n, V, FULL>(isa, run, block, sums, ahead) }
                })*
                _ => unreachable!("tile of {rows} rows"),
            }
        };
    }
    choose!(1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16);
}

#[inline(always)]
unsafe fn tile_of<I: Isa, const R: usize, const V: usize, const FULL: bool>(
    isa: I,
    run: &Run,
    block: &OutputBlock,
    sums: *mut f32,
    mut ahead: Evenly,
) {
    let ops = isa.f32();
    let lanes = ops.len();
    let mask = ops.first_n_mask(block.channels - (V - 1) * lanes);
    // SAFETY: the caller's promise about pixels and sums.
    unsafe {
        let mut tile: [[I::F32; V]; R] = std::array::from_fn(|r| {
            std::array::from_fn(|v| ops.load_ptr(sums.add((r * V + v) * lanes)))
        });
        for image in 0..run.pixels[0] {
            for row in 0..run.pixels[1] {
                let mut input = run
                    .input
                    .add(image * run.input_strides[0] + row * run.input_strides[1]);
                let mut gradient = run
                    .gradient
                    .add(image * run.gradient_strides[0] + row * run.gradient_strides[1]);
                for _ in 0..run.pixels[2] {
                    ahead.ask::<I>();
                    let dy: [I::F32; V] = std::array::from_fn(|v| {
                        let at = gradient.add(v * lanes);
                        if FULL || v + 1 < V {
                            ops.load_ptr(at)
                        } else {
                            ops.load_ptr_mask(at, mask)
                        }
                    });
                    for (r, tile) in tile.iter_mut().enumerate() {
                        let x = ops.splat(*input.add(r));
                        for v in 0..V {
                            tile[v] = ops.mul_add(x, dy[v], tile[v]);
                        }
                    }
                    input = input.add(run.input_strides[2]);
                    gradient = gradient.wrapping_add(run.gradient_strides[2]);
                }
            }
        }
        for (r, tile) in tile.iter().enumerate() {
            for (v, &sum) in tile.iter().enumerate() {
                ops.store_ptr(sum, sums.add((r * V + v) * lanes));
            }
        }
    }
}

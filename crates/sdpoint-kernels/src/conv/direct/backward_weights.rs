//! The backward pass to weights with all multiplications of the definition.

use std::ops::Range;

use rten_simd::{Isa, SimdOp};

use crate::context::Context;
use crate::conv::gather::{BLOCK, Strip, StripLayout, Taps, gather};
use crate::conv::merge::Merged;
use crate::conv::prefetch::{part_of, share_of_step};
use crate::conv::reduction::Reduction;
use crate::conv::reduction_kernel::{Run, RunInputs, reduce_panel};
use crate::conv::tuning::{
    REDUCTION_PARTIAL_FLOATS, REDUCTION_PIXELS, REDUCTION_STRIP_FLOATS, REDUCTION_TASKS,
};
use crate::scratch::Scratch;
use crate::shared_mut::SharedMut;

/// Computes the gradient with respect to the weights, in their unpacked order: reduces the parts,
/// then adds their partial sums panel by panel.
pub(in crate::conv) fn run(
    ctx: &Context,
    reduction: &Reduction<'_>,
    merged: &Merged,
    dw: &mut [f32],
    accumulate: bool,
) {
    let mut partial = partial_sums(ctx, reduction);
    let (geometry, blocked) = (reduction.geometry, reduction.layout);
    let len = blocked.len();
    let taps = geometry.taps();
    let panels = blocked.panels();
    let partial = SharedMut::new(&mut partial);
    let dw = SharedMut::new(dw);
    ctx.parallel(panels, |panel| {
        let (group, block) = blocked.panel(panel);
        let range = blocked.range(panel);
        let width = block.vectors * blocked.lanes();
        // SAFETY: panels are disjoint ranges of every part's sums, and each runs once.
        let sums = unsafe { partial.slice(range.clone()) };
        for part in 1..partial.len() / len {
            // SAFETY: as above.
            let other = unsafe { partial.slice(part * len + range.start..part * len + range.end) };
            for (sum, other) in sums.iter_mut().zip(other) {
                *sum += *other;
            }
        }
        let row_of = |input: usize, tap: usize| {
            let (channel, tap) = if geometry.unrolls() {
                let [row, column] = [tap / geometry.kernel[1], tap % geometry.kernel[1]];
                (column * geometry.in_channels + input, row)
            } else {
                (input, tap)
            };
            let (row, step) = blocked.rows_of_input(channel);
            row + tap * step
        };
        // Some inputs at a time: a line of sums holds a tap of one input for many outputs, and stays
        // in L1 until all of them are stored.
        for first in (0..merged.group_in).step_by(BLOCK) {
            let inputs = first..merged.group_in.min(first + BLOCK);
            let rows = inputs
                .clone()
                .flat_map(|input| (0..taps).map(move |tap| (input, tap)));
            let offsets: Vec<usize> = rows.map(|(i, tap)| row_of(i, tap) * width).collect();
            for i in 0..block.channels {
                let output = group * merged.group_out + block.first + i;
                let of_output = merged.inputs_of(output);
                let inputs = inputs.start.max(of_output.start)..inputs.end.min(of_output.end);
                if inputs.is_empty() {
                    continue;
                }
                let kernel = merged.kernel_index(output, inputs.start);
                let start = kernel.expect("an input of the output's group") * taps;
                // SAFETY: a panel's output channels, and so their kernels, are its own.
                let dw = unsafe { dw.slice(start..start + inputs.len() * taps) };
                let offsets = &offsets[(inputs.start - first) * taps..];
                for (offset, dw) in offsets.iter().zip(dw) {
                    let sum = sums[offset + i];
                    *dw = if accumulate { *dw + sum } else { sum };
                }
            }
        }
    });
}

/// The partial sums of all parts, one after the other, each in the order of packed weights.
///
/// A task is a part, or a range of panels of one: where the sums are so large that there are few
/// parts, tasks divide the panels, and gather the same inputs.
fn partial_sums<'c>(ctx: &'c Context, reduction: &Reduction<'_>) -> Scratch<'c> {
    let [height, width] = reduction.grid();
    let blocked = reduction.layout;
    let (window, batch) = (reduction.window(), reduction.batch());
    let channels = blocked.groups * blocked.group_in.next_multiple_of(blocked.block);
    let fits = |rows: usize, columns: usize| {
        StripLayout::new(window, rows, columns).len(channels) <= REDUCTION_STRIP_FLOATS
    };
    // At least 16 columns, however many channels: shorter runs of pixels would load and store the
    // sums too often.
    let columns = if height == 1 {
        width.min((REDUCTION_STRIP_FLOATS / channels).clamp(16, 2 * REDUCTION_PIXELS))
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
    let layout = StripLayout::new(window, rows, columns);
    let image_len = layout.len(channels);
    // Of small images, a strip has several, so that a run has about REDUCTION_PIXELS pixels.
    let whole = rows == height && columns == width;
    let images = if whole {
        (REDUCTION_PIXELS / (rows * columns))
            .min(REDUCTION_STRIP_FLOATS / image_len)
            .clamp(1, batch)
    } else {
        1
    };
    let strips = [
        batch.div_ceil(images),
        height.div_ceil(rows),
        width.div_ceil(columns),
    ];
    let all_strips: usize = strips.iter().product();

    let len = blocked.len();
    let parts = (REDUCTION_PARTIAL_FLOATS / len).clamp(1, REDUCTION_TASKS.min(all_strips));
    let panels = blocked.panels();
    let splits = REDUCTION_TASKS.div_ceil(parts).min(panels);
    let taps = Taps::new(&layout);
    let mut partial = ctx.scratch(parts * len);
    let sums = SharedMut::new(&mut partial);
    ctx.parallel_with(
        parts * splits,
        || ctx.scratch(images * image_len),
        |scratch, task| {
            let (part, split) = (task / splits, task % splits);
            let panels = panels * split / splits..panels * (split + 1) / splits;
            let start = blocked.range_of(&panels);
            // SAFETY: tasks have disjoint parts or disjoint panels of one.
            let sums = unsafe { sums.slice(part * len + start.start..part * len + start.end) };
            sums.fill(0.0);
            for index in all_strips * part / parts..all_strips * (part + 1) / parts {
                let next = [reduction.source.data, reduction.gradient]
                    .map(|tensor| part_of(tensor, index + 1..index + 2, all_strips));
                let (index, column) = (index / strips[2], index % strips[2]);
                let (image, row) = (index / strips[1], index % strips[1]);
                let span = |i: usize, size: usize, end: usize| [i * size, end.min((i + 1) * size)];
                ctx.dispatch(ReduceStrip {
                    ctx,
                    reduction,
                    layout: &layout,
                    taps: &taps,
                    images: span(image, images, batch),
                    rows: span(row, rows, height),
                    columns: span(column, columns, width),
                    next,
                    panels: panels.clone(),
                    first_weight: start.start,
                    scratch,
                    sums,
                });
            }
        },
    );
    partial
}

struct ReduceStrip<'a> {
    ctx: &'a Context,
    reduction: &'a Reduction<'a>,
    layout: &'a StripLayout,
    taps: &'a [usize],
    images: [usize; 2],
    rows: [usize; 2],
    columns: [usize; 2],
    /// Inputs and gradients of the next strip, to prefetch.
    next: [&'a [f32]; 2],
    panels: Range<usize>,
    /// Offset of the first panel's weights.
    first_weight: usize,
    /// Buffer for the gathered inputs.
    scratch: &'a mut [f32],
    /// The partial sums of `panels`.
    sums: &'a mut [f32],
}

impl SimdOp for ReduceStrip<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let blocked = self.reduction.layout;
        let group_in = blocked.group_in;
        let group_len = self.layout.len(group_in);
        let panels_of_group = blocked.panels_of_group();
        let groups = self.panels.start / panels_of_group..self.panels.end.div_ceil(panels_of_group);
        let image_len = groups.len() * group_len;
        for image in self.images[0]..self.images[1] {
            let strip = Strip {
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
                    &strip,
                    group * group_in,
                    group_in,
                    out,
                );
            }
        }
        let width = self.columns[1] - self.columns[0];
        let run_rows = (REDUCTION_PIXELS / width).max(1);
        let runs = self.panels.len() * (self.rows[1] - self.rows[0]).div_ceil(run_rows);
        let mut nexts = (0..runs).map(|run| share_of_step(self.next, run, runs));
        for panel in self.panels.clone() {
            let (group, block) = blocked.panel(panel);
            let range = blocked.range(panel);
            let sums =
                &mut self.sums[range.start - self.first_weight..range.end - self.first_weight];
            let input = &self.scratch[(group - groups.start) * group_len..];
            for row in (self.rows[0]..self.rows[1]).step_by(run_rows) {
                let rows = run_rows.min(self.rows[1] - row);
                let [height, grid_width] = self.reduction.grid();
                let channels = self.reduction.out_channels();
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
                let inputs = RunInputs {
                    plane: self.layout.plane,
                    taps: self.taps,
                };
                // SAFETY: the gathered strip and the gradient hold the run's pixels, and
                // `sums` the block's weights.
                unsafe {
                    reduce_panel(
                        self.ctx,
                        &run,
                        inputs,
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

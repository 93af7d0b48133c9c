//! The backward pass to weights by Winograd's algorithm: the transposed transforms of
//! [`super::winograd`] around 36 matrix products that are reduced over tiles.

use std::f32::consts::{FRAC_1_SQRT_2 as HALF_ROOT, SQRT_2 as ROOT};
use std::ops::Range;

use rten_simd::ops::{BitOps, FloatOps, NumOps};
use rten_simd::{Isa, SimdOp};

use super::backward_weights::{Reduction, Run, TASKS, run_block};
use super::gather::BLOCK;
use super::pack::{BlockedLayout, OutputBlock};
use super::winograd::{INPUTS, POINTS, TILE, Tiles, TransformedLayout, gather_tiles};
use crate::context::Context;
use crate::scratch::Scratch;
use crate::shared_mut::SharedMut;

/// Floats of transformed inputs at a time, and the fewest tiles all the same: the sums of wide
/// convolutions are many, and each is loaded and stored once a band, which costs more than
/// inputs from the third-level cache.
const BAND_FLOATS: usize = 96 * 1024;
const BAND_TILES: usize = 96;

/// Floats of partial sums that are worth having for more parts.
const PARTIAL_FLOATS: usize = 1024 * 1024;

/// Fewer tiles than this do not pay for the transform of the sums.
const FEWEST_TILES: usize = 96;

const TAPS: usize = 9;

/// Whether there is enough to reduce over.
pub(super) fn fits(reduction: &Reduction<'_>) -> bool {
    tiles(reduction).count(reduction.batch) >= FEWEST_TILES
}

fn tiles(reduction: &Reduction<'_>) -> Tiles {
    Tiles {
        grid: reduction.grid,
        origin: reduction.window.origin,
    }
}

/// The gradient with respect to the weights `[output][input][tap]` of a 3 × 3 convolution with
/// stride 1; `layout` is that of its transformed weights.
pub(super) fn run(
    ctx: &Context,
    reduction: &Reduction<'_>,
    layout: &BlockedLayout,
    dw: &mut [f32],
    accumulate: bool,
) {
    let tiles = tiles(reduction);
    let count = tiles.count(reduction.batch);
    let channels = layout.group_in.next_multiple_of(BLOCK);
    let band = (BAND_FLOATS / (POINTS * channels))
        .max(BAND_TILES)
        .min(count);
    let bands = count.div_ceil(band);
    let len = POINTS * layout.len();
    let parts = (PARTIAL_FLOATS / len).clamp(1, TASKS.min(bands));
    let units = layout.units();
    let splits = TASKS.div_ceil(parts).min(units);
    let transformed = TransformedLayout::new(layout.group_in, band);
    let width = super::microkernel::VECTORS * layout.lanes();
    let mut partial = ctx.scratch(parts * len);
    let sums = SharedMut::new(&mut partial);
    ctx.parallel_with(
        parts * splits,
        || State {
            inputs: ctx.scratch(transformed.len()),
            gradients: ctx.scratch(POINTS * (band * width + BLOCK)),
        },
        |state, task| {
            let (part, split) = (task / splits, task % splits);
            let units = units * split / splits..units * (split + 1) / splits;
            for index in bands * part / parts..bands * (part + 1) / parts {
                ctx.dispatch(ReduceTiles {
                    reduction,
                    layout,
                    tiles: &tiles,
                    range: index * band..count.min((index + 1) * band),
                    first: index == bands * part / parts,
                    transformed: &transformed,
                    units: units.clone(),
                    start: part * len,
                    sums,
                    state,
                });
            }
        },
    );
    let dw = SharedMut::new(dw);
    ctx.parallel(units, |unit| {
        ctx.dispatch(TransformSums {
            layout,
            unit,
            parts,
            sums,
        });
        let (_, block) = layout.unit(unit);
        let width = block.vectors * layout.lanes();
        for i in 0..block.channels {
            let first = (block.first + i) * layout.group_in * TAPS;
            // SAFETY: a unit's output channels, and so their weights, are its own.
            let dw = unsafe { dw.slice(first..first + layout.group_in * TAPS) };
            for (input, dw) in dw.chunks_exact_mut(TAPS).enumerate() {
                let row = layout.range(unit).start + layout.kernel_rows(input).0 * width + i;
                for (tap, dw) in dw.iter_mut().enumerate() {
                    let at = tap * layout.len() + row;
                    // SAFETY: the unit's sums are its own.
                    let sum = unsafe { sums.slice(at..at + 1)[0] };
                    *dw = if accumulate { *dw + sum } else { sum };
                }
            }
        }
    });
}

struct State<'a> {
    inputs: Scratch<'a>,
    gradients: Scratch<'a>,
}

struct ReduceTiles<'a, 'b> {
    reduction: &'a Reduction<'a>,
    layout: &'a BlockedLayout,
    tiles: &'a Tiles,
    range: Range<usize>,
    /// Whether the sums start at zero.
    first: bool,
    transformed: &'a TransformedLayout,
    units: Range<usize>,
    /// Where the part's sums start.
    start: usize,
    sums: SharedMut<'a, f32>,
    state: &'a mut State<'b>,
}

impl SimdOp for ReduceTiles<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let ReduceTiles {
            reduction,
            layout,
            tiles,
            range,
            transformed,
            state,
            ..
        } = self;
        let source = &reduction.source;
        gather_tiles(
            isa,
            source,
            tiles,
            range.clone(),
            transformed,
            &mut state.inputs,
        );
        for unit in self.units {
            let (_, block) = layout.unit(unit);
            let width = block.vectors * isa.f32().len();
            // An odd number of cache lines keeps the points out of one another's sets.
            let point_len = (range.len() * width) | BLOCK;
            let gradients = &mut state.gradients;
            transform_gradients(isa, reduction, tiles, &range, &block, point_len, gradients);
            let padded = OutputBlock {
                channels: width,
                ..block
            };
            for point in 0..POINTS {
                let at = self.start + point * layout.len();
                let weights = layout.range(unit);
                // SAFETY: each task has parts or units of its own.
                let sums = unsafe { self.sums.slice(at + weights.start..at + weights.end) };
                if self.first {
                    sums.fill(0.0);
                }
                let run = Run {
                    input: state.inputs[point * transformed.point..].as_ptr(),
                    input_strides: [0, 0],
                    gradient: state.gradients[point * point_len..].as_ptr(),
                    gradient_strides: [0, 0, width],
                    pixels: [1, 1, range.len()],
                };
                // SAFETY: both transformed tensors hold the range's tiles at every point.
                unsafe {
                    let plane = transformed.plane;
                    run_block(isa, &run, plane, &[0], layout.group_in, &padded, sums);
                }
            }
        }
    }
}

/// Transforms the gradients of a block's output channels to `[point][tile][channel]`.
#[inline(always)]
fn transform_gradients<I: Isa>(
    isa: I,
    reduction: &Reduction<'_>,
    tiles: &Tiles,
    range: &Range<usize>,
    block: &OutputBlock,
    point_len: usize,
    out: &mut [f32],
) {
    let ops = isa.f32();
    let lanes = ops.len();
    let width = block.vectors * lanes;
    let [height, grid_width] = reduction.grid;
    assert!(out.len() >= POINTS * point_len && point_len >= range.len() * width);
    for (i, tile) in range.clone().enumerate() {
        let [image, row, column] = tiles.position(tile);
        let rows = TILE.min(height - row);
        let columns = TILE.min(grid_width - column);
        for v in 0..block.vectors {
            let channels = lanes.min(block.channels - v * lanes);
            let load = |r: usize, c: usize| {
                if r >= rows || c >= columns {
                    return ops.zero();
                }
                let pixel = (image * height + row + r) * grid_width + column + c;
                let at = pixel * reduction.out_channels + block.first + v * lanes;
                ops.load_pad(&reduction.gradient[at..at + channels]).0
            };
            let mut lines = [[ops.zero(); TILE]; INPUTS];
            for c in 0..TILE {
                let line = transform_line(isa, std::array::from_fn(|r| load(r, c)));
                for r in 0..INPUTS {
                    lines[r][c] = line[r];
                }
            }
            for (r, line) in lines.into_iter().enumerate() {
                for (c, value) in transform_line(isa, line).into_iter().enumerate() {
                    let at = (r * INPUTS + c) * point_len + i * width + v * lanes;
                    // SAFETY: within the length asserted above.
                    unsafe { ops.store_ptr(value, out.as_mut_ptr().add(at)) };
                }
            }
        }
    }
}

/// Four gradients of a line at the points: the transpose of the outputs' transform.
#[inline(always)]
fn transform_line<I: Isa>(isa: I, y: [I::F32; TILE]) -> [I::F32; INPUTS] {
    let ops = isa.f32();
    let [half, two] = [0.5, 2.0].map(|x| ops.splat(x));
    let [root, half_root] = [ROOT, HALF_ROOT].map(|x| ops.splat(x));
    let [two_roots, quarter_root] = [2.0 * ROOT, 0.5 * HALF_ROOT].map(|x| ops.splat(x));
    let even = ops.mul_add(half, y[2], y[0]);
    let odd = ops.mul_add(half_root, y[1], ops.mul(quarter_root, y[3]));
    let even2 = ops.mul_add(two, y[2], y[0]);
    let odd2 = ops.mul_add(root, y[1], ops.mul(two_roots, y[3]));
    [
        y[0],
        ops.add(even, odd),
        ops.sub(even, odd),
        ops.add(even2, odd2),
        ops.sub(even2, odd2),
        y[3],
    ]
}

/// Adds a unit's sums of all parts and transforms them to the nine taps, which take the places
/// of the first nine points of the first part.
struct TransformSums<'a> {
    layout: &'a BlockedLayout,
    unit: usize,
    parts: usize,
    sums: SharedMut<'a, f32>,
}

impl SimdOp for TransformSums<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let ops = isa.f32();
        let len = self.layout.len();
        let range = self.layout.range(self.unit);
        for at in range.step_by(ops.len()) {
            // SAFETY: the unit's sums are this task's alone.
            let sums = |at: usize| unsafe { self.sums.slice(at..at + ops.len()) };
            let load = |point: usize| {
                let part = |part: usize| ops.load(sums((part * POINTS + point) * len + at));
                (1..self.parts).fold(part(0), |sum, i| ops.add(sum, part(i)))
            };
            let mut lines = [[ops.zero(); INPUTS]; 3];
            for c in 0..INPUTS {
                let line = kernel_line(isa, std::array::from_fn(|r| load(r * INPUTS + c)));
                for r in 0..3 {
                    lines[r][c] = line[r];
                }
            }
            for (r, line) in lines.into_iter().enumerate() {
                for (c, value) in kernel_line(isa, line).into_iter().enumerate() {
                    ops.store(value, sums((r * 3 + c) * len + at));
                }
            }
        }
    }
}

/// Three taps of a line from their sums at the points: the transpose of the kernels' transform.
#[inline(always)]
fn kernel_line<I: Isa>(isa: I, u: [I::F32; INPUTS]) -> [I::F32; 3] {
    let ops = isa.f32();
    let [third, two_thirds, sixth] = [1.0 / 3.0, 2.0 / 3.0, 1.0 / 6.0].map(|x| ops.splat(x));
    let [root_third, root_sixth] = [ROOT / 3.0, ROOT / 6.0].map(|x| ops.splat(x));
    let (sum, difference) = (ops.add(u[1], u[2]), ops.sub(u[2], u[1]));
    let (sum2, difference2) = (ops.add(u[3], u[4]), ops.sub(u[3], u[4]));
    [
        ops.mul_sub_from(two_thirds, sum, ops.mul_add(sixth, sum2, u[0])),
        ops.mul_add(root_third, difference, ops.mul(root_sixth, difference2)),
        ops.mul_add(third, ops.sub(sum2, sum), u[5]),
    ]
}

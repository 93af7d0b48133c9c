//! The backward pass to weights by Winograd's algorithm. For each tile, the forward pass is
//! `Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A` in the notation of Lavin and Gray, linear in the kernel `g`. Its
//! transpose gives the gradient `Gᵀ [(A y Aᵀ) ⊙ (Bᵀ d B)] G` for output gradients `y`: the inputs
//! and the output gradients are transformed, multiplied and summed over all tiles by 36 GEMMs, and
//! the sums transformed to the nine taps.

use std::f32::consts::{FRAC_1_SQRT_2 as HALF_ROOT, SQRT_2 as ROOT};
use std::ops::Range;

use rten_simd::ops::{BitOps, FloatOps, NumOps};
use rten_simd::{Isa, SimdOp};

use super::tiles::{Slots, Tiles, TransformedLayout, transform_input_tiles};
use super::transforms::F4;
use crate::array::array;
use crate::context::Context;
use crate::conv::algorithm::WinogradTile;
use crate::conv::gather::BLOCK;
use crate::conv::layout::{BlockedLayout, OutputBlock};
use crate::conv::prefetch::{part_of, share_of_step};
use crate::conv::reduction::Reduction;
use crate::conv::reduction_kernel::{Run, RunInputs, reduce_panel};
use crate::conv::tuning::{
    REDUCTION_TASKS, WINOGRAD_REDUCTION_FEWEST_PARTS, WINOGRAD_REDUCTION_PARTIAL_FLOATS,
    WINOGRAD_REDUCTION_SHARED_STRIP, WINOGRAD_REDUCTION_STRIP, WINOGRAD_REDUCTION_TASK_TILES,
};
use crate::lanes::{load_masked, mask_of};
use crate::shared_mut::SharedMut;

const TAPS: usize = 9;

/// Rows of outputs of a tile, rows of its inputs, and its points, each with a GEMM.
const TILE: usize = WinogradTile::Four.outputs();
const INPUTS: usize = TILE + 2;
const POINTS: usize = WinogradTile::Four.points();

/// Computes the gradient with respect to the weights `[output][input][tap]` of a 3×3 convolution
/// with stride 1.
pub(in crate::conv) fn run(
    ctx: &Context,
    reduction: &Reduction<'_>,
    dw: &mut [f32],
    accumulate: bool,
) {
    let layout = &reduction.layout.with_taps(1);
    let tiles = Tiles {
        grid: reduction.grid(),
        origin: reduction.window().origin,
        outputs: TILE,
    };
    let count = tiles.count(reduction.batch());
    let len = POINTS * layout.len();
    // At least one strip per part, as the first strip initialises the part's sums.
    let strip = Strip::new(layout, count, WINOGRAD_REDUCTION_STRIP);
    let parts = (WINOGRAD_REDUCTION_PARTIAL_FLOATS / len)
        .min(REDUCTION_TASKS)
        .min(count.div_ceil(strip.tiles));
    let parts = if parts < WINOGRAD_REDUCTION_FEWEST_PARTS {
        1
    } else {
        parts
    };
    let reduce = Reduce {
        reduction,
        layout,
        tiles: &tiles,
    };
    let mut partial = ctx.scratch(parts * len);
    let sums = SharedMut::new(&mut partial);
    if parts > 1 {
        reduce.in_parts(ctx, count, parts, &strip, sums);
    } else {
        reduce.together(ctx, count, sums);
    }
    let panels = layout.panels();
    let dw = SharedMut::new(dw);
    ctx.parallel(panels, |panel| {
        ctx.dispatch(TransformSums {
            layout,
            panel,
            parts,
            sums,
        });
        let (_, block) = layout.panel(panel);
        let width = block.vectors * layout.lanes();
        let range = layout.range(panel);
        // Some inputs at a time: a line of sums holds a tap of one input for many outputs, and stays
        // in L1 until all of them are stored.
        for first in (0..layout.group_in).step_by(BLOCK) {
            let inputs = BLOCK.min(layout.group_in - first);
            let mut rows = [0; BLOCK];
            for (i, row) in rows[..inputs].iter_mut().enumerate() {
                *row = range.start + layout.rows_of_input(first + i).0 * width;
            }
            for i in 0..block.channels {
                let start = ((block.first + i) * layout.group_in + first) * TAPS;
                // SAFETY: a panel's output channels, and so their weights, are its own.
                let dw = unsafe { dw.slice(start..start + inputs * TAPS) };
                for (row, dw) in rows.iter().zip(dw.chunks_exact_mut(TAPS)) {
                    for (tap, dw) in dw.iter_mut().enumerate() {
                        let at = tap * layout.len() + row + i;
                        // SAFETY: the panel's sums are its own.
                        let sum = unsafe { sums.slice(at..at + 1)[0] };
                        *dw = if accumulate { *dw + sum } else { sum };
                    }
                }
            }
        }
    });
}

/// A reduction and the tiles that it runs over.
struct Reduce<'a> {
    reduction: &'a Reduction<'a>,
    layout: &'a BlockedLayout,
    tiles: &'a Tiles,
}

impl Reduce<'_> {
    /// Divides the tiles into parts with partial sums of their own, a task each. For few channels,
    /// whose sums are small.
    fn in_parts(
        &self,
        ctx: &Context,
        count: usize,
        parts: usize,
        strip: &Strip,
        sums: SharedMut<'_, f32>,
    ) {
        let len = POINTS * self.layout.len();
        let strips = count.div_ceil(strip.tiles);
        ctx.parallel_with(
            parts,
            || ctx.scratch(strip.len()),
            |scratch, part| {
                let (inputs, gradients) = scratch.split_at_mut(strip.inputs.len());
                let (inputs, gradients) = (SharedMut::new(inputs), SharedMut::new(gradients));
                let first = strips * part / parts;
                for index in first..strips * (part + 1) / parts {
                    let range = |index: usize| {
                        count.min(index * strip.tiles)..count.min((index + 1) * strip.tiles)
                    };
                    let next = [self.reduction.source.data, self.reduction.gradient]
                        .map(|tensor| part_of(tensor, range(index + 1), count));
                    let range = range(index);
                    for step in [
                        Step::Inputs(0..range.len()),
                        Step::Gradients(0..range.len()),
                        Step::Sums(0..POINTS, 0..self.layout.panels()),
                    ] {
                        ctx.dispatch(RunStep {
                            ctx,
                            reduce: self,
                            strip,
                            range: range.clone(),
                            step,
                            first: index == first,
                            inputs,
                            gradients,
                            sums,
                            start: part * len,
                            next,
                        });
                    }
                }
            },
        );
    }

    /// One part, strip by strip: all threads transform the strip's tiles together, then divide its
    /// points and panels. For many channels, whose sums are too large for a copy per part.
    fn together(&self, ctx: &Context, count: usize, sums: SharedMut<'_, f32>) {
        let strip = Strip::new(self.layout, count, WINOGRAD_REDUCTION_SHARED_STRIP);
        let mut scratch = ctx.scratch(strip.len());
        let (inputs, gradients) = scratch.split_at_mut(strip.inputs.len());
        let (inputs, gradients) = (SharedMut::new(inputs), SharedMut::new(gradients));
        let panels = self.layout.panels();
        // 36 points are enough tasks for four threads.
        let splits = panels.min(ctx.threads().div_ceil(4));
        for start in (0..count).step_by(strip.tiles) {
            let range = start..count.min(start + strip.tiles);
            let run = |step| {
                ctx.dispatch(RunStep {
                    ctx,
                    reduce: self,
                    strip: &strip,
                    range: range.clone(),
                    step,
                    first: start == 0,
                    inputs,
                    gradients,
                    sums,
                    start: 0,
                    next: [&[]; 2],
                });
            };
            ctx.parallel(
                2 * range.len().div_ceil(WINOGRAD_REDUCTION_TASK_TILES),
                |task| {
                    let first = task / 2 * WINOGRAD_REDUCTION_TASK_TILES;
                    let slots = first..range.len().min(first + WINOGRAD_REDUCTION_TASK_TILES);
                    run(if task % 2 == 0 {
                        Step::Inputs(slots)
                    } else {
                        Step::Gradients(slots)
                    });
                },
            );
            ctx.parallel(POINTS * splits, |task| {
                let (point, split) = (task / splits, task % splits);
                let panels = panels * split / splits..panels * (split + 1) / splits;
                run(Step::Sums(point..point + 1, panels));
            });
        }
    }
}

/// The tiles that are transformed at once, and the layout of the results.
struct Strip {
    tiles: usize,
    inputs: TransformedLayout,
    /// Stride between the points of the gradients `[panel][point][tile][channel]`.
    gradient_point: usize,
    panels: usize,
}

impl Strip {
    /// Equal strips of about `floats` transformed floats, with at least `fewest` tiles.
    fn new(layout: &BlockedLayout, count: usize, [floats, fewest]: [usize; 2]) -> Self {
        let channels = layout.group_in.next_multiple_of(BLOCK);
        let width = layout.widest_panel();
        let panels = layout.panels();
        let most = (floats / (POINTS * (channels + panels * width))).max(fewest);
        let tiles = count.div_ceil(count.div_ceil(most));
        Strip {
            tiles,
            inputs: TransformedLayout::new(POINTS, layout.group_in, tiles),
            // An odd number of cache lines, so that a tile's points map to different sets of the
            // caches.
            gradient_point: (tiles * width) | BLOCK,
            panels,
        }
    }

    /// Floats of the transformed inputs and gradients together.
    fn len(&self) -> usize {
        self.inputs.len() + self.panels * POINTS * self.gradient_point
    }
}

/// A step of the work on a strip.
#[derive(Clone)]
enum Step {
    /// Transform the inputs of a range of the strip's tiles.
    Inputs(Range<usize>),
    /// Transform the output gradients of a range of the strip's tiles.
    Gradients(Range<usize>),
    /// Add the strip's products to the sums of a range of points and a range of panels.
    Sums(Range<usize>, Range<usize>),
}

struct RunStep<'a> {
    ctx: &'a Context,
    reduce: &'a Reduce<'a>,
    strip: &'a Strip,
    /// The strip's tiles.
    range: Range<usize>,
    step: Step,
    /// Whether this is the first strip of its sums, which then start from zero.
    first: bool,
    inputs: SharedMut<'a, f32>,
    gradients: SharedMut<'a, f32>,
    sums: SharedMut<'a, f32>,
    /// Offset of the part's sums.
    start: usize,
    /// Inputs and gradients of the next strip, to prefetch while sums are computed.
    next: [&'a [f32]; 2],
}

impl SimdOp for RunStep<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Reduce {
            reduction,
            layout,
            tiles,
        } = *self.reduce;
        match self.step.clone() {
            Step::Inputs(slots) => transform_input_tiles::<I, F4, TILE, INPUTS>(
                isa,
                &reduction.source,
                layout.inputs_of(0),
                tiles,
                self.range.start + slots.start..self.range.start + slots.end,
                Slots {
                    layout: &self.strip.inputs,
                    first: slots.start,
                    out: self.inputs,
                },
            ),
            Step::Gradients(slots) => {
                for panel in 0..layout.panels() {
                    self.transform_gradients(isa, panel, slots.clone());
                }
            }
            Step::Sums(points, panels) => {
                for point in points {
                    for panel in panels.clone() {
                        self.add(isa, point, panel);
                    }
                }
            }
        }
    }
}

impl RunStep<'_> {
    /// Adds the strip's products at a point to the sums of a panel.
    #[inline(always)]
    fn add<I: Isa>(&self, isa: I, point: usize, panel: usize) {
        let layout = self.reduce.layout;
        let (_, block) = layout.panel(panel);
        let width = block.vectors * isa.f32().len();
        let padded = OutputBlock {
            channels: width,
            ..block
        };
        let at = self.start + point * layout.len();
        let weights = layout.range(panel);
        // SAFETY: no other task adds to this part's sums of this point and block.
        let sums = unsafe { self.sums.slice(at + weights.start..at + weights.end) };
        if self.first {
            sums.fill(0.0);
        }
        let Strip {
            inputs,
            gradient_point,
            panels,
            ..
        } = self.strip;
        let input = point * inputs.point;
        let gradient = (panel * POINTS + point) * gradient_point;
        assert!(input < self.inputs.len() && gradient < self.gradients.len());
        let pixels = self.range.len();
        // SAFETY: both transformed tensors contain the strip's tiles at every point, and no task
        // writes them now.
        unsafe {
            let run = Run {
                input: self.inputs.as_ptr().add(input),
                input_strides: [0, 0, BLOCK],
                gradient: self.gradients.as_ptr().add(gradient),
                gradient_strides: [0, 0, width],
                pixels: [1, 1, pixels],
            };
            let inputs = RunInputs {
                plane: inputs.plane,
                taps: &[0],
            };
            reduce_panel(
                self.ctx,
                &run,
                inputs,
                layout,
                &padded,
                sums,
                share_of_step(self.next, point * panels + panel, POINTS * panels),
            );
        }
    }

    /// Transforms the gradients of a panel's output channels for tiles `slots` of the strip.
    #[inline(always)]
    fn transform_gradients<I: Isa>(&self, isa: I, panel: usize, slots: Range<usize>) {
        let ops = isa.f32();
        let lanes = ops.len();
        let reduction = self.reduce.reduction;
        let (_, block) = self.reduce.layout.panel(panel);
        let width = block.vectors * lanes;
        let point_len = self.strip.gradient_point;
        let start = panel * POINTS * point_len;
        let [height, grid_width] = reduction.grid();
        assert!(
            start + POINTS * point_len <= self.gradients.len() && slots.end * width <= point_len
        );
        for slot in slots {
            let [image, row, column] = self.reduce.tiles.position(self.range.start + slot);
            let rows = TILE.min(height - row);
            let columns = TILE.min(grid_width - column);
            let channels = reduction.out_channels();
            let first = ((image * height + row) * grid_width + column) * channels + block.first;
            let last = first + ((rows - 1) * grid_width + columns - 1) * channels;
            assert!(last + block.channels <= reduction.gradient.len());
            for v in 0..block.vectors {
                let mask = mask_of(isa, block.channels - v * lanes);
                let mut gradients = [[ops.zero(); TILE]; TILE];
                for c in 0..TILE {
                    for r in 0..TILE {
                        if r < rows && c < columns {
                            let at = first + (r * grid_width + c) * channels + v * lanes;
                            // SAFETY: the tile's pixels were asserted to lie within the gradient,
                            // and the mask leaves out channels past the panel's.
                            gradients[c][r] = unsafe {
                                load_masked(isa, reduction.gradient.as_ptr().add(at), mask)
                            };
                        }
                    }
                }
                let mut lines = [[ops.zero(); TILE]; INPUTS];
                for c in 0..TILE {
                    let line = transform_gradient(isa, gradients[c]);
                    for r in 0..INPUTS {
                        lines[r][c] = line[r];
                    }
                }
                for (r, line) in lines.into_iter().enumerate() {
                    for (c, value) in transform_gradient(isa, line).into_iter().enumerate() {
                        let at = start + (r * INPUTS + c) * point_len + slot * width + v * lanes;
                        // SAFETY: within the length asserted above, and no other task has
                        // this tile.
                        unsafe { ops.store_ptr(value, self.gradients.as_ptr().add(at)) };
                    }
                }
            }
        }
    }
}

/// `A y`: the values at the points of a line of four output gradients. `A` is the transpose of the
/// output transform.
#[inline(always)]
fn transform_gradient<I: Isa>(isa: I, y: [I::F32; TILE]) -> [I::F32; INPUTS] {
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

/// Adds a panel's partial sums of all parts and transforms them to the nine taps, which are stored
/// in place of the first nine points of the first part.
struct TransformSums<'a> {
    layout: &'a BlockedLayout,
    panel: usize,
    parts: usize,
    sums: SharedMut<'a, f32>,
}

impl SimdOp for TransformSums<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let ops = isa.f32();
        let len = self.layout.len();
        let range = self.layout.range(self.panel);
        for at in range.step_by(ops.len()) {
            // SAFETY: the panel's sums are this task's alone.
            let sums = |at: usize| unsafe { self.sums.slice(at..at + ops.len()) };
            let load = |point: usize| {
                let part = |part: usize| ops.load(sums((part * POINTS + point) * len + at));
                (1..self.parts).fold(part(0), |sum, i| ops.add(sum, part(i)))
            };
            let mut lines = [[ops.zero(); INPUTS]; 3];
            for c in 0..INPUTS {
                let line = transform_to_taps(isa, array(|r| load(r * INPUTS + c)));
                for r in 0..3 {
                    lines[r][c] = line[r];
                }
            }
            for (r, line) in lines.into_iter().enumerate() {
                for (c, value) in transform_to_taps(isa, line).into_iter().enumerate() {
                    ops.store(value, sums((r * 3 + c) * len + at));
                }
            }
        }
    }
}

/// `Gᵀ u`: the gradients of a line of three taps from the sums at the points. `Gᵀ` is the transpose
/// of the kernel transform.
#[inline(always)]
fn transform_to_taps<I: Isa>(isa: I, u: [I::F32; INPUTS]) -> [I::F32; 3] {
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

//! Forward pass and data gradient by Winograd's algorithm: input transform, GEMMs, output
//! transform.

use std::ops::Range;

use rten_simd::ops::{BitOps, NumOps};
use rten_simd::{Isa, SimdOp};

use super::tiles::{Slots, TileRows, Tiles, TransformedLayout, transform_input_tiles};
use super::transforms::{F2, F4, Transforms};
use super::weights::TransformedWeights;
use crate::array::array;
use crate::context::Context;
use crate::conv::addresses::Pixels;
use crate::conv::algorithm::WinogradTile;
use crate::conv::epilogue::EpilogueLanes;
use crate::conv::gather::BLOCK;
use crate::conv::microkernel::{Sums, Tile, run_tile};
use crate::conv::partition::{Partition, wanted_tasks};
use crate::conv::prefetch::{Prefetcher, part_of, prefetch_output};
use crate::conv::problem::{OutputLayout, Problem};
use crate::conv::product::Product;
use crate::conv::tuning::{GATHER_COST, MAX_PIXELS, TASK_MACS, WINOGRAD_STRIP_FLOATS, max_pixels};
use crate::isa::Registers;
use crate::lanes::{load_masked, store_masked};
use crate::scratch::Scratch;
use crate::shared_mut::SharedMut;

/// Computes a product with a 3×3 window of stride 1 by Winograd's algorithm.
pub(in crate::conv) fn run(ctx: &Context, product: &Product<'_>, weights: &TransformedWeights) {
    let Problem {
        window,
        grid,
        batch,
        ..
    } = product.problem;
    let layout = weights.layout();
    let tiles = Tiles {
        grid,
        origin: window.origin,
        outputs: weights.tile().outputs(),
    };
    let points = weights.tile().points();
    let count = tiles.count(batch);
    let threads = ctx.threads();
    let channels = layout.group_in.next_multiple_of(BLOCK);
    // As many tiles as fit in the cache, but enough to use each weight that is loaded for two
    // register blocks.
    let most = (WINOGRAD_STRIP_FLOATS / (points * channels)).max(2 * MAX_PIXELS);
    let panels = layout.panels();
    // Tasks of different strips load the same weights, and tasks of one strip repeat its input
    // transform. With few tiles the weights dominate, so the panels are divided among tasks rather
    // than the tiles into more strips, unless there are fewer panels than tasks wanted.
    let strips = count
        .div_ceil(most)
        .max(wanted_tasks(threads).div_ceil(panels))
        .min(count.div_ceil(MAX_PIXELS));
    let most_splits = |strip: usize| {
        let transforms = GATHER_COST * layout.groups * channels;
        let macs = points * strip * (layout.macs_per_pixel() + transforms);
        macs.div_ceil(TASK_MACS).min(panels)
    };
    let partition = Partition::of_row(count, strips, 1, most_splits, threads);
    let strip = partition.strip[1];
    let transformed = TransformedLayout::new(points, layout.group_in, strip);
    let width = layout.widest_panel();
    ctx.parallel_with(
        partition.tasks(1),
        || State {
            inputs: ctx.scratch(transformed.len()),
            products: ctx.scratch(points * (strip * width + BLOCK)),
            gathered: None,
        },
        |state, task| {
            let task = partition.task(task, 1, panels);
            let last_of_strip = task.panels.end == panels;
            for index in task.strips {
                let range = |index| {
                    let [start, end] = partition.strip([1, count], index).columns;
                    start..end
                };
                let next = last_of_strip
                    && product.input_is_evicted()
                    && index + 1 < partition.all_strips(1);
                let tiles = RunTiles {
                    ctx,
                    product,
                    weights,
                    tiles: &tiles,
                    range: range(index),
                    next: if next {
                        part_of(product.source.data, range(index + 1), count)
                    } else {
                        &[]
                    },
                    transformed: &transformed,
                    panels: task.panels.clone(),
                    state,
                };
                match weights.tile() {
                    WinogradTile::Two => ctx.dispatch(RunTwo(tiles)),
                    WinogradTile::Four => ctx.dispatch(RunFour(tiles)),
                }
            }
        },
    );
}

/// A thread's buffers. Tasks that compute other panels of the same strip reuse its inputs.
struct State<'a> {
    /// Transformed inputs of a strip.
    inputs: Scratch<'a>,
    /// The sums of one panel at all points, `[point][tile][output channel]`.
    products: Scratch<'a>,
    /// The first tile of the strip, and the group, that are in `inputs`.
    gathered: Option<[usize; 2]>,
}

struct RunTiles<'a, 'b> {
    ctx: &'a Context,
    product: &'a Product<'a>,
    weights: &'a TransformedWeights,
    tiles: &'a Tiles,
    range: Range<usize>,
    /// Inputs of the next strip, to prefetch.
    next: &'a [f32],
    transformed: &'a TransformedLayout,
    panels: Range<usize>,
    state: &'a mut State<'b>,
}

/// Tiles of 2×2 outputs.
struct RunTwo<'a, 'b>(RunTiles<'a, 'b>);

impl SimdOp for RunTwo<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        self.0.run::<I, F2, 2, 4, 4>(isa);
    }
}

/// Tiles of 4×4 outputs.
struct RunFour<'a, 'b>(RunTiles<'a, 'b>);

impl SimdOp for RunFour<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        self.0.run::<I, F4, 4, 6, 16>(isa);
    }
}

impl RunTiles<'_, '_> {
    /// `OUTPUTS` is the square of `M`.
    #[inline(always)]
    fn run<I: Isa, F: Transforms<M, N>, const M: usize, const N: usize, const OUTPUTS: usize>(
        self,
        isa: I,
    ) {
        let RunTiles {
            ctx,
            product,
            weights,
            tiles,
            range,
            next,
            transformed,
            panels,
            state,
        } = self;
        let layout = weights.layout();
        let runs = runs::<I>(&range, layout.panel(panels.start).1.vectors);
        let steps = runs * layout.group_in.div_ceil(BLOCK);
        let mut next_inputs = Prefetcher::new(next, panels.len() * N * N * steps);
        for panel in panels {
            let (group, _) = layout.panel(panel);
            if state.gathered != Some([range.start, group]) {
                state.gathered = Some([range.start, group]);
                let slots = Slots {
                    layout: transformed,
                    first: 0,
                    out: SharedMut::new(&mut state.inputs),
                };
                let source = &product.source;
                let of = layout.inputs_of(group);
                let range = range.clone();
                transform_input_tiles::<I, F, M, N>(isa, source, of, tiles, range, slots);
            }
            let run = PanelRun {
                ctx,
                product,
                weights,
                tiles,
                range: &range,
                transformed,
            };
            run.run::<I, F, M, N, OUTPUTS>(isa, panel, &mut next_inputs, state);
        }
    }
}

/// What the work on all panels of a strip shares.
struct PanelRun<'a> {
    ctx: &'a Context,
    product: &'a Product<'a>,
    weights: &'a TransformedWeights,
    tiles: &'a Tiles,
    range: &'a Range<usize>,
    transformed: &'a TransformedLayout,
}

impl PanelRun<'_> {
    /// Multiplies the transformed inputs by a panel of the weights, and transforms the products to
    /// outputs.
    #[inline(always)]
    fn run<I: Isa, F: Transforms<M, N>, const M: usize, const N: usize, const OUTPUTS: usize>(
        &self,
        isa: I,
        panel: usize,
        next_inputs: &mut Prefetcher<'_>,
        state: &mut State<'_>,
    ) {
        let PanelRun {
            ctx,
            product,
            weights,
            tiles,
            range,
            transformed,
        } = *self;
        let ops = isa.f32();
        let lanes = ops.len();
        let layout = weights.layout();
        let (group, block) = layout.panel(panel);
        let vectors = block.vectors;
        let width = vectors * lanes;
        let first = group * layout.group_out + block.first;
        // An odd number of cache lines, so that a tile's points map to different sets of the
        // caches.
        let point_len = (range.len() * width) | BLOCK;
        let points = N * N;
        assert!(state.products.len() >= points * point_len);
        assert!(state.inputs.len() >= transformed.len());
        let runs = runs::<I>(range, vectors);
        let evicted = if product.output_is_evicted() {
            range.clone()
        } else {
            0..0
        };
        let mut outputs = TileRows::over(tiles, evicted, points * runs);
        for point in 0..points {
            let packed = weights.panel(point, panel);
            let steps = layout.group_in.div_ceil(BLOCK);
            let mut ahead = Prefetcher::new(weights.to_prefetch(point, panel), runs * steps);
            for run in 0..runs {
                let [start, end] = [run, run + 1].map(|r| range.len() * r / runs);
                for pixel in outputs.next() {
                    prefetch_outputs::<M>(product, pixel, first, width);
                }
                // SAFETY: inputs and products are as long as asserted, and the weights are the
                // panel's at this point.
                unsafe {
                    run_tile(
                        ctx,
                        end - start,
                        vectors,
                        &Tile {
                            input: state
                                .inputs
                                .as_ptr()
                                .add(point * transformed.point + start * BLOCK),
                            pixels: Pixels::Row {
                                input: BLOCK,
                                output: width,
                            },
                            plane: transformed.plane,
                            taps: &[0],
                            channels: layout.group_in,
                            block: BLOCK,
                            weights: packed.as_ptr(),
                            sums: Sums {
                                keep: Some(
                                    state
                                        .products
                                        .as_mut_ptr()
                                        .add(point * point_len + start * width),
                                ),
                                ..Sums::default()
                            },
                            output: None,
                            prefetch: &[ahead.next(steps), next_inputs.next(steps)],
                        },
                    );
                }
            }
        }
        let Problem {
            grid, output: out, ..
        } = &product.problem;
        for v in 0..vectors {
            let channel = first + v * lanes;
            let lane_epilogue =
                product
                    .epilogue
                    .lanes(isa, channel, lanes.min(block.channels - v * lanes));
            let mut position = tiles.position(range.start);
            for i in 0..range.len() {
                let [image, row, column] = position;
                position = tiles.after(position);
                let from = i * width + v * lanes;
                let mut lines = [[ops.zero(); N]; M];
                for c in 0..N {
                    let line = array(|r| {
                        let at = (r * N + c) * point_len + from;
                        // SAFETY: within the length asserted above.
                        unsafe { ops.load_ptr(state.products.as_ptr().add(at)) }
                    });
                    let line = F::transform_output(isa, line);
                    for r in 0..M {
                        lines[r][c] = line[r];
                    }
                }
                let mut sums = [[ops.zero(); M]; M];
                for r in 0..M {
                    sums[r] = F::transform_output(isa, lines[r]);
                }
                let size = [M.min(grid[0] - row), M.min(grid[1] - column)];
                let at = out.at([image, row, column]) + channel;
                // SAFETY: the outputs of a tile within the grid are this task's alone;
                // `Product`'s makers assert that they lie in the output tensor, which residual and
                // second output equal in length.
                unsafe {
                    if size == [M; 2] && lane_epilogue.mask.is_none() {
                        let places: [_; OUTPUTS] = array(|i| i / M * out.row + i % M * out.pixel);
                        let sums: [_; OUTPUTS] = array(|i| sums[i / M][i % M]);
                        let to = product.output.as_ptr().add(at);
                        let accumulate = product.accumulate;
                        product
                            .epilogue
                            .store_full(isa, channel, sums, &places, to, at, accumulate);
                    } else {
                        store_edge(isa, product, &lane_epilogue, &sums, size, at);
                    }
                }
            }
        }
    }
}

/// The number of register blocks, and so calls of the micro-kernel, that the tiles of a range are
/// divided into at each point and panel.
#[inline(always)]
fn runs<I: Isa>(range: &Range<usize>, vectors: usize) -> usize {
    range
        .len()
        .div_ceil(max_pixels(Registers::of::<I>(), vectors))
}

/// Prefetches the outputs of a row of a tile for writing, as far as they are in the grid:
/// `channels` channels from `channel` on.
#[inline(always)]
fn prefetch_outputs<const M: usize>(
    product: &Product<'_>,
    [image, row, column]: [usize; 3],
    channel: usize,
    channels: usize,
) {
    let [height, width] = product.problem.grid;
    if row < height {
        for column in column..width.min(column + M) {
            let at = product.problem.output.at([image, row, column]) + channel;
            let to = product.output.as_ptr().wrapping_add(at);
            prefetch_output(&product.epilogue, to, at, channels);
        }
    }
}

/// Stores a tile at the edge of the grid or with a partly used vector: its first `size` rows and
/// columns, of which the first output is element `at` of the output tensor. Adds the sums to the
/// output if the product accumulates (it has no epilogue then), and applies the epilogue otherwise.
///
/// # Safety
///
/// As for [`TileEpilogue::store`](epilogue::TileEpilogue::store).
#[inline(always)]
unsafe fn store_edge<I: Isa, const M: usize>(
    isa: I,
    product: &Product<'_>,
    lanes: &EpilogueLanes<I>,
    sums: &[[I::F32; M]; M],
    size: [usize; 2],
    at: usize,
) {
    let OutputLayout { row, pixel, .. } = product.problem.output;
    for (r, line) in sums.iter().enumerate().take(size[0]) {
        for (c, &sum) in line.iter().enumerate().take(size[1]) {
            let at = at + r * row + c * pixel;
            // SAFETY: the caller's promise.
            unsafe {
                let to = product.output.as_ptr().add(at);
                if product.accumulate {
                    let sum = isa.f32().add(sum, load_masked(isa, to, lanes.mask));
                    store_masked(isa, sum, to, lanes.mask);
                } else {
                    product.epilogue.store(isa, lanes, sum, to, at);
                }
            }
        }
    }
}

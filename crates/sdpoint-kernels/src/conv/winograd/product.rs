//! A product by transformed weights.

use std::ops::Range;

use rten_simd::ops::{BitOps, NumOps};
use rten_simd::{Isa, SimdOp};

use super::lines::{F2, F4, Filter};
use super::tiles::{TileRows, Tiles, TransformedLayout, gather_tiles};
use super::weights::TransformedWeights;
use crate::context::Context;
use crate::conv::addresses::Pixels;
use crate::conv::algorithm::WinogradTile;
use crate::conv::cut::{Cut, wanted_tasks};
use crate::conv::epilogue::{self, FinishLanes};
use crate::conv::gather::BLOCK;
use crate::conv::microkernel::{Sums, Tile, run_tile};
use crate::conv::prefetch::{Prefetcher, part_of, prefetch_output};
use crate::conv::problem::{OutputLayout, Problem};
use crate::conv::product::Product;
use crate::conv::tuning::{
    GATHER_COST, MAX_PIXELS, TASK_MACS, VECTORS, WINOGRAD_BAND_FLOATS, max_pixels,
};
use crate::isa::Registers;
use crate::scratch::Scratch;
use crate::shared_mut::SharedMut;

/// Computes a product whose window is 3 × 3 with stride 1, by its transformed weights.
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
    // Whole rows of the micro-kernel, but no less than what makes loading the weights pay.
    let most = (WINOGRAD_BAND_FLOATS / (points * channels)).max(2 * MAX_PIXELS);
    let units = layout.units();
    // Bands share nothing but weights, which are large, and output blocks the inputs' transform:
    // for few tiles it is better to cut the weights.
    let bands = count
        .div_ceil(most)
        .max(wanted_tasks(threads).div_ceil(units))
        .min(count.div_ceil(MAX_PIXELS));
    let most_splits = |band: usize| {
        let transforms = GATHER_COST * layout.groups * channels;
        let macs = points * band * (layout.macs_per_pixel() + transforms);
        macs.div_ceil(TASK_MACS).min(units)
    };
    let cut = Cut::of_row(count, bands, 1, most_splits, threads);
    let band = cut.band[1];
    let transformed = TransformedLayout::new(points, layout.group_in, band);
    let width = VECTORS * layout.lanes();
    ctx.parallel_with(
        cut.tasks(1),
        || State {
            inputs: ctx.scratch(transformed.len()),
            products: ctx.scratch(points * (band * width + BLOCK)),
            gathered: None,
        },
        |state, task| {
            let task = cut.task(task, 1, units);
            let last_of_band = task.units.end == units;
            for index in task.bands {
                let range = |index| {
                    let [start, end] = cut.band([1, count], index).columns;
                    start..end
                };
                let next =
                    last_of_band && product.input_is_evicted() && index + 1 < cut.all_bands(1);
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
                    units: task.units.clone(),
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

/// What a thread keeps from one task to the next.
struct State<'a> {
    inputs: Scratch<'a>,
    products: Scratch<'a>,
    /// The first of the tiles whose inputs are there, and of which group they are.
    gathered: Option<[usize; 2]>,
}

struct RunTiles<'a, 'b> {
    ctx: &'a Context,
    product: &'a Product<'a>,
    weights: &'a TransformedWeights,
    tiles: &'a Tiles,
    range: Range<usize>,
    /// Inputs that the next tiles will see.
    next: &'a [f32],
    transformed: &'a TransformedLayout,
    units: Range<usize>,
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
    fn run<I: Isa, F: Filter<M, N>, const M: usize, const N: usize, const OUTPUTS: usize>(
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
            units,
            state,
        } = self;
        let layout = weights.layout();
        let runs = runs::<I>(&range, layout.unit(units.start).1.vectors);
        let steps = runs * layout.group_in.div_ceil(BLOCK);
        let mut next_inputs = Prefetcher::new(next, units.len() * N * N * steps);
        for unit in units {
            let (group, _) = layout.unit(unit);
            if state.gathered != Some([range.start, group]) {
                state.gathered = Some([range.start, group]);
                let out = SharedMut::new(&mut state.inputs);
                let source = &product.source;
                let of = layout.inputs_of(group);
                let range = range.clone();
                gather_tiles::<I, F, M, N>(isa, source, of, tiles, range, transformed, 0, out);
            }
            run_unit::<I, F, M, N, OUTPUTS>(
                ctx,
                isa,
                product,
                weights,
                tiles,
                &range,
                &mut next_inputs,
                transformed,
                unit,
                state,
            );
        }
    }
}

#[inline(always)]
fn run_unit<I: Isa, F: Filter<M, N>, const M: usize, const N: usize, const OUTPUTS: usize>(
    ctx: &Context,
    isa: I,
    product: &Product<'_>,
    weights: &TransformedWeights,
    tiles: &Tiles,
    range: &Range<usize>,
    next_inputs: &mut Prefetcher<'_>,
    transformed: &TransformedLayout,
    unit: usize,
    state: &mut State<'_>,
) {
    let ops = isa.f32();
    let lanes = ops.len();
    let layout = weights.layout();
    let (group, block) = layout.unit(unit);
    let vectors = block.vectors;
    let width = vectors * lanes;
    let first = group * layout.group_out + block.first;
    // An odd number of cache lines keeps the points out of one another's sets.
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
        let packed = weights.unit(point, unit);
        let steps = layout.group_in.div_ceil(BLOCK);
        let mut ahead = Prefetcher::new(weights.to_prefetch(point, unit), runs * steps);
        for run in 0..runs {
            let [start, end] = [run, run + 1].map(|r| range.len() * r / runs);
            for pixel in outputs.next() {
                prefetch_outputs::<M>(product, pixel, first, width);
            }
            // SAFETY: inputs and products are as long as asserted, and the weights are the
            // unit's at this point.
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
        let finish = product
            .finish
            .lanes(isa, channel, lanes.min(block.channels - v * lanes));
        let mut position = tiles.position(range.start);
        for i in 0..range.len() {
            let [image, row, column] = position;
            position = tiles.after(position);
            let from = i * width + v * lanes;
            let mut lines = [[ops.zero(); N]; M];
            for c in 0..N {
                let line = std::array::from_fn(|r| {
                    let at = (r * N + c) * point_len + from;
                    // SAFETY: within the length asserted above.
                    unsafe { ops.load_ptr(state.products.as_ptr().add(at)) }
                });
                let line = F::transform_outputs(isa, line);
                for r in 0..M {
                    lines[r][c] = line[r];
                }
            }
            let mut sums = [[ops.zero(); M]; M];
            for r in 0..M {
                sums[r] = F::transform_outputs(isa, lines[r]);
            }
            let size = [M.min(grid[0] - row), M.min(grid[1] - column)];
            let at = out.at([image, row, column]) + channel;
            // SAFETY: the outputs of a tile within the grid are this task's alone;
            // `Product`'s makers assert that they lie in the output tensor, which residual and
            // second output equal in length.
            unsafe {
                if size == [M; 2] && finish.mask.is_none() {
                    let places: [_; OUTPUTS] =
                        std::array::from_fn(|i| i / M * out.row + i % M * out.pixel);
                    let sums: [_; OUTPUTS] = std::array::from_fn(|i| sums[i / M][i % M]);
                    let to = product.output.as_ptr().add(at);
                    let accumulate = product.accumulate;
                    product
                        .finish
                        .store_whole(isa, channel, sums, &places, to, at, accumulate);
                } else {
                    store_part(isa, product, &finish, &sums, size, at);
                }
            }
        }
    }
}

/// In how many runs of the micro-kernel the tiles of a range are multiplied.
#[inline(always)]
fn runs<I: Isa>(range: &Range<usize>, vectors: usize) -> usize {
    range
        .len()
        .div_ceil(max_pixels(Registers::of::<I>(), vectors))
}

/// Prefetches the outputs of a row of a tile, if it is in the grid: so many channels from
/// `channel` on.
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
            prefetch_output(&product.finish, to, at, channels);
        }
    }
}

/// Stores the sums of a tile that the grid or the channels cut, its first `size` rows and
/// columns, finished or added to the output, and the second output; the first of them is
/// element `at` of the output tensor.
///
/// # Safety
///
/// As for [`Finish::store`].
#[inline(always)]
unsafe fn store_part<I: Isa, const M: usize>(
    isa: I,
    product: &Product<'_>,
    lanes: &FinishLanes<I>,
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
                    let sum = isa.f32().add(sum, epilogue::load(isa, to, lanes.mask));
                    epilogue::store(isa, sum, to, lanes.mask);
                } else {
                    product.finish.store(isa, lanes, sum, to, at);
                }
            }
        }
    }
}

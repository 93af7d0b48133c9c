//! A product by all of its multiplications.

use std::ops::Range;

use rten_simd::{Isa, SimdOp};

use crate::context::Context;
use crate::conv::cut::{Cut, Work};
use crate::conv::epilogue::Finish;
use crate::conv::gather::{BLOCK, Band, BandLayout, Source, Taps, Window, gather};
use crate::conv::layout::Unit;
use crate::conv::microkernel::{Sums, Tile, TileOutput, run_tile};
use crate::conv::pack::PackedWeights;
use crate::conv::prefetch::{Prefetch, Prefetcher};
use crate::conv::problem::Problem;
use crate::conv::product::Product;
use crate::conv::tiling::{TilePixels, Tiling};
use crate::conv::tuning::{L1_WAY, VECTORS, WEIGHT_FLOATS, part_floats};
use crate::isa::Registers;
use crate::scratch::Scratch;

/// Computes a product.
pub(in crate::conv) fn run(ctx: &Context, product: &Product<'_>) {
    let Problem {
        window,
        batch,
        grid,
        ..
    } = product.problem;
    let weights = &product.weights.layout;
    let units = weights.units();
    let cut = Cut::new(
        &Work {
            window,
            batch,
            grid,
            channels: weights.groups * weights.group_in.next_multiple_of(weights.block),
            macs_per_pixel: weights.macs_per_pixel(),
            weights: weights.len(),
            units,
        },
        ctx.threads(),
    );
    let layout = BandLayout::new(window, cut.band[0], cut.band[1]);
    let taps = Taps::new(&layout);
    let bands = cut.all_bands(batch);
    let tasks = cut.tasks(batch);
    ctx.parallel_with(tasks, State::default, |state, task| {
        let ends_share = ctx.ends_share(tasks, task);
        let task = cut.task(task, batch, units);
        for index in task.bands {
            let last_of_band = task.units.end == units;
            ctx.dispatch(RunBand {
                next: if last_of_band && index + 1 < bands {
                    new_inputs(product, &cut.band(grid, index), &cut.band(grid, index + 1))
                } else {
                    &[]
                },
                ctx,
                product,
                layout: &layout,
                taps: &taps,
                band: cut.band(grid, index),
                units: task.units.clone(),
                ends_share,
                state,
            });
        }
    });
}

/// In how many parts the sums are taken. Between parts they lie in the output, so that with
/// several it cannot hold anything else.
pub(in crate::conv) fn parts(weights: &PackedWeights) -> usize {
    let most = part_floats(weights.isa().registers());
    let floats = weights.layout.range(0).len();
    // A rest is not worth another pass over the sums.
    if floats <= most * 3 / 2 {
        1
    } else {
        floats.div_ceil(most)
    }
}

/// The tensor's own pixels as the input of a band, counted from this group on, where a kernel of
/// one tap sees each once, so that a copy would not pay; for instruction sets with 32 registers.
fn in_place<'a>(product: &Product<'a>, band: &Band, first_group: usize) -> Option<BandInput<'a>> {
    let Source {
        data,
        height,
        width,
        channels,
    } = product.source;
    let Window {
        kernel: [1, 1],
        stride,
        origin: [0, 0],
        ..
    } = product.problem.window
    else {
        return None;
    };
    let pixel = stride[1] * channels;
    // A tile's pixels would share a set of the first-level cache, which has fewer ways.
    if pixel.is_multiple_of(L1_WAY) {
        return None;
    }
    let at = |y: usize, x: usize| {
        let [y, x] = [y * stride[0], x * stride[1]];
        (y < height && x < width).then(|| ((band.image * height + y) * width + x) * channels)
    };
    let first = at(band.rows[0], band.columns[0])?;
    let last = at(band.rows[1] - 1, band.columns[1] - 1)?;
    let group = product.weights.layout.group_in;
    Some(BandInput {
        data: &data[first + first_group * group..last + channels],
        group,
        plane: BLOCK,
        row: stride[0] * width * channels,
        pixel,
    })
}

/// The run of the source that a band sees and the one before it did not, where that is most of
/// what it reads.
fn new_inputs<'a>(product: &Product<'a>, before: &Band, band: &Band) -> &'a [f32] {
    let Source {
        data,
        height,
        width,
        channels,
    } = product.source;
    let Problem {
        window:
            Window {
                kernel,
                stride,
                origin,
                ..
            },
        grid: [grid_height, grid_width],
        ..
    } = product.problem;
    let whole_rows = grid_height > 1 && band.width() == grid_width;
    if kernel[0] < stride[0] || !(whole_rows || grid_height == 1) {
        return &[];
    }
    let seen = |axis: usize, span: [usize; 2], size: usize| {
        let clamp = |x: isize| x.clamp(0, size as isize) as usize;
        let start = (span[0] * stride[axis]) as isize + origin[axis];
        let end = ((span[1] - 1) * stride[axis] + kernel[axis]) as isize + origin[axis];
        [clamp(start), clamp(end)]
    };
    let [mut top, bottom] = seen(0, band.rows, height);
    let [left, right] = if whole_rows {
        [0, width]
    } else {
        seen(1, band.columns, width)
    };
    if whole_rows && before.image == band.image {
        top = top.max(seen(0, before.rows, height)[1]);
    }
    if top >= bottom {
        return &[];
    }
    let row = |y: usize| (band.image * height + y) * width;
    &data[(row(top) + left) * channels..(row(bottom - 1) + right) * channels]
}

/// What a thread keeps from one task to the next.
#[derive(Default)]
struct State<'a> {
    /// Where pixels are gathered, if they are.
    scratch: Option<Scratch<'a>>,
    /// The band and groups whose pixels are there.
    gathered: Option<(Band, [usize; 2])>,
}

struct RunBand<'a, 'b> {
    ctx: &'b Context,
    product: &'a Product<'a>,
    layout: &'a BandLayout,
    taps: &'a [usize],
    band: Band,
    /// Which output blocks, counted over all groups.
    units: Range<usize>,
    /// Whether the thread's own share of the tasks ends with them.
    ends_share: bool,
    /// Inputs that the next band will gather.
    next: &'a [f32],
    state: &'a mut State<'b>,
}

impl SimdOp for RunBand<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let RunBand {
            ctx,
            product,
            layout,
            taps,
            band,
            units,
            ends_share,
            next,
            state,
        } = self;
        let weights = &product.weights.layout;
        let blocks = weights.blocks();
        let groups = [units.start / blocks, units.end.div_ceil(blocks)];
        let in_place = if Registers::are_32::<I>() {
            in_place(product, &band, groups[0])
        } else {
            None
        };
        let input = match in_place {
            Some(input) => input,
            None => gather_band(isa, ctx, product, layout, band, groups, state),
        };
        run_tiles::<I>(ctx, product, &input, taps, &band, units, ends_share, next);
    }
}

/// Copies what the band sees of these groups, if that is not what was copied last.
#[inline(always)]
fn gather_band<'a, 'b, I: Isa>(
    isa: I,
    ctx: &'b Context,
    product: &Product<'_>,
    layout: &BandLayout,
    band: Band,
    groups: [usize; 2],
    state: &'a mut State<'b>,
) -> BandInput<'a> {
    let weights = &product.weights.layout;
    let group_in = weights.group_in;
    let group = layout.len(group_in);
    let data = state
        .scratch
        .get_or_insert_with(|| ctx.scratch(weights.groups * group));
    if state.gathered != Some((band, groups)) {
        state.gathered = Some((band, groups));
        // Groups that fill their channel blocks lie side by side like one.
        let (calls, channels) = if group_in.is_multiple_of(layout.block) {
            (1, (groups[1] - groups[0]) * group_in)
        } else {
            (groups[1] - groups[0], group_in)
        };
        for call in 0..calls {
            let first = groups[0] * group_in + call * channels;
            let out = &mut data[call * group..];
            gather(isa, &product.source, layout, &band, first, channels, out);
        }
    }
    BandInput {
        data,
        group,
        plane: layout.plane,
        row: layout.row,
        pixel: layout.pixel,
    }
}

/// Where the pixels that a band sees are: distances in floats.
struct BandInput<'a> {
    /// From the first tap's first pixel on, and the first channel of the first group.
    data: &'a [f32],
    /// Between groups.
    group: usize,
    /// Between channel blocks.
    plane: usize,
    /// Between what neighbouring rows and pixels of the grid see.
    row: usize,
    pixel: usize,
}

/// Computes a band's outputs of a run of units, tile by tile.
///
/// If all weights fit in the second-level cache, the loop over tiles is outside that over units:
/// the outputs of a pixel are written side by side. Otherwise it is inside: all tiles use one
/// unit's weights, and of those a part at a time that stays in cache; between parts, the output
/// holds the sums.
#[inline(always)]
fn run_tiles<I: Isa>(
    ctx: &Context,
    product: &Product<'_>,
    input: &BandInput<'_>,
    taps: &[usize],
    band: &Band,
    units: Range<usize>,
    ends_share: bool,
    next_input: &[f32],
) {
    let weights = &product.weights.layout;
    let out = &product.problem.output;
    let runner = TileRunner {
        ctx,
        product,
        input,
        taps,
        first_group: units.start / weights.blocks(),
        origin: out.of(band),
    };
    let steps = [[input.row, input.pixel], [out.row, out.pixel]];
    let tiling = |vectors: usize| Tiling::new::<I>(band, steps, vectors);
    let vectors = |unit: usize| weights.unit(unit).1.vectors;
    let tiles_of_unit = tiling(vectors(units.start)).tiles();
    let blocks = weights.group_in.div_ceil(weights.block);
    let mut inputs = Prefetcher::new(
        next_input,
        units.len() * tiles_of_unit * blocks * taps.len(),
    );
    // Tiles of one size suit all units if those that end a group have as many vectors.
    let alike = weights.blocks() == 1 || vectors(weights.blocks() - 1) == VECTORS;
    let cached = weights.len() <= WEIGHT_FLOATS;
    let none = Finish::default();
    // The parts depend on the weights alone, as they decide in which order sums are added.
    let mut parts = Part::cut(product, &none).peekable();
    let first_channels = parts.peek().map_or(0..0, |part| part.channels.clone());
    while let Some(part) = parts.next() {
        let steps = part.channels.len().div_ceil(weights.block) * taps.len();
        if alike && cached {
            let tiling = tiling(vectors(units.start));
            for number in 0..tiling.tiles() {
                let tile = tiling.tile(number);
                for unit in weights.walk(units.clone()) {
                    let prefetch = [Prefetch::NOTHING, inputs.next(steps)];
                    runner.run(&part, &unit, &tile, prefetch);
                }
            }
            continue;
        }
        // What follows the last unit: the next part of the first one, or the thread's next task,
        // which most often has the units that come next, or the first ones; if there is one.
        let next = match parts.peek() {
            Some(next) => Some((units.start, &next.channels)),
            None if ends_share => None,
            None => Some((units.end % weights.units(), &first_channels)),
        };
        let after = next.and_then(|(unit, channels)| {
            let unit = weights.walk(unit..unit + 1).next()?;
            Some(product.weights.of(&unit, channels.clone()))
        });
        let after = after.unwrap_or(&[]);
        let mut walk = weights.walk(units.clone()).peekable();
        while let Some(unit) = walk.next() {
            let next = walk.peek();
            let next = next.map_or(after, |next| {
                product.weights.of(next, part.channels.clone())
            });
            let tiling = tiling(unit.block.vectors);
            let tiles = tiling.tiles();
            let mut weights = Prefetcher::new(next, tiles * steps);
            for number in 0..tiles {
                let prefetch = [weights.next(steps), inputs.next(steps)];
                runner.run(&part, &unit, &tiling.tile(number), prefetch);
            }
        }
    }
}

/// What the tiles of a band have in common.
struct TileRunner<'a> {
    ctx: &'a Context,
    product: &'a Product<'a>,
    input: &'a BandInput<'a>,
    taps: &'a [usize],
    /// The group that the input begins with.
    first_group: usize,
    /// Where the band's first output is.
    origin: usize,
}

impl TileRunner<'_> {
    // Inlined, as what a call copies is stored in parts and loaded as a whole, which cannot be
    // forwarded and waits until all outputs before it are stored.
    #[inline(always)]
    fn run(&self, part: &Part<'_>, unit: &Unit, tile: &TilePixels, prefetch: [Prefetch; 2]) {
        let TileRunner { product, input, .. } = self;
        let out = &product.problem.output;
        let weights = &product.weights.layout;
        let Unit { group, block, .. } = *unit;
        let channel = group * weights.group_out + block.first;
        let plane = part.channels.start / weights.block;
        let data = &input.data[(group - self.first_group) * input.group + plane * input.plane..];
        let at = self.origin + tile.first[1] + channel;
        // SAFETY: `input` has the pixels of all taps and channels of the band; the outputs are
        // this task's alone, and `Product`'s makers assert that they lie in the output tensor,
        // which residual and second output equal in length.
        unsafe {
            run_tile(
                self.ctx,
                tile.count,
                block.vectors,
                &Tile {
                    input: data[tile.first[0]..].as_ptr(),
                    pixels: tile.pixels([[input.row, input.pixel], [out.row, out.pixel]]),
                    plane: input.plane,
                    taps: self.taps,
                    channels: part.channels.len(),
                    block: weights.block,
                    weights: product.weights.of(unit, part.channels.clone()).as_ptr(),
                    sums: Sums::default(),
                    output: Some(TileOutput {
                        to: product.output.as_ptr().add(at),
                        channels: block.channels,
                        accumulate: product.accumulate || part.channels.start > 0,
                        is_evicted: product.output_is_evicted(),
                        finish: part.finish,
                        at,
                        channel,
                    }),
                    prefetch: &prefetch,
                },
            );
        }
    }
}

/// A part of the reduction.
struct Part<'a> {
    /// Which of the group's input channels, at all taps.
    channels: Range<usize>,
    /// What happens to the sums after this part.
    finish: &'a Finish<'a>,
}

impl<'a> Part<'a> {
    /// Parts of equal length but for the last.
    fn cut(product: &'a Product<'_>, none: &'a Finish<'a>) -> impl Iterator<Item = Self> {
        let layout = &product.weights.layout;
        let channels = layout.group_in;
        let part = channels
            .div_ceil(parts(product.weights))
            .next_multiple_of(layout.block);
        (0..channels).step_by(part).map(move |first| {
            let end = channels.min(first + part);
            Part {
                channels: first..end,
                finish: if end == channels {
                    &product.finish
                } else {
                    none
                },
            }
        })
    }
}

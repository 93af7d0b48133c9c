//! The implicit matrix product that forward and backward-to-data passes are: gathered pixels
//! times packed weights.

use std::ops::Range;

use rten_simd::{Isa, SimdOp};

use super::addresses::Pixels;
use super::ahead::{Ahead, Spread};
use super::cut::{Cut, WEIGHT_FLOATS, Work};
use super::epilogue::Finish;
use super::gather::{BLOCK, Band, BandLayout, Source, Taps, Window, gather};
use super::microkernel::{
    MAX_PIXELS, Shared, Tile, VECTORS, has_32_registers, max_pixels, run_tile,
};
use super::pack::{BlockedLayout, PackedWeights, Unit};
use super::{narrow, strassen, winograd};
use crate::context::Context;
use crate::scratch::Scratch;
use crate::shared_mut::SharedMut;

/// Where the grid's outputs lie in the output tensor, in floats.
#[derive(Clone, Copy, Debug)]
pub(super) struct OutputLayout {
    pub offset: usize,
    pub image: usize,
    pub row: usize,
    pub pixel: usize,
}

impl OutputLayout {
    /// Where a band's first output is.
    #[inline(always)]
    pub fn of(&self, band: &Band) -> usize {
        self.at([band.image, band.rows[0], band.columns[0]])
    }

    /// Where the output at an image's row and column is.
    #[inline(always)]
    pub fn at(&self, [image, row, column]: [usize; 3]) -> usize {
        self.offset + image * self.image + row * self.row + column * self.pixel
    }
}

/// A grid of outputs to compute for each image.
pub(super) struct Product<'a> {
    pub source: Source<'a>,
    pub window: Window,
    pub weights: &'a PackedWeights,
    pub batch: usize,
    /// Images that the grid's one row runs through, side by side; otherwise 1.
    pub joined: usize,
    /// Rows and columns of the grid.
    pub grid: [usize; 2],
    pub output: SharedMut<'a, f32>,
    pub layout: OutputLayout,
    /// Whether to add to the output rather than replace it.
    pub accumulate: bool,
    pub finish: Finish<'a>,
}

impl Product<'_> {
    /// Computes the product; the path depends on the shape alone, so that threads do not
    /// change the result.
    pub fn run(&self, ctx: &Context) {
        let [height, width] = self.grid;
        if self.batch == 0 || height == 0 || width == 0 {
            return;
        }
        if let Some(narrow) = &self.weights.narrow {
            return narrow::run(ctx, self, narrow);
        }
        if let Some(transformed) = self.weights.transformed(ctx, self.batch, self.grid) {
            return winograd::run(ctx, self, transformed);
        }
        let Product { batch, joined, .. } = *self;
        // Asked first, for to ask for the sums makes them.
        if self.rows_meet()
            && let Some(sums) = self.weights.quarter_sums(ctx, batch, joined, self.grid)
        {
            return strassen::run(ctx, self, sums);
        }
        let weights = &self.weights.layout;
        let units = weights.units();
        let cut = Cut::new(
            &Work {
                window: self.window,
                batch: self.batch,
                grid: self.grid,
                channels: weights.groups * weights.group_in.next_multiple_of(weights.block),
                macs_per_pixel: weights.macs_per_pixel(),
                weights: weights.len(),
                units,
            },
            ctx.threads(),
        );
        let layout = BandLayout::new(self.window, cut.band[0], cut.band[1]);
        let taps = Taps::new(&layout);
        let bands = cut.all_bands(self.batch);
        let tasks = cut.tasks(self.batch);
        ctx.parallel_with(tasks, State::default, |state, task| {
            let ends_share = ctx.ends_share(tasks, task);
            let task = cut.task(task, self.batch, units);
            for index in task.bands {
                let last_of_band = task.units.end == units;
                ctx.dispatch(RunBand {
                    next: if last_of_band && index + 1 < bands {
                        self.fresh(&cut.band(self.grid, index), &cut.band(self.grid, index + 1))
                    } else {
                        &[]
                    },
                    ctx,
                    product: self,
                    layout: &layout,
                    taps: &taps,
                    band: cut.band(self.grid, index),
                    units: task.units.clone(),
                    ends_share,
                    state,
                });
            }
        });
    }

    /// Whether outputs have left the caches since they were used last.
    #[inline(always)]
    pub fn far_output(&self) -> bool {
        self.output.len() >= FAR
    }

    /// Whether inputs have left the caches since they were made.
    #[inline(always)]
    pub fn far_input(&self) -> bool {
        self.source.data.len() >= FAR
    }

    /// Whether the last output of a row and the first of the next are neighbours.
    fn rows_meet(&self) -> bool {
        self.grid[0] == 1 || self.layout.row == self.grid[1] * self.layout.pixel
    }

    /// The tensor's own pixels as the input of a band, counted from this group on, where a
    /// kernel of one tap sees each once and a copy would not pay; for instruction sets with 32
    /// registers.
    fn in_place(&self, band: &Band, first_group: usize) -> Option<BandInput<'_>> {
        let Source {
            data,
            height,
            width,
            channels,
        } = self.source;
        let Window {
            kernel: [1, 1],
            stride,
            origin: [0, 0],
            ..
        } = self.window
        else {
            return None;
        };
        let pixel = stride[1] * channels;
        if pixel.is_multiple_of(SET_FLOATS) {
            return None;
        }
        let at = |y: usize, x: usize| {
            let [y, x] = [y * stride[0], x * stride[1]];
            (y < height && x < width).then(|| ((band.image * height + y) * width + x) * channels)
        };
        let first = at(band.rows[0], band.columns[0])?;
        let last = at(band.rows[1] - 1, band.columns[1] - 1)?;
        let group = self.weights.layout.group_in;
        Some(BandInput {
            data: &data[first + first_group * group..last + channels],
            group,
            plane: BLOCK,
            row: stride[0] * width * channels,
            pixel,
        })
    }

    /// The run of the source that a band sees and the one before it did not, where that is most
    /// of what it has to read.
    fn fresh(&self, before: &Band, band: &Band) -> &[f32] {
        let Source {
            data,
            height,
            width,
            channels,
            ..
        } = self.source;
        let Window {
            kernel,
            stride,
            origin,
            ..
        } = self.window;
        let [grid_height, grid_width] = self.grid;
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
}

/// Floats of a tensor so many that the caches of a core do not keep them from one layer to the
/// next.
const FAR: usize = 192 * 1024;

/// Pixels so far apart are in the same set of the first-level cache, which has room for fewer
/// than a tile has.
const SET_FLOATS: usize = 1024;

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
        let in_place = if has_32_registers::<I>() {
            product.in_place(&band, groups[0])
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

/// Weights of one unit that stay near while all tiles of a band pass by: with 16 registers in
/// the first-level cache; with 32 a tile does twice as much with each weight, so that the
/// second-level cache keeps pace, and passes over the sums cost more.
const fn part_floats<I: Isa>() -> usize {
    if has_32_registers::<I>() {
        64 * 1024
    } else {
        8 * 1024
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
/// As long as all weights fit in the second-level cache, each tile meets those of the task in
/// turn: so the outputs of a pixel are written side by side. Beyond that, all tiles meet one
/// unit's weights in turn, and of those a part at a time that stays near; the outputs hold the
/// sums in between.
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
    let out = &product.layout;
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
    let mut inputs = Spread::over(
        next_input,
        units.len() * tiles_of_unit * blocks * taps.len(),
    );
    // Tiles of one size suit all units if those that end a group have as many vectors.
    let alike = weights.blocks() == 1 || vectors(weights.blocks() - 1) == VECTORS;
    let near = weights.len() <= WEIGHT_FLOATS;
    let none = Finish::default();
    // The parts depend on the weights alone, for they decide in which order sums are added.
    let mut parts = Part::cut(product, part_floats::<I>(), &none).peekable();
    let first_channels = parts.peek().map_or(0..0, |part| part.channels.clone());
    while let Some(part) = parts.next() {
        let steps = part.channels.len().div_ceil(weights.block) * taps.len();
        if alike && near {
            let tiling = tiling(vectors(units.start));
            for number in 0..tiling.tiles() {
                let tile = tiling.tile(number);
                for unit in weights.walk(units.clone()) {
                    runner.run(&part, &unit, &tile, [inputs.next(steps), Ahead::NOTHING]);
                }
            }
            continue;
        }
        // What comes behind the last unit: the next part of the first, or the thread's next task,
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
            let mut weights = Spread::over(next, tiles * steps);
            for number in 0..tiles {
                let ahead = [weights.next(steps), inputs.next(steps)];
                runner.run(&part, &unit, &tiling.tile(number), ahead);
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
    // Inlined, for what a call copies is stored in parts and loaded in whole, which waits until
    // all outputs before it are stored.
    #[inline(always)]
    fn run(&self, part: &Part<'_>, unit: &Unit, tile: &TilePixels, ahead: [Ahead; 2]) {
        let TileRunner { product, input, .. } = self;
        let out = &product.layout;
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
                    output: product.output.as_ptr().add(at),
                    output_channels: block.channels,
                    accumulate: product.accumulate || part.channels.start > 0,
                    far_output: product.far_output(),
                    shared: Shared::default(),
                    ahead: &ahead,
                    finish: part.finish,
                    at,
                    channel,
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
    /// Parts whose weights of one unit are about `most`, so that all tiles find them near.
    fn cut(
        product: &'a Product<'_>,
        most: usize,
        none: &'a Finish<'a>,
    ) -> impl Iterator<Item = Self> {
        let layout = &product.weights.layout;
        let channels = layout.group_in;
        let part = channels
            .div_ceil(parts_of(layout, most))
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

/// In how many parts the sums of a layout are taken.
pub(super) fn parts(ctx: &Context, layout: &BlockedLayout) -> usize {
    struct Most;
    impl SimdOp for Most {
        type Output = usize;
        #[inline(always)]
        fn eval<I: Isa>(self, _: I) -> usize {
            part_floats::<I>()
        }
    }
    parts_of(layout, ctx.dispatch(Most))
}

fn parts_of(layout: &BlockedLayout, most: usize) -> usize {
    let floats = layout.range(0).len();
    // A rest is not worth another pass over the sums.
    if floats <= most * 3 / 2 {
        1
    } else {
        floats.div_ceil(most)
    }
}

/// How a band is cut into tiles of about equal size.
pub(super) struct Tiling {
    /// Rows and columns of the band.
    size: [usize; 2],
    /// How far apart rows and pixels are in the input, and in the output.
    steps: [[usize; 2]; 2],
    /// The most pixels of a tile.
    most: usize,
    /// From how many neighbouring rows a tile's pixels are, one or two, if not from anywhere.
    rows: Option<usize>,
}

/// The pixels of a tile.
pub(super) struct TilePixels {
    pub count: usize,
    /// In how many rows they lie, if not anywhere.
    rows: Option<usize>,
    /// The first pixel's place in input and output if they lie in rows, and otherwise the
    /// band's.
    pub first: [usize; 2],
    /// How far from there all are, if not in rows.
    places: [[usize; 2]; MAX_PIXELS],
}

impl Tiling {
    /// Tiles of a band for output blocks of this many vectors; `steps` says how far apart rows
    /// and pixels are in the input, and in the output.
    #[inline(always)]
    pub fn new<I: Isa>(band: &Band, steps: [[usize; 2]; 2], vectors: usize) -> Self {
        let most = max_pixels::<I>(vectors);
        Tiling {
            size: [band.height(), band.width()],
            steps,
            most,
            rows: has_32_registers::<I>().then(|| {
                let two = steps[0][1] == BLOCK && 2 * band.width() <= most;
                1 + usize::from(two)
            }),
        }
    }

    /// The pixels that tiles share, those of further rows aside, and how many share them.
    fn runs(&self) -> [usize; 2] {
        let [height, width] = self.size;
        match self.rows {
            Some(rows) => [width, height.div_ceil(rows)],
            None => [height * width, 1],
        }
    }

    fn tiles_of_run(&self) -> usize {
        self.runs()[0].div_ceil(self.most)
    }

    pub fn tiles(&self) -> usize {
        self.runs()[1] * self.tiles_of_run()
    }

    #[inline(always)]
    pub fn tile(&self, number: usize) -> TilePixels {
        let [pixels, _] = self.runs();
        let tiles = self.tiles_of_run();
        let (run, tile) = (number / tiles, number % tiles);
        let [start, end] = [tile, tile + 1].map(|t| pixels * t / tiles);
        let place = |row: usize, column: usize| {
            self.steps
                .map(|[row_step, step]| row * row_step + column * step)
        };
        let mut tile = TilePixels {
            count: end - start,
            rows: None,
            first: [0; 2],
            places: [[0; 2]; MAX_PIXELS],
        };
        if let Some(rows) = self.rows {
            let rows_here = rows.min(self.size[0] - run * rows);
            tile.rows = Some(rows_here);
            tile.count *= rows_here;
            tile.first = place(run * rows, start);
        } else {
            let [mut row, mut column] = [start / self.size[1], start % self.size[1]];
            for to in &mut tile.places[..end - start] {
                *to = place(row, column);
                column += 1;
                if column == self.size[1] {
                    (row, column) = (row + 1, 0);
                }
            }
        }
        tile
    }
}

impl TilePixels {
    /// Their addresses, by the steps of their [`Tiling`].
    #[inline(always)]
    pub fn pixels(&self, steps: [[usize; 2]; 2]) -> Pixels<'_> {
        let [[input_row, input], [output_row, output]] = steps;
        match self.rows {
            Some(1) => Pixels::Row { input, output },
            Some(_) => Pixels::TwoRows {
                input_row,
                output_row,
                output,
            },
            None => Pixels::Scattered(&self.places[..self.count]),
        }
    }
}

//! Winograd's minimal filtering, F(4×4, 3×3): 36 multiplications for 16 outputs where the
//! direct way takes 144.
//!
//! Tiles of 6 × 6 inputs, overlapping by two, and the 3 × 3 kernels are transformed; the
//! products of transformed inputs and kernels, summed over channels, are 36 matrix products;
//! a last transform makes 4 × 4 outputs of them. See Lavin and Gray, "Fast Algorithms for
//! Convolutional Neural Networks" (2016). The interpolation points are 0, ±1/√2, ±√2 and ∞:
//! with them, rounding errors are about a third of those with the usual 0, ±1, ±2 and ∞.

use std::f32::consts::{FRAC_1_SQRT_2 as HALF_ROOT, SQRT_2 as ROOT};
use std::ops::Range;

use rten_simd::ops::{BitOps, FloatOps, NumOps};
use rten_simd::{Isa, SimdOp};

use super::cut::{TASK_MACS, TASKS_PER_THREAD};
use super::epilogue::{self, Finish, FinishLanes};
use super::gather::{BLOCK, Source};
use super::microkernel::{Ahead, Pixels, Tile, max_pixels, run_tile};
use super::pack::BlockedLayout;
use super::product::{OutputLayout, Product};
use crate::context::Context;
use crate::memory::AlignedVec;
use crate::scratch::Scratch;
use crate::shared_mut::SharedMut;

/// Outputs of a tile, in rows and columns.
pub(super) const TILE: usize = 4;

/// Inputs of a tile, in rows and columns.
pub(super) const INPUTS: usize = TILE + 2;

/// Matrix products.
pub(super) const POINTS: usize = INPUTS * INPUTS;

/// Floats of transformed inputs at a time: they share the second-level cache with the products
/// of one output block and the weights.
const BAND_FLOATS: usize = 72 * 1024;

/// Transformed weights are four times as many as the weights; beyond this many products of
/// channels, they are made when the first batch comes that is large enough for them to pay.
const MOST_AT_ONCE: usize = 256 * 256;

/// Narrower convolutions spend on the transforms what they save.
const FEWEST_CHANNELS: usize = 16;

/// Whether this is a convolution that the algorithm computes, and not too narrow for it.
pub(super) fn applies(kernel: [usize; 2], stride: [usize; 2], layout: &BlockedLayout) -> bool {
    kernel == [3, 3]
        && stride == [1, 1]
        && layout.groups == 1
        && layout.group_in.min(layout.group_out) >= FEWEST_CHANNELS
}

/// Whether tiles fit a grid of outputs well enough, and are enough to keep the kernel busy: with
/// fewer, loading the weights takes longer than the multiplications that they save.
pub(super) fn fits(batch: usize, grid: [usize; 2]) -> bool {
    let tiles = grid[0].div_ceil(TILE) * grid[1].div_ceil(TILE);
    tiles * TILE * TILE * 2 <= grid[0] * grid[1] * 3 && batch * tiles >= 16
}

/// Transformed weights: for each of the points, one matrix in the order of `layout`.
#[derive(Clone, Debug)]
pub(super) struct TransformedWeights {
    layout: BlockedLayout,
    data: AlignedVec,
}

impl TransformedWeights {
    /// Room for the transformed weights of a layout of nine taps.
    pub fn zeros(ctx: &Context, layout: BlockedLayout) -> Self {
        let layout = layout.with_taps(1);
        let data = ctx.lasting(POINTS * layout.len());
        TransformedWeights { layout, data }
    }

    /// Whether the weights of a layout are few enough to be transformed whatever batch comes.
    pub fn at_once(layout: &BlockedLayout) -> bool {
        layout.group_in * layout.group_out <= MOST_AT_ONCE
    }

    /// Transforms weights in the order of `packed_layout`, which has nine taps.
    pub fn fill(&mut self, ctx: &Context, packed_layout: &BlockedLayout, packed: &[f32]) {
        let destination = Destination {
            layout: self.layout,
            data: SharedMut::new(&mut self.data),
        };
        ctx.parallel(self.layout.units(), |unit| {
            ctx.dispatch(TransformKernels {
                destination: &destination,
                unit,
                packed_layout,
                packed: &packed[packed_layout.range(unit)],
            });
        });
    }

    pub fn bytes(&self) -> usize {
        size_of_val::<[f32]>(&self.data)
    }

    fn unit(&self, point: usize, unit: usize) -> &[f32] {
        let range = self.layout.range(unit);
        let start = point * self.layout.len();
        &self.data[start + range.start..start + range.end]
    }
}

/// Transformed weights that several threads write, each its own units.
struct Destination<'a> {
    layout: BlockedLayout,
    data: SharedMut<'a, f32>,
}

/// Transforms the kernels of a unit. No other thread may store into the unit meanwhile.
struct TransformKernels<'a> {
    destination: &'a Destination<'a>,
    unit: usize,
    packed_layout: &'a BlockedLayout,
    packed: &'a [f32],
}

impl SimdOp for TransformKernels<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let ops = isa.f32();
        let lanes = ops.len();
        let Destination { layout, data } = *self.destination;
        let (_, block) = layout.unit(self.unit);
        let width = block.vectors * lanes;
        let first = layout.range(self.unit).start;
        for input in 0..layout.group_in {
            let row = first + layout.kernel_rows(input).0 * width;
            let (packed_row, step) = self.packed_layout.kernel_rows(input);
            for v in 0..block.vectors {
                let mut lines = [[ops.zero(); 3]; INPUTS];
                for c in 0..3 {
                    let tap = |r: usize| {
                        let row = packed_row + (r * 3 + c) * step;
                        ops.load(&self.packed[row * width + v * lanes..])
                    };
                    let line = kernel_line(isa, [tap(0), tap(1), tap(2)]);
                    for r in 0..INPUTS {
                        lines[r][c] = line[r];
                    }
                }
                for (r, line) in lines.into_iter().enumerate() {
                    for (c, value) in kernel_line(isa, line).into_iter().enumerate() {
                        let at = (r * INPUTS + c) * layout.len() + row + v * lanes;
                        // SAFETY: units have disjoint weights, and the caller has this one.
                        ops.store(value, unsafe { data.slice(at..at + lanes) });
                    }
                }
            }
        }
    }
}

/// Three taps of a line at the points.
#[inline(always)]
fn kernel_line<I: Isa>(isa: I, g: [I::F32; 3]) -> [I::F32; INPUTS] {
    let ops = isa.f32();
    let [third, two_thirds, sixth] = [1.0 / 3.0, 2.0 / 3.0, 1.0 / 6.0].map(|x| ops.splat(x));
    let [root_third, root_sixth] = [ROOT / 3.0, ROOT / 6.0].map(|x| ops.splat(x));
    let even = ops.add(ops.mul(two_thirds, g[0]), ops.mul(third, g[2]));
    let odd = ops.mul(root_third, g[1]);
    let even2 = ops.add(ops.mul(sixth, g[0]), ops.mul(third, g[2]));
    let odd2 = ops.mul(root_sixth, g[1]);
    [
        g[0],
        ops.sub(ops.neg(even), odd),
        ops.sub(odd, even),
        ops.add(even2, odd2),
        ops.sub(even2, odd2),
        g[2],
    ]
}

/// Six inputs of a line at the points.
#[inline(always)]
pub(super) fn transform_inputs<I: Isa>(isa: I, d: [I::F32; INPUTS]) -> [I::F32; INPUTS] {
    let ops = isa.f32();
    let [half, two, five_halves] = [0.5, 2.0, 2.5].map(|x| ops.splat(x));
    let [root, half_root] = [ROOT, HALF_ROOT].map(|x| ops.splat(x));
    let even = ops.mul_sub_from(two, d[2], d[4]);
    let odd = ops.mul_sub_from(root, d[1], ops.mul(half_root, d[3]));
    let even2 = ops.mul_sub_from(half, d[2], d[4]);
    let odd2 = ops.mul_sub_from(half_root, d[1], ops.mul(root, d[3]));
    [
        ops.mul_sub_from(five_halves, d[2], ops.add(d[0], d[4])),
        ops.add(even, odd),
        ops.sub(even, odd),
        ops.add(even2, odd2),
        ops.sub(even2, odd2),
        ops.mul_sub_from(five_halves, d[3], ops.add(d[1], d[5])),
    ]
}

/// Four outputs of a line from its products at the points.
#[inline(always)]
fn transform_outputs<I: Isa>(isa: I, m: [I::F32; INPUTS]) -> [I::F32; TILE] {
    let ops = isa.f32();
    let [half, two] = [0.5, 2.0].map(|x| ops.splat(x));
    let [root, half_root] = [ROOT, HALF_ROOT].map(|x| ops.splat(x));
    let [two_roots, quarter_root] = [2.0 * ROOT, 0.5 * HALF_ROOT].map(|x| ops.splat(x));
    let (sum, difference) = (ops.add(m[1], m[2]), ops.sub(m[1], m[2]));
    let (sum2, difference2) = (ops.add(m[3], m[4]), ops.sub(m[3], m[4]));
    [
        ops.add(m[0], ops.add(sum, sum2)),
        ops.mul_add(half_root, difference, ops.mul(root, difference2)),
        ops.mul_add(half, sum, ops.mul(two, sum2)),
        ops.mul_add(
            quarter_root,
            difference,
            ops.mul_add(two_roots, difference2, m[5]),
        ),
    ]
}

/// Where the tiles of a grid of outputs lie.
#[derive(Clone, Copy)]
pub(super) struct Tiles {
    /// Rows and columns of the grid of outputs.
    pub grid: [usize; 2],
    /// Where the inputs of output (0, 0) start.
    pub origin: [isize; 2],
}

impl Tiles {
    fn per_image(&self) -> [usize; 2] {
        self.grid.map(|size| size.div_ceil(TILE))
    }

    pub fn count(&self, batch: usize) -> usize {
        let [rows, columns] = self.per_image();
        batch * rows * columns
    }

    /// Image, row and column of a tile's first output.
    #[inline(always)]
    pub fn position(&self, tile: usize) -> [usize; 3] {
        let [rows, columns] = self.per_image();
        let (tile, column) = (tile / columns, tile % columns);
        [tile / rows, tile % rows * TILE, column * TILE]
    }

    /// The position of the tile after the one at a position.
    #[inline(always)]
    fn after(&self, [image, row, column]: [usize; 3]) -> [usize; 3] {
        if column + TILE < self.grid[1] {
            [image, row, column + TILE]
        } else if row + TILE < self.grid[0] {
            [image, row + TILE, 0]
        } else {
            [image + 1, 0, 0]
        }
    }
}

/// Distances in the transformed inputs `[point][channel block][tile][BLOCK]`.
#[derive(Clone, Copy)]
pub(super) struct TransformedLayout {
    /// Between channel blocks.
    pub plane: usize,
    /// Between points.
    pub point: usize,
}

impl TransformedLayout {
    pub fn new(channels: usize, tiles: usize) -> Self {
        let plane = tiles * BLOCK;
        // An odd number of cache lines keeps the points out of one another's sets.
        let point = (channels.div_ceil(BLOCK) * plane) | BLOCK;
        TransformedLayout { plane, point }
    }

    pub fn len(&self) -> usize {
        POINTS * self.point
    }
}

/// Transforms the inputs of `range` of the tiles into `out`, the first into slot `slot` of the
/// layout. In the last channel block, lanes beyond the channels are zero. No other thread may
/// use these slots meanwhile.
#[inline(always)]
pub(super) fn gather_tiles<I: Isa>(
    isa: I,
    source: &Source<'_>,
    tiles: &Tiles,
    range: Range<usize>,
    layout: &TransformedLayout,
    slot: usize,
    out: SharedMut<'_, f32>,
) {
    let channels = source.channels;
    assert!(out.len() >= layout.len() && (slot + range.len()) * BLOCK <= layout.plane);
    let mut padded = [[0.0_f32; BLOCK]; POINTS];
    let mut position = tiles.position(range.start);
    for i in 0..range.len() {
        let [image, row, column] = position;
        position = tiles.after(position);
        let y = row as isize + tiles.origin[0];
        let x = column as isize + tiles.origin[1];
        let rows = inside(y, source.height);
        let columns = inside(x, source.width);
        let whole = rows.len() == INPUTS && columns.len() == INPUTS;
        let pixel = |r: usize, c: usize| {
            let y = image * source.height + (y + r as isize) as usize;
            (y * source.width + (x + c as isize) as usize) * channels
        };
        for block in 0..channels.div_ceil(BLOCK) {
            let first = block * BLOCK;
            let to = out
                .as_ptr()
                .wrapping_add(block * layout.plane + (slot + i) * BLOCK);
            if first + BLOCK <= channels && !rows.is_empty() && !columns.is_empty() {
                // The first and the last pixel that exist; all others lie between.
                let start = pixel(rows.start, columns.start) + first;
                let end = pixel(rows.end - 1, columns.end - 1) + first + BLOCK;
                let patch = Patch {
                    start: source.data[start..end].as_ptr(),
                    row: source.width * channels,
                    pixel: channels,
                    rows: rows.clone(),
                    columns: columns.clone(),
                };
                // SAFETY: the pixels that exist are readable as the bounds of the slice show,
                // and `out` holds `BLOCK` floats of every tile at every point.
                unsafe {
                    if whole {
                        transform_patch::<I, true>(isa, &patch, to, layout.point);
                    } else {
                        transform_patch::<I, false>(isa, &patch, to, layout.point);
                    }
                }
                continue;
            }
            let count = BLOCK.min(channels - first);
            for r in 0..INPUTS {
                for c in 0..INPUTS {
                    let to = &mut padded[r * INPUTS + c];
                    *to = [0.0; BLOCK];
                    if rows.contains(&r) && columns.contains(&c) {
                        to[..count].copy_from_slice(&source.data[pixel(r, c) + first..][..count]);
                    }
                }
            }
            let patch = Patch {
                start: padded.as_ptr().cast(),
                row: INPUTS * BLOCK,
                pixel: BLOCK,
                rows: 0..INPUTS,
                columns: 0..INPUTS,
            };
            // SAFETY: the patch is all of `padded`; `out` as above.
            unsafe { transform_patch::<I, true>(isa, &patch, to, layout.point) };
        }
    }
}

/// One channel block of the inputs of a tile.
struct Patch {
    /// The first pixel that exists.
    start: *const f32,
    /// Floats between rows and between pixels.
    row: usize,
    pixel: usize,
    /// Which rows and columns exist; the others are zero.
    rows: Range<usize>,
    columns: Range<usize>,
}

/// Transforms a patch, all of whose pixels exist if `WHOLE`, to points that are `point` floats
/// apart.
///
/// # Safety
///
/// [`BLOCK`] floats of each pixel that exists must be readable, and of each point writable.
#[inline(always)]
unsafe fn transform_patch<I: Isa, const WHOLE: bool>(
    isa: I,
    patch: &Patch,
    to: *mut f32,
    point: usize,
) {
    let ops = isa.f32();
    let [top, left] = [patch.rows.start, patch.columns.start];
    for lane in (0..BLOCK).step_by(ops.len()) {
        let mut lines = [[ops.zero(); INPUTS]; INPUTS];
        for c in 0..INPUTS {
            let mut line = [ops.zero(); INPUTS];
            for r in 0..INPUTS {
                if WHOLE || patch.rows.contains(&r) && patch.columns.contains(&c) {
                    let at = (r - top) * patch.row + (c - left) * patch.pixel + lane;
                    // SAFETY: the caller's promise.
                    line[r] = unsafe { ops.load_ptr(patch.start.add(at)) };
                }
            }
            let line = transform_inputs(isa, line);
            for r in 0..INPUTS {
                lines[r][c] = line[r];
            }
        }
        for r in 0..INPUTS {
            let line = transform_inputs(isa, lines[r]);
            for c in 0..INPUTS {
                let at = (r * INPUTS + c) * point + lane;
                // SAFETY: the caller's promise.
                unsafe { ops.store_ptr(line[c], to.add(at)) };
            }
        }
    }
}

/// Which of a tile's inputs from `start` on lie in an image.
#[inline(always)]
fn inside(start: isize, size: usize) -> Range<usize> {
    let clamp = |x: isize| x.clamp(0, INPUTS as isize) as usize;
    let lo = clamp(-start);
    lo..clamp(size as isize - start).max(lo)
}

/// Computes a product whose window is 3 × 3 with stride 1, by its transformed weights.
pub(super) fn run(ctx: &Context, product: &Product<'_>, weights: &TransformedWeights) {
    let layout = &weights.layout;
    let tiles = Tiles {
        grid: product.grid,
        origin: product.window.origin,
    };
    let count = tiles.count(product.batch);
    let threads = ctx.threads();
    let channels = layout.group_in.next_multiple_of(BLOCK);
    // Whole rows of the micro-kernel, but no less than what makes loading the weights pay.
    let most = (BAND_FLOATS / (POINTS * channels)).max(28);
    let units = layout.units();
    // Bands share nothing but weights, which are large, and output blocks the inputs' transform:
    // for few tiles it is better to cut the weights.
    let tasks = if threads > 1 {
        TASKS_PER_THREAD * threads
    } else {
        1
    };
    let bands = count
        .div_ceil(most)
        .max(tasks.div_ceil(units))
        .min(count.div_ceil(14));
    let band = count.div_ceil(bands);
    let bands = count.div_ceil(band);
    let macs = POINTS * band * layout.macs_per_pixel();
    let splits = tasks
        .div_ceil(bands)
        .min(macs.div_ceil(TASK_MACS))
        .clamp(1, units);
    let transformed = TransformedLayout::new(layout.group_in, band);
    let width = super::microkernel::VECTORS * layout.lanes();
    ctx.parallel_with(
        bands * splits,
        || State {
            inputs: ctx.scratch(transformed.len()),
            products: ctx.scratch(POINTS * (band * width + BLOCK)),
            gathered: None,
        },
        |state, task| {
            let (index, part) = (task / splits, task % splits);
            ctx.dispatch(RunTiles {
                ctx,
                product,
                weights,
                tiles: &tiles,
                range: index * band..count.min((index + 1) * band),
                transformed: &transformed,
                units: units * part / splits..units * (part + 1) / splits,
                state,
            });
        },
    );
}

/// What a thread keeps from one task to the next.
struct State<'a> {
    inputs: Scratch<'a>,
    products: Scratch<'a>,
    /// The first of the tiles whose inputs are there.
    gathered: Option<usize>,
}

struct RunTiles<'a, 'b> {
    ctx: &'a Context,
    product: &'a Product<'a>,
    weights: &'a TransformedWeights,
    tiles: &'a Tiles,
    range: Range<usize>,
    transformed: &'a TransformedLayout,
    units: Range<usize>,
    state: &'a mut State<'b>,
}

impl SimdOp for RunTiles<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let RunTiles {
            ctx,
            product,
            weights,
            tiles,
            range,
            transformed,
            units,
            state,
        } = self;
        if state.gathered != Some(range.start) {
            state.gathered = Some(range.start);
            let out = SharedMut::new(&mut state.inputs);
            let source = &product.source;
            gather_tiles(isa, source, tiles, range.clone(), transformed, 0, out);
        }
        for unit in units {
            run_unit(
                ctx,
                isa,
                product,
                weights,
                tiles,
                &range,
                transformed,
                unit,
                state,
            );
        }
    }
}

#[inline(always)]
fn run_unit<I: Isa>(
    ctx: &Context,
    isa: I,
    product: &Product<'_>,
    weights: &TransformedWeights,
    tiles: &Tiles,
    range: &Range<usize>,
    transformed: &TransformedLayout,
    unit: usize,
    state: &mut State<'_>,
) {
    let ops = isa.f32();
    let lanes = ops.len();
    let layout = &weights.layout;
    let (_, block) = layout.unit(unit);
    let vectors = block.vectors;
    let width = vectors * lanes;
    // An odd number of cache lines keeps the points out of one another's sets.
    let point_len = (range.len() * width) | BLOCK;
    assert!(state.products.len() >= POINTS * point_len);
    assert!(state.inputs.len() >= transformed.len());
    let runs = range.len().div_ceil(max_pixels::<I>(vectors));
    for point in 0..POINTS {
        let packed = weights.unit(point, unit);
        let next = if point + 1 < POINTS {
            weights.unit(point + 1, unit)
        } else {
            // Of this task or, most often, the thread's next one.
            weights.unit(0, (unit + 1) % layout.units())
        };
        for run in 0..runs {
            let [start, end] = [run, run + 1].map(|r| range.len() * r / runs);
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
                        pixels: Pixels::Row(width),
                        plane: transformed.plane,
                        taps: &[0],
                        channels: layout.group_in,
                        weights: packed.as_ptr(),
                        output: state
                            .products
                            .as_mut_ptr()
                            .add(point * point_len + start * width),
                        output_channels: width,
                        accumulate: false,
                        ahead: [
                            Ahead::of(next, run, runs, layout.group_in.div_ceil(BLOCK)),
                            Ahead::NOTHING,
                        ],
                        finish: &Finish::default(),
                        at: 0,
                        channel: 0,
                    },
                );
            }
        }
    }
    let OutputLayout {
        offset,
        image: image_len,
        row: row_len,
        pixel,
    } = product.layout;
    for v in 0..vectors {
        let channel = block.first + v * lanes;
        let finish = product
            .finish
            .lanes(isa, channel, lanes.min(block.channels - v * lanes));
        let mut position = tiles.position(range.start);
        for i in 0..range.len() {
            let [image, row, column] = position;
            position = tiles.after(position);
            let from = i * width + v * lanes;
            let mut lines = [[ops.zero(); INPUTS]; TILE];
            for c in 0..INPUTS {
                let line = std::array::from_fn(|r| {
                    let at = (r * INPUTS + c) * point_len + from;
                    // SAFETY: within the length asserted above.
                    unsafe { ops.load_ptr(state.products.as_ptr().add(at)) }
                });
                let line = transform_outputs(isa, line);
                for r in 0..TILE {
                    lines[r][c] = line[r];
                }
            }
            let mut sums = [[ops.zero(); TILE]; TILE];
            for r in 0..TILE {
                sums[r] = transform_outputs(isa, lines[r]);
            }
            let size = [
                TILE.min(product.grid[0] - row),
                TILE.min(product.grid[1] - column),
            ];
            let at = offset + image * image_len + row * row_len + column * pixel + channel;
            // SAFETY: the outputs of a tile within the grid are this task's alone;
            // `Product`'s makers assert that they lie in the output tensor, which residual and
            // second output equal in length.
            unsafe {
                if size == [TILE; 2] && finish.mask.is_none() {
                    store_whole(isa, product, &finish, sums, at);
                } else {
                    store_part(isa, product, &finish, &sums, size, at);
                }
            }
        }
    }
}

/// Stores a tile's sums, finished or added to the output, and the second output; the first of
/// them is element `at` of the output tensor. No loop here has branches, so that the sums stay
/// in registers.
///
/// # Safety
///
/// The elements must lie in the output tensor, whose length the residual and the second output
/// share, and no other thread may use them.
#[inline(always)]
unsafe fn store_whole<I: Isa>(
    isa: I,
    product: &Product<'_>,
    lanes: &FinishLanes<I>,
    mut sums: [[I::F32; TILE]; TILE],
    at: usize,
) {
    let ops = isa.f32();
    let OutputLayout { row, pixel, .. } = product.layout;
    let finish = &product.finish;
    macro_rules! each {
        (|$sum:ident, $at:ident| $body:expr) => {
            for r in 0..TILE {
                for c in 0..TILE {
                    let $at = at + r * row + c * pixel;
                    let $sum = &mut sums[r][c];
                    $body;
                }
            }
        };
    }
    let output = product.output.as_ptr();
    // SAFETY: the caller's promise.
    unsafe {
        if product.accumulate {
            each!(|sum, at| *sum = ops.add(*sum, ops.load_ptr(output.add(at))));
        } else if let Some(residual) = finish.residual {
            let from = residual.as_ptr();
            each!(|sum, at| *sum = lanes.first.with(isa, *sum, ops.load_ptr(from.add(at))));
        } else if !finish.is_identity() {
            each!(|sum, _at| *sum = lanes.first.of(isa, *sum));
        }
        if let Some(second) = &finish.second {
            let out = second.out.as_ptr();
            each!(|sum, at| ops.store_ptr(lanes.second.of(isa, *sum), out.add(at)));
        }
        each!(|sum, at| ops.store_ptr(*sum, output.add(at)));
    }
}

/// [`store_whole`] for a tile that the grid or the channels cut: its first `size` rows and
/// columns.
///
/// # Safety
///
/// As for [`store_whole`].
#[inline(always)]
unsafe fn store_part<I: Isa>(
    isa: I,
    product: &Product<'_>,
    lanes: &FinishLanes<I>,
    sums: &[[I::F32; TILE]; TILE],
    size: [usize; 2],
    at: usize,
) {
    let OutputLayout { row, pixel, .. } = product.layout;
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
